"""The HTTP front end: uvicorn's httptools protocol, with a fast way for inference requests.

A request under /v1/ (TF Serving's REST API) becomes an InferenceCycle; any other goes to uvicorn's own code and so to
FastAPI. This class owns one connection: limits of head and body, order of pipelined requests, early refusals, time limits.
uvicorn keeps TLS, signals, the connection list and the graceful stop.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.dataplane import DataPlane
from gateway.servers.http_answer import error_body, head
from gateway.servers.http_cycle import InferenceCycle
from gateway.servers.http_front import Frontend
from gateway.servers.http_limits import HttpSettings, declared_length, host_problem
from gateway.servers.http_target import Target

__all__ = ["HttpSettings", "InferenceProtocol", "make_protocol_class"]

_LINGER_S = 2.0
_NOWHERE = Target("")


def make_protocol_class(plane: DataPlane, settings: HttpSettings) -> type[InferenceProtocol]:
    """The class to give to uvicorn as `http=`; its `frontend` is shared by every connection (call frontend.close() at the end)."""
    return type("BoundInferenceProtocol", (InferenceProtocol,), {"frontend": Frontend(plane, settings)})


class InferenceProtocol(HttpToolsProtocol):
    """One client connection."""

    frontend: ClassVar[Frontend]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.current: InferenceCycle | None = None  # the inference request whose turn it is
        self.partial = False  # a message has begun and not ended
        self.in_head = False
        self.feed_size = 0
        self.idle_bytes = 0  # bytes since the last progress (a head's end, a piece of body); -1: progress in this feed
        self.partial_since = 0.0
        self.idle_since = 0.0
        self.stalled_since = 0.0
        self.discarding = False  # what still comes is not read any more
        self.ended = False  # the last answer is written
        self.held = False  # the next request in line waits for the client to read
        self.pumping = False
        self.ws_protocol_class = None

    # The event loop's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the connection's times."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self.frontend.connections.add(self)
        self.frontend.clock.wake(self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: what it waited for is recorded as such, what it had queued is dropped."""
        self.frontend.connections.discard(self)
        self.pipeline.clear()
        super().connection_lost(exc)
        if self.current is not None:
            self.current.gone()
            self.current = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the limits."""
        if self.discarding:
            return
        self.idle_since = 0.0
        self.feed_size = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._no_upgrade()
            return
        except httptools.HttpParserError:
            self._bad_request()
            return
        if self.partial:
            self._partial(len(data))
        elif self.partial_since:
            self.partial_since = 0.0

    def pause_writing(self) -> None:
        """The client does not read: no further answer is begun."""
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read on."""
        self.stalled_since = 0.0
        super().resume_writing()
        if self.held:
            self.held = False
            self._pump()

    # The parser's side

    def on_message_begin(self) -> None:
        """A new request; uvicorn's scope is made only for what uvicorn serves."""
        self.url = b""
        self.headers = []
        self.partial = True
        self.partial_since = 0.0
        self.in_head = True
        self.idle_bytes = -1

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, its name in lower case."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose the way: inference, refusal, or uvicorn."""
        self.in_head = False
        self.idle_bytes = -1
        fields = self.headers
        headers = dict(fields)
        settings = self.frontend.settings
        version = self.parser.get_http_version()
        target = self.frontend.target(self.url)
        problem = host_problem(fields, version) if len(headers) != len(fields) or b"host" not in headers else ""
        split = self.partial_since != 0.0  # a head that came in one small piece is no big head
        too_big = (split or self.feed_size > settings.header_limit) and self._head_size() > settings.header_limit
        length = declared_length(headers) if b"content-length" in headers else 0
        too_long = length > settings.body_limit
        if target is None and not (problem or too_big or too_long or self.ended or self.transport.is_closing()):
            self._to_uvicorn(headers)
            return
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        cycle = InferenceCycle(self, target or _NOWHERE, self.parser.get_method(), headers, keep_alive)
        if problem:
            cycle.refuse_early(400, "invalid_argument", problem)
        elif too_big:
            cycle.refuse_early(431, "too_large", f"more than {settings.header_limit} bytes of headers")
        elif too_long:
            cycle.refuse_early(413, "too_large", f"a body of {length} bytes; the limit is {settings.body_limit} bytes")
        self._take(cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body of the latest request."""
        self.idle_bytes = -1
        cycle: Any = self.cycle
        if type(cycle) is InferenceCycle:
            cycle.receive(body)
        elif len(cycle.body) + len(body) > self.frontend.settings.body_limit:
            self._cut("the body is over the limit")
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The latest request is complete."""
        self.partial = False
        cycle: Any = self.cycle
        if type(cycle) is InferenceCycle:
            cycle.received()
        else:
            super().on_message_complete()

    # Turns

    def on_response_complete(self) -> None:
        """The request whose turn it was has its answer: the next one's turn, or rest."""
        self.server_state.total_requests += 1
        self.current = None
        if self.ended or self.transport.is_closing():
            return
        if not self.pipeline:
            self.flow.resume_reading()
            if not self.partial:
                self.idle_since = self.loop.time()
        elif not self.pumping:
            self._pump()

    def end(self, linger: bool) -> None:
        """Close after the last answer. With linger (the client may still be sending) its bytes are read away for a moment:

        a close with unread bytes resets the connection, and the client would lose the answer.
        """
        self.ended = True
        if not (linger or self.discarding):
            self.transport.close()
            return
        self.discarding = True
        self.pipeline.clear()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def write_answer(self, status: int, body: bytes, keep_alive: bool, bodiless: bool = False) -> None:
        """Write a JSON answer that belongs to no call."""
        date = self.frontend.date(self.server_state.default_headers)
        lines = head(status, date, b"content-type: application/json\r\n", len(body), keep_alive)
        self.transport.write(lines if bodiless else lines + body)

    def check_time(self, now: float) -> None:
        """End a connection that rests, sends or reads too long; called by the slow clock. now: the loop's time."""
        limit = self.frontend.settings.timeout_s
        if self.stalled_since and now - self.stalled_since > limit:
            self.transport.abort()
        elif self.idle_since and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()
        elif self.partial_since and now - self.partial_since > limit and not self._busy():
            self._error(408, f"the request did not arrive within {limit:g} s")

    def _take(self, cycle: InferenceCycle) -> None:
        earlier: Any = self.cycle
        self.cycle = cycle  # type: ignore[assignment]
        if self.ended or self.transport.is_closing():
            cycle.response_complete = True  # nobody would get the answer
        elif earlier is None or earlier.response_complete:
            self.current = cycle
            cycle.activate()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _to_uvicorn(self, headers: dict[bytes, bytes]) -> None:
        url, fields = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(fields)
        self.expect_100_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        super().on_headers_complete()

    def _pump(self) -> None:
        """Start waiting requests in order, until one needs time; a loop, as refusals are answered at once."""
        self.pumping = True
        while self.pipeline and not self.ended and not self.transport.is_closing():
            if self.flow.write_paused:
                self.held = True
                break
            cycle: Any
            cycle, app = self.pipeline.pop()
            if not self.pipeline:
                self.flow.resume_reading()
            if type(cycle) is InferenceCycle:
                self.current = cycle
                cycle.activate()
                if cycle.response_complete:
                    continue
            else:
                self._start_asgi_task(cycle, app)
            break
        self.pumping = False

    def _busy(self) -> bool:
        """Is a complete request waiting for its answer?"""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete and (bool(self.pipeline) or not cycle.more_body)

    # Refusals

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _partial(self, size: int) -> None:
        """The bytes did not complete a message: limit what neither ends a head nor brings body, and how long that lasts."""
        if self.idle_bytes < 0:
            self.idle_bytes = 0
            self.partial_since = self.loop.time()
            return
        self.idle_bytes += size
        if self.idle_bytes > self.frontend.settings.header_limit:
            self._error(431, f"more than {self.frontend.settings.header_limit} bytes of headers")

    def _bad_request(self) -> None:
        """What came is no HTTP: answers under way still go out, then the connection ends."""
        self._error(400, "Invalid HTTP request received.")

    def _error(self, status: int, message: str) -> None:
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self.write_answer(status, error_body(message), False)
            self.end(linger=True)
        elif type(cycle) is InferenceCycle and cycle.more_body:
            cycle.refuse_early(status, "too_large" if status == 431 else "invalid_argument", message)
            self.discarding = True
        elif cycle.more_body:
            self._cut(message)
        else:
            cycle.keep_alive = False
            self.discarding = True

    def _cut(self, message: str) -> None:
        """End a request that uvicorn serves; an answer that has begun stays half."""
        cycle: Any = self.cycle
        if not cycle.response_started:
            self.write_answer(413, error_body(message), False)
            cycle.disconnected = True
        self.end(linger=True)

    def _no_upgrade(self) -> None:
        """No protocol is upgraded to: the request that asked is answered over HTTP/1.1, then the connection ends."""
        self.partial = False
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            self.discarding = True
        else:
            self.end(linger=True)
