"""Numbers as a reader sees them, and the sentences made of them. PURE. Rounding happens here and nowhere before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gateway.reports.jsonable import Json, told


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without exponent, e.g. 12.3, 5.10, 0.00412, 1230; whole ones stay whole."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def milliseconds(value: float) -> str:
    """A duration given in ms, in the unit that reads best; the sign is kept."""
    if abs(value) >= 10_000:
        return f"{significant(value / 1000)} s"
    if abs(value) < 0.1 and value != 0:
        return f"{significant(value * 1000, 2)} \N{MICRO SIGN}s"
    return f"{significant(value)} ms"


def percent(share: float, decimals: int = 2) -> str:
    """A share in percent: so many decimals, one digit where they would all be zero, none for whole percents."""
    value = 100 * share
    if value == round(value):
        return f"{value:.0f}%"
    if abs(value) < 10.0**-decimals:
        return f"{significant(value, 1)}%"
    return f"{value:.{decimals}f}%"


def span(low: float, high: float, write: Callable[[float], str]) -> str:
    """An interval, its unit written once where both ends have the same, e.g. "2.91 to 2.97 ms"."""
    first, last = write(low), write(high)
    for unit in (" ms", " /s", " \N{MICRO SIGN}s", " s", " pp", "%"):
        if first.endswith(unit) and last.endswith(unit):
            return f"{first.removesuffix(unit)} to {last}"
    return f"{first} to {last}"


def count(value: float) -> str:
    """A whole number with thin groups of three, e.g. 19 963."""
    return f"{round(value):,}".replace(",", "\u202f")


def size(value: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def headline(seconds: float | None, arms: Sequence[Json], units: int, lost: int = 0) -> str:
    """The first lines of the report: what was sent and how it was split, what failed, how often the answers were right,
    and how fast they came. The line about performance stands apart. lost: requests that failed before an arm was known.
    """
    served = [arm for arm in arms if arm.get("requests")]
    if seconds is None or not served:
        if lost:
            return f"All {count(lost)} requests failed before an arm was known, so there is nothing to compare."
        return "No request of the measurement window is on record, so there is nothing to compare."
    total = sum(arm["requests"] for arm in served)
    users = f" from {count(units)} users" if units else ""
    if len(served) == 1:
        split = f"went to {served[0]['name']}"
    else:
        split = "were split: " + listing([f"{percent(arm['requests'] / total, 1)} to {arm['name']}" for arm in served])
    lines = [f"In {significant(seconds)} s, {count(total)} requests{users} {split}. {_failures(served, lost)}"]
    judged = [arm for arm in served if arm["accuracy"]["judged"]]
    if judged:
        shares = [
            f"{percent(arm['accuracy']['right'] / arm['accuracy']['judged'], 1)} on {arm['name']}" for arm in judged
        ]
        lines.append(f"Checked answers were right: {listing(shares)}")
    spans = [text for name, said in (("p50", "half"), ("p99", "99%")) if (text := _within(served, name, said))]
    if spans:
        lines.append(f"Of the answers, {', and '.join(spans)}")
    return ". ".join(lines) + "."


def _failures(served: Sequence[Json], lost: int) -> str:
    failed = sum(arm["errors"]["count"] for arm in served)
    more = f"; {count(lost)} more failed before an arm was known" if lost else ""
    if not failed:
        return f"None {'of these ' if lost else ''}failed{more}"
    shares = [f"{percent(arm['errors']['count'] / arm['requests'], 1)} on {arm['name']}" for arm in served]
    return f"{count(failed)} failed: {listing(shares)}{more}"


def _within(served: Sequence[Json], name: str, said: str) -> str:
    times = [(arm["name"], told(arm["latency_ms"]["answered"].get(name))) for arm in served]
    known = [f"{milliseconds(value)} on {arm}" for arm, value in times if value is not None]
    return f"{said} came within {listing(known)}" if len(known) == len(served) else ""
