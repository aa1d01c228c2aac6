"""`make bench`, second part: what the ledger and the reports cost for a million requests, against their limits.

Three steps, each in a process of its own, all rows generated: journals of JSON lines become the Parquet ledger (and the
run's table), the report of a live split, the report of a lab run. Peak memory is the child's own (ru_maxrss). Exit code 1
when a step is over the limits: 1 GB, 15 s for ledger and live report together and for the lab's report.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS, LIMIT_MB = 15.0, 1000.0


@dataclass(frozen=True)
class Cost:
    """Of one step: wall and CPU seconds, peak resident megabytes of its process."""

    seconds: float
    cpu: float
    peak_mb: float


def measured(step: Callable[[], object]) -> Cost:
    """Run a step in a forked child; raises RuntimeError when it fails."""
    begin = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            step()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"a step failed, status {status}; what it said stands above")
    return Cost(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def write_journals(folder: Path, rows: int, workers: int = 2) -> list[Path]:
    """Journals as the generator's processes leave them: a JSON line a request."""
    import numpy as np
    import orjson

    rng = np.random.default_rng(1)
    paths = []
    for worker in range(workers):
        n = rows // workers
        send = (1_760_000_000_000_000_000 + np.sort(rng.random(n)) * 60e9).astype(np.int64).tolist()
        latency = (2e6 * np.exp(rng.normal(0, 0.4, n))).astype(np.int64).tolist()
        units, arms = rng.integers(0, 10_000, n).tolist(), rng.integers(0, 2, n).tolist()
        path = folder / f"ledger-{worker}.jsonl"
        with path.open("wb") as file:
            for i in range(n):
                arm, unit = ("torchserve", "tfserving")[arms[i]], f"u{units[i]}"
                error, correct = ("http 503" if i % 5000 == 0 else ""), (True if i % 4 == 0 else None)
                row = (
                    send[i],
                    latency[i],
                    "tfs-rest",
                    unit,
                    arm,
                    "sticky",
                    f"{worker}-{i:08x}",
                    200,
                    error,
                    1,
                    correct,
                )
                file.write(orjson.dumps(row) + b"\n")
        paths.append(path)
    return paths


def compact(folder: Path) -> None:
    """What a load test does with its journals when it ends."""
    from loadtest.arrivals import Window
    from loadtest.ledger import compact as compacted
    from loadtest.summary import Tallies

    start = 1_760_000_000_000_000_000
    tallies = Tallies(Window(start, start + 2 * 10**9, start + 60 * 10**9, 0))
    segments = compacted(sorted(folder.glob("*.jsonl")), folder, start + 2 * 10**9, tallies.see)
    (folder / "told.json").write_text(json.dumps([sum(s.rows for s in segments), tallies.requests]), "utf-8")


def report(folder: Path) -> None:
    """The report of a run directory."""
    from gateway.reports import build_report

    build_report(folder)


def generate(folder: Path, rows: int) -> tuple[Path, Path]:
    """A live split's run directory and a lab's, so many requests each (the lab's: 36 blocks)."""
    import make_lab
    import make_run

    live = make_run.write(folder / "live", make_run.Plan(rows, seconds=60.0))
    return live, make_lab.write(folder / "lab", make_lab.Plan("comparison", rows, starts=2))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130)
    folder = Path(tempfile.mkdtemp(prefix="abgate_bench_report_"))
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        with console.status(f"generating {given.rows:,} rows"):
            (folder / "ledger").mkdir()
            measured(lambda: write_journals(folder / "ledger", given.rows))
            measured(lambda: generate(folder, given.rows))
        steps = {
            "journals to ledger and table": measured(lambda: compact(folder / "ledger")),
            "report of a live split": measured(lambda: report(folder / "live")),
            "report of a lab run": measured(lambda: report(folder / "lab")),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return show(console, steps, given.rows)


def show(console: Console, steps: dict[str, Cost], rows: int) -> int:
    """The table, and 1 where a limit is broken."""
    title = f"Ledger and reports, {rows:,} generated requests (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    table = Table(title=title, title_justify="left")
    for column in ("step", "wall s", "CPU s", "peak MB", "limit"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, cost in steps.items():
        table.add_row(name, f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", f"{cost.peak_mb:.0f}", f"{LIMIT_MB:.0f} MB")
    names = list(steps)
    live = steps[names[0]].seconds + steps[names[1]].seconds
    table.add_row("ledger and live report together", f"{live:.1f}", "", "", f"{LIMIT_SECONDS:.0f} s")
    table.add_row("lab report", f"{steps[names[2]].seconds:.1f}", "", "", f"{LIMIT_SECONDS:.0f} s")
    console.print(table)
    slow = max(live, steps[names[2]].seconds) > LIMIT_SECONDS
    return 1 if slow or max(cost.peak_mb for cost in steps.values()) > LIMIT_MB else 0


if __name__ == "__main__":
    sys.exit(main())
