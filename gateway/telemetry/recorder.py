"""Records on their way to the disk: a bounded queue, a thread that empties it into the journal, segments made of journals.

The event loop only appends to the queue; what does not fit is dropped and counted. The thread writes in small chunks, so that
it never holds the interpreter's lock for long, and leaves Parquet to a process (compact). Units are hashed here, before any
byte is written. A full disk stops recording, is counted as drops, and is tried again every second; serving goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import structlog

from gateway.clock import monotonic, wall_ns
from gateway.telemetry.events import Record
from gateway.telemetry.journal import Journal, Row, orphans
from gateway.telemetry.unit_hash import unit_hash

_UNIT = Record._fields.index("unit_hash")
_how_assigned = itemgetter(*map(Record._fields.index, ("model", "experiment", "served_arm", "assignment")))
_CHUNK = 256  # rows a write: 0.2 ms of the interpreter's lock
_KNOWN_UNITS = 65536
_TICK_S = 0.25
_POLL_S = 0.02
_RETRY_S = 1.0
_JOURNAL_BYTES = 32 << 20
_JOURNAL_AGE_S = 60.0


class Recorder:
    """Takes rows from the event loop, keeps them on disk. put is for one thread; the rest is thread safe."""

    def __init__(self, path: Path, retention_bytes: int, unit_key: bytes, queue_limit: int = 65536) -> None:
        self.path = path
        self.segments = path / "segments"
        self.journals = path / "journal"
        self._retention = retention_bytes
        self._key = unit_key
        self._limit = queue_limit
        self._queue: deque[Row] = deque()
        self._overflowed = 0  # by the event loop
        self._lost = 0  # by the thread
        self._written = 0
        self._counts: Counter[tuple[str, str, str, str]] = Counter()
        self._hashes: dict[str, str] = {}
        self._stopped = ""
        self._retry_at = 0.0
        self._journal: Journal | None = None
        self._journal_since = 0.0
        self._compaction = _Compaction(self.segments)
        self._wake = threading.Event()
        self._closing = False
        self._flushes: deque[threading.Event] = deque()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._log = structlog.get_logger("abgate.records")

    def put(self, row: tuple[Any, ...]) -> None:
        """Queue one row (a Record's values; the unit's slot holds the raw unit); drops it, counted, when the queue is full."""
        if len(self._queue) < self._limit:
            self._queue.append(row)
        else:
            self._overflowed += 1

    def start(self) -> None:
        """Begin writing; journals left by dead processes are compacted in the background."""
        self._thread.start()

    def flush(self, timeout_s: float = 30.0) -> list[Path]:
        """Bring everything put so far into segments and name every segment there is, oldest first.

        Blocks for a process's start and the writing; TimeoutError when that takes longer than timeout_s.
        """
        done = threading.Event()
        self._flushes.append(done)
        self._wake.set()
        if not done.wait(timeout_s):
            raise TimeoutError(f"the records were not flushed within {timeout_s:g} s")
        return self.segment_paths()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and stop; what cannot be compacted in time is left as a journal for the next start."""
        if self._thread.is_alive():
            self._closing = True
            self._wake.set()
            self._thread.join(timeout_s)
            self._compaction.stop()

    def segment_paths(self) -> list[Path]:
        """Every finished segment, oldest first (names begin with wall nanoseconds)."""
        return sorted(self.segments.absolute().glob("records-*.parquet"))

    @property
    def written(self) -> int:
        """Rows in journals or segments, written by this process."""
        return self._written

    @property
    def dropped(self) -> int:
        """Rows lost: the queue was full, or the disk."""
        return self._overflowed + self._lost

    @property
    def assignments(self) -> dict[tuple[str, str, str, str], int]:
        """Requests a server was given, by (model, experiment, served arm, assignment); counted off the requests' way."""
        return {key: count for key, count in dict(self._counts).items() if key[2]}

    def stats(self) -> dict[str, Any]:
        """What the admin API shows; stopped is "" or why nothing is recorded at the moment."""
        return {
            "queued": len(self._queue),
            "written": self.written,
            "dropped": self.dropped,
            "dropped_queue_full": self._overflowed,
            "dropped_disk": self._lost,
            "stopped": self._stopped,
            "segments": len(self.segment_paths()),
            "path": str(self.path.absolute()),
        }

    # ---- the thread ----

    def _run(self) -> None:
        self._compaction.add(orphans(self.journals))
        waiting: list[threading.Event] = []
        while True:
            self._wake.wait(_POLL_S if self._compaction.busy else _TICK_S)
            self._wake.clear()
            closing, flushes = self._closing, len(self._flushes)
            self._drain()
            if flushes or closing or self._journal_is_old():
                self._rotate()
            waiting.extend(self._flushes.popleft() for _ in range(flushes))
            self._compaction.step()
            if self._compaction.finished:
                self._compaction.finished = False
                self._retain()
            if not self._compaction.busy:
                for done in waiting:
                    done.set()
                waiting.clear()
                if closing:
                    return

    def _drain(self) -> None:
        """Write what is queued now, in chunks; the interpreter's lock is free during every write."""
        queue = self._queue
        left = len(queue)
        while left:
            count = min(left, _CHUNK)
            left -= count
            taken = [queue.popleft() for _ in range(count)]
            self._counts.update(map(_how_assigned, taken))
            rows = self._prepare(taken)
            if self._stopped and monotonic() < self._retry_at:
                self._lost += count
                continue
            try:
                self._write(rows)
            except OSError as error:
                self._lost += count
                self._stop(error)
            except TypeError:  # a text that is no Unicode: lose that row, not its neighbours
                self._write_singly(rows)

    def _prepare(self, taken: list[Row]) -> list[list[Any]]:
        """The rows as they are stored: each unit's hash in place of the unit."""
        hashes, key = self._hashes, self._key
        if len(hashes) > _KNOWN_UNITS:
            hashes.clear()
        rows = list(map(list, taken))
        for row in rows:
            unit = row[_UNIT]
            if unit:
                hashed = hashes.get(unit)
                if hashed is None:
                    hashed = hashes[unit] = unit_hash(unit, key)
                row[_UNIT] = hashed
        return rows

    def _write_singly(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            try:
                self._write([row])
            except (OSError, TypeError):
                self._lost += 1

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        if self._journal is None:
            self._journal = Journal(self.journals, f"{wall_ns()}-{os.getpid()}")
            self._journal_since = monotonic()
        self._journal.append(rows)
        self._written += len(rows)
        if self._stopped:
            self._log.warning("records.resumed", dropped=self.dropped)
            self._stopped = ""

    def _stop(self, error: Exception) -> None:
        self._retry_at = monotonic() + _RETRY_S
        if not self._stopped:
            self._log.error("records.stopped", reason=str(error), path=str(self.journals))
        self._stopped = str(error)

    def _journal_is_old(self) -> bool:
        journal = self._journal
        if journal is None:
            return False
        return journal.size >= _JOURNAL_BYTES or monotonic() - self._journal_since >= _JOURNAL_AGE_S

    def _rotate(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            try:
                journal.close()
            except OSError as error:
                self._stop(error)
            self._compaction.add([journal.path])

    def _retain(self) -> None:
        """Remove the oldest segments until the rest fits the retention; the newest always stays."""
        sizes = [(path, path.stat().st_size) for path in self.segment_paths() if path.exists()]
        total = sum(size for _, size in sizes)
        for path, size in sizes[:-1]:
            if total <= self._retention:
                return
            path.unlink(missing_ok=True)
            total -= size
            self._log.info("records.removed", segment=path.name, reason="retention")


class _Compaction:
    """The journals waiting for a segment and the process that makes one; driven by the recorder's thread."""

    def __init__(self, segments: Path) -> None:
        self.finished = False
        self._segments = segments
        self._waiting: list[Path] = []
        self._failed: list[Path] = []
        self._retry_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._current: list[Path] = []

    @property
    def busy(self) -> bool:
        return self._process is not None or bool(self._waiting)

    def add(self, journals: list[Path]) -> None:
        self._waiting.extend(journals)

    def step(self) -> None:
        """See whether the process has ended; start one for what waits."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                return
            self._process = None
            self.finished = True
            left = [path for path in self._current if path.exists()]
            if left:
                self._failed.extend(left)
                self._retry_at = monotonic() + 10 * _RETRY_S
        if self._failed and monotonic() >= self._retry_at:
            self._waiting.extend(self._failed)
            self._failed = []
        if self._waiting:
            self._current, self._waiting = self._waiting, []
            command = [sys.executable, "-P", "-m", "gateway.telemetry.compact", str(self._segments)]
            names = [str(path) for path in self._current]
            self._process = subprocess.Popen(command + names, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """End a process that is still at it; its journal stays."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait(2)
