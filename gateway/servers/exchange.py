"""The general way of a request: any client's wire to any arm's, for both front ends.

assign -> version -> canonical request -> guard -> admit -> encode -> send -> decode -> answer. Here lives that order, what is
timed, what leaves the event loop, and who waits how long. Forms of messages are protocol's, connections upstream's, decisions
the data plane's; the front end opens the call, writes the answer and finishes the call. Nothing is retried.
Work an arm has been given keeps its place there until its server has ended it, also when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from gateway.clock import monotonic_ns
from gateway.dataplane import Arm, Call, DataPlane, Route
from gateway.errors import RequestError, UpstreamError
from gateway.protocol.arm_forms import WIRES, arm_forms
from gateway.protocol.forms import ArmForm, ArmTerms, Asked, Message, Passing
from gateway.protocol.signature_file import DEFAULT_SIGNATURE_NAME
from gateway.protocol.tensor_guard import check_tensors
from gateway.protocol.tensors import BatchInfo, InferRequest
from gateway.servers.exchange_codec import Codecs, aside
from gateway.servers.exchange_send import GrpcSending, HttpSending, Outgoing, Sending

__all__ = ["Exchange", "ExchangeSettings", "Transport", "Way", "aside"]

Transport = Literal["http", "grpc"]
_ALWAYS_FORWARDED = ("traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Way:
    """What stands around a request: the client's transport, how long it waits from now (seconds), and its headers or
    metadata (names in lower case), of which those that are meant for an arm pass."""

    transport: Transport
    wait_s: float
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """rows_limit bounds a request's batch; forward_headers pass to arms. Messages of offload_bytes (binary, in a thread) or
    offload_json (JSON, in a process) and more are read and written off the event loop. abandon_s: how long an arm may go on
    with work that nobody waits for before its call or connection is cut."""

    rows_limit: int = 1024
    forward_headers: tuple[str, ...] = ()
    offload_bytes: int = 1 << 20
    offload_json: int = 1 << 17
    abandon_s: float = 30.0


class Exchange:
    """One for each front end; it keeps nothing of a request."""

    def __init__(self, plane: DataPlane, settings: ExchangeSettings) -> None:
        self._plane = plane
        self._settings = settings
        self._forms = arm_forms()
        self._codecs = Codecs(settings.offload_bytes, settings.offload_json)
        names = (*_ALWAYS_FORWARDED, *(name.lower() for name in settings.forward_headers))
        self._forwarded = tuple(name for name in dict.fromkeys(names) if name != "x-request-id")

    def assign(self, call: Call, asked: Asked, headers: Mapping[str, Any]) -> Route:
        """Find the request's model, arm and version by what it names and its headers; RequestError as the data plane's."""
        plane = self._plane
        known = plane.routes.get(asked.model)
        unit = headers.get(known.unit_header, "") if known is not None and known.unit_header else ""
        route = plane.assign(call, asked.model, unit, headers.get("x-abgate-arm", ""), "x-abgate-block" in headers)
        plane.version(call, asked.version, asked.label)
        return route

    async def run(self, call: Call, asked: Asked, way: Way) -> tuple[Message, BatchInfo]:
        """The client's answer, and what the arm told of its batch. Assigns a call that has no arm yet.

        Sets rows, protocol_out, codec_ns, sent_ns, received_ns and upstream_ns of the call; the caller finishes it, once,
        also when this is cancelled (a client that left). Raises RequestError; `status_of` and `code_of` say as what.
        """
        began = monotonic_ns()
        if call.arm is None:
            self.assign(call, asked, way.headers)
        route = call.route
        assert route is not None
        codecs = self._codecs
        request, asked = await codecs.read(call, asked, route.signature)
        call.rows = check_tensors(request, route.signature, route.guard, self._settings.rows_limit, asked.wire)
        arm = self._plane.admit(call)
        try:
            outgoing, terms = await self._encode(call, arm, asked, request, way)
            wait_s = way.wait_s - (monotonic_ns() - began) / 1e9
            if wait_s <= 0:
                raise RequestError("upstream_timeout", "the deadline had passed before anything was sent")
        except BaseException:
            self._plane.release(arm)
            raise
        received = await self._receive(call, arm, outgoing, wait_s)
        if outgoing.passes is not None:
            whole = outgoing.passes.passed(received, terms)
            if whole is not None:
                return whole
        response = await codecs.decode(call, self._form(call), received, terms)
        if response.version and not call.version:
            call.version = response.version
        named = replace(arm.names.response(response), model=call.model)
        return await codecs.answer(call, asked, named, route.signature), response.batch

    async def pass_on(self, call: Call, message: Message, way: Way) -> Message:
        """Send an assigned call's message to its arm as it is, over the client's transport, and return the arm's answer."""
        arm = self._plane.admit(call)
        try:
            sending = self._over(arm, way.transport)
            call.protocol_out = WIRES[arm.kind, sending.transport]
            if way.wait_s <= 0:
                raise RequestError("upstream_timeout", "the deadline had passed before anything was sent")
        except BaseException:
            self._plane.release(arm)
            raise
        return await self._receive(call, arm, Outgoing(sending, message, self.passed(call, way)), way.wait_s)

    def close(self) -> None:
        """End what runs beside the loop."""
        self._codecs.close()

    # ---- the steps ----

    async def _encode(
        self, call: Call, arm: Arm, asked: Asked, request: InferRequest, way: Way
    ) -> tuple[Outgoing, ArmTerms]:
        sending = self._sending(arm, way.transport)
        call.protocol_out = WIRES[arm.kind, sending.transport]
        route = call.route
        assert route is not None
        if arm.kind == "torchserve" and (route.opaque is not None or route.signature is None):
            raise RequestError(
                "failed_precondition",
                f"arm {arm.name!r} takes its handler's own bytes: send them to TorchServe's Predictions, or /predictions",
            )
        theirs = arm.names.request(_ordered(request, route))
        signature = arm.names.signature(route.signature)
        terms = ArmTerms(arm.model, call.version, arm.body_form(), signature, theirs.outputs)
        passes = _passing(asked, call, arm, terms)
        if passes is not None:
            message = passes.passing(terms)
        else:
            message = await self._codecs.encode(call, self._form(call), theirs, terms)
        return Outgoing(sending, message, self.passed(call, way), passes), terms

    def passed(self, call: Call, way: Way) -> list[tuple[str, str]]:
        """The client's headers that are meant for arms, and the request's id."""
        headers = way.headers
        passed = [(name, headers[name]) for name in self._forwarded if name in headers]
        return [*passed, ("x-request-id", call.request_id)]

    def _sending(self, arm: Arm, client: Transport) -> Sending:
        return self._over(arm, arm.transport_to(client))

    def _over(self, arm: Arm, transport: str) -> Sending:
        over_grpc = transport == "grpc"
        if (arm.grpc if over_grpc else arm.http) is None:
            raise RequestError("failed_precondition", f"arm {arm.name!r} has no address for {transport}")
        kind = GrpcSending if over_grpc else HttpSending
        return kind(arm, self._settings.abandon_s)

    async def _receive(self, call: Call, arm: Arm, outgoing: Outgoing, wait_s: float) -> Message:
        """Send and wait no longer than the deadline; the arm's place is given back when its server has ended, not before."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()

        def ended() -> None:
            self._plane.release(arm)
            _settle(waiter, True)

        call.sent_ns = monotonic_ns()
        try:
            running = outgoing.start(call.version, wait_s, ended)
        except BaseException:
            self._plane.release(arm)
            raise
        timer = loop.call_later(wait_s, _settle, waiter, False)
        try:
            answered = await waiter
        except BaseException:
            running.abandon()
            raise
        finally:
            timer.cancel()
            call.received_ns = monotonic_ns()
            call.upstream_ns = call.received_ns - call.sent_ns
        if not answered:
            running.abandon()
            raise UpstreamError("upstream_timeout", f"arm {arm.name!r} gave no answer within {wait_s:.3f} s")
        return await running.result()

    def _form(self, call: Call) -> ArmForm:
        return self._forms[call.protocol_out]  # type: ignore[index]


def _passing(asked: Asked, call: Call, arm: Arm, terms: ArmTerms) -> Passing | None:
    """The request, where it goes to its arm as the client wrote it."""
    if asked.wire != call.protocol_out or arm.names or not hasattr(asked, "passes"):
        return None
    passing = cast("Passing", asked)
    return passing if passing.passes(terms) else None


def _ordered(request: InferRequest, route: Route) -> InferRequest:
    """The inputs in the signature's order, which some servers go by, and the signature's name where the client gave none."""
    signature = route.signature
    if signature is None:
        return request
    order = {spec.name: place for place, spec in enumerate(signature.inputs)}
    inputs = tuple(sorted(request.inputs, key=lambda tensor: order.get(tensor.name, len(order))))
    name = request.signature_name
    if not name and signature.signature_name != DEFAULT_SIGNATURE_NAME:  # the default goes without saying
        name = signature.signature_name
    return replace(request, inputs=inputs, signature_name=name)


def _settle(waiter: asyncio.Future[bool], answered: bool) -> None:
    if not waiter.done():
        waiter.set_result(answered)
