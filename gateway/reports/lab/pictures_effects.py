"""Pictures of comparisons: every effect with its interval against the margin, and each pair of starts behind it. PURE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.reports.charts import (
    Axis,
    Mark,
    Picture,
    Range,
    RowMarks,
    Value,
    both,
    marker,
    row_chart,
    scale_of,
    ticks_of,
)
from gateway.reports.lab.shape import Doc, number, part, reason_of
from gateway.reports.lab.words import interval, ratio, unit_of
from gateway.reports.svg import Drawing, Frame
from gateway.reports.words import significant, size

EFFECT_ROWS = 40
PAIR_PANELS = 6


def effects(comparisons: Sequence[Doc], index: Mapping[str, int]) -> list[Picture]:
    """A forest plot for ratios and one for differences; comparisons without a number are in the table only."""
    found = []
    for unit, title in (("ratio", "Effects against the margin"), ("difference", "Differences against the margin")):
        mine = [c for c in comparisons if c.get("unit", "ratio") == unit]
        if mine or unit == "ratio":
            found.append(_forest(mine, unit, title, index))
    return found


def _forest(mine: Sequence[Doc], unit: str, title: str, index: Mapping[str, int]) -> Picture:
    name = f"effects-{unit}"
    told = [c for c in mine if number(c.get("value")) is not None]
    if not told:
        return Picture(
            name, title, "No comparison has a number: " + (reason_of(mine[0]) if mine else "none was made") + "."
        )
    margins = {number(c.get("margin")) for c in told}
    margin = margins.pop() if len(margins) == 1 else None
    rows = []
    for one in told[:EFFECT_ROWS]:
        aa = part(one, "aa")
        marks = [_of(one, index.get(str(one.get("arm")), 1))]
        if number(aa.get("value")) is not None:
            marks.append(Mark(number(aa["value"]), number(aa.get("low")), number(aa.get("high")), 5, ghost=True))
        text = str(one.get("verdict") or "")
        rows.append(
            RowMarks(
                f"{one.get('metric')}: {one.get('arm')}",
                f"{one.get('protocol')} · {one.get('load')}",
                tuple(marks),
                text,
            )
        )
    is_ratio = unit == "ratio"
    band = None if margin is None else (1 / (1 + margin), 1 + margin) if is_ratio else (-margin, margin)
    first = told[0]
    label = f"{'ratio to' if is_ratio else 'difference to'} {first.get('baseline')}"
    axis = Axis(label, log=is_ratio, band=band, lines=((1.0 if is_ratio else 0.0, ""),), write="{:.3g}".format)
    sentences = [
        f"{c.get('metric')} of {c.get('arm')} ({c.get('protocol')}, {c.get('load')}): {ratio(float(c['value']))} "
        f"({interval(c)}): {c.get('verdict')}"
        for c in told[:6]
    ]
    shaded = "" if band is None else f" The shaded zone is the margin, {ratio(band[0])} to {ratio(band[1])}."
    description = (
        f"Each row: {first.get('arm')} against {first.get('baseline')} with its 95% interval over pairs of starts; below it, "
        f"faint, the A/A comparison of two equal arms.{shaded} {'; '.join(sentences)}."
    )
    note = f"The first {EFFECT_ROWS} of {len(told)} are drawn." if len(told) > EFFECT_ROWS else ""
    wide, narrow = row_chart(name, title, description, rows, axis)
    return Picture(name, title, description, wide, narrow, (), _HEADER, tuple(_row(c) for c in mine), note)


_HEADER = (
    "metric",
    "arm",
    "baseline",
    "protocol",
    "load",
    "unit",
    "value",
    "low",
    "high",
    "p",
    "pairs",
    "margin",
    "A/A value",
    "A/A low",
    "A/A high",
    "verdict",
    "reason",
)


def _row(one: Doc) -> tuple[Value, ...]:
    aa = part(one, "aa")
    return (
        *(str(one.get(key)) for key in ("metric", "arm", "baseline", "protocol", "load", "unit")),
        *(number(one.get(key)) for key in ("value", "low", "high", "p")),
        int(number(one.get("n")) or 0),
        number(one.get("margin")),
        *(number(aa.get(key)) for key in ("value", "low", "high")),
        str(one.get("verdict") or "n/a"),
        str(one.get("reason") or one.get("missing") or ""),
    )


def _of(one: Doc, index: int) -> Mark:
    return Mark(number(one.get("value")), number(one.get("low")), number(one.get("high")), index)


def pairs(comparisons: Sequence[Doc], index: Mapping[str, int]) -> Picture:
    """Every pair of starts as two joined points: a panel for each comparison."""
    name, title = "pairs-of-starts", "Every start, pairs joined"
    told = [c for c in comparisons if _pairs(c)]
    if not told:
        return Picture(name, title, "No comparison tells its pairs of starts.")
    panels = told[:PAIR_PANELS]
    header = ("metric", "protocol", "load", "pair", "order", "baseline", "arm", "baseline value", "arm value")
    rows: list[tuple[Value, ...]] = [
        (
            *(str(c.get(key)) for key in ("metric", "protocol", "load")),
            number_,
            order,
            str(c.get("baseline")),
            str(c.get("arm")),
            a,
            b,
        )
        for c in told
        for number_, (a, b, order) in enumerate(_pairs(c), 1)
    ]
    description = (
        "Each panel: one comparison; left the baseline's starts, right the arm's, a line for each pair, dashed where the arm ran "
        "first. Parallel lines: the pairs agree. " + "; ".join(_sentence(c) for c in panels) + "."
    )
    columns = (3, 2)

    def draw(drawing: Drawing) -> None:
        across = columns[1] if drawing.frame.narrow else columns[0]
        for place, one in enumerate(panels):
            _panel(drawing, one, (place % across, place // across, across), index)

    deep = [math.ceil(len(panels) / across) for across in columns]
    wide, narrow = both(name, title, description, (250 * deep[0] + 4, 220 * deep[1] + 4), draw)
    note = (
        f"The first {PAIR_PANELS} of {len(told)} comparisons are drawn; the figures hold all."
        if len(told) > PAIR_PANELS
        else ""
    )
    return Picture(name, title, description, wide, narrow, (), header, tuple(rows), note)


def _pairs(one: Doc) -> list[tuple[float, float, str]]:
    found: Any = one.get("pairs")
    if not isinstance(found, list):
        return []
    result = []
    for pair in found:
        if (
            isinstance(pair, list | tuple)
            and len(pair) >= 2
            and number(pair[0]) is not None
            and number(pair[1]) is not None
        ):
            result.append((float(pair[0]), float(pair[1]), str(pair[2]) if len(pair) > 2 else ""))
    return result


def _sentence(one: Doc) -> str:
    found = _pairs(one)
    higher = sum(b > a for a, b, _ in found)
    where = f"{one.get('metric')}, {one.get('protocol')}, {one.get('load')}"
    return f"{where}: {one.get('arm')} is higher in {higher} of {len(found)} pairs"


def _panel(drawing: Drawing, one: Doc, place: tuple[int, int, int], index: Mapping[str, int]) -> None:
    column, row, across = place
    width, height = drawing.frame.width / across, 220.0 if drawing.frame.narrow else 250.0
    x0, y0 = column * width, row * height
    left = 56.0
    found = _pairs(one)
    span = Range()
    for a, b, _ in found:
        span.add(a, b)
    unit = unit_of(str(one.get("metric")))
    axis = Axis("", write=size if unit == "bytes" else "{:.4g}".format)
    bounds = span.bounds(axis)
    inner = Drawing(Frame(int(width), int(height), left=int(left), right=14, top=44, bottom=30))
    y = scale_of(inner, axis, bounds, vertical=True)
    ends = left + (width - left) * 0.22, left + (width - left) * 0.72
    letters = int(width / 6.6)
    inner.text((4, 12), f"{one.get('metric')}{', ' + unit if unit else ''}"[:letters], "rowname", "start")
    inner.text((4, 27), f"{one.get('protocol')} · {one.get('load')}"[:letters], "label", "start")
    for value, label in ticks_of(axis, bounds, 5):
        inner.segment((left, y(value)), (width - 14, y(value)), "grid")
        inner.text((left - 5, y(value) + 4), label, "label", "end")
    indices = [index.get(str(one.get(key)), i) for i, key in enumerate(("baseline", "arm"))]
    for a, b, order in found:
        inner.segment((ends[0], y(a)), (ends[1], y(b)), "join dashed" if order == "BA" else "join")
    for a, b, _ in found:
        marker(inner, (ends[0], y(a)), indices[0])
        marker(inner, (ends[1], y(b)), indices[1])
    half = int(width / 2 / 6.6)
    for end, key in zip(ends, ("baseline", "arm"), strict=True):
        inner.text((end, height - 12), str(one.get(key))[:half], "label")
    drawing.parts.append(
        f'<g transform="translate({significant(x0, 5)} {significant(y0, 5)})">{"".join(inner.parts)}</g>'
    )
