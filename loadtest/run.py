"""A whole load test: prepare, generate and watch, gather.

The one place that knows the order of things. It runs in the command's own process, never under gevent; the generator is
a subprocess. Interrupted by Ctrl-C or SIGTERM it still writes what was measured and leaves no process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from backends.free_ports import free_ports
from gateway.errors import ConfigError
from gateway.protocol.signature_file import SignatureError
from loadtest.admin import AdminError
from loadtest.arrivals import Window
from loadtest.gather import finish
from loadtest.generator import Generator
from loadtest.job import Job, read
from loadtest.open_loop import OpenGenerator
from loadtest.options import RunOptions, RunResult
from loadtest.prepare import Prepared, prepare
from loadtest.resources import Sampler
from loadtest.watch import Watch

__all__ = ["RunOptions", "RunResult", "run"]

End = Literal["reached", "interrupted", "stopped on Locust's page", "failed"]


def run(options: RunOptions, console: Console | None = None) -> RunResult:
    """Run one load test to its end; never raises for what is wrong outside, the result says it (see RunResult)."""
    width = None if sys.stderr.isatty() else 100
    console = console or Console(quiet=not options.progress, stderr=True, width=width)
    try:
        stop = signal.default_int_handler  # also where a shell started us in the background with SIGINT ignored
        with _handling(signal.SIGINT, stop), _handling(signal.SIGTERM, stop):
            prepared = prepare(options)
            return _run(prepared, console)
    except (ConfigError, SignatureError) as error:
        return RunResult(None, 3, tuple(error.problems))
    except AdminError as error:
        return RunResult(None, 3, (f"no gateway: {error}; start one with `abgate up`, or load a server with --direct",))
    except KeyboardInterrupt:
        return RunResult(None, 2, ("interrupted before anything was measured",))


@contextmanager
def _handling(number: int, handler: Any) -> Iterator[None]:
    """Another handler for a signal for a while; only the main thread has handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


def _run(prepared: Prepared, console: Console) -> RunResult:
    """Generate and watch, then gather and write, whatever happened in between."""
    options, job = prepared.options, prepared.job
    watch = Watch(job, prepared.run_dir, prepared.admin, prepared.involved)
    if prepared.files.manifest is None:
        watch.observed.note("no parity manifest for this model: equal outputs of the arms are not proved")
    ui_port = (options.ui_port or free_ports(1)[0]) if options.ui else None
    log = prepared.run_dir / ("locust.log" if job.profile.arrivals is None else "generator.log")
    with _generator(prepared, log, ui_port) as generator:
        sampler = Sampler(lambda: _roots(prepared, generator))
        sampler.start()
        window, end = _follow(prepared, watch, generator, ui_port, console)
        # what was measured is written even when Ctrl-C is pressed again: it takes seconds
        with _handling(signal.SIGINT, signal.SIG_IGN), _handling(signal.SIGTERM, signal.SIG_IGN):
            cut_ns = time.time_ns()
            sampler.stop()
            if window is not None:
                watch.scrape("after")
            _settle(generator, job, end)
            if end == "failed":
                watch.observed.note(f"the generator failed, exit code {generator.exit_code}: {_tail(log)}")
            elif end != "reached":
                watch.observed.note(end)
            failure = watch.observed.events[-1]["what"] if end == "failed" else None
            result = finish(prepared, watch, sampler, (window, None if end == "reached" else cut_ns), console)
        if failure is not None:
            return RunResult(prepared.run_dir, 99, (failure, *result.reasons))
        if end == "reached" and ui_port is not None and options.hold_ui and isinstance(generator, Generator):
            _hold(console, generator, ui_port)
    return result


def _generator(prepared: Prepared, log: Path, ui_port: int | None) -> Generator | OpenGenerator:
    """What sends: this package's own engine where the profile has arrivals, else Locust."""
    job = prepared.job
    if job.profile.arrivals is not None:
        return OpenGenerator(job, log)
    return Generator(
        job.save(), log, workers=prepared.options.workers, ui_port=ui_port, stop_timeout=job.profile.timeout + 2
    )


def _follow(
    prepared: Prepared, watch: Watch, generator: Generator | OpenGenerator, ui_port: int | None, console: Console
) -> tuple[Window | None, End]:
    """Look on until the run is over, and say how it ended; the window is None when it never began."""
    window = None
    try:
        window = watch.window(generator)
        if window is None:
            return None, "failed"
        _announce(console, prepared, ui_port)
        if watch.follow(generator, window, console):
            return window, "reached"
        failed = not generator.alive and generator.exit_code != 0
        return window, "failed" if failed else "stopped on Locust's page"
    except KeyboardInterrupt:
        return window, "interrupted"


def _settle(generator: Generator | OpenGenerator, job: Job, end: End) -> None:
    """Let requests under way come back and the journals be written; end the generator where the run did not."""
    if end != "reached":
        generator.stop(3.0)
        return
    if isinstance(generator, OpenGenerator):  # it judges and writes what it has before it ends
        generator.wait(job.profile.timeout + 60)
        return
    deadline = time.monotonic() + job.profile.timeout + 5
    while generator.alive and time.monotonic() < deadline:
        if (read(job.progress_file) or {}).get("state") == "stopped":  # with Locust's page the processes stay
            break
        time.sleep(0.05)
    generator.wait(2.0)


def _roots(prepared: Prepared, generator: Generator | OpenGenerator) -> dict[str, list[int]]:
    roles = {"generator": [os.getpid(), *generator.pids], "gateway": list(prepared.gateway_pids)}
    for name, backend in prepared.backends().items():
        if backend.pid:
            roles[f"backend:{name}"] = [backend.pid]
    return roles


def _announce(console: Console, prepared: Prepared, ui_port: int | None) -> None:
    job = prepared.job
    where = "the gateway" if job.target.kind == "gateway" else f"{job.target.arm} directly"
    addresses = {"tfs-rest": job.target.http, "tfs-grpc": job.target.grpc}
    used = ", ".join(f"{protocol} {addresses[protocol]}" for protocol in job.profile.protocols)
    console.print(f"load test {job.profile.name!r} of model {job.profile.model} at {where} ({used})")
    if prepared.replayed:
        console.print(prepared.replayed, markup=False, soft_wrap=True)
    if ui_port is not None:
        console.print(f"Locust's page: http://127.0.0.1:{ui_port}")
        if sys.stdout.isatty():
            webbrowser.open(f"http://127.0.0.1:{ui_port}")


def _hold(console: Console, generator: Generator, ui_port: int) -> None:
    console.print(f"The run is written. Locust's page stays at http://127.0.0.1:{ui_port}; Ctrl-C ends it.")
    try:
        while generator.alive:
            generator.wait(0.5)
    except KeyboardInterrupt:
        pass


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "no log"
