"""A handler's own bytes: through to TorchServe as they are, guarded by kind and size alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_harness import SIGNATURE, gateway, request, until

from gateway.config import parse
from gateway.errors import ConfigError
from gateway.experiments.model import Opaque
from gateway.preflight import load_codec, prepare
from gateway.servers.http_general import media_type_passes
from gateway.servers.http_limits import HttpSettings
from gateway.upstream.fake import FakeServer, held, raw, reply

JPEG = bytes(range(256)) * 40
OPAQUE: dict[str, Any] = {"kinds": {"a": "torchserve", "b": "torchserve"}, "guard": "off", "signature": None}
PATH = "/predictions/m"


def bare(status: int, body: bytes) -> bytes:
    """An answer as TorchServe gives it: no reason, no Content-Type."""
    return b"HTTP/1.1 %d \r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("content_type", "allowed", "passes"),
    [
        (b"image/jpeg", (), True),
        (b"image/jpeg", ("image/jpeg",), True),
        (b"Image/JPEG; q=1", ("text/plain", "image/jpeg"), True),
        (b"image/png", ("image/*",), True),
        (b"image", ("image/*",), True),
        (b"imagex/png", ("image/*",), False),
        (b"application/octet-stream", ("image/*",), False),
        (b"", ("image/*",), False),
        (b"\xff/\xfe", ("image/*",), False),
    ],
)
def test_media_types(content_type: bytes, allowed: tuple[str, ...], passes: bool) -> None:
    assert media_type_passes(content_type, allowed) is passes


async def test_bytes_and_their_kind_pass_both_ways_and_the_answer_names_what_happened() -> None:
    behaviour, terms = reply(body=b"\x89PNG", content_type="image/png"), Opaque(("image/*",))
    async with FakeServer(behaviour) as arm:  # noqa: SIM117
        async with gateway({"a": arm.address, "b": arm.address}, opaque=terms, **OPAQUE) as gate:
            data = request(
                JPEG, f"{PATH}/2.0", content_type="image/jpeg", x_user_id="u", x_request_id="r", tracestate="t"
            )
            answer = await gate.ask(data)
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/png", b"\x89PNG")
            record = (await gate.recorded(1))[0]
            assert answer.headers["x-abgate-arm"] == record.served_arm == record.assigned_arm
            assert (answer.headers["x-request-id"], answer.headers["x-abgate-assignment"]) == ("r", "sticky")
            assert answer.headers["server-timing"].startswith("gateway;dur=")
            seen = arm.requests[0]
            assert (seen.method, seen.path, seen.body) == ("POST", "/predictions/m/2.0", JPEG)
            told = {"host", "content-type", "content-length", "x-request-id", "tracestate", "x-abgate-sent-ns"}
            assert set(seen.headers) == told
            assert seen.headers["content-type"] == "image/jpeg"
            assert (record.protocol_in, record.protocol_out) == ("torchserve-http", "torchserve-http")
            assert (record.status, record.rows, record.bytes_in, record.version) == (200, 0, len(JPEG), "2.0")


async def test_json_of_tensors_goes_no_fast_way_to_a_handler_of_its_own_bytes_signature_or_not() -> None:
    terms = {
        **OPAQUE,
        "guard": "strict",
        "signature": SIGNATURE,
        "kinds": {"a": "torchserve", "b": "tensorflow_serving"},
    }
    answer = reply(body=b'{"predictions": [[1.0]]}')
    async with (
        FakeServer(answer) as arm,
        gateway({"a": arm.address, "b": arm.address}, opaque=Opaque(), **terms) as gate,
    ):
        rows = json.dumps({"instances": [[1.0, 2.0]]}).encode()
        refused = await gate.ask(request(rows, "/v1/models/m:predict", x_abgate_arm="a"))
        assert (refused.status, arm.requests) == (400, [])
        assert b"takes its handler's own bytes" in refused.body
        passed = await gate.ask(request(rows, "/v1/models/m:predict", x_abgate_arm="b"))
        assert (passed.status, arm.requests[0].body) == (200, rows)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"cat": 0.9}', "application/json"),
        (b"[1]", "application/json"),
        (b"cat", "text/plain; charset=utf-8"),
        (b"\xff\xd8", "application/octet-stream"),
    ],
)
async def test_an_answer_without_a_content_type_gets_one(body: bytes, kind: str) -> None:
    async with FakeServer(raw(bare(200, body))) as arm, gateway({"a": arm.address}, opaque=Opaque(), **OPAQUE) as gate:
        answer = await gate.ask(request(JPEG, PATH, "PUT"))
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, body)
        assert arm.requests[0].method == "POST"
        assert arm.requests[0].headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"content_type": "text/plain"}, 400, "content-type: 'text/plain' is not taken here; send image/jpeg"),
        ({}, 400, "content-type: 'application/octet-stream' is not taken here"),
        ({"content_type": "image/jpeg", "body": b"x" * 20_001}, 413, "takes at most 20000"),
        (
            {"content_type": "image/jpeg", "body": gzip.compress(b"x" * 20_001), "content_encoding": "gzip"},
            413,
            "at most",
        ),
        ({"content_type": "image/jpeg", "content_encoding": "br"}, 400, "'br' is not known"),
        ({"content_type": "image/jpeg", "content_encoding": "gzip"}, 400, "not compressed"),
        ({"content_type": "image/jpeg", "x_request_timeout": "-1"}, 400, "x-request-timeout"),
        ({"content_type": "image/jpeg", "path": "/predictions/nope"}, 404, "Model not found: nope"),
    ],
)
async def test_what_the_guard_refuses_reaches_no_arm(change: dict[str, Any], status: int, told: str) -> None:
    terms = Opaque(("image/jpeg",), 20_000)
    async with FakeServer() as arm, gateway({"a": arm.address}, opaque=terms, **OPAQUE) as gate:
        answer = await gate.ask(request(**{"body": JPEG, "path": PATH, **change}))
        document = json.loads(answer.body)
        assert (answer.status, document["code"]) == (status, status)
        assert told in document["message"]
        assert document["type"] == ("ModelNotFoundException" if status == 404 else "BadRequestException")
        record = (await gate.recorded(1))[0]
        assert (record.status, record.served_arm, record.protocol_in) == (status, "", "torchserve-http")
        assert arm.requests == []


async def test_a_packed_body_is_opened_and_a_handlers_own_refusal_passes() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}, opaque=Opaque(), **OPAQUE) as gate:
        client = await gate.connect()
        assert (await client.ask(request(gzip.compress(JPEG), PATH, content_encoding="gzip"))).status == 200
        assert arm.requests[0].body == JPEG
        arm.script.extend(
            [
                raw(bare(422, b"too small"), close=True),
                raw(bare(503, b'{"code": 503}'), close=True),
                raw(bare(200, b"")),
            ]
        )
        rejected, failed, empty = [await client.ask(request(JPEG, PATH)) for _ in range(3)]
        assert (rejected.status, rejected.body) == (422, b"too small")
        assert (failed.status, json.loads(failed.body)["type"]) == (503, "ServiceUnavailableException")
        assert (empty.status, empty.body) == (200, b"")
        kinds = [record.error_kind for record in await gate.recorded(4)]
        assert kinds == ["", "upstream_rejected", "upstream_unavailable", ""]
        await client.close()


async def test_a_client_that_goes_and_a_time_that_is_up() -> None:
    gate_open = asyncio.Event()
    async with FakeServer(held(gate_open)) as arm, gateway({"a": arm.address}, opaque=Opaque(), **OPAQUE) as gate:
        client = await gate.connect()
        await client.send(request(JPEG, PATH))
        await arm.seen(1)
        await client.close()
        assert (await gate.recorded(1))[0].error_kind == "client_gone"
        assert gate.arms["a"].in_flight == 1
        late = await gate.ask(request(JPEG, PATH, x_request_timeout="0.05"))
        assert (late.status, json.loads(late.body)["type"]) == (504, "RequestTimeoutException")
        gate_open.set()
        await until(lambda: gate.arms["a"].in_flight == 0)


async def test_too_big_for_the_gateway_is_refused_before_it_is_read() -> None:
    settings = HttpSettings(body_limit=1000, timeout_s=5)
    async with FakeServer() as arm, gateway({"a": arm.address}, settings=settings, opaque=Opaque(), **OPAQUE) as gate:
        answer = await gate.ask(request(JPEG, PATH)[:200])
        assert (answer.status, json.loads(answer.body)["code"], answer.headers["connection"]) == (413, 413, "close")
        assert (await gate.recorded(1))[0].protocol_in == "torchserve-http"
        assert arm.requests == []


async def test_no_other_path_leads_past_the_guard() -> None:
    big = HttpSettings(offload_bytes=1000, timeout_s=5)
    async with FakeServer() as arm, gateway({"a": arm.address}, opaque=Opaque(), settings=big, **OPAQUE) as gate:
        client = await gate.connect()
        for path in ("/v1/models/m:predict", "/v2/models/m/infer"):
            for body in (JPEG, JPEG[:100]):
                answer = await client.ask(request(body, path))
                assert (answer.status, "no signature" in json.loads(answer.body)["error"]) == (400, True)
        assert arm.requests == []
        await client.close()


class Pixels:
    """A codec: a body is two bytes, the pixels of an image; the answer is a word."""

    def decode(self, body: bytes, content_type: str) -> dict[str, Any]:
        if len(body) != 2:
            raise ValueError(f"an image has 2 pixels, not {len(body)} ({content_type})")
        kind = np.float64 if body == b"\0\0" else np.float32
        return {"x" if body != b"\1\1" else "image": np.frombuffer(body, np.uint8).astype(kind).reshape(1, 2)}

    def encode(self, outputs: Any) -> tuple[bytes, str]:
        return (b"cat" if outputs["y"][0, 0] > 0 else b"dog"), "text/x-animal"


CODEC: dict[str, Any] = {"kinds": {"a": "torchserve"}, "opaque": Opaque(("image/*",), 100)}


async def test_a_codec_lets_the_same_bytes_reach_an_arm_of_another_kind() -> None:
    async with FakeServer() as server, gateway(dict.fromkeys("ab", server.address), **CODEC) as gate:
        gate.plane.routes["m"].codec = Pixels()
        client = await gate.connect()
        server.script.append(raw(bare(200, b"cat")))
        for arm in "ab":
            data = request(b"\x02\x03", f"{PATH}/1", content_type="image/x", x_abgate_arm=arm)
            answer = await client.ask(data)
            assert (answer.status, answer.body, answer.headers["x-abgate-arm"]) == (200, b"cat", arm)
        assert answer.headers["content-type"] == "text/x-animal"
        theirs, tensors = server.requests
        assert (theirs.path, theirs.body) == ("/predictions/m/1", b"\x02\x03")
        assert tensors.path == "/v1/models/m/versions/1:predict"
        assert json.loads(tensors.body) in ({"inputs": {"x": [[2.0, 3.0]]}}, {"instances": [[2.0, 3.0]]})
        records = [(record.protocol_in, record.protocol_out, record.rows) for record in await gate.recorded(2)]
        assert records == [("torchserve-http", "torchserve-http", 0), ("torchserve-http", "tfs-rest", 1)]
        assert gate.records[1].codec_ns > 0
        await client.close()


async def test_what_a_codec_refuses_and_what_is_its_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeServer() as server, gateway(dict.fromkeys("ab", server.address), **CODEC) as gate:
        gate.plane.routes["m"].codec = Pixels()
        client = await gate.connect()
        for body, content_type, status, told in (
            (b"123", "image/x", 400, "an image has 2 pixels, not 3 (image/x)"),
            (b"12", "text/plain", 400, "content-type"),
            (b"1" * 101, "image/x", 413, "at most 100"),
            (gzip.compress(b"1" * 101), "image/x", 413, "at most 100"),
            (b"\0\0", "image/x", 500, "the gateway failed"),
            (b"\1\1", "image/x", 500, "the gateway failed"),
        ):
            packed = {"content_encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
            answer = await client.ask(request(body, PATH, content_type=content_type, x_abgate_arm="b", **packed))
            document = json.loads(answer.body)
            assert (answer.status, document["code"], told in document["message"]) == (status, status, True), document
        assert "the codec gives float64 for input 'x'; the model takes FP32" in caplog.text
        assert "the codec gives ['image']; the inputs of 'm' are ['x']" in caplog.text
        assert server.requests == []
        await client.close()


PLUGIN = """
def decode(body, content_type): return {}
def encode(outputs): return b"", "text/plain"
"""


def test_a_codec_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pixels-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pixels\nVersion: 1.0\n")
    points = "[abgate.codecs]\npixels = pixels_codec\nhalf = pixels_codec:decode\nbroken = no_such_module\n"
    (folder / "entry_points.txt").write_text(points)
    (tmp_path / "pixels_codec.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_codec("pixels").encode({}) == (b"", "text/plain")
    for name, told in (("half", "no function decode and no encode"), ("broken", "loaded"), ("png", "half, pixels")):
        with pytest.raises(ConfigError, match=told):
            load_codec(name)
    text = """
backends: {ts: {kind: torchserve, http: "127.0.0.1:1", grpc: "127.0.0.1:2"}}
models: {m: {opaque: {codec: png}, arms: {a: {backend: ts}}}}
"""
    with pytest.raises(ConfigError, match=r"models\.m\.opaque\.codec: there is no codec 'png'"):
        prepare(parse(text, tmp_path / "abgate.yaml"))


async def test_an_arm_that_is_no_torchserve_cannot_take_them() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}, opaque=Opaque(), guard="off", signature=None) as gate:
        answer = await gate.ask(request(JPEG, PATH))
        assert (answer.status, json.loads(answer.body)["code"]) == (400, 400)
        assert arm.requests == []
