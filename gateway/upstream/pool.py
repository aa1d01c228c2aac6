"""A pool of connections to one server: who sends next, on which connection, and when a new one is opened.

Rules: a request is written once and never again. A connection that has rested is asked by the kernel, before it is used,
whether its peer has closed it; nothing was written on it then, so taking another one is no retry. Requests that find no
connection wait in order; every connection that becomes free or is opened serves the first of them, and a refused
connect fails the first of them. What is said over a connection is http_client's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from gateway.clock import monotonic_ns
from gateway.errors import ErrorKind

_CONNECT_TIMEOUT_S = 5.0
_IDLE_NS = 30_000_000_000
_FRESH_NS = 5_000_000  # a connection used this short a time ago is not asked again: a busy one costs no system call
_SWEEP_S = 10.0
_CLOSING = "the gateway is closing its connections"


class Receiver(Protocol):
    """Gets the one outcome of one request. `connection` is None until the request has been written.

    The names of an answer's headers are as the server wrote them.
    """

    connection: Any

    def answered(self, status: int, headers: dict[bytes, bytes], body: bytes, now_ns: int) -> None: ...

    def failed(self, kind: ErrorKind, message: str) -> None: ...


class Pooled(Protocol):
    """A connection as the pool sees it; rested_ns is when it became free."""

    rested_ns: int

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> None: ...

    def alive(self) -> bool: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Pool:
    """Connections to host:port, at most `size` of them; must be used on one event loop."""

    def __init__(
        self,
        host: str,
        port: int,
        size: int,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[Pool], asyncio.Protocol],
    ) -> None:
        self.address = f"{host}:{port}"
        self._host = host
        self._port = port
        self._size = size
        self._loop = loop
        self._factory = factory
        self._free: list[Pooled] = []
        self._open: set[Pooled] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Receiver, bytes, bytes]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def send(self, head: bytes, body: bytes, receiver: Receiver, now_ns: int) -> None:
        """Write a request on a free connection, or let it wait for one; the receiver hears the outcome, never from in here."""
        free = self._free
        while free:
            connection = free.pop()
            if now_ns - connection.rested_ns < _FRESH_NS or connection.alive():
                connection.send(head, body, receiver)
                return
            connection.abort()
        if self._closed:
            self._loop.call_soon(receiver.failed, "upstream_refused", _CLOSING)
            return
        self._waiting.append((receiver, head, body))
        self._grow()

    def cancel(self, receiver: Receiver) -> bool:
        """Take a waiting request back; False when it is not waiting (any more)."""
        for entry in self._waiting:
            if entry[0] is receiver:
                self._waiting.remove(entry)
                return True
        return False

    def ready(self, connection: Pooled, now_ns: int) -> None:
        """A connection is open and has nothing under way."""
        if self._closed:
            connection.abort()
            return
        self._open.add(connection)
        if self._waiting:
            receiver, head, body = self._waiting.popleft()
            connection.send(head, body, receiver)
            return
        connection.rested_ns = now_ns
        self._free.append(connection)
        if self._sweeper is None and not self._closed:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def lost(self, connection: Pooled) -> None:
        """A connection has ended, for whatever reason."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        self._grow()

    def close(self) -> None:
        """End every connection, also those with work under way; what waits is told upstream_refused."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._opening:
            task.cancel()
        while self._waiting:
            self._waiting.popleft()[0].failed("upstream_refused", _CLOSING)
        for connection in list(self._open):
            connection.abort()

    def _grow(self) -> None:
        while len(self._opening) < len(self._waiting) and len(self._open) + len(self._opening) < self._size:
            task = self._loop.create_task(self._connect())
            self._opening.add(task)

    async def _connect(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        problem = ""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._loop.create_connection(lambda: self._factory(self), self._host, self._port)
        except TimeoutError:
            problem = f"{self.address} did not accept a connection within {_CONNECT_TIMEOUT_S:g} s"
        except OSError as error:
            problem = f"{self.address} refused the connection: {error.strerror or error}"
        finally:
            self._opening.discard(task)
        if problem and self._waiting:
            self._waiting.popleft()[0].failed("upstream_refused", problem)
        self._grow()

    def _sweep(self) -> None:
        """Close connections that nobody has used for a while; the list is in order of rest, oldest first."""
        now = monotonic_ns()
        old = [connection for connection in self._free if now - connection.rested_ns > _IDLE_NS]
        self._free = [connection for connection in self._free if now - connection.rested_ns <= _IDLE_NS]
        for connection in old:
            connection.close()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._free else None
