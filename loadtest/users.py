"""What users of both protocols have in common: draw, send, time, judge, note.

A user sends one request at a time and knows nothing of arms but what the answer says. Times come from the monotonic
clock around `exchange`; the ledger gets them unrounded, Locust gets them for its page. Subclasses know one protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import ClassVar, NamedTuple

import gevent
from locust import User, task

from loadtest.answers import BadAnswer, Judge
from loadtest.payloads import Payload
from loadtest.session import Session

_OVER = 3600.0  # seconds a user waits after the window: it is stopped in that wait, never inside a request


class Exchange(NamedTuple):
    """What came back. status 0: nothing did; error "" is a good answer; body: what the judge reads."""

    status: int
    error: str
    arm: str = ""
    assignment: str = ""
    request_id: str = ""
    body: bytes = b""


class LoadUser(User):
    """A closed-loop user, or one of a fixed rate when the profile sets one."""

    abstract = True
    wanted = ""  # the profile's name of the protocol
    session: ClassVar[Session]  # set by the locustfile before the first user starts

    def on_start(self) -> None:
        """Wait for the run's window, then for this user's place within the first interval."""
        session = self.session
        while session.window is None:
            session.window = session.job.load_window()
            if session.window is None:
                gevent.sleep(0.005)
        self._window = session.window
        self._name, phase, self._draws = session.enlist()
        self._protocol = session.job.target.protocol(self.wanted)
        self._arm = session.job.target.arm
        self._every = session.job.profile.check.every
        self._sent = 0
        self._fire: Callable[..., None] = self.environment.events.request.fire
        self.open(session)
        self._due = perf_counter()
        if session.plan.rate is not None:
            self._due += phase * session.plan.interval(self._elapsed())
            gevent.sleep(max(0.0, self._due - perf_counter()))

    def on_stop(self) -> None:
        """Close what `open` opened."""
        self.close()

    def _elapsed(self) -> float:
        window = self._window
        return (perf_counter_ns() + window.offset_ns - window.warmup_start_ns) / 1e9

    def wait_time(self) -> float:
        """Seconds until the next request: none in a closed loop, else to the next place on the user's own clock."""
        elapsed = self._elapsed()
        interval = self.session.plan.interval(elapsed)
        if self._window.warmup_start_ns + elapsed * 1e9 >= self._window.end_ns:
            return _OVER
        if not interval:
            return 0.0
        now = perf_counter()
        self._due = max(self._due + interval, now)  # a late user does not catch up: it would send a burst
        return self._due - now

    @task
    def request(self) -> None:
        """Send one request and note what happened."""
        begin = perf_counter_ns()
        send_ns = begin + self._window.offset_ns
        if send_ns >= self._window.end_ns:
            return
        unit, payload = next(self._draws)
        self._sent += 1
        request_id = f"{self._name}{self._sent:x}"
        begin = perf_counter_ns()
        answer = self.exchange(unit, request_id, payload)
        latency = perf_counter_ns() - begin
        error, correct = answer.error, None
        judge = self.session.judge
        if not error and judge is not None and self._sent % self._every == 0:
            try:
                correct = self.judge(judge, answer.body, payload)
            except BadAnswer as problem:
                error, correct = f"bad answer: {problem}", False
        arm = self._arm or answer.arm
        self.session.journal.append(
            (
                send_ns, latency, self._protocol, unit, arm, answer.assignment, answer.request_id or request_id,
                answer.status, error, payload.rows, correct,
            )
        )  # fmt: skip
        self._fire(
            request_type=self._protocol,
            name=arm or "(no arm)",
            response_time=latency / 1e6,
            response_length=len(answer.body),
            exception=error or None,
            context={},
        )

    def open(self, session: Session) -> None:
        """Prepare the protocol's connection."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop the protocol's connection."""
        raise NotImplementedError

    def exchange(self, unit: str, request_id: str, payload: Payload) -> Exchange:
        """Send one request and wait for the whole answer; never raises for what a server or network does."""
        raise NotImplementedError

    def judge(self, judge: Judge, body: bytes, payload: Payload) -> bool:
        """Whether the answer is right; raises BadAnswer."""
        raise NotImplementedError
