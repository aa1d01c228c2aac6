"""The HTTP front end: uvicorn's httptools protocol, with a fast way for inference requests.

A request under /v1/ (TF Serving's REST API) becomes an InferenceCycle; any other goes to uvicorn's own code and so to
FastAPI. This class owns one connection: limits of head and body, order of pipelined requests, early refusals, time limits.
uvicorn keeps TLS, signals, the connection list and the graceful stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.dataplane import DataPlane
from gateway.servers.http_answer import error_body, head
from gateway.servers.http_cycle import InferenceCycle
from gateway.servers.http_front import Frontend
from gateway.servers.http_limits import HttpSettings, host_problem
from gateway.servers.http_target import Target

__all__ = ["HttpSettings", "InferenceProtocol", "make_protocol_class"]

_LINGER_S = 2.0
_NOWHERE = Target("")
_CLOSER_LOOK = frozenset({b"connection", b"expect"})


def make_protocol_class(plane: DataPlane, settings: HttpSettings) -> type[InferenceProtocol]:
    """The class to give to uvicorn as `http=`; its `frontend` is shared by every connection (call frontend.close() at the end)."""
    return type("BoundInferenceProtocol", (InferenceProtocol,), {"frontend": Frontend(plane, settings)})


def _collector(fields: list[tuple[bytes, bytes]]) -> Callable[[bytes, bytes], None]:
    """A parser's on_header: keeps names in lower case."""
    append = fields.append

    def on_header(name: bytes, value: bytes) -> None:
        append((name.lower(), value))

    return on_header


def _too_long(length: int, limit: int) -> str:
    return f"a body of {length} bytes is over the limit of {limit} bytes"


class InferenceProtocol(HttpToolsProtocol):
    """One client connection."""

    frontend: ClassVar[Frontend]

    on_message_begin = None  # type: ignore[assignment]  # uvicorn's makes a scope; here only for what uvicorn serves

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Parser callbacks that only collect are methods of plain lists: no call into Python for them.
        self._urls: list[bytes] = []
        self._parts: list[bytes] = []
        self.on_url = self._urls.append  # type: ignore[method-assign, assignment]
        self.on_body = self._parts.append  # type: ignore[method-assign, assignment]
        self._fields: list[tuple[bytes, bytes]] = []
        self.on_header = _collector(self._fields)  # type: ignore[method-assign, assignment]
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self.current: InferenceCycle | None = None  # the inference request whose turn it is
        self.in_head = True
        self.completed = False  # a message ended in this feed
        self.progress = False  # a head ended in this feed
        self.feed_size = 0
        self.body_bytes = 0  # of the request that uvicorn serves
        self.raw_left = 0  # bytes still to come of a body the parser does not read: that of a request to upgrade
        self.idle_bytes = 0  # bytes since the last progress (a head's end, a piece of body)
        self.partial_since = 0.0
        self.idle_since = 0.0
        self.stalled_since = 0.0
        self.discarding = False  # what still comes is not read any more
        self.ended = False  # the last answer is written
        self.held = False  # the next request in line waits for the client to read
        self.pumping = False

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
        if self.raw_left:
            self._raw_body(data)
            return
        self.feed_size = len(data)
        self.completed = self.progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._no_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._bad_request()
            return
        if not self.completed:
            self._partial(len(data))

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

    def on_headers_complete(self) -> None:
        """Choose the way: inference, refusal, or uvicorn."""
        self.in_head = False
        self.progress = True
        fields, urls, parser, frontend = self._fields, self._urls, self.parser, self.frontend
        headers = dict(fields)
        target = frontend.targets.get(urls[0])
        if (
            target is None
            or len(urls) != 1
            or len(headers) != len(fields)
            or b"host" not in headers
            or not _CLOSER_LOOK.isdisjoint(headers)
            or self.feed_size > frontend.settings.header_limit
            or self.partial_since
            or self.ended
        ):
            self._special(headers)
            return
        urls.clear()
        fields.clear()
        cycle = InferenceCycle(self, target, parser.get_method(), headers, parser.should_keep_alive())
        length = headers.get(b"content-length")
        if length is not None and int(length) > frontend.settings.body_limit:
            cycle.refuse_early(413, "too_large", _too_long(int(length), frontend.settings.body_limit))
        earlier: Any = self.cycle
        if earlier is None or earlier.response_complete:
            self.cycle = cycle  # type: ignore[assignment]
            self.current = cycle
            cycle.active = True
            if cycle.refusal is not None:
                cycle.activate()
        else:
            self._queue(cycle)

    def on_message_complete(self) -> None:
        """The latest request is complete."""
        self.completed = True
        self.in_head = True
        if self.raw_left:
            return
        self.partial_since = 0.0
        parts = self._parts
        cycle: Any = self.cycle
        if type(cycle) is InferenceCycle:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if self._fields:
                self._fields.clear()  # trailers say nothing here
            cycle.received(body)
        else:
            self._hand_body()
            super().on_message_complete()

    def _special(self, headers: dict[bytes, bytes]) -> None:
        """A head that needs a closer look: is it legal, within the limits, uvicorn's?"""
        limits = self.frontend.settings
        fields = self._fields
        url = b"".join(self._urls)
        target = self.frontend.target(url)
        version = self.parser.get_http_version()
        length = int(headers.get(b"content-length", b"0"))
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        cycle = InferenceCycle(self, target or _NOWHERE, self.parser.get_method(), headers, keep_alive)
        size = len(url) + sum(len(name) + len(value) + 4 for name, value in fields)
        problem = host_problem(fields, version)
        if problem:
            cycle.refuse_early(400, "invalid_argument", problem)
        elif size > limits.header_limit:
            cycle.refuse_early(431, "too_large", f"more than {limits.header_limit} bytes of headers")
        elif length > limits.body_limit:
            cycle.refuse_early(413, "too_large", _too_long(length, limits.body_limit))
        elif target is None and not self.ended:
            self._to_uvicorn(url, headers)
            return
        elif self.parser.should_upgrade():
            self._read_past_upgrade(cycle, headers, length)
        self._urls.clear()
        fields.clear()
        self._queue(cycle)

    # Turns

    def on_response_complete(self) -> None:
        """The request whose turn it was has its answer: the next one's turn, or rest."""
        self.server_state.total_requests += 1
        self.current = None
        if self.ended:
            return
        if not self.pipeline:
            if self.flow.read_paused:
                self.flow.resume_reading()
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
        frontend = self.frontend
        if frontend.date_of is not self.server_state.default_headers:
            frontend.redate(self.server_state.default_headers)
        lines = head(status, frontend.date, b"content-type: application/json\r\n", len(body), keep_alive)
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

    def _queue(self, cycle: InferenceCycle) -> None:
        """The request's turn comes when every earlier one has its answer: perhaps now."""
        earlier: Any = self.cycle
        self.cycle = cycle  # type: ignore[assignment]
        if self.ended:
            cycle.response_complete = True  # nobody would get the answer
        elif earlier is None or earlier.response_complete:
            self.current = cycle
            cycle.activate()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _to_uvicorn(self, url: bytes, headers: dict[bytes, bytes]) -> None:
        super().on_message_begin()
        self.url = url
        self.headers.extend(self._fields)
        self._urls.clear()
        self._fields.clear()
        self.body_bytes = 0
        self.expect_100_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        super().on_headers_complete()

    def _hand_body(self) -> None:
        """Give what has come of a body to its request."""
        parts = self._parts
        cycle: Any = self.cycle
        limit = self.frontend.settings.body_limit
        if type(cycle) is InferenceCycle:
            cycle.receive(parts)
        else:
            self.body_bytes += sum(map(len, parts))
            if self.body_bytes > limit:
                self._cut(413, f"the body is over the limit of {limit} bytes")
            else:
                for part in parts:
                    super().on_body(part)
        parts.clear()

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

    def _partial(self, size: int) -> None:
        """The bytes completed no message: limit what neither ends a head nor brings body, and how long that lasts."""
        progress = self.progress or bool(self._parts)
        if self._parts:
            self._hand_body()
        if progress or not self.partial_since:
            self.partial_since = self.loop.time()
            self.idle_bytes = 0 if progress else size
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
            self._cut(status, message)
        else:
            cycle.keep_alive = False
            self.discarding = True

    def _cut(self, status: int, message: str) -> None:
        """End a request that uvicorn serves; an answer that has begun stays half."""
        cycle: Any = self.cycle
        if not cycle.response_started:
            self.write_answer(status, error_body(message), False)
            cycle.disconnected = True
            cycle.message_event.set()
        self.end(linger=True)

    # Upgrades (some clients offer h2c with every first request): none is made, the request is answered over HTTP/1.1

    def _read_past_upgrade(self, cycle: InferenceCycle, headers: dict[bytes, bytes], length: int) -> None:
        """The parser takes what follows an Upgrade for another protocol: the body is read here, by its declared length."""
        cycle.keep_alive = False
        if b"transfer-encoding" in headers:
            cycle.refuse_early(400, "invalid_argument", "a chunked body and an Upgrade in one request")
        else:
            self.raw_left = length

    def _no_upgrade(self, rest: bytes) -> None:
        cycle: Any = self.cycle
        if self.raw_left:
            self._raw_body(rest)
        elif cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            self.discarding = True
        elif not self.ended:
            self.end(linger=True)

    def _raw_body(self, data: bytes) -> None:
        piece = data[: self.raw_left]
        self.raw_left -= len(piece)
        self._parts.append(piece)
        if self.raw_left:
            self._hand_body()
            self.partial_since = self.loop.time()
            return
        self.discarding = True
        self.on_message_complete()
