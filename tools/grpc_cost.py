"""What a proxied gRPC Predict costs: the gateway's pass-through beside a bare grpc.aio proxy, under h2load.

    python tools/grpc_cost.py [--requests N] [--values N] [--runs N]

Prints CPU microseconds per request of each proxy's process, throughput and mean latency, at 32 and at 1 in flight, and the
gateway's share of the bare proxy's. The gateway is `abgate serve` as users run it: sticky assignment over two arms, strict
guard, metrics, recording. The backend answers at once. Many short runs alternate, so that the machine's mood hits both
alike; the lower quartile is printed: other work on the machine only ever adds. Needs h2load (Debian: nghttp2-client).
Never a timed test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil

from gateway.protocol import tfserving_grpc
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor

HERE = Path(__file__).resolve().parent
CONFIG = """
listen: {{http: "127.0.0.1:0", grpc: "127.0.0.1:0"}}
logging: {{format: json}}
backends:
  echo: {{kind: tensorflow_serving, http: "127.0.0.1:9", grpc: "{upstream}", start: none}}
models:
  m:
    signature: signature.json
    arms: {{a: {{backend: echo, weight: 50}}, b: {{backend: echo, weight: 50}}}}
    experiment: {{id: e, salt: s, unit: {{header: x-user-id}}}}
"""


class Proxy(NamedTuple):
    """A proxy under test: where it listens and its process."""

    port: int
    pid: int


class Run(NamedTuple):
    """One h2load run: CPU of the proxy's process a request, throughput, mean latency."""

    cpu_us: float
    per_s: float
    mean_us: float


def backend() -> None:
    """Answer every Predict at once with ten floats; prints the port."""
    answer = tfserving_grpc.encode_response(
        InferResponse("m", (Tensor("y", "FP32", np.zeros((1, 10), "<f4")),), "1"), "serving_default"
    )

    class Paths(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, handler_call_details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda payload, context: answer)

    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Paths(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


@contextlib.contextmanager
def child(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def printed_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def gateway_command(folder: Path, upstream: str, values: int) -> list[str]:
    """Write a configuration and return the command that serves it."""
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, values]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
    }
    head = {"format": 1, "model": "m", "signature_name": "serving_default"}
    (folder / "signature.json").write_text(json.dumps(head | tensors))
    (folder / "abgate.yaml").write_text(CONFIG.format(upstream=upstream))
    return [sys.executable, "-m", "gateway", "serve", "--config", "abgate.yaml"]


def gateway_port(process: subprocess.Popen[str]) -> int:
    """The gRPC port, from the log line that tells it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if '"gateway.serving"' in line:
            return int(json.loads(line)["grpc"].rpartition(":")[2])
    raise SystemExit("the gateway did not start:\n" + "".join(lines))


def measure(proxy: Proxy, body: Path, requests: int, flight: int) -> Run:
    """One h2load run; SystemExit where a request did not succeed."""
    process = psutil.Process(proxy.pid)
    before = sum(process.cpu_times()[:2])
    command = ["h2load", "-n", str(requests), "-c1", "-t1", f"-m{flight}", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-user-id: u1"]
    command += [f"http://127.0.0.1:{proxy.port}{tfserving_grpc.PREDICT}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = sum(process.cpu_times()[:2]) - before
    match = re.search(r"(\d+) succeeded, (\d+) failed", text)
    rate = re.search(r"([\d.]+) req/s", text)
    if match is None or rate is None or int(match[1]) != requests:
        raise SystemExit(f"h2load did not get {requests} answers\n{text}")
    per_s = float(rate[1])
    return Run(used / requests * 1e6, per_s, flight / per_s * 1e6)


def _quiet(runs: list[Run]) -> Run:
    """What the machine does when little else runs: by CPU and latency the lower quartile, by throughput the upper."""
    cpu, rate, mean = ([float(value) for value in column] for column in zip(*runs, strict=True))
    return Run(quantiles(cpu, n=4)[0], quantiles(rate, n=4)[2], quantiles(mean, n=4)[0])


def compare(requests: int, values: int, runs: int) -> Iterator[tuple[int, dict[str, Run]]]:
    """For each number in flight what both proxies cost, by name."""
    data = np.linspace(0, 1, values, dtype="<f4").reshape(1, values)
    payload = tfserving_grpc.encode_request(InferRequest("m", (Tensor("x", "FP32", data),)), typed=True)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        body = folder / "body"
        body.write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
        echo = stack.enter_context(child([sys.executable, str(Path(__file__).resolve()), "--backend"], folder))
        upstream = f"127.0.0.1:{printed_port(echo)}"
        bare = stack.enter_context(child([sys.executable, str(HERE / "bare_grpc_proxy.py"), upstream], folder))
        gateway = stack.enter_context(child(gateway_command(folder, upstream, values), folder))
        proxies = {
            "bare grpc.aio proxy": Proxy(printed_port(bare), bare.pid),
            "gateway": Proxy(gateway_port(gateway), gateway.pid),
        }
        for proxy in proxies.values():
            measure(proxy, body, 500, 8)
        for flight in (32, 1):
            seen: dict[str, list[Run]] = {name: [] for name in proxies}
            for _ in range(runs):
                for name, proxy in proxies.items():
                    seen[name].append(measure(proxy, body, requests, flight))
            yield flight, {name: _quiet(each) for name, each in seen.items()}


def main() -> None:
    """Measure both proxies and print a table with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--values", type=int, default=64)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        backend()
        return
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian, Ubuntu: apt install nghttp2-client)")
    for flight, found in compare(options.requests, options.values, options.runs):
        for name, run in found.items():
            row = f"{run.cpu_us:7.1f} us CPU  {run.per_s:8.0f}/s  {run.mean_us:8.0f} us"
            print(f"{flight:3} in flight  {name:20} {row}")
        print(f"{flight:3} in flight  ratio {found['gateway'].cpu_us / found['bare grpc.aio proxy'].cpu_us:.2f}")


if __name__ == "__main__":
    main()
