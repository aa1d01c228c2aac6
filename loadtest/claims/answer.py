"""From effects and a rule that was written before the run to an answer. PURE.

One decision rule for all: an answer has a p, twice the smaller one-sided p of "it holds" and "it is contradicted"; over the
family of claims these are corrected by Holm; below alpha the answer is the one with the smaller p, else it is inconclusive.
With a single claim this is the same as asking on which side of the bound the 95% interval lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.stats.effects import Effect, Margin
from gateway.stats.holm import FAMILY_ALPHA, Adjusted
from gateway.stats.result import NotComputable

RuleKind = Literal["tie", "at least", "at most"]

HOLDS, CONTRADICTED = "holds here", "contradicted here"
INCONCLUSIVE, ELSEWHERE = "inconclusive here", "the source speaks of something else"
ANSWERS = (HOLDS, CONTRADICTED, INCONCLUSIVE, ELSEWHERE)
OVER = "the interval reaches over the bound: more starts are needed"


@dataclass(frozen=True, slots=True)
class Judged:
    """One-sided p of the two possible answers: small means shown. missing: why a part of the claim has no p."""

    holds: float
    contradicted: float
    missing: str = ""

    @property
    def p(self) -> float:
        """Of whichever answer is nearer; two-sided."""
        return min(1.0, 2.0 * min(self.holds, self.contradicted))


@dataclass(frozen=True, slots=True)
class Answer:
    """A claim's answer, why, and its p before and after the correction for the family (None where it is no test)."""

    answer: str
    reason: str
    p: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides before any number. stand_in: TensorFlow's side was one and the claim is about the servers."""

    transfers: bool = True
    stand_in: bool = False
    scope: Sequence[str] = ()
    invalid: str = ""


def judge(effect: Effect | NotComputable, rule: RuleKind, bound: float) -> Judged | NotComputable:
    """An effect against a rule. bound of a tie: the margin's size; of the others a value on the effect's own scale."""
    if isinstance(effect, NotComputable):
        return effect
    if rule == "tie":
        low, high = Margin(bound, effect.scale).bounds
        within = max(effect.p_above(low), effect.p_below(high))
        return Judged(within, min(effect.p_below(low), effect.p_above(high)))
    above, below = effect.p_above(bound), effect.p_below(bound)
    return Judged(above, below) if rule == "at least" else Judged(below, above)


def combine(parts: Sequence[Judged | NotComputable]) -> Judged | NotComputable:
    """A claim that holds where all its parts hold, and is contradicted where one is (Bonferroni over the parts).

    A part that is missing cannot hold, so that the claim can still be contradicted but not hold.
    """
    if not parts:
        return NotComputable("the claim has no part")
    known = [part for part in parts if isinstance(part, Judged)]
    missing = [part.reason for part in parts if isinstance(part, NotComputable)]
    if not known:
        return NotComputable("; ".join(dict.fromkeys(missing)))
    holds = 1.0 if missing else max(part.holds for part in known)
    contradicted = min(1.0, len(parts) * min(part.contradicted for part in known))
    return Judged(holds, contradicted, "; ".join(dict.fromkeys(missing)))


def alone(judged: Judged | NotComputable, alpha: float = FAMILY_ALPHA) -> str:
    """What a single comparison says by its own 95% interval, without the family."""
    if isinstance(judged, NotComputable) or judged.p >= alpha:
        return "inconclusive"
    return "holds" if judged.holds < judged.contradicted else "contradicted"


def answer(
    circumstances: Circumstances, judged: Judged | NotComputable, adjusted: Adjusted | NotComputable | None
) -> Answer:
    """The answer of a claim. adjusted None: it was no member of the family, because it could not be answered here at all."""
    p = judged.p if isinstance(judged, Judged) else None
    if not circumstances.transfers:
        said = " and ".join(circumstances.scope)
        return Answer(ELSEWHERE, f"it is said of {said}; the figures show what serving does, they do not judge it", p)
    if circumstances.stand_in:
        reason = "stand-in: the speed and memory of TensorFlow Serving were not measured, a stand-in's were"
        return Answer(INCONCLUSIVE, reason, p)
    if circumstances.invalid:
        return Answer(INCONCLUSIVE, circumstances.invalid, p)
    if isinstance(judged, NotComputable):
        return Answer(INCONCLUSIVE, judged.reason)
    if adjusted is None or isinstance(adjusted, NotComputable):
        reason = adjusted.reason if isinstance(adjusted, NotComputable) else "it was not tested"
        return Answer(INCONCLUSIVE, reason, p)
    single = alone(judged)
    if adjusted.shown:
        side = "on the claim's side of" if single == "holds" else "on the other side of"
        return Answer(
            HOLDS if single == "holds" else CONTRADICTED, f"shown to lie {side} the bound", p, adjusted.p_value
        )
    if single == "inconclusive" and judged.missing:
        reason = (
            f"a part of it has no figure, so that it cannot hold, and the others do not contradict it: {judged.missing}"
        )
        return Answer(INCONCLUSIVE, reason, p, adjusted.p_value)
    if single == "inconclusive":
        return Answer(INCONCLUSIVE, OVER, p, adjusted.p_value)
    reason = f"alone it would be {single} (p {judged.p:.3g}), among all the claims asked it is not (p {adjusted.p_value:.3g})"
    return Answer(INCONCLUSIVE, reason, p, adjusted.p_value)


def counts(answers: Sequence[str]) -> Mapping[str, int]:
    """How often each answer was given, all four of them."""
    return {name: sum(1 for given in answers if given == name) for name in ANSWERS}
