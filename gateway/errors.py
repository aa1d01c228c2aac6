"""The families of errors, each with a closed set of kinds.

Lives here: what can go wrong, in words that name no wire format. Does not live here: HTTP or gRPC codes
(one table in protocol/status.py translates a kind at the edge), logging, retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

ErrorKind = Literal[
    "invalid_argument",  # the guard: name, element type, rank, dimension, ragged, empty, bad JSON
    "failed_precondition",  # e.g. an unknown signature over gRPC
    "not_found",  # model, version, label
    "unauthenticated",
    "permission_denied",  # e.g. a forced arm where that is not allowed
    "conflict",  # a stale revision
    "too_large",  # body, header or row limits
    "unimplemented",
    "overloaded",  # an arm's concurrency is used up
    "draining",
    "upstream_refused",  # nothing was sent
    "upstream_reset",  # the connection ended before a whole answer
    "upstream_timeout",
    "upstream_invalid",  # an answer that is not one
    "upstream_error",  # the arm answered 5xx
    "upstream_unavailable",  # the arm answered 503 / UNAVAILABLE
    "upstream_rejected",  # the arm answered 4xx
    "client_gone",
    "internal",
]


class AbgateError(Exception):
    """Base of every error abgate raises on purpose."""


class ConfigError(AbgateError):
    """All problems of a configuration at once.

    problems: one line each, "path: what is wrong; what would be right".
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RequestError(AbgateError):
    """One request that is not answered with a result.

    kind decides the status code at the edge; retry_after is in seconds where waiting helps.
    """

    def __init__(self, kind: ErrorKind, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.retry_after = retry_after


class UpstreamError(RequestError):
    """An arm failed: refused, reset, timed out, or answered something that is no answer."""
