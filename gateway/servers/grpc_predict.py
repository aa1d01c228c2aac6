"""Predict of TensorFlow Serving over gRPC: one request's short way from bytes to bytes, to arms that take it almost as it is.

Here lives the order of the steps (parse, assign, guard, admit, translate, send, answer). An arm of another kind, or asked by
another transport or by names of its own, is the exchange's. Forms of messages are protocol's, connections are upstream's,
decisions the data plane's, the call's life is grpc_calls'.
Work an arm has been given is never cut short: it keeps its place on the arm until the arm's answer, its connection's end
or the abandon limit, also when nobody waits for it any more (neither server would stop it either).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.clock import monotonic_ns, wall_ns
from gateway.dataplane import Arm, Call, DataPlane, Route
from gateway.errors import RequestError, UpstreamError
from gateway.protocol import tfserving_grpc as codec
from gateway.protocol import torchserve
from gateway.protocol.predict_pattern import Pattern, Patterns
from gateway.protocol.tensors import UNTOLD, BatchInfo, InferRequest
from gateway.servers.exchange import Exchange, Way, aside
from gateway.servers.exchange_send import CODES, CREDENTIALS
from gateway.servers.grpc_calls import GrpcCalls, GrpcSettings, Incoming, Method
from gateway.upstream.grpc_client import GrpcArm, GrpcUpstreamError

_METHOD = Method("tfs-grpc", codec.PREDICT)


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

    def __init__(self, plane: DataPlane, settings: GrpcSettings, calls: GrpcCalls, exchange: Exchange) -> None:
        self._plane = plane
        self._settings = settings
        self._calls = calls
        self._exchange = exchange
        self._patterns = Patterns()
        self._limits = codec.Limits(settings.rows_limit, settings.body_limit)
        self._forwarded = tuple(
            dict.fromkeys(("traceparent", "tracestate", *(h.lower() for h in settings.forward_headers)))
        )

    async def serve(self, payload: bytes, context: Any) -> bytes:
        """Answer one request (a handler for grpc.aio: bytes in, bytes out); exactly one record is left behind."""
        return await self._calls.serve(_METHOD, payload, context, self._work)

    async def _work(self, incoming: Incoming) -> tuple[bytes, BatchInfo]:
        """The request's answer, or a RequestError."""
        call, payload, metadata = incoming.call, incoming.payload, incoming.metadata
        big = self._settings.offload_bytes
        apart = len(payload) >= big
        asked = _Asked(payload, self._patterns.find(payload))
        if asked.pattern is None and apart:
            await aside(asked.parse)
        route = self._assign(call, asked, metadata)
        assert call.arm is not None
        if not call.arm.direct or route.opaque is not None:
            return await self._translated(incoming, apart)
        call.rows = await aside(self._judge, asked, route) if apart else self._judge(asked, route)
        arm = self._plane.admit(call)
        try:
            client = _client(arm)
            encoding = (call, route, client, asked)
            wire = await aside(self._encode, *encoding) if apart else self._encode(*encoding)
            wait_s = self._calls.wait_s(incoming)
            running = self._send(call, client, wire, metadata, wait_s)
        except BaseException:
            self._plane.release(arm)
            raise
        received = await self._receive(call, arm, client, running, wait_s)
        decoding = (call, route, client, asked, received)
        return await aside(self._decode, *decoding) if len(received) >= big else self._decode(*decoding)

    async def _translated(self, incoming: Incoming, apart: bool) -> tuple[bytes, BatchInfo]:
        """The general way, for an arm that does not take this message."""
        parts = (incoming.payload, self._limits)
        asked = await aside(codec.PredictAsked, *parts) if apart else codec.PredictAsked(*parts)
        way = Way("grpc", self._calls.wait_s(incoming), incoming.metadata)
        message, batch = await self._exchange.run(incoming.call, asked, way)
        return message.body, batch

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
            if error.code in CREDENTIALS:
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


def _settle(waiter: asyncio.Future[bool], answered: bool) -> None:
    if not waiter.done():
        waiter.set_result(answered)


def _client(arm: Arm) -> GrpcArm:
    client = arm.grpc
    if client is None:
        raise RequestError("failed_precondition", f"arm {arm.name!r} has no gRPC address; use REST for this model")
    assert isinstance(client, GrpcArm)
    return client
