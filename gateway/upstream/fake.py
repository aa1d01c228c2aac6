"""A server that does as it is told: the upstream double, shipped so that tests need no patching.

It reads HTTP/1.1 requests (Content-Length or chunked), keeps every one it saw, and lets a behaviour answer: a whole reply, half
of one, garbage, a reset, nothing. It judges nothing and knows no models. Use: `async with FakeServer() as server`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

_READY = b'{"predictions":[[0.5]]}'


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """One request as it arrived; header names in lower case. connection counts the server's connections from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass(slots=True)
class Exchange:
    """What a behaviour may do with one request."""

    request: FakeRequest
    writer: asyncio.StreamWriter
    done: bool = field(default=False)

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """End the connection in good order after what was written."""
        self.done = True

    def reset(self) -> None:
        """End the connection with a reset."""
        self.done = True
        raw = self.writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


def response(status: int = 200, body: bytes = _READY, **headers: str) -> bytes:
    """The bytes of a reply; keyword `content_type="x"` is the header content-type. Content-Length is added."""
    lines = [f"HTTP/1.1 {status} Some"]
    given = {"content_type": "application/json", **headers, "content_length": str(len(body))}
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reply(status: int = 200, body: bytes = _READY, *, close: bool = False, **headers: str) -> Behaviour:
    """Answer with a whole reply; close also ends the connection (and says so)."""
    if close:
        headers["connection"] = "close"

    async def behave(exchange: Exchange) -> None:
        await exchange.write(response(status, body, **headers))
        if close:
            exchange.close()

    return behave


def raw(data: bytes, *, close: bool = False) -> Behaviour:
    """Answer with bytes as they are: half a reply, garbage, two replies."""

    async def behave(exchange: Exchange) -> None:
        if data:
            await exchange.write(data)
        if close:
            exchange.close()

    return behave


def reset() -> Behaviour:
    """Reset the connection instead of answering."""

    async def behave(exchange: Exchange) -> None:
        exchange.reset()

    return behave


def held(gate: asyncio.Event, then: Behaviour | None = None) -> Behaviour:
    """Answer once the gate is open; never, if it never opens."""

    async def behave(exchange: Exchange) -> None:
        await gate.wait()
        await (then or reply())(exchange)

    return behave


class FakeServer:
    """The server. `behaviour` answers, unless `script` holds one for the next request."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or reply()
        self.script: deque[Behaviour] = deque()
        self.requests: list[FakeRequest] = []
        self.connections = 0
        self.open = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """host:port."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def seen(self, count: int) -> list[FakeRequest]:
        """Wait until that many requests have arrived; they are in `requests`."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.connections
        self.connections += 1
        self.open += 1
        try:
            while True:
                request = await read_request(reader, number)
                exchange = Exchange(request, writer)
                async with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                await (self.script.popleft() if self.script else self.behaviour)(exchange)
                if exchange.done:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()


async def read_request(reader: asyncio.StreamReader, connection: int) -> FakeRequest:
    """Read one request. Raises asyncio.IncompleteReadError at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return FakeRequest(method, path, headers, body, connection)
