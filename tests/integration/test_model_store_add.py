"""A user's own pair: the SavedModel and its signature are read by the real TensorFlow, the user's servers are played here."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.protocol import signature_file
from gateway.protocol.signature_file import TensorSpec
from model_store import manifest, remote
from model_store.add import AddRequest, add
from model_store.layout import Layout
from model_store.parity import verify

X = np.arange(24, dtype=np.float32).reshape(12, 2)
METADATA = {
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}},
                    "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}},
                }
            }
        }
    }
}
Answer = Callable[[list[Any]], Any]
Seen = list[tuple[str, str, dict[str, str]]]


@contextmanager
def server(answer: Answer, seen: Seen | None = None) -> Iterator[str]:
    """A server of the user's: answers each POST with answer(instances), each GET with METADATA; a str answer is a 400."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(METADATA)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if seen is not None:
                seen.append((self.path, body["signature_name"], {k.lower(): v for k, v in self.headers.items()}))
            self.reply(answer(body["instances"]))

        def reply(self, document: Any) -> None:
            body = json.dumps({"error": document} if isinstance(document, str) else document).encode()
            self.send_response(400 if isinstance(document, str) else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{httpd.server_address[1]}"
        finally:
            httpd.shutdown()
            thread.join()


def doubled(rows: list[Any]) -> Any:
    return {"predictions": [[2 * value for value in row] for row in rows]}


def bare_and_one_off(rows: list[Any]) -> Any:
    """A user's handler that answers a bare list, and is wrong at the sixth input."""
    return [[2 * a, 2 * b + (0.5 if a == 10 else 0)] for a, b in rows]


def lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in X.tolist()))
    return path


def test_two_running_servers_are_compared_and_verified_again_later(tmp_path: Path) -> None:
    seen: Seen = []
    with server(doubled) as tensorflow, server(doubled, seen) as torchserve:
        given = lines(tmp_path / "x.jsonl")
        request = AddRequest("theirs", given, tensorflow_address=tensorflow, torchserve_address=torchserve)
        result = add(request, tmp_path / "root")
        assert result.failures == ()
        assert result.warnings == ("theirs: proved on 12 inputs only; 1000 are what a comparison should stand on",)
        layout = Layout(tmp_path / "root", "theirs")
        assert result.manifest == layout.manifest
        signature = signature_file.load(layout.signature)
        assert signature.inputs == (TensorSpec("x", "FP32", (-1, 2)),)
        assert manifest.problems(layout) == []
        path, signature_name, headers = seen[0]
        assert (path, signature_name) == ("/predictions/theirs", "serving_default")
        assert headers["x-abgate-format"] == "tfs-json"
        assert headers["content-type"] == "application/json"
        (again,) = verify(["theirs"], tmp_path / "root")
        assert again.ok
    (gone,) = verify(["theirs"], tmp_path / "root")
    assert not gone.ok
    assert "cannot be reached" in gone.failures[0]


def test_a_wrong_answer_names_output_and_input_and_the_pair_is_kept_as_failed(tmp_path: Path) -> None:
    with server(doubled) as tensorflow, server(bare_and_one_off) as torchserve:
        given = lines(tmp_path / "x.jsonl")
        request = AddRequest("theirs", given, tensorflow_address=tensorflow, torchserve_address=torchserve)
        result = add(request, tmp_path / "root")
    assert result.failures == (
        "theirs: torchserve: output 'y' of input 5 at [1] is 22.5 where 22.0 is right, 0.5 apart; "
        "allowed is 1e-05 + 0.0001 x |value|; 1 of 12 inputs are outside",
    )
    assert manifest.problems(Layout(tmp_path / "root", "theirs")) == list(result.failures)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda rows: "no such tensor", "answered 400 to POST /predictions/theirs"),
        (lambda rows: {"predictions": [1]}, "holds no list of 12 predictions"),
        (lambda rows: [{"z": 1} for _ in rows], "output 'y' is missing from prediction 0"),
        (lambda rows: [["a"] for _ in rows], "output 'y' is not a tensor of FP32"),
        (lambda rows: [[1] for _ in rows], "has shape [12, 1] where [12, 2] is right"),
    ],
)
def test_an_answer_that_is_none_fails_in_the_server_s_words(tmp_path: Path, answer: Answer, said: str) -> None:
    with server(doubled) as tensorflow, server(answer) as torchserve:
        given = lines(tmp_path / "x.jsonl")
        request = AddRequest("theirs", given, tensorflow_address=tensorflow, torchserve_address=torchserve)
        (failure,) = add(request, tmp_path / "root").failures
    assert said in failure


HALF = """
import sys
import tensorflow as tf

class Half(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": x / 2}

module = Half()
tf.saved_model.save(module, sys.argv[1], signatures={"halved": module.__call__})
"""


def archive(folder: Path) -> Path:
    (folder / "MAR-INF").mkdir(parents=True)
    model = {"modelName": "x", "handler": "handler.py", "modelVersion": "1.0"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))
    (folder / "handler.py").write_text("# the user's\n")
    return folder


def test_a_savedmodel_and_a_handler_folder(tmp_path: Path) -> None:
    # as a user would bring it: a base path with a version
    subprocess.run([sys.executable, "-c", HALF, str(tmp_path / "saved" / "3")], check=True, capture_output=True)

    @contextmanager
    def torchserve(folder: Path) -> Iterator[str]:
        manifest_json = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
        assert manifest_json["model"]["modelName"] == "mine"
        with server(lambda rows: [[a / 2, b / 2] for a, b in rows]) as address:
            yield address

    np.savez(tmp_path / "x.npz", allow_pickle=False, x=X)
    request = AddRequest(
        "mine",
        tmp_path / "x.npz",
        savedmodel=tmp_path / "saved",
        mar=archive(tmp_path / "theirs"),
        signature_name="halved",
    )
    result = add(request, tmp_path / "root", torchserve)
    assert result.failures == ()
    layout = Layout(tmp_path / "root", "mine")
    assert (layout.savedmodel / "1" / "saved_model.pb").is_file()
    assert (layout.torchserve / "signature.json").is_file()
    signature = signature_file.load(layout.signature)
    assert (signature.signature_name, signature.outputs) == ("halved", (TensorSpec("y", "FP32", (-1, 2)),))
    with pytest.raises(ConfigError, match="exists; choose another name"):
        add(request, tmp_path / "root", torchserve)
    with pytest.raises(ConfigError, match="needs a TorchServe to run; give one"):
        verify(["mine"], tmp_path / "root")
    with pytest.raises(ConfigError, match="has no signature 'serving_default'; it has: halved"):
        add(AddRequest("other", request.inputs, request.savedmodel, mar=request.mar), tmp_path / "root", torchserve)
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == [".lock", "mine"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "../up"}, "letters, digits, dots, dashes and underscores only"),
        ({"name": "digits"}, "belongs to a model of this repository"),
        ({}, "give either a SavedModel directory or the address of a running TensorFlow Serving"),
        ({}, "give either a .mar file or handler folder or the address of a running TorchServe"),
        ({"tensorflow_address": "http://127.0.0.1:1"}, "is not host:port"),
        ({"savedmodel": Path("nowhere")}, "nowhere: there is no such file or directory"),
        ({"mar": Path(__file__)}, "needs a TorchServe to run its handler"),
        ({"rtol": -1.0}, "must not be negative"),
    ],
)
def test_everything_wrong_with_a_request_is_told_before_anything_is_done(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        add(AddRequest(**{"name": "mine", "inputs": tmp_path, **fields}), tmp_path / "root")
    assert said in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_a_directory_without_a_savedmodel_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no saved_model\.pb"):
        add(
            AddRequest("m", lines(tmp_path / "x.jsonl"), tmp_path / "empty", torchserve_address="127.0.0.1:1"), tmp_path
        )


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with server(doubled) as address:
        pass
    request = AddRequest("m", lines(tmp_path / "x.jsonl"), tensorflow_address=address, torchserve_address=address)
    with pytest.raises(remote.RemoteError, match=f"tensorflow at {address} cannot be reached"):
        add(request, tmp_path / "root")
