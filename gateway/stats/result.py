"""The shapes every statistic answers with. A value that cannot be had is a `NotComputable` with its reason, never a
sentinel such as 0, 1 or NaN: "cannot tell" must not look like "no effect".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class NotComputable:
    """Why a number is missing, as a phrase that can stand in a table cell's footnote."""

    reason: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval with its nominal coverage, in the unit of the estimate."""

    low: float
    high: float
    confidence: float = DEFAULT_CONFIDENCE


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point estimate from n observations and, where it can be had, its interval.

    design_effect: variance relative to independent observations (>= 1); 1 when no units were given.
    """

    value: float
    n: int
    interval: Interval | NotComputable
    design_effect: float = 1.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm minus baseline, with its interval, in the unit of the two estimates."""

    value: float
    interval: Interval
    baseline: float
    arm: float


def require(result: T | NotComputable) -> T:
    """Unwrap a result that the caller has already shown to exist; raises ValueError with the reason otherwise."""
    if isinstance(result, NotComputable):
        raise ValueError(f"not computable: {result.reason}")
    return result
