"""Any client to any arm, over real sockets: the same numbers in every cell, and no arm that sees a bad request."""

from __future__ import annotations

import asyncio

import numpy as np
import orjson
import pytest
from exchange_doubles import (
    ARMS,
    CLIENTS,
    X,
    ask,
    message_of,
    predictions,
    world,
    y_of,
)
from grpc_doubles import Double

from gateway.protocol import torchserve
from gateway.protocol.arm_names import Names
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.upstream import fake


async def test_every_client_gets_the_same_numbers_from_every_arm() -> None:
    async with world() as it:
        wanted = X.sum(axis=1, keepdims=True)
        for client in CLIENTS:
            for arm in ARMS:
                got = await ask(it, client, X, arm)
                assert got.status in (0, 200), (client, arm, got.text)
                np.testing.assert_array_equal(y_of(client, got), wanted, err_msg=f"{client} > {arm}")
                assert got.headers["x-abgate-arm"] == arm
        records = await it.rows.until(len(CLIENTS) * len(ARMS))
        for record in records:
            assert record.protocol_out == ARMS[record.served_arm][2]
            assert record.rows == 3
            assert record.error_kind == ""
            assert record.upstream_ns > 0
        told = {(r.protocol_in, r.served_arm): r for r in records}
        assert told["oip-rest", "ts-http"].batch_size == told["oip-grpc", "ts-grpc"].batch_size == 3
        assert told["oip-rest", "tf-grpc"].codec_ns > 0
        assert told["tfs-rest", "tf-http"].codec_ns == told["tfs-grpc", "tf-grpc"].codec_ns == 0
        await it.idle()
        assert it.plane.in_flight == 0


BAD = {
    "rank": ({"x": np.ones(2, "<f4")}, {}),
    "dimension": ({"x": np.ones((1, 3), "<f4")}, {}),
    "empty": ({"x": np.ones((0, 2), "<f4")}, {}),
    "rows": ({"x": np.ones((9, 2), "<f4")}, {}),
    "name": ({"x": np.ones((1, 2), "<f4")}, {"name": "z"}),
}
TYPED = ("oip-json", "oip-binary", "tfs-grpc", "oip-grpc")


async def test_no_arm_sees_a_bad_request_whatever_the_protocol() -> None:
    async with world() as it:
        count = 0
        for client in CLIENTS:
            for arm in ARMS:
                cases = list(BAD.items())
                if client in TYPED:
                    cases.append(("datatype", ({"x": np.ones((1, 2), "<f8")}, {"datatype": "FP64"})))
                for fault, (tensors, how) in cases:
                    got = await ask(it, client, tensors["x"], arm, **how)
                    count += 1
                    wanted = {"rows": (413, 8)}.get(fault, (400, 3))
                    assert got.status in wanted, (client, arm, fault, got.status, got.text)
                    assert got.text, (client, arm, fault)
        assert it.forwarded() == {}
        records = await it.rows.until(count)
        assert {record.error_kind for record in records} == {"invalid_argument", "too_large"}
        assert {record.served_arm for record in records} == {""}
        assert not any(arm.in_flight for arm in it.arms.values())


async def test_an_arms_own_names_are_put_in_and_taken_out_on_every_wire() -> None:
    names = Names.of({"x": "INPUT__0"}, {"y": "OUTPUT__0"})
    only = ("tf-http", "oip-http", "oip-grpc")
    async with world(only=only, names=names) as it:
        for client in CLIENTS:
            for arm in only:
                got = await ask(it, client, X, arm)
                assert got.status in (0, 200), (client, arm, got.text)
                np.testing.assert_array_equal(y_of(client, got), X.sum(axis=1, keepdims=True))
                assert b"PUT__0" not in got.body
        assert all(b"INPUT__0" in request.body for request in it.seen["tf-http"]())
        assert all(b"INPUT__0" in payload for payload in it.seen["oip-grpc"]())


async def test_an_open_inference_message_passes_as_it_was_judged_under_the_arms_names() -> None:
    async with world(only=("oip-grpc",)) as it:
        message = message_class("inference.ModelInferRequest")(model_name="m", parameters={"k": {"int64_param": 3}})
        message.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
        message.inputs[0].parameters["content_type"].string_param = "np"
        got = await it.call("/inference.GRPCInferenceService/ModelInfer", message.SerializeToString(), {})
        assert got.status == 0, got.text
        answer = message_class("inference.ModelInferResponse").FromString(got.body)
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "7", "")
        message.model_name = "theirs"
        assert message_class("inference.ModelInferRequest").FromString(it.seen["oip-grpc"]()[0]) == message
        message.model_name = "m"
        message.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
        got = await it.call("/inference.GRPCInferenceService/ModelInfer", message.SerializeToString(), {})
        assert (got.status, it.forwarded()) == (3, {"oip-grpc": 1})
        double = it.doubles["oip-grpc"]
        assert isinstance(double, Double)

        async def garbage(payload: bytes, context: object) -> bytes:
            return b"\xff\xff"

        double.answer = garbage
        got = await ask(it, "oip-grpc", X)
        assert (got.status, it.rows.records[-1].error_kind) == (14, "upstream_invalid")


async def test_the_same_wire_on_both_sides_gets_the_clients_own_bytes_once_they_were_judged() -> None:
    infer = (
        b' { "id":"7", "parameters":{"k":3}, "inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1.50,2]]}]}'
    )
    rows = b'{ "instances" : [[1.50, 2e0]] }'
    cases = (("oip-http", "/v2/models/m/infer", infer), ("ts-http", "/predictions/m", rows))
    async with world(only=("oip-http", "ts-http", "ts-grpc")) as it:
        for arm, path, body in cases:
            kind = {"content-type": "application/json", "x-abgate-arm": arm}
            got = await asyncio.to_thread(it.post, path, body, kind)
            assert got.status == 200, got.text
            (seen,) = it.seen[arm]()
            assert seen.body == body
            assert (b"3.5" in got.body, b"theirs" in got.body) == (True, False)
            bad = body.replace(b"1.50", b'"1"')
            got = await asyncio.to_thread(it.post, path, bad, kind)
            assert (got.status, it.forwarded()[arm]) == (400, 1)
        assert it.rows.records[2].batch_size == 3  # told by the answer's headers
        payload = predictions(rows)
        got = await it.call(torchserve.PREDICTIONS, payload, {"x-abgate-arm": "ts-grpc"})
        assert got.status == 0, got.text
        request = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(
            it.seen["ts-grpc"]()[0]
        )
        assert (request.model_name, request.input["tfs-json"]) == ("theirs", rows)
        big = orjson.dumps({"instances": [[0.25, 3]] * 8, "more": "x" * 200_000})  # read in the codec process
        got = await asyncio.to_thread(it.post, "/predictions/m", big, {"x-abgate-arm": "ts-http"})
        assert (got.status, it.seen["ts-http"]()[-1].body == big) == (200, True)


async def test_the_transport_is_the_configured_one_else_the_clients_else_what_there_is() -> None:
    async with world(only=("tf-http", "tf-grpc")) as it:
        both, other = it.arms["tf-http"], it.arms["tf-grpc"]
        both.grpc = other.grpc
        for configured, client, wire in (
            ("", "oip-json", "tfs-rest"),
            ("", "oip-grpc", "tfs-grpc"),
            ("grpc", "oip-json", "tfs-grpc"),
            ("grpc", "tfs-rest", "tfs-grpc"),
            ("http", "tfs-grpc", "tfs-rest"),
        ):
            both.settle(configured, Names())
            got = await ask(it, client, X, "tf-http")
            assert got.status in (0, 200), got.text
            assert it.rows.records[-1].protocol_out == wire
        for client in ("tfs-rest", "oip-json"):
            await ask(it, client, X, "tf-grpc")
            assert it.rows.records[-1].protocol_out == "tfs-grpc"
        both.grpc = None


async def test_binary_tensors_go_only_to_a_server_that_says_it_takes_them() -> None:
    async with world(only=("oip-http",)) as it:
        for binary, form in ((False, "application/json"), (True, "application/octet-stream")):
            it.arms["oip-http"].binary = binary
            got = await ask(it, "oip-grpc", X)
            np.testing.assert_array_equal(y_of("oip-grpc", got), X.sum(axis=1, keepdims=True))
            assert it.seen["oip-http"]()[-1].headers["content-type"] == form


FAILURES = [
    (fake.reply(400, b'{"error":"the batch is odd"}'), "upstream_rejected", 400, 3, "the batch is odd"),
    (fake.reply(422, b'{"detail":"no"}'), "upstream_rejected", 422, 3, "422"),
    (fake.reply(404, b'{"error":"Model nope not found"}'), "upstream_rejected", 404, 5, "Model nope not found"),
    (fake.reply(500, b"Internal Server Error"), "upstream_error", 502, 14, "answered 500"),
    (fake.reply(503, b""), "upstream_unavailable", 503, 14, "answered 503"),
    (fake.reply(401, b""), "upstream_error", 502, 14, "answered 401"),
    (fake.reply(200, b"garbage"), "upstream_invalid", 502, 14, "no infer response"),
    (fake.reply(200, b'{"model_name":"m","outputs":[]}'), "upstream_invalid", 502, 14, "'y' is missing"),
    (fake.raw(b"no HTTP at all\r\n\r\n", close=True), "upstream_invalid", 502, 14, "no HTTP/1.1"),
    (fake.reset(), "upstream_reset", 502, 14, "ended the connection"),
]


@pytest.mark.parametrize(
    ("behaviour", "kind", "status", "code", "text"), FAILURES, ids=[f[1] + f[4][:9] for f in FAILURES]
)
async def test_an_arms_failure_is_told_by_its_kind(
    behaviour: fake.Behaviour, kind: str, status: int, code: int, text: str
) -> None:
    async with world(only=("oip-http",)) as it:
        server = it.doubles["oip-http"]
        assert isinstance(server, fake.FakeServer)
        server.behaviour = behaviour
        for client, wanted in (("oip-json", status), ("oip-grpc", code)):
            got = await ask(it, client, X)
            assert (got.status, it.rows.records[-1].error_kind) == (wanted, kind), got.text
            assert text in got.text
        assert len(server.requests) == 2  # one each: nothing is retried
        await it.idle()


async def test_work_nobody_waits_for_keeps_its_place_until_the_server_ends_it() -> None:
    async with world(only=("oip-http",), timeout_s=0.3) as it:
        server = it.doubles["oip-http"]
        assert isinstance(server, fake.FakeServer)
        gate = asyncio.Event()
        server.behaviour = fake.held(gate, fake.reply(200, b"{}"))
        arm = it.arms["oip-http"]
        got = await ask(it, "oip-grpc", X)  # the configured time runs out
        assert (got.status, it.rows.records[-1].error_kind) == (4, "upstream_timeout")
        assert arm.in_flight == 1
        place, body, headers = message_of("oip-grpc", X)
        call = it.channel.unary_unary(place)(body, timeout=5, metadata=tuple(headers.items()))
        await server.seen(2)
        call.cancel()
        records = await it.rows.until(2)
        assert records[-1].error_kind == "client_gone"
        assert arm.in_flight == 2
        gate.set()
        await it.idle()


async def test_a_request_that_never_was_written_gives_its_place_back_at_once() -> None:
    async with world(only=("oip-http",), timeout_s=0.3) as it:
        server = it.doubles["oip-http"]
        assert isinstance(server, fake.FakeServer)
        gate = asyncio.Event()
        server.behaviour = fake.held(gate)
        results = await asyncio.gather(*(ask(it, "oip-grpc", X) for _ in range(12)))  # the pool has 8 connections
        assert [got.status for got in results] == [4] * 12
        assert len(server.requests) == 8
        assert it.arms["oip-http"].in_flight == 8
        gate.set()
        await it.idle()


def test_names_turn_a_signature_and_back() -> None:
    signature = Signature("m", "s", (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
    names = Names.of({"x": "a", "same": "same"}, {"y": "b"})
    turned = names.signature(signature)
    assert turned is not None
    assert ([spec.name for spec in turned.inputs], [spec.name for spec in turned.outputs]) == (["a"], ["b"])
    assert names.turned().signature(turned) == signature
    assert not Names.of({"x": "x"}, {})
