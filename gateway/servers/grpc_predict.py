"""Predict over gRPC: one request's way from bytes to bytes through the data plane.

Here lives the order of the steps (parse, assign, guard, admit, translate, send, answer, record) and what happens when one
of them fails or the client leaves. Forms of messages are protocol's, connections are upstream's, decisions the data plane's.
Work an arm has been given is never cut short: it keeps its place on the arm until the arm's answer, its connection's end
or the abandon limit, also when nobody waits for it any more (neither server would stop it either).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import grpc

from gateway.clock import monotonic_ns, wall_ns
from gateway.dataplane import Arm, Call, DataPlane, Route
from gateway.errors import ErrorKind, RequestError, UpstreamError
from gateway.protocol import tfserving_grpc as codec
from gateway.protocol import torchserve
from gateway.protocol.predict_pattern import Pattern, Patterns
from gateway.protocol.status import grpc_status
from gateway.protocol.tensors import UNTOLD, BatchInfo, InferRequest
from gateway.upstream.grpc_client import GrpcArm, GrpcUpstreamError

T = TypeVar("T")
_log = logging.getLogger(__name__)

CODES = {code.value[0]: code for code in grpc.StatusCode}
_CREDENTIALS = (7, 16)  # PERMISSION_DENIED, UNAUTHENTICATED: the gateway's towards the arm, so no fault of the client
_MESSAGE_LIMIT = 1024  # TF Serving cuts its messages there (grpc_status_util.cc)
_ID_LIMIT = 128
_LATE_S = 0.002  # a client that leaves this close to its deadline left because of it


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """What the gRPC front end needs to know; sizes in bytes, times in seconds.

    offload_bytes: messages from this size on are parsed and translated off the event loop. tls: (certificate, key), PEM.
    """

    body_limit: int
    rows_limit: int
    timeout_s: float
    forward_headers: tuple[str, ...] = ()
    tls: tuple[bytes, bytes] | None = None
    offload_bytes: int = 1 << 20
    reuse_port: bool = False


class _Asked:
    """What a client sent: its bytes, and as much of their meaning as has been needed so far."""

    __slots__ = ("_message", "pattern", "payload")

    def __init__(self, payload: bytes, pattern: Pattern | None) -> None:
        self.payload = payload
        self.pattern = pattern
        self._message: Any = None

    def parse(self) -> Any:
        """The PredictRequest; RequestError("invalid_argument") when the bytes are none."""
        if self._message is None:
            self._message = codec.parse_request(self.payload)
        return self._message

    def request(self, limits: codec.Limits) -> InferRequest:
        """The canonical form; for a request that has been judged."""
        return self.pattern.request(self.payload) if self.pattern else codec.decode_request(self.parse(), limits)

    def outputs(self) -> tuple[str, ...]:
        """The outputs asked for; empty means all."""
        return self.pattern.outputs if self.pattern else tuple(self.parse().output_filter)


class Predict:
    """Serves tensorflow.serving.PredictionService/Predict; one object for all requests, its state is the data plane's."""

    def __init__(self, plane: DataPlane, settings: GrpcSettings) -> None:
        self.stopping = False
        self._plane = plane
        self._settings = settings
        self._patterns = Patterns()
        self._limits = codec.Limits(settings.rows_limit, settings.body_limit)
        self._forwarded = tuple(
            dict.fromkeys(("traceparent", "tracestate", *(h.lower() for h in settings.forward_headers)))
        )

    async def serve(self, payload: bytes, context: Any) -> bytes:
        """Answer one request (a handler for grpc.aio: bytes in, bytes out); exactly one record is left behind."""
        start = monotonic_ns()
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        request_id = metadata.get("x-request-id", "")[:_ID_LIMIT]
        call = self._plane.begin("tfs-grpc", request_id, len(payload), start)
        remaining = context.time_remaining()
        answer, batch = b"", UNTOLD
        refused: RequestError | None = None
        try:
            try:
                answer, batch = await self._exchange(call, payload, metadata, remaining)
            except RequestError as error:
                refused = error
            except Exception:
                _log.exception("a gRPC request failed inside the gateway")
                refused = RequestError("internal", "internal error; the gateway's log has it")
        except BaseException:
            self._gone(call, remaining)
            raise
        if refused is not None:
            await self._refuse(call, context, refused)
        # initial metadata would cost a batch of its own, a twelfth of the request's CPU; trailing metadata costs nothing
        context.set_trailing_metadata(tuple(_headers(call)))
        self._plane.finish(call, 0, "", len(answer), batch)
        return answer

    async def _exchange(
        self, call: Call, payload: bytes, metadata: Mapping[str, Any], remaining: float | None
    ) -> tuple[bytes, BatchInfo]:
        """The request's answer, or a RequestError."""
        settings = self._settings
        if len(payload) > settings.body_limit:
            raise RequestError(
                "too_large", f"the message has {len(payload)} bytes, at most {settings.body_limit} are taken"
            )
        big = settings.offload_bytes
        aside = len(payload) >= big
        asked = _Asked(payload, self._patterns.find(payload))
        if asked.pattern is None and aside:
            await _aside(asked.parse)
        route = self._assign(call, asked, metadata)
        call.rows = await _aside(self._judge, asked, route) if aside else self._judge(asked, route)
        arm = self._plane.admit(call)
        try:
            client = _client(arm)
            encoding = (call, route, client, asked)
            wire = await _aside(self._encode, *encoding) if aside else self._encode(*encoding)
            wait_s = self._wait_s(remaining)
            running = self._send(call, client, wire, metadata, wait_s)
        except BaseException:
            self._plane.release(arm)
            raise
        received = await self._receive(call, arm, client, running, wait_s)
        decoding = (call, route, client, asked, received)
        return await _aside(self._decode, *decoding) if len(received) >= big else self._decode(*decoding)

    def _assign(self, call: Call, asked: _Asked, metadata: Mapping[str, Any]) -> Route:
        plane = self._plane
        pattern = asked.pattern
        if pattern is not None:
            model, version, label = pattern.model, pattern.version, pattern.label
        else:
            message = asked.parse()
            model = codec.model_name(message)
            version, label = codec.version_and_label(message)
        known = plane.routes.get(model)
        unit = metadata.get(known.unit_header, "") if known is not None and known.unit_header else ""
        route = plane.assign(call, model, unit, metadata.get("x-abgate-arm", ""), "x-abgate-block" in metadata)
        assert call.arm is not None
        plane.version(call, version, label)
        return route

    def _judge(self, asked: _Asked, route: Route) -> int:
        """The guard: the rows of a request that passes. A form that has passed before is not judged again."""
        pattern = asked.pattern
        if pattern is not None and pattern.owner is route.signature and pattern.guard == route.guard:
            return pattern.rows
        asked.pattern = None
        message = asked.parse()
        rows = codec.check(message, route.signature, self._limits, route.guard)
        self._patterns.learn(asked.payload, message, route.signature, route.guard, rows)
        return rows

    def _encode(self, call: Call, route: Route, client: GrpcArm, asked: _Asked) -> bytes:
        """The message as the arm takes it."""
        pattern = asked.pattern
        if client.kind != "torchserve":
            call.protocol_out = "tfs-grpc"
            if pattern is not None and pattern.model == client.model and pattern.version == call.version:
                return asked.payload  # (a label never gets here: it has a version by now)
            return codec.forward(asked.parse(), client.model, call.version)
        call.protocol_out = "torchserve-grpc"
        if route.signature is None:
            raise RequestError("failed_precondition", f"model {call.model!r} has no signature to translate by")
        begun = monotonic_ns()
        body = torchserve.encode_payload(asked.request(self._limits), client.form)
        wire = torchserve.encode_predictions(client.model, call.version, body, client.form, wall_ns())
        call.codec_ns += monotonic_ns() - begun
        return wire

    def _send(self, call: Call, client: GrpcArm, wire: bytes, metadata: Mapping[str, Any], wait_s: float) -> Any:
        """Give the message to the arm: the call under way, which may outlive the client's by the abandon limit."""
        if wait_s <= 0:
            raise RequestError("upstream_timeout", "the deadline had passed before anything was sent")
        passed = [(key, metadata[key]) for key in self._forwarded if key in metadata]
        passed.append(("x-request-id", call.request_id))
        call.sent_ns = monotonic_ns()
        return client.start(wire, wait_s + client.abandon_s, passed)

    async def _receive(self, call: Call, arm: Arm, client: GrpcArm, running: Any, wait_s: float) -> bytes:
        """Wait for the arm no longer than the deadline; its place is given back when its call has ended, not before."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()

        def ended(_: Any) -> None:
            self._plane.release(arm)
            _settle(waiter, True)

        running.add_done_callback(ended)
        timer = loop.call_later(wait_s, _settle, waiter, False)
        try:
            answered = await waiter
        finally:
            timer.cancel()
        call.received_ns = monotonic_ns()
        call.upstream_ns = call.received_ns - call.sent_ns
        if not answered:
            raise UpstreamError("upstream_timeout", f"arm {arm.name!r} gave no answer within {wait_s:.3f} s")
        try:
            return await client.answer(running)
        except GrpcUpstreamError as error:
            if error.code in _CREDENTIALS:
                told = f"arm {arm.name!r} answered {CODES[error.code].name}: {error.message}"
                raise UpstreamError("upstream_error", told) from error
            raise

    def _decode(
        self, call: Call, route: Route, client: GrpcArm, asked: _Asked, received: bytes
    ) -> tuple[bytes, BatchInfo]:
        """The arm's answer as the client takes it."""
        if client.kind != "torchserve":
            return codec.rename_response(received, call.model), UNTOLD
        assert route.signature is not None
        begun = monotonic_ns()
        outputs = asked.outputs()
        body, batch = torchserve.decode_predictions(received, client.form)
        response = torchserve.decode_payload(body, client.form, route.signature, outputs, batch)
        renamed = replace(response, model=call.model)
        answer = codec.encode_response(renamed, route.signature.signature_name, outputs)
        call.codec_ns += monotonic_ns() - begun
        return answer, batch

    async def _refuse(self, call: Call, context: Any, error: RequestError) -> NoReturn:
        """Record and answer an error; raises grpc.aio.AbortError, which ends the call."""
        code = grpc_status(error.kind)
        if error.kind == "upstream_rejected" and isinstance(error, GrpcUpstreamError):
            code = error.code
        text = (
            error.message if len(error.message) <= _MESSAGE_LIMIT else error.message[:_MESSAGE_LIMIT] + "...TRUNCATED"
        )
        after = error.retry_after
        trailing = _headers(call)
        if after is not None:
            trailing.append(("grpc-retry-pushback-ms", str(int(after * 1000))))
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

    def _wait_s(self, remaining: float | None) -> float:
        configured = self._settings.timeout_s
        return configured if remaining is None else min(configured, remaining)


async def _aside(function: Callable[..., T], *arguments: Any) -> T:
    """Run a codec step in a thread: on the loop a big tensor would hold up every other request, of either arm."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _settle(waiter: asyncio.Future[bool], answered: bool) -> None:
    if not waiter.done():
        waiter.set_result(answered)


def _client(arm: Arm) -> GrpcArm:
    client = arm.grpc
    if client is None:
        raise RequestError("failed_precondition", f"arm {arm.name!r} has no gRPC address; use REST for this model")
    assert isinstance(client, GrpcArm)
    return client


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
