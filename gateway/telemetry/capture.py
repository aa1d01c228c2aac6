"""A capture: sampled requests, body and time, on their way to the disk.

Lives here: which requests are taken and what is kept of one until it ends; capture_writer has the files, capture_format
their form. The event loop draws a number, notes a body and appends to a bounded queue; it never waits and never writes. What
is kept is what a replay needs: never a unit (its keyed hash stands for it), never a header but those a codec needs.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.telemetry.capture_format import KEPT_HEADERS

_WAITING_BYTES = 32 << 20
_WAITING = 8192
_KEPT = tuple((name.encode("ascii"), name) for name in KEPT_HEADERS)


class Request(Protocol):
    """What a capture reads of a request; dataplane's Call."""

    kept: Any
    wall_ns: int
    start_ns: int
    protocol_in: str
    model: str
    version: str
    rows: int
    unit: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What is captured: the share of requests, at most size bytes in all, no body over body bytes, of models (empty: all).

    The same seed and the same order of requests take the same ones.
    """

    share: float
    size: int
    body: int
    models: Collection[str] = ()
    seed: int = 1


@dataclass(slots=True)
class Counts:
    """Requests seen, written, and lost: the queue was full, the body too big, the capture over before they were (late: it was
    stopped; ended: its size or the disk was used up). bytes: written. The loop counts seen, queue, body and late, the writer's
    thread the rest; one object for all captures of a process."""

    seen: int = 0
    queue: int = 0
    body: int = 0
    late: int = 0
    written: int = 0
    bytes: int = 0
    ended: int = 0

    def since(self, earlier: Counts) -> Counts:
        """What has been counted after another moment."""
        return Counts(*(getattr(self, name) - getattr(earlier, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that has ended, as the writer gets it; headers decoded, unit still raw (it is hashed before any byte is
    written)."""

    time_ns: int
    offset_ns: int
    protocol: str
    model: str
    version: str
    method: str
    path: str
    headers: Mapping[str, str]
    rows: int
    status: int
    unit: str
    body: bytes


class Capture:
    """The event loop's side of one capture; `waiting` is the writer's to empty."""

    def __init__(self, terms: Terms, counts: Counts, began_ns: int) -> None:
        """began_ns: the monotonic time that offsets count from."""
        self.terms = terms
        self.counts = counts
        self.stopped = False
        self.waiting: deque[Taken] = deque()
        self.taken_bytes = 0  # out of the queue, counted by the writer
        self._put_bytes = 0
        self._began_ns = began_ns
        self._draw = random.Random(terms.seed).random
        self._models = frozenset(terms.models)

    def take(self, call: Request, method: bytes, path: str, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Draw whether a request that has come whole is captured; its call then tells `end` how it went."""
        counts = self.counts
        counts.seen += 1
        if self._draw() >= self.terms.share:
            return
        if len(body) > self.terms.body:
            counts.body += 1
            return
        told = {name: headers[key].decode("latin-1") for key, name in _KEPT if key in headers}
        call.kept = Kept(self, method.decode("ascii"), path, told, body)

    def put(self, taken: Taken) -> None:
        """Queue it for the writer; dropped, counted, when too much waits."""
        if self.stopped:
            self.counts.late += 1
            return
        size = len(taken.body)
        if len(self.waiting) >= _WAITING or self._put_bytes - self.taken_bytes + size > _WAITING_BYTES:
            self.counts.queue += 1
            return
        self._put_bytes += size
        self.waiting.append(taken)

    def wants(self, model: str) -> bool:
        """Is it one of the models that are captured? (Over gRPC a request's model is known only after it was drawn.)"""
        return not self._models or model in self._models

    def offset(self, monotonic_ns: int) -> int:
        """Nanoseconds since the capture began."""
        return monotonic_ns - self._began_ns


class Kept:
    """One captured request under way."""

    __slots__ = ("_body", "_capture", "_headers", "_method", "_path")

    def __init__(self, capture: Capture, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self._capture = capture
        self._method = method
        self._path = path
        self._headers = headers
        self._body = body

    def end(self, call: Request, status: int) -> None:
        """The request has ended; status is what the client saw."""
        capture = self._capture
        if capture.wants(call.model):
            capture.put(
                Taken(
                    call.wall_ns,
                    capture.offset(call.start_ns),
                    call.protocol_in,
                    call.model,
                    call.version,
                    self._method,
                    self._path,
                    self._headers,
                    call.rows,
                    status,
                    call.unit,
                    self._body,
                )
            )
