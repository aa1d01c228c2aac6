"""The files of a capture: a thread that empties its queue into segments, within the size that is allowed.

When the size is used up, or the disk, the capture ends and says so; nothing older is removed for it. A write that failed is
taken back, so that a segment always ends with a whole record. Files are the owner's alone (0600, in a folder of 0700):
request bodies are other people's data.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from gateway.telemetry.capture import Capture, Taken
from gateway.telemetry.capture_format import Captured, Start, frame, opening, segment_name
from gateway.telemetry.unit_hash import unit_hash

_TICK_S = 0.1
_CHUNK_BYTES = 256 << 10
_SEGMENT_BYTES = 32 << 20


class CaptureWriter:
    """Writes one capture; `start` once, `close` once. ended: called once, in the thread, when it stops by itself."""

    def __init__(
        self, capture: Capture, folder: Path, start: Start, *, room: int, unit_key: bytes, ended: Callable[[], None]
    ) -> None:
        """room: bytes that may be written. Raises OSError when the folder cannot be made."""
        folder.mkdir(parents=True, mode=0o700)
        self.folder = folder
        self.reason = ""  # why it stopped by itself
        self.written = 0  # requests
        self._capture = capture
        self._start = start
        self._room = room
        self._key = unit_key
        self._ended = ended
        self._fd = -1
        self._bytes = 0
        self._size = 0  # of the open segment
        self._segment = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Open the first segment and begin writing. Raises OSError."""
        self._open()
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and let go of the files; blocks."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # ---- the thread ----

    def _run(self) -> None:
        while True:
            self._wake.wait(_TICK_S)
            closing = self._closing
            if self.reason:
                self._lose()
            else:
                self._drain()
            if closing:
                with contextlib.suppress(OSError):  # what the disk did not take is a torn end, which readers know
                    self._shut()
                return

    def _drain(self) -> None:
        capture = self._capture
        while capture.waiting and not self.reason:
            frames: list[bytes] = []
            size = 0
            while capture.waiting and size < _CHUNK_BYTES:
                taken = capture.waiting.popleft()
                capture.taken_bytes += len(taken.body)
                frames.append(self._frame(taken))
                size += len(frames[-1])
            self._write(frames)

    def _write(self, frames: list[bytes]) -> None:
        """Write as many of the frames as there is room for."""
        counts = self._capture.counts
        full = self._size >= _SEGMENT_BYTES
        left = self._room - self._bytes - (len(self._opening(self._segment + 1)) if full else 0)
        fitting = 0
        while fitting < len(frames) and len(frames[fitting]) <= left:
            left -= len(frames[fitting])
            fitting += 1
        try:
            if full and fitting:
                self._next()
            self._append(b"".join(frames[:fitting]))
        except OSError as error:
            counts.ended += len(frames)
            self._stop(f"the disk: {error}")
            return
        counts.written += fitting
        self.written += fitting
        if fitting < len(frames):
            counts.ended += len(frames) - fitting
            self._stop("the size that is allowed is used up")

    def _frame(self, taken: Taken) -> bytes:
        head = Captured(
            taken.time_ns,
            taken.offset_ns,
            taken.protocol,
            taken.model,
            taken.version,
            taken.method,
            taken.path,
            taken.headers,
            taken.rows,
            taken.status,
            unit_hash(taken.unit, self._key),
        )
        return frame(head._asdict(), taken.body)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self._bytes += len(data)
        self._capture.counts.bytes += len(data)

    def _opening(self, segment: int) -> bytes:
        return opening(self._start._replace(segment=segment))

    def _open(self) -> None:
        path = self.folder / segment_name(self._segment)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0
        self._append(self._opening(self._segment))

    def _next(self) -> None:
        self._shut()
        self._segment += 1
        self._open()

    def _shut(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def _stop(self, reason: str) -> None:
        self.reason = reason
        self._lose()
        self._ended()

    def _lose(self) -> None:
        """What still comes after the end."""
        waiting = self._capture.waiting
        while waiting:
            self._capture.taken_bytes += len(waiting.popleft().body)
            self._capture.counts.ended += 1
