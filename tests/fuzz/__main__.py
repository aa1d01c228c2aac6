"""`python -m tests.fuzz [NAME ...] [--minutes M] [--seed S] [--folder F] [--at-once N] [--unless-done]`: each target in a process.

Every process has its address space limited: what would ask for more ends with a MemoryError, which is a finding. Inputs
that were findings are written into the folder, and a line per target into its results.jsonl, so that a run that was ended
(SIGTERM to all its processes) goes on with --unless-done. A table is printed at the end. Exit code 1 when there is a finding.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.fuzz import results
from tests.fuzz.mutate import MOST_BYTES
from tests.fuzz.runner import run
from tests.fuzz.target import all_targets

_LEAST = 0.05  # minutes; what is less is not worth a start
MEMORY = 1 << 30  # beyond what the process has when it starts


def main(arguments: Sequence[str]) -> int:
    """Run the named targets, all when none is named."""
    known = all_targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", epilog=f"targets: {', '.join(sorted(known))}")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time for each target (default 1)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="default: another one each time")
    parser.add_argument("--folder", type=Path, default=Path(".abgate/fuzz"), help="where findings go")
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), metavar="N", help="default: the processors")
    parser.add_argument(
        "--unless-done",
        action="store_true",
        help="take off what ran at this source without a finding",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    if options.here:
        return max(_here(name, options) for name in options.names)
    names = options.names or sorted(known)
    more = ["--unless-done"] if options.unless_done else []
    more += ["--here", "--minutes", str(options.minutes), "--seed", str(options.seed), "--folder", str(options.folder)]

    def start(name: str) -> int:
        code = subprocess.run([sys.executable, "-m", "tests.fuzz", name, *more], check=False).returncode
        if code not in (0, 1):
            print(f"{name}: the process ended with {code}; its last input is {options.folder / name}.last", flush=True)
        return code

    with ThreadPoolExecutor(options.at_once) as pool:
        codes = list(pool.map(start, names))
    print(results.table(results.read(options.folder / results.NAME), names), flush=True)
    return int(any(codes))


def _here(name: str, options: argparse.Namespace) -> int:
    target = all_targets()[name]
    place = options.folder / results.NAME
    source, commit = results.source_of(target), results.commit()  # of the code as it was loaded
    left = options.minutes
    if options.unless_done:
        left -= results.minutes_done(results.read(place), name, source)
    if left < _LEAST:
        print(f"{name}: done already", flush=True)
        return 0
    for data in target.seeds[:1]:
        with suppress(Exception):  # told by the run; here, what is loaded once is loaded before memory is counted
            target.call(data)
    target = replace(target, call=_kept(target.call, options.folder / f"{name}.last"))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 1 << 18
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("error")
    told: list[int] = []  # SIGTERM keeps what was done
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    outcome = run(target, left * 60, options.seed, stopped=lambda: bool(told))
    line = (
        f"{name}: {outcome.calls} inputs, {outcome.taken} taken, {outcome.kinds} kinds of answer, seed {options.seed}"
    )
    (options.folder / f"{name}.last").unlink()
    results.add(
        place,
        {
            "name": name,
            "minutes": round(outcome.minutes, 2),
            "inputs": outcome.calls,
            "taken": outcome.taken,
            "kinds": outcome.kinds,
            "seed": options.seed,
            "findings": len(outcome.findings),
            "commit": commit,
            "source": source,
        },
    )
    print(f"{line}: {len(outcome.findings) or 'no'} findings", flush=True)
    for finding in outcome.findings:
        kept = options.folder / f"{name}-{finding.name}"
        kept.write_bytes(finding.data)
        print(f"{kept}: {finding.problem}", flush=True)
    return int(bool(outcome.findings))


def _kept(call: Callable[[bytes], object], place: Path) -> Callable[[bytes], object]:
    """call, with its input in a file before it runs: an extension module may end the whole process."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(bytes(MOST_BYTES))
    with place.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), MOST_BYTES)

    def keeping(data: bytes) -> object:
        if len(data) != memory.size():
            memory.resize(max(1, len(data)))
        memory[: len(data)] = data
        return call(data)

    return keeping


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
