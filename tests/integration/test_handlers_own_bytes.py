"""A handler's own bytes over real sockets: passed on unread, by a codec to an arm of tensors, and streamed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from exchange_doubles import X, ask, predictions, world

from gateway.experiments.model import Opaque
from gateway.protocol import torchserve
from gateway.protocol.descriptors import message_class
from gateway.upstream.grpc_client import GrpcArm


async def test_a_handlers_own_bytes_pass_predictions_unread_and_streams_are_refused() -> None:
    async with world(only=("ts-grpc", "tf-grpc"), guard="off") as it:
        route = it.plane.routes["m"]
        route.signature = None
        double = it.doubles["ts-grpc"]
        response = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=b"a cat")

        async def handler(payload: bytes, context: object) -> bytes:
            serialized: bytes = response.SerializeToString()
            return serialized

        double.answer = handler
        path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
        got = await it.call(path, predictions(b"\xff\xd8 a JPEG"), {"x-abgate-arm": "ts-grpc"})
        assert (got.status, got.body) == (0, response.SerializeToString())
        request = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(
            it.seen["ts-grpc"]()[0]
        )
        assert (request.model_name, request.input["data"]) == ("theirs", b"\xff\xd8 a JPEG")
        got = await it.call(path, predictions(b"\xff\xd8 a JPEG"), {"x-abgate-arm": "tf-grpc"})
        assert got.status == 9
        assert "is no TorchServe" in got.text
        stream = it.channel.unary_stream(path.replace("/Pred", "/StreamPred"))(predictions(b"x"), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert it.forwarded() == {"ts-grpc": 1}
        for client in ("oip-json", "oip-grpc", "tfs-grpc"):  # tensors are nothing such a handler reads
            got = await ask(it, client, X, "ts-grpc")
            assert got.status in (400, 9), (client, got.text)
        assert it.forwarded() == {"ts-grpc": 1}


class Pairs:
    """A codec of two numbers in a text."""

    def decode(self, body: bytes, content_type: str) -> dict[str, np.ndarray[Any, Any]]:
        return {"x": np.array([[float(word) for word in body.split()]], "<f4")}

    def encode(self, outputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[bytes, str]:
        return b"sum %g" % outputs["y"][0, 0], "text/plain"


async def test_a_handlers_own_bytes_reach_an_arm_of_tensors_by_the_codec_over_grpc_too() -> None:
    async with world(only=("ts-grpc", "tf-grpc")) as it:
        route = it.plane.routes["m"]
        route.opaque, route.codec = Opaque(), Pairs()
        got = await it.call(torchserve.PREDICTIONS, predictions(b"1.5 2"), {"x-abgate-arm": "tf-grpc"})
        answer = message_class("org.pytorch.serve.grpc.inference.PredictionResponse").FromString(got.body)
        assert (got.status, answer.prediction) == (0, b"sum 3.5")
        record = it.rows.records[-1]
        assert (record.protocol_in, record.protocol_out, record.rows) == ("torchserve-grpc", "tfs-grpc", 1)
        for payload, said in (
            (predictions(b"1 2 3"), "shape"),
            (predictions(b"a"), "float"),
            (predictions(b"1 2", "x"), "data"),
        ):
            got = await it.call(torchserve.PREDICTIONS, payload, {"x-abgate-arm": "tf-grpc"})
            assert (got.status, said in got.text) == (3, True), got.text
        assert it.forwarded() == {"tf-grpc": 1}


STREAM = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"


@contextlib.asynccontextmanager
async def streaming(gate: asyncio.Event) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A TorchServe whose handler answers in two pieces, the second once the gate is open; its address and what it was sent."""
    seen: list[bytes] = []
    answer = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")

    async def serve(payload: bytes, context: Any) -> AsyncIterator[bytes]:
        seen.append(payload)
        yield answer(prediction=b"one").SerializeToString()
        await gate.wait()
        yield answer(prediction=b"two").SerializeToString()

    class Paths(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_stream_rpc_method_handler(serve)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Paths(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", seen
    finally:
        await server.stop(0)


async def pieces(call: Any) -> list[bytes]:
    answer = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")
    found: list[bytes] = []
    while (piece := await call.read()) is not grpc.aio.EOF:
        found.append(answer.FromString(piece).prediction)
    return found


async def test_a_handler_that_streams_is_heard_piece_by_piece() -> None:
    gate = asyncio.Event()
    async with streaming(gate) as (address, seen), world(only=("ts-grpc",), timeout_s=1.0) as it:
        arm = it.arms["ts-grpc"]
        await arm.grpc.close()
        arm.grpc = GrpcArm(address, "torchserve", "theirs", None)
        arm.streams = True
        method = it.channel.unary_stream(STREAM)
        good, bad = (predictions(orjson.dumps({"inputs": x})) for x in ([[1, 2]], [[1, 2, 3]]))
        call = method(good, timeout=5)
        first = await call.read()
        assert b"one" in first  # and the second is not there yet
        gate.set()
        assert await pieces(call) == [b"two"]
        (record,) = await it.rows.until(1)
        assert (record.status, record.rows, record.served_arm, record.protocol_out) == (
            0,
            1,
            "ts-grpc",
            "torchserve-grpc",
        )
        assert record.bytes_out > len(first)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pieces(method(bad, timeout=5))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(seen) == 1
        gate.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pieces(method(good, timeout=5))  # the configured time runs out after the first piece
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert it.rows.records[-1].error_kind == "upstream_timeout"
        assert arm.in_flight == 1
        gone = method(good, timeout=5)
        await gone.read()
        gone.cancel()
        assert (await it.rows.until(4))[-1].error_kind == "client_gone"
        gate.set()
        await it.idle()
        assert it.plane.in_flight == 0
