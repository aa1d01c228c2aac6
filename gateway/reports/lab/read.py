"""Reads a lab's run directory: lab.json whole, each block's requests.parquet reduced to curves. No statistics with a verdict,
no words for readers but what is missing. Requests are held one block at a time; what stays is small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.reports.lab.shape import Doc, items, number, part
from gateway.stats.quantiles import sample_floor

MEMORY_LIMIT = "384MB"
CURVE_POINTS = 120
CURVE_FLOOR = 6.636
"""Slower answers than a point of the curve must have: sample_floor(q) * (1 - q) is 6.6 for every q in the tail."""
BINS = 24
PER_BIN = 150
TOLD = (0.5, 0.95, 0.99)
Floors = tuple[tuple[float, int], ...]
_SQL = """SELECT due_ns, sent_ns, done_ns, coalesce(error, '') = '' AS good FROM read_parquet(?)
WHERE due_ns >= ? AND due_ns < ? ORDER BY due_ns"""


@dataclass(frozen=True)
class Latencies:
    """Good answers of a block in ms, sorted, shape [n] each; intended and service are one array in a closed loop."""

    intended: NDArray[np.float32]
    service: NDArray[np.float32]


@dataclass(frozen=True)
class OverTime:
    """Equal bins of a block by due time: seconds from its start, shape [bins]; None where a bin is below the floor."""

    width: float
    start_s: tuple[float, ...]
    requests: tuple[int, ...]
    errors: tuple[int, ...]
    p50_ms: tuple[float | None, ...]
    p95_ms: tuple[float | None, ...]
    p99_ms: tuple[float | None, ...]


@dataclass(frozen=True)
class BlockRows:
    """What a block's requests told."""

    n: int
    latencies: Latencies
    time: OverTime


@dataclass(frozen=True)
class LabRun:
    """Everything a lab's run directory told."""

    path: Path
    document: Doc
    rows: Mapping[str, BlockRows]
    missing: tuple[str, ...] = field(default=())


def read_lab(path: Path) -> LabRun:
    """Read the directory; raises ConfigError where lab.json is no JSON object. Missing blocks are listed, not raised."""
    document = read_document(path)
    missing: list[str] = []
    rows: dict[str, BlockRows] = {}
    floors = tuple((q, sample_floor(q)) for q in TOLD)
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit='{MEMORY_LIMIT}'; SET threads=2; SET enable_progress_bar=false")
        for block in items(document, "blocks"):
            name = str(block.get("id"))
            folder = path / str(block.get("folder") or f"blocks/{name}")
            found = _rows(connection, (folder, block), floors, missing)
            if found is not None:
                rows[name] = found
    finally:
        connection.close()
    return LabRun(path, document, rows, tuple(missing))


def read_document(path: Path) -> dict[str, Any]:
    """lab.json of a run directory."""
    file = path / "lab.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_constant=str)  # NaN is no JSON
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read ({error})"]) from error
    if not isinstance(document, dict):
        raise ConfigError([f"{file}: holds no JSON object"])
    return document


def _window(folder: Path, block: Doc) -> tuple[int, int]:
    """The block's window: from the recording's beginning (point.json) the discarded seconds on, as long as its load was to
    last; the point's own window where the block tells no discard, and all rows without point.json.
    """
    try:
        told = json.loads((folder / "point.json").read_text(encoding="utf-8"))
        start, end = int(told["start_ns"]), int(told["end_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return -(2**62), 2**62
    discarded, duration = number(block.get("discarded_s")), number(part(block, "load").get("duration"))
    if discarded is None or duration is None or "warmup_start_ns" not in told:
        return start, end
    start = int(told["warmup_start_ns"]) + round(discarded * 1e9)
    return start, start + round(duration * 1e9)


def _rows(
    connection: duckdb.DuckDBPyConnection, place: tuple[Path, Doc], floors: Floors, missing: list[str]
) -> BlockRows | None:
    folder, block = place
    file = folder / "requests.parquet"
    if not file.is_file():
        missing.append(f"{block.get('id')}: requests.parquet is not there, so no curves of this block")
        return None
    try:
        table = connection.execute(_SQL, [str(file), *_window(folder, block)]).fetchnumpy()
    except duckdb.Error as error:
        missing.append(f"{block.get('id')}: requests.parquet cannot be used ({str(error).splitlines()[0]})")
        return None
    due, sent, done, good = (np.ma.getdata(table[name]) for name in ("due_ns", "sent_ns", "done_ns", "good"))
    if not due.size:
        return None
    good = good.astype(np.bool_) & (done >= 0)
    service = ((done - sent)[good] / 1e6).astype(np.float32)
    intended = ((done - due)[good] / 1e6).astype(np.float32)
    offset = (due - due[0]) / 1e9
    seconds = number(part(block, "load").get("duration")) or float(offset[-1]) or 1.0
    time = over_time(offset, good, intended, seconds, floors)
    service.sort()
    same = bool(np.array_equal(due, sent))
    sorted_intended = service if same else np.sort(intended)
    return BlockRows(int(due.size), Latencies(sorted_intended, service), time)


def over_time(
    offset: NDArray[np.float64], good: NDArray[np.bool_], latency: NDArray[np.float32], seconds: float, floors: Floors
) -> OverTime:
    """Bins of a block. offset, good: of every request, shape [n]; latency: of the good ones, in the same order; floors:
    the quantiles p50, p95, p99 with the fewest samples that tell each.
    """
    bins = min(BINS, max(6, offset.size // PER_BIN))
    width = max(seconds, float(offset[-1]), 1e-3) / bins
    index = np.minimum((offset / width).astype(np.int64), bins - 1)
    total = np.bincount(index, minlength=bins)
    mine = index[good]
    order = np.lexsort((latency, mine))
    values = latency[order]
    counts = np.bincount(mine, minlength=bins)
    starts = np.r_[0, np.cumsum(counts)[:-1]]

    def quantile(q: float, floor: int) -> tuple[float | None, ...]:
        ranks = starts + np.maximum(np.ceil(q * counts).astype(np.int64) - 1, 0)
        return tuple(float(values[r]) if c >= floor else None for r, c in zip(ranks, counts, strict=True))

    return OverTime(
        width=width,
        start_s=tuple(i * width for i in range(bins)),
        requests=tuple(total.tolist()),
        errors=tuple((total - counts).tolist()),
        p50_ms=quantile(*floors[0]),
        p95_ms=quantile(*floors[1]),
        p99_ms=quantile(*floors[2]),
    )


def curve(values: NDArray[np.float32]) -> tuple[tuple[float, float], ...]:
    """Points (share answered within, ms) of sorted latencies, dense in the tail, up to the sample floor."""
    floor_weight = CURVE_FLOOR
    if values.size <= 2 * floor_weight:
        return ()
    tail = np.linspace(0.0, np.log10(values.size / floor_weight), CURVE_POINTS)
    shares = 1.0 - 10.0**-tail
    ranks = np.clip(np.ceil(shares * values.size).astype(np.int64) - 1, 0, values.size - 1)
    return tuple(zip(shares.tolist(), values[ranks].tolist(), strict=True))
