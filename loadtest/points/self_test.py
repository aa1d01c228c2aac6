"""`python -m loadtest.points --self-test`: what the generator itself costs a request, and how well it keeps a schedule.

Against servers that answer at once, so that nothing but the generator, the kernel and the machine's other work is seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from gateway.stats.result import require
from gateway.stats.schedule import schedule_check
from loadtest.points.files import in_window, load_requests
from loadtest.points.run import run_point
from loadtest.points.spec import Load, PointResult, PointSpec, Protocol
from loadtest.targets import Target

RATES = (200.0, 500.0, 1000.0, 2000.0, 4000.0)
_PROTOCOLS: tuple[Protocol, ...] = ("tfs-rest", "tfs-grpc")


@contextmanager
def instant() -> Iterator[Target]:
    """The target of instant servers while they run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.points.instant"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        yield Target("gateway", told["http"], told["grpc"])
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def python_ns() -> float:
    """CPU nanoseconds of one turn of a Python loop: how fast this machine is just now."""
    best = float("inf")
    for _ in range(5):
        begun, total = time.process_time_ns(), 0
        for number in range(200_000):
            total += number
        best = min(best, (time.process_time_ns() - begun) / 200_000)
    return best


def self_test(console: Console, seconds: float = 2.0, rates: tuple[float, ...] = RATES) -> None:
    """Run and print both loops over both protocols."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in (
        "protocol",
        "load",
        "req/s",
        "us CPU/req",
        "cores",
        "late",
        "lag p50 us",
        "p99",
        "max",
        "service p50 us",
    ):
        table.add_column(name, justify="left" if name in ("protocol", "load") else "right", no_wrap=True)
    with tempfile.TemporaryDirectory(prefix="abgate-self-test-") as name, instant() as target:
        folder = Path(name)
        rows = np.random.default_rng(0).random((200, 64), dtype=np.float32)
        np.savez(folder / "inputs.npz", x=rows)
        for protocol in _PROTOCOLS:
            loads = [Load.closed(count, seconds, 0.5) for count in (1, 32)]
            loads += [Load.open(rate, seconds, 0.5) for rate in rates]
            for load in loads:
                spec = PointSpec(target, protocol, "m", load, folder / "inputs.npz")
                table.add_row(*_row(run_point(spec, folder / "point")))
    console.print(
        f"one turn of a Python loop costs {python_ns():.0f} ns here and now; 30 to 45 is an idle server of today"
    )
    console.print(table)


def _row(result: PointResult) -> list[str]:
    requests = in_window(load_requests(result.folder), result.start_ns, result.end_ns)
    load, good = result.spec.load, requests.error == ""
    service = (requests.done_ns - requests.sent_ns)[good]
    lags = ["-"] * 4
    if load.kind == "open":
        check = require(schedule_check(requests.due_ns, requests.sent_ns))
        lags = [f"{check.share:.2%}", *(f"{lag * 1e6:.0f}" for lag in check.lags)]
    return [
        result.spec.protocol,
        f"closed, {load.concurrency}" if load.kind == "closed" else f"open, {load.course[0].from_rate:g}/s",
        f"{result.achieved:.0f}",
        f"{result.generator_us or 0:.0f}",
        f"{result.generator_cores:.2f}",
        *lags,
        f"{np.median(service) / 1e3:.0f}" if service.size else f"{result.failed} failed",
    ]
