"""csv/blocks.csv: every block's figures unrounded, one row a block. PURE."""

from __future__ import annotations

import csv
import io

from gateway.reports.jsonable import Json
from gateway.reports.lab.shape import items, number, part

_PLAIN = ("id", "replicate", "order", "arm", "path", "protocol", "mode")
_COUNTS = (
    "n",
    "errors",
    "late",
    "dropped",
    "wrong",
    "judged",
    "offered",
    "achieved",
    "goodput",
    "generator_us",
    "start_seconds",
    "discarded_s",
)
_TIMES = ("service_ms", "intended_ms", "upstream_ms", "gateway_ms", "codec_ms", "queue_ms")
_STATS = ("n", "mean", "sd", "max")
_QUANTILES = ("p50", "p90", "p95", "p99", "p999")


def blocks_csv(report: Json) -> str:
    """RFC 4180 text; a quantile stands with its limits, a missing figure is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out)
    header = [*_PLAIN, "concurrency", "rate", "duration_s", *_COUNTS]
    for time in _TIMES:
        header += [f"{time} {stat}" for stat in _STATS]
        header += [f"{time} {q}{end}" for q in _QUANTILES for end in ("", " low", " high")]
    writer.writerow([*header, "batch mean", "batch fill", "valid", "reasons", "drift", "folder"])
    for block in items(report, "blocks"):
        load = part(block, "load")
        row = [block.get(key, "") for key in _PLAIN]
        row += [load.get("concurrency"), load.get("rate"), load.get("duration"), *(block.get(key) for key in _COUNTS)]
        for time in _TIMES:
            told = part(block, time)
            row += [number(told.get(stat)) for stat in _STATS]
            row += [number(part(told, q).get(end)) for q in _QUANTILES for end in ("value", "low", "high")]
        batches = part(block, "batches")
        row += [
            number(batches.get("mean")),
            number(batches.get("fill")),
            block.get("valid"),
            "; ".join(map(str, block.get("reasons") or [])),
        ]
        row += [block.get("drift"), block.get("folder")]
        writer.writerow(["" if value is None else value for value in row])
    return out.getvalue()
