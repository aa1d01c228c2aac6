"""Makes Parquet segments of journals; runs as a process of its own: `python -m gateway.telemetry.compact SEGMENTS JOURNAL...`

Its own process, because arro3 writes Parquet with the interpreter's lock held (60 ms for 20,000 rows measured), which every
request under way would feel. A segment appears whole (temporary name, fsync, rename) before its journal goes.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from gateway.telemetry.events import INT32_COLUMNS, STRING_COLUMNS, Record
from gateway.telemetry.journal import read, segment_of

BATCH_ROWS = 8192


def schema() -> Schema:
    """The segment's columns: the record's, in its order, none nullable."""
    return Schema([Field(name, _type(name), nullable=False) for name in Record._fields])


def _type(name: str) -> DataType:
    if name in STRING_COLUMNS:
        return DataType.string()
    return DataType.int32() if name in INT32_COLUMNS else DataType.int64()


def batches(journal: Path, target: Schema) -> Iterator[RecordBatch]:
    """The journal's rows as record batches of about BATCH_ROWS rows."""
    rows: list[list[Any]] = []
    for line in read(journal):
        rows.extend(line)
        if len(rows) >= BATCH_ROWS:
            yield _batch(rows, target)
            rows = []
    if rows:
        yield _batch(rows, target)


def _batch(rows: list[list[Any]], target: Schema) -> RecordBatch:
    columns = [Array(values, _type(name)) for name, values in zip(Record._fields, zip(*rows, strict=True), strict=True)]
    return RecordBatch.from_arrays(columns, schema=target)


def compact(journal: Path, segments: Path) -> Path | None:
    """Write the journal's segment and remove the journal; None where another process has it or there was no row.

    Raises OSError when the disk is full: the journal stays.
    """
    try:
        lock = journal.open("rb")
    except FileNotFoundError:
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        target = segment_of(journal, segments)
        if next(read(journal), None) is None:
            journal.unlink(missing_ok=True)
            return None
        segments.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            _write(journal, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(segments)
        journal.unlink(missing_ok=True)
        return target


def _write(journal: Path, temporary: Path) -> None:
    columns = schema()
    reader = RecordBatchReader.from_batches(columns, batches(journal, columns))
    with temporary.open("wb") as file:
        write_parquet(reader, file, compression="zstd(3)", max_row_group_size=4 * BATCH_ROWS)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main(arguments: list[str]) -> int:
    """Compact every journal named; 1 when one of them failed."""
    os.nice(10)
    failed = 0
    for name in arguments[1:]:
        try:
            compact(Path(name), Path(arguments[0]))
        except Exception as error:  # the journal stays and is tried again
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
