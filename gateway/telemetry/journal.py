"""The journal: an append-only file of records that survives the process's death at any byte.

One line is one JSON array of rows, a row the record's values in order. A line without its newline, or one that is no
JSON, is the end that a crash cut off. The owner holds a file lock; a journal whose lock is free belongs to nobody alive.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

Row = tuple[Any, ...]
SUFFIX = ".jsonl"


class Journal:
    """One open journal file; not thread safe. Raises OSError (a full disk) from append, which then leaves it as it was."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / (name + SUFFIX)
        self.size = 0
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def append(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write one line of rows, whole or not at all."""
        line = memoryview(orjson.dumps(rows) + b"\n")
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += len(line)

    def close(self) -> None:
        """Hand the file to the disk and let go of it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)


def segment_of(journal: Path, segments: Path) -> Path:
    """The segment a journal becomes: always the same one, so that compacting twice is compacting once."""
    return segments / f"records-{journal.name.removesuffix(SUFFIX)}.parquet"


def read(path: Path) -> Iterator[list[list[Any]]]:
    """The rows of a journal, line by line; stops at the end a crash cut off."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                return


def orphans(directory: Path) -> list[Path]:
    """Journals that no living process holds, oldest first."""
    found = []
    for path in sorted(directory.glob("*" + SUFFIX)):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            continue
        found.append(path)
    return found
