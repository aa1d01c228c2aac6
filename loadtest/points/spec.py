"""What a point is, in values: the load, the target, the requests, and what comes back. PURE.

Lives here: the frozen descriptions that cross from the lab to the generator's process (as JSON) and back (as JSON and
Parquet), and nothing that opens a socket or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loadtest.targets import Target

Protocol = Literal["tfs-rest", "tfs-grpc"]
Arrivals = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an open loop's course: the rate goes linearly from from_rate to to_rate (requests per second)."""

    seconds: float
    from_rate: float
    to_rate: float


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent. Times in seconds.

    kind closed: `concurrency` requests under way at any time. kind open: arrivals by `course` (the warm-up runs at the
    course's first rate), at most `outstanding` under way; an arrival that finds no free place is dropped and counted.
    """

    kind: Literal["closed", "open"]
    duration: float
    warmup: float = 0.0
    concurrency: int | None = None
    arrivals: Arrivals = "poisson"
    course: tuple[Segment, ...] = ()
    outstanding: int = 512

    @staticmethod
    def closed(concurrency: int, duration: float, warmup: float = 0.0) -> Load:
        """So many requests under way at any time."""
        return Load("closed", duration, warmup, concurrency)

    @staticmethod
    def open(
        rate: float, duration: float, warmup: float = 0.0, arrivals: Arrivals = "poisson", outstanding: int = 512
    ) -> Load:
        """A constant mean rate in requests per second."""
        return Load("open", duration, warmup, None, arrivals, (Segment(duration, rate, rate),), outstanding)


@dataclass(frozen=True, slots=True)
class PointSpec:
    """One point. arm and block: sent as x-abgate-arm and x-abgate-block where not empty, so that the gateway forces the
    arm and calls the assignment `block`. rows: (rows a request, weight). replay: a capture to send instead of payloads, of it
    the model's requests over the protocol's transport (model "": every model's); an open load keeps its times.

    check: "off", "label" or "reference" as in a profile; every n: one answer in n is judged. timeout in seconds. population:
    how many assignment units there are, drawn evenly, or by Zipf's law with this exponent.
    connections: gRPC channels, 0: one for every request under way, at most 8.
    stream: another one draws other times and payloads for the same units.
    named: also keep each request's unit, arm, assignment and id (columns NAMED of its file).
    replay_speed: 2 sends a capture twice as fast; a closed load ignores its times.
    """

    target: Target
    protocol: Protocol
    model: str
    load: Load
    payloads: Path
    signature: Path | None = None
    signature_name: str = "serving_default"
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    arm: str = ""
    block: str = ""
    seed: int = 1
    timeout: float = 10.0
    check: Literal["off", "label", "reference"] = "off"
    output: str | None = None
    every: int = 8
    unit_header: str = "x-user-id"
    replay: Path | None = None
    replay_speed: float = 1.0
    split: Literal["test", "train", "all"] = "test"
    rtol: float = 1e-3
    atol: float = 1e-4
    population: int = 10_000
    exponent: float | None = None
    connections: int = 0
    stream: int = 0
    named: bool = False


COLUMNS = (
    "due_ns",  # int64, wall clock; when the schedule wanted it sent; closed loop: equal to sent_ns
    "sent_ns",  # int64, wall clock; -1: dropped, never sent
    "done_ns",  # int64, wall clock; -1: no whole answer came
    "status",  # int16: HTTP status or gRPC code; 0 where nothing came (REST) or fine (gRPC)
    "error",  # dictionary-like text, "" is a good answer; "dropped", "timeout", "refused", "reset", "http 503", ...
    "rows",  # int32
    "correct",  # int8: -1 not judged, 0 wrong, 1 right
    "upstream_ns",  # int64 from server-timing through the gateway, -1 where it is not told
    "gateway_ns",  # int64 from server-timing, -1
    "codec_ns",  # int64 from server-timing, -1
    "batch_size",  # int32: requests in the server's batch where the answer tells it, -1 else
    "queue_ns",  # int64: time in the server's queue where the answer tells it, -1 else
)

NAMED = (
    "unit",  # text: the assignment unit
    "arm",  # text: from the answer, "" where it does not tell
    "assignment",  # text: from the answer
    "request_id",  # text: as sent
    "ended_ns",  # int64, wall clock: when the answer came or the request failed; -1: dropped
)


@dataclass(frozen=True)
class Requests:
    """All requests of a point in order of due time, one array per column of COLUMNS, warm-up included."""

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.int16]
    error: NDArray[Any]
    rows: NDArray[np.int32]
    correct: NDArray[np.int8]
    upstream_ns: NDArray[np.int64]
    gateway_ns: NDArray[np.int64]
    codec_ns: NDArray[np.int64]
    batch_size: NDArray[np.int32]
    queue_ns: NDArray[np.int64]


@dataclass(frozen=True)
class PointResult:
    """What a point left. Window [start_ns, end_ns) is wall clock and holds no warm-up: rows are in it by due_ns.

    generator_cpu_seconds and generator_seconds: the generator process's own, over the window; so the cost per request is
    their quotient with the requests sent. achieved: answers per second over the window; offered: arrivals per second.
    """

    folder: Path
    spec: PointSpec
    warmup_start_ns: int
    start_ns: int
    end_ns: int
    generator_pid: int
    generator_cpu_seconds: float
    generator_seconds: float
    due: int
    sent: int
    late: int
    dropped: int
    good: int
    failed: int
    offered: float
    achieved: float
    notes: tuple[str, ...] = field(default=())

    @property
    def generator_cores(self) -> float:
        """Share of a core the generator used."""
        return self.generator_cpu_seconds / self.generator_seconds if self.generator_seconds > 0 else 0.0

    @property
    def generator_us(self) -> float | None:
        """CPU microseconds the generator spent on a request, None without one."""
        return 1e6 * self.generator_cpu_seconds / self.sent if self.sent else None
