"""Calls back at a monotonic nanosecond: Linux's timerfd, elsewhere the loop's own timer and a short wait.

uvloop and asyncio round their timers to whole milliseconds; an open loop at 2,000 requests a second would be late with
every one of them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic_ns

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_COARSE_NS = 2_000_000  # how much too late the loop's own timers may be


class Timer:
    """At most one call is waited for; `at` replaces it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None], exact: bool = True) -> None:
        """exact False takes the loop's timers where timerfd would do (for tests of the other way)."""
        self._loop = loop
        self._call = call
        self._due = 0
        self._handle: asyncio.Handle | None = None
        self._file = -1
        if exact and sys.platform == "linux":
            library = ctypes.CDLL(None, use_errno=True)
            self._set = library.timerfd_settime
            # struct itimerspec: interval s and ns, then the time s and ns
            self._spec = (ctypes.c_long * 4)(0, 0, 0, 0)
            self._file = library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            loop.add_reader(self._file, self._fired)

    def at(self, due: int) -> None:
        """Call at this time, at once where it is past."""
        if self._file >= 0:
            spec = self._spec
            spec[2], spec[3] = divmod(max(due, 1), 1_000_000_000)
            self._set(self._file, _ABSOLUTE, spec, None)
            return
        self._due = due
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_soon(self._look)  # not at once: the caller may be what is to be called

    def _fired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._call()

    def _look(self) -> None:
        left = self._due - monotonic_ns()
        if left <= 0:
            self._handle = None
            self._call()
        elif left > _COARSE_NS:
            self._handle = self._loop.call_later((left - _COARSE_NS) / 1e9, self._look)
        else:
            self._handle = self._loop.call_soon(self._look)

    def close(self) -> None:
        """Call no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1
