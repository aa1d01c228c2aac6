"""The generator's processes: Locust headless or with its page, in one process or as master and workers.

Starts them in a session of their own, so that a terminal's Ctrl-C reaches only the parent, which decides; stops them for
certain. Knows nothing of what they send.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from backends.free_ports import free_ports
from loadtest.job import ENVIRONMENT, WORKER

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


class Generator:
    """The running processes; a context manager that leaves none behind."""

    def __init__(self, job_file: Path, log: Path, *, workers: int, ui_port: int | None, stop_timeout: float) -> None:
        self._environment = {**os.environ, ENVIRONMENT: str(job_file)}
        self._log = log
        self._workers = workers
        self._ui_port = ui_port
        self._stop_timeout = stop_timeout
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Generator:
        common = ["--stop-timeout", f"{self._stop_timeout:.0f}", "--loglevel", "WARNING"]
        lead = ["--only-summary", "--exit-code-on-error", "0"]
        if self._ui_port is None:
            lead += ["--headless"]
        else:
            lead += ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(self._ui_port)]
        with ExitStack() as guard:
            guard.callback(self.stop, 0.0)
            if self._workers:
                port = str(free_ports(1)[0])
                lead += ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
                lead += ["--expect-workers", str(self._workers), "--expect-workers-max-wait", "60"]
                self._start([*common, *lead], 0)
                for number in range(1, self._workers + 1):
                    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
                    self._start([*common, *worker], number)
            else:
                self._start([*common, *lead], 0)
            guard.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(3.0)

    def _start(self, arguments: Sequence[str], worker: int) -> None:
        environment = {**self._environment, WORKER: str(worker)}
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    @property
    def pids(self) -> list[int]:
        """Processes started, the leading one first."""
        return [process.pid for process in self._processes]

    @property
    def alive(self) -> bool:
        """Whether the leading process still runs."""
        return self._processes[0].poll() is None

    @property
    def exit_code(self) -> int | None:
        """The leading process's exit code, None while it runs."""
        return self._processes[0].poll()

    def wait(self, seconds: float) -> bool:
        """Wait for every process to end by itself; whether they did."""
        deadline = time.monotonic() + seconds
        try:
            for process in self._processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace: float) -> None:
        """End every process that is left: asked first, killed after grace seconds."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
