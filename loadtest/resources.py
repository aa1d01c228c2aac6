"""CPU and memory of everything in a run, by role, sampled while it runs.

A thread reads processes with psutil; each process counts for one role, its children for their parent's role unless they
have one of their own. Times are wall clock as in the ledger. Nothing here judges.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.5
_TREE_SECONDS = 2.0  # between two looks for new children: finding them reads every process of the machine

MACHINE = "machine"

Roots = Mapping[str, Sequence[int]]


@dataclass
class _Track:
    """One process: its samples (wall ns, CPU seconds since it was first seen) and its CPU seconds then."""

    process: psutil.Process
    role: str
    base: float
    times: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Usage:
    """A role's use of the machine in a window: CPU seconds, mean cores, the busiest process's mean cores, peak bytes."""

    role: str
    pids: tuple[int, ...]
    cpu_seconds: float
    mean_cores: float
    max_process_cores: float
    max_rss_bytes: int


class Sampler:
    """Samples until stopped. roots tells each role's processes anew at every look, as restarted servers change them.

    interval: seconds between samples. machine: also sample everything that runs, as the role MACHINE.
    """

    def __init__(self, roots: Callable[[], Roots], interval: float = INTERVAL, machine: bool = False) -> None:
        self._roots = roots
        self._interval = interval
        self._busy = (0, 0.0) if machine else None
        self._tracks: dict[tuple[int, float], _Track] = {}
        self._rows: list[tuple[int, str, float, int]] = []
        self._started = time.time()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end."""
        self._stop.set()
        self._thread.join()
        self.sample(look=False)

    def _run(self) -> None:
        count, every = 0, max(1, round(_TREE_SECONDS / self._interval))
        while True:
            self.sample(look=count % every == 0)
            count += 1
            if self._stop.wait(self._interval):
                return

    def sample(self, look: bool = True) -> None:
        """Read every known process once; look: find the roles' processes first."""
        with self._lock:
            if look:
                self._look()
            totals: dict[str, list[float]] = {}
            now = time.time_ns()
            for track in self._tracks.values():
                last_ns, last_cpu = (track.times[-1], track.cpu[-1]) if track.times else (0, 0.0)
                try:
                    with track.process.oneshot():
                        times, memory = track.process.cpu_times(), track.process.memory_info()
                except psutil.Error:
                    continue
                cpu = times.user + times.system - track.base
                track.times.append(now)
                track.cpu.append(cpu)
                total = totals.setdefault(track.role, [0.0, 0.0])
                total[0] += (cpu - last_cpu) / ((now - last_ns) / 1e9) if last_ns else 0.0
                total[1] += memory.rss
            if self._busy is not None:
                busy, (last_ns, last_busy) = _busy_seconds(), self._busy
                self._busy = (now, busy)
                totals[MACHINE] = [(busy - last_busy) / ((now - last_ns) / 1e9) if last_ns else 0.0, 0.0]
            self._rows += [(now, role, cores, int(rss)) for role, (cores, rss) in sorted(totals.items())]

    def _look(self) -> None:
        roots = {pid: role for role, pids in self._roots().items() for pid in pids}
        for pid, role in roots.items():
            for process in _tree(pid, roots):
                self._track(process, role)

    def _track(self, process: psutil.Process, role: str) -> None:
        try:
            key = (process.pid, process.create_time())
            if key in self._tracks:
                return
            times = process.cpu_times()
            # a process born after the first sample owes its whole CPU time to this run
            base = 0.0 if key[1] > self._started else times.user + times.system
        except psutil.Error:
            return
        self._tracks[key] = _Track(process, role, base)

    def rows(self) -> list[tuple[int, str, float, int]]:
        """(time_ns, role, cpu_cores over the last interval, rss_bytes) in order of time."""
        with self._lock:
            return list(self._rows)

    def usage(self, start_ns: int, end_ns: int) -> list[Usage]:
        """Each role's use inside [start, end), interpolated between samples."""
        seconds = max((end_ns - start_ns) / 1e9, 1e-9)
        with self._lock:
            roles: dict[str, list[tuple[int, float]]] = {}
            for track in self._tracks.values():
                used = at(track.times, track.cpu, end_ns) - at(track.times, track.cpu, start_ns)
                roles.setdefault(track.role, []).append((track.process.pid, used))
            peak = dict.fromkeys(roles, 0)
            for time_ns, role, _, rss in self._rows:
                if start_ns <= time_ns < end_ns:
                    peak[role] = max(peak[role], rss)
        return [
            Usage(
                role,
                tuple(pid for pid, _ in used),
                sum(cpu for _, cpu in used),
                sum(cpu for _, cpu in used) / seconds,
                max(cpu for _, cpu in used) / seconds,
                peak[role],
            )
            for role, used in sorted(roles.items())
        ]


def _busy_seconds() -> float:
    """CPU seconds that all cores together have worked since boot, time that a hypervisor took away included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _tree(pid: int, roots: Mapping[int, str]) -> list[psutil.Process]:
    """A process and its descendants, without those that are roots themselves and what is below them.

    This process stands for itself alone: what it started has a role of its own or none.
    """
    try:
        process = psutil.Process(pid)
        if pid == os.getpid():
            return [process]
        found = {pid: process}
        for child in process.children(recursive=True):  # parents come before their children
            if child.pid not in roots and child.ppid() in found:
                found[child.pid] = child
        return list(found.values())
    except psutil.Error:
        return []


def at(times: Sequence[int], values: Sequence[float], time_ns: int) -> float:
    """A cumulative series at a time: 0 before its first sample, its last value after the last, linear between."""
    if not times or time_ns < times[0]:
        return 0.0
    if time_ns >= times[-1]:
        return values[-1]
    right = bisect_left(times, time_ns)
    if times[right] == time_ns:
        return values[right]
    share = (time_ns - times[right - 1]) / (times[right] - times[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


def write_resources(path: Path, rows: Sequence[tuple[int, str, float, int]]) -> None:
    """Write `Sampler.rows` as Parquet."""
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    types = (DataType.int64(), DataType.utf8(), DataType.float64(), DataType.int64())
    names = ("time_ns", "role", "cpu_cores", "rss_bytes")
    arrays: dict[str, Any] = {
        name: Array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)
    }
    write_parquet(Table(arrays), str(path))
