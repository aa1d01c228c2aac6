"""The side-by-side table: one row a quantity, one cell an arm, then the difference to the baseline. PURE.

A cell is text and, below it, a smaller line: an interval, or why there is no number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.reports.jsonable import Json, told
from gateway.reports.words import count, listing, milliseconds, percent, significant, span

Cell = tuple[str, str]
EMPTY: Cell = ("", "")
MINUS = "\u2212"


@dataclass(frozen=True)
class Row:
    """One quantity: its name, a remark, a cell per arm, and a cell per compared arm with the difference."""

    name: str
    remark: str
    cells: tuple[Cell, ...]
    differences: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


def estimate_cell(found: Json, write: Callable[[float], str]) -> Cell:
    """An estimate and its interval."""
    value = told(found)
    if value is None:
        return "n/a", str(found["not_computable"])
    if "low" in found:
        return write(value), span(found["low"], found["high"], write)
    return write(value), f"no interval: {found.get('interval_not_computable', 'not told')}"


def _signed(write: Callable[[float], str]) -> Callable[[float], str]:
    def signed(value: float) -> str:
        sign = "+" if value > 0 else MINUS if value < 0 else ""
        return sign + write(abs(value))

    return signed


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:.2f} pp"


def _told(value: Any, write: Callable[[float], str], below: str = "") -> Cell:
    if isinstance(value, dict):
        return "n/a", str(value.get("not_computable", "not told"))
    return ("n/a", "not told") if value is None else (write(value), below)


def _quantity(report: Json, name: str, cell: Callable[[Json], Cell], change: Callable[[Json], Cell] | None = None,
              remark: str = "") -> Row:  # fmt: skip
    cells = tuple(cell(arm) if arm.get("requests") is not None else ("n/a", "no ledger") for arm in report["arms"])
    return Row(name, remark, cells, tuple(change(d) if change else EMPTY for d in report["differences"]))


def side_by_side(report: Json) -> list[Section]:
    """All sections of the table."""
    return [_traffic(report), *_latency(report), _inside(report)]


def _failed(arm: Json) -> Cell:
    if not arm["requests"]:
        return "n/a", "no requests"
    rate = arm["errors"]["rate"]
    return f"{count(arm['errors']['count'])} ({percent(rate['value'])})", estimate_cell(rate, percent)[1]


def _kinds(arm: Json) -> Cell:
    return listing([f"{kind['kind']} {count(kind['count'])}" for kind in arm["errors"]["by_kind"]]) or "none", ""


def _right(arm: Json) -> Cell:
    if not arm["accuracy"]["judged"]:
        return "n/a", "no answer was judged"
    return estimate_cell(arm["accuracy"]["rate"], percent)


def _throughput(arm: Json) -> Cell:
    return f"{significant(arm['throughput_rps'], 4)} /s", f"answered {significant(arm['answered_rps'], 4)} /s"


def _traffic(report: Json) -> Section:
    total = sum(arm.get("requests") or 0 for arm in report["arms"]) or 1
    signed = _signed(points)
    rows = (
        _quantity(report, "Requests", lambda a: (count(a["requests"]), f"{percent(a['requests'] / total)} of all")),
        _quantity(report, "Units", lambda a: (count(a["units"]), "")),
        _quantity(report, "Throughput", _throughput, remark="what it was sent, not capacity"),
        _quantity(report, "Failed", _failed, lambda d: estimate_cell(d["error_rate"], signed), "of all requests"),
        _quantity(report, "Failures by kind", _kinds),
        _quantity(report, "Right answers", _right, lambda d: estimate_cell(d["accuracy"], signed), "of those judged"),
    )
    return Section("Traffic and answers", rows)


def _latency(report: Json) -> list[Section]:
    failed = any((arm.get("errors") or {}).get("count") for arm in report["arms"])

    def rows(population: str, with_difference: bool) -> tuple[Row, ...]:
        found = []
        for name in ("p50", "p90", "p95", "p99"):

            def cell(arm: Json, name: str = name) -> Cell:
                return estimate_cell(arm["latency_ms"][population][name], milliseconds)

            def change(entry: Json, name: str = name) -> Cell:
                return estimate_cell(entry["latency_ms"][name], _signed(milliseconds))

            found.append(_quantity(report, name, cell, change if with_difference else None))
        return tuple(found)

    extra = (
        _quantity(report, "mean", lambda a: _told(a["latency_ms"]["mean"], milliseconds)),
        _quantity(report, "largest", lambda a: _told(a["latency_ms"]["max"], milliseconds)),
    )
    timed = [arm for arm in report["arms"] if "service_ms" in arm]
    since = ", from the time each was due" if timed else ""
    sections = [Section(f"Latency of answered requests{since}", (*rows("answered", not failed), *extra))]
    if timed:
        sections.append(Section("Service time of answered requests, from the actual send", _service(report)))
    if failed:
        sections.append(Section("Latency of all requests, a failed one counting as never answered", rows("all", True)))
    return sections


def _service(report: Json) -> tuple[Row, ...]:
    def cell(name: str) -> Callable[[Json], Cell]:
        return lambda arm: estimate_cell(arm["service_ms"][name], milliseconds)

    return tuple(_quantity(report, name, cell(name)) for name in ("p50", "p90", "p95", "p99"))


def _inside(report: Json) -> Section:
    def overhead(part: str) -> Callable[[Json], Cell]:
        def cell(arm: Json) -> Cell:
            found = arm["gateway_ms"].get(part, arm["gateway_ms"])
            if "p50" not in found:
                return "n/a", str(found.get("not_computable", "not told"))
            return milliseconds(found["p50"]), f"p99 {milliseconds(found['p99'])}, mean {milliseconds(found['mean'])}"

        return cell

    def queue(arm: Json) -> Cell:
        found = arm["batching"]["queue_ms"]
        if "not_computable" in found:
            return "n/a", found["not_computable"]
        if "p50" in found:
            return milliseconds(found["p50"]), f"p99 {milliseconds(found['p99'])}, {found['source']}"
        return f"mean {milliseconds(found['mean'])}", found["source"]

    def batch(arm: Json) -> Cell:
        entries = arm["batching"]["distributions"]
        if not isinstance(entries, list):
            return "n/a", entries["not_computable"]
        return "; ".join(f"{significant(e['mean'])} {e['what']}" for e in _distinct(entries)), ""

    def padding(arm: Json) -> Cell:
        share = arm["batching"].get("padding_share")
        return ("n/a", "not told by the server") if share is None else _told(share, percent, "of processed rows")

    rows = (
        _quantity(report, "Mean batch", batch),
        _quantity(report, "Padding", padding),
        _quantity(report, "Queue time", queue, remark="before the model runs"),
        _quantity(report, "Server", overhead("upstream"), remark="gateway sends to answer received; p50"),
        _quantity(report, "Gateway", overhead("gateway"), remark="its own time, without codec; p50"),
        _quantity(report, "Codec", overhead("codec"), remark="translation between wire formats; p50"),
        _quantity(report, "Event-loop lag", overhead("loop_lag"), remark="p50"),
    )
    return Section("Inside: where the time goes", rows)


def _distinct(entries: list[Json]) -> list[Json]:
    seen: dict[str, Json] = {}
    for entry in entries:
        seen.setdefault(entry["what"], entry)
    return list(seen.values())
