"""The whole stack as a user starts it: `abgate up` over the real TorchServe and the TensorFlow side, on free ports.

Also a client for each of the gateway's two protocols with the same three values in every answer, so that one table of cases
runs over both.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from backends.free_ports import free_ports
from gateway.protocol.descriptors import message_class

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "model_store" / "artifacts"
ARMS = ("torchserve", "tfserving")
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_FILL = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 413}


@dataclass
class Answer:
    """status 200 or the HTTP code that the protocol's error stands for; rows of the output, headers, the error's text."""

    status: int
    rows: Any
    headers: Mapping[str, str]
    error: str = ""


@dataclass
class Stack:
    """A running `abgate up`."""

    folder: Path
    http: str
    grpc: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One HTTP request; header names are given with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{self.http}{path}", data=body, method=method, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Answer(reply.status, json.loads(reply.read() or b"null"), dict(reply.headers.items()))
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return Answer(error.code, None, dict(error.headers.items()), json.loads(text)["error"] if text else "")

    def rest(self, model: str, rows: Any, *, name: str = "", **headers: str) -> Answer:
        """TF Serving's REST predict in row format."""
        body = json.dumps({"instances": rows.tolist() if isinstance(rows, np.ndarray) else rows}).encode()
        answer = self.send("POST", f"/v1/models/{model}{name}:predict", body, **headers)
        if answer.status == 200:
            answer.rows = np.array(answer.rows["predictions"], np.float32)
        return answer

    def rpc(self, model: str, rows: np.ndarray, *, name: str = "", **headers: str) -> Answer:
        """TF Serving's gRPC Predict; name is "", "/versions/V" or "/labels/L"."""
        request = message_class("tensorflow.serving.PredictRequest")()
        request.model_spec.name = model
        if name.startswith("/versions/"):
            request.model_spec.version.value = int(name.removeprefix("/versions/"))
        elif name:
            request.model_spec.version_label = name.removeprefix("/labels/")
        tensor = request.inputs["pixels" if model == "digits" else "x"]
        tensor.dtype = {"float32": 1, "float64": 2, "int64": 9}[str(rows.dtype)]
        for size in rows.shape:
            tensor.tensor_shape.dim.add().size = size
        tensor.tensor_content = rows.tobytes()
        return self.call(request.SerializeToString(), **headers)

    def call(self, payload: bytes, **headers: str) -> Answer:
        """Predict with given bytes."""
        metadata = [(key.replace("_", "-"), value) for key, value in headers.items()]
        with grpc.insecure_channel(self.grpc) as channel:
            call = channel.unary_unary(_PREDICT)
            try:
                payload, state = call.with_call(payload, timeout=60, metadata=metadata)
            except grpc.RpcError as error:
                status = _FILL.get(error.code().name, 500)  # type: ignore[attr-defined]
                told = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
                return Answer(status, None, told, error.details())  # type: ignore[attr-defined]
        response = message_class("tensorflow.serving.PredictResponse").FromString(payload)
        output = response.outputs["output_0"]
        rows = np.array(output.float_val, np.float32).reshape([dim.size for dim in output.tensor_shape.dim])
        return Answer(200, rows, dict(state.trailing_metadata()))

    def predict(self, protocol: str, model: str, rows: Any, **more: str) -> Answer:
        """One request over "rest" or "grpc"."""
        return (self.rest if protocol == "rest" else self.rpc)(model, rows, **more)

    def experiment(self, model: str = "digits") -> dict[str, Any]:
        """The model's entry of the admin API."""
        return self.send("GET", "/admin/v1/experiments").rows["experiments"][model]

    def backends(self) -> dict[str, Any]:
        """The supervisor's file."""
        return json.loads((self.folder / ".abgate/run/backends.json").read_bytes())

    def scrape(self, arm: str, pattern: str) -> float:
        """Sum of the values of an arm's metrics whose line matches."""
        address = self.backends()["backends"][arm]["metrics"]
        url = f"http://{address}" if "/" in address else f"http://{address}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(pattern, line))

    def wait_ready(self, seconds: float = 90) -> None:
        """Until every arm with weight is ready."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"abgate up ended with {self.process.returncode}: {self.log()}")
            try:
                if self.send("GET", "/readyz").status == 200:
                    return
            except (OSError, json.JSONDecodeError, KeyError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready within {seconds} s: {self.log()}")

    def log(self) -> str:
        return (self.folder / "up.log").read_text()[-4000:]

    def stop(self) -> tuple[float, list[int], int]:
        """SIGTERM; seconds until the end, pids that are left, exit code."""
        family = [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        took = time.monotonic() - begun
        return took, [pid for pid in family if _alive(pid)], code


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start(folder: Path, *, torchserve: str = "{max_batch_size: 8, max_wait_ms: 2}") -> Stack:
    """Start the stack with digits and mlp; the caller stops it."""
    ports = iter(f"127.0.0.1:{port}" for port in free_ports(8))
    http, rpc = next(ports), next(ports)
    document = f"""
listen: {{http: {http}, grpc: {rpc}}}
limits: {{body: 4MiB, rows: 64, timeout: 20s}}
backends:
  torchserve: {{kind: torchserve, http: {next(ports)}, grpc: {next(ports)}, management: {next(ports)}, metrics: {next(ports)},
               start: local, batching: {torchserve}}}
  tfserving: {{kind: tensorflow_serving, http: {next(ports)}, grpc: {next(ports)}, start: local, batching: {torchserve}}}
models:
"""
    for model in ("digits", "mlp"):
        artifacts = ARTIFACTS / model
        document += f"""  {model}:
    signature: {artifacts}/signature.json
    labels: {{stable: "1"}}
    arms:
      torchserve: {{backend: torchserve, weight: 50, artifact: {artifacts}/torchserve/{model}}}
      tfserving: {{backend: tfserving, weight: 50, artifact: {artifacts}/savedmodel}}
    experiment: {{id: {model}-servers, salt: "7f3a", unit: {{header: x-user-id}}, allow_forced_arm: true}}
"""
    (folder / "abgate.yaml").write_text(document)
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "up", "--config", str(folder / "abgate.yaml")],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
    stack = Stack(folder, http, rpc, process)
    try:
        stack.wait_ready()
    except BaseException:
        process.terminate()
        process.wait(30)
        raise
    return stack
