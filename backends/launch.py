"""The supervisor: starts the local servers and the gateway, keeps them running, says how they are, ends them all.

Lives here: order (ports checked before anything starts; servers before the gateway; the gateway stopped first), the one thread
that starts every child (the kernel ties a child to the thread that made it), and the info file other parts read.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backends.logs import RotatingLog
from backends.ports import check_free, listens
from backends.process import Child, Janitor
from backends.readiness import backend_unready, page_unready
from backends.spec import BackendSpec, Command
from backends.unit import Event, Unit

__all__ = ["BackendError", "Event", "GatewayProcess", "Supervisor", "plan"]

TICK_SECONDS = 0.05
PLANNERS = {"torchserve": "backends.torchserve", "tensorflow_serving": "backends.tfserving"}  # each has plan(spec)
GATEWAY_STOP_SECONDS = 3.5
BACKENDS_STOP_SECONDS = 5.0


class BackendError(RuntimeError):
    """A process did not become ready; the text holds the reason and the end of its log."""


@dataclass(frozen=True)
class GatewayProcess:
    """The gateway as a child: `http` and `grpc` are its listeners "host:port"; a GET of `ready_path` answers 200 when ready."""

    argv: tuple[str, ...]
    http: str
    grpc: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = "/readyz"
    name: str = "gateway"
    log_dir: str = ".abgate/logs"


def plan(spec: BackendSpec) -> Command:
    """The command of a backend, by its kind; raises ValueError for an unknown kind."""
    if spec.kind not in PLANNERS:
        raise ValueError(f"backend {spec.name!r}: kind {spec.kind!r}, expected {' or '.join(PLANNERS)}")
    planned = importlib.import_module(PLANNERS[spec.kind]).plan(spec)
    assert isinstance(planned, Command)
    return planned


class Supervisor:
    """Keeps backends, and a gateway in front of them, running as child processes until `stop`."""

    def __init__(
        self,
        specs: Sequence[BackendSpec],
        *,
        info_file: Path,
        on_event: Callable[[Event], None],
        gateway: GatewayProcess | None = None,
        planner: Callable[[BackendSpec], Command] = plan,
    ) -> None:
        """Take descriptions only; nothing starts before `start`. `on_event` is called in the supervisor's thread."""
        self._specs = {spec.name: spec for spec in specs}
        self._gateway_process = gateway
        if len(self._specs) != len(specs) or (gateway is not None and gateway.name in self._specs):
            raise ValueError("every backend needs a name of its own, other than the gateway's")
        self._info_file, self._on_event, self._planner = info_file, on_event, planner
        self._commands: dict[str, Command] = {}
        self._logs: dict[str, RotatingLog] = {}
        self._units: dict[str, Unit] = {}
        self._gateway: Unit | None = None
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._info: dict[str, Any] = {}
        self._crash: str | None = None

    def start(self) -> None:
        """Check every port, plan every start, then begin; returns at once (`wait_ready` waits).

        Raises PortInUseError, naming every taken port's owner, and what a plan raises, before any process starts.
        """
        check_free(self._addresses())
        self._commands = {spec.name: self._planner(spec) for spec in self._specs.values()}
        for spec in self._specs.values():
            self._logs[spec.name] = RotatingLog(Path(spec.log_dir) / f"{spec.name}.log")
            self._units[spec.name] = Unit(
                spec.name,
                begin=partial(self._begin_backend, spec),
                unready=partial(self._backend_unready, spec),
                foreign=partial(self._foreign, spec.http, spec.grpc),
                tell=self._tell,
            )
        gateway = self._gateway_process
        if gateway is not None:
            self._logs[gateway.name] = RotatingLog(Path(gateway.log_dir) / f"{gateway.name}.log")
            self._gateway = Unit(
                gateway.name,
                begin=partial(self._begin_gateway, gateway),
                unready=partial(page_unready, gateway.http, gateway.ready_path),
                foreign=partial(self._foreign, gateway.http),
                tell=self._tell,
            )
        self._janitor = Janitor()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.daemon = True  # a crash of the main thread must not hang on it: the janitor cleans up
        self._thread.start()

    def _addresses(self) -> dict[str, str]:
        wanted: dict[str, str | None] = {}
        for spec in self._specs.values():
            wanted[f"{spec.name} http"], wanted[f"{spec.name} grpc"] = spec.http, spec.grpc
            if spec.kind == "torchserve":
                wanted[f"{spec.name} management"] = spec.management
                wanted[f"{spec.name} metrics"] = (spec.metrics or "").partition("/")[0]
        if self._gateway_process is not None:
            wanted["gateway http"], wanted["gateway grpc"] = self._gateway_process.http, self._gateway_process.grpc
        return {purpose: address for purpose, address in wanted.items() if address}

    def _begin_backend(self, spec: BackendSpec) -> Child:
        if self._units[spec.name].restarts:  # a killed server leaves its temporary files: plan anew
            self._commands[spec.name] = self._planner(spec)
        command = self._commands[spec.name]
        return Child(command.argv, command.env, command.cwd, spec.cores, self._logs[spec.name], self._janitor)

    def _begin_gateway(self, gateway: GatewayProcess) -> Child:
        env = {**os.environ, **gateway.env}
        return Child(gateway.argv, env, None, None, self._logs[gateway.name], self._janitor)

    def _backend_unready(self, spec: BackendSpec) -> str | None:
        return backend_unready(spec, self._commands[spec.name].cwd)

    @staticmethod
    def _foreign(*addresses_and_pid: Any) -> str | None:
        *addresses, pid = addresses_and_pid
        strange = [address for address in addresses if not listens(pid, address)]
        return f"{', '.join(strange)} answers, but process {pid} does not listen there" if strange else None

    def _all(self) -> list[Unit]:
        return [*self._units.values(), *([self._gateway] if self._gateway is not None else [])]

    def _run(self) -> None:
        try:
            self._publish()
            while not self._stop.wait(TICK_SECONDS):
                for unit in self._units.values():
                    if not self._stop.is_set():  # a readiness question may have taken a second
                        unit.step(time.monotonic())
                started = self._gateway is not None and self._gateway.child is not None
                if self._gateway is not None and (started or all(one.state == "ready" for one in self._units.values())):
                    self._gateway.step(time.monotonic())
        except BaseException:
            self._crash = traceback.format_exc()
            print(self._crash, file=sys.stderr)
        finally:
            self._end_all()

    def _end_all(self) -> None:
        if self._gateway is not None:
            end([self._gateway], GATEWAY_STOP_SECONDS)
        end(list(self._units.values()), BACKENDS_STOP_SECONDS)
        self._janitor.close()
        for log in self._logs.values():
            log.close()
        with self._changed:
            self._changed.notify_all()

    def _tell(self, event: Event) -> None:
        log = self._logs[event.name]
        log.write(f"--- supervisor: {event.what} {event.detail} (pid {event.pid})\n".encode())
        self._publish()
        try:
            self._on_event(event)
        except Exception:  # the listener's fault must not end the servers
            traceback.print_exc()
        with self._changed:
            self._changed.notify_all()

    def _publish(self) -> None:
        """Write the info file by rename, so that a reader never sees half of it."""
        backends = {name: self._describe(spec, self._units[name]) for name, spec in self._specs.items()}
        info: dict[str, Any] = {"format": 1, "pid": os.getpid(), "backends": backends}
        if self._gateway is not None and self._gateway_process is not None:
            gateway = self._gateway_process
            info["gateway"] = {"pid": self._gateway.pid, "http": gateway.http, "grpc": gateway.grpc}
            info["gateway"] |= {"state": self._gateway.state, "restarts": self._gateway.restarts}
        self._info = info
        self._info_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._info_file.with_name(self._info_file.name + ".tmp")
        temporary.write_text(json.dumps(info, indent=1), encoding="utf-8")
        os.replace(temporary, self._info_file)

    def _describe(self, spec: BackendSpec, unit: Unit) -> dict[str, Any]:
        command = self._commands[spec.name]
        return {
            "kind": spec.kind,
            "implementation": command.implementation,
            "stand_in": command.stand_in,
            "pid": unit.pid,
            "http": spec.http,
            "grpc": spec.grpc,
            "management": spec.management,
            "metrics": metrics_url(spec),
            "cores": list(spec.cores) if spec.cores is not None else None,
            "threads": spec.threads,
            "workers": spec.workers,
            "state": unit.state,
            "restarts": unit.restarts,
        }

    def status(self) -> dict[str, Any]:
        """What the info file holds now."""
        return self._info

    def wait_ready(self, timeout: float) -> None:
        """Wait until everything is ready; raises BackendError on a hopeless process, after `timeout` seconds, or on stop."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not all(unit.state == "ready" for unit in self._all()):
                failed = [unit for unit in self._all() if unit.state == "failed"]
                left = deadline - time.monotonic()
                if failed or left <= 0 or self._crash or self._stop.is_set():
                    raise BackendError(self._why_not(failed, timeout))
                self._changed.wait(min(left, 0.5))

    def _why_not(self, failed: list[Unit], timeout: float) -> str:
        if self._crash or self._stop.is_set():
            return self._crash or "stopped while starting"
        parts = []
        for unit in failed or [unit for unit in self._all() if unit.state != "ready"]:
            tail = self._logs[unit.name].tail() if unit.restarts or unit.child else ""
            when = "failed" if failed else f"not ready after {timeout:g} s"
            parts.append(f"{unit.name}: {when}: {unit.reason}\n{tail}".rstrip())
        return "\n".join(parts)

    def stop(self) -> None:
        """End everything within 10 s, the gateway first: SIGTERM, then SIGKILL of whole process groups. Safe to call again."""
        self._stop.set()
        thread = getattr(self, "_thread", None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def end(units: Sequence[Unit], patience: float) -> None:
    """Ask all units to stop at once, wait up to `patience` seconds, kill what is left."""
    for unit in units:
        unit.ask_to_stop()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not all(unit.gone() for unit in units):
        time.sleep(0.02)
    for unit in units:
        unit.finish()


def metrics_url(spec: BackendSpec) -> str | None:
    """Where a backend's Prometheus text is, as host:port/path; None for a TorchServe that was given no address for it."""
    if spec.metrics and "/" in spec.metrics:
        return spec.metrics
    if spec.kind == "torchserve":
        return f"{spec.metrics}/metrics" if spec.metrics else None
    return f"{spec.metrics or spec.http}/monitoring/prometheus/metrics"
