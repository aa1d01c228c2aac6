"""Pictures of the searches: capacity at an objective, and batch size against wait. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.reports.charts import Axis, Mark, Picture, RowMarks, Series, Value, both, fitted, row_chart, xy_chart
from gateway.reports.jsonable import Json
from gateway.reports.lab.shape import Doc, items, number, part, reason_of
from gateway.reports.svg import Drawing
from gateway.reports.words import listing, milliseconds, percent, significant

LEAST = 0.0005
"""A smaller share has no place on a logarithmic axis."""


def capacity(results: Doc, index: Mapping[str, int]) -> list[Picture]:
    """Share over the objective by rate with its monotone fit, and every arm's capacity with its interval."""
    arms = part(results, "arms")
    return (
        [_over(results, arms, index), _capacities(arms, index)]
        if arms
        else [Picture("capacity", "Capacity", "The run ended before a capacity was known.")]
    )


def _over(results: Doc, arms: Doc, index: Mapping[str, int]) -> Picture:
    name, title = "over-objective", "Share of requests over the objective by rate"
    slo = part(results, "slo")
    limit = number(slo.get("over")) or 0.01
    series, rows, sentences = [], [], []
    for arm, told in arms.items():
        curve = items(told, "curve")
        points = [(number(p.get("rate")), number(p.get("over")), number(p.get("fitted"))) for p in curve]
        seen = tuple((r, max(o, LEAST)) for r, o, _ in points if r is not None and o is not None)
        fitted_line = tuple((r, max(f, LEAST)) for r, _, f in points if r is not None and f is not None)
        series += [Series(arm, index.get(arm, 0), fitted_line), Series(arm, index.get(arm, 0), seen, "", marks=True)]
        rows += [
            (
                arm,
                *(
                    number(p.get(key))
                    for key in ("rate", "n", "over", "failed", "fitted", "p50_ms", "p99_ms", "server_cores")
                ),
            )
            for p in curve
        ]
        if seen:
            sentences.append(
                f"{arm}: {percent(seen[0][1])} at {seen[0][0]:g} /s, {percent(seen[-1][1])} at {seen[-1][0]:g} /s"
            )
    if not any(one.points for one in series):
        return Picture(name, title, "No rate of the grid was measured.")
    aim = f"p{number(slo.get('percentile')) or 99:g} at most {number(slo.get('threshold_ms')) or 0:g} ms"
    description = (
        f"Points: share of requests slower than {number(slo.get('threshold_ms')) or 0:g} ms, failed or never sent "
        f"(all count as over); lines: the monotone fit; less than {percent(LEAST)} is drawn there. "
        f"Dashed: {percent(limit)}, the objective ({aim}). {listing(sentences)}."
    )
    axes = (
        Axis("offered requests per second", zero=True),
        Axis("share over (logarithmic)", log=True, lines=((limit, percent(limit)),), write=percent),
    )
    wide, narrow = xy_chart(name, title, description, series, axes)
    header = ("arm", "rate /s", "n", "share over", "share failed", "fitted", "p50 ms", "p99 ms", "server cores")
    return Picture(
        name, title, description, wide, narrow, tuple((a, index.get(a, 0)) for a in arms), header, tuple(rows)
    )


def _capacities(arms: Doc, index: Mapping[str, int]) -> Picture:
    name, title = "capacity", "Capacity at the objective"
    rows, figures, sentences = [], [], []
    for key, label in (("capacity", "requests per second"), ("per_core", "requests per second and core")):
        for arm, told in arms.items():
            found = part(told, key)
            value, low, high = (number(found.get(k)) for k in ("value", "low", "high"))
            figures.append((arm, label, value, low, high, reason_of(found, "")))
            if value is not None:
                rows.append(RowMarks(arm, label, (Mark(value, low, high, index.get(arm, 0)),), significant(value, 4)))
                sentences.append(f"{arm} {significant(value, 4)} {label} ({_bounds(low, high)})")
    if not rows:
        return Picture(
            name,
            title,
            "No capacity could be computed: " + (listing([str(f[-1]) for f in figures if f[-1]]) or "not told") + ".",
        )
    description = f"Requests per second at the objective with 95% intervals. {'; '.join(sentences)}."
    wide, narrow = row_chart(name, title, description, rows, Axis("requests per second", zero=True))
    return Picture(
        name, title, description, wide, narrow, (), ("arm", "what", "value", "low", "high", "why not"), tuple(figures)
    )


def _bounds(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{significant(low, 4)} to {significant(high, 4)}"


def batching(results: Doc, index: Mapping[str, int]) -> list[Picture]:
    """The front (throughput against p99), the grid as shaded tables, and batch sizes of every cell are drawn elsewhere."""
    cells = items(results, "cells")
    if not cells:
        return [
            Picture(
                "batching-front", "Batching: throughput against latency", "The search ended before a cell was measured."
            )
        ]
    rate = number(results.get("open_rate"))
    return [_front(results, cells, rate, index), *_grids(cells, rate), _how_closed(cells, index)]


def _setting(cell: Doc) -> str:
    return f"{cell.get('max_batch')} x {number(cell.get('wait_ms')) or 0:g} ms"


def _value(cell: Doc, side: str, key: str) -> float | None:
    return number(part(cell, side).get(key))


def _front(results: Doc, cells: list[Doc], rate: float | None, index: Mapping[str, int]) -> Picture:
    name, title = "batching-front", "Batching: throughput against latency"
    series, rows, sentences = [], [], []
    arms = tuple(dict.fromkeys(str(c.get("arm")) for c in cells))
    for arm in arms:
        mine = [c for c in cells if c.get("arm") == arm]
        front = {(f.get("max_batch"), number(f.get("wait_ms"))) for f in items(part(results, "front"), arm)}
        dots, line = [], []
        for one in mine:
            fast, p99 = _value(one, "saturated", "throughput"), _value(one, "open", "p99")
            on = (one.get("max_batch"), number(one.get("wait_ms"))) in front
            rows.append(
                (
                    arm,
                    one.get("max_batch"),
                    number(one.get("wait_ms")),
                    str(one.get("stage")),
                    fast,
                    _value(one, "saturated", "p99"),
                    _value(one, "open", "p50"),
                    p99,
                    "yes" if on else "no",
                    str(bool(part(one, "saturated").get("valid", True)) and bool(part(one, "open").get("valid", True))),
                )
            )
            if fast is not None and p99 is not None:
                dots.append((fast, p99))
                if on:
                    line.append((fast, p99, _setting(one)))
        ordered = sorted(line)
        front_line = tuple((f, p) for f, p, _ in ordered)
        series.append(Series(arm, index.get(arm, 0), front_line, labels=tuple(text for *_, text in ordered)))
        series.append(Series(arm, index.get(arm, 0), tuple(dots), "", marks=True))
        if ordered:
            sentences.append(
                f"{arm}: " + listing([f"{text} gives {fast:.0f} /s and {milliseconds(p)}" for fast, p, text in ordered])
            )
    at = f"{rate:g} /s" if rate else "the open rate"
    description = (
        f"A point for each setting (rows x wait): throughput at saturation, right is better, against p99 at {at}, lower is "
        f"better; the line joins the settings that nothing beats in both. {'; '.join(sentences)}."
    )
    axes = Axis("requests per second at saturation", zero=True), Axis(f"p99 at {at}, ms", zero=True)
    wide, narrow = xy_chart(name, title, description, series, axes)
    header = (
        "arm",
        "max batch",
        "wait ms",
        "stage",
        "throughput /s",
        "p99 ms saturated",
        "p50 ms open",
        "p99 ms open",
        "on the front",
        "valid",
    )
    return Picture(
        name, title, description, wide, narrow, tuple((a, index.get(a, 0)) for a in arms), header, tuple(rows)
    )


def _grids(cells: list[Doc], rate: float | None) -> list[Picture]:
    """Two shaded tables, both arms side by side: throughput at saturation and p99 at the open rate."""
    at = f"{rate:g} /s" if rate else "the open rate"
    return [
        _grid(
            cells,
            "saturated",
            "throughput",
            ("batching-throughput", "Throughput at saturation by batch size and wait", "requests per second"),
        ),
        _grid(cells, "open", "p99", ("batching-p99", f"p99 at {at} by batch size and wait", "ms")),
    ]


def _place(cell: Doc) -> tuple[str, int, float]:
    """A cell's arm, rows and wait."""
    return str(cell.get("arm")), int(number(cell.get("max_batch")) or 0), number(cell.get("wait_ms")) or 0.0


def _grid(cells: list[Doc], side: str, key: str, names: tuple[str, str, str]) -> Picture:
    name, title, unit = names
    arms = list(dict.fromkeys(str(c.get("arm")) for c in cells))
    sizes = sorted({int(number(c.get("max_batch")) or 0) for c in cells})
    waits = sorted({number(c.get("wait_ms")) or 0.0 for c in cells})
    value = {_place(c): _value(c, side, key) for c in cells}
    known = [v for v in value.values() if v is not None]
    if not known:
        return Picture(name, title, "No cell has this figure.")
    low, high = min(known), max(known)

    def draw(drawing: Drawing) -> None:
        across = 1 if drawing.frame.narrow else len(arms)
        width, height = drawing.frame.width / across, 46.0 + 30 * len(sizes) + 26
        for place, arm in enumerate(arms):
            x0, y0 = (place % across) * width, (place // across) * height
            slot = (width - 60) / len(waits)
            drawing.text((x0 + 4, y0 + 14), fitted(arm, 40), "rowname", "start")
            for row, size in enumerate(sizes):
                at = y0 + 24 + 30 * row
                drawing.text((x0 + 40, at + 19), str(size), "label", "end")
                for column, wait in enumerate(waits):
                    seen = value.get((arm, size, wait))
                    left = x0 + 48 + slot * column
                    shade = 0.0 if seen is None or high <= low else (seen - low) / (high - low)
                    place_ = f'x="{left:.1f}" y="{at:.1f}" width="{slot - 2:.1f}" height="28"'
                    opacity = 0.0 if seen is None else 0.08 + 0.5 * shade
                    drawing.parts.append(f'<rect class="cell" {place_} fill-opacity="{opacity:.2f}"/>')
                    drawing.text((left + slot / 2 - 1, at + 19), "" if seen is None else significant(seen), "celltext")
            for column, wait in enumerate(waits):
                drawing.text((x0 + 48 + slot * (column + 0.5), y0 + 24 + 30 * len(sizes) + 15), f"{wait:g} ms", "label")
            drawing.text(
                (x0 + 4, y0 + 24 + 30 * len(sizes) + 32),
                f"rows: maximum batch size; columns: wait; figures: {unit}" if place == 0 else "",
                "label",
                "start",
            )

    # each arm by itself: a search compares settings of one server, never two servers
    best = []
    for arm in arms:
        held = [(value[_place(c)], _place(c)) for c in cells if c.get("arm") == arm and part(c, side).get("valid")]
        told = [(v, place) for v, place in held if v is not None]
        if told:
            v, (_, size, wait) = max(told) if key == "throughput" else min(told)
            best.append(f"{arm} {significant(v)} {unit} with {size} x {wait:g} ms")
    description = (
        f"In {unit}, for every maximum batch size (rows) and wait (columns), an arm a table; darker is more. "
        f"Best of each: {'; '.join(best) or 'no cell held'}."
    )
    one = 46 + 30 * len(sizes) + 26
    wide, narrow = both(name, title, description, (one + 8, one * len(arms) + 8), draw)
    bounds = {_place(c): part(part(c, side), "bounds" if key == "throughput" else key) for c in cells}
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (*place, v, number(bounds[place].get("low")), number(bounds[place].get("high"))) for place, v in value.items()
    )
    return Picture(
        name, title, description, wide, narrow, (), ("arm", "max batch", "wait ms", unit, "low", "high"), rows
    )


def _how_closed(cells: list[Doc], index: Mapping[str, int]) -> Picture:
    """Fill, queue wait and how batches were closed, by setting: the table matters more than the picture."""
    name, title = "batching-fill", "How full batches were, and how long rows waited"
    rows: list[tuple[Value, ...]] = []
    drawn: dict[str, list[Mark]] = {}
    for one in sorted(cells, key=lambda cell: _place(cell)[1:]):
        for side in ("saturated", "open"):
            told = part(one, side)
            batches, queue = part(told, "batches"), part(told, "queue")
            fill = number(batches.get("fill"))
            rows.append(
                (
                    str(one.get("arm")),
                    one.get("max_batch"),
                    number(one.get("wait_ms")),
                    side,
                    number(batches.get("mean")),
                    fill,
                    number(batches.get("full")),
                    number(batches.get("timeout")),
                    *_waits(queue),
                    number(part(told, "padding").get("share")),
                    str(batches.get("source") or reason_of(batches)),
                )
            )
            if side == "saturated" and fill is not None and int(number(one.get("max_batch")) or 1) > 1:
                mark = Mark(fill, None, None, index.get(str(one.get("arm")), 0))
                drawn.setdefault(_setting(one), []).append(mark)
    header = (
        "arm",
        "max batch",
        "wait ms",
        "load",
        "mean batch",
        "fill",
        "share closed full",
        "share closed by timeout",
        "queue p50 ms, at least",
        "queue p50 ms, at most",
        "queue p99 ms, at least",
        "queue p99 ms, at most",
        "share of padding",
        "source",
    )
    if not drawn:
        return Picture(name, title, "No server told its batches.", header=header, rows=tuple(rows))
    description = (
        "Mean batch over the maximum (fill ratio) at saturation, by setting (rows x wait); 100% is a full batch every time. The "
        "table also holds the open rate, queue waits, padding, and how batches were closed."
    )
    marks = [RowMarks(setting, "", tuple(found)) for setting, found in drawn.items()]
    axis = Axis("fill ratio", zero=True, lines=((1.0, "full"),), write=percent)
    wide, narrow = row_chart(name, title, description, marks[:36], axis)
    legend = tuple((a, index.get(a, 0)) for a in dict.fromkeys(str(c.get("arm")) for c in cells))
    return Picture(name, title, description, wide, narrow, legend, header, tuple(rows))


def _waits(queue: Doc) -> tuple[float | None, ...]:
    return tuple(number(part(queue, q).get(end)) for q in ("p50", "p99") for end in ("low", "high"))


def best_rows(results: Doc) -> list[Json]:
    """What to set, for each arm and objective, with the configuration to paste."""
    found = []
    for arm, objectives in part(results, "best").items():
        for objective, told in objectives.items() if isinstance(objectives, dict) else ():
            fragment = part(part(part(results, "fragments"), arm), objective)
            found.append(
                {
                    "arm": arm,
                    "objective": objective,
                    "told": dict(told) if isinstance(told, dict) else {},
                    "fragment": dict(fragment),
                }
            )
    return found
