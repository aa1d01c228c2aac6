"""One supervised process as a small state machine, stepped by the supervisor's thread.

Lives here: starting -> ready -> (died) -> restarting -> starting, the back-off, and what is said about it. It takes the time
as an argument and never sleeps; what a start, a readiness question and a listener check are comes in as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backends.process import Child, how_it_ended

PROBE_SECONDS = 0.2
WATCH_SECONDS = 1.0
HOPELESS_STARTS = 3


@dataclass(frozen=True)
class Event:
    """Something that happened to a process: `what` is starting, ready, unready, died, restarting, failed or stopped."""

    name: str
    what: str
    detail: str = ""
    pid: int | None = None


@dataclass
class Backoff:
    """Seconds to wait before a restart: first, twice that, ... up to longest; from the beginning after a stable time."""

    first: float = 1.0
    longest: float = 30.0
    stable: float = 60.0
    _next: float = 0.0

    def after(self, ran_for: float) -> float:
        """The wait after a process that was ready for `ran_for` seconds died."""
        delay = self.first if ran_for >= self.stable or self._next == 0.0 else self._next
        self._next = min(delay * 2, self.longest)
        return delay


@dataclass
class Unit:
    """One process to keep running. `begin` starts it; `unready` says what is missing; `foreign` says if a port is not its own."""

    name: str
    begin: Callable[[], Child]
    unready: Callable[[], str | None]
    foreign: Callable[[int], str | None]
    tell: Callable[[Event], None]
    backoff: Backoff = field(default_factory=Backoff)
    state: str = "starting"
    child: Child | None = None
    restarts: int = 0
    reason: str = "not started yet"
    _due: float = 0.0
    _ready_since: float | None = None
    _was_ready: bool = False
    _failures: int = 0
    _misses: int = 0

    @property
    def pid(self) -> int | None:
        """The running process, None when there is none."""
        return self.child.pid if self.child is not None else None

    def step(self, now: float) -> None:
        """Do what is due at monotonic time `now`: start, notice a death, ask whether it is ready."""
        if self.state in ("stopped", "failed"):
            return
        if self.child is None:
            if now >= self._due:
                self._start(now)
            return
        code = self.child.exit_code()
        if code is not None:
            self._died(code, now)
        elif now >= self._due:
            self._look(now)

    def _start(self, now: float) -> None:
        self.state = "starting"
        try:
            self.child = self.begin()
        except Exception as fault:  # a model folder may vanish between two starts: later it may be back
            self._gone(f"cannot be started: {fault}", now)
            return
        self._due = now + PROBE_SECONDS
        self.tell(Event(self.name, "starting", pid=self.pid))

    def _died(self, code: int, now: float) -> None:
        assert self.child is not None
        dead, self.child = self.child, None
        self.state = "restarting"  # before anybody is told: who reads of the death must not read "ready" beside it
        dead.kill_group()  # workers may outlive their server
        self.tell(Event(self.name, "died", how_it_ended(code), dead.pid))
        self._gone(f"died ({how_it_ended(code)})", now)

    def _gone(self, reason: str, now: float) -> None:
        ran_for = now - self._ready_since if self._ready_since is not None else 0.0
        self._failures += 1
        self.reason, self._ready_since = reason, None
        if not self._was_ready and self._failures >= HOPELESS_STARTS:
            self.state = "failed"
            self.tell(Event(self.name, "failed", f"{reason}; {self._failures} starts, never ready"))
            return
        delay = self.backoff.after(ran_for)
        self.state, self._due = "restarting", now + delay
        self.restarts += 1
        self.tell(Event(self.name, "restarting", f"in {delay:g} s: {reason}"))

    def _look(self, now: float) -> None:
        assert self.child is not None
        missing = self.unready()
        if missing is None and self.state != "ready":
            missing = self.foreign(self.child.pid)
        self.reason = missing or ""
        self._misses = 0 if missing is None else self._misses + 1
        if missing is None and self.state != "ready":
            self.state, self._was_ready = "ready", True
            self._ready_since = now
            self.tell(Event(self.name, "ready", pid=self.pid))
        elif missing is not None and self.state == "ready" and self._misses > 1:  # a busy server may miss one question
            self.state, self._ready_since = "starting", None
            self.tell(Event(self.name, "unready", missing, self.pid))
        self._due = now + (WATCH_SECONDS if missing is None else PROBE_SECONDS)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it runs."""
        if self.child is not None:
            self.child.terminate()

    def gone(self) -> bool:
        """Whether no process runs any more."""
        return self.child is None or self.child.exit_code() is not None

    def finish(self) -> None:
        """Kill what is left of the group and say so; `step` does nothing afterwards."""
        ended = "was not running"
        if self.child is not None:
            asked_in_vain = self.child.exit_code() is None
            self.child.kill_group()
            ended = "killed: it did not stop in time" if asked_in_vain else how_it_ended(self.child.exit_code() or 0)
            self.child = None
        if self.state != "stopped":
            self.state, self.reason = "stopped", "stopped"
            self.tell(Event(self.name, "stopped", ended))
