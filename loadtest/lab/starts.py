"""The run of starts: every replicate is a fresh start of all arms' processes, one arm loaded at a time, the others idle.

Lives here: the order of doing and keeping; lab.json is whole after every block set, and a start that was cut short is measured
again from its beginning, because its pairs must come from one start. Nothing is judged here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.errors import AbgateError
from loadtest.lab import document as lab
from loadtest.lab.blocks import common
from loadtest.lab.plan import ComparisonPlan, LoadPlan
from loadtest.lab.priming import primed
from loadtest.lab.recording import BlockPlan, record
from loadtest.lab.spec import Running, Stand, StandError
from loadtest.points.spec import Load

START_TRIES = 2
Json = dict[str, Any]
Tell = Callable[[str, float], None]
"""Told what is being done, and the share of the work that is done."""


class LabError(AbgateError):
    """The experiment cannot go on; what was measured is in lab.json."""


@dataclass
class Starts:
    """A run of starts into one lab.json. orders: the arms' order in each start. analyse: fills in what follows from blocks."""

    stand: Stand
    plan: ComparisonPlan
    orders: Sequence[Sequence[str]]
    run_dir: Path
    document: Json
    analyse: Callable[[Json], None]
    tell: Tell = field(default=lambda what, share: None)
    _since: float = field(default_factory=time.monotonic)
    _before: float = 0.0

    def run(self) -> Json:
        """Measure every start that is missing; Ctrl-C ends it with what there is. Raises LabError, ConfigError."""
        self._since, self._before = time.monotonic(), float(self.document.get("seconds", 0.0))
        try:
            self._keep()
            if self.plan.pilot_load and "pilot" not in self.document["results"]:
                self._retried(self._pilot, "pilot")
            for number in self.missing():
                self._retried(self._start, number)
            self.document["complete"] = True
        except KeyboardInterrupt:
            self.document["results"]["interrupted"] = True
        finally:
            with suppress(KeyboardInterrupt):
                self.analyse(self.document)
                self._keep()
        return self.document

    def missing(self) -> list[int]:
        """The starts that are not whole."""
        wanted = len(self.plan.loads) * len(self.plan.protocols) * len(self.plan.arms)
        count: dict[int, int] = {}
        for block in self.document["blocks"]:
            count[block["replicate"]] = count.get(block["replicate"], 0) + 1
        return [number for number in range(len(self.orders)) if count.get(number, 0) < wanted]

    def _retried(self, doing: Callable[[Any], None], what: Any) -> None:
        """Once more where the servers did not come up: that says nothing about their speed, but it is kept in the document."""
        for attempt in range(START_TRIES):
            try:
                doing(what)
                return
            except StandError as error:
                self.document["results"].setdefault("failed_starts", []).append(f"start {what}: {error}")
                if attempt + 1 == START_TRIES:
                    raise LabError(f"start {what}: {error}; `--resume {self.run_dir.name}` tries again") from error

    def _keep(self) -> None:
        self.document["seconds"] = round(self._before + time.monotonic() - self._since, 1)
        lab.write(self.run_dir, self.document)

    def _say(self, what: str, replicate: int, inside: float = 0.0) -> None:
        self.tell(what, (replicate + inside) / len(self.orders))

    def _up(self, running: Running, name: str) -> None:
        """What every start adds to the document."""
        results = self.document["results"]
        if not self.document["arms"]:
            roles = {self.plan.baseline.name: "baseline", **({self.plan.aa: "A/A"} if self.plan.aa else {})}
            self.document["arms"] = lab.arms_entry(self.plan.arms, running, roles)
        results.setdefault("start_seconds", {})[name] = {
            arm: round(seconds, 2) for arm, seconds in running.started_seconds.items()
        }

    def _prime(self, running: Running, start: str) -> None:
        """First requests to all arms, over each of the protocols, for at most timing.prime seconds each."""
        for protocol in self.plan.protocols:
            plan, limit = self._any_block(protocol), self.plan.timing.prime
            primed(running, plan, self.run_dir, self.document, f"{start}, {protocol}", limit)

    def _any_block(self, protocol: Any) -> BlockPlan:
        return replace(self.plan, loads={"prime": LoadPlan(closed=1)}).block("prime", protocol, None)

    def _start(self, number: int) -> None:
        plan, order = self.plan, self.orders[number]
        gone = [block for block in self.document["blocks"] if block["replicate"] == number]
        for block in gone:
            shutil.rmtree(self.run_dir / block["folder"], ignore_errors=True)
        self.document["blocks"] = [block for block in self.document["blocks"] if block["replicate"] != number]
        folder = self.run_dir / "starts" / f"{number:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        self._say(f"start {number + 1} of {len(self.orders)}: starting the servers", number)
        rates = self.document["results"].get("rates", dict(plan.rates(None)) if not plan.pilot_load else {})
        by_name = {arm.name: arm for arm in plan.arms}
        # started in the order they are loaded in: always the same first one would be a difference between equal arms
        with self.stand.up([by_name[name] for name in order], folder) as running:
            self._up(running, str(number))
            self._say(f"start {number + 1} of {len(self.orders)}: first requests", number, 0.3)
            self._prime(running, f"start {number}")
            sets = [(protocol, name) for protocol in plan.protocols for name in plan.loads]
            for place, (protocol, name) in enumerate(sets):
                self._say(
                    f"start {number + 1} of {len(self.orders)}: {name}, {protocol}",
                    number,
                    0.4 + 0.6 * place / len(sets),
                )
                self._set(running, number, place * len(order), plan.block(name, protocol, rates.get(name)))
        self.analyse(self.document)
        self._keep()

    def _set(self, running: Running, number: int, first: int, one: BlockPlan) -> None:
        """One load on every arm in turn; all are cut alike."""
        recordings = []
        for place, arm in enumerate(self.orders[number], first):
            identity = f"{number:03d}-{place:02d}-{arm}"
            planned = replace(one, id=identity, replicate=number, order=place, seed=self.plan.seed * 1_000_003 + number)
            recordings.append(record(running, arm, planned, self.run_dir / "blocks" / identity))
        self.document["blocks"] += [block.document for block in common(recordings)]
        self._keep()

    def _pilot(self, name: str) -> None:
        """A start that is not counted: what each arm can do closed, so that rates given as shares can be fixed beforehand."""
        arms = [arm for arm in self.plan.arms if arm.name != self.plan.aa]
        self._say("pilot: what the arms can carry", 0)
        folder = self.run_dir / "starts" / "pilot"
        shutil.rmtree(folder, ignore_errors=True)
        found: dict[str, float] = {}
        with self.stand.up(arms, folder) as running:
            self._prime(running, "pilot")
            load = Load.closed(self.plan.pilot_load, self.plan.timing.duration, self.plan.timing.warmup)
            for arm in arms:
                for protocol in self.plan.protocols:
                    plan = replace(self._any_block(protocol), load=load, id=f"pilot-{arm.name}-{protocol}")
                    block = common([record(running, arm.name, plan, self.run_dir / "blocks" / plan.id)])[0].document
                    if not block["goodput"]:
                        raise LabError(f"pilot: {arm.name}, {protocol}: {'; '.join(block['reasons'])}")
                    found[f"{arm.name} {protocol}"] = block["goodput"]
        self.document["results"] |= {"pilot": found, "rates": dict(self.plan.rates(min(found.values())))}


def idle_cores(blocks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean cores of each arm's server over the blocks in which another arm was loaded. PURE."""
    seen: dict[str, list[float]] = {}
    for block in blocks:
        for role, used in block["cpu"].items():
            arm = role.removeprefix("arm ")
            if role.startswith("arm ") and arm != block["arm"]:
                seen.setdefault(arm, []).append(used["cores"])
    return {arm: sum(values) / len(values) for arm, values in sorted(seen.items())}
