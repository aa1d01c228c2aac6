"""TorchServe's StreamPredictions: answers in pieces, passed as they come, and only from an arm whose handler streams.

On any other handler that call ends a worker of TorchServe, so that the arm must say so (`streams: true`). A model with a
signature has its request judged as Predictions' is; the pieces are the handler's own bytes and nobody reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from gateway.clock import monotonic_ns
from gateway.dataplane import Arm, Call, DataPlane
from gateway.errors import RequestError, UpstreamError
from gateway.protocol import torchserve
from gateway.protocol.tensor_guard import check_tensors
from gateway.protocol.torchserve_predictions import NO_STREAM, STREAM, GrpcAsked
from gateway.servers.exchange import Exchange, Way
from gateway.servers.grpc_calls import GrpcCalls, GrpcSettings, Incoming, Method
from gateway.servers.grpc_infer import check_opaque

_METHOD = Method("torchserve-grpc", STREAM)
_AHEAD = 16  # pieces a slow client may be behind before the arm is read no further


class Stream:
    """Serves StreamPredictions."""

    def __init__(self, plane: DataPlane, settings: GrpcSettings, calls: GrpcCalls, exchange: Exchange) -> None:
        self._plane = plane
        self._settings = settings
        self._calls = calls
        self._exchange = exchange
        self._pumps: set[asyncio.Task[None]] = set()

    async def serve(self, payload: bytes, context: Any) -> AsyncIterator[bytes]:
        """A handler for grpc.aio: bytes in, pieces out."""
        async for piece in self._calls.stream(_METHOD, payload, context, self._work):
            yield piece

    async def _work(self, incoming: Incoming) -> AsyncIterator[bytes]:
        call = incoming.call
        asked = GrpcAsked(incoming.payload)
        route = self._exchange.assign(call, asked, incoming.metadata)
        arm = call.arm
        assert arm is not None
        if not arm.streams or arm.grpc is None:
            raise RequestError("failed_precondition", NO_STREAM)
        if route.opaque is None and route.signature is not None:
            request = asked.request(route.signature)
            call.rows = check_tensors(request, route.signature, route.guard, self._settings.rows_limit, asked.wire)
        check_opaque(route.opaque, len(incoming.payload))
        message = torchserve.address_predictions(incoming.payload, arm.model, call.version)
        wait_s = self._calls.wait_s(incoming)
        self._plane.admit(call)
        try:
            if wait_s <= 0:
                raise RequestError("upstream_timeout", "the deadline had passed before anything was sent")
            call.protocol_out = "torchserve-grpc"
            call.sent_ns = monotonic_ns()
            passed = self._exchange.passed(call, Way("grpc", wait_s, incoming.metadata))
            running = arm.grpc.stream(message, wait_s + arm.grpc.abandon_s, passed)
        except BaseException:
            self._plane.release(arm)
            raise
        running.add_done_callback(lambda _: self._plane.release(arm))
        pieces = self._pieces(call, arm, running, asyncio.get_running_loop().time() + wait_s)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _pieces(self, call: Call, arm: Arm, running: Any, deadline: float) -> AsyncGenerator[bytes, None]:
        """What comes until the end or the deadline (of the loop's clock)."""
        pump = _Pump(arm, running)
        task = asyncio.get_running_loop().create_task(pump.run())
        self._pumps.add(
            task
        )  # it outlives a client that leaves: the arm's place is free when its own end has been seen
        task.add_done_callback(self._pumps.discard)
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    piece = await pump.pieces.get()
                if piece is None:
                    return
                if isinstance(piece, UpstreamError):
                    raise piece
                yield piece
        except TimeoutError:
            raise UpstreamError("upstream_timeout", f"arm {arm.name!r} did not end its answer in time") from None
        finally:
            call.received_ns = monotonic_ns()
            call.upstream_ns = call.received_ns - call.sent_ns
            pump.forget()


class _Pump:
    """Reads a call to its end, whoever stops listening: to stop waiting for a piece would end the call itself."""

    def __init__(self, arm: Arm, running: Any) -> None:
        self.pieces: asyncio.Queue[bytes | UpstreamError | None] = asyncio.Queue(_AHEAD)
        self._arm = arm
        self._running = running
        self._heard = True

    async def run(self) -> None:
        """Hand on every piece, then the end: None or what went wrong."""
        try:
            while (piece := await self._arm.grpc.read(self._running)) is not None:
                await self._put(piece)
            await self._put(None)
        except UpstreamError as error:
            await self._put(error)

    async def _put(self, piece: bytes | UpstreamError | None) -> None:
        if self._heard:
            await self.pieces.put(piece)

    def forget(self) -> None:
        """Nobody listens any more."""
        self._heard = False
        while not self.pieces.empty():
            self.pieces.get_nowait()
