"""What happens beside the generator while it runs: scrapes at the window's edges, the split's phases, restarts, progress.

One loop in the parent's main thread, ended by the generator's end, the window's end or the user's interruption. It reads
and notes; it starts and stops nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.admin import Admin, AdminError, fetch
from loadtest.arrivals import Window
from loadtest.job import Job, read
from loadtest.surroundings import Backend

_TICK = 0.1
_POLL = 1.0


@dataclass
class Observed:
    """What was seen: events and phases with wall times, the scrapes' file names, the last revision of the split."""

    events: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    scrapes: dict[str, dict[str, str]] = field(default_factory=dict)
    revision: int | None = None

    def note(self, what: str) -> None:
        """Keep an event with the present time."""
        self.events.append({"time_ns": time.time_ns(), "what": what})


class Sends(Protocol):
    """What is followed: a generator's leading process."""

    @property
    def alive(self) -> bool: ...

    @property
    def exit_code(self) -> int | None: ...


class Watch:
    """Follows one run. backends: the servers as they are now, read anew at every look."""

    def __init__(
        self, job: Job, run_dir: Path, admin: Admin | None, backends: Callable[[], Mapping[str, Backend]]
    ) -> None:
        self._job = job
        self._run_dir = run_dir
        self._admin = admin
        self._backends = backends
        self._seen: dict[str, tuple[str, int]] = {}
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="scrape")
        self._scraping: list[Future[None]] = []
        self.observed = Observed()

    def window(self, generator: Sends, patience: float = 90.0) -> Window | None:
        """Wait until the warm-up begins; None when the generator ended or did not begin in time."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            window = self._job.load_window()
            if window is not None:
                return window
            if not generator.alive:
                return None
            time.sleep(0.02)
        return None

    def follow(self, generator: Sends, window: Window, console: Console) -> bool:
        """Look on until the window ends; whether it was reached. KeyboardInterrupt passes through."""
        self.poll()
        polled, scraped = time.monotonic(), False
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        total = (window.end_ns - window.warmup_start_ns) / 1e9
        with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
            bar = progress.add_task("warm-up", total=total, told="")
            while True:
                now = time.time_ns()
                if not scraped and now >= window.start_ns:
                    scraped = True
                    self.scrape("before")
                if now >= window.end_ns:
                    return True
                if not generator.alive:
                    return False
                told = read(self._job.progress_file) or {}
                if told.get("state") == "stopped":  # somebody pressed stop on Locust's page
                    return False
                progress.update(
                    bar,
                    completed=(now - window.warmup_start_ns) / 1e9,
                    description="measuring" if scraped else "warm-up",
                    told=describe(told),
                )
                if time.monotonic() - polled >= _POLL:
                    polled = time.monotonic()
                    self.poll()
                edge = window.end_ns if scraped else window.start_ns
                time.sleep(max(0.0, min(_TICK, (edge - time.time_ns()) / 1e9)))

    def poll(self) -> None:
        """Note a changed split and servers that changed their state or were restarted."""
        if self._admin is not None:
            try:
                self.see_experiments(self._admin.experiments())
            except AdminError as error:
                self.observed.note(f"admin API: {error}")
        for name, backend in self._backends().items():
            state = (backend.state, backend.restarts)
            before = self._seen.get(name)
            if before is not None and before != state:
                self.observed.note(f"backend {name}: {before[0]} -> {state[0]}, restarts {state[1]}")
            self._seen[name] = state

    def see_experiments(self, document: Mapping[str, Any]) -> None:
        """Begin a phase when the model's weights are not those of the last one."""
        self.observed.revision = document.get("revision", self.observed.revision)
        experiment = (document.get("experiments") or {}).get(self._job.profile.model) or {}
        weights = {arm: told.get("weight") for arm, told in (experiment.get("arms") or {}).items()}
        killed = experiment.get("killed")
        now = {"phase": experiment.get("phase"), "weights": weights, "killed": killed}
        last = self.observed.phases[-1] if self.observed.phases else {}
        if any(now[key] != last.get(key) for key in now):
            self.observed.phases.append({**now, "from_ns": time.time_ns()})
            if last:
                change = f"all traffic to {killed}" if killed else str(weights)
                self.observed.note(f"the split changed to {change} (phase {now['phase']})")

    def scrape(self, moment: str) -> None:
        """Fetch every server's metrics now, all at once, in the background."""
        for name, backend in self._backends().items():
            if backend.metrics:
                self._scraping.append(self._pool.submit(self._scrape, name, metrics_url(backend.metrics), moment))

    def _scrape(self, name: str, url: str, moment: str) -> None:
        try:
            text = fetch(url)
        except AdminError as error:
            self.observed.note(f"metrics of {name} {moment} the window: {error}")
            return
        path = Path("scrapes") / f"{name}-{moment}.prom"
        (self._run_dir / path).write_bytes(text)
        self.observed.scrapes.setdefault(name, {})[moment] = str(path)

    def close(self) -> None:
        """Wait for scrapes under way."""
        for scraping in self._scraping:
            scraping.result()
        self._pool.shutdown()


def metrics_url(address: str) -> str:
    """The URL of a metrics address; without a path it is Prometheus's usual one."""
    address = address.removeprefix("http://")
    return f"http://{address}" if "/" in address else f"http://{address}/metrics"


def describe(progress: Mapping[str, Any]) -> str:
    """The generator's progress in a line."""
    if "told" in progress:
        return str(progress["told"])
    entries = progress.get("entries") or []
    if not entries:
        return f"{progress.get('users', 0)} users"
    arms: dict[str, float] = {}
    for entry in entries:
        arms[entry["arm"]] = arms.get(entry["arm"], 0) + entry["rps"]
    rates = " ".join(f"{arm} {rate:.0f}/s" for arm, rate in sorted(arms.items()))
    failures = sum(entry["failures"] for entry in entries)
    return f"{progress.get('users', 0)} users  {rates}" + (f"  {failures} failed" if failures else "")
