"""What every search works with: a stand, a way to measure, the arms, and the document that grows with every point.

Lives here: the seam between the searches' plans and what carries them out, and lab.json's rewriting. A search's rule: the
document is whole after every point, so that whatever ends the run leaves all that was measured, and a run can go on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import AbgateError
from gateway.stats.schedule import LATE_LIMIT
from loadtest.lab.document import FORMAT, planned_arm, reopen, write
from loadtest.lab.spec import ArmSpec, Running, Stand
from loadtest.points.spec import Load, Requests

Json = dict[str, Any]

START_SECONDS = 60.0
"""What a start of two servers and their first requests are planned with, for the estimate of what remains."""

AROUND_SECONDS = 2.0
"""What a block takes beside warm-up and window: the generator's own start, the slack, the analysis."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One block to measure; order: place within the start."""

    id: str
    arm: str
    load: Load
    replicate: int = 0
    order: int = 0
    seed: int = 1


class SearchError(AbgateError):
    """A search cannot go on; what was measured lies in lab.json."""


@dataclass(frozen=True)
class Taken:
    """What a block gave: its BLOCK (lab/spec.py), the window's requests, and the server's metrics before and after.

    abandoned: sent in the whole recording and never answered. faults: what ended the block early (a process died, the
    generator failed). check: what answers were compared with.
    """

    block: Json
    requests: Requests | None
    scrapes: tuple[str, str] | None = None
    abandoned: int = 0
    faults: tuple[str, ...] = ()
    check: str = "off"


def planned(load: Load) -> float:
    """Seconds a block of this load is planned with."""
    return load.warmup + load.duration + AROUND_SECONDS


Prime = Callable[[Running, Path, Json, str], None]
"""Sends first requests to all arms of a start; what is told of it becomes the document's "primed" (lab/spec.py)."""

Measure = Callable[[Running, Ask, Path], Taken]
"""Loads one arm and returns what came; raises nothing for a server that failed (the block says so)."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a search stands: seconds of work done and planned (as planned, not as they passed), and what comes now."""

    done: float
    total: float
    text: str


@dataclass
class Book:
    """lab.json of one run directory, rewritten whole after each change."""

    folder: Path
    document: Json
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0

    @classmethod
    def new(cls, folder: Path, document: Json) -> Book:
        """A run that begins; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        blank: Json = {
            "format": FORMAT,
            "complete": False,
            "blocks": [],
            "comparisons": [],
            "results": {},
            "seconds": 0.0,
        }
        book = cls(folder, blank | document)
        book.save()
        return book

    @classmethod
    def resumed(cls, folder: Path, kind: str) -> Book:
        """A run that goes on; raises ConfigError where lab.json is none of this kind."""
        document = reopen(folder, kind)
        return cls(folder, document, before=float(document["seconds"]))

    @property
    def blocks(self) -> list[Json]:
        """The blocks measured so far."""
        blocks: list[Json] = self.document["blocks"]
        return blocks

    def add(self, block: Json, **changes: Any) -> None:
        """Take a block in (in place of one with its id), with other changes of the document, and save."""
        self.document["blocks"] = [*(one for one in self.blocks if one["id"] != block["id"]), block]
        self.change(**changes)

    def change(self, **changes: Any) -> None:
        """Change top-level keys and save."""
        self.document |= changes
        self.save()

    def end(self, text: str, code: int, reasons: Sequence[str], complete: bool) -> None:
        """The verdict: exit code 0, 1 or 2, valid unless there are reasons against it."""
        verdict = {"text": text, "code": code, "valid": complete and code < 2, "reasons": list(reasons)}
        self.change(verdict=verdict, complete=complete)

    def save(self) -> None:
        """Write the file; a reader never sees half of it."""
        self.document["seconds"] = round(self.before + time.monotonic() - self.began, 1)
        write(self.folder, self.document)


@dataclass(frozen=True)
class Bench:
    """Everything a search needs to act. arms: baseline first."""

    stand: Stand
    measure: Measure
    arms: tuple[ArmSpec, ...]
    book: Book
    seed: int = 1
    tell: Callable[[Step], None] = lambda step: None
    prime: Prime | None = None

    def warm(self, running: Running, start: str) -> None:
        """First requests to all arms of a fresh start; the document's arms learn what only running servers tell."""
        learn_arms(self.book, running)
        if self.prime is not None:
            self.prime(running, self.book.folder, self.book.document, start)
            self.book.save()

    def take(self, running: Running, ask: Ask) -> Taken:
        """Measure a block and keep it; raises SearchError where the servers or the generator did not get through it."""
        folder = self.book.folder / "blocks" / ask.id
        shutil.rmtree(folder, ignore_errors=True)  # a run that goes on measures a block that was cut short again
        taken = self.measure(running, ask, folder)
        self.book.add(taken.block)
        if taken.faults or taken.requests is None:
            raise SearchError(f"block {ask.id}: {'; '.join(taken.faults) or 'nothing was measured'}")
        return taken

    def start_folder(self, name: str) -> Path:
        """Where a start's configuration and logs lie; one left by a run that was cut short is removed."""
        folder = self.book.folder / "starts" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def arms_before(arms: Sequence[ArmSpec], aa: str = "") -> Json:
    """The document's arms as far as they are known before a server runs. aa: which one is the baseline's second instance."""
    roles = {arm.name: "A/A" if arm.name == aa else "arm" if i else "baseline" for i, arm in enumerate(arms)}
    return {arm.name: planned_arm(arm) | {"role": roles[arm.name]} for arm in arms}


def learn_arms(book: Book, running: Running) -> None:
    """Complete the document's arms with what only running servers tell: implementation, stand-in or not, wire format."""
    arms: dict[str, Json] = book.document.setdefault("arms", {})
    for name, arm in running.arms.items():
        arms.setdefault(name, {})
        arms[name] |= {
            "implementation": arm.implementation,
            "stand_in": arm.stand_in,
            "wire": dict(running.wire.get(name, {})),
        }


def stand_in_between(arms: Mapping[str, Json]) -> bool:
    """Some arms run on a stand-in and some do not: then no verdict is given between them."""
    return len({bool(arm.get("stand_in")) for arm in arms.values()}) > 1


def cores(block: Json, role: str) -> float | None:
    """Mean cores of a role over the block's window: "gateway", "generator" or "arm NAME"."""
    used = (block.get("cpu") or {}).get(role)
    return None if used is None else float(used["cores"])


def late_reason(block: Json) -> str | None:
    """The generator did not keep its schedule. (A dropped arrival found no free place: that is the server's doing.)"""
    n, late = block["n"], block["late"]
    if n and late > LATE_LIMIT * n:
        return f"{late} of {n} arrivals were sent late ({100 * late / n:.2g}%, the limit is {100 * LATE_LIMIT:g}%)"
    return None
