"""One client connection's state and limits: times, sizes, early refusals, and how it ends.

The half of the HTTP class that says what is not allowed; `http` has the other half, the way of a request. Nothing here
knows what a request is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import ErrorKind
from gateway.servers.http_answer import error_body, head
from gateway.servers.http_cycle import InferenceCycle
from gateway.servers.http_front import Frontend

_LINGER_S = 2.0
_KINDS: dict[int, ErrorKind] = {431: "too_large", 500: "internal"}


def _collector(fields: list[tuple[bytes, bytes]]) -> Callable[[bytes, bytes], None]:
    """A parser's on_header: keeps names in lower case."""
    append = fields.append

    def on_header(name: bytes, value: bytes) -> None:
        append((name.lower(), value))

    return on_header


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, watched."""

    frontend: ClassVar[Frontend]
    _pump: Callable[[], None]  # starts waiting requests
    _hand_body: Callable[[], None]  # gives what has come of a body to its request

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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the connection's times."""
        super().connection_made(transport)
        self.frontend.connections.add(self)
        self.frontend.clock.wake(self.loop)

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
        cycle: Any = self.cycle
        if self.partial_since or not (cycle is None or cycle.response_complete):
            self.idle_since = 0.0
        elif not self.idle_since:
            self.idle_since = now
        if self.stalled_since and now - self.stalled_since > limit:
            self.transport.abort()
        elif self.idle_since and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()
        elif self.partial_since and now - self.partial_since > limit and not self._busy():
            self._error(408, f"the request did not arrive within {limit:g} s")

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

    def _error(self, status: int, message: str) -> None:
        """What came cannot be served: answers under way still go out, then this one, and the connection ends."""
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self.write_answer(status, error_body(message), False)
            self.end(linger=True)
        elif type(cycle) is InferenceCycle and cycle.more_body:
            cycle.refuse_early(status, _KINDS.get(status, "invalid_argument"), message)
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
