"""One gRPC inference call's life, whatever its method: opened, answered or refused, recorded exactly once.

Here lives what a client is told beside its answer (trailing metadata, codes, texts) and what a cancelled call counts as. How
the answer comes about is the caller's: a coroutine from payload to bytes that raises RequestError.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from gateway.clock import monotonic_ns
from gateway.dataplane import Call, DataPlane
from gateway.errors import ErrorKind, RequestError
from gateway.protocol.forms import ClientWire
from gateway.protocol.status import grpc_status
from gateway.protocol.tensors import UNTOLD, BatchInfo
from gateway.servers.exchange_send import CODES, code_of

_log = logging.getLogger(__name__)

_MESSAGE_LIMIT = 1024  # TF Serving cuts its messages there (grpc_status_util.cc)
_ID_LIMIT = 128
_LATE_S = 0.002  # a client that leaves this close to its deadline left because of it


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """What the gRPC front end needs to know; sizes in bytes, times in seconds.

    offload_bytes: messages from this size on are parsed and translated off the event loop. tls: (certificate, key), PEM.
    abandon_s: how long an arm may go on with translated work that nobody waits for.
    """

    body_limit: int
    rows_limit: int
    timeout_s: float
    forward_headers: tuple[str, ...] = ()
    tls: tuple[bytes, bytes] | None = None
    offload_bytes: int = 1 << 20
    reuse_port: bool = False
    abandon_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method: its protocol and its path, "/package.Service/Name"."""

    wire: ClientWire
    path: str


@dataclass(slots=True)
class Incoming:
    """One call as it came. remaining: seconds to the client's deadline, None without one."""

    call: Call
    payload: bytes
    metadata: Mapping[str, Any]
    remaining: float | None


Work = Callable[[Incoming], Awaitable[tuple[bytes, BatchInfo]]]
Pieces = Callable[[Incoming], AsyncIterator[bytes]]


class GrpcCalls:
    """Serves calls; one object for all, its state is the data plane's."""

    def __init__(self, plane: DataPlane, settings: GrpcSettings) -> None:
        self.stopping = False
        self._plane = plane
        self._settings = settings

    async def serve(self, method: Method, payload: bytes, context: Any, work: Work) -> bytes:
        """Answer one call of grpc.aio with what `work` makes of it."""
        incoming = self._begin(method, payload, context)
        call = incoming.call
        answer, batch = b"", UNTOLD
        refused: RequestError | None = None
        try:
            try:
                self._check_size(payload)
                answer, batch = await work(incoming)
            except RequestError as error:
                refused = error
            except Exception:
                refused = _broken()
        except BaseException:
            self._gone(call, incoming.remaining)
            raise
        if refused is not None:
            await self._refuse(call, context, refused)
        # initial metadata would cost a batch of its own, a twelfth of the request's CPU; trailing metadata costs nothing
        context.set_trailing_metadata(tuple(_headers(call)))
        self._plane.finish(call, 0, "", len(answer), batch)
        return answer

    async def stream(self, method: Method, payload: bytes, context: Any, work: Pieces) -> AsyncIterator[bytes]:
        """As `serve`, an answer in pieces; one record for all of them."""
        incoming = self._begin(method, payload, context)
        call = incoming.call
        size = 0
        refused: RequestError | None = None
        try:
            try:
                self._check_size(payload)
                async for piece in work(incoming):
                    size += len(piece)
                    yield piece
            except RequestError as error:
                refused = error
            except Exception:
                refused = _broken()
        except BaseException:
            self._gone(call, incoming.remaining)
            raise
        if refused is not None:
            await self._refuse(call, context, refused)
        context.set_trailing_metadata(tuple(_headers(call)))
        self._plane.finish(call, 0, "", size)

    def _begin(self, method: Method, payload: bytes, context: Any) -> Incoming:
        start = monotonic_ns()
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        request_id = metadata.get("x-request-id", "")[:_ID_LIMIT]
        plane = self._plane
        call = plane.begin(method.wire, request_id, len(payload), start)
        if plane.tap is not None:
            plane.tap.take(call, b"", method.path, {}, payload)
        return Incoming(call, payload, metadata, context.time_remaining())

    def _check_size(self, payload: bytes) -> None:
        limit = self._settings.body_limit
        if len(payload) > limit:
            raise RequestError("too_large", f"the message has {len(payload)} bytes, at most {limit} are taken")

    def wait_s(self, incoming: Incoming) -> float:
        """How long the arm may take: the configured time, or the client's where that is shorter."""
        configured = self._settings.timeout_s
        return configured if incoming.remaining is None else min(configured, incoming.remaining)

    async def _refuse(self, call: Call, context: Any, error: RequestError) -> NoReturn:
        """Record and answer an error; raises grpc.aio.AbortError, which ends the call."""
        code = code_of(error)
        told = unknown(call) if error.kind == "not_found" else ""
        text = told or error.message
        text = text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "...TRUNCATED"
        trailing = _headers(call)
        if error.retry_after is not None:
            trailing.append(("grpc-retry-pushback-ms", str(int(error.retry_after * 1000))))
        self._plane.finish(call, code, error.kind, 0)
        await context.abort(CODES[code], text, tuple(trailing))
        raise AssertionError("abort returned")

    def _gone(self, call: Call, remaining: float | None) -> None:
        """The call was cancelled: by the client, by its deadline, or because the server's grace has run out."""
        if call.sent_ns and not call.upstream_ns:
            call.upstream_ns = monotonic_ns() - call.sent_ns
        waited = (monotonic_ns() - call.start_ns) / 1e9
        kind: ErrorKind = "client_gone"
        if self.stopping:
            kind = "draining"
        elif remaining is not None and waited >= remaining - _LATE_S:
            kind = "upstream_timeout"
        self._plane.finish(call, grpc_status(kind), kind, 0)


def _broken() -> RequestError:
    """Log the exception that is being handled: a mistake of ours."""
    _log.exception("a gRPC request failed inside the gateway")
    return RequestError("internal", "internal error; the gateway's log has it")


def unknown(call: Call) -> str:
    """The text about a model (or its version) that is not there, in the words of the protocol's own server.

    "" for TF Serving's protocol, whose words the data plane's are. Sources: Triton's model repository manager; TorchServe's
    ModelNotFoundException and ModelVersionNotFoundException.
    """
    if call.protocol_in == "tfs-grpc":
        return ""
    known = call.route is not None
    if call.protocol_in == "torchserve-grpc":
        if known:
            return f"Model version: {call.version} does not exist for model: {call.model}"
        return f"Model not found: {call.model}"
    version = f" version {call.version}" if known and call.version else ""
    return f"Request for unknown model: '{call.model}'{version} is not found"


def _headers(call: Call) -> list[tuple[str, str]]:
    """The trailing metadata of an answer or error; durations in milliseconds, the arm only where one was asked."""
    codec_ms, upstream_ms = call.codec_ns / 1e6, call.upstream_ns / 1e6
    gateway_ms = (monotonic_ns() - call.start_ns) / 1e6 - codec_ms - upstream_ms
    timing = f"gateway;dur={gateway_ms:.3f}, codec;dur={codec_ms:.3f}, upstream;dur={upstream_ms:.3f}"
    headers = [("x-request-id", call.request_id), ("x-abgate-assignment", call.assignment), ("server-timing", timing)]
    if call.sent_ns and call.arm is not None:
        headers.append(("x-abgate-arm", call.arm.name))
    if call.route is not None and call.route.experiment is not None:
        headers.append(("x-abgate-experiment", call.route.experiment.id))
    return headers
