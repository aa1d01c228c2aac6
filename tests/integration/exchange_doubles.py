"""One gateway, both front ends, before an arm of each kind and transport; and a client of each protocol.

The arms are servers on real sockets that read and answer as their protocol says (y is the sum of each row of x) and keep what
they were sent. Nothing of the gateway is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import uvicorn
from grpc_doubles import SIGNATURE, Double, Rows, outputs, tfserving, torch
from http_harness import application, until

from gateway.dataplane import Arm, DataPlane, Route
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec
from gateway.protocol import oip_binary, oip_grpc, oip_rest, tfserving_grpc, tfserving_rest, torchserve
from gateway.protocol.arm_names import Names
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, Asked, Message
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor
from gateway.servers.grpc import GrpcServer, GrpcSettings
from gateway.servers.http import HttpSettings, make_protocol_class
from gateway.upstream import fake
from gateway.upstream.grpc_client import GrpcArm
from gateway.upstream.http_client import HttpArm

LIMITS = tfserving_grpc.Limits(1024, 1 << 28)
# arm -> (kind, transport, wire)
ARMS = {
    "ts-http": ("torchserve", "http", "torchserve-http"),
    "ts-grpc": ("torchserve", "grpc", "torchserve-grpc"),
    "tf-http": ("tensorflow_serving", "http", "tfs-rest"),
    "tf-grpc": ("tensorflow_serving", "grpc", "tfs-grpc"),
    "oip-http": ("open_inference", "http", "oip-rest"),
    "oip-grpc": ("open_inference", "grpc", "oip-grpc"),
}
THEIR_MODEL = "theirs"


def answered(asked: Asked, signature: Signature) -> Any:
    """What a server of the request's protocol answers."""
    request = asked.request(signature)
    renamed = (Tensor(signature.outputs[0].name, "FP32", outputs(request)[0].data),)
    return asked.answer(InferResponse(asked.model, renamed, asked.version or "7"), signature)


def http_arm(wire: str, signature: Signature) -> fake.Behaviour:
    """A server that speaks the wire."""

    async def behave(exchange: fake.Exchange) -> None:
        seen = exchange.request
        if wire == "torchserve-http":
            assert seen.path == f"/predictions/{THEIR_MODEL}"
            if seen.headers["x-abgate-format"] == "oip-binary":
                request = oip_binary.decode_request(seen.body, THEIR_MODEL)
                body = oip_binary.encode_response(InferResponse(THEIR_MODEL, outputs(request), "1.0"))
            else:  # TF Serving's JSON, as it came
                body = answered(tfserving_rest.PredictAsked(seen.body, "m", "", ""), signature).body
            told = {"x_abgate_batch_size": "3", "x_abgate_batch_rows": "5"}
            await exchange.write(fake.response(200, body, **told))
            return
        if wire == "tfs-rest":
            assert seen.path == f"/v1/models/{THEIR_MODEL}:predict"
            asked: Asked = tfserving_rest.PredictAsked(seen.body, "m", "", "")
        else:
            assert seen.path == f"/v2/models/{THEIR_MODEL}/infer"
            length = seen.headers.get(oip_rest.HEAD_LENGTH)
            asked = oip_rest.InferAsked(seen.body, int(length) if length else None, THEIR_MODEL, "")
        message = answered(asked, signature)
        headers = {name.replace("-", "_"): value for name, value in message.headers.items()}
        await exchange.write(fake.response(200, message.body, **headers))

    return behave


def grpc_arm(wire: str, signature: Signature) -> Double:
    """A server that speaks the wire."""

    async def infer(payload: bytes, context: Any) -> bytes:
        body: bytes = answered(oip_grpc.InferAsked(payload, LIMITS), signature).body
        return body

    return Double({"torchserve-grpc": torch, "tfs-grpc": tfserving, "oip-grpc": infer}[wire])


@dataclass
class Got:
    """What a client got: status (HTTP or gRPC number), headers or trailing metadata, the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class World:
    """The gateway under test with its arms."""

    def __init__(self, plane: DataPlane, rows: Rows) -> None:
        self.plane = plane
        self.rows = rows
        self.http_port = 0
        self.grpc_port = 0
        self.seen: dict[str, Callable[[], list[Any]]] = {}
        self.doubles: dict[str, fake.FakeServer | Double] = {}
        self.channel: Any = None

    @property
    def arms(self) -> dict[str, Arm]:
        return dict(self.plane.routes["m"].by_name)

    def forwarded(self) -> dict[str, int]:
        """How many requests each arm was sent, those that were sent none left out."""
        return {name: len(seen()) for name, seen in self.seen.items() if seen()}

    async def idle(self) -> None:
        """Wait until no arm has work under way."""
        await until(lambda: not any(arm.in_flight for arm in self.arms.values()))

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Got:
        """One HTTP request (blocks: call it in a thread)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            return Got(reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    async def call(self, path: str, payload: bytes, headers: dict[str, str]) -> Got:
        """One gRPC call."""
        running = self.channel.unary_unary(path)(payload, timeout=10, metadata=tuple(headers.items()))
        try:
            body: bytes = await running
            return Got(0, dict(await running.trailing_metadata()), body)
        except grpc.aio.AioRpcError as error:
            return Got(error.code().value[0], dict(error.trailing_metadata() or ()), (error.details() or "").encode())


def predictions(payload: bytes, key: str = "data") -> bytes:
    """A PredictionsRequest."""
    message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")(model_name="m")
    message.input[key] = payload
    serialized: bytes = message.SerializeToString()
    return serialized


def message_of(
    client: str, x: np.ndarray, name: str = "x", datatype: str = "FP32"
) -> tuple[str, bytes, dict[str, str]]:
    """(path or method, body, headers) of a request with one input, as a client of the protocol writes it."""
    request = InferRequest("m", (Tensor(name, datatype, x),))
    if client == "tfs-rest":
        return "/v1/models/m:predict", json.dumps({"inputs": {name: x.tolist()}}).encode(), {}
    if client in ("oip-json", "oip-binary"):
        message = oip_rest.ARM.encode(request, ArmTerms("m", "", f"oip-{client[4:]}", None))
        return "/v2/models/m/infer", message.body, dict(message.headers)
    if client == "torchserve-http":
        return (
            "/predictions/m",
            json.dumps({"inputs": {name: x.tolist()}}).encode(),
            {"content-type": "application/json"},
        )
    if client == "tfs-grpc":
        return tfserving_grpc.PREDICT, tfserving_grpc.encode_request(request), {}
    if client == "torchserve-grpc":
        return torchserve.PREDICTIONS, predictions(json.dumps({"inputs": {name: x.tolist()}}).encode()), {}
    return oip_grpc.INFER, oip_grpc.ARM.encode(request, ArmTerms("m", "", "", None)).body, {}


def y_of(client: str, got: Got) -> np.ndarray:
    """The output in an answer, as a client of the protocol reads it."""
    if client in ("tfs-rest", "torchserve-http"):
        return np.array(json.loads(got.body)["outputs"], "<f4")
    if client == "torchserve-grpc":
        answer = message_class("org.pytorch.serve.grpc.inference.PredictionResponse").FromString(got.body)
        return np.array(json.loads(answer.prediction)["outputs"], "<f4")
    if client == "tfs-grpc":
        return tfserving_grpc.decode_response(got.body).outputs[0].data
    terms = ArmTerms("m", "", "", SIGNATURE)
    if client == "oip-grpc":
        return oip_grpc.ARM.decode(Message(got.body), terms).outputs[0].data
    return oip_rest.ARM.decode(Message(got.body, got.headers), terms).outputs[0].data


@contextlib.asynccontextmanager
async def world(
    *, only: tuple[str, ...] = tuple(ARMS), names: Names | None = None, timeout_s: float = 5.0, **changes: Any
) -> AsyncIterator[World]:
    """The arms, the gateway and a gRPC channel to it; changes are ModelSpec's. names are the arms' own for the tensors."""
    rows = Rows()
    plane = DataPlane(rows, rng=random.Random(7), id_prefix="t-")
    it = World(plane, rows)
    signature = Signature("m", "serving_default", SIGNATURE.inputs, SIGNATURE.outputs)
    theirs = (names or Names()).signature(signature) or signature
    async with contextlib.AsyncExitStack() as stack:
        arms = [await _arm(stack, it, name, theirs, names or Names()) for name in only]
        specs = tuple(ArmSpec(arm.name, arm.name, 1, "m") for arm in arms)
        experiment = Experiment("exp", "salt", "x-user-id", True)
        plane.routes["m"] = Route(ModelSpec("m", specs, experiment, **changes), tuple(arms), signature)
        server = GrpcServer(plane, GrpcSettings(body_limit=1 << 20, rows_limit=8, timeout_s=timeout_s))
        it.grpc_port = await server.start("127.0.0.1:0")
        stack.push_async_callback(server.stop, 0)
        it.channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}"))
        await stack.enter_async_context(_http(it, HttpSettings(rows_limit=8, timeout_s=timeout_s)))
        yield it


async def _arm(stack: contextlib.AsyncExitStack, it: World, name: str, signature: Signature, names: Names) -> Arm:
    kind, transport, wire = ARMS[name]
    arm = Arm(name, name, kind, model=THEIR_MODEL, version=None, limit=64)
    arm.ready = True
    if kind == "open_inference":
        arm.format = ""
    if transport == "http":
        server = await stack.enter_async_context(fake.FakeServer(http_arm(wire, signature)))
        loop = asyncio.get_running_loop()
        arm.http = HttpArm.create(server.address, kind, THEIR_MODEL, None, pool_size=8, loop=loop, form=arm.format)
        stack.callback(arm.http.close)
        it.doubles[name], it.seen[name] = server, lambda: server.requests
    else:
        double = grpc_arm(wire, signature)
        address = await stack.enter_async_context(double.listening())
        arm.grpc = GrpcArm(address, kind, THEIR_MODEL, None)
        stack.push_async_callback(arm.grpc.close)
        it.doubles[name], it.seen[name] = double, lambda: double.seen
    arm.settle("", names)
    return arm


@contextlib.asynccontextmanager
async def _http(it: World, settings: HttpSettings) -> AsyncIterator[None]:
    protocol = make_protocol_class(it.plane, settings)
    config = uvicorn.Config(
        application(), host="127.0.0.1", port=0, http=protocol, ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    it.http_port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.should_exit = True
        await task
        protocol.frontend.close()


HTTP_CLIENTS = ("tfs-rest", "oip-json", "oip-binary", "torchserve-http")
GRPC_CLIENTS = ("tfs-grpc", "oip-grpc", "torchserve-grpc")
CLIENTS = (*HTTP_CLIENTS, *GRPC_CLIENTS)
X = np.array([[1, 2], [0.5, -4], [1e-3, 3e7]], "<f4")


async def ask(it: World, client: str, x: np.ndarray, arm: str = "", **how: str) -> Got:
    """One request of a client; arm forces one."""
    place, body, headers = message_of(client, x, **how)
    headers = {**headers, **({"x-abgate-arm": arm} if arm else {})}
    if client in GRPC_CLIENTS:
        return await it.call(place, body, headers)
    return await asyncio.to_thread(it.post, place, body, headers)
