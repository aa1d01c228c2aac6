"""What capturing costs a request over HTTP: the gateway with it off, at one request in a hundred, and at every request.

    python tools/capture_cost.py [--requests N] [--runs N] [--baseline FOLDER]

Prints CPU microseconds per request of the gateway's process (all threads, from /proc/PID/task/*/schedstat, in nanoseconds) and
the ratio to "off". --baseline is another checkout, such as one from before there were captures: what "off" itself costs is
its ratio to that. Two gateways of this checkout run: one that is never asked to capture, one that is told anew before each run.
Many short runs take turns, in an order drawn anew each time; the lower quartile is printed: other work on the machine only
ever adds. Never a timed test.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any

HERE = Path(__file__).resolve().parent
CONNECTIONS = 16
CONFIG = """
listen: {{http: "127.0.0.1:0", grpc: "127.0.0.1:0"}}
logging: {{format: json}}
limits: {{concurrency: 4096, keep_alive: 1h}}
backends:
  echo: {{kind: tensorflow_serving, http: "127.0.0.1:{port}", start: none}}
models:
  m:
    signature: signature.json
    arms: {{a: {{backend: echo, weight: 50}}, b: {{backend: echo, weight: 50}}}}
    experiment: {{id: e, salt: s, unit: {{header: x-user-id}}}}
"""
ANSWER = b'{"predictions": [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]]}'
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
BODY = json.dumps({"instances": [[round(place / 64, 4) for place in range(64)]]}).encode()


class Echo(asyncio.Protocol):
    """Answers every request at once with the same."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.rest = transport, b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head = self.rest[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.rest) < end + 4 + size:
                return
            self.rest = self.rest[end + 4 + size :]
            self.transport.write(REPLY)


async def backend() -> None:
    """The arm; prints its port."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Gateway:
    """A gateway under test and the connections to it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.pid = process.pid
        self.address = address
        host, _, port = address.rpartition(":")
        self.sockets = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
        head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        self.request = f"{head}x-user-id: u1\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY

    def capture(self, share: float) -> None:
        """Capture that share from now on; 0 ends it."""
        body: dict[str, Any] = {"who": "capture_cost", "why": "measure"}
        if share:
            body["share"] = share
        url = f"http://{self.address}/admin/v1/capture/{'start' if share else 'stop'}"
        headers = {"content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read()

    def measure(self, requests: int) -> float:
        """CPU microseconds a request."""
        before = cpu_ns(self.pid)
        for _ in range(requests // CONNECTIONS):
            for connection in self.sockets:
                connection.sendall(self.request)
            for connection in self.sockets:
                answer(connection)
        return (cpu_ns(self.pid) - before) / 1000 / (requests // CONNECTIONS * CONNECTIONS)


def answer(connection: socket.socket) -> None:
    """Read one answer; SystemExit when it is none."""
    data = b""
    while not data.endswith(ANSWER):
        piece = connection.recv(65536)
        data += piece
        if not piece or not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the gateway answers {data[:300]!r}")


def cpu_ns(pid: int) -> int:
    """Time on a CPU of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((tasks / name / "schedstat").read_text().split()[0]) for name in os.listdir(tasks))


@contextlib.contextmanager
def child(command: list[str], folder: Path, checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a checkout's code that ends with the block."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def gateway(folder: Path, port: int, checkout: Path) -> Iterator[Gateway]:
    """A checkout's gateway in front of the arm."""
    folder.mkdir()
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
    }
    head = {"format": 1, "model": "m", "signature_name": "serving_default"}
    (folder / "signature.json").write_text(json.dumps(head | tensors))
    (folder / "abgate.yaml").write_text(CONFIG.format(port=port))
    with child([sys.executable, "-m", "gateway", "serve", "--config", "abgate.yaml"], folder, checkout) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if '"gateway.serving"' in line:
                yield Gateway(process, json.loads(line)["http"])
                return
        raise SystemExit("the gateway did not start:\n" + "".join(lines))


def compare(requests: int, runs: int, baseline: Path | None) -> dict[str, list[float]]:
    """CPU microseconds per request, one for each run, by what was captured."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arm = stack.enter_context(child([sys.executable, __file__, "--backend"], folder, HERE.parent))
        assert arm.stdout is not None
        port = int(arm.stdout.readline())
        off = stack.enter_context(gateway(folder / "off", port, HERE.parent))
        on = stack.enter_context(gateway(folder / "on", port, HERE.parent))
        ways: dict[str, tuple[Gateway, float]] = {"off": (off, 0.0), "share 0.01": (on, 0.01), "share 1": (on, 1.0)}
        if baseline is not None:
            ways["baseline"] = (stack.enter_context(gateway(folder / "baseline", port, baseline)), 0.0)
        for one in {way[0] for way in ways.values()}:
            one.measure(1000)
        found: dict[str, list[float]] = {name: [] for name in ways}
        rng = random.Random(1)
        for _ in range(runs):
            for name in rng.sample(list(ways), len(ways)):
                one, share = ways[name]
                if share:
                    one.capture(share)
                found[name].append(one.measure(requests))
                if share:
                    one.capture(0)
        return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1600)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        asyncio.run(backend())
        return
    found = compare(options.requests, options.runs, options.baseline and options.baseline.resolve())
    quiet = {name: quantiles(runs, n=4)[0] for name, runs in found.items()}
    for name, cost in quiet.items():
        print(f"{name:12} {cost:7.2f} us CPU a request  {cost / quiet['off']:.3f} of off")


if __name__ == "__main__":
    main()
