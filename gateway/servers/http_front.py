"""What every HTTP connection of one gateway shares: the data plane, settings, prepared guards and header lines.

Caches here are bounded and follow the data plane's routes: a route that was swapped out is prepared anew on its next request.
Owns one thread for big bodies (started on the first) and the slow clock; `close` ends both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import orjson

from gateway.dataplane import Call, DataPlane, Route
from gateway.errors import RequestError
from gateway.protocol.json_strict import parse_lenient
from gateway.protocol.signature import Guard
from gateway.servers.http_limits import HttpSettings, SlowClock
from gateway.servers.http_target import Target, parse_target

if TYPE_CHECKING:
    from gateway.servers.http import InferenceProtocol

_TARGETS_KEPT = 1024
_URL_KEPT = 512
_LABELS_KEPT = 64
_THREADS = 1
_ALWAYS_FORWARDED = (b"traceparent", b"tracestate")


class RouteView:
    """A route as the HTTP side needs it: its guard and the header lines of its answers."""

    __slots__ = ("_experiment", "_labels", "check", "route", "unit_key")

    def __init__(self, route: Route, rows_limit: int) -> None:
        self.route = route
        self.unit_key = route.unit_key
        self.check = Guard(route.signature, route.guard, rows_limit).check
        self._experiment = b""
        if route.experiment is not None:
            self._experiment = b"x-abgate-experiment: %b\r\n" % route.experiment.id.encode("ascii", "replace")
        self._labels: dict[tuple[str, str], bytes] = {}

    def labels(self, call: Call) -> bytes:
        """The lines that name experiment, serving arm (once something was sent to it) and assignment."""
        arm = call.arm.name if call.arm is not None and call.sent_ns else ""
        key = (arm, call.assignment)
        known = self._labels.get(key)
        if known is None:
            known = self._experiment
            if arm:
                known += b"x-abgate-arm: %b\r\n" % arm.encode("ascii", "replace")
            known += b"x-abgate-assignment: %b\r\n" % call.assignment.encode("ascii")
            if len(self._labels) < _LABELS_KEPT:
                self._labels[key] = known
        return known


class Frontend:
    """Shared by all connections of one protocol class; everything runs on one event loop."""

    def __init__(self, plane: DataPlane, settings: HttpSettings) -> None:
        self.plane = plane
        self.settings = settings
        self.log = logging.getLogger("abgate.http")
        names = (*_ALWAYS_FORWARDED, *(name.lower().encode("ascii") for name in settings.forward_headers))
        self.forward_keys = frozenset(names) - {b"x-request-id"}
        self.clock = SlowClock(self._sweep)
        self.live = self.clock.live
        self.connections: set[InferenceProtocol] = set()
        self._targets: dict[bytes, Target | None] = {}
        self._views: dict[str, RouteView] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._date: tuple[object, bytes] = (None, b"")

    def target(self, url: bytes) -> Target | None:
        """The parsed target of a URL, None for what is not under /v1/."""
        if url in self._targets:
            return self._targets[url]
        target = parse_target(url)
        if len(url) <= _URL_KEPT:
            if len(self._targets) >= _TARGETS_KEPT:
                self._targets.clear()
            self._targets[url] = target
        return target

    def view(self, model: str) -> RouteView | None:
        """What was prepared for the model's route; None for an unknown model."""
        route = self.plane.routes.get(model)
        if route is None:
            return None
        view = self._views.get(model)
        if view is None or view.route is not route:
            view = self._views[model] = RouteView(route, self.settings.rows_limit)
        return view

    def forwarded(self, headers: dict[bytes, bytes]) -> bytes:
        """The lines of the client's headers that go on to the arm."""
        if self.forward_keys.isdisjoint(headers):
            return b""
        return b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in self.forward_keys if name in headers])

    def date(self, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """uvicorn's default header lines, as bytes; uvicorn makes a new list once a second."""
        if self._date[0] is not default_headers:
            lines = b"".join([b"%b: %b\r\n" % (name, value) for name, value in default_headers])
            self._date = (default_headers, lines)
        return self._date[1]

    def json_problem(self, body: bytes) -> RequestError | None:
        """The error of a body that is no JSON, None for one that is."""
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            try:
                parse_lenient(body)
            except RequestError as error:
                return error
        return None

    def in_thread(
        self,
        work: Callable[[], tuple[bytes, int]],
        done: Callable[[tuple[bytes, int] | Exception], None],
    ) -> None:
        """Do work in the thread; `done` gets its result, or what it raised, on the event loop."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="abgate-guard")
        loop = asyncio.get_running_loop()

        def finished(future: Future[tuple[bytes, int]]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            outcome = future.result() if error is None else error if isinstance(error, Exception) else RuntimeError()
            loop.call_soon_threadsafe(done, outcome)

        self._threads.submit(work).add_done_callback(finished)

    def close(self) -> None:
        """End the thread; nothing that is under way in it is answered any more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _sweep(self) -> bool:
        now = asyncio.get_running_loop().time()
        for connection in list(self.connections):
            connection.check_time(now)
        return bool(self.connections)
