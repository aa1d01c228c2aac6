"""The HTTP front end: uvicorn's httptools protocol, with a fast way for inference requests.

A request under /v1/ (TF Serving's REST API) becomes an InferenceCycle; any other goes to uvicorn's own code and so to
FastAPI. This class decides the way of each request and keeps the order of pipelined ones; its limits are http_connection's.
uvicorn keeps TLS, signals, the connection list and the graceful stop.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.dataplane import DataPlane
from gateway.servers.http_connection import LimitedProtocol
from gateway.servers.http_cycle import InferenceCycle
from gateway.servers.http_front import Frontend
from gateway.servers.http_limits import HttpSettings, host_problem
from gateway.servers.http_target import Target

__all__ = ["HttpSettings", "InferenceProtocol", "make_protocol_class"]

_NOWHERE = Target("")
_CLOSER_LOOK = frozenset({b"connection", b"expect"})


def make_protocol_class(plane: DataPlane, settings: HttpSettings) -> type[InferenceProtocol]:
    """The class to give to uvicorn as `http=`; its `frontend` is shared by every connection (call frontend.close() at the end)."""
    return type("BoundInferenceProtocol", (InferenceProtocol,), {"frontend": Frontend(plane, settings)})


def _too_long(length: int, limit: int) -> str:
    return f"a body of {length} bytes is over the limit of {limit} bytes"


class InferenceProtocol(LimitedProtocol):
    """One client connection: the way of its requests."""

    # The event loop's side

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
        except httptools.HttpParserCallbackError as error:
            self.frontend.log.error("serving a request failed", exc_info=error.__context__ or error)
            self._error(500, "the gateway failed to serve the request")
            return
        except httptools.HttpParserError:
            self._error(400, "Invalid HTTP request received.")
            return
        if not self.completed:
            self._partial(len(data))

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
            if cycle.active and not cycle.parts and len(body) <= self.frontend.settings.body_limit:
                cycle.size, cycle.body, cycle.more_body = len(body), body, False
                if not cycle.response_complete:
                    cycle.run()
            else:
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
            self.flow.resume_reading()
        elif not self.pumping:
            self._pump()

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
        HttpToolsProtocol.on_message_begin(self)
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
