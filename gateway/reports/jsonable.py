"""How results of gateway.stats stand in report.json. PURE. A missing number is an object that says why, never null or 0."""

from __future__ import annotations

from typing import Any

from gateway.stats.result import Difference, Estimate, Interval, NotComputable

Json = dict[str, Any]


def missing(reason: str) -> Json:
    """A number that is not there, and why."""
    return {"not_computable": reason}


def interval(value: Interval | NotComputable) -> Json:
    """The limits of an interval, or why there are none."""
    if isinstance(value, NotComputable):
        return {"interval_not_computable": value.reason}
    return {"low": value.low, "high": value.high, "confidence": value.confidence}


def estimate(value: Estimate | NotComputable) -> Json:
    """An estimate with its interval, number of observations and design effect."""
    if isinstance(value, NotComputable):
        return missing(value.reason)
    return {"value": value.value, "n": value.n, "design_effect": value.design_effect, **interval(value.interval)}


def difference(value: Difference | NotComputable) -> Json:
    """Arm minus baseline with its interval."""
    if isinstance(value, NotComputable):
        return missing(value.reason)
    return {"value": value.value, **interval(value.interval)}


def told(value: Json | None) -> float | None:
    """The number of a JSON estimate, None where it is not computable."""
    return None if value is None or "value" not in value else float(value["value"])
