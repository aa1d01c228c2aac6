"""The two loops: closed, which keeps so many requests under way, and open, which keeps to a schedule whatever comes back.

Runs inside one event loop; times are monotonic nanoseconds. What is sent and how belongs to a sender, what is written down
to the recorder.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns
from typing import Protocol

from loadtest.points.recorder import Recorder
from loadtest.points.schedule import Times
from loadtest.points.timer import Timer

_SPIN_NS = 40_000  # an arrival as near as this is waited for: going to sleep would take as long
_BURST = 64  # arrivals sent in a row before answers are looked at
_BEHIND_NS = 10_000_000_000  # an arrival later than this is dropped: a generator that cannot keep up must end
_LAST_NS = 1_000_000_000  # what requests under way have left after `stop`
_SWEEP = 0.02  # seconds between two looks for requests whose time is over
_REST = 0.05  # seconds a closed loop's place rests after a request without an answer: a dead server is not hammered


class Sender(Protocol):
    """What can send a slot's payload; tells each sent slot's end once, never from within `send`."""

    async def open(self, count: int) -> None: ...
    def send(self, slot: int) -> None: ...
    def abandon(self, slot: int) -> None:
        """End a request whose time is over; nothing where it has ended."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Clocked:
    """The window as it was (monotonic ns) and what the process used in it: CPU seconds and seconds."""

    warmup_start: int
    start: int
    end: int
    cpu_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Course:
    """One run's times: warm-up and window in ns; how long a request may take, in ns."""

    warmup: int
    window: int
    timeout: int


class Engine:
    """One run of one loop. `sender` is set before `run`."""

    sender: Sender

    def __init__(
        self,
        recorder: Recorder,
        draws: Iterator[tuple[int, int]],
        course: Course,
        tell: Callable[[float, int, int], None],
    ) -> None:
        """tell: called now and then with (seconds since the warm-up began, requests begun, requests under way)."""
        self._loop = asyncio.get_running_loop()
        self._recorder = recorder
        self._draws = draws
        self._course = course
        self._tell = tell
        self._begin = self._start = self._end = 0
        self._under_way = 0
        self._oldest = 0  # every slot before it has ended
        self._timer: Timer | None = None
        self._times: array[int] = array("q")
        self._next = 0
        self._places = 0
        self._stop_ns = 0  # when `stop` was called
        self._halt = asyncio.Event()

    def stop(self) -> None:
        """End the window now: no request begins any more, and those under way have a second to come back."""
        if not self._stop_ns:
            self._stop_ns = monotonic_ns()
            unsent = self._times[self._next] if self._next < len(self._times) else self._stop_ns
            self._end = min(self._end, self._stop_ns, unsent)
            self._next = len(self._times)
            self._halt.set()

    def ended(self, slot: int) -> None:
        """The sender: a request's answer came, or never will."""
        self._under_way -= 1
        if self._timer is not None:
            return
        if self._recorder.done[slot] < 0:
            self._loop.call_later(_REST, self._again)
        else:
            self._again()

    # The closed loop

    async def closed(self, begin: int, concurrency: int) -> Clocked:
        """Keep so many requests under way from `begin` to the window's end, then let them come back."""
        self._begin = begin
        return await self._run(lambda: self._fill(concurrency))

    def _fill(self, concurrency: int) -> None:
        for _ in range(concurrency):
            self._again()

    def _again(self) -> None:
        now = monotonic_ns()
        if now >= self._end:
            return
        payload, unit = next(self._draws)
        recorder = self._recorder
        slot = recorder.begin(now, payload, unit)
        recorder.sent[slot] = now
        self._under_way += 1
        self.sender.send(slot)

    # The open loop

    async def open(self, begin: int, offsets: Times, outstanding: int) -> Clocked:
        """Send at every offset (ns from `begin`) unless `outstanding` requests are under way by then.

        An arrival more than ten seconds late is dropped too: a generator that fell behind must come to an end.
        """
        self._begin = begin
        self._times.frombytes((offsets + self._begin).tobytes())
        self._places = outstanding
        self._timer = Timer(self._loop, self._arrivals)
        try:
            return await self._run(self._arrivals)
        finally:
            self._timer.close()

    def _arrivals(self) -> None:
        """Send what is due; ask to be called for the next."""
        times, total, sent = self._times, len(self._times), 0
        while self._next < total:
            due = times[self._next]
            now = monotonic_ns()
            if due > now:
                if due - now > _SPIN_NS or sent >= _BURST:
                    break
                continue
            if sent >= _BURST:
                break
            self._next += 1
            sent += 1
            self._arrive(due, now)
        if self._next < total and self._timer is not None:
            self._timer.at(times[self._next])

    def _arrive(self, due: int, now: int) -> None:
        payload, unit = next(self._draws)
        recorder = self._recorder
        slot = recorder.begin(due, payload, unit)
        if self._under_way >= self._places or now - due > _BEHIND_NS:
            recorder.fail(slot, "dropped")
            return
        recorder.sent[slot] = now
        self._under_way += 1
        self.sender.send(slot)

    # Both

    async def _run(self, first: Callable[[], None]) -> Clocked:
        course = self._course
        self._start = self._begin + course.warmup
        self._end = self._start + course.window
        if self._stop_ns:  # before it began
            self._end, self._next = self._begin, len(self._times)
        sweep = asyncio.ensure_future(self._sweep())
        try:
            if self._timer is None:
                await self._until(self._begin)
            if not self._stop_ns:
                first()  # an open loop's timer keeps the time of the beginning better than `_until`
            await self._until(self._start)
            cpu, begun = time.process_time(), monotonic_ns()
            await self._until(self._end)
            cpu, seconds = time.process_time() - cpu, (monotonic_ns() - begun) / 1e9
            while self._under_way or self._next < len(self._times):  # noqa: ASYNC110  the sweep runs anyway
                await asyncio.sleep(_SWEEP)
        finally:
            sweep.cancel()
        end = max(self._end, self._begin)
        return Clocked(self._begin, min(self._start, end), end, cpu, seconds)

    async def _sweep(self) -> None:
        """End requests whose time is over: slots begin in order of time, so the oldest are looked at first."""
        told = 0.0
        while True:
            await asyncio.sleep(_SWEEP)
            now = monotonic_ns()
            limit = now - self._course.timeout
            if self._stop_ns and now > self._stop_ns + _LAST_NS:
                limit = now
            recorder, sent = self._recorder, self._recorder.sent
            while self._oldest < recorder.size and sent[self._oldest] <= limit:
                self.sender.abandon(self._oldest)
                self._oldest += 1
            elapsed = (now - self._begin) / 1e9
            if elapsed - told >= 0.25:
                told = elapsed
                self._tell(elapsed, recorder.size, self._under_way)

    async def _until(self, moment: int) -> None:
        """Sleep to a monotonic time or to `stop`; the loop's timers may be late by a millisecond, never early here."""
        while not self._halt.is_set() and (left := moment - monotonic_ns()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._halt.wait(), left / 1e9)
