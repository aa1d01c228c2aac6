"""Pictures of load and inside: throughput-latency curves, batch sizes, where the time goes, processes. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.reports.charts import (
    SERIES,
    Axis,
    Mark,
    Picture,
    RowMarks,
    Series,
    Value,
    both,
    fitted,
    row_chart,
    xy_chart,
)
from gateway.reports.jsonable import Json
from gateway.reports.lab.shape import Condition, number, of_blocks, part
from gateway.reports.svg import Drawing, linear_ticks
from gateway.reports.words import listing, milliseconds, percent, significant

PARTS = (
    ("queue", "queue in the server"),
    ("compute", "server without its queue"),
    ("codec", "codec"),
    ("gateway", "gateway"),
    ("rest", "client and network"),
)
ROWS = 36
BATCH_PANELS = 12


def throughput_latency(found: Sequence[Condition], index: Mapping[str, int]) -> list[Picture]:
    """For each protocol, path and kind of loop with several loads: p50 and p99 over what was achieved, a point a block."""
    groups: dict[tuple[str, str, str], list[Condition]] = {}
    for one in found:
        groups.setdefault(
            (one.group if "/" in one.arms[0] else "", one.protocol, "open loop" if one.is_open else "closed loop"), []
        ).append(one)
    pictures = []
    for (group, protocol, mode), mine in groups.items():
        if len({one.load for one in mine}) >= 3:
            pictures.append(_curve(f"{group + ': ' if group else ''}{protocol}, {mode}", mine, index))
    return pictures


def _curve(label: str, mine: Sequence[Condition], index: Mapping[str, int]) -> Picture:
    name = "throughput-latency-" + "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())
    title = f"Throughput and latency: {label}"
    key = "intended_ms" if mine[0].is_open else "service_ms"
    series, rows, sentences = [], [], []
    for arm in dict.fromkeys(a for one in mine for a in one.arms):
        for quantile in ("p50", "p99"):
            points: list[tuple[float, ...] | None] = []
            for one in mine:
                blocks = one.of(arm)
                rate, told = number(of_blocks(blocks, "achieved")), of_blocks(blocks, key, quantile)
                value = number(told)
                low, high = number(told.get("low")), number(told.get("high"))
                rows.append((arm, one.load, quantile, len(blocks), rate, value, low, high))
                if rate is not None and value is not None:
                    points.append((rate, value, low, high) if low is not None and high is not None else (rate, value))
            known = sorted((p for p in points if p is not None), key=lambda p: p[0] if mine[0].is_open else 0.0)
            css = "line" if quantile == "p50" else "dotted"
            series.append(Series(f"{arm} {quantile}", index.get(arm, 0), tuple(known), css, marks=True))
            if known:
                (first, last) = known[0], known[-1]
                sentences.append(f"{arm}: {quantile} from {_at(first)} to {_at(last)}")
    if not any(one.points for one in series):
        return Picture(name, title, "No load has both a rate and a quantile.")
    told_by = "counted from the scheduled time" if mine[0].is_open else "service latency"
    description = (
        f"Lines: p50, dotted: p99 ({told_by}) over achieved requests per second, with 95% intervals over starts. "
        f"{'; '.join(sentences)}."
    )
    axes = Axis("achieved requests per second", zero=True), Axis("ms (logarithmic)", log=True)
    wide, narrow = xy_chart(name, title, description, series, axes)
    legend = tuple((arm, index.get(arm, 0)) for arm in dict.fromkeys(a for one in mine for a in one.arms))
    header = ("arm", "load", "quantile", "blocks", "achieved /s", "ms", "low ms", "high ms")
    return Picture(name, title, description, wide, narrow, legend, header, tuple(rows))


def _at(point: Sequence[float]) -> str:
    return f"{milliseconds(point[1])} at {point[0]:.0f} /s"


def batch_sizes(told: Sequence[Json], index: Mapping[str, int]) -> Picture:
    """Histograms of both servers side by side, a panel for each condition; shares of batches by size."""
    name, title = "batch-sizes", "Batch sizes"
    panels = [(one, {arm: v["batches"] for arm, v in one["arms"].items() if "buckets" in v["batches"]}) for one in told]
    panels = [(one, mine) for one, mine in panels if mine]
    if not panels:
        return Picture(name, title, "No server told its batch sizes.")
    rows: list[tuple[Value, ...]] = [
        (one["name"], arm, batch["source"], bucket["size"], bucket["batches"], bucket["share"])
        for one, mine in panels
        for arm, batch in mine.items()
        for bucket in batch["buckets"]
    ]
    drawn = [pair for pair in panels if any(len(b["buckets"]) > 1 for b in pair[1].values())][:BATCH_PANELS] or panels[
        :1
    ]
    across = (2, 1)

    def draw(drawing: Drawing) -> None:
        columns = across[1] if drawing.frame.narrow else across[0]
        for place, (one, mine) in enumerate(drawn):
            _histogram(drawing, one["name"], mine, (place % columns, place // columns, columns), index)

    sentences = [
        f"{one['name']}: {listing([f'{arm} mean {_mean(b)}' for arm, b in mine.items()])}" for one, mine in drawn
    ]
    silent = sorted({arm for one in told for arm, v in one["arms"].items() if "buckets" not in v["batches"]})
    note = f"Not told by the server in some blocks: {listing(silent)}." if silent else ""
    description = f"Share of batches by size. {'; '.join(sentences)}."
    deep = [-(-len(drawn) // columns) for columns in across]
    wide, narrow = both(name, title, description, (230 * deep[0], 230 * deep[1]), draw)
    arms = dict.fromkeys(arm for _, mine in drawn for arm in mine)
    return Picture(
        name,
        title,
        description,
        wide,
        narrow,
        tuple((a, index.get(a, 0)) for a in arms),
        ("condition", "arm", "source", "batch size", "batches", "share"),
        tuple(rows),
        note,
    )


def _mean(batch: Json) -> str:
    return significant(batch["mean"]) if batch["mean"] else "not told"


def _histogram(
    drawing: Drawing, label: str, mine: Mapping[str, Json], place: tuple[int, int, int], index: Mapping[str, int]
) -> None:
    column, row, columns = place
    width, height = drawing.frame.width / columns, 230.0
    x0, y0 = column * width, row * height
    left, right, top, bottom = x0 + 44, x0 + width - 12, y0 + 30, y0 + height - 36
    sizes = sorted(
        {b["size"] for v in mine.values() for b in v["buckets"]}, key=lambda s: int(s.rstrip("+").split("-")[0])
    )
    share = {(arm, b["size"]): b["share"] for arm, v in mine.items() for b in v["buckets"]}
    high = float(max(share.values())) * 1.05

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / high

    drawing.text((x0 + 4, y0 + 14), fitted(label, int(width / 6.4)), "label", "start")
    for tick in linear_ticks(0.0, high, 4):
        drawing.segment((left, y(tick)), (right, y(tick)), "grid")
        drawing.text((left - 5, y(tick) + 4), f"{100 * tick:g}%", "label", "end")
    slot = (right - left) / len(sizes)
    bar = min(26.0, slot * 0.84 / max(len(mine), 1))
    every = max(1, round(26 / slot))
    for k, size in enumerate(sizes):
        middle = left + slot * (k + 0.5)
        for number_, arm in enumerate(mine):
            value = share.get((arm, size), 0.0)
            start = middle + (number_ - len(mine) / 2) * bar
            drawing.rect(
                start, y(value), max(bar - 1.0, 1.0), bottom - y(value), f"fill arm{index.get(arm, 0) % SERIES}"
            )
        if k % every == 0:
            drawing.text((middle, bottom + 15), size, "label")
    drawing.segment((left, bottom), (right, bottom), "axis")
    drawing.text((right, bottom + 30), "batch size", "label", "end")


def batch_means(found: Sequence[Condition], index: Mapping[str, int]) -> Picture:
    """Mean batch size over the achieved rate, a point a block."""
    name, title = "batch-mean-by-rate", "Mean batch size against the rate"
    points: dict[str, list[tuple[float, float]]] = {}
    rows: list[tuple[Value, ...]] = []
    for one in found:
        for block in one.blocks:
            mean, rate = number(part(block, "batches").get("mean")), number(block.get("achieved"))
            if mean is not None and rate is not None:
                points.setdefault(str(block.get("arm")), []).append((rate, mean))
                rows.append((str(block.get("arm")), one.name, block.get("replicate"), rate, mean))
    if not points:
        return Picture(name, title, "No server told its batch sizes.")
    series = [Series(arm, index.get(arm, 0), tuple(sorted(p)), "", marks=True) for arm, p in points.items()]
    axes = Axis("achieved requests per second", zero=True), Axis("mean batch size", zero=True)
    told = [
        f"{arm} {significant(min(m for _, m in p))} to {significant(max(m for _, m in p))}" for arm, p in points.items()
    ]
    description = f"A point for each block: mean batch size over achieved requests per second. {listing(told)}."
    wide, narrow = xy_chart(name, title, description, series, axes)
    header = ("arm", "condition", "start", "achieved /s", "mean batch size")
    return Picture(
        name, title, description, wide, narrow, tuple((a, index.get(a, 0)) for a in points), header, tuple(rows)
    )


def breakdown(told: Sequence[Json]) -> Picture:
    """Stacked bars of mean milliseconds: queue, server, codec, gateway, the rest."""
    name, title = "breakdown", "Where the time goes"
    rows = [
        (one["name"], arm, v["parts_ms"])
        for one in told
        for arm, v in one["arms"].items()
        if v["parts_ms"]["service"] is not None
    ]
    if not rows:
        return Picture(name, title, "No block tells its parts.")
    drawn = rows[:ROWS]
    high = max(parts["service"] for _, _, parts in drawn) * 1.02
    sentences = [
        f"{arm}, {label}: " + listing([f"{text} {milliseconds(parts[key])}" for key, text in PARTS if parts[key]])
        for label, arm, parts in drawn[:4]
    ]

    def draw(drawing: Drawing) -> None:
        frame = drawing.frame
        x, step = frame.x(0.0, high), 44 if frame.narrow else 34
        top = frame.height - frame.bottom - step * len(drawn)
        for number_, (label, arm, parts) in enumerate(drawn):
            at = top + step * number_
            if frame.narrow:
                drawing.text((4, at + 12), fitted(f"{arm} · {label}", 56), "label", "start")
            else:
                drawing.text((frame.left - 14, at + 14), fitted(arm, 46), "rowname", "end")
                drawing.text((frame.left - 14, at + 28), fitted(label, 50), "label", "end")
            start = 0.0
            for i, (key, _) in enumerate(PARTS):
                value = max(parts[key] or 0.0, 0.0)
                drawing.rect(x(start), at + (18 if frame.narrow else 7), x(start + value) - x(start), 18, f"part{i}")
                start += value
        drawing.x_axis(
            x,
            [(t, f"{t:g}") for t in linear_ticks(0.0, high, 5 if frame.narrow else 9)],
            "mean ms of an answered request",
        )

    description = (
        "Mean time of an answered request by part (means add up, percentiles do not). Where a server does not tell its queue, the "
        f"queue is inside the server's part. {'; '.join(sentences)}."
    )
    wide, narrow = both(
        name, title, description, (20 + 38 + 34 * len(drawn), 20 + 38 + 44 * len(drawn)), draw, (316, 12)
    )
    header = ("condition", "arm", *(f"{text} ms" for _, text in PARTS), "whole ms")
    figures = tuple((label, arm, *(parts[key] for key, _ in PARTS), parts["service"]) for label, arm, parts in rows)
    legend = tuple((text, 100 + i) for i, (_, text) in enumerate(PARTS))
    return Picture(name, title, description, wide, narrow, legend, header, figures)


def processes(told: Sequence[Json]) -> Picture:
    """Mean cores of each process by condition and loaded arm, the idle arms' included, with the 70% line."""
    name, title = "cores", "CPU of every process"
    rows, figures = [], []
    for one in told:
        for arm, found in one["arms"].items():
            cpu = found["cpu"]
            loaded = f"arm {arm.rpartition('/')[2]}" if f"arm {arm}" not in cpu else f"arm {arm}"
            idle = [
                v["cores"]
                for role, v in cpu.items()
                if role.startswith("arm ") and role != loaded and v["cores"] is not None
            ]
            marks = [
                Mark(cpu.get(role, {}).get("cores"), None, None, i)
                for i, role in ((0, loaded), (1, "gateway"), (2, "generator"))
                if cpu.get(role, {}).get("cores") is not None
            ]
            if idle:
                marks.append(Mark(sum(idle), None, None, 3))
            if marks:
                rows.append(RowMarks(arm, one["name"], tuple(marks)))
            figures += [(one["name"], arm, role, v["cores"], v["rss_bytes"]) for role, v in cpu.items()]
    if not rows:
        return Picture(name, title, "No block tells its processes.")
    axis = Axis("cores (mean over the blocks)", zero=True, lines=((0.7, "0.7"),))
    most = max((m.value or 0.0, row.label, row.sub) for row in rows for m in row.marks)
    description = (
        "Mean cores by loaded arm and condition: the loaded server, the gateway, the generator, and all idle servers together. "
        "Generator and gateway right of the dashed line (0.7 of a core) shape what is measured. "
        f"Most: {most[0]:.2f} cores ({most[1]}, {most[2]})."
    )
    wide, narrow = row_chart(name, title, description, rows[:ROWS], axis)
    legend = (("loaded server", 0), ("gateway", 1), ("generator", 2), ("idle servers together", 3))
    header = ("condition", "loaded arm", "process", "cores, mean", "memory, peak bytes")
    return Picture(
        name,
        title,
        description,
        wide,
        narrow,
        legend,
        header,
        tuple(figures),
        f"The first {ROWS} rows are drawn." if len(rows) > ROWS else "",
    )


def saturation(found: Sequence[Condition]) -> Picture:
    """Generator and gateway cores of every block over its rate: does the load side bend before the server?"""
    name, title = "generator", "Load side: generator and gateway by rate"
    points: dict[str, list[tuple[float, float]]] = {"generator": [], "gateway": []}
    rows: list[tuple[Value, ...]] = []
    for one in found:
        for block in one.blocks:
            rate = number(block.get("achieved"))
            cores = {role: number(part(part(block, "cpu"), role).get("cores")) for role in points}
            rows.append(
                (
                    str(block.get("id")),
                    str(block.get("arm")),
                    rate,
                    cores["generator"],
                    cores["gateway"],
                    number(block.get("generator_us")),
                )
            )
            for role, value in cores.items():
                if rate is not None and value is not None:
                    points[role].append((rate, value))
    if not any(points.values()):
        return Picture(name, title, "No block tells the load side's CPU.")
    series = [
        Series(role, i, tuple(sorted(points[role])), "", marks=True) for i, role in ((2, "generator"), (1, "gateway"))
    ]
    axes = (
        Axis("achieved requests per second", zero=True),
        Axis("cores", zero=True, lines=((0.7, "0.7 of a core: the limit"),)),
    )
    costs = [cost for *_, cost in rows if isinstance(cost, float)]
    price = (
        f" The generator spent {significant(sum(costs) / len(costs))} \N{MICRO SIGN}s of CPU on a request."
        if costs
        else ""
    )
    most = [f"{role} at most {max(v for _, v in p):.2f} of a core" for role, p in points.items() if p]
    description = f"A point for each block. {listing(most)}.{price}"
    wide, narrow = xy_chart(name, title, description, series, axes, 280)
    header = ("block", "arm", "achieved /s", "generator cores", "gateway cores", "generator us per request")
    return Picture(name, title, description, wide, narrow, (("generator", 2), ("gateway", 1)), header, tuple(rows))


def share(value: float | None) -> str:
    """A share in percent, n/a where it is unknown."""
    return "n/a" if value is None else percent(value)
