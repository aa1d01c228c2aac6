"""The keys of a TorchServe with token authorisation: which files are read, which are not, and when again."""

import json
import os
from pathlib import Path

import pytest

from gateway.dataplane import Arm
from gateway.upstream.get import Answer
from gateway.upstream.http_client import HttpArm
from gateway.upstream.probe import refusal
from gateway.upstream.token_file import Keys, TokenFile, read_keys

FILE = {
    "management": {"key": "m-1", "expiration time": "2026-01-01T00:00:00Z"},
    "inference": {"key": "i-1", "expiration time": "2026-01-01T00:00:00Z"},
    "API": {"key": "a-1"},
}


@pytest.mark.parametrize(
    ("text", "keys"), [("t0ken\n", Keys("t0ken", "t0ken")), (json.dumps(FILE, indent=2), Keys("i-1", "m-1"))]
)
def test_a_bare_token_and_torchserves_own_file_are_read(text: str, keys: Keys) -> None:
    assert read_keys(text) == keys


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold one token"),
        ("secret word", "must hold one token"),
        ("secret\r\nx-evil: 1", "must hold one token"),
        ("sécret", "must hold one token"),
        ('{"inference": {"key": "secret"', "is not JSON"),
        ('{"inference": {"key": "secret"}}', "has no management.key"),
        ('{"inference": "secret"}', "has no inference.key"),
        ('{"inference": {"key": "secret\\r\\nx: 1"}}', "has no inference.key"),
    ],
)
def test_anything_else_is_refused_without_telling_what_it_holds(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_keys(text)
    assert "secret" not in str(caught.value)


def test_the_file_is_read_again_when_it_changes_and_the_last_good_keys_stay(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    file = TokenFile(path)
    file.refresh()
    assert file.keys == Keys("", "")
    assert file.problem == f"its token file {path} cannot be read: No such file or directory"
    path.write_text("one")
    file.refresh()
    assert (file.keys.inference, file.problem) == ("one", "")
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    file.refresh()
    assert file.keys.inference == "two"
    path.write_text('{"inference"')  # half written
    file.refresh()
    assert file.keys.inference == "two"
    assert file.problem.endswith("is not JSON")
    path.write_text(json.dumps(FILE))
    file.refresh()
    assert (file.keys, file.problem) == (Keys("i-1", "m-1"), "")
    path.unlink()
    path.mkdir()
    file.refresh()
    assert file.keys == Keys("i-1", "m-1")
    assert "must be a file" in file.problem


class Client:
    """What an arm's client is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def authorize(self, authorization: str) -> None:
        self.told.append(authorization)


def test_an_arms_clients_get_the_inference_key(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(json.dumps(FILE))
    arm = Arm("a", "ts", "torchserve", model="m", version=None, limit=1)
    arm.http, arm.grpc = Client(), Client()
    TokenFile(tmp_path / "k").present(arm)
    assert arm.http.told == arm.grpc.told == ["Bearer i-1"]


def test_a_new_key_replaces_the_heads_that_were_made_with_the_old_one() -> None:
    arm = HttpArm("127.0.0.1:1", "torchserve", "m", None, "oip-binary")
    assert b"authorization" not in arm.head("1")
    for key in ("old", "new"):
        arm.authorize(f"Bearer {key}")
        assert not arm.heads
        assert b"\r\nauthorization: Bearer %b\r\n" % key.encode() in arm.head("1")
        assert arm.heads["1"] == arm.head("1")
    arm.authorize("Bearer new")
    assert arm.heads  # nothing changed, nothing is made again
    arm.authorize("")
    assert b"authorization" not in arm.head("1")


def test_a_refused_token_says_what_to_do(tmp_path: Path) -> None:
    told = Answer(400, {}, b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}')
    assert refusal(Answer(404, {}, b"{}"), None) == "answers 404"
    assert "name its key_file.json as the backend's token_file" in refusal(told, None)
    file = TokenFile(tmp_path / "k")
    file.refresh()
    assert refusal(told, file).startswith(
        f"answers 400: it does not take the key (any more) that was in its token file {file.path};"
    )
