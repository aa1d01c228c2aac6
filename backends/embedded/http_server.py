"""A small HTTP/1.1 server: one thread per connection, httptools for the parsing, the handler called in place.

Lives here: sockets, framing, keep-alive, limits, drain. Must not live here: paths and bodies' meaning.
A thread per connection because the handler blocks in TensorFlow with the GIL released: a hop to an executor and back
costs more than the request, and a batch can only grow as large as the number of threads that wait for it.
"""

from __future__ import annotations

import contextlib
import http
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

MAX_HEAD = 64 * 1024
MAX_BODY = 1 << 30
MAX_CONNECTIONS = 4096
IDLE_SECONDS = 600
RECEIVE = 64 * 1024

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Request:
    """One request; header names are lower-case, `target` is the path with its query."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    content_type: str


Handler = Callable[[Request], Response]


class _Refused(Exception):
    """A message that is over a limit; the connection ends after the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpServer:
    """Has its address from construction on, so that a used port is refused early; listens and answers from `start` on.

    Until then a connection is refused, as by a server that is not up: it must not wait for seconds in a backlog.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
        except OSError:
            self._listener.close()
            raise
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._server = b""
        self._handler: Handler | None = None
        self.draining = False
        self.port: int = self._listener.getsockname()[1]

    def start(self, handler: Handler, server: str) -> None:
        """Accept connections in a background thread; `server` is the value of the `server` header of every answer."""
        self._handler, self._server = handler, server.encode()
        self._listener.listen(1024)
        threading.Thread(target=self._accept, name="http-accept", daemon=True).start()

    def stop(self, seconds: float) -> bool:
        """Stop accepting, let the requests in flight end, close; True when all of them ended within `seconds`."""
        self.draining = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                left = list(self._connections)
            if not left:
                return True
            if time.monotonic() >= deadline:
                return False
            for connection in left:
                connection.end_if_idle()
            time.sleep(0.01)

    def answer_head(self, response: Response, keep_alive: bool) -> bytes:
        """Return status line and headers of an answer."""
        reason = _REASONS.get(response.status, b"Unknown")
        connection = b"" if keep_alive else b"connection: close\r\n"
        return b"HTTP/1.1 %d %b\r\nserver: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            response.status,
            reason,
            self._server,
            response.content_type.encode(),
            len(response.body),
            connection,
        )

    def handle(self, request: Request) -> Response:
        """Call the handler."""
        assert self._handler is not None
        return self._handler(request)

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that ended."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while not self.draining:
            try:
                stream, _ = self._listener.accept()
            except OSError as error:
                if self.draining:
                    return
                logger.warning("accept failed: %s", error)  # out of file descriptors: wait for some to come back
                time.sleep(0.05)
                continue
            with self._lock:
                full = len(self._connections) >= MAX_CONNECTIONS
                if not full:
                    connection = _Connection(self, stream)
                    self._connections.add(connection)
            if full:
                stream.close()
                continue
            threading.Thread(target=connection.run, name="http", daemon=True).start()


class _Connection:
    """One client's connection; parsed messages queue in `_ready` and are answered in order (pipelining)."""

    def __init__(self, server: HttpServer, stream: socket.socket) -> None:
        self._server = server
        self._stream = stream
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[Request] = []
        self._request = Request()
        self._chunks: list[bytes] = []
        self._size = 0
        self._head = 0
        self._in_head = True
        self._busy = False

    def run(self) -> None:
        """Serve until either side ends the connection."""
        try:
            self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # In the kernel, not settimeout(): that would cost a poll() before every receive.
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", IDLE_SECONDS, 0))
            self._serve()
        except (OSError, _Refused):
            pass  # the client went away, or was told to
        finally:
            self._stream.close()
            self._server.forget(self)

    def end_if_idle(self) -> None:
        """Wake the thread out of its receive when no message has begun (called while draining)."""
        if not self._busy:
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RD)

    def _serve(self) -> None:
        receive, feed = self._stream.recv_into, self._parser.feed_data
        buffer = memoryview(bytearray(RECEIVE))
        while received := receive(buffer):
            self._busy = True
            if self._in_head:
                self._head += received
            try:
                feed(buffer[:received])
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
                status = cause.status if isinstance(cause, _Refused) else 400
                if not self._answer_ready():  # what follows a request that closes the connection is not read
                    return
                self._send(Response(status, b"", "text/plain"), False)
                raise _Refused(status) from None
            if self._in_head and self._head > MAX_HEAD:
                self._send(Response(431, b"", "text/plain"), False)
                raise _Refused(431)
            if not self._answer_ready():
                return
            self._busy = self._head > 0 or not self._in_head

    def _answer_ready(self) -> bool:
        ready, self._ready = self._ready, []
        for request in ready:
            response = self._server.handle(request)
            keep_alive = request.keep_alive and not self._server.draining
            self._send(response, keep_alive, request.method == "HEAD")
            if not keep_alive:
                return False
        return True

    def _send(self, response: Response, keep_alive: bool, head_only: bool = False) -> None:
        head = self._server.answer_head(response, keep_alive)
        self._stream.sendall(head if head_only else head + response.body)

    # What httptools calls while it is fed:

    def on_message_begin(self) -> None:
        self._request = Request()
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = False
        headers = self._request.headers
        if headers.get("content-length", "0").isdigit() and int(headers.get("content-length", "0")) > MAX_BODY:
            raise _Refused(413)
        if headers.get("expect", "").lower() == "100-continue":
            self._stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            raise _Refused(413)
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._ready.append(request)
        self._in_head = True
        self._head = 0


_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus} | {499: b"Client Closed Request"}
