"""Sending one encoded request to an arm over HTTP or gRPC, as one thing: start, result, abandon; and what errors become.

Here lives what differs between the transports: heads and metadata, whose end is told how, and which of an arm's refusals the
client is told as its own. The order of steps is the exchange's, connections are upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from gateway.clock import monotonic_ns
from gateway.dataplane import Arm
from gateway.errors import RequestError, UpstreamError
from gateway.protocol.forms import Message, Passing
from gateway.protocol.status import HTTP_OF_GRPC, grpc_of_http, grpc_status, http_status
from gateway.servers.http_answer import arm_refusal
from gateway.upstream.grpc_client import GrpcUpstreamError
from gateway.upstream.http_call import HttpCall, HttpUpstreamError

CODES = {code.value[0]: code for code in grpc.StatusCode}
CREDENTIALS = (7, 16)  # PERMISSION_DENIED, UNAUTHENTICATED: the gateway's towards the arm, so no fault of the client
Passed = Sequence[tuple[str, str]]


class Running(Protocol):
    """Work an arm has been given."""

    async def result(self) -> Message: ...

    def abandon(self) -> None: ...


class Sending(Protocol):
    """A transport to one arm."""

    transport: str

    def start(
        self, message: Message, version: str, wait_s: float, passed: Passed, ended: Callable[[], None]
    ) -> Running:
        """Send; ended is called once, when the arm's server has ended the work or never got it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be sent, with the headers that pass; passes: whose own it is, None where it was written anew."""

    sending: Sending
    message: Message
    passed: Passed
    passes: Passing | None = None

    def start(self, version: str, wait_s: float, ended: Callable[[], None]) -> Running:
        """Send it."""
        return self.sending.start(self.message, version, wait_s, self.passed, ended)


class GrpcSending:
    """Over an arm's channel; a call's deadline outlives the client's by abandon_s, so that its end is seen."""

    transport = "grpc"

    def __init__(self, arm: Arm, abandon_s: float) -> None:
        self._arm = arm
        self._abandon_s = abandon_s

    def start(
        self, message: Message, version: str, wait_s: float, passed: Passed, ended: Callable[[], None]
    ) -> Running:
        client = self._arm.grpc
        call = client.start(message.body, wait_s + self._abandon_s, passed)
        call.add_done_callback(lambda _: ended())
        return _GrpcRunning(self._arm, call)


class _GrpcRunning:
    def __init__(self, arm: Arm, call: Any) -> None:
        self._arm = arm
        self._call = call

    async def result(self) -> Message:
        try:
            return Message(await self._arm.grpc.answer(self._call))
        except GrpcUpstreamError as error:
            if error.code in CREDENTIALS:
                told = f"arm {self._arm.name!r} answered {CODES[error.code].name}: {error.message}"
                raise UpstreamError("upstream_error", told) from error
            raise

    def abandon(self) -> None:
        """The call's own deadline ends it."""


class HttpSending:
    """Over an arm's pool."""

    transport = "http"

    def __init__(self, arm: Arm, abandon_s: float) -> None:
        self._arm = arm
        self._abandon_s = abandon_s

    def start(
        self, message: Message, version: str, wait_s: float, passed: Passed, ended: Callable[[], None]
    ) -> Running:
        http = self._arm.http
        lines = "".join([f"{name}: {value}\r\n" for name, value in passed]).encode("latin-1")
        head = http.form_head(version, message.headers)
        call = HttpCall(http, ended)
        call.send(b"%b%bcontent-length: %d\r\n\r\n" % (head, lines, len(message.body)), message.body, monotonic_ns())
        return _HttpRunning(self._arm, call, self._abandon_s)


class _HttpRunning:
    def __init__(self, arm: Arm, call: HttpCall, abandon_s: float) -> None:
        self._arm = arm
        self._call = call
        self._abandon_s = abandon_s

    async def result(self) -> Message:
        arm = self._arm
        try:
            reply = self._call.result()
        except HttpUpstreamError as error:
            raise HttpUpstreamError(error.kind, f"arm {arm.name!r}: {error.message}") from error
        if reply.status == 200:
            return Message(reply.body, reply.headers)
        refusal = arm_refusal(arm.name, arm.kind, reply.status, reply.body)
        raise HttpUpstreamError(refusal.kind, refusal.message, reply.status)

    def abandon(self) -> None:
        self._call.abandon(self._abandon_s)


def status_of(error: RequestError) -> int:
    """The HTTP status a client is told an error by: an arm's own refusal keeps its status."""
    if error.kind == "upstream_rejected":
        if isinstance(error, HttpUpstreamError) and error.status:
            return error.status
        if isinstance(error, GrpcUpstreamError):
            return HTTP_OF_GRPC.get(error.code, 400)
    return http_status(error.kind)


def code_of(error: RequestError) -> int:
    """The gRPC status number a client is told an error by: an arm's own refusal keeps its code."""
    if error.kind == "upstream_rejected":
        if isinstance(error, GrpcUpstreamError):
            return error.code
        if isinstance(error, HttpUpstreamError) and error.status:
            return grpc_of_http(error.status)
    return grpc_status(error.kind)
