"""An open-loop load test: a generator process a protocol, all beginning together; afterwards their requests in the ledger.

The mix splits the rate: Poisson arrivals split at random are Poisson arrivals again, so each protocol has a schedule of its
own. Stands where Locust's Generator stands in a run of users. What a point does is points' business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gateway.stats.result import NotComputable
from gateway.stats.schedule import ScheduleCheck, schedule_check
from loadtest.arrivals import Window
from loadtest.job import Job, replace
from loadtest.ledger import DUE, SEGMENT_ROWS, Row, Segment, write_columns
from loadtest.points.files import LOG, load_columns, load_result
from loadtest.points.run import LEAD_NS, PointProcess, Progress
from loadtest.points.spec import Load, PointResult, PointSpec
from loadtest.points.spec import Segment as Part
from loadtest.summary import Tallies


def specs(job: Job) -> dict[str, PointSpec]:
    """The point of each protocol of the job's mix, by protocol."""
    profile = job.profile
    made: dict[str, PointSpec] = {}
    for stream, (protocol, share) in enumerate(profile.protocols.items()):
        course = tuple(Part(part.seconds, part.from_rate * share, part.to_rate * share) for part in profile.course)
        load = Load(
            "open",
            profile.seconds,
            profile.warmup,
            arrivals="constant" if profile.arrivals == "constant" else "poisson",
            course=course,
            outstanding=max(1, round(profile.outstanding * share)),
        )
        made[protocol] = PointSpec(
            target=job.target,
            protocol=protocol,
            model=profile.model,
            load=load,
            payloads=job.payloads,
            signature=job.signature,
            signature_name=job.signature_name,
            rows=tuple((choice.rows, choice.weight) for choice in profile.rows),
            seed=profile.seed,
            timeout=profile.timeout,
            check=profile.check.kind,
            output=job.output,
            every=profile.check.every,
            unit_header=job.unit_header,
            replay=profile.replay,
            replay_speed=profile.speed,
            split=profile.split,
            rtol=profile.check.rtol,
            atol=profile.check.atol,
            population=profile.units.population,
            exponent=profile.units.exponent if profile.units.draw == "zipf" else None,
            stream=stream,
            named=True,
        )
    return made


def folder_of(job: Job, protocol: str) -> Path:
    """Where a protocol's point works."""
    return job.work / f"point-{protocol}"


class OpenGenerator:
    """The running processes, with the ways of `generator.Generator`; a context manager that leaves none behind."""

    def __init__(self, job: Job, log: Path) -> None:
        """log: gets what processes that failed have written."""
        self._job = job
        self._log = log
        self._points = {protocol: PointProcess(spec, folder_of(job, protocol)) for protocol, spec in specs(job).items()}
        self._progress: dict[str, Progress] = {}
        self._lock = threading.Lock()
        self._guard = ExitStack()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> OpenGenerator:
        with ExitStack() as guard:
            for point in self._points.values():
                guard.enter_context(point)
            ready = [point.ready() for point in self._points.values()]
            if all(ready):
                self._begin()
            self._guard = guard.pop_all()
        return self

    def _begin(self) -> None:
        begin = time.time_ns() + LEAD_NS
        window = Window.planned(self._job.profile.plan, begin, time.perf_counter_ns() + LEAD_NS)
        self._job.save_window(window)
        for protocol, point in self._points.items():
            point.begin(begin)
            thread = threading.Thread(target=self._follow, args=(protocol, point), name=protocol, daemon=True)
            thread.start()
            self._threads.append(thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for point in self._points.values():
            point.kill()
        for thread in self._threads:
            thread.join(5.0)
        self._guard.__exit__(kind, error, trace)

    def _follow(self, protocol: str, point: PointProcess) -> None:
        """Read one process's progress and tell that of all."""
        for progress in point.progress():
            with self._lock:
                self._progress[protocol] = progress
                if self._job.work.is_dir():
                    replace(self._job.progress_file, {"told": self._describe()})

    def _describe(self) -> str:
        """All protocols' progress in a line."""
        told = [
            f"{protocol} {item.begun / max(item.elapsed, 1e-9):.0f}/s, {item.under_way} under way"
            for protocol, item in sorted(self._progress.items())
        ]
        return "  ".join(told)

    @property
    def pids(self) -> list[int]:
        """Processes started."""
        return [point.pid for point in self._points.values()]

    @property
    def alive(self) -> bool:
        """Whether all still run."""
        return all(point.exit_code() is None for point in self._points.values())

    @property
    def exit_code(self) -> int | None:
        """The first process's exit code that is not 0, 0 when all ended well, None while any runs."""
        codes = [point.exit_code() for point in self._points.values()]
        bad = [code for code in codes if code]
        if bad:
            self._keep_logs()
            return bad[0]
        return None if None in codes else 0

    def _keep_logs(self) -> None:
        texts = [(folder_of(self._job, protocol) / LOG).read_bytes() for protocol in self._points]
        self._log.write_bytes(b"".join(texts))

    def wait(self, seconds: float) -> bool:
        """Wait for every process to end by itself; whether they did."""
        deadline = time.monotonic() + seconds
        ended = [point.wait(max(0.0, deadline - time.monotonic())) for point in self._points.values()]
        return all(ended)

    def stop(self, grace: float) -> None:
        """End the window now and let every process write what it has; killed after grace seconds."""
        for point in self._points.values():
            point.stop()
        self.wait(grace)
        for point in self._points.values():
            point.kill()


@dataclass(frozen=True, slots=True)
class Kept:
    """What an open loop left in the ledger: its segments, its schedule, and its generators' results."""

    segments: Sequence[Segment]
    schedule: ScheduleCheck | NotComputable
    results: Sequence[PointResult]

    @property
    def generator_us(self) -> float | None:
        """CPU microseconds the generators spent on a request, by their own clocks."""
        sent = sum(result.sent for result in self.results)
        return 1e6 * sum(result.generator_cpu_seconds for result in self.results) / sent if sent else None


def gather(job: Job, directory: Path, window: Window, tallies: Tallies, service: Tallies) -> Kept:
    """Write the points' requests as the ledger; counts the sent ones: latency from the due time, and the service time."""
    segments: list[Segment] = []
    results: list[PointResult] = []
    due, sent = [], []
    for protocol in job.profile.protocols:
        folder = folder_of(job, protocol)
        try:
            result, columns = load_result(folder), load_columns(folder)
        except (FileNotFoundError, OSError):
            continue
        results.append(result)
        spoken = job.target.protocol(protocol)
        inside = (columns["due_ns"] >= window.start_ns) & (columns["due_ns"] < window.end_ns)
        due.append(columns["due_ns"][inside])
        sent.append(columns["sent_ns"][inside])
        for number, begin in enumerate(range(0, columns["due_ns"].size, SEGMENT_ROWS)):
            part = {name: column[begin : begin + SEGMENT_ROWS] for name, column in columns.items()}
            made = ledger_columns(part, spoken, job.target.arm, window.start_ns)
            path = directory / f"ledger-{protocol}-{number:04d}.parquet"
            write_columns(path, made)
            segments.append(Segment(path, part["due_ns"].size))
            _count(made, tallies, service)
    none = np.empty(0, dtype=np.int64)
    check = schedule_check(np.concatenate([none, *due]), np.concatenate([none, *sent]))
    return Kept(segments, check, results)


def ledger_columns(columns: dict[str, Any], protocol: str, arm: str, start_ns: int) -> dict[str, list[Any]]:
    """A point's columns as the ledger's. arm: a direct run's only server, "" where the answers tell."""
    gone = (columns["sent_ns"] >= 0).tolist()
    size = len(gone)

    def only_sent(values: Any) -> list[Any]:
        return [value if is_sent else None for value, is_sent in zip(values.tolist(), gone, strict=True)]

    return {
        "send_ns": only_sent(columns["sent_ns"]),
        "latency_ns": only_sent(np.maximum(columns["ended_ns"] - columns["sent_ns"], 0)),
        "protocol": [protocol] * size,
        "unit": columns["unit"].tolist(),
        "arm": [arm] * size if arm else columns["arm"].tolist(),
        "assignment": columns["assignment"].tolist(),
        "request_id": columns["request_id"].tolist(),
        "status": columns["status"].tolist(),
        "error": columns["error"].tolist(),
        "rows": columns["rows"].tolist(),
        "correct": [None if value < 0 else bool(value) for value in columns["correct"].tolist()],
        "warmup": (columns["due_ns"] < start_ns).tolist(),
        DUE: columns["due_ns"].tolist(),
    }


def _count(made: dict[str, list[Any]], tallies: Tallies, service: Tallies) -> None:
    sent = [place for place, value in enumerate(made["send_ns"]) if value is not None]
    kept = {name: [made[name][place] for place in sent] for name in (*Row._fields, DUE)}
    # in the window by the time it was due, or a late generator would move its worst requests out of it
    due = np.array(kept[DUE], dtype=np.int64)
    lag = np.array(kept["send_ns"], dtype=np.int64) - due
    service.see({**kept, "send_ns": kept[DUE]})
    latency = np.array(kept["latency_ns"], dtype=np.int64) + lag
    tallies.see({**kept, "send_ns": kept[DUE], "latency_ns": latency.tolist()})
