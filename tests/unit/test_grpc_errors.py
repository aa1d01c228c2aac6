"""How a gRPC call's end becomes an error of ours: the status and the transport's own words, by table."""

from typing import Any

import grpc
import pytest

from gateway.upstream.grpc_client import translate

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (
            Code.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
            "upstream_refused",
        ),
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: ... Socket closed", "upstream_refused"),
        (Code.UNAVAILABLE, "DNS resolution failed for nowhere:1", "upstream_refused"),
        (Code.UNAVAILABLE, "Stream removed (Socket closed)", "upstream_reset"),
        (Code.UNAVAILABLE, "Socket closed", "upstream_reset"),
        (Code.UNAVAILABLE, "recvmsg:Connection reset by peer", "upstream_reset"),
        (Code.UNAVAILABLE, "GOAWAY received", "upstream_reset"),
        (Code.CANCELLED, "RST_STREAM error code 8", "upstream_reset"),
        (Code.CANCELLED, "CANCELLED", "upstream_reset"),
        (Code.UNKNOWN, "Stream removed", "upstream_reset"),
        (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full",
            "upstream_unavailable",
        ),
        (Code.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)", "upstream_timeout"),
        (Code.DEADLINE_EXCEEDED, "its own", "upstream_timeout"),
        (
            Code.RESOURCE_EXHAUSTED,
            "Stream removed (CLIENT: Received message larger than max (5000 vs. 1000))",
            "upstream_invalid",
        ),
        (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (5 vs. 4)", "upstream_rejected"),
        (Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted", "upstream_rejected"),
        (Code.INVALID_ARGUMENT, "Task size 5 is larger than maximum input batch size 4", "upstream_rejected"),
        (Code.NOT_FOUND, "Servable not found for request: Latest(x)", "upstream_rejected"),
        (Code.UNIMPLEMENTED, "Method not found!", "upstream_rejected"),
        (Code.INTERNAL, "Worker died.", "upstream_error"),
        (Code.UNKNOWN, "Unexpected <class 'ValueError'>: boom", "upstream_error"),
        (Code.DATA_LOSS, "lost", "upstream_error"),
    ],
)
def test_kinds(code: Any, details: str, kind: str) -> None:
    error = translate(code, details)
    assert (error.kind, error.message, error.code) == (kind, details, code.value[0])


def test_a_status_without_words() -> None:
    assert translate(Code.INTERNAL, "").message == "INTERNAL"
