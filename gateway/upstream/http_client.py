"""HTTP/1.1 to an arm: one write a request, the answer by callback, no task on the way.

Here live the request's head for each kind of server and the parsing of answers. Every failure gets its own name
(upstream_refused, upstream_reset, upstream_invalid); nothing is retried; what an answer's status means is the front end's.
"""

from __future__ import annotations

import asyncio
import select
from urllib.parse import quote

import httptools

from gateway.clock import monotonic_ns
from gateway.upstream.pool import Pool, Receiver

_HEAD_LIMIT = 64 * 1024
_HEADS_KEPT = 64
REPLY_LIMIT = 256 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One connection: idle, or with exactly one request under way. Bytes nobody asked for end it."""

    def __init__(self, pool: Pool, reply_limit: int, drop_errors: bool) -> None:
        self.rested_ns = 0
        self._pool = pool
        self._limit = reply_limit
        self._drop_errors = drop_errors
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._poll: select.poll | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._reset()

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | list[bytes] = b""
        self._size = 0
        self._head_size = 0
        self._status = 0
        self._complete = False
        self._keep = False
        self._surplus = False

    # What the pool asks for

    def send(self, data: bytes, receiver: Receiver) -> None:
        """Write a request, head and body in one piece."""
        self._receiver = receiver
        receiver.connection = self
        self._transport.write(data)

    def alive(self) -> bool:
        """Does the kernel know of nothing to read, neither bytes nor the end, on this idle connection?"""
        return not self._transport.is_closing() and (self._poll is None or not self._poll.poll(0))

    def close(self) -> None:
        """End the connection once what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once; a receiver hears upstream_reset."""
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the pool."""
        self._transport = transport  # type: ignore[assignment]
        socket = transport.get_extra_info("socket")
        if socket is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(socket.fileno(), select.POLLIN | getattr(select, "POLLRDHUP", 0))
        self._pool.ready(self, monotonic_ns())

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a complete answer goes to the receiver once the parser has let go."""
        if self._receiver is None:
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._fail(f"an answer that is no HTTP/1.1: {error}")
                return
            self._surplus = True
        if self._size > self._limit:
            self._fail(f"an answer of more than {self._limit} bytes")
        elif self._complete:
            self._finish()
        elif self._status == 0:
            self._head_size += len(data)
            if self._head_size > _HEAD_LIMIT:
                self._fail(f"an answer with more than {_HEAD_LIMIT} bytes of headers")

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool; a request under way ends as upstream_reset, unless its answer was to last until the close."""
        self._poll = None
        receiver = self._receiver
        if receiver is not None and not error and self._until_close():
            self._keep = False
            self._receiver = None
            self._pool.lost(self)
            receiver.answered(self._status, self._headers, self._whole(), monotonic_ns())
            return
        self._receiver = None
        self._pool.lost(self)
        if receiver is not None:
            half = "after half an answer" if self._status else "before an answer"
            reason = f": {error}" if error else ""
            receiver.failed("upstream_reset", f"{self._pool.address} ended the connection {half}{reason}")

    # What the parser calls

    def on_message_begin(self) -> None:
        """A second answer to one request is for nobody."""
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; names in lower case."""
        if not self._complete:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Take the status."""
        if not self._complete:
            self._status = self._parser.get_status_code()

    def on_body(self, chunk: bytes) -> None:
        """Keep a part of the body; one part is the usual case."""
        if self._complete:
            return
        self._size += len(chunk)
        if not self._body:
            self._body = chunk
        elif self._size <= self._limit:
            if type(self._body) is bytes:
                self._body = [self._body]
            self._body.append(chunk)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        """An interim answer (1xx) is forgotten; the final one is kept for `data_received`."""
        if self._complete:
            return
        if 100 <= self._status < 200 and self._status != 101:
            self._headers = {}
            self._status = 0
            return
        self._keep = self._parser.should_keep_alive()
        self._complete = True

    # Ends

    def _whole(self) -> bytes:
        return self._body if type(self._body) is bytes else b"".join(self._body)  # type: ignore[arg-type]

    def _until_close(self) -> bool:
        """Has a whole head come that gives the body no length, so that the close is its end (RFC 9112, 6.3)?"""
        return self._status >= 200 and not {b"content-length", b"transfer-encoding"} & self._headers.keys()

    def _finish(self) -> None:
        receiver = self._receiver
        assert receiver is not None
        now = monotonic_ns()
        status, headers, body = self._status, self._headers, self._whole()
        keep = self._keep and not self._surplus and not (self._drop_errors and status >= 400)
        self._receiver = None
        self._reset()
        if keep:
            self._pool.ready(self, now)
        else:
            self._transport.abort()
        receiver.answered(status, headers, body, now)

    def _fail(self, what: str) -> None:
        receiver = self._receiver
        self._receiver = None
        self._transport.abort()
        if receiver is not None:
            receiver.failed("upstream_invalid", f"{self._pool.address} sent {what}")


class HttpArm:
    """An arm's way over HTTP: heads of its requests, and its pool."""

    def __init__(self, address: str, kind: str, model: str, version: str | None, pool: Pool) -> None:
        self.address = address
        self.kind = kind
        self.model = model
        self.version = version
        self._pool = pool
        self._heads: dict[tuple[str, str], bytes] = {}
        self._authorization = b""

    @classmethod
    def create(
        cls,
        address: str,
        kind: str,
        model: str,
        version: str | None,
        *,
        pool_size: int,
        loop: asyncio.AbstractEventLoop,
        authorization: str = "",
        reply_limit: int = REPLY_LIMIT,
    ) -> HttpArm:
        """An arm at "host:port"; kind is torchserve or tensorflow_serving, model and version the names that server knows.

        authorization: an Authorization header's value, e.g. "Bearer <key>". No connection is opened before the first request.
        """
        host, _, port = address.rpartition(":")
        drop_errors = kind == "torchserve"  # it closes after every answer >= 400
        pool = Pool(
            host.strip("[]"), int(port), pool_size, loop, lambda owner: Connection(owner, reply_limit, drop_errors)
        )
        arm = cls(address, kind, model, version, pool)
        if authorization:
            arm._authorization = b"authorization: %b\r\n" % authorization.encode("ascii")
        return arm

    def head(self, version: str, form: str) -> bytes:
        """Request line and the headers that are the same for every request of a version ("" is the server's choice).

        form is the arm's format: with "tfs-json" a TorchServe arm's own handler takes the JSON itself, else ours is told what
        comes (x-abgate-format) and gets it as opaque bytes.
        """
        known = self._heads.get((version, form))
        if known is not None:
            return known
        name = quote(self.model, safe="")
        kind = b"application/json"
        extra = self._authorization
        if self.kind == "torchserve":
            path = f"/predictions/{name}" + (f"/{quote(version, safe='')}" if version else "")
            if form != "tfs-json":
                kind = b"application/octet-stream"
                extra += b"x-abgate-format: tfs-json\r\n"
        else:
            path = f"/v1/models/{name}" + (f"/versions/{quote(version, safe='')}" if version else "") + ":predict"
        made = b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: %b\r\n%b" % (
            path.encode("ascii"),
            self.address.encode("ascii"),
            kind,
            extra,
        )
        if len(self._heads) < _HEADS_KEPT:
            self._heads[version, form] = made
        return made

    def send(self, data: bytes, receiver: Receiver, now_ns: int) -> None:
        """Send a whole request; the receiver gets `answered` or `failed`, once, later."""
        self._pool.send(data, receiver, now_ns)

    def cancel(self, receiver: Receiver) -> bool:
        """Take back a request of which nothing has been written; False when it is too late for that."""
        return self._pool.cancel(receiver)

    def close(self) -> None:
        """End every connection."""
        self._pool.close()
