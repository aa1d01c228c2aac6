"""Pictures of the claims: every part's ratio with its interval; what clients felt while versions changed; where time went. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from gateway.reports.charts import Axis, Mark, Picture, RowMarks, Series, Value, row_chart, xy_chart
from gateway.reports.lab.shape import Doc, items, number, part
from gateway.reports.lab.words import interval, ratio
from gateway.reports.words import milliseconds

ANSWERS = ("holds here", "contradicted here", "inconclusive here", "the source speaks of something else")
ROWS = 44


def claims(results: Doc) -> list[Picture]:
    """A forest plot of all parts told as ratios, coloured by what they answer."""
    name, title = "claims", "Claims: every comparison behind them"
    rows, figures, sentences = [], [], []
    for claim in items(results, "claims"):
        for one in items(claim, "parts") or [claim]:
            value, low, high = (number(one.get(key)) for key in ("value", "low", "high"))
            answer = str(one.get("answer"))
            figures.append(_figure(claim, one))
            if value is None or str(one.get("unit")) != "ratio":
                continue
            index = next(
                (i for i, known in enumerate(("holds", "contradicted", "inconclusive")) if answer.startswith(known)), 3
            )
            label = str(one.get("label") or claim.get("question") or "")
            rows.append(RowMarks(str(claim.get("id")), label, (Mark(value, low, high, index),), answer))
            sentences.append(f"{claim.get('id')}, {label}: {ratio(value)} ({interval(one)})")
    if not rows:
        return [
            Picture(name, title, "No claim has a part that is told as a ratio.", header=_HEADER, rows=tuple(figures))
        ]
    axis = Axis("ratio, arm to baseline", log=True, lines=((1.0, ""),), write="{:.3g}".format)
    description = (
        f"Each row is one comparison with its 95% interval; the dashed line is no effect. {'; '.join(sentences[:8])}."
    )
    wide, narrow = row_chart(name, title, description, rows[:ROWS], axis)
    legend = (("holds", 0), ("contradicted", 1), ("inconclusive", 2))
    note = f"The first {ROWS} of {len(rows)} are drawn." if len(rows) > ROWS else ""
    return [Picture(name, title, description, wide, narrow, legend, _HEADER, tuple(figures), note)]


def changes(results: Doc) -> list[Picture]:
    """p99 of every second while versions changed, a line for each start; a picture for each claim and number of models."""
    pictures = []
    for claim, figures in part(results, "figures").items():
        points = items(figures, "points")
        for models in sorted({int(number(point.get("models")) or 0) for point in points}):
            mine = [point for point in points if number(point.get("models")) == models and items(point, "seconds")]
            if mine:
                pictures.append(_changed(claim, models, mine))
    return pictures


def _changed(claim: str, models: int, points: Sequence[Doc]) -> Picture:
    name, title = f"changes-{claim}-{models}", f"{claim}: {models} model{'s' if models > 1 else ''}, versions change"
    series, rows = [], []
    for start, point in enumerate(points):
        line: list[tuple[float, ...] | None] = []
        for one in items(point, "seconds"):
            second, p99 = number(one.get("s")), number(one.get("p99_ms"))
            rows.append(
                (start + 1, second, number(one.get("n")), number(one.get("errors")), number(one.get("p50_ms")), p99)
            )
            line.append(None if second is None or not p99 else (second, p99))
        series.append(Series(f"start {start + 1}", start, tuple(line)))
    failed, asked = (sum(int(row[i] or 0) for row in rows) for i in (3, 2))
    worst = max((row[5] or 0.0 for row in rows), default=0.0)
    steps = _steps(points)
    description = (
        f"Each line is p99 of one fresh start, second by second, under a constant load; dashed: the steps ("
        f"{', '.join(label for _, label in steps) or 'none'}), at their median second. {failed} of {asked} requests failed; "
        f"the worst second's p99 was {milliseconds(worst)}."
    )
    header = ("start", "second", "requests", "failed", "p50 ms", "p99 ms")
    axes = Axis("seconds since the load began", zero=True, lines=steps), Axis("p99, ms (logarithmic)", log=True)
    wide, narrow = xy_chart(name, title, description, series, axes)
    legend = tuple((one.name, one.index) for one in series)
    return Picture(name, title, description, wide, narrow, legend, header, tuple(rows))


def _steps(points: Sequence[Doc]) -> tuple[tuple[float, str], ...]:
    begun: dict[str, list[float]] = {}
    for point in points:
        for phase in items(point, "phases"):
            label, start = str(phase.get("phase")), number(phase.get("start_s"))
            if start is not None and label not in ("before", "changes", "after"):
                begun.setdefault(label, []).append(start)
    return tuple(sorted((median(starts), label) for label, starts in begun.items()))


def worker(results: Doc) -> list[Picture]:
    """Where a request's time went, by start: rows of milliseconds, a mark each start, for claims that timed the worker."""
    pictures = []
    for claim, figures in part(results, "figures").items():
        starts = [one for one in items(figures, "starts") if number(one.get("whole_ms"))]
        if not starts:
            continue
        name, title = f"worker-{claim}", f"{claim}: where a request's time goes"
        rows, told, drawn = [], [], []
        for key, label in _TIMES:
            values = [_time(one, key) for one in starts]
            known = [value for value in values if value is not None]
            rows += [(label, start + 1, value) for start, value in enumerate(values)]
            if known:
                average, marks = milliseconds(mean(known)), tuple(Mark(value, index=i) for i, value in enumerate(known))
                told.append(f"{label} {average}")
                drawn.append(RowMarks(label, "", marks, average))
        description = f"Means over {len(starts)} starts, one request at a time: {'; '.join(told)}. A mark is one start."
        wide, narrow = row_chart(name, title, description, drawn, Axis("ms", zero=True))
        legend = tuple((f"start {i + 1}", i) for i in range(len(starts)))
        pictures.append(Picture(name, title, description, wide, narrow, legend, ("part", "start", "ms"), tuple(rows)))
    return pictures


_TIMES = (
    ("whole_ms", "the whole request"),
    ("queue_ms", "queue for a worker"),
    ("outside", "worker, outside the model"),
    ("forward_ms", "the model's forward"),
    ("rest", "front end, network, client"),
)


def _time(one: Doc, key: str) -> float | None:
    """One of the parts that add up to the whole; loadtest/claims/worker.py says what was measured how."""
    whole, queue, worked, forward = (number(one.get(f"{name}_ms")) for name in ("whole", "queue", "worker", "forward"))
    if key == "outside":
        return None if worked is None or forward is None else worked - forward
    if key == "rest":
        return None if whole is None or queue is None or worked is None else whole - queue - worked
    return number(one.get(key))


_HEADER = ("claim", "part", "unit", "value", "low", "high", "p", "adjusted p", "pairs", "answer", "reason")


def _figure(claim: Doc, one: Doc) -> tuple[Value, ...]:
    return (
        str(claim.get("id")),
        str(one.get("label") or ""),
        str(one.get("unit") or ""),
        *(number(one.get(key)) for key in ("value", "low", "high", "p", "adjusted_p")),
        int(number(one.get("n")) or 0),
        str(one.get("answer")),
        str(one.get("reason") or ""),
    )
