"""What the client gets: heads and error bodies, and what an arm's own error answer and batch headers become.

PURE: bytes and values in, bytes and values out. Error bodies are TF Serving's, {"error": "..."}, whatever the arm speaks.
"""

from __future__ import annotations

import http
from typing import NamedTuple

import orjson

from gateway.errors import ErrorKind
from gateway.protocol.status import http_status
from gateway.protocol.tensors import BatchInfo

STATUS_LINES: dict[int, bytes] = {
    code: f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase if code in set(http.HTTPStatus) else ''}\r\n".encode()
    for code in (*range(200, 600),)
}
_SHOWN = 1024
_TOO_LONG = "...TRUNCATED"
_ID_LENGTH = 128


class Refusal(NamedTuple):
    """An error as the client sees it and the record keeps it."""

    status: int
    kind: ErrorKind
    body: bytes


def error_body(message: str) -> bytes:
    """{"error": message} as bytes."""
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode("utf-8")})


def head(status: int, date: bytes, headers: bytes, length: int, keep_alive: bool) -> bytes:
    """A response head. date and headers: whole header lines, each with its line end."""
    return b"%b%bcontent-length: %d\r\n%b%b\r\n" % (
        STATUS_LINES[status],
        date,
        length,
        headers,
        b"" if keep_alive else b"connection: close\r\n",
    )


def arm_refusal(arm: str, kind: str, status: int, body: bytes) -> Refusal:
    """An arm's answer that is not 2xx. 4xx says that the request was wrong, and passes; all else is the arm's failure.

    arm: its name; kind: torchserve or tensorflow_serving. A TorchServe error is {"code", "type", "message"}, one of our
    handler's {"error"}; its 507 is a worker that died, its InvalidKeyException a 400 that is the gateway's fault.
    """
    message, exception = _told(body)
    ours = exception in ("InvalidKeyException", "MethodNotAllowedException", "ResourceNotFoundException")
    if (
        400 <= status < 500
        and status not in (401, 403, 405, 407, 408, 426, 499)
        and not (kind == "torchserve" and ours)
    ):
        return Refusal(status, "upstream_rejected", error_body(message or f"arm {arm!r} answered {status}"))
    failure: ErrorKind
    if status == 503:
        failure = "upstream_unavailable"
    elif status == 504:
        failure = "upstream_timeout"
    elif status >= 400:
        failure = "upstream_error"
    else:
        failure = "upstream_invalid"
    told = f"arm {arm!r} answered {status}" + (f": {message}" if message else "")
    return Refusal(http_status(failure), failure, error_body(told))


def client_id(value: bytes) -> str:
    """The client's x-request-id where it can stand in a header and a record as it is, else ""."""
    text = value.decode("latin-1")
    return text if len(text) <= _ID_LENGTH and text.isascii() and text.isprintable() else ""


def batch_told(headers: dict[bytes, bytes]) -> BatchInfo:
    """What a handler of ours tells of its batch; -1 for what it does not tell or what is no number."""

    def number(name: bytes) -> int:
        value = headers.get(name, b"")
        return int(value) if value.isdigit() else -1

    return BatchInfo(number(b"x-abgate-batch-size"), number(b"x-abgate-batch-rows"), number(b"x-abgate-queue-ns"))


def _told(body: bytes) -> tuple[str, str]:
    """The message in an error body, and TorchServe's exception name."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        message = document.get("error", document.get("message", ""))
        return str(message), str(document.get("type", ""))
    text = body[:_SHOWN].decode("utf-8", "replace").strip()
    return (text + _TOO_LONG if len(body) > _SHOWN else text), ""
