"""A small gateway for the load test's tests: both protocols, an admin API, and faults on demand. Not a test itself.

It also answers as a TorchServe with our handler would, for runs that go past the gateway.

The model is the identity: output_0 is the input, so the right label of a row is the place of its largest number. Arms
are chosen by the unit's hash. Run as a script it prints its addresses as one JSON line and serves until its input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httptools

from gateway.protocol.descriptors import message_class, method_path


@dataclass
class State:
    """What the fake serves and how badly. break_arm answers 503 (UNAVAILABLE); wrong_arm answers shifted rows."""

    model: str = "tiny"
    break_arm: str = ""
    wrong_arm: str = ""
    slow_ms: int = 0  # of gRPC
    weights: dict[str, int] = field(default_factory=lambda: {"alpha": 50, "beta": 50})

    def arm(self, unit: str) -> str:
        """Sticky by hash over the weights."""
        place = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big") * sum(self.weights.values())
        reached = 0
        for arm, weight in self.weights.items():
            reached += weight
            if place < reached << 64:
                return arm
        raise AssertionError("weights add up to nothing")

    def predict(self, body: bytes, arm: str) -> bytes:
        """The identity, or its rows turned by one place."""
        rows = json.loads(body)["instances"]
        if arm and arm == self.wrong_arm:
            rows = [[*row[1:], row[0]] for row in rows]
        return json.dumps({"predictions": rows}).encode()

    def experiments(self) -> dict[str, Any]:
        """The admin API's experiments."""
        arms = {
            arm: {
                "backend": arm,
                "weight": weight,
                "kind": "fake",
                "implementation": "fake 1",
                "stand_in": True,
                "ready": True,
                "wire": {"tfs-rest": "tfs-rest", "tfs-grpc": "tfs-grpc"},
            }
            for arm, weight in self.weights.items()
        }
        experiment = {"id": "fake", "salt": "s", "unit_header": "x-user-id", "phase": 1, "killed": None, "arms": arms}
        return {"revision": 7, "experiments": {self.model: experiment}}


class Http(asyncio.Protocol):
    """Predict and the admin API over HTTP/1.1."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._parser = httptools.HttpRequestParser(self)
        self._clear()

    def _clear(self) -> None:
        self._url, self._unit, self._form, self._body = b"", "", "", bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-user-id":
            self._unit = value.decode()
        if name.lower() == b"x-abgate-format":
            self._form = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, state = self._url.decode(), self._state
        extra = ""
        status, answer = 200, b"{}"
        if path.endswith(":predict"):
            arm = state.arm(self._unit)
            extra = f"x-abgate-arm: {arm}\r\nX-Abgate-Assignment: sticky\r\nx-request-id: r-{self._unit}\r\n"
            if arm == state.break_arm:
                status = 503
            else:
                answer = state.predict(bytes(self._body), arm)
        elif path.startswith("/predictions/"):
            answer = state.predict(bytes(self._body), "") if self._form == "tfs-json" else b""
        elif path == "/metrics":
            answer = b"requests_total 7\n"
        elif path == "/admin/v1/experiments":
            answer = json.dumps(state.experiments()).encode()
        elif path == "/admin/v1/status":
            answer = json.dumps({"pids": [os.getpid()], "config_sha256": "c" * 64}).encode()
        elif path.startswith("/admin/v1/records"):
            answer = json.dumps({"written": 0, "dropped": 3, "segments": []}).encode()
        else:
            status = 404
        self._clear()
        head = f"HTTP/1.1 {status} X\r\n{extra}content-length: {len(answer)}\r\n\r\n"
        self._transport.write(head.encode() + answer)


def predict_grpc(state: State, request: bytes, context: grpc.ServicerContext) -> bytes:
    """PredictionService.Predict."""
    unit = dict(context.invocation_metadata()).get("x-user-id", "")
    arm = state.arm(unit)
    told = (("x-abgate-arm", arm), ("x-abgate-assignment", "sticky"), ("x-request-id", f"g-{unit}"))
    context.set_trailing_metadata(told)
    time.sleep(state.slow_ms / 1000)
    if arm == state.break_arm:
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
    asked = message_class("tensorflow.serving.PredictRequest").FromString(request)
    answer = message_class("tensorflow.serving.PredictResponse")()
    tensor = next(iter(asked.inputs.values()))
    if arm == state.wrong_arm:
        tensor.tensor_content = tensor.tensor_content[4:] + tensor.tensor_content[:4]
    answer.outputs["output_0"].CopyFrom(tensor)
    return bytes(answer.SerializeToString())


def predictions_grpc(state: State, request: bytes, context: grpc.ServicerContext) -> bytes:
    """TorchServe's InferenceAPIsService.Predictions, in the frame of our handler."""
    asked = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(request)
    head = b'{"status":200,"batch_size":1,"batch_rows":1}'
    frame = b"ABG1" + len(head).to_bytes(4, "little") + head + state.predict(asked.input["tfs-json"], "")
    return bytes(
        message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=frame).SerializeToString()
    )


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, state: State) -> None:
        self._handlers = {
            method_path("tensorflow.serving.PredictionService", "Predict"): grpc.unary_unary_rpc_method_handler(
                lambda request, context: predict_grpc(state, request, context)
            ),
            method_path(
                "org.pytorch.serve.grpc.inference.InferenceAPIsService", "Predictions"
            ): grpc.unary_unary_rpc_method_handler(lambda request, context: predictions_grpc(state, request, context)),
        }

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)


def listen_grpc(rpc: grpc.Server, certificate: str, key: str) -> int:
    """A free port of the gRPC server, with TLS where a certificate is named."""
    if not certificate:
        return int(rpc.add_insecure_port("127.0.0.1:0"))
    pair = [(Path(key).read_bytes(), Path(certificate).read_bytes())]
    return int(rpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)))


async def serve(state: State, certificate: str) -> None:
    """Serve both protocols on free ports until standard input ends."""
    loop = asyncio.get_running_loop()
    context, key = None, certificate.replace(".pem", ".key")
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    server = await loop.create_server(lambda: Http(state), "127.0.0.1", 0, ssl=context)
    rpc = grpc.server(ThreadPoolExecutor(8), handlers=[_Handler(state)])
    port = listen_grpc(rpc, certificate, key)
    rpc.start()
    http = server.sockets[0].getsockname()[1]
    print(json.dumps({"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{port}", "pid": os.getpid()}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    rpc.stop(None).wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--break-arm", default="")
    parser.add_argument("--wrong-arm", default="")
    parser.add_argument("--slow-ms", type=int, default=0)
    parser.add_argument("--certificate", default="")
    given = vars(parser.parse_args())
    certificate = given.pop("certificate")
    asyncio.run(serve(State(**given), certificate))
