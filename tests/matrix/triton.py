"""A real Triton Inference Server (PyPI: nvidia-pytriton) and a gateway whose arms it is: over HTTP with and without binary tensors,
and over gRPC."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends import venvs
from backends.free_ports import free_ports
from tests.contract import stack as contract
from tests.matrix.stack import MODELS, VENVS, outputs
from tests.matrix.wires import Place

SERVERS = contract.ROOT / "tests" / "servers"
PYTHON = Path("/usr/bin/python3")
# arm -> (transport, format)
ARMS = {"triton-http": ("http", "oip-binary"), "triton-json": ("http", "oip-json"), "triton-grpc": ("grpc", None)}


def why_not() -> str:
    """Why Triton cannot run here ("" when it can): its Python backend is linked against Debian's own Python."""
    if platform.machine() != "x86_64" or not Path("/etc/debian_version").is_file():
        return "nvidia-pytriton brings binaries for Debian and Ubuntu on x86_64 only"
    if not PYTHON.is_file() or not list(Path("/usr/lib/x86_64-linux-gnu").glob("libpython3*.so.1.0")):
        return f"nvidia-pytriton needs Debian's own {PYTHON} with its shared library"
    return ""


class TritonGateway:
    """Where to ask: a gateway before Triton."""

    def __init__(self, gateway: contract.Stack) -> None:
        self.gateway = gateway

    def place(self, model: str, arm: str) -> Place:
        """Where to ask for a model on an arm."""
        return Place(self.gateway.http, self.gateway.grpc, model, outputs(model), {"x-abgate-arm": arm})


@contextmanager
def start(folder: Path) -> Iterator[TritonGateway]:
    """Triton with every model, and `abgate serve` before it."""
    ports = free_ports(5)
    python = venvs.ensure(SERVERS / "pytriton.txt", VENVS, str(PYTHON))
    functions = contract.ROOT / "backends" / "mlserver" / "functions.py"
    arguments = [str(functions), str(contract.ARTIFACTS), *map(str, ports[:3]), *MODELS]
    with _process(folder / "triton.log", str(python), str(SERVERS / "triton_server.py"), *arguments) as triton:
        _await(triton, folder / "triton.log")
        http, grpc = f"127.0.0.1:{ports[3]}", f"127.0.0.1:{ports[4]}"
        config = folder / "abgate.yaml"
        config.write_text(_configuration(http, grpc, ports))
        with _process(folder / "up.log", sys.executable, "-m", "gateway", "serve", "--config", str(config)) as gateway:
            stack = contract.Stack(folder, http, grpc, gateway)
            stack.wait_ready(30)
            yield TritonGateway(stack)


def _configuration(http: str, grpc: str, ports: list[int]) -> str:
    document = f"""
listen: {{http: {http}, grpc: {grpc}}}
backends:
  triton: {{kind: open_inference, http: 127.0.0.1:{ports[0]}, grpc: 127.0.0.1:{ports[1]}}}
models:
"""
    for model in MODELS:
        document += f"  {model}:\n    signature: {contract.ARTIFACTS / model}/signature.json\n    arms:\n"
        for arm, (transport, form) in ARMS.items():
            told = f", format: {form}" if form else ""
            document += f"      {arm}: {{backend: triton, transport: {transport}, weight: 1{told}}}\n"
        document += f'    experiment: {{id: {model}-triton, salt: "7f3a", allow_forced_arm: true}}\n'
    return document


@contextmanager
def _process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that dies with this one, its output in a log; stopped at the end."""
    guard = [sys.executable, "-I", "-S", str(contract.ROOT / "backends" / "child.py"), str(os.getpid()), "-"]
    with log.open("wb") as output:
        process = subprocess.Popen([*guard, *command], cwd=log.parent, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while "\nready" not in "\n" + log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"Triton did not start: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
