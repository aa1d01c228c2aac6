"""Requests over HTTP/1.1: a pool of keep-alive connections, one write a request, the answer by callback.

Heads and bodies are bytes made before the run; the parser's callbacks are methods of plain lists and dicts, so that an
answer costs one call into Python. Nothing is retried, no redirect followed: what a server does must show.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Any

import httptools

from loadtest.points.recorder import Recorder
from loadtest.points.spec import PointSpec
from loadtest.points.traffic import Traffic
from loadtest.targets import request_head, split_address, unit_line

_COPY_LIMIT = 64 * 1024  # a smaller body is copied behind its head: one system call


class _Connection(asyncio.Protocol):
    """Idle, or with exactly one request under way. Bytes nobody asked for end it."""

    def __init__(self, sender: HttpSender) -> None:
        self.slot = -1
        self.transport: Any = None
        self._sender = sender
        self._status = 0  # of the complete answer, 0 where there is none
        self._keep = False
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self.on_header = self._headers.__setitem__
        self.on_body = self._chunks.append
        self._parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Small requests leave at once."""
        self.transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_message_complete(self) -> None:
        """The parser: an answer is complete; an interim one (1xx) is forgotten."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
        else:
            self._status = status
            self._keep = self._parser.should_keep_alive()  # once the parser has let go it always answers no

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a complete answer is noted and the connection free again."""
        slot, keep = self.slot, True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._status or slot < 0:
                self._end(slot, "garbage")
                return
            keep = False  # an answer, and something behind it
        status = self._status
        if slot < 0:  # an answer to nothing
            self.transport.abort()
            return
        if not status:
            return
        now = monotonic_ns()
        self.slot = -1
        self._status = 0
        self._sender.answered(self, slot, now, status, keep and self._keep)

    def take(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """The answer's headers and pieces; valid until `clear`."""
        return self._headers, self._chunks

    def clear(self) -> None:
        """Forget the last answer."""
        self._headers.clear()
        self._chunks.clear()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side left, or we did; a request under way has failed."""
        self._end(self.slot, "reset")

    def _end(self, slot: int, error: str) -> None:
        self.slot = -1
        self.transport.abort()
        self._sender.lost(self, slot, error)


class HttpSender:
    """Sends payloads by slot; every slot that was sent is told to `ended` exactly once, never within `send` itself."""

    def __init__(self, spec: PointSpec, traffic: Traffic, recorder: Recorder, ended: Callable[[int], None]) -> None:
        """A sender that has no connection yet; made inside the running loop."""
        self._loop = asyncio.get_running_loop()
        self._recorder = recorder
        self._ended = ended
        self._host, self._port = split_address(spec.target.http, "http target")
        self._tls = ssl.create_default_context(cafile=spec.target.tls_ca) if spec.target.tls_ca else None
        self._torchserve = spec.target.kind == "torchserve"
        self._offset = time_ns() - monotonic_ns()
        self._name = traffic.name
        self._bodies = traffic.bodies
        self._units = traffic.units
        self._named = spec.named
        forced = f"x-abgate-arm: {spec.arm}\r\n" if spec.arm else ""
        forced += f"x-abgate-block: {spec.block}\r\n" if spec.block else ""
        heads = traffic.heads or [request_head(spec.target, spec.model, spec.timeout)] * len(traffic.bodies)
        lines = b"\r\n" + forced.encode("ascii") + unit_line(spec.unit_header)[2:]
        self._heads = [b"%b%d%b" % (head, len(body), lines) for head, body in zip(heads, traffic.bodies, strict=True)]
        self._idle: list[_Connection] = []
        self._flying: dict[int, _Connection | asyncio.Task[None]] = {}
        self._open: set[_Connection] = set()

    async def open(self, count: int) -> None:
        """Open so many connections before the run; those that fail are tried again by the requests themselves."""
        made = await asyncio.gather(*(self._connect() for _ in range(count)), return_exceptions=True)
        self._idle += [item for item in made if isinstance(item, _Connection)]

    async def _connect(self) -> _Connection:
        name = self._host if self._tls else None
        _, connection = await self._loop.create_connection(
            lambda: _Connection(self), self._host, self._port, ssl=self._tls, server_hostname=name
        )
        self._open.add(connection)
        return connection

    def send(self, slot: int) -> None:
        """Send the slot's payload, on an idle connection or on a new one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                self._write(connection, slot)
                return
        self._flying[slot] = self._loop.create_task(self._send_new(slot))

    async def _send_new(self, slot: int) -> None:
        try:
            connection = await self._connect()
        except ConnectionRefusedError:
            error = "refused"
        except ConnectionError:
            error = "reset"
        except TimeoutError:
            error = "timeout"
        except OSError as problem:
            error = f"os error: {problem.strerror or type(problem).__name__}"
        else:
            if connection.transport.is_closing():
                error = "reset"
            else:
                self._write(connection, slot)
                return
        self._fail(slot, error)

    def _write(self, connection: _Connection, slot: int) -> None:
        self._flying[slot] = connection
        connection.slot = slot
        payload = self._recorder.payload[slot]
        body = self._bodies[payload]
        unit = self._units[self._recorder.unit[slot]]
        told = f"{unit}\r\nx-request-id: {self._name}-{slot:x}\r\n"
        if self._torchserve:
            told += f"x-abgate-sent-ns: {monotonic_ns() + self._offset}\r\n"
        head = self._heads[payload] + told.encode("ascii") + b"\r\n"
        if len(body) < _COPY_LIMIT:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))

    def answered(self, connection: _Connection, slot: int, now: int, status: int, keep: bool) -> None:
        """A whole answer came at `now`; note it and free the connection."""
        del self._flying[slot]
        recorder = self._recorder
        recorder.done[slot] = now
        recorder.status[slot] = status
        headers, chunks = connection.take()
        if status != 200:
            recorder.fail(slot, f"http {status}", status)
        elif recorder.wants(slot):
            recorder.keep(slot, chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if self._torchserve:
            self._batch(slot, {name.lower(): value for name, value in headers.items()})
        else:
            timing = headers.get(b"server-timing")
            if timing is not None:
                recorder.timing(slot, timing)
            if self._named:
                recorder.named(slot, headers.get(b"x-abgate-arm", b""), headers.get(b"x-abgate-assignment", b""))
        connection.clear()
        if keep and (status < 400 or not self._torchserve):  # TorchServe closes after every error
            self._idle.append(connection)
        else:
            connection.transport.abort()
        self._ended(slot)

    def _batch(self, slot: int, headers: dict[bytes, bytes]) -> None:
        size, queue = headers.get(b"x-abgate-batch-size", b""), headers.get(b"x-abgate-queue-ns", b"")
        if size.isdigit():
            self._recorder.batch[slot] = int(size)
        if queue.isdigit():
            self._recorder.queue[slot] = int(queue)

    def lost(self, connection: _Connection, slot: int, error: str) -> None:
        """A connection ended; so did the request on it, if there was one."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if slot >= 0:
            self._fail(slot, error)

    def _fail(self, slot: int, error: str) -> None:
        if self._flying.pop(slot, None) is None:
            return
        self._recorder.fail(slot, error)
        self._ended(slot)

    def abandon(self, slot: int) -> None:
        """The request's time is over: its connection, or the attempt at one, ends with it."""
        way = self._flying.get(slot)
        if way is None:
            return
        if isinstance(way, _Connection):
            way.slot = -1
            way.transport.abort()
        else:
            way.cancel()
        self._fail(slot, "timeout")

    async def close(self) -> None:
        """End every connection."""
        for connection in list(self._open):
            connection.slot = -1
            connection.transport.abort()
        await asyncio.sleep(0)
