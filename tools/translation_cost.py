"""What translation costs from end to end: every protocol a client may speak, to every kind of arm, through `abgate serve`.

    python tools/translation_cost.py [--rounds N] [--seconds S]

Prints, per pair, CPU microseconds a request of the gateway's process (user + system, at 16 in flight, under wrk or h2load on
the other core) and, in brackets, the microseconds its server-timing header tells for the codecs alone. Arms answer at once
(tools/instant_arms.py); 64 floats in, 10 out, strict guard, records and metrics on, a forced arm. Pairs without brackets are
passed on untouched. Never a timed test. Needs nginx, wrk, taskset; h2load for the gRPC rows.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from instant_arms import REQUEST, Arms, arms, framed
from proxy_cost import cpu_seconds
from proxy_peers import running
from rich.console import Console
from rich.table import Table

from backends.free_ports import free_ports
from gateway.protocol import oip_grpc, oip_rest, tfserving_grpc, tfserving_rest
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms
from gateway.protocol.signature_file import Signature, TensorSpec

IN_FLIGHT = 16
SAMPLES = 60
SIGNATURE = Signature(
    "m", "serving_default", (TensorSpec("x", "FP32", (-1, 64)),), (TensorSpec("y", "FP32", (-1, 10)),)
)
# arm -> (kind, transport, which port its HTTP side is)
ARMS = {
    "tfs-rest": ("tensorflow_serving", "http", "http"),
    "tfs-grpc": ("tensorflow_serving", "grpc", "http"),
    "torchserve-http": ("torchserve", "http", "http"),
    "torchserve-grpc": ("torchserve", "grpc", "http"),
    "oip-rest binary": ("open_inference", "http", "http"),
    "oip-rest JSON": ("open_inference", "http", "json"),
    "oip-grpc": ("open_inference", "grpc", "http"),
}
# the arm behind a column for the client whose JSON it takes untouched: what to answer, no header tells it
_ASKED_IN_JSON = {"torchserve-grpc": "torchserve-grpc-json"}


@dataclass(frozen=True)
class Ask:
    """One client's request: path (over gRPC the method), body (over gRPC the message), headers."""

    path: str
    body: bytes
    headers: dict[str, str]
    rpc: bool = False


@dataclass(frozen=True)
class Pair:
    """One cell: CPU of the gateway a request per round, and the codecs' share of the samples, in microseconds."""

    cpu_us: list[float]
    codec_us: float


def clients() -> dict[str, Ask]:
    """The seven requests, written by the codecs of the gateway's other side."""
    as_json = {"content-type": "application/json"}

    def terms(form: str) -> ArmTerms:
        return ArmTerms("m", "", form, SIGNATURE)

    rows = tfserving_rest.encode_request(REQUEST, column=False)
    plain, binary = (oip_rest.ARM.encode(REQUEST, terms(form)) for form in ("oip-json", "oip-binary"))
    torch = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")(model_name="m", input={"data": rows})
    return {
        "tfs-rest": Ask("/v1/models/m:predict", rows, as_json),
        "tfs-grpc": Ask(
            "/tensorflow.serving.PredictionService/Predict",
            tfserving_grpc.ARM.encode(REQUEST, terms("")).body,
            {},
            True,
        ),
        "oip-rest JSON": Ask("/v2/models/m/infer", plain.body, dict(plain.headers)),
        "oip-rest binary": Ask("/v2/models/m/infer", binary.body, dict(binary.headers)),
        "oip-grpc": Ask(
            "/inference.GRPCInferenceService/ModelInfer", oip_grpc.ARM.encode(REQUEST, terms("")).body, {}, True
        ),
        "torchserve-http": Ask("/predictions/m", rows, as_json),
        "torchserve-grpc": Ask(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", torch.SerializeToString(), {}, True
        ),
    }


def name_of(arm: str) -> str:
    """An arm's name in the configuration."""
    return arm.lower().replace(" ", "-")


@contextmanager
def gateway(command: str, places: Arms) -> Iterator[tuple[int, int, int]]:
    """`abgate serve` before all arms, on CPU 0: its HTTP port, its gRPC port, its pid."""
    own, rpc = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="abgate_bench_translation_"))
    try:
        (folder / "signature.json").write_text(json.dumps(SIGNATURE.to_dict()))
        lines = [f"listen: {{http: 127.0.0.1:{own}, grpc: 127.0.0.1:{rpc}}}", "records: {path: records}", "backends:"]
        for arm, (kind, _, port) in ARMS.items():
            lines.append(
                f"  {name_of(arm)}: {{kind: {kind}, http: 127.0.0.1:{getattr(places, port)}, grpc: 127.0.0.1:{places.grpc}}}"
            )
        for arm, other in _ASKED_IN_JSON.items():
            lines.append(
                f"  {other}: {{kind: {ARMS[arm][0]}, http: 127.0.0.1:{places.http}, grpc: 127.0.0.1:{places.grpc_json}}}"
            )
        lines += ["models:", "  m:", "    signature: signature.json", "    arms:"]
        for arm, (_, transport, _) in ARMS.items():
            lines.append(f"      {name_of(arm)}: {{backend: {name_of(arm)}, transport: {transport}, weight: 1}}")
        for arm, other in _ASKED_IN_JSON.items():
            lines.append(f"      {other}: {{backend: {other}, transport: {ARMS[arm][1]}, weight: 1}}")
        lines.append("    experiment: {id: bench, salt: bench, allow_forced_arm: true}")
        config = folder / "abgate.yaml"
        config.write_text("\n".join(lines) + "\n")
        with running(0, command, "serve", "-c", str(config), port=own) as pid:
            _await_ready(own)
            yield own, rpc, pid
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await_ready(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                text = error.read().decode() if hasattr(error, "read") else ""
                raise RuntimeError(f"the gateway did not become ready: {error} {text}") from error
            time.sleep(0.02)


def codec_us(ask: Ask, arm: str, own: int, rpc: int) -> float:
    """The lower quartile of what server-timing tells for the codecs: other work on the machine only ever adds.

    Raises RuntimeError where an answer is none.
    """
    told: list[float] = []
    headers = {**ask.headers, "x-abgate-arm": name_of(arm)}
    if ask.rpc:
        with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            method = channel.unary_unary(ask.path)
            for _ in range(SAMPLES):
                _, call = method.with_call(ask.body, timeout=10, metadata=tuple(headers.items()))
                told.append(_codec(dict(call.trailing_metadata())["server-timing"]))
    else:
        connection = http.client.HTTPConnection("127.0.0.1", own, timeout=10)
        for _ in range(SAMPLES):
            connection.request("POST", ask.path, ask.body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{ask.path} to {arm}: {answer.status} {text[:300]!r}")
            told.append(_codec(answer.headers["server-timing"]))
        connection.close()
    return statistics.quantiles(told, n=4)[0]


def _codec(timing: str) -> float:
    found = re.search(r"codec;dur=([\d.]+)", timing)
    return float(found[1]) * 1000 if found else 0.0


_LUA = """local file = io.open("{body}", "rb")
local body = file:read("*a")
local made = nil
init = function(args) made = wrk.format("POST", nil, {headers}, body) end
request = function() return made end
"""


def load(ask: Ask, arm: str, ports: tuple[int, int], seconds: int, work: Path) -> int:
    """One round of load; gives the number of requests. Raises RuntimeError where any failed."""
    body, script = work / "body", work / "post.lua"
    headers = {**ask.headers, "x-abgate-arm": name_of(arm)}
    if ask.rpc:
        body.write_bytes(framed(ask.body))
        told = [part for key, value in headers.items() for part in ("-H", f"{key}: {value}")]
        out = _run(
            "h2load", "-D", str(seconds), "-c1", f"-m{IN_FLIGHT}", "-d", str(body), "-H", "te: trailers",
            "-H", "content-type: application/grpc", *told, f"http://127.0.0.1:{ports[1]}{ask.path}",
        )  # fmt: skip
        count = int(_found(r"status codes: (\d+) 2xx", out))
    else:
        body.write_bytes(ask.body)
        table = "{" + ", ".join(f"[{json.dumps(key)}] = {json.dumps(value)}" for key, value in headers.items()) + "}"
        script.write_text(_LUA.format(body=body, headers=table))
        out = _run(
            "wrk",
            "-t1",
            f"-c{IN_FLIGHT}",
            f"-d{seconds}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{ports[0]}{ask.path}",
        )
        count = int(_found(r"(\d+) requests in", out))
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError(f"{ask.path} to {arm}: {out}")
    if not count:
        raise RuntimeError(f"{ask.path} to {arm}: no request was answered: {out}")
    return count


def _run(*command: str) -> str:
    return subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, check=True).stdout


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in: {text}")
    return match[1]


def measure(command: str, rounds: int, seconds: int, progress: Callable[[str], None]) -> dict[tuple[str, str], Pair]:
    """Every client to every arm."""
    found: dict[tuple[str, str], Pair] = {}
    work = Path(tempfile.mkdtemp(prefix="abgate_bench_load_"))
    try:
        with arms() as places, gateway(command, places) as (own, rpc, pid):
            for client, ask in clients().items():
                if ask.rpc and not shutil.which("h2load"):
                    continue
                for arm in ARMS:
                    progress(f"{client} to {arm}")
                    forced = _ASKED_IN_JSON.get(arm, arm) if client == arm else arm
                    codec, cpu = codec_us(ask, forced, own, rpc), []
                    for _ in range(rounds):
                        before = cpu_seconds((pid,))
                        count = load(ask, forced, (own, rpc), seconds, work)
                        cpu.append((cpu_seconds((pid,)) - before) / count * 1e6)
                    found[client, arm] = Pair(cpu, codec)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return found


def table(found: dict[tuple[str, str], Pair]) -> Table:
    """Clients down, arms across."""
    what = f"gateway CPU us/request \\[codec us], 64 floats in, 10 out, {IN_FLIGHT} in flight"
    title = f"Translation, client down, arm across: {what}"
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for arm in ARMS:
        shown.add_column(arm, justify="right")
    for client in dict.fromkeys(client for client, _ in found):
        shown.add_row(client, *(_cell(found[client, arm]) for arm in ARMS))
    return shown


def _cell(pair: Pair) -> str:
    cpu = f"{statistics.median(pair.cpu_us):.0f}"
    return f"{cpu} \\[{pair.codec_us:.0f}]" if pair.codec_us >= 0.5 else cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=1)
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130)
    command = str(Path(sys.executable).parent / "abgate")
    with console.status("starting") as status:
        found = measure(command, args.rounds, args.seconds, status.update)
    console.print(table(found))


if __name__ == "__main__":
    main()
