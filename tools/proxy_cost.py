"""What one proxied request costs, side by side with nginx, HAProxy and Envoy, in one run.

A backend that answers at once (nginx with a fixed reply) stands behind each proxy, so that the proxy is what is measured. Load
comes from wrk (HTTP/1.1) or h2load (gRPC). Generator and backend run on CPU 1, every proxy on CPU 0. The figure to quote is
the CPU time of the proxy's processes per request (user + system, children included), and its ratio to Envoy's in the same run:
it moves far less with a noisy machine than requests per second do. Every round asks every proxy in turn.

Needs nginx and wrk (Debian: nginx-light, wrk); h2load (nghttp2-client) for gRPC; haproxy and envoy are left out where absent.

    python tools/proxy_cost.py                                                  the peers alone
    python tools/proxy_cost.py --http NAME=URL=PID[,PID] --grpc NAME=URL=PID     and others beside them
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from proxy_peers import Backends, Proxy, backends, peer, predict_request

USERS = 1024
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What was seen of one proxy: CPU microseconds per request and p50 (HTTP) or mean (gRPC) milliseconds, one per round."""

    cpu_us: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    requests: int = 0
    bad: int = 0

    def median_us(self) -> float:
        return statistics.median(self.cpu_us)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        children.setdefault(int(text[text.rindex(")") + 2 :].split()[1]), []).append(int(text.split()[0]))
    out, todo = [], [pid]
    while todo:
        out.append(todo.pop())
        todo += children.get(out[-1], [])
    return out


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time, user and system, that the processes and their descendants have used."""
    ticks = 0
    for pid in {member for root in pids for member in family(root)}:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


# Load

_LUA = """local body = {body}
local requests, at = {{}}, 0
init = function(args)
  for i = 1, {users} do
    requests[i] = wrk.format("POST", nil, {{["Content-Type"] = "application/json", ["X-User-Id"] = "user-" .. i}}, body)
  end
end
request = function() at = at % {users} + 1; return requests[at] end
"""


def http_cost(proxy: Proxy, cost: Cost, in_flight: int, seconds: float, work: Path, *, keep: bool = True) -> None:
    """One round of wrk: 64 floats in, 10 out, {USERS} users in turn; adds to cost when keep is set."""
    lua = work / "post.lua"
    if not lua.exists():
        body = json.dumps(json.dumps({"instances": [[0.5] * 64]}))
        lua.write_text(_LUA.format(body=body, users=USERS))
    before = cpu_seconds(proxy.pids)
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{in_flight}", f"-d{seconds:g}s", "--latency", "-s", str(lua), proxy.url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    used = cpu_seconds(proxy.pids) - before
    count = int(_found(r"(\d+) requests in", out))
    if not keep:
        return
    cost.cpu_us.append(used / max(count, 1) * 1e6)
    cost.latency_ms.append(_milliseconds(_found(r"\n\s+50%\s+(\S+)", out)))
    cost.requests += count
    cost.bad += int(_found(r"Non-2xx or 3xx responses: (\d+)", out, "0")) + ("Socket errors" in out)


def grpc_cost(proxy: Proxy, cost: Cost, in_flight: int, requests: int, work: Path, *, keep: bool = True) -> None:
    """One round of h2load: PredictRequests on one connection."""
    body = work / "request.bin"
    if not body.exists():
        body.write_bytes(predict_request())
    before = cpu_seconds(proxy.pids)
    out = subprocess.run(
        ["taskset", "-c", "1", "h2load", "-n", str(requests), "-c1", f"-m{in_flight}", "-d", str(body),
         "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-user-id: user-1", proxy.url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    used = cpu_seconds(proxy.pids) - before
    if not keep:
        return
    cost.cpu_us.append(used / requests * 1e6)
    cost.latency_ms.append(_milliseconds(_found(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)))
    cost.requests += requests
    cost.bad += requests - int(_found(r"status codes: (\d+) 2xx", out))


def _found(pattern: str, text: str, default: str | None = None) -> str:
    match = re.search(pattern, text)
    if match is None:
        if default is None:
            raise RuntimeError(f"no {pattern!r} in: {text}")
        return default
    return match[1]


def _milliseconds(text: str) -> float:
    number = float(_found(r"([\d.]+)", text))
    return number / 1000 if text.endswith("us") else number * 1000 if re.search(r"\ds$", text) else number


def compare(
    kind: str,
    proxies: Sequence[Proxy],
    in_flight: int,
    rounds: int,
    seconds: float,
    backend: Backends,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Cost]:
    """Ask every proxy in turn, round after round; the first round warms up and does not count. kind: HTTP/1.1 or gRPC."""
    costs = {proxy.name: Cost() for proxy in proxies}
    for round_ in range(rounds + 1):
        for proxy in proxies:
            progress(f"{kind}, {in_flight} in flight, round {round_ or 'of warm-up'}: {proxy.name}")
            cost, keep = costs[proxy.name], round_ > 0
            if kind == "gRPC":
                grpc_cost(
                    proxy, cost, in_flight, round(seconds * (4000 if in_flight > 1 else 1000)), backend.work, keep=keep
                )
            else:
                http_cost(proxy, cost, in_flight, seconds if keep else 1, backend.work, keep=keep)
    return costs


def others(given: Sequence[str]) -> list[Proxy]:
    """NAME=URL=PID[,PID] -> proxies."""
    found = []
    for item in given:
        name, rest = item.split("=", 1)
        url, pids = rest.rsplit("=", 1)
        found.append(Proxy(name, url, tuple(int(pid) for pid in pids.split(","))))
    return found


def main() -> None:
    """Measure the peers, and what was named beside them; one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", action="append", default=[], metavar="NAME=URL=PID[,PID]")
    parser.add_argument("--grpc", action="append", default=[], metavar="NAME=URL=PID[,PID]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()

    with ExitStack() as stack:
        backend = stack.enter_context(backends())
        pairs = [
            stack.enter_context(peer(name, backend)) for name in ("nginx", "haproxy", "envoy") if shutil.which(name)
        ]
        for kind, proxies in (
            ("HTTP/1.1", [pair[0] for pair in pairs] + others(args.http)),
            ("gRPC", [pair[1] for pair in pairs] + others(args.grpc)),
        ):
            for in_flight in (32, 1):
                costs = compare(kind, proxies, in_flight, args.rounds, args.seconds, backend)
                print(f"\n{kind}, {in_flight} in flight")
                for name, cost in sorted(costs.items(), key=lambda item: item[1].median_us()):
                    latency = statistics.median(cost.latency_ms)
                    bad = f"  BAD {cost.bad}" if cost.bad else ""
                    print(f"  {name:<12} {cost.median_us():8.1f} us CPU/request   {latency:8.3f} ms{bad}")


if __name__ == "__main__":
    main()
