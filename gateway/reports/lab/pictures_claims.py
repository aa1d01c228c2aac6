"""Pictures of the claims: every part's ratio with its interval. PURE."""

from __future__ import annotations

from gateway.reports.charts import Axis, Mark, Picture, RowMarks, Value, row_chart
from gateway.reports.lab.shape import Doc, items, number
from gateway.reports.lab.words import interval, ratio

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
