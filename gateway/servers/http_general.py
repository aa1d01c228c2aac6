"""The general way of an HTTP inference request: every one but TF Serving's predict to an arm that takes the same bytes.

A task of the request's cycle: open (gzip) -> what the client asked -> the exchange, or untouched to a handler of TorchServe
that takes bytes of its own. The cycle keeps what concerns the connection: order, keep-alive, the answer, the client's going.
What the fast way has judged elsewhere, because it is big or compressed, comes back to it from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from gateway.clock import monotonic_ns
from gateway.dataplane import Call
from gateway.errors import RequestError
from gateway.protocol import oip_rest, tfserving_examples, tfserving_rest, torchserve_predictions
from gateway.protocol.forms import Asked
from gateway.protocol.opaque import OpaqueAsked
from gateway.servers.exchange import Way, aside
from gateway.servers.exchange_send import status_of
from gateway.servers.http_answer import client_id, without_signature
from gateway.servers.http_limits import check_encoding, gunzip, timeout_of
from gateway.servers.http_target import Target

if TYPE_CHECKING:
    from gateway.servers.http_cycle import InferenceCycle
    from gateway.servers.http_front import RouteView

_DIGITS = 16
_GUARDS = ("invalid_argument", "too_large")
_NO_TYPE = b"application/octet-stream"  # RFC 9110, 8.3: what a body without a Content-Type may be taken for


def enter(cycle: InferenceCycle) -> None:
    """Begin a complete request of any protocol: assign it, then let a task serve it. Ends in one answer and one record."""
    frontend, headers, target = cycle.frontend, cycle.headers, cycle.target
    plane = frontend.plane
    request_id = client_id(headers[b"x-request-id"]) if b"x-request-id" in headers else ""
    call = cycle.call = plane.begin(target.wire, request_id, cycle.size, monotonic_ns())
    if plane.tap is not None:
        plane.tap.take(call, cycle.method, target.path, headers, cycle.body)
    try:
        if target.problem:
            raise RequestError("invalid_argument", target.problem)
        view = cycle.view = frontend.view(target.model)
        unit = ""
        if view is not None and view.unit_key in headers:
            unit = headers[view.unit_key].decode("utf-8", "surrogateescape")
        forced = headers.get(b"x-abgate-arm", b"").decode("latin-1")
        plane.assign(call, target.model, unit, forced, b"x-abgate-block" in headers)
        plane.version(call, target.version, target.label)
        if b"x-request-timeout" in headers:
            cycle.timeout_ns = timeout_of(headers, frontend.timeout_ns)
        proceed(cycle, call)
    except RequestError as error:
        cycle.raised(error)
    except Exception:
        cycle.broken()


def judge_apart(cycle: InferenceCycle, view: RouteView) -> None:
    """Open and judge a big or compressed body of the fast way elsewhere, for every arm alike; the event loop goes on."""
    encoding = cycle.headers.get(b"content-encoding", b"identity").strip().lower()
    check_encoding(encoding)
    cycle.frontend.judge_apart(view, cycle.body, encoding != b"identity", partial(_judged, cycle))


def _judged(cycle: InferenceCycle, result: tuple[bytes, int] | Exception) -> None:
    call = cycle.call
    if cycle.response_complete or call is None:
        return
    try:
        if isinstance(result, Exception):
            raise result
        body, call.rows = result
        cycle.forward(call, body)
    except RequestError as error:
        cycle.raised(error)
    except Exception:
        cycle.broken()


def proceed(cycle: InferenceCycle, call: Call) -> None:
    """Serve a request that has been assigned. Raises RequestError."""
    route = call.route
    assert route is not None
    if cycle.target.verb == "predictions" and (route.opaque is not None or route.signature is None):
        _check_opaque(cycle, call)
        assert call.arm is not None
        cycle.opaque = call.arm.kind == "torchserve"
        if cycle.opaque and b"content-encoding" not in cycle.headers:
            _pass(cycle, call, cycle.body)
            return
    elif route.opaque is not None and route.signature is None:
        raise without_signature(route.model)
    cycle.task = cycle.protocol.loop.create_task(_serve(cycle, call))


async def _serve(cycle: InferenceCycle, call: Call) -> None:
    """The task; cancelled when the client goes, which is then recorded already."""
    body = b""
    try:
        body = await _opened(cycle)
        if cycle.opaque:
            _pass(cycle, call, body)
            return
        frontend, headers = cycle.frontend, lower_text(cycle.headers)
        asked = asked_of(cycle.target, body, headers)
        if cycle.target.verb == "predictions" and call.route is not None and call.route.codec is not None:
            asked = await _decoded(cycle, call, body, headers)
        cycle.body = b""
        left_ns = call.start_ns + (cycle.timeout_ns or frontend.timeout_ns) - monotonic_ns()
        message, batch = await frontend.exchange.run(call, asked, Way("http", left_ns / 1e9, headers))
        more = dict(message.headers)
        lines = [more.pop("content-type", "application/json"), *(f"{name}: {value}" for name, value in more.items())]
        cycle.answer(200, "", "\r\n".join(lines).encode("latin-1"), message.body, batch)
    except RequestError as error:
        told = await _as_the_guard(cycle, call, body, error)
        if not cycle.response_complete:
            cycle.refuse(status_of(told), told.kind, told.message, told.retry_after)
    except Exception:
        if not cycle.response_complete:
            cycle.broken()


async def _as_the_guard(cycle: InferenceCycle, call: Call, body: bytes, error: RequestError) -> RequestError:
    """A refusal of TF Serving's predict in the words of the fast way's guard: they do not depend on the arm assigned."""
    view = cycle.view
    if cycle.target.verb != "predict" or call.sent_ns or view is None or error.kind not in _GUARDS:
        return error
    try:
        await aside(view.check, body)
    except RequestError as same:
        return same
    return error


def asked_of(target: Target, body: bytes, headers: Mapping[str, str]) -> Asked:
    """What the client asked, in its protocol's own form. Raises RequestError."""
    model, version = target.model, target.version
    if target.verb == "predict":
        return tfserving_rest.PredictAsked(body, model, version, target.label)
    if target.verb == "predictions":
        return torchserve_predictions.HttpAsked(body, headers.get("content-type", ""), model, version)
    if target.verb == "infer":
        return oip_rest.InferAsked(body, _header_length(headers), model, version)
    verb: tfserving_examples.Verb = "classify" if target.verb == "classify" else "regress"
    return tfserving_examples.RestAsked(verb, body, model, version, target.label)


def _header_length(headers: Mapping[str, str]) -> int | None:
    """Bytes of JSON before the binary tensors, None where the whole body is JSON."""
    value = headers.get("inference-header-content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < _DIGITS):
        raise RequestError("invalid_argument", f"inference-header-content-length: {value[:40]!r} is no number of bytes")
    return int(value)


async def _decoded(cycle: InferenceCycle, call: Call, body: bytes, headers: Mapping[str, str]) -> Asked:
    """A handler's own bytes for an arm that takes tensors; the codec may take its time, so it gets a thread."""
    route = call.route
    assert route is not None
    assert route.codec is not None
    if route.opaque is not None:
        _check_size(len(body), route.opaque.body_limit)
    target = cycle.target
    asked = OpaqueAsked(body, headers.get("content-type", ""), target.model, target.version, route.codec)
    begun = monotonic_ns()
    try:
        await aside(asked.request, route.signature)
    finally:
        call.codec_ns += monotonic_ns() - begun
    return asked


async def _opened(cycle: InferenceCycle) -> bytes:
    encoding = cycle.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return cycle.body
    check_encoding(encoding)
    limit = cycle.frontend.settings.body_limit
    return await asyncio.get_running_loop().run_in_executor(None, gunzip, cycle.body, limit)


def media_type_passes(content_type: bytes, allowed: tuple[str, ...]) -> bool:
    """Is a Content-Type one of the media types, "image/*" being every image? Its parameters do not count."""
    given = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return not allowed or given in allowed or f"{given.partition('/')[0]}/*" in allowed


def _check_opaque(cycle: InferenceCycle, call: Call) -> None:
    """The guard of bytes that nobody reads here: their kind and their size."""
    route, arm = call.route, call.arm
    assert route is not None
    assert arm is not None
    if arm.kind != "torchserve" and route.codec is None:
        raise RequestError(
            "failed_precondition", f"arm {arm.name!r} is no TorchServe: a handler's own bytes cannot be sent to it"
        )
    terms = route.opaque
    if terms is None:
        return
    content_type = cycle.headers.get(b"content-type", _NO_TYPE)
    if not media_type_passes(content_type, terms.media_types):
        shown = content_type[:80].decode("latin-1")
        raise RequestError(
            "invalid_argument", f"content-type: {shown!r} is not taken here; send {' or '.join(terms.media_types)}"
        )
    _check_size(cycle.size, terms.body_limit)


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise RequestError("too_large", f"the body has {size} bytes; this model takes at most {limit}")


def _pass(cycle: InferenceCycle, call: Call, body: bytes) -> None:
    """Untouched, to the handler that knows what the bytes are."""
    route, arm = call.route, call.arm
    assert route is not None
    assert arm is not None
    if route.opaque is not None:
        _check_size(len(body), route.opaque.body_limit)
    head = arm.http.opaque_head(call.version, cycle.headers.get(b"content-type", _NO_TYPE))
    cycle.forward(call, body, head)


def lower_text(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """A request's headers as text; names are in lower case already."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
