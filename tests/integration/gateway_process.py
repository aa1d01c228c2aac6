"""`abgate serve` as a process of its own in front of two fake servers, on free ports it tells in its log."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from backends.fake.behaviour import Shape
from backends.fake.server import FakeBackend

SIGNATURE = {
    "format": 1,
    "model": "m",
    "signature_name": "serving_default",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "output_0", "datatype": "FP32", "shape": [-1, 1]}],
}
BODY = {"instances": [[1.0, 2.0]]}


@dataclass
class Reply:
    """status, headers in lower case, the decoded body."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class GatewayProcess:
    """A gateway under test."""

    folder: Path
    process: subprocess.Popen[str]
    http: str = ""
    grpc: str = ""
    cafile: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; header names are given with _ for -."""
        data = None if body is None else json.dumps(body).encode()
        named = {"content-type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
        scheme = "https" if self.cafile else "http"
        context = ssl.create_default_context(cafile=self.cafile) if self.cafile else None
        request = urllib.request.Request(f"{scheme}://{self.http}{path}", data=data, method=method, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return Reply(answer.status, _lower(answer.headers), _decoded(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _lower(error.headers), _decoded(error.read()))

    def predict(self, **headers: str) -> Reply:
        """One inference request for model m."""
        return self.send("POST", "/v1/models/m:predict", BODY, **headers)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(15)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()


@contextmanager
def two_fakes() -> Iterator[dict[str, FakeBackend]]:
    """A fake TorchServe `ts` and a fake TensorFlow Serving `tf`."""
    shape = Shape(models=("m",))
    with FakeBackend(shape=shape) as torch, FakeBackend(shape=shape) as tensorflow:
        yield {"ts": torch, "tf": tensorflow}


def configuration(fakes: dict[str, FakeBackend], **changes: Any) -> dict[str, Any]:
    """abgate.yaml's content over two fakes; changes replace whole sections."""
    kinds = {"ts": "torchserve", "tf": "tensorflow_serving"}
    document: dict[str, Any] = {
        "listen": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"},
        "logging": {"format": "json"},
        "backends": {name: {"kind": kinds[name], "http": fake.http, "grpc": fake.grpc} for name, fake in fakes.items()},
        "models": {
            "m": {
                "signature": "signature.json",
                "arms": {"a": {"backend": "ts", "weight": 50}, "b": {"backend": "tf", "weight": 50}},
                "experiment": {"id": "e", "salt": "s1", "unit": {"header": "x-user-id"}, "allow_forced_arm": True},
            }
        },
    }
    return document | changes


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Put a configuration and its signature into a folder."""
    (folder / "signature.json").write_text(json.dumps(SIGNATURE))
    path = folder / "abgate.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@contextmanager
def gateway(folder: Path, document: dict[str, Any]) -> Iterator[GatewayProcess]:
    """A started gateway; it is killed at the end unless it has ended."""
    path = write(folder, document)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(path)], stderr=subprocess.PIPE, text=True
    )
    found = GatewayProcess(folder, process)
    if "tls" in document["listen"]:
        found.cafile = str(folder / document["listen"]["tls"]["cert"])
    serving = threading.Event()
    reader = threading.Thread(target=_read, args=(found, serving), daemon=True)
    reader.start()
    try:
        if not serving.wait(30):
            process.kill()
            raise AssertionError(f"the gateway did not start: {found.events}")
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        if process.stderr is not None:
            process.stderr.close()


def _read(found: GatewayProcess, serving: threading.Event) -> None:
    assert found.process.stderr is not None
    for line in found.process.stderr:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": line.rstrip()}
        found.events.append(event)
        if event.get("event") == "gateway.serving":
            found.http, found.grpc = event["http"], event["grpc"]
            serving.set()


def until(what: str, check: Any, seconds: float = 15.0) -> Any:
    """Ask again until the answer is true, up to a deadline; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def ready(found: GatewayProcess) -> None:
    """Wait until readyz says 200."""
    until("ready", lambda: found.send("GET", "/readyz").status == 200)
