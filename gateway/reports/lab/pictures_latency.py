"""Pictures of latency: percentile curves, and latency over the run block by block. PURE: takes the blocks' reduced rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gateway.reports.charts import SERIES, Axis, Picture, Range, Value, both, scale_of, ticks_of
from gateway.reports.lab.read import BlockRows, OverTime, curve
from gateway.reports.lab.shape import Condition, Doc
from gateway.reports.svg import Drawing
from gateway.reports.words import listing, milliseconds

DRAWN = 6
"""Conditions that are drawn; the figures of the others are in the CSV files' own pictures only where they are drawn."""

_MARKS = ((0.0, "0%"), (0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%"))
Curves = Mapping[str, list[tuple[str, tuple[tuple[float, float], ...]]]]


def slug(text: str) -> str:
    """A file's name of a condition's."""
    kept = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(piece for piece in kept.split("-") if piece)


def latency(found: Sequence[Condition], rows: Mapping[str, BlockRows], index: Mapping[str, int]) -> list[Picture]:
    """Both pictures of every drawn condition."""
    pictures = []
    for one in found[:DRAWN]:
        if any(str(block.get("id")) in rows for block in one.blocks):
            pictures += [_percentiles(one, rows, index), _over_run(one, rows, index)]
    return pictures


def _tail(share: float) -> float:
    return -math.log10(1.0 - share)


def _percentiles(one: Condition, rows: Mapping[str, BlockRows], index: Mapping[str, int]) -> Picture:
    """All starts of an arm together as a line, each start as a thin one; an open loop's service latency as dots."""
    name, title = f"percentiles-{slug(one.name)}", f"Latency distribution: {one.name}"
    pooled: dict[str, tuple[tuple[float, float], ...]] = {}
    service: dict[str, tuple[tuple[float, float], ...]] = {}
    starts: dict[str, list[tuple[int, tuple[tuple[float, float], ...]]]] = {}
    for arm in one.arms:
        mine = [(b, rows[str(b.get("id"))].latencies) for b in one.of(arm) if str(b.get("id")) in rows]
        if mine:
            pooled[arm] = curve(np.sort(np.concatenate([x.intended for _, x in mine])))
            starts[arm] = [(int(b.get("replicate") or 0), curve(x.intended)) for b, x in mine]
            if one.is_open:
                service[arm] = curve(np.sort(np.concatenate([x.service for _, x in mine])))
    pooled = {arm: points for arm, points in pooled.items() if points}
    if not pooled:
        return Picture(name, title, "Too few answers for a distribution.")
    span, last = Range(), 1.0
    for points in [*pooled.values(), *service.values()]:
        span.add(*(v for _, v in points))
        last = max(last, _tail(points[-1][0]) if points else 1.0)
    axis = Axis("ms (logarithmic)", log=True)
    bounds = span.bounds(axis)

    def draw(drawing: Drawing) -> None:
        x, y = drawing.frame.x(0.0, last), scale_of(drawing, axis, bounds, vertical=True)
        drawing.y_axis(y, ticks_of(axis, bounds, 5 if drawing.frame.narrow else 8), axis.label)
        drawing.x_axis(
            x, [(_tail(s), text) for s, text in _MARKS if _tail(s) <= last + 1e-9], "share of answers within"
        )
        for arm in pooled:
            i = index.get(arm, 0) % SERIES
            for _, points in starts[arm]:
                drawing.line(
                    [(x(min(_tail(s), last)), y(min(max(v, bounds[0]), bounds[1]))) for s, v in points], f"start arm{i}"
                )
            drawing.line([(x(_tail(s)), y(v)) for s, v in pooled[arm]], f"line arm{i}")
            if arm in service:
                drawing.line([(x(_tail(s)), y(v)) for s, v in service[arm]], f"dotted arm{i}")

    what = "intended latency (from the scheduled time); dots: service latency" if one.is_open else "service latency"
    description = (
        f"Percentile curve of {what}: all starts of an arm together, thin lines are single starts. "
        + ". ".join(f"{arm}: {listing(_told(points))}" for arm, points in pooled.items())
        + "."
    )
    shown = _curve_rows(pooled, service, starts)
    wide, narrow = both(name, title, description, (350, 300), draw)
    note = "The axis stretches the tail: each mark to the right is ten times rarer. Curves end where the samples do."
    legend = tuple((arm, index.get(arm, 0)) for arm in pooled)
    return Picture(
        name,
        title,
        description,
        wide,
        narrow,
        legend,
        ("arm", "latency", "start", "share within", "ms"),
        tuple(shown),
        note,
    )


Line = tuple[tuple[float, float], ...]


def _curve_rows(
    pooled: Mapping[str, Line], service: Mapping[str, Line], starts: Mapping[str, list[tuple[int, Line]]]
) -> list[tuple[Value, ...]]:
    shown: list[tuple[Value, ...]] = [
        (arm, "intended", "all", s, v) for arm, points in pooled.items() for s, v in points
    ]
    shown += [(arm, "service", "all", s, v) for arm, points in service.items() for s, v in points]
    shown += [
        (arm, "intended", start, s, v)
        for arm, found in starts.items()
        for start, points in found
        for s, v in points[::4]
    ]
    return shown


def _told(points: Sequence[tuple[float, float]]) -> list[str]:
    found = []
    for share, label in _MARKS[1:]:
        value = next((v for s, v in points if s >= share - 1e-9), None)
        if value is not None:
            found.append(f"{label} within {milliseconds(value)}")
    return found


def _over_run(one: Condition, rows: Mapping[str, BlockRows], index: Mapping[str, int]) -> Picture:
    """Blocks one after another in the order they ran; the time between them is cut out."""
    name, title = f"over-time-{slug(one.name)}", f"Latency over time: {one.name}"
    ordered = sorted(one.blocks, key=lambda b: (b.get("replicate") or 0, b.get("order") or 0))
    mine = [(b, rows[str(b.get("id"))].time) for b in ordered if str(b.get("id")) in rows]
    starts, at = [], 0.0
    for _, time in mine:
        starts.append(at)
        at += time.width * len(time.start_s) * 1.04
    span = Range()
    for _, time in mine:
        span.add(*(v for v in (*time.p50_ms, *time.p95_ms)))
    if not span.values:
        return Picture(name, title, "Too few answers for quantiles over time.")
    axis = Axis("ms", zero=True)
    bounds = span.bounds(axis)

    def draw(drawing: Drawing) -> None:
        x, y = drawing.frame.x(0.0, at), scale_of(drawing, axis, bounds, vertical=True)
        drawing.y_axis(y, ticks_of(axis, bounds, 6), axis.label)
        previous = None
        for (block, time), begin in zip(mine, starts, strict=True):
            i = index.get(str(block.get("arm")), 0) % SERIES
            if block.get("replicate") != previous:
                previous = block.get("replicate")
                drawing.segment(
                    (x(begin), drawing.frame.top), (x(begin), drawing.frame.height - drawing.frame.bottom), "event"
                )
            middles = [x(begin + s + time.width / 2) for s in time.start_s]
            p50, p95 = (
                [None if v is None else (m, y(v)) for m, v in zip(middles, line, strict=True)]
                for line in (time.p50_ms, time.p95_ms)
            )
            drawing.band(p95, p50, f"band arm{i}")
            drawing.line(p95, f"thin arm{i}")
            drawing.line(p50, f"line solid arm{i}")
        every = max(1, math.ceil(len({b.get("replicate") for b, _ in mine}) / (6 if drawing.frame.narrow else 16)))
        firsts = {b.get("replicate"): begin for (b, _), begin in reversed(list(zip(mine, starts, strict=True)))}
        labels = [(begin, str(start)) for start, begin in sorted(firsts.items(), key=lambda pair: pair[1])][::every]
        drawing.x_axis(x, labels, "start (its blocks one after another)")

    arms = tuple(dict.fromkeys(str(b.get("arm")) for b, _ in mine))
    failed = sum(sum(time.errors) for _, time in mine)
    told = [v for _, time in mine for v in time.p95_ms if v is not None]
    description = (
        f"Blocks in the order they ran, the time between them cut out: the line is the median, the band reaches up to p95 where "
        f"a step of {mine[0][1].width:.2g} s has 130 answers. {failed} requests failed. "
        + (f"p95 of a step at most {milliseconds(max(told))}." if told else "No step has enough answers for a p95.")
    )
    shown = _time_rows(mine)
    header = ("block", "arm", "start", "from s", "requests", "failed", "p50 ms", "p95 ms", "p99 ms")
    wide, narrow = both(name, title, description, (300, 280), draw)
    return Picture(
        name, title, description, wide, narrow, tuple((a, index.get(a, 0)) for a in arms), header, tuple(shown)
    )


def _time_rows(mine: Sequence[tuple[Doc, OverTime]]) -> list[tuple[Value, ...]]:
    shown: list[tuple[Value, ...]] = [
        (
            str(b.get("id")),
            str(b.get("arm")),
            b.get("replicate"),
            time.start_s[k],
            time.requests[k],
            time.errors[k],
            time.p50_ms[k],
            time.p95_ms[k],
            time.p99_ms[k],
        )
        for b, time in mine
        for k in range(len(time.start_s))
    ]
    return shown
