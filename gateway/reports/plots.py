"""The report's figures from report.json's numbers: inline SVG for two widths, a text alternative, and the numbers as a table.
PURE. Arms are told apart by colour and by dash; nothing is computed here that is not in the dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.reports.jsonable import Json, told
from gateway.reports.svg import NARROW, WIDE, Drawing, Frame, Point, linear_ticks, log_ticks
from gateway.reports.words import listing, milliseconds, percent, significant, span

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))


@dataclass(frozen=True)
class Figure:
    """One figure: its drawings for desktop and phone, or why there is none, and the numbers behind it."""

    name: str
    title: str
    description: str
    wide: str
    narrow: str
    arms: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def figures(report: Json) -> list[Figure]:
    """All figures of a report; one that has no data says so in its description and has no drawing."""
    return [_percentiles(report), _latency_over_time(report), _batches(report), _requests_over_time(report)]


def _both(name: str, title: str, description: str, draw: Callable[[Drawing], None]) -> tuple[str, str]:
    drawings = []
    for suffix, frame in (("wide", WIDE), ("narrow", NARROW)):
        drawing = Drawing(frame)
        draw(drawing)
        drawings.append(drawing.render(f"{name}-{suffix}", title, description))
    return drawings[0], drawings[1]


def _empty(name: str, title: str, reason: str) -> Figure:
    return Figure(name, title, reason, "", "", (), (), ())


def _served(report: Json) -> list[Json]:
    return [arm for arm in report["arms"] if arm.get("requests")]


def arm_index(report: Json) -> dict[str, int]:
    """The number of each arm, by which its colour and dash are chosen everywhere in the page."""
    return {arm["name"]: i for i, arm in enumerate(report["arms"])}


def _tail(share: float) -> float:
    return -math.log10(1.0 - share)


def _percentiles(report: Json) -> Figure:
    name, title = "percentiles", "Latency distribution"
    index = arm_index(report)
    arms = [arm for arm in _served(report) if report["plots"]["percentile_curve"][arm["name"]]["share"]]
    if not arms:
        return _empty(name, title, "Too few answers for a distribution.")
    curves = [report["plots"]["percentile_curve"][arm["name"]] for arm in arms]
    values = [v for c in curves for v in c["latency_ms"] if v > 0]
    low, high = min(values), max(values)
    last = max(_tail(c["share"][-1]) for c in curves)

    def draw(drawing: Drawing) -> None:
        frame = drawing.frame
        x, y = frame.x(0.0, max(last, 1.0)), frame.y(low, max(high, low * 2), math.log10)
        ticks = log_ticks(low, max(high, low * 2), 5 if frame.narrow else 8)
        drawing.y_axis(y, [(t, f"{t:g}") for t in ticks], "ms (logarithmic)")
        marks = [(0.0, "0%"), (0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")]
        shown = [(_tail(s), label) for s, label in marks if _tail(s) <= max(last, 1.0) + 1e-9]
        drawing.x_axis(x, shown, "share of answers within")
        for place, (arm, points) in enumerate(zip(arms, curves, strict=True)):
            i = index[arm["name"]]
            line = [(x(_tail(s)), y(v)) for s, v in zip(points["share"], points["latency_ms"], strict=True)]
            drawing.line(line, f"line arm{i}")
            for quantile, share in PERCENTILES:
                found = arm["latency_ms"]["answered"][quantile]
                if "low" in found:
                    at = x(_tail(share)) + (place - (len(arms) - 1) / 2) * 7
                    drawing.segment((at, y(found["low"])), (at, y(found["high"])), f"whisker arm{i}")

    sentences = [f"{arm['name']}: {listing(_told_quantiles(arm))}" for arm in arms]
    description = f"Percentile curve per arm; bars are 95% intervals of p50, p90, p95 and p99. {'. '.join(sentences)}."
    rows = tuple((q, *(_estimate_text(arm["latency_ms"]["answered"][q]) for arm in arms)) for q, _ in PERCENTILES)
    wide, narrow = _both(name, title, description, draw)
    names = tuple(arm["name"] for arm in arms)
    return Figure(name, title, description, wide, narrow, names, ("quantile", *names), rows,
                  "Lower is faster. The axis stretches the tail: each mark to the right is ten times rarer.")  # fmt: skip


def _told_quantiles(arm: Json) -> list[str]:
    pairs = [(q, told(arm["latency_ms"]["answered"][q])) for q, _ in PERCENTILES]
    return [f"{q} {milliseconds(v)}" for q, v in pairs if v is not None] or ["below the sample floor"]


def _estimate_text(found: Json) -> str:
    value = told(found)
    if value is None:
        return f"n/a ({found['not_computable']})"
    if "low" not in found:
        return f"{milliseconds(value)} (no interval: {found['interval_not_computable']})"
    return f"{milliseconds(value)} ({span(found['low'], found['high'], milliseconds)})"


def _time_axis(drawing: Drawing, seconds: float) -> Callable[[float], float]:
    x = drawing.frame.x(0.0, seconds)
    ticks = linear_ticks(0.0, seconds, 5 if drawing.frame.narrow else 10)
    drawing.x_axis(x, [(t, f"{t:g}") for t in ticks], "seconds of the window")
    return x


def _latency_over_time(report: Json) -> Figure:
    name, title = "latency-over-time", "Latency over time"
    data = report["plots"]["over_time"]
    values = (
        [v for arm in data["arms"].values() for v in (*arm["p50_ms"], *arm["p95_ms"]) if v is not None] if data else []
    )
    if not values:
        return _empty(name, title, "Too few answers for quantiles over time.")
    index = arm_index(report)
    width, starts, arms = data["bin_seconds"], data["start_s"], data["arms"]
    seconds, high = report["run"]["window"]["seconds"], max(values) * 1.08
    happened = [e for e in report["events"] if e["offset_s"] is not None and 0 <= e["offset_s"] <= seconds]

    def draw(drawing: Drawing) -> None:
        frame, x = drawing.frame, _time_axis(drawing, seconds)
        y = frame.y(0.0, high)
        drawing.y_axis(y, [(t, f"{t:g}") for t in linear_ticks(0.0, high, 6)], "ms")
        middles = [min(s + width / 2, seconds) for s in starts]
        for arm_name, arm in arms.items():
            i = index[arm_name]
            p50, p95 = (
                [None if v is None else (x(m), y(v)) for m, v in zip(middles, arm[key], strict=True)]
                for key in ("p50_ms", "p95_ms")
            )
            drawing.band(p95, p50, f"band arm{i}")
            drawing.line(p95, f"thin arm{i}")
            drawing.line(p50, f"line arm{i}")
            for middle, errors in zip(middles, arm["errors"], strict=True):
                if errors:
                    _cross(drawing, (x(middle), frame.top + 4.0 + 10 * i), f"error arm{i}")
        for number, event in enumerate(happened, 1):
            place = x(event["offset_s"])
            drawing.segment((place, frame.top), (place, frame.height - frame.bottom), "event")
            drawing.text((place + 3, frame.height - frame.bottom - 5), str(number), "tick", "start")

    failed = [f"{arm} {sum(lines['errors'])}" for arm, lines in arms.items()]
    description = (
        f"Per {width:g} s: the line is the median, the band reaches up to p95; crosses mark bins with failed requests "
        f"(failed: {listing(failed)}). p95 at most {milliseconds(max(values))}."
    )
    if happened:
        description += " Events: " + "; ".join(f"{n} {e['what']}" for n, e in enumerate(happened, 1)) + "."
    keys = (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"), ("errors", "failed"))
    header = ("from s", *(f"{arm} {label}" for arm in arms for _, label in keys))
    rows = tuple(
        (f"{start:g}", *(_cell(arms[arm][key][i], key) for arm in arms for key, _ in keys))
        for i, start in enumerate(starts)
    )
    wide, narrow = _both(name, title, description, draw)
    return Figure(name, title, description, wide, narrow, tuple(arms), header, rows)


def _cross(drawing: Drawing, at: Point, css: str) -> None:
    (x, y), reach = at, 3.5
    drawing.segment((x - reach, y - reach), (x + reach, y + reach), css)
    drawing.segment((x - reach, y + reach), (x + reach, y - reach), css)


def _cell(value: float | None, key: str) -> str:
    if value is None:
        return "n/a"
    return milliseconds(value) if key.endswith("_ms") else significant(value, 4)


def _requests_over_time(report: Json) -> Figure:
    name, title = "requests-over-time", "Requests per arm over time"
    data = report["plots"]["over_time"]
    if not data:
        return _empty(name, title, "No requests in the window.")
    index = arm_index(report)
    starts, arms, width = data["start_s"], data["arms"], data["bin_seconds"]
    seconds = report["run"]["window"]["seconds"]
    high = max(max(arm["requests_per_s"]) for arm in arms.values()) * 1.08

    def draw(drawing: Drawing) -> None:
        x = _time_axis(drawing, seconds)
        y = drawing.frame.y(0.0, high)
        drawing.y_axis(y, [(t, f"{t:g}") for t in linear_ticks(0.0, high, 6)], "requests a second")
        for arm_name, arm in arms.items():
            points = []
            for start, rate in zip(starts, arm["requests_per_s"], strict=True):
                points += [(x(start), y(rate)), (x(min(start + width, seconds)), y(rate))]
            drawing.line(points, f"line arm{index[arm_name]}")

    means = [f"{arm['name']} {significant(arm['throughput_rps'], 4)}" for arm in _served(report)]
    description = f"Requests a second in steps of {width:g} s, failed ones included. Mean: {listing(means)}."
    header = ("from s", *arms)
    rows = tuple(
        (f"{s:g}", *(significant(arms[a]["requests_per_s"][i], 4) for a in arms)) for i, s in enumerate(starts)
    )
    wide, narrow = _both(name, title, description, draw)
    return Figure(name, title, description, wide, narrow, tuple(arms), header, rows)


def chosen_batches(arm: Json) -> Json | None:
    """The distribution to plot: rows per batch where told (comparable across servers), else whatever there is."""
    entries: list[Json] | Json = arm["batching"]["distributions"]
    if not isinstance(entries, list):
        return None
    return next((entry for entry in entries if entry["what"].startswith("rows")), entries[0])


def _order(size: str) -> int:
    return int(size.rstrip("+").split("-")[0])


def _batches(report: Json) -> Figure:
    name, title = "batches", "Batch sizes"
    index = arm_index(report)
    pairs = [(index[arm["name"]], arm["name"], chosen_batches(arm)) for arm in _served(report)]
    told_by = [(i, arm, entry) for i, arm, entry in pairs if entry is not None]
    silent = [arm for _, arm, entry in pairs if entry is None]
    note = f"{listing(silent)}: not told by the server." if silent else ""
    if not told_by:
        return _empty(name, title, note or "No batch sizes.")
    sizes = sorted({b["size"] for _, _, e in told_by for b in e["buckets"]}, key=_order)
    shares = {(arm, b["size"]): b["share"] for _, arm, e in told_by for b in e["buckets"]}
    high = max(shares.values()) * 1.1

    def draw(drawing: Drawing) -> None:
        _bars(drawing, sizes, [(i, arm) for i, arm, _ in told_by], shares, high)

    described = [f"{arm} ({e['what']}): mean {_mean_text(e)}" for _, arm, e in told_by]
    description = f"Share of batches by size. {listing(described)}. {note}".strip()
    arms = tuple(arm for _, arm, _ in told_by)
    rows = tuple((size, *(percent(shares.get((arm, size), 0.0)) for arm in arms)) for size in sizes)
    wide, narrow = _both(name, title, description, draw)
    return Figure(name, title, description, wide, narrow, arms, ("batch size", *arms), rows, note)


def _mean_text(entry: Json) -> str:
    return significant(entry["mean"]) if isinstance(entry["mean"], float) else "not told"


def _bars(
    drawing: Drawing,
    sizes: Sequence[str],
    arms: Sequence[tuple[int, str]],
    shares: dict[tuple[str, str], float],
    high: float,
) -> None:
    frame: Frame = drawing.frame
    y = frame.y(0.0, high)
    drawing.y_axis(y, [(t, f"{100 * t:g}%") for t in linear_ticks(0.0, high, 6)], "share of batches")
    slot = (frame.width - frame.left - frame.right) / len(sizes)
    bar = min(44.0, slot * 0.8 / len(arms))
    scale = frame.x(0.0, len(sizes))
    drawing.x_axis(scale, [(k + 0.5, size) for k, size in enumerate(sizes)], "batch size")
    for k, size in enumerate(sizes):
        middle = frame.left + slot * (k + 0.5)
        for place, (i, arm) in enumerate(arms):
            share = shares.get((arm, size), 0.0)
            left = middle + (place - len(arms) / 2) * bar
            drawing.rect(left, y(share), bar - 2, y(0.0) - y(share), f"fill arm{i}")
