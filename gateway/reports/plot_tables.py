"""The figures of a live split's plots as CSV texts, unrounded, from report.json's dictionary. PURE. Names are the plots'."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.reports.jsonable import Json
from gateway.reports.plots import PERCENTILES

ESTIMATE = ("value", "low", "high", "n")


def plot_tables(report: Json) -> dict[str, str]:
    """Name of a plot -> its CSV; a plot without figures is left out."""
    made = {
        "percentiles": _percentiles(report),
        "quantiles": _quantiles(report),
        "over-time": _over_time(report),
        "batches": _batches(report),
    }
    return {name: _text(header, rows) for name, (header, rows) in made.items() if rows}


def _text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return out.getvalue()


def _percentiles(report: Json) -> tuple[Sequence[str], list[Sequence[Any]]]:
    curves = report["plots"]["percentile_curve"]
    rows: list[Sequence[Any]] = [
        (arm, share, value)
        for arm, points in curves.items()
        for share, value in zip(points["share"], points["latency_ms"], strict=True)
    ]
    return ("arm", "share answered within", "ms"), rows


def _quantiles(report: Json) -> tuple[Sequence[str], list[Sequence[Any]]]:
    rows: list[Sequence[Any]] = []
    for arm in report["arms"]:
        for population, found in (arm.get("latency_ms") or {}).items():
            for name, _ in PERCENTILES if isinstance(found, dict) and "p50" in found else ():
                told = found[name]
                rows.append(
                    (arm["name"], population, name, *(told.get(k) for k in ESTIMATE), told.get("not_computable"))
                )
    return ("arm", "requests", "quantile", "ms", "low ms", "high ms", "n", "why not"), rows


def _over_time(report: Json) -> tuple[Sequence[str], list[Sequence[Any]]]:
    data = report["plots"]["over_time"]
    keys = ("requests", "requests_per_s", "errors", "p50_ms", "p95_ms", "p99_ms")
    if not data:
        return (), []
    rows: list[Sequence[Any]] = [
        (start, arm, *(lines[key][i] for key in keys))
        for arm, lines in data["arms"].items()
        for i, start in enumerate(data["start_s"])
    ]
    return ("from s", "arm", "requests", "requests per s", "failed", "p50 ms", "p95 ms", "p99 ms"), rows


def _batches(report: Json) -> tuple[Sequence[str], list[Sequence[Any]]]:
    rows: list[Sequence[Any]] = [
        (arm["name"], entry["what"], entry["source"], bucket["size"], bucket["batches"], bucket["share"])
        for arm in report["arms"]
        if isinstance(arm["batching"]["distributions"], list)
        for entry in arm["batching"]["distributions"]
        for bucket in entry["buckets"]
    ]
    return ("arm", "what", "source", "size", "batches", "share"), rows
