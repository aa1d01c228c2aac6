"""What a proxied gRPC Predict costs: the gateway's pass-through beside a bare grpc.aio proxy, under h2load.

    python tools/grpc_cost.py [--requests N] [--values N]

Prints CPU microseconds per request of each proxy's process, throughput and mean latency, at 32 and at 1 in flight.
The gateway is the real one (assignment by unit, strict guard, record into a sink that only counts). The backend answers
at once. Runs alternate, so that the machine's mood hits both alike; the best of three is printed. Never a timed test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from gateway.dataplane import Arm, DataPlane, Route
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec
from gateway.protocol import tfserving_grpc
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor

HERE = Path(__file__).resolve().parent


class Sink:
    """Counts records."""

    count = 0

    def put(self, row: tuple[Any, ...]) -> None:
        self.count += 1


async def gateway(upstream: str, values: int) -> None:
    """Serve model m over two arms at one address, sticky by x-user-id; prints the port."""
    from gateway.servers.grpc import GrpcServer, GrpcSettings
    from gateway.upstream.grpc_client import GrpcArm

    signature = Signature(
        "m", "serving_default", (TensorSpec("x", "FP32", (-1, values)),), (TensorSpec("y", "FP32", (-1, 10)),)
    )
    names = ("a", "b")
    spec = ModelSpec(
        "m",
        tuple(ArmSpec(name, "tfs", 50, "m") for name in names),
        Experiment("e", "s", "x-user-id", allow_forced_arm=True),
    )
    arms = []
    for name in names:
        arm = Arm(name, "tfs", "tensorflow_serving", model="m", version=None, limit=1024)
        arm.grpc = GrpcArm(upstream, "tensorflow_serving", "m", None)
        arms.append(arm)
    plane = DataPlane(Sink(), rng=random.Random(1), id_prefix="bench")
    plane.routes["m"] = Route(spec, tuple(arms), signature)
    server = GrpcServer(plane, GrpcSettings(body_limit=32 << 20, rows_limit=1024, timeout_s=30))
    print(await server.start("127.0.0.1:0"), flush=True)
    await asyncio.Event().wait()


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


def measure(name: str, port: int, pid: int, body: Path, requests: int, flight: int) -> dict[str, float]:
    """One h2load run against a port: CPU of the process behind it, throughput, mean latency."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    command = ["h2load", "-n", str(requests), "-c1", "-t1", f"-m{flight}", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-user-id: u1"]
    command += [f"http://127.0.0.1:{port}/tensorflow.serving.PredictionService/Predict"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = sum(process.cpu_times()[:2]) - before
    match = re.search(r"(\d+) succeeded, (\d+) failed", text)
    rate = re.search(r"([\d.]+) req/s", text)
    if match is None or rate is None or int(match[1]) != requests:
        raise SystemExit(f"{name}: h2load did not get {requests} answers\n{text}")
    return {"cpu_us": used / requests * 1e6, "per_s": float(rate[1]), "mean_us": flight / float(rate[1]) * 1e6}


def main() -> None:
    """Start backend and proxies, measure both, print a table and the ratio as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--values", type=int, default=64)
    parser.add_argument("--role", choices=("gateway", "backend"))
    parser.add_argument("--upstream", default="")
    options = parser.parse_args()
    if options.role == "backend":
        backend()
    elif options.role == "gateway":
        import uvloop

        uvloop.run(gateway(options.upstream, options.values))
    else:
        compare(options.requests, options.values)


def compare(requests: int, values: int) -> None:
    """Both proxies, alternating, best of three."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[int, int]:
        child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout is not None
        return int(child.stdout.readline()), child.pid

    me = str(Path(__file__))
    data = np.linspace(0, 1, values, dtype="<f4").reshape(1, values)
    payload = tfserving_grpc.encode_request(InferRequest("m", (Tensor("x", "FP32", data),)), typed=True)
    with tempfile.TemporaryDirectory() as directory:
        body = Path(directory) / "body"
        body.write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
        try:
            port, _ = start(me, "--role", "backend")
            upstream = f"127.0.0.1:{port}"
            proxies = {
                "bare grpc.aio proxy": start(str(HERE / "bare_grpc_proxy.py"), upstream),
                "gateway": start(me, "--role", "gateway", "--upstream", upstream, "--values", str(values)),
            }
            for name, (port, pid) in proxies.items():
                measure(name, port, pid, body, 500, 8)
            for flight in (32, 1):
                runs: dict[str, list[dict[str, float]]] = {name: [] for name in proxies}
                for _ in range(3):
                    for name, (port, pid) in proxies.items():
                        runs[name].append(
                            measure(name, port, pid, body, requests if flight > 1 else requests // 2, flight)
                        )
                best = {name: min(each, key=lambda run: run["cpu_us"]) for name, each in runs.items()}
                for name, run in best.items():
                    row = f"{run['cpu_us']:7.1f} us CPU  {run['per_s']:8.0f}/s  {run['mean_us']:8.0f} us"
                    print(f"{flight:3} in flight  {name:20} {row}")
                ratio = best["gateway"]["cpu_us"] / best["bare grpc.aio proxy"]["cpu_us"]
                print(json.dumps({"in_flight": flight, "ratio": round(ratio, 3)}))
        finally:
            for child in children:
                child.kill()
                child.wait()


if __name__ == "__main__":
    main()
