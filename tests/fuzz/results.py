"""What was fuzzed, kept as a line of JSON per run.

A line: name, minutes of processor time, inputs, taken, kinds, seed, findings, commit, source. `source` is a digest of the
target's own file and of every file of gateway/ whose code the target runs through, so that a change elsewhere does not make
what was fuzzed count for nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import gateway
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

NAME = "results.jsonl"
KEPT = Path(__file__).with_name("fuzzed.jsonl")
"""Runs that are kept with the source: what need not be run again while the code they came through stands."""

_INPUTS = 500  # mutated ones, beside the seeds: enough to come through what is fuzzed
_GATEWAY = str(Path(str(gateway.__file__)).parent)


def source_of(target: Target) -> str:
    """The digest of the files a target's inputs come through; the same for the same files, in a process that has not run it yet."""
    files: set[str] = set()

    def entered(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    rng = random.Random(target.name)
    before = sys.getprofile()
    sys.setprofile(entered)
    try:
        for data in (*target.seeds, *(mutated(rng, target.seeds) for _ in range(_INPUTS))):
            with suppress(Exception):  # told by the run itself
                target.call(data)
    finally:
        sys.setprofile(before)
    here = str(Path(__file__).parent / "targets_")
    digest = hashlib.sha256()
    for file in sorted(name for name in files if name.startswith((_GATEWAY, here))):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it; "" where there is no git."""
    try:
        found = [
            subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "-uno"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found[0] + ("+" if found[1] else "")


def add(place: Path, line: dict[str, Any]) -> None:
    """One run more; lines of several processes do not mix, since each is one short write."""
    with place.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(place: Path, kept: Path = KEPT) -> list[dict[str, Any]]:
    """Every run kept with the source, then those of the place that are not among them, oldest first."""
    before = kept.read_text("utf-8").splitlines() if kept.exists() else []
    later = place.read_text("utf-8").splitlines() if place.exists() else []
    return [json.loads(line) for line in (*before, *(line for line in later if line not in before))]


def minutes_done(lines: Iterable[dict[str, Any]], name: str, source: str) -> float:
    """How long a target ran at this source; 0 where that had a finding."""
    runs = [line for line in lines if line["name"] == name and line["source"] == source]
    return 0.0 if any(line["findings"] for line in runs) else sum(line["minutes"] for line in runs)


def table(lines: Iterable[dict[str, Any]], names: Iterable[str]) -> str:
    """What each of the names ran at its last source, all runs together."""
    last: dict[str, dict[str, Any]] = {}
    for line in lines:
        before = last.get(line["name"])
        last[line["name"]] = line
        if before is not None and before["source"] == line["source"]:
            added = {key: before[key] + line[key] for key in ("minutes", "inputs", "taken", "findings")}
            last[line["name"]] = {**line, **added, "kinds": max(before["kinds"], line["kinds"])}
    rows = [f"{'target':28} {'minutes':>7} {'inputs':>10} {'taken':>10} {'kinds':>5} {'findings':>8}  commit"]
    for name in sorted(names):
        line = last.get(name)
        if line is None:
            rows.append(f"{name:28} not finished")
            continue
        counts = f"{line['minutes']:7.1f} {line['inputs']:10,} {line['taken']:10,} {line['kinds']:5}"
        rows.append(f"{name:28} {counts} {line['findings']:8}  {line['commit']}")
    return "\n".join(rows)
