"""A server's output on disk, never larger than its limit, also while the server runs.

Lives here: a file that rotates by size, and the thread that carries a pipe into it. No parsing: bytes in, bytes out.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO


class RotatingLog:
    """Append bytes to `path`; at `limit` bytes it becomes path.1, the older path.2, and so on up to `keep` old files."""

    def __init__(self, path: Path, limit: int = 10 * 2**20, keep: int = 2) -> None:
        self.path, self._limit, self._keep = path, limit, keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Append; a full disk loses the chunk, never the server."""
        with self._lock:
            try:
                if self._file.tell() + len(chunk) > self._limit:
                    self._rotate()
                self._file.write(chunk[-self._limit :])
            except (OSError, ValueError):  # ValueError: closed meanwhile
                return

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                os.replace(older, self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self.path.open("wb", buffering=0)

    def tail(self, lines: int = 15) -> str:
        """The last lines of the current file, for an error message."""
        with self._lock, self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - 65536))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        with self._lock:
            self._file.close()


def pump(pipe: IO[bytes], log: RotatingLog) -> threading.Thread:
    """Carry everything from a child's pipe into its log until the last writer is gone; returns the thread doing so."""

    def run() -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), 65536):
                log.write(chunk)

    thread = threading.Thread(target=run, name=f"log-{log.path.stem}", daemon=True)
    thread.start()
    return thread
