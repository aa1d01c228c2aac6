"""A point in a process of its own: started, watched and ended for certain; its result read from its files.

The generator's process is free of everything its caller has loaded and of its caller's threads, so that its cost is its own.
It says when it is ready and begins when it is told, so that several can begin together.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from gateway.errors import ConfigError
from loadtest.points.files import JOB, LOG, POINT, REQUESTS, load_result, save_job
from loadtest.points.spec import PointResult, PointSpec

_ROOT = Path(__file__).resolve().parents[2]
LEAD_NS = 50_000_000  # between the word to begin and the first arrival


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
    with PointProcess(spec, folder) as process:
        if process.ready():
            process.begin(time.time_ns() + LEAD_NS)
        for progress in process.progress():
            if on_progress is not None:
                on_progress(progress)
        return process.result()


class PointProcess:
    """A generator's process; a context manager that leaves none behind."""

    def __init__(self, spec: PointSpec, folder: Path) -> None:
        """Nothing is started yet; the folder is made and what an earlier point left in it removed."""
        self._spec = spec
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (POINT, REQUESTS):
            (self._folder / name).unlink(missing_ok=True)
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> PointProcess:
        save_job(self._spec, self._folder)
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with (self._folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadtest.points", str(self._folder / JOB)],
                stdin=subprocess.PIPE,  # its end, whatever the reason, ends the process
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # a terminal's Ctrl-C is the parent's to handle
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def ready(self) -> bool:
        """Wait until everything is prepared and connected; False when the process ended instead."""
        return any("ready" in told for told in self._told())

    def begin(self, begin_ns: int) -> None:
        """Let the warm-up begin at this wall clock time."""
        self._say(b"begin %d\n" % begin_ns)

    def stop(self) -> None:
        """End the window now; what was measured is written all the same."""
        self._say(b"stop\n")

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # a process that has ended hears nothing
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _told(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            with suppress(orjson.JSONDecodeError):
                yield orjson.loads(line)

    def progress(self) -> Iterator[Progress]:
        """What the process tells, until it ends."""
        total = self._spec.load.warmup + self._spec.load.duration
        for told in self._told():
            yield Progress(total=total, **told)

    def wait(self, seconds: float) -> bool:
        """Wait for the process's end; whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill what is left of the process's session and wait for it."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def result(self) -> PointResult:
        """Wait for the end and read the files; raises as `run_point` does."""
        code = self._process.wait()
        if code == 0:
            return load_result(self._folder)
        log = (self._folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code == 3:
            raise ConfigError(log or ["the point cannot be run"])
        raise PointError(f"the generator ended with {code}: " + "\n".join(log[-5:] or ["it wrote no log"]))
