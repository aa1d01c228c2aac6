"""First requests after a start: each server is loaded until it has stopped working on itself, so that no block pays for it.

Rule: rounds of ROUND_SECONDS, all arms that are not done at once. Where a server has just-in-time compilers (Java's threads
bear their names) it is done when they used less than QUIET of a core in each of two rounds (between bursts they may rest for
one); any other, when a round's processor time an answer was hardly below the one before. Past the limit nobody waits: it is
told, and each block tells of compilers that still worked.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from loadtest.lab.recording import BlockPlan, arm_processes, point_spec
from loadtest.lab.spec import Running
from loadtest.lab.threads import QUIET, compilers, spent
from loadtest.points.run import PointError, run_point
from loadtest.points.spec import Load

ROUND_SECONDS = 3.0
LIMIT = 75.0
IN_FLIGHT = 8  # what compiles does so by the number of calls: many at a time get there sooner
GAIN = 1.05
Json = dict[str, Any]


@dataclass
class Primed:
    """What first requests did to one arm, by round: milliseconds of processor time an answer, cores of its compilers."""

    costs: list[float] = field(default_factory=list)
    compiling: list[float] = field(default_factory=list)
    failed: str | None = None

    @property
    def done(self) -> bool:
        """Nothing more is to be had from another round."""
        return self.failed is not None or settled(self.costs, self.compiling)

    def told(self) -> Json:
        """As it stands in lab.json (lab/spec.py)."""
        return {
            "seconds": ROUND_SECONDS * len(self.costs),
            "settled": settled(self.costs, self.compiling),
            "cost_ms": [round(cost, 3) for cost in self.costs],
            "compiling_cores": [round(cores, 3) for cores in self.compiling],
            "failed": self.failed,
        }


def settled(costs: Sequence[float], compiling: Sequence[float]) -> bool:
    """Whether a server has stopped working on itself, after rounds of first requests. PURE."""
    if compiling:
        return len(compiling) > 1 and max(compiling[-2:]) < QUIET
    return len(costs) > 1 and costs[-1] * GAIN >= costs[-2]


def primed(running: Running, plan: BlockPlan, run_dir: Path, document: Json, start: str, limit: float = LIMIT) -> None:
    """`prime` all arms of a start alike; what is told of it becomes the document's "primed"[start]."""
    told = prime(running, dict.fromkeys(running.arms, plan), run_dir / "prime", limit)
    document.setdefault("primed", {})[start] = told


def prime(running: Running, plans: Mapping[str, BlockPlan], folder: Path, limit: float) -> dict[str, Json]:
    """Load the arms of `plans` (each as its own blocks will be, but IN_FLIGHT at a time) until all are done, for at most limit s.

    folder is made and removed. Returns arm -> what is told of it; raises ConfigError for a plan that cannot be run.
    """
    found = {arm: Primed() for arm in plans}
    with ThreadPoolExecutor(max(1, len(plans))) as pool:
        for _ in range(int(limit / ROUND_SECONDS)):
            left = [arm for arm, one in found.items() if not one.done]
            if not left:
                break
            before = {arm: _used(running, arm) for arm in left}
            answered = dict(
                zip(left, pool.map(lambda arm: _round(running, arm, plans[arm], folder / arm), left), strict=True)
            )
            for arm in left:
                _judge(found[arm], answered[arm], before[arm], _used(running, arm))
    shutil.rmtree(folder, ignore_errors=True)
    return {arm: one.told() for arm, one in found.items()}


def _judge(
    one: Primed,
    answered: int | str,
    before: tuple[float, Mapping[Any, float]],
    after: tuple[float, Mapping[Any, float]],
) -> None:
    if isinstance(answered, str) or not answered:
        one.failed = answered or "no request was answered"
        return
    one.costs.append(1000.0 * (after[0] - before[0]) / answered)
    if after[1]:
        one.compiling.append(spent(before[1], after[1]) / ROUND_SECONDS)


def _round(running: Running, arm: str, plan: BlockPlan, folder: Path) -> int | str:
    """Good answers of one round, or why there are none."""
    load = Load.closed(IN_FLIGHT, ROUND_SECONDS)
    try:
        result = run_point(point_spec(running, arm, replace(plan, load=load, slack=0.0, id="prime")), folder)
    except (PointError, OSError) as error:
        return str(error)
    return result.good


def _used(running: Running, arm: str) -> tuple[float, Mapping[Any, float]]:
    """CPU seconds of an arm's processes, and of their compilers' threads by thread."""
    pids = arm_processes(running, arm)
    seconds = 0.0
    for pid in pids:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
    return seconds, compilers(pids)
