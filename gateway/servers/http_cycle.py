"""One inference request over HTTP, from its first body byte to its answer.

It stands in uvicorn's `cycle` and `pipeline` in place of a RequestResponseCycle: uvicorn's order of pipelined requests,
keep-alive, shutdown and connection loss go on working. The way: assign -> version -> guard -> admit -> send -> answer, all
callbacks, no task. What the client sent passes as it is; the request line and the headers to the arm are ours.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from gateway.clock import monotonic_ns
from gateway.dataplane import Arm, Call
from gateway.errors import ErrorKind, RequestError
from gateway.protocol.status import http_status
from gateway.protocol.tensors import UNTOLD, BatchInfo
from gateway.servers.documents import document_of
from gateway.servers.http_answer import (
    STATUS_LINES,
    arm_refusal,
    batch_told,
    client_id,
    error_of,
    told_type,
    unknown_of,
)
from gateway.servers.http_general import enter, judge_apart, proceed
from gateway.servers.http_limits import timeout_of
from gateway.servers.http_target import Target

if TYPE_CHECKING:
    from gateway.servers.http import InferenceProtocol
    from gateway.servers.http_front import Frontend, RouteView

_EXACT_TIMEOUT_NS = 2_000_000_000
_JSON = b"application/json"
_COPY_LIMIT = 64 * 1024  # a smaller body is copied behind its head: one system call
_ARM_HEAD = b"%bx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n"
_HEAD = (
    b"%b%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
    b"server-timing: gateway;dur=%.3f, codec;dur=%b, upstream;dur=%.3f\r\n%b\r\n"
)


class _NoEvent:
    """uvicorn sets a cycle's event when the connection ends; nobody waits for ours."""

    __slots__ = ()

    def set(self) -> None:
        """Nothing to wake."""


class InferenceCycle:
    """One request; `active` once every earlier request of its connection has been answered."""

    message_event = _NoEvent()
    active = False
    more_body = True
    response_complete = False
    disconnected = False
    parts: list[bytes]  # of a body that came in several feeds
    parts = []  # noqa: RUF012  the class's stays empty: `receive` gives an instance its own
    size = 0
    body = b""
    request_id = b""
    refusal: tuple[int, ErrorKind, str] | None = None
    call: Call | None = None
    arm: Arm | None = None
    view: RouteView | None = None
    connection: Any = None
    timer: Any = None
    task: asyncio.Task[None] | None = None  # of a request that goes the general way
    opaque = False  # a handler's own bytes, both ways
    deadline_ns = 0
    timeout_ns = 0  # 0: the configured one

    def __init__(
        self,
        protocol: InferenceProtocol,
        target: Target,
        method: bytes,
        headers: dict[bytes, bytes],
        keep_alive: bool,
    ) -> None:
        self.protocol = protocol
        self.frontend: Frontend = protocol.frontend
        self.target = target
        self.method = method
        self.headers = headers
        self.keep_alive = keep_alive

    # Receiving

    def receive(self, parts: list[bytes]) -> None:
        """Some of the body; more comes."""
        if self.response_complete or self.refusal is not None:
            return
        self.size += sum(map(len, parts))
        if not self._too_big():
            self.parts = [*self.parts, *parts]

    def received(self, body: bytes) -> None:
        """The body is complete; body is what `receive` has not been given."""
        if self.response_complete:
            return
        if self.parts:
            body = b"".join([*self.parts, body])
            self.parts = []
        self.size = len(body)
        if self.refusal is None:
            self._too_big()
        self.more_body = False
        self.body = body
        if self.active and self.refusal is None:
            self.run()

    def _too_big(self) -> bool:
        limit = self.frontend.settings.body_limit
        if self.size > limit:
            self.refuse_early(413, "too_large", f"the body is over the limit of {limit} bytes")
        return self.size > limit

    def activate(self) -> None:
        """Every earlier request of the connection has its answer: it is this one's turn."""
        self.active = True
        if self.refusal is not None:
            self.refuse(*self.refusal)
        elif not self.more_body:
            self.run()
        elif self.headers.get(b"expect", b"").lower() == b"100-continue":
            self.protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def refuse_early(self, status: int, kind: ErrorKind, message: str) -> None:
        """Refuse before the whole body is here: answered in turn, then the connection closes."""
        self.refusal = (status, kind, message)
        self.parts = []
        self.keep_alive = False
        if self.active:
            self.refuse(status, kind, message)

    # The way

    def run(self) -> None:
        """It is complete and its turn: serve it."""
        frontend, headers, target = self.frontend, self.headers, self.target
        if target.verb != "predict" or self.method != b"POST":
            self._other()
            return
        plane = frontend.plane
        request_id = client_id(headers[b"x-request-id"]) if b"x-request-id" in headers else ""
        call = self.call = plane.begin("tfs-rest", request_id, self.size, monotonic_ns())
        if plane.tap is not None:
            plane.tap.take(call, self.method, target.path, headers, self.body)
        try:
            if target.problem:
                raise RequestError("invalid_argument", target.problem)
            view = frontend.views.get(target.model)
            if view is None or view.route is not plane.routes.get(target.model):
                view = frontend.view(target.model)
            unit = forced = ""
            if view is not None:
                self.view = view
                if view.unit_key in headers:
                    unit = headers[view.unit_key].decode("utf-8", "surrogateescape")
            if b"x-abgate-arm" in headers:
                forced = headers[b"x-abgate-arm"].decode("latin-1")
            plane.assign(call, target.model, unit, forced, b"x-abgate-block" in headers)
            plane.version(call, target.version, target.label)
            if b"x-request-timeout" in headers:
                self.timeout_ns = timeout_of(headers, frontend.timeout_ns)
            assert view is not None
            if not call.arm.plain:  # type: ignore[union-attr]
                proceed(self, call)
                return
            if b"content-encoding" in headers or self.size > frontend.settings.offload_bytes:
                judge_apart(self, view)
                return
            call.rows = view.check(self.body)
            self.forward(call, self.body)
        except RequestError as error:
            self.raised(error)
        except Exception:
            self.broken()

    def _other(self) -> None:
        """Anything but a predict request of TF Serving's: another protocol's inference, or something to be read."""
        frontend, target = self.frontend, self.target
        if self.method in target.methods:
            enter(self)
        else:
            self._plain(*document_of(frontend.plane, target, self.method, frontend.settings.rows_limit))

    def forward(self, call: Call, body: bytes, given: bytes = b"") -> None:
        """Send; given: the first lines of the arm's head where they are not the usual ones."""
        frontend = self.frontend
        arm = self.arm = frontend.plane.admit(call)
        http = arm.http
        extra = b"" if frontend.forward_keys.isdisjoint(self.headers) else frontend.forwarded(self.headers)
        call.protocol_out = http.protocol_out
        if http.wants_time:
            extra += b"x-abgate-sent-ns: %d\r\n" % time.time_ns()
        version = call.version
        request_id = self.request_id = call.request_id.encode("latin-1")
        head = _ARM_HEAD % (given or http.heads.get(version) or http.head(version), request_id, extra, len(body))
        self.body = b""
        timeout_ns = self.timeout_ns or frontend.timeout_ns
        self.deadline_ns = call.start_ns + timeout_ns
        frontend.live[self] = None
        now = call.sent_ns = monotonic_ns()
        if timeout_ns < _EXACT_TIMEOUT_NS:
            self.timer = self.protocol.loop.call_later((self.deadline_ns - now) / 1e9, self.expire)
        http.send(head, body, self, now)

    # Outcomes: exactly one of answered and failed, from the arm

    def answered(self, status: int, headers: dict[bytes, bytes], body: bytes, now_ns: int) -> None:
        """The arm's whole answer."""
        call, arm = self.call, self.arm
        assert call is not None
        assert arm is not None
        del self.frontend.live[self]  # as `_ended`, without the call
        arm.in_flight -= 1
        if self.timer is not None:
            self.timer.cancel()
        if self.response_complete:
            return
        call.received_ns = now_ns
        call.upstream_ns = now_ns - call.sent_ns
        batch = UNTOLD
        kind = headers.get(b"Content-Type")
        if kind is None or arm.kind == "torchserve" or b"Content-Encoding" in headers:
            lower = {name.lower(): value for name, value in headers.items()}
            batch = batch_told(lower)
            kind = lower.get(b"content-type") or (told_type(body) if self.opaque else _JSON)
            if b"content-encoding" in lower:
                kind += b"\r\ncontent-encoding: " + lower[b"content-encoding"]
        if status == 200 and body:
            self.answer(200, "", kind, body, batch)
        else:
            refusal = arm_refusal(arm.name, arm.kind, status, body)
            if self.opaque and (status < 300 or refusal.kind == "upstream_rejected"):
                self.answer(status, "" if status < 300 else refusal.kind, kind, body, batch)
                return
            text = error_of(self.target.wire, refusal.status, refusal.message)
            self.answer(refusal.status, refusal.kind, _JSON, text, batch)

    def failed(self, kind: ErrorKind, message: str) -> None:
        """The arm could not be asked, or gave no answer."""
        call, arm = self.call, self.arm
        assert call is not None
        assert arm is not None
        self._ended(arm)
        if self.response_complete:
            return
        call.upstream_ns = monotonic_ns() - call.sent_ns
        self.refuse(http_status(kind), kind, f"arm {arm.name!r}: {message}")

    def expire(self) -> None:
        """The time is up: for the client, or, long after, for the server that goes on without one."""
        call, arm = self.call, self.arm
        assert call is not None
        assert arm is not None
        if self not in self.frontend.live:
            return
        if self.response_complete:
            if self.connection is not None:
                self.connection.abort()  # ends in `failed`
            return
        call.upstream_ns = monotonic_ns() - call.sent_ns
        self._abandon(arm)
        message = f"arm {arm.name!r} did not answer within {(self.timeout_ns or self.frontend.timeout_ns) / 1e9:g} s"
        self.refuse(http_status("upstream_timeout"), "upstream_timeout", message)

    def gone(self) -> None:
        """The client has gone; what the arm was given goes on, and keeps its place there until it ends."""
        if self.response_complete:
            return
        self.response_complete = True
        self.disconnected = True
        self.parts = []
        self.body = b""
        call = self.call
        if call is None:
            return
        if call.sent_ns and not call.upstream_ns:
            call.upstream_ns = monotonic_ns() - call.sent_ns
        if self.arm is not None and self in self.frontend.live:
            self._abandon(self.arm)
        if self.task is not None:
            self.task.cancel()
        self.frontend.plane.finish(call, http_status("client_gone"), "client_gone", 0)

    def _abandon(self, arm: Arm) -> None:
        if self.connection is None and arm.http.cancel(self):
            self._ended(arm)
            return
        patience = self.frontend.settings.timeout_s * self.frontend.settings.abandon_factor
        self.deadline_ns = monotonic_ns() + int(patience * 1e9)

    def _ended(self, arm: Arm) -> None:
        """The server has ended this request's work, or never had it."""
        del self.frontend.live[self]
        if self.timer is not None:
            self.timer.cancel()
        arm.in_flight -= 1

    def broken(self) -> None:
        """A mistake of ours: the arm gets its place back, the client a 500, the log the traceback."""
        self.frontend.log.exception("serving a request failed")
        if self.arm is not None and self in self.frontend.live and self.connection is None:
            self._ended(self.arm)
        self.refuse(500, "internal", "the gateway failed to serve the request")

    # Answering

    def raised(self, error: RequestError) -> None:
        small = self.size <= self.frontend.settings.offload_bytes
        if error.kind == "not_found" and self.view is None and small and self.target.wire == "tfs-rest":
            # TF Serving reads the body before it looks for the model
            error = self.frontend.json_problem(self.body) or error
        self.refuse(http_status(error.kind), error.kind, error.message, error.retry_after)

    def refuse(self, status: int, kind: ErrorKind, message: str, retry_after: float | None = None) -> None:
        target = self.target
        missing = kind == "not_found" and target.wire != "tfs-rest"
        body = unknown_of(target, status, self.view is not None) if missing else error_of(target.wire, status, message)
        if self.call is None and self.method not in target.methods:
            self._plain(status, body)
            return
        if self.call is None:  # refused before its body was complete
            request_id = client_id(self.headers.get(b"x-request-id", b""))
            self.call = self.frontend.plane.begin(target.wire, request_id, self.size, monotonic_ns())
            self.call.model = target.model
        lines = _JSON if retry_after is None else b"%b\r\nretry-after: %d" % (_JSON, max(1, round(retry_after)))
        self.answer(status, kind, lines, body, UNTOLD)

    def _plain(self, status: int, document: bytes) -> None:
        """Answer what is no inference request; leaves no record."""
        self.response_complete = True
        protocol = self.protocol
        protocol.write_answer(status, document, self.keep_alive, bodiless=self.method == b"HEAD")
        if not self.keep_alive:
            protocol.end(linger=self.more_body)
        protocol.on_response_complete()

    def answer(self, status: int, error_kind: str, kind: bytes, body: bytes, batch: BatchInfo) -> None:
        """Write the answer and end the call. kind: the Content-Type, further header lines after it where there are any."""
        call, frontend, protocol, view = self.call, self.frontend, self.protocol, self.view
        assert call is not None
        keep_alive = self.keep_alive and not frontend.plane.draining  # a client that stays would only be refused
        codec_ns, upstream_ns = call.codec_ns, call.upstream_ns
        labels = b""
        if view is not None:
            arm = call.arm.name if call.arm is not None and call.sent_ns else ""
            labels = view.lines.get((arm, call.assignment)) or view.labels(arm, call.assignment)
        if frontend.date_of is not protocol.server_state.default_headers:
            frontend.redate(protocol.server_state.default_headers)
        head = _HEAD % (
            STATUS_LINES[status],
            frontend.date,
            kind,
            len(body),
            self.request_id or call.request_id.encode("latin-1"),
            labels,
            (monotonic_ns() - call.start_ns - upstream_ns - codec_ns) / 1e6,
            b"%.3f" % (codec_ns / 1e6) if codec_ns else b"0",
            upstream_ns / 1e6,
            b"" if keep_alive else b"connection: close\r\n",
        )
        self.response_complete = True
        self.body = b""
        if len(body) < _COPY_LIMIT:
            protocol.transport.write(head + body)
        else:
            protocol.transport.writelines((head, body))
        frontend.plane.finish(call, status, error_kind, len(body), batch)
        if keep_alive and not protocol.flow.read_paused:
            protocol.current = None  # nothing waits behind this request
            return
        if not keep_alive:
            protocol.end(linger=self.more_body)
        protocol.on_response_complete()
