"""The charts that reports share: lines over a number, and rows with marks. PURE: numbers in, a Picture out.

A Picture is drawn for two widths and carries a text alternative and its figures, unrounded, as a table (csv/NAME.csv).
Series are told apart by colour, dash and shape of their marks, all chosen by one index.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.reports.svg import Drawing, Frame, Point, Scale, linear_ticks, log_ticks
from gateway.reports.words import significant

Value = float | int | str | None
SERIES = 8
"""Colours and dashes in the style sheet; a ninth series looks like the first."""

WIDE, NARROW = 960, 358
_LABEL_WIDTH = 316
_NARROW_ROW = 60


@dataclass(frozen=True)
class Picture:
    """One figure: its drawings for desktop and phone ("" where there is nothing to draw: the description says why), a
    legend of (name, index), and the figures behind it.
    """

    name: str
    title: str
    description: str
    wide: str = ""
    narrow: str = ""
    legend: tuple[tuple[str, int], ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    note: str = ""

    def csv(self) -> str:
        """The figures as RFC 4180 text; a missing one is an empty field."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(self.header)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()


@dataclass(frozen=True)
class Mark:
    """A value on a row with its interval (None: none); ghost: drawn faint and below, as the A/A interval is."""

    value: float | None
    low: float | None = None
    high: float | None = None
    index: int = 0
    ghost: bool = False


@dataclass(frozen=True)
class RowMarks:
    """A row of a row chart: what it is, a second line, and what stands on it."""

    label: str
    sub: str
    marks: tuple[Mark, ...]
    text: str = ""


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical axis. band: shaded (the margin); line: dashed (no effect, a limit)."""

    label: str
    log: bool = False
    zero: bool = False
    band: tuple[float, float] | None = None
    lines: tuple[tuple[float, str], ...] = ()
    write: Callable[[float], str] = "{:g}".format


@dataclass(frozen=True)
class Series:
    """A line: points (x, y) or with an interval (x, y, low, high); None breaks it. css: line, thin or none."""

    name: str
    index: int
    points: tuple[tuple[float, ...] | None, ...]
    css: str = "line"
    marks: bool = False
    band: bool = False
    labels: tuple[str, ...] = ()


@dataclass
class Range:
    """The smallest interval that holds what was added."""

    values: list[float] = field(default_factory=list)

    def add(self, *values: float | None) -> None:
        """Take finite values in."""
        self.values += [v for v in values if v is not None and math.isfinite(v)]

    def bounds(self, axis: Axis) -> tuple[float, float]:
        """Low and high with a little room; from zero where the axis says so."""
        values = [v for v in self.values if v > 0] if axis.log else self.values
        if not values:
            return (0.5, 2.0) if axis.log else (0.0, 1.0)
        low, high = min(values), max(values)
        if axis.log:
            room = max((high / low) ** 0.06, 1.02)
            return low / room, high * room
        low = min(low, 0.0) if axis.zero else low
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return (low if axis.zero and low == 0.0 else low - room), high + room


def both(name: str, title: str, description: str, heights: tuple[int, int], draw: Callable[[Drawing], None],
         left: tuple[int, int] = (56, 46), right: int = 14) -> tuple[str, str]:  # fmt: skip
    """The drawing for both widths. heights, left: of the wide and the narrow one, in pixels; right: of the wide one."""
    drawings = []
    frames = (("wide", WIDE, heights[0], left[0], right), ("narrow", NARROW, heights[1], left[1], 12))
    for suffix, width, height, margin, end in frames:
        drawing = Drawing(Frame(width, height, left=margin, right=end))
        draw(drawing)
        drawings.append(drawing.render(f"{name}-{suffix}", title, description))
    return drawings[0], drawings[1]


def scale_of(drawing: Drawing, axis: Axis, bounds: tuple[float, float], vertical: bool) -> Scale:
    """The scale of an axis over the plotting area."""
    transform = math.log10 if axis.log else float
    make = drawing.frame.y if vertical else drawing.frame.x
    return make(bounds[0], bounds[1], transform)


def ticks_of(axis: Axis, bounds: tuple[float, float], most: int) -> list[tuple[float, str]]:
    """Round values of an axis with their names; a logarithmic one over less than a decade gets linear steps."""
    low, high = bounds
    found = log_ticks(low, high, most) if axis.log and high / low > 5 else linear_ticks(low, high, most)
    return [(t, axis.write(t)) for t in found]


def marker(drawing: Drawing, at: Point, index: int, css: str = "fill", radius: float = 4.2) -> None:
    """A point whose shape goes with its colour: circle, square, triangle, diamond."""
    (x, y), shape, r = at, index % 4, radius
    name = f"{css} arm{index % SERIES}"
    if shape == 0:
        drawing.parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>')
        return
    outline = {
        1: ((-r, -r), (r, -r), (r, r), (-r, r)),
        2: ((0.0, -r * 1.25), (r * 1.15, r), (-r * 1.15, r)),
        3: ((0.0, -r * 1.35), (r * 1.35, 0.0), (0.0, r * 1.35), (-r * 1.35, 0.0)),
    }[shape]
    points = "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in outline)
    drawing.parts.append(f'<path class="{name}" d="M{points}Z"/>')


def row_chart(name: str, title: str, description: str, rows: Sequence[RowMarks], axis: Axis) -> tuple[str, str]:
    """Rows with values and intervals over one horizontal axis (a forest plot, a dot plot)."""
    span = Range()
    for row in rows:
        for mark in row.marks:
            span.add(mark.value, mark.low, mark.high)
    span.add(*(axis.band or ()), *(line for line, _ in axis.lines))
    bounds = span.bounds(axis)

    def draw(drawing: Drawing) -> None:
        frame = drawing.frame
        x = scale_of(drawing, axis, bounds, vertical=False)
        step = _NARROW_ROW if frame.narrow else 38
        base = frame.height - frame.bottom
        top = base - step * len(rows)
        if axis.band is not None:
            drawing.rect(x(axis.band[0]), top, x(axis.band[1]) - x(axis.band[0]), base - top, "margin")
        for value, label in axis.lines:
            drawing.segment((x(value), top), (x(value), base), "event")
            drawing.text((x(value) + 4, top - 4), label, "label", "start")
        for number, row in enumerate(rows):
            _row(drawing, row, x, top + step * (number + 0.5))
        drawing.x_axis(x, ticks_of(axis, bounds, 5 if frame.narrow else 9), axis.label)

    wide, narrow = 22 + 38 + 38 * len(rows), 22 + 38 + _NARROW_ROW * len(rows)
    longest = max((len(row.text) for row in rows), default=0)
    return both(name, title, description, (wide, narrow), draw, (_LABEL_WIDTH, 12), 14 + round(6.4 * longest))


def _row(drawing: Drawing, row: RowMarks, x: Scale, middle: float) -> None:
    frame = drawing.frame
    at = middle + (16 if frame.narrow else 0)
    drawing.segment((frame.left, at), (frame.width - frame.right, at), "grid")
    if frame.narrow:
        drawing.text((4, middle - 14), fitted(row.label, 52 - len(row.text)), "rowname", "start")
        drawing.text((4, middle + 1), fitted(row.sub, 58), "label", "start")
    else:
        drawing.text((frame.left - 14, at - (3 if row.sub else -4)), fitted(row.label, 46), "rowname", "end")
        drawing.text((frame.left - 14, at + 12), fitted(row.sub, 50), "label", "end")
    solid = [mark for mark in row.marks if not mark.ghost]
    for place, mark in enumerate(solid):
        _mark(drawing, mark, x, at + (place - (len(solid) - 1) / 2) * min(9.0, 22.0 / max(len(solid), 1)))
    for mark in row.marks:
        if mark.ghost:
            _mark(drawing, mark, x, at + 8)
    if row.text and frame.narrow:
        drawing.text((frame.width - 4, middle - 14), row.text, "rowname", "end")
    elif row.text:
        drawing.text((frame.width - frame.right + 10, middle + 4), row.text, "rowname", "start")


def _mark(drawing: Drawing, mark: Mark, x: Scale, y: float) -> None:
    index, ghost = mark.index % SERIES, " ghost" if mark.ghost else ""
    if mark.low is not None and mark.high is not None and math.isfinite(mark.high):
        css = f"bar arm{index}{ghost}"
        drawing.segment((x(mark.low), y), (x(mark.high), y), css)
        for end in (mark.low, mark.high):
            drawing.segment((x(end), y - 3), (x(end), y + 3), css)
    if mark.value is not None:
        marker(drawing, (x(mark.value), y), mark.index, f"fill{ghost}", 3.0 if mark.ghost else 4.2)


def xy_chart(
    name: str, title: str, description: str, series: Sequence[Series], axes: tuple[Axis, Axis], height: int = 334
) -> tuple[str, str]:
    """Lines (and points with intervals) over numbers."""
    spans = Range(), Range()
    for one in series:
        for point in one.points:
            if point is not None:
                spans[0].add(point[0])
                spans[1].add(*point[1:])
    for span, axis in zip(spans, axes, strict=True):
        span.add(*(value for value, _ in axis.lines))
    bounds = spans[0].bounds(axes[0]), spans[1].bounds(axes[1])

    def draw(drawing: Drawing) -> None:
        frame = drawing.frame
        x, y = (scale_of(drawing, axis, b, v) for axis, b, v in zip(axes, bounds, (False, True), strict=True))
        drawing.y_axis(y, ticks_of(axes[1], bounds[1], 5 if frame.narrow else 7), axes[1].label)
        drawing.x_axis(x, ticks_of(axes[0], bounds[0], 5 if frame.narrow else 9), axes[0].label)
        for value, label in axes[1].lines:
            drawing.segment((frame.left, y(value)), (frame.width - frame.right, y(value)), "event")
            drawing.text((frame.width - frame.right, y(value) - 5), label, "label", "end")
        for value, label in axes[0].lines:
            drawing.segment((x(value), frame.top), (x(value), frame.height - frame.bottom), "event")
            drawing.text((x(value) + 4, frame.top + 10), label, "label", "start")
        for one in series:
            _series(drawing, one, x, y)

    return both(name, title, description, (height, 294), draw)


def _series(drawing: Drawing, one: Series, x: Scale, y: Scale) -> None:
    index = one.index % SERIES
    if one.band:
        highs = [None if p is None or len(p) < 4 else (x(p[0]), y(p[3])) for p in one.points]
        lows = [None if p is None or len(p) < 4 else (x(p[0]), y(p[2])) for p in one.points]
        drawing.band(highs, lows, f"band arm{index}")
    if one.css:
        drawing.line([None if p is None else (x(p[0]), y(p[1])) for p in one.points], f"{one.css} arm{index}")
    for point, label in zip(one.points, one.labels, strict=False):
        if point is not None and not drawing.frame.narrow:
            drawing.text((x(point[0]) + 7, y(point[1]) + 15), label, "label", "start")
    if not one.marks:
        return
    for point in one.points:
        if point is None:
            continue
        if len(point) == 4 and not one.band and math.isfinite(point[3]):
            drawing.segment((x(point[0]), y(point[2])), (x(point[0]), y(point[3])), f"bar arm{index}")
        marker(drawing, (x(point[0]), y(point[1])), one.index)


def fitted(text: str, letters: int) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def cell(value: Value) -> str:
    """A figure in the page's table: four digits; a missing one is n/a."""
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value, 4) if math.isfinite(value) else "never"
    return str(value)
