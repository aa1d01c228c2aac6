"""From a difference and a margin to a verdict, and from a run's circumstances to the one line about performance.

A verdict carries its reason. What forbids a verdict (a stand-in, an unfinished run, a sample-ratio alarm) is decided
here, before any number is looked at; this module computes no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.stats.result import Difference, NotComputable

STAND_IN_LINE = "no verdict: stand-in"


class Verdict(StrEnum):
    """What the interval of a difference says about the arm, against a margin chosen beforehand."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference beyond margin"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on one quantity of one arm against the baseline, with the reason in words."""

    verdict: Verdict
    reason: str
    too_little_data: bool = False


def decide(difference: Difference | NotComputable, margin: float, lower_is_better: bool = True) -> Decision:
    """Compare the whole interval with +-margin (unit of the difference, >= 0; raises ValueError when negative).

    Inside the margin: no difference beyond it (equivalence, two one-sided tests, Schuirmann 1987). Wholly beyond it on
    one side: better or worse. Anything else: cannot tell, also where zero is excluded but the margin is not cleared.
    """
    if margin < 0:
        raise ValueError(f"a margin is not negative, got {margin}")
    if isinstance(difference, NotComputable):
        return Decision(Verdict.CANNOT_TELL, difference.reason, too_little_data=True)
    low, high = difference.interval.low, difference.interval.high
    if not lower_is_better:
        low, high = -high, -low
    if low > margin:
        return Decision(Verdict.WORSE, "the whole interval lies beyond the margin on the bad side")
    if high < -margin:
        return Decision(Verdict.BETTER, "the whole interval lies beyond the margin on the good side")
    if -margin <= low and high <= margin:
        return Decision(Verdict.NO_DIFFERENCE, "the whole interval lies within the margin")
    if low > 0 or high < 0:
        side = "bad" if low > 0 else "good"
        return Decision(
            Verdict.CANNOT_TELL, f"a difference to the {side} side is shown, but not that it exceeds the margin"
        )
    return Decision(Verdict.CANNOT_TELL, "the interval holds zero and reaches beyond the margin: more data are needed")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What, beside the numbers, decides whether a run may name a winner."""

    stand_ins: Sequence[str] = ()
    unfinished: str = ""
    srm_alarm: bool = False
    limited_by: Sequence[str] = ()
    shared_machine: bool = True
    """The arms were loaded at the same time on the same cores: the run describes the mixed system."""
    arms: int = 2


@dataclass(frozen=True, slots=True)
class Performance:
    """The performance line as it is printed, its reason, whether it names a winner, and whether it is inconclusive."""

    line: str
    reason: str
    names_winner: bool = False
    inconclusive: bool = False


def performance(circumstances: Circumstances, decision: Decision, phrase: str) -> Performance:
    """The one line about performance. `phrase` tells the measured difference in words, e.g. "b p95 2.1 ms above a".

    In this order: a stand-in forbids every verdict; then a run that did not finish, a sample-ratio alarm, a single arm;
    a live split describes the mixed system; a limited run and too little data give no verdict; else the decision.
    """
    c = circumstances
    if c.stand_ins:
        names = " and ".join(c.stand_ins)
        verb = "is" if len(c.stand_ins) == 1 else "are"
        return Performance(
            STAND_IN_LINE,
            f"{names} {verb} served by a stand-in, not by the real server: its speed says nothing about the real one",
        )
    if c.unfinished:
        return Performance("no verdict: unfinished run", c.unfinished, inconclusive=True)
    if c.srm_alarm:
        reason = "the arms did not get the units their weights promise, so what they served is not comparable"
        return Performance("no verdict: sample ratio mismatch", reason, inconclusive=True)
    if c.arms < 2:
        return Performance("no verdict: one arm", "a run with one arm describes that arm and compares nothing")
    if decision.too_little_data:
        return Performance("no verdict: too little data", decision.reason, inconclusive=True)
    if c.shared_machine:
        reason = (
            "a live split on one machine describes the mixed system, in which each arm also pays for the other's load; "
            "it names no winner of capacity"
        )
        return Performance(f"mixed system: {phrase}; no winner of capacity", reason)
    if c.limited_by:
        names = " and ".join(c.limited_by)
        return Performance(f"no verdict: limited by the {names}", "the load side was the bottleneck", inconclusive=True)
    if decision.verdict is Verdict.CANNOT_TELL:
        return Performance("no verdict: cannot tell", decision.reason, inconclusive=True)
    return Performance(f"{decision.verdict.value}: {phrase}", decision.reason, names_winner=True)
