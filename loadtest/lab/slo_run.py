"""Capacity at an SLO, the doing: probes until each arm is bracketed, then the grid on fresh servers, drained in between.

Every decision is slo.py's, every figure slo_results.py's; here is only their order and what is written down when.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.stats.capacity import over_slo
from loadtest.lab import slo
from loadtest.lab.session import (
    START_SECONDS,
    Ask,
    Bench,
    SearchError,
    Step,
    Taken,
    cores,
    late_reason,
    planned,
    stand_in_between,
)
from loadtest.lab.slo_results import Measured, Outcomes, Terms, results, share
from loadtest.lab.spec import Running
from loadtest.points.spec import Load

Json = dict[str, Any]
DRAIN_TRIES = 20
LATE_TRIES = 3
PROBES = 10
"""Probes an arm's bracket is planned with."""

GUESSED_RATE = 200.0
"""What the grid's rates are planned with before they are known."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: of a probe, of a point (the least), of warm-up before each; points a bracket gets on the grid."""

    probe: float = 3.0
    point: float = 10.0
    warmup: float = 1.0
    points: int = 8


@dataclass
class SloRun:
    """One run. terms.stand_in is what the servers have said they are. A run that goes on keeps the brackets that were
    found and the starts that were whole: the points of one start must come from the same processes."""

    bench: Bench
    terms: Terms
    search: slo.Search
    times: Times
    idle_ms: dict[str, float] = field(default_factory=dict)
    points: list[Measured] = field(default_factory=list)
    probes: dict[str, list[Json]] = field(default_factory=dict)
    brackets: dict[str, slo.Bracket] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    done: float = 0.0
    started: int = 0
    whole: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up what an earlier part of this run measured."""
        earlier = self.bench.book.document.get("results") or {}
        self.brackets = {
            arm: slo.Bracket(one["low"], one["high"], one["note"]) for arm, one in earlier.get("bracket", {}).items()
        }
        self.probes = {arm: seen for arm, seen in earlier.get("probes", {}).items() if arm in self.brackets}
        self.rates = tuple(earlier.get("grid", ()))
        self.whole = list(earlier.get("whole", ()))
        self.points = [
            Measured(**{**one, "reasons": tuple(one["reasons"])}, outcomes=self._outcomes(one["block"]))
            for one in earlier.get("points", ())
            if one["replicate"] in self.whole
        ]

    def run(self) -> Json:
        """All starts; returns and writes "results". Raises StandError, SearchError."""
        bench = self.bench
        names = [arm.name for arm in bench.arms]
        for replicate in range(self.terms.starts):
            if replicate in self.whole:
                self.started += 1
                continue
            self._tell(f"start {replicate + 1} of {self.terms.starts}: fresh servers")
            with bench.stand.up(bench.arms, bench.start_folder(f"start-{replicate}")) as running:
                self.done += START_SECONDS
                self._greet(running, replicate)
                self.started += 1
                if not self.rates:
                    self._bracket(running)
                    self.rates = slo.grid(self.brackets.values(), self.times.points)
                    self._write()
                if not self.rates:
                    break  # no arm has a bracket: there is nothing to measure
                order = slo.order(names, self.rates, self.terms.starts, self.terms.seed)
                todo = [place for place in order if place.replicate == replicate]
                for attempt in range(LATE_TRIES):
                    todo = [place for place in todo if not self._point(running, place, attempt)]
                self.whole.append(replicate)
                self._write()
        return self._write(final=True)

    def _greet(self, running: Running, replicate: int) -> None:
        """One client at a time on each idle arm: warms it up and tells what its queue looks like when it is empty."""
        self.bench.warm(running, f"start {replicate}")
        for arm in running.arms:
            taken = self._take(running, f"s{replicate}-idle-{arm}", arm, Load.closed(1, self.times.probe, 1.0))
            self.idle_ms[arm] = _median_ms(taken)

    def _bracket(self, running: Running) -> None:
        for arm in running.arms:
            if arm in self.brackets:
                continue
            if arm == self.terms.aa:  # the grid is for both
                self.brackets[arm] = self.brackets[self.terms.arms[0]]
                continue
            seen: list[slo.Probe] = []
            while not isinstance(step := slo.next_probe(seen, self.terms.objective, self.search), slo.Bracket):
                taken = self._probe(running, f"probe-{arm}-{len(seen):02d}", arm, step)
                outcomes = Outcomes.of(_whole(taken), taken.check)
                over = over_slo(outcomes.latency_ms, outcomes.answered, self.terms.objective.threshold_ms)
                seen.append(slo.Probe(step, share(over), share(~outcomes.answered), late_reason(taken.block) is None))
                self.probes.setdefault(arm, []).append(
                    {"rate": step, "over": seen[-1].over, "errors": seen[-1].errors,
                     "held": seen[-1].held(self.terms.objective), "block": taken.block["id"]}
                )  # fmt: skip
                self._drain(running, arm, taken)
                self._write()
            self.brackets[arm] = step

    def _point(self, running: Running, place: slo.Place, attempt: int) -> bool:
        """A point of the grid; False where its arrivals were late, so that it is to be offered again when the others have been:
        what disturbed it may last longer than it. The last attempt counts whatever it was."""
        again = f"-again{attempt}" if attempt else ""
        id = f"s{place.replicate}-{place.order:03d}-{place.arm}-{place.rate:g}{again}"
        load = Load.open(place.rate, self._seconds_for(place.rate), self.times.warmup)
        taken = self._take(running, id, place.arm, load, place)
        block = taken.block
        if late_reason(block) is not None and attempt < LATE_TRIES - 1:
            self._drain(running, place.arm, taken)
            return False
        used = [cores(block, role) for role in (f"arm {place.arm}", "gateway", "generator")]
        if self.terms.path == "direct":
            used[1] = None
        outcomes = Outcomes.of(_whole(taken), taken.check)
        np.savez(self._kept(block["id"]), latency_ms=outcomes.latency_ms, answered=outcomes.answered)
        at = (place.arm, place.rate, place.replicate, block["id"])
        self.points.append(Measured(*at, outcomes, used[0], used[1], used[2], tuple(block["capacity"]["reasons"])))
        self._drain(running, place.arm, taken)
        return True

    def _seconds_for(self, rate: float) -> float:
        return slo.seconds_for(rate, self.times.point, self.terms.objective.errors)

    def _kept(self, block: str) -> Path:
        """Where a point's outcomes lie, beside its raw data."""
        folder = self.bench.book.folder / "blocks" / block
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "outcomes.npz"

    def _outcomes(self, block: str) -> Outcomes:
        try:
            with np.load(self._kept(block)) as kept:
                return Outcomes(kept["latency_ms"], kept["answered"])
        except (OSError, ValueError, KeyError) as error:
            raise SearchError(f"{self._kept(block)}: cannot be read, the run cannot go on: {error}") from error

    def _probe(self, running: Running, id: str, arm: str, rate: float) -> Taken:
        """A probe's block. One whose arrivals the generator sent late says nothing of the server, whatever it shows: once more."""
        load = Load.open(rate, self.times.probe, self.times.warmup)
        taken = self._take(running, id, arm, load)
        for attempt in range(1, LATE_TRIES):
            if late_reason(taken.block) is None:
                break
            self._drain(running, arm, taken)
            taken = self._take(running, f"{id}-again{attempt}", arm, load)
        return taken

    def _take(self, running: Running, id: str, arm: str, load: Load, place: slo.Place | None = None) -> Taken:
        rate = f"{load.course[0].from_rate:g}/s" if load.course else "one client"
        self._tell(f"{arm}: {rate} for {load.duration:g} s")
        where = (place.replicate, place.order) if place else (0, 0)
        # for all arms the same arrivals at the same rate; at another rate others, or all would meet the same bursts
        seed = zlib.crc32(f"{self.terms.seed} {where[0]} {rate}".encode())
        taken = self.bench.take(running, Ask(id, arm, load, *where, seed))
        self.done += planned(load)
        return taken

    def _drain(self, running: Running, arm: str, taken: Taken) -> None:
        """Wait until no request that was given up stands in a queue any more."""
        if not taken.abandoned:
            return
        for attempt in range(DRAIN_TRIES):
            id = f"drain-{taken.block['id']}-{attempt}"
            probe = _whole(self._take(running, id, arm, Load.closed(1, 1.0, 0.0)))
            good = (probe.done_ns >= 0) & (probe.error == "")
            latency = ((probe.done_ns - probe.sent_ns)[good] / 1e6).tolist()
            if slo.drained(latency, self.idle_ms[arm], int((~good).sum())):
                return
        raise SearchError(
            f"arm {arm}: its queue had not drained after {DRAIN_TRIES} s, so that no next point can be measured"
        )

    def _tell(self, text: str) -> None:
        """What comes now; how many probes and rates there will be is a guess until it is known."""
        probe = _seconds(self.times.probe, self.times.warmup)
        arms = [arm.name for arm in self.bench.arms]
        left = sum(max(1, PROBES - len(self.probes.get(arm, []))) for arm in arms if arm not in self.brackets) * probe
        rates = self.rates or (GUESSED_RATE,) * self.times.points
        points = [_seconds(self._seconds_for(rate), self.times.warmup) for rate in rates]
        taken = [_seconds(self._seconds_for(p.rate), self.times.warmup) for p in self.points]
        starts = (self.terms.starts - self.started) * (START_SECONDS + len(arms) * probe)
        left += starts + self.terms.starts * len(arms) * sum(points) - sum(taken)
        self.bench.tell(Step(self.done, self.done + max(left, probe), text))

    def _write(self, final: bool = False) -> Json:
        # by the document: in a run that goes on, the servers may have said what they are in its earlier part
        mixed = stand_in_between(self.bench.book.document["arms"])
        found = results(self.points, replace(self.terms, stand_in=mixed)) if final else {}
        found |= {
            "probes": self.probes,
            "bracket": {arm: {"low": b.low, "high": b.high, "note": b.note} for arm, b in self.brackets.items()},
            "grid": list(self.rates),
            "whole": list(self.whole),
            "points": [_point(one) for one in self.points],
        }
        self.bench.book.change(results=found)
        return found


def _point(one: Measured) -> Json:
    """A point of the grid without its outcomes."""
    told = {key: getattr(one, key) for key in Measured.__dataclass_fields__ if key != "outcomes"}
    return told | {"reasons": list(one.reasons)}


def _seconds(duration: float, warmup: float) -> float:
    return planned(Load.closed(1, duration, warmup))


def _whole(taken: Taken) -> Any:
    assert taken.requests is not None
    return taken.requests


def _median_ms(taken: Taken) -> float:
    requests = _whole(taken)
    good = (requests.done_ns >= 0) & (requests.error == "")
    if not good.any():
        raise SearchError(f"block {taken.block['id']}: the idle server answered no request rightly")
    return float(np.median((requests.done_ns - requests.sent_ns)[good] / 1e6))
