"""One error type of the stand-in, and its two faces: a gRPC code and an HTTP status.

Lives here: the canonical code, the error, the code -> HTTP table of TF Serving (http_server.cc, tag 2.19.1).
Must not live here: message texts (they stand where the fault is found) and any import of grpc or TensorFlow.
"""

from __future__ import annotations

from enum import IntEnum

GRPC_MESSAGE_LIMIT = 1024  # grpc_status_util.cc: longer messages do not fit a trailer


class Code(IntEnum):
    """Canonical status codes; the numbers are those of gRPC and of TensorFlow's OpError."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS: dict[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


class ServingError(Exception):
    """A request that cannot be answered: canonical code and the text the client gets."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """HTTP status of the REST answer; 500 for codes TF Serving does not map."""
        return HTTP_STATUS.get(self.code, 500)

    @property
    def grpc_message(self) -> str:
        """Message as gRPC carries it, cut like TF Serving cuts it."""
        if len(self.message) <= GRPC_MESSAGE_LIMIT:
            return self.message
        return self.message[:GRPC_MESSAGE_LIMIT] + "...TRUNCATED"

    def __str__(self) -> str:
        """`absl::Status::ToString()`: the code's name, then the message; nested messages carry it."""
        return f"{self.code.name}: {self.message}"


def invalid(message: str) -> ServingError:
    """Build the most frequent error."""
    return ServingError(Code.INVALID_ARGUMENT, message)
