"""Doubles for the gRPC tests: a scripted server on either side's path, and a gateway with two arms in front of two of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from gateway.dataplane import Arm, DataPlane, Route
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec
from gateway.protocol import oip_binary, tfserving_grpc, tfserving_rest, torchserve
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor
from gateway.servers.grpc import GrpcServer, GrpcSettings
from gateway.telemetry.events import Record
from gateway.upstream.grpc_client import GrpcArm

Answer = Callable[[bytes, Any], Awaitable[bytes]]
SIGNATURE = Signature(
    "digits", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),)
)


class Double:
    """A gRPC server that keeps what it is sent and answers as it is told; `path` None takes every method."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[bytes] = []
        self.metadata: list[dict[str, Any]] = []
        self.remaining: list[float] = []

    async def _serve(self, payload: bytes, context: Any) -> bytes:
        self.seen.append(payload)
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        return await self.answer(payload, context)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        handler = grpc.unary_unary_rpc_method_handler(self._serve)

        class Paths(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, handler_call_details: Any) -> Any:
                return handler

        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((Paths(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


def outputs(request: InferRequest) -> tuple[Tensor, ...]:
    """The doubles' model: y is the sum of each row of x."""
    return (Tensor("y", "FP32", request.inputs[0].data.sum(axis=1, keepdims=True)),)


async def tfserving(payload: bytes, context: Any) -> bytes:
    """Answer as TF Serving does, under the server's own name for the model."""
    message = tfserving_grpc.parse_request(payload)
    request = tfserving_grpc.decode_request(message, tfserving_grpc.Limits(1024, 1 << 28))
    answer = InferResponse(request.model, outputs(request), request.version or "7")
    return tfserving_grpc.encode_response(answer, "serving_default")


async def torch(payload: bytes, context: Any) -> bytes:
    """Answer as TorchServe with our handler does."""
    message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(payload)
    if "tfs-json" in message.input:  # TF Serving's JSON, as it came
        asked = tfserving_rest.PredictAsked(message.input["tfs-json"], message.model_name, "", "")
        answer = InferResponse(message.model_name, outputs(asked.request(SIGNATURE)), "1.0")
        body = asked.answer(answer, SIGNATURE).body
    else:
        request = oip_binary.decode_request(message.input["oip-binary"], message.model_name)
        body = oip_binary.encode_response(InferResponse(message.model_name, outputs(request), "1.0"))
    head = {
        "status": 200,
        "batch_size": 3,
        "batch_rows": 5,
        "queue_ns": 1000 + int(message.input["x-abgate-sent-ns"]) % 2,
    }
    sealed = torchserve.envelope(head, body)
    serialized: bytes = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(
        prediction=sealed
    ).SerializeToString()
    return serialized


class Rows:
    """A sink that keeps the records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._more = asyncio.Event()

    def put(self, row: tuple[Any, ...]) -> None:
        self.records.append(Record(*row))
        self._more.set()

    async def until(self, count: int) -> list[Record]:
        """All records, once there are that many."""
        async with asyncio.timeout(5):
            while len(self.records) < count:
                self._more.clear()
                await self._more.wait()
        return self.records


class Gate:
    """A gateway's gRPC side in front of a TF Serving double ("tf") and a TorchServe double ("torch")."""

    def __init__(self, plane: DataPlane, rows: Rows, tf: Double, pt: Double) -> None:
        self.plane = plane
        self.rows = rows
        self.tf = tf
        self.pt = pt
        self.server: GrpcServer
        self.channel: Any
        self.port = 0

    @property
    def arms(self) -> dict[str, Arm]:
        return self.plane.routes["digits"].by_name

    def predict(self, payload: bytes, arm: str = "", timeout: float | None = 5, **metadata: str) -> Any:
        """A Predict call; metadata's underscores are hyphens."""
        pairs = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        if arm:
            pairs.append(("x-abgate-arm", arm))
        return self.channel.unary_unary(tfserving_grpc.PREDICT)(payload, timeout=timeout, metadata=pairs)

    async def idle(self) -> None:
        """Wait until no arm has work under way."""
        async with asyncio.timeout(5):
            while any(arm.in_flight for arm in self.arms.values()):  # noqa: ASYNC110 - a plain counter signals nothing
                await asyncio.sleep(0.001)


def request(values: list[list[float]] | None = None, model: str = "digits", **changes: Any) -> bytes:
    """A PredictRequest's bytes with one input x."""
    data = np.array([[1, 2]] if values is None else values, "<f4")
    tensors = (Tensor("x", "FP32", data),)
    return tfserving_grpc.encode_request(InferRequest(model, tensors, **changes), typed=True)


@contextlib.asynccontextmanager
async def gate(*, limit: int = 64, forced: bool = True, guard: Any = "strict", **settings: Any) -> AsyncIterator[Gate]:
    """Both doubles, the gateway and a channel to it; settings change GrpcSettings."""
    rows = Rows()
    plane = DataPlane(rows, rng=random.Random(7), id_prefix="t-")
    it = Gate(plane, rows, Double(tfserving), Double(torch))
    experiment = Experiment("exp", "salt", "x-user-id", allow_forced_arm=forced)
    specs = (ArmSpec("torch", "ts", 50, "digits_pt"), ArmSpec("tf", "tfs", 50, "digits"))
    async with it.tf.listening() as tf_address, it.pt.listening() as pt_address:
        arms = (
            Arm("torch", "ts", "torchserve", model="digits_pt", version=None, limit=limit),
            Arm("tf", "tfs", "tensorflow_serving", model="digits", version=None, limit=limit),
        )
        arms[0].grpc = GrpcArm(pt_address, "torchserve", "digits_pt", None)
        arms[1].grpc = GrpcArm(tf_address, "tensorflow_serving", "digits", None)
        for arm in arms:
            arm.ready = True
        spec = ModelSpec("digits", specs, experiment, guard=guard, labels={"stable": "7"})
        plane.routes["digits"] = Route(spec, arms, SIGNATURE)
        defaults: dict[str, Any] = {"body_limit": 1 << 20, "rows_limit": 8, "timeout_s": 5.0}
        it.server = GrpcServer(plane, GrpcSettings(**(defaults | settings)))
        it.port = await it.server.start("127.0.0.1:0")
        it.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{it.port}", options=[("grpc.max_receive_message_length", -1)]
        )
        try:
            yield it
        finally:
            await it.channel.close()
            await it.server.stop(0)
            for arm in arms:
                await arm.grpc.close()
