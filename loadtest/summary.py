"""A run in a table: counts, latencies and right answers per arm and protocol, and what they mean for the exit code.

PURE apart from printing. Percentiles are the sample's own, "n/a" below the number of samples that can carry them; no
intervals, no comparison of arms: that is the report's work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gateway.stats.result import NotComputable
from gateway.stats.schedule import ScheduleCheck
from loadtest.arrivals import Window
from loadtest.profiles import Profile

# samples needed before a percentile is told: MLPerf LoadGen's early stopping at 99% confidence
_FLOORS = {0.5: 11, 0.95: 130, 0.99: 662}
_RATE_KEPT = 0.95  # below this share of the wanted rate an open-loop run says nothing about that rate
_CORE = 0.7  # share of a core above which a single-threaded process shapes what is measured


@dataclass(slots=True)
class Tally:
    """Counts of one arm over one protocol; latency in nanoseconds, of good answers."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency_ns: list[int] = field(default_factory=list)
    judged: int = 0
    right: int = 0

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.requests += other.requests
        self.errors += other.errors
        self.latency_ns += other.latency_ns
        self.judged += other.judged
        self.right += other.right


class Tallies:
    """Counts a ledger row by row; only rows of the window count."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.by: dict[tuple[str, str], Tally] = {}

    def see(self, row: Sequence[Any]) -> None:
        """One ledger row, in the ledger's order of columns."""
        if not self._window.start_ns <= row[0] < self._window.end_ns:
            return
        tally = self.by.setdefault((row[4], row[2]), Tally())
        tally.requests += 1
        if row[8]:
            tally.errors[row[8]] += 1
        else:
            tally.latency_ns.append(row[1])
        if row[10] is not None:
            tally.judged += 1
            tally.right += bool(row[10])

    def arms(self) -> dict[str, Tally]:
        """All protocols of each arm together; "" holds requests no arm answered."""
        arms: dict[str, Tally] = {}
        for (arm, _), tally in sorted(self.by.items()):
            arms.setdefault(arm, Tally()).add(tally)
        return arms

    @property
    def requests(self) -> int:
        """Requests in the window."""
        return sum(tally.requests for tally in self.by.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code of a run that sent something, and a line for each reason."""

    exit_code: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went: rows the ledger lost, whether it was cut off, and an open loop's schedule."""

    dropped: int
    interrupted: bool
    schedule: ScheduleCheck | NotComputable | None = None


def judge(tallies: Tallies, profile: Profile, weights: Mapping[str, float], course: Course) -> Verdict:
    """1: an arm is over the profile's limits; 2: the run cannot say; 0 otherwise. weights: arms that should get traffic.

    2 too where an open loop did not keep its schedule: errors under another load than the one asked for prove nothing.
    """
    failed, unsure = [], []
    dropped, interrupted = course.dropped, course.interrupted
    arms = tallies.arms()
    for arm, tally in arms.items():
        name = arm or "requests without an arm"
        errors = sum(tally.errors.values())
        sent = tally.requests if arm else tallies.requests  # without an arm nothing succeeds: its share is of all
        if errors > profile.limits.errors * sent:
            kinds = ", ".join(f"{kind} {count}" for kind, count in tally.errors.most_common(5))
            share = f"{errors} of {sent} requests failed ({errors / sent:.2%})"
            failed.append(f"{name}: {share}, more than {profile.limits.errors:.2%}: {kinds}")
        if tally.judged and tally.right < profile.min_correct * tally.judged:
            share = f"{tally.right} of {tally.judged} judged answers were right ({tally.right / tally.judged:.2%})"
            failed.append(f"{name}: {share}, fewer than {profile.min_correct:.2%}")
    if interrupted:
        unsure.append("interrupted before the end of the measurement window")
    if not tallies.requests:
        unsure.append("no request was sent in the measurement window")
    else:
        unsure += [f"{arm}: has weight and got no request" for arm in weights if weights[arm] > 0 and arm not in arms]
    if dropped:
        unsure.append(f"{dropped} requests are missing in the ledger: it could not be written")
    offered = profile.plan.offered
    if offered and not interrupted and tallies.requests < _RATE_KEPT * offered:
        unsure.append(f"{tallies.requests / offered:.1%} of the wanted rate was sent; more users are needed")
    if isinstance(course.schedule, ScheduleCheck) and not course.schedule.valid:
        return Verdict(2, (course.schedule.reason, *failed, *unsure))
    return Verdict(1 if failed else 2 if unsure else 0, (*failed, *unsure))


def limited_by(generator_cores: float, gateway_cores: float) -> list[str]:
    """Which of the two shaped the measurement: mean cores of its busiest process above 0.7."""
    found = {"generator": generator_cores, "gateway": gateway_cores}
    return [name for name, cores in found.items() if cores > _CORE]


def percentile(latency_ns: Sequence[int], share: float) -> float | None:
    """A percentile in milliseconds, the observation of rank ceil(share * n) as on the report; None below the sample floor."""
    if len(latency_ns) < _FLOORS[share]:
        return None
    return float(np.quantile(np.asarray(latency_ns), share, method="inverted_cdf")) / 1e6


def show(console: Console, tallies: Tallies, seconds: float, title: str) -> None:
    """Print the table."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    for name in ("requests", "share", "req/s", "errors", "right", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for (arm, protocol), tally in sorted(tallies.by.items()):
        table.add_row(
            arm or "(none)",
            protocol,
            str(tally.requests),
            f"{tally.requests / tallies.requests:.1%}",
            f"{tally.requests / seconds:.0f}",
            str(sum(tally.errors.values())),
            f"{tally.right / tally.judged:.1%}" if tally.judged else "-",
            *(_milliseconds(percentile(tally.latency_ns, share)) for share in _FLOORS),
        )
    console.print(title)
    console.print(table)


def _milliseconds(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
