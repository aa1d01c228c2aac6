"""The ledger: every request a generator sent, unrounded.

Two halves. The writer lives in the generator: a bounded buffer appended to a journal of JSON lines several times a
second, cheap enough not to disturb what is measured, whole up to the last flush however the process ends. `compact`
runs afterwards in the parent and turns journals into Parquet segments. Statistics over the ledger live elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

SEGMENT_ROWS = 200_000
DUE = "due_ns"
"""A column only an open loop's ledger has: when the schedule wanted it sent, wall clock. send_ns is None where the arrival was
dropped; latency_ns is the service time, from the actual send."""


class Row(NamedTuple):
    """One request. send_ns wall clock; latency_ns from just before the send to the whole body; correct None: not judged."""

    send_ns: int
    latency_ns: int
    protocol: str
    unit: str
    arm: str
    assignment: str
    request_id: str
    status: int
    error: str
    rows: int
    correct: bool | None


COLUMNS = (*Row._fields, "warmup")
_TYPES = {
    "send_ns": "int64",
    "due_ns": "int64",
    "latency_ns": "int64",
    "status": "int32",
    "rows": "int32",
    "correct": "bool",
    "warmup": "bool",
}


class Journal:
    """A generator process's rows on their way to disk; when the disk fails they are counted as dropped."""

    def __init__(self, path: Path, limit: int = 100_000) -> None:
        self._path = path
        self._limit = limit
        self._rows: list[tuple[Any, ...]] = []
        self.written = 0
        self.dropped = 0

    def append(self, row: tuple[Any, ...]) -> None:
        """Keep one row (in Row's order) until the next flush."""
        if len(self._rows) < self._limit:
            self._rows.append(row)
        else:
            self.dropped += 1

    def flush(self) -> None:
        """Write what is kept; rows the disk does not take are dropped and counted."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        try:
            with self._path.open("ab", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError("disk full")
        except OSError:
            self.dropped += len(rows)
            return
        self.written += len(rows)


def read_journal(path: Path) -> Iterator[list[Any]]:
    """The rows of a journal; a torn line (the process died in the middle of a write) is left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if len(row) == len(Row._fields):
                yield row


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of the ledger and its number of rows."""

    path: Path
    rows: int


def compact(
    journals: Sequence[Path], directory: Path, start_ns: int, see: Callable[[list[Any]], None] = lambda row: None
) -> list[Segment]:
    """Turn journals into Parquet segments in directory and remove them; rows sent before start_ns are warm-up.

    see is called with every row (Row's order plus warmup), for a summary in the same pass.
    """
    segments = []
    for journal in journals:
        rows = read_journal(journal)
        number = 0
        while block := list(islice(rows, SEGMENT_ROWS)):
            for row in block:
                row.append(row[0] < start_ns)
                see(row)
            path = directory / f"{journal.stem}-{number:04d}.parquet"
            write_segment(path, block)
            segments.append(Segment(path, len(block)))
            number += 1
        journal.unlink()
    return segments


def write_segment(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows (Row's order plus warmup) as one Parquet file, under a temporary name until it is whole."""
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    write_columns(path, dict(zip(COLUMNS, columns, strict=True)))


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """As `write_segment`, by column; an open loop's ledger has `due_ns` too. None is a value that is not there."""
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    arrays: dict[str, Any] = {
        name: Array(list(values), getattr(DataType, _TYPES.get(name, "utf8"))()) for name, values in columns.items()
    }
    part = path.with_suffix(".part")
    write_parquet(Table(arrays), str(part), compression="zstd(1)")
    part.rename(path)
