"""What Locust loads: the users and the load shape of the job that the environment names.

Only `python -m locust -f` executes this file, in a process of its own: Locust patches the interpreter, and grpc has to
be told of gevent before the first channel. Without a job it defines nothing. A standalone job has no shape: Locust's own
page or options say how many users there are.
"""

from __future__ import annotations

import os
import time
from typing import Any

import gevent
import gevent.event
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import Runner, WorkerRunner

from loadtest import users_grpc, users_http
from loadtest.job import ENVIRONMENT, WORKER, Job, from_environment, replace
from loadtest.session import Session
from loadtest.users import LoadUser

_FLUSH = 0.25  # seconds of requests a killed generator loses at most
_PROGRESS = 0.5


class _Attendant:
    """What runs beside the users of one process: journal flushes, progress, and the end when the parent is gone."""

    def __init__(self, runner: Runner, session: Session) -> None:
        self._runner = runner
        self._session = session
        self._leads = not isinstance(runner, WorkerRunner)
        self._parent = os.getppid()

    def run(self) -> None:
        """Forever: flush often, tell the progress now and then."""
        told = 0.0
        while True:
            gevent.sleep(_FLUSH)
            self._session.journal.flush()
            if time.monotonic() - told >= _PROGRESS:
                told = time.monotonic()
                self.tell()
            if os.getppid() != self._parent:
                self._runner.quit()

    def tell(self, **_: Any) -> None:
        """Write this process's progress; the leading one's holds the statistics of all."""
        session = self._session
        session.journal.flush()
        if not session.job.work.is_dir():  # the run is written; only Locust's page is still open
            return
        journal = session.journal
        count = {"written": journal.written, "dropped": journal.dropped}
        if not self._leads:
            replace(session.job.work / f"worker-{session.worker}.json", count)
            return
        runner = self._runner
        entries = [
            {
                "protocol": entry.method,
                "arm": entry.name,
                "requests": entry.num_requests,
                "failures": entry.num_failures,
                "rps": entry.current_rps,
                "p50_ms": entry.get_response_time_percentile(0.5),
                "p95_ms": entry.get_response_time_percentile(0.95),
            }
            for entry in runner.stats.entries.values()
        ]
        replace(
            session.job.progress_file,
            {"state": runner.state, "users": runner.user_count, "entries": entries, **count},
        )


def _session(job: Job) -> Session:
    """This process's share of the job."""
    # by itself Locust may run in many containers: nobody numbers their workers, and they must not draw alike
    number = int.from_bytes(os.urandom(4), "big") if job.standalone else int(os.environ.get(WORKER, "0"))
    return Session(job, number)


def _attend(session: Session, environment: Environment, runner: Runner) -> None:
    """Give every user class and the shape the session, and put the attendant beside them."""
    for user_class in environment.user_classes:
        if issubclass(user_class, LoadUser):
            user_class.session = session
    if isinstance(environment.shape_class, PlannedShape):
        environment.shape_class.session = session
    listen = environment.events
    if session.job.standalone:
        listen.test_start.add_listener(lambda **_: session.open_window())  # type: ignore[no-untyped-call]
        return
    attendant = _Attendant(runner, session)
    gevent.spawn(attendant.run)
    if not isinstance(runner, WorkerRunner):
        listen.test_start.add_listener(lambda **_: session.open_window())  # type: ignore[no-untyped-call]
    listen.test_stop.add_listener(attendant.tell)  # type: ignore[no-untyped-call]
    listen.quitting.add_listener(attendant.tell)  # type: ignore[no-untyped-call]


class PlannedShape(LoadTestShape):
    """The profile's plan as Locust's load shape; Locust looks at it once a second, so the users mind the end themselves."""

    abstract = ENVIRONMENT not in os.environ
    session: Session

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now and how many may start a second; None when the run is over."""
        plan = self.session.plan
        window = self.session.window or self.session.job.load_window()
        if window is None:
            return plan.steps[0].users, plan.spawn_rate
        elapsed = (time.perf_counter_ns() + window.offset_ns - window.warmup_start_ns) / 1e9
        users = plan.users_at(elapsed)
        return None if users is None else (users, plan.spawn_rate)


_job = from_environment(os.environ)
if _job is not None:
    init_gevent()
    # before Locust makes its runner: a worker says it is ready when it connects, and while it still prepared payloads it would
    # miss heartbeats and be given no users, or begin with them when the window is over
    _prepared = _session(_job)
    _shares = _job.profile.protocols
    events.init.add_listener(  # type: ignore[no-untyped-call]
        lambda environment, runner, **_: _attend(_prepared, environment, runner)
    )
    if "tfs-rest" in _shares:

        class RestUser(users_http.RestUser):
            """REST users in the mix's share."""

            abstract = False
            weight = _shares["tfs-rest"]

    if "tfs-grpc" in _shares:

        class GrpcUser(users_grpc.GrpcUser):
            """gRPC users in the mix's share."""

            abstract = False
            weight = _shares["tfs-grpc"]
