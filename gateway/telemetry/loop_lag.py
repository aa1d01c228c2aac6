"""How late the event loop is: a timer every 50 ms that looks by how much it was missed.

One number, handed to whoever wants it; a request's record carries the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.clock import monotonic_ns

INTERVAL_S = 0.05


class LoopLag:
    """Calls `tell` with the last timer's lateness in nanoseconds, on the running loop."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0

    def start(self) -> None:
        """Begin measuring."""
        self._due = monotonic_ns() + round(INTERVAL_S * 1e9)
        self._handle = asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._tell(max(0, monotonic_ns() - self._due))
        self.start()

    def close(self) -> None:
        """Stop measuring."""
        if self._handle is not None:
            self._handle.cancel()
