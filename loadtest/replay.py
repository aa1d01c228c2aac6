"""Replay: the requests of a capture in the order and at the distances in which they came.

PURE apart from reading the capture's files (format: gateway/telemetry/capture_format.py). What is due when is fixed before the
first request goes out; sending is the engine's. Times are int64 nanoseconds from the first request chosen.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import ConfigError
from gateway.telemetry.capture_format import SUFFIX, Captured, CaptureError, Place, Start, read

_WRONG_CALLS = (3, 5, 9, 11, 12)  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED
_MOST = 50_000_000  # requests of a replay: 400 MB of due times


@dataclass(frozen=True, slots=True)
class Options:
    """What to replay and how fast.

    speed: 2 sends twice as fast as it was captured; loops: how often the capture is sent, one after the other; seconds: as
    long as it takes to fill that time (loops does not count then); most: at most so many requests; models, protocols: only
    those (None: all). refused: also what was refused as a wrong request when it was captured.
    """

    speed: float = 1.0
    loops: int = 1
    seconds: float | None = None
    most: int | None = None
    models: Collection[str] | None = None
    protocols: Collection[str] | None = None
    refused: bool = False

    def problems(self) -> list[str]:
        """Every broken rule, one line each."""
        found = []
        if not 0 < self.speed <= 1e6:
            found.append(f"speed: must be above 0, 1 for as captured, not {self.speed}")
        if self.loops < 1:
            found.append(f"loops: must be at least 1, not {self.loops}")
        if self.seconds is not None and not self.seconds > 0:
            found.append(f"seconds: must be above 0, not {self.seconds}")
        if self.most is not None and self.most < 1:
            found.append(f"most: must be at least 1, not {self.most}")
        return found


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request to send again. method and headers: HTTP's (a gRPC call has neither); path: the URL's path or the gRPC
    method's, both with a leading slash; unit_hash: stands for the unit, so that equal units stay equal, "" without one."""

    protocol: str
    model: str
    version: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    rows: int
    unit_hash: str


class Replay:
    """Requests in time order: entry i of due_ns (int64 array) and protocol belongs to payload(i)."""

    def __init__(
        self,
        start: Start,
        requests: Sequence[Captured],
        bodies: Sequence[tuple[Any, Place]],
        options: Options,
        left_out: int = 0,
    ) -> None:
        """requests and bodies: the chosen ones, by time, at least one; a body is the data of its segment and its place.

        left_out: requests that were refused as they were captured.
        """
        self.start, self.left_out = start, left_out
        self._requests = requests
        self._bodies = bodies
        offsets = np.asarray([request.offset_ns for request in requests], dtype=np.int64)
        self.due_ns = due_times(offsets, options)
        count, chosen = len(self.due_ns), len(requests)
        self.protocol = [requests[index % chosen].protocol for index in range(count)]

    def __len__(self) -> int:
        return len(self.due_ns)

    @property
    def distinct(self) -> int:
        """How many requests of the capture are sent, loops not counted."""
        return min(len(self._requests), len(self.due_ns))

    @property
    def rate(self) -> float:
        """Requests a second over the whole replay, 0 for a single one."""
        return (len(self) - 1) * 1e9 / float(self.due_ns[-1]) if self.due_ns[-1] else 0.0

    @property
    def told(self) -> str:
        """What is replayed, for people: how many requests, of which part of the traffic, what was left out."""
        text = f"{self.distinct} requests of capture {self.start.capture}"
        if self.start.share < 1.0:
            whole = self.rate / self.start.share
            text += f", a sample of {100 * self.start.share:.3g}% of the traffic, which all in all came {whole:.3g} times a second"
            text += " at this speed"
        return text + (f"; {self.left_out} that were refused then are left out" if self.left_out else "")

    def payload(self, index: int) -> Recorded:
        """What to send as number `index`; its body is copied out of the file at every call."""
        place = index % len(self._requests)
        found = self._requests[place]
        data, where = self._bodies[place]
        return Recorded(
            found.protocol,
            found.model,
            found.version,
            found.method,
            found.path,
            found.headers,
            bytes(data[where.offset : where.offset + where.size]),
            found.rows,
            found.unit_hash,
        )

    @classmethod
    def load(cls, path: Path, options: Options | None = None) -> Replay:
        """Read a capture: its folder, one of its segments, or a folder that holds one capture. Raises ConfigError."""
        options = options or Options()
        if problems := options.problems():
            raise ConfigError([f"replay.{problem}" for problem in problems])
        found: list[tuple[Captured, Any, Place]] = []
        left_out = 0
        starts: list[Start] = []
        for file in segments(path):
            try:
                data = _opened(file)
                start, requests = read(data)
                starts.append(start)
                wanted = [(request, data, place) for request, place in requests if _chosen(request, options)]
                kept = [item for item in wanted if options.refused or not _refused(item[0])]
                left_out += len(wanted) - len(kept)
                found.extend(kept)
            except CaptureError as error:
                raise ConfigError([f"{file}: {error}"]) from error
        if len({start.capture for start in starts}) > 1:
            raise ConfigError([f"{path}: holds segments of different captures; keep each in its own folder"])
        if not found:
            gone = f"; {left_out} were refused as they were captured" if left_out else ""
            raise ConfigError([f"{path}: holds no request that is asked for{_told(options)}{gone}"])
        found.sort(key=lambda item: item[0].offset_ns)
        return cls(starts[0], [item[0] for item in found], [item[1:] for item in found], options, left_out)


def due_times(offsets: Any, options: Options) -> Any:
    """When each request is due, int64 ns from the first one; offsets: int64 ns, ascending, at least one.

    A loop follows the one before it at the capture's mean distance, so that its rate is kept. Raises ConfigError for a
    loop of requests that have no distance.
    """
    base = np.round((offsets - offsets[0]) / options.speed).astype(np.int64)
    count, span = len(base), int(base[-1])
    wanted = None if options.seconds is None else round(options.seconds * 1e9)
    loops, period = 1 if wanted is not None else options.loops, 0
    if loops > 1 or (wanted is not None and wanted > span):
        if span == 0:
            raise ConfigError([f"replay.loops: {count} request(s) at one moment have no rate that could be repeated"])
        period = round(span * count / (count - 1))
        loops = loops if wanted is None else -(-wanted // period)
    if options.most is not None:
        loops = min(loops, -(-options.most // count))
    if loops * count > _MOST:
        raise ConfigError([f"replay.loops: {loops} loops of {count} requests are more than {_MOST}; set most"])
    due = (np.arange(loops, dtype=np.int64)[:, None] * period + base[None, :]).reshape(-1)
    if wanted is not None:
        due = due[: int(np.searchsorted(due, wanted, side="left"))]
    return due[: options.most]


def segments(path: Path) -> list[Path]:
    """The files of the capture at a path, in order. Raises ConfigError where there is none, or more than one capture."""
    if path.is_file():
        return [path]
    here = sorted(path.glob(f"*{SUFFIX}"))
    if here:
        return here
    captures = sorted({file.parent for file in path.glob(f"*/*{SUFFIX}")})
    if len(captures) > 1:
        names = ", ".join(folder.name for folder in captures)
        raise ConfigError([f"{path}: holds {len(captures)} captures; name one of them: {names}"])
    if not captures:
        raise ConfigError([f"{path}: there is no capture; `abgate capture start` makes one"])
    return sorted(captures[0].glob(f"*{SUFFIX}"))


def _opened(file: Path) -> Any:
    try:
        with file.open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise CaptureError(f"cannot be read: {error}") from error


def _chosen(request: Captured, options: Options) -> bool:
    return (options.models is None or request.model in options.models) and (
        options.protocols is None or request.protocol in options.protocols
    )


def _refused(request: Captured) -> bool:
    """It was answered as a wrong request; too many requests, a timeout and a client that left are not that."""
    if request.protocol.endswith("grpc"):
        return request.status in _WRONG_CALLS
    return 400 <= request.status < 500 and request.status not in (408, 429, 499)


def _told(options: Options) -> str:
    wanted = [
        f"{name} {', '.join(sorted(chosen))}"
        for name, chosen in (("models", options.models), ("protocols", options.protocols))
        if chosen is not None
    ]
    return f" ({'; '.join(wanted)})" if wanted else ""
