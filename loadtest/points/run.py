"""A point in a process of its own: started, watched and ended for certain; its result read from its files.

The generator's process is free of everything its caller has loaded and of its caller's threads, so that its cost is its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from gateway.errors import ConfigError
from loadtest.points.files import JOB, LOG, POINT, REQUESTS, load_result, save_job
from loadtest.points.spec import PointResult, PointSpec

_ROOT = Path(__file__).resolve().parents[2]


class PointError(RuntimeError):
    """The generator's process failed; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a point that runs: seconds since its warm-up began and in all; requests begun and under way."""

    elapsed: float
    total: float
    begun: int
    under_way: int


def run_point(spec: PointSpec, folder: Path, on_progress: Callable[[Progress], None] | None = None) -> PointResult:
    """Run one point to its end; its files are then in the folder, which is made.

    Blocks for the warm-up, the duration and at most the timeout. Raises ConfigError for a spec that cannot be run and
    PointError when the generator dies; on any other exception, KeyboardInterrupt too, the process is gone before it
    passes on. A server that fails is no exception: the result counts it.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (POINT, REQUESTS):
        (folder / name).unlink(missing_ok=True)
    with start_point(spec, folder) as process:
        try:
            _follow(process, spec, on_progress)
            code = process.wait()
        finally:
            end_point(process)
    if code == 0:
        return load_result(folder)
    log = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if code == 3:
        raise ConfigError(log or ["the point cannot be run"])
    raise PointError(f"the generator ended with {code}: " + "\n".join(log[-5:] or ["it wrote no log"]))


def start_point(spec: PointSpec, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process: progress on its stdout; it dies when its stdin closes. Use `end_point` in a finally."""
    save_job(spec, folder)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
    }
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "loadtest.points", str(folder / JOB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is the parent's to handle
        )


def _follow(process: subprocess.Popen[bytes], spec: PointSpec, on_progress: Callable[[Progress], None] | None) -> None:
    total = spec.load.warmup + spec.load.duration
    assert process.stdout is not None
    for line in process.stdout:
        if on_progress is not None:
            with suppress(orjson.JSONDecodeError):
                on_progress(Progress(total=total, **orjson.loads(line)))


def end_point(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's session and wait for it."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
