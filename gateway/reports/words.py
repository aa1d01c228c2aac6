"""Numbers as a reader sees them, and the sentences made of them. PURE. Rounding happens here and nowhere before."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.reports.jsonable import Json, told


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without exponent, e.g. 12.3, 0.00412, 1230."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text:
        text = f"{float(text):f}".rstrip("0").rstrip(".")
    return text


def milliseconds(value: float) -> str:
    """A duration given in ms, in the unit that reads best; the sign is kept."""
    if abs(value) >= 10_000:
        return f"{significant(value / 1000)} s"
    if abs(value) < 0.1 and value != 0:
        return f"{significant(value * 1000, 2)} µs"
    return f"{significant(value)} ms"


def percent(share: float) -> str:
    """A share in percent: two decimals, more digits only where they would vanish."""
    value = 100 * share
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
    return f"{significant(value, 1)}%"


def count(value: float) -> str:
    """A whole number with thin groups of three, e.g. 19 963."""
    return f"{round(value):,}".replace(",", "\u202f")


def size(value: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def headline(seconds: float | None, arms: Sequence[Json], units: int, performance: str) -> str:
    """The first lines of the report: what was sent and how it was split, what failed, how often the answers were right,
    how fast they came, and the performance line.
    """
    served = [arm for arm in arms if arm.get("requests")]
    if seconds is None or not served:
        return f"No request of the measurement window is on record, so there is nothing to compare. Performance: {performance}."
    total = sum(arm["requests"] for arm in served)
    users = f" from {count(units)} users" if units else ""
    if len(served) == 1:
        split = f"went to {served[0]['name']}"
    else:
        split = "were split: " + listing([f"{percent(arm['requests'] / total)} to {arm['name']}" for arm in served])
    lines = [f"In {significant(seconds)} s, {count(total)} requests{users} {split}. {_failures(served)}"]
    judged = [arm for arm in served if arm["accuracy"]["judged"]]
    if judged:
        shares = [f"{percent(arm['accuracy']['right'] / arm['accuracy']['judged'])} on {arm['name']}" for arm in judged]
        lines.append(f"Checked answers were right: {listing(shares)}")
    spans = [text for name, said in (("p50", "half"), ("p99", "99%")) if (text := _within(served, name, said))]
    if spans:
        lines.append(f"Of the answers, {', and '.join(spans)}")
    return f"{'. '.join(lines)}. Performance: {performance}."


def _failures(served: Sequence[Json]) -> str:
    failed = sum(arm["errors"]["count"] for arm in served)
    if not failed:
        return "None failed"
    shares = [f"{percent(arm['errors']['count'] / arm['requests'])} on {arm['name']}" for arm in served]
    return f"{count(failed)} failed: {listing(shares)}"


def _within(served: Sequence[Json], name: str, said: str) -> str:
    times = [(arm["name"], told(arm["latency_ms"]["answered"].get(name))) for arm in served]
    known = [f"{milliseconds(value)} on {arm}" for arm, value in times if value is not None]
    return f"{said} came within {listing(known)}" if len(known) == len(served) else ""
