"""Which threads of a server are just-in-time compilers, and the CPU time they have used.

HotSpot names its compilers' threads "C1 CompilerThread0", "C2 CompilerThread0" and so on, of which Linux keeps 15 characters
(/proc/PID/task/TID/comm). Where there is no /proc nothing is found, and nobody may conclude anything from that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

QUIET = 0.1
"""Cores that compilers may use while a server counts as warm."""

_COMPILER = "CompilerThre"
_USER, _SYSTEM = 11, 12  # of what stands behind the name in /proc/PID/task/TID/stat, proc(5)

Threads = Mapping[tuple[int, int], float]
"""(process, thread) -> CPU seconds since it was started."""


def compilers(pids: Iterable[int]) -> Threads:
    """The compilers' threads among those of the processes."""
    found: dict[tuple[int, int], float] = {}
    for pid in pids:
        for place in _tasks(pid):
            with suppress(OSError):
                if _COMPILER in (place / "comm").read_text():
                    fields = (place / "stat").read_text().rpartition(")")[2].split()
                    found[pid, int(place.name)] = (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")
    return found


def processes(roots: Iterable[int]) -> list[int]:
    """The roots that run and everything below them."""
    found: list[int] = []
    for root in roots:
        with suppress(psutil.Error):
            found += [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return sorted(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def spent(before: Threads, after: Threads) -> float:
    """CPU seconds between two looks; what a thread that ended used since the first one is not known, and left out. PURE."""
    return sum(seconds - before.get(thread, 0.0) for thread, seconds in after.items())
