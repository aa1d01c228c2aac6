"""The lab's stand: an abgate.yaml per start, every server and the gateway started afresh, and all of it ended again.

Lives here: the translation from the lab's arms to a configuration, and what is known of the processes while they run. The
supervising is backends.launch's, what is measured is loadtest.lab's.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from backends.free_ports import free_ports
from backends.launch import BackendError, Event, Supervisor
from backends.spec import BackendSpec
from gateway.cli_stack import StackError, running
from gateway.config import parse
from gateway.errors import ConfigError
from loadtest.admin import Admin, AdminError
from loadtest.lab.spec import ArmSpec, Running, RunningArm, StandError
from loadtest.targets import Target

READY_S = 240.0
PORT_TRIES = 3
_RESERVED = "gateway"
_PORTS = {"torchserve": ("http", "grpc", "management", "metrics"), "tensorflow_serving": ("http", "grpc")}
_GIVEN = frozenset({"name", "kind", "http", "grpc", "management", "metrics", "models", "run_dir", "log_dir"})
_OPTIONS = frozenset(item.name for item in fields(BackendSpec)) - _GIVEN


@dataclass(frozen=True)
class LocalStand:
    """A loadtest.lab.spec.Stand on this machine. on_event: sees every start, death and end of a process.

    ready_seconds: how long a start may take.
    """

    on_event: Callable[[Event], None] | None = None
    ready_seconds: float = READY_S

    @contextmanager
    def up(self, arms: Sequence[ArmSpec], folder: Path) -> Iterator[Running]:
        """Fresh servers for the arms and a gateway in front, ready when entered, gone when left; raises StandError.

        The start's configuration, logs and temporary files lie in folder; its request records are removed at the end,
        since the generator's own are kept.
        """
        problems = arm_problems(arms)
        if problems:
            raise StandError("; ".join(problems))
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.absolute()
        clock = _Clock(self.on_event)
        with _started(arms, folder, clock, self.ready_seconds) as now:
            yield now
        shutil.rmtree(folder / ".abgate" / "records", ignore_errors=True)
        shutil.rmtree(folder / ".abgate" / "run", ignore_errors=True)


@dataclass
class _Clock:
    """How long each process took from its start to ready, in seconds."""

    pass_on: Callable[[Event], None] | None
    began: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.what == "starting":
            self.began[event.name] = now
        elif event.what == "ready" and event.name in self.began:
            self.took.setdefault(event.name, now - self.began[event.name])
        if self.pass_on is not None:
            self.pass_on(event)


@dataclass(frozen=True)
class LocalRunning:
    """A stand's processes while they run (loadtest.lab.spec.Running)."""

    gateway: Target
    gateway_pid: int
    arms: Mapping[str, RunningArm]
    started_seconds: Mapping[str, float]
    wire: Mapping[str, Mapping[str, str]]
    supervisor: Supervisor = field(repr=False)

    def roots(self) -> Mapping[str, Sequence[int]]:
        """role -> pids as they are now: "gateway" and "arm NAME"; a dead process has none."""
        status = self.supervisor.status()
        pids = {f"arm {name}": told.get("pid") for name, told in status.get("backends", {}).items()}
        pids["gateway"] = status.get("gateway", {}).get("pid")
        return {role: [pid] if pid else [] for role, pid in pids.items()}


@contextmanager
def _started(arms: Sequence[ArmSpec], folder: Path, clock: _Clock, patience: float) -> Iterator[LocalRunning]:
    """Start, wait, yield, stop; a port that somebody took between choosing and using it is chosen anew."""
    by_name = {arm.name: arm for arm in arms}
    for attempt in range(PORT_TRIES):
        text = yaml.safe_dump(document(arms), sort_keys=False)
        (folder / "abgate.yaml").write_text(text, "utf-8")
        entered = False
        try:
            config = parse(text, folder / "abgate.yaml")
            with running(config, clock, lambda spec: replace(spec, **by_name[spec.name].options)) as supervisor:
                supervisor.wait_ready(patience)
                now = _running(config.document.listen, arms, supervisor, clock)
                entered = True
                yield now
            return
        except (BackendError, StackError, ConfigError, AdminError) as error:
            text = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
            taken = "in use" in text or "already" in text
            if entered or attempt + 1 == PORT_TRIES or not taken:
                raise StandError(text) from error


def _running(listen: Any, arms: Sequence[ArmSpec], supervisor: Supervisor, clock: _Clock) -> LocalRunning:
    status = supervisor.status()
    found = {}
    for arm in arms:
        told = status["backends"][arm.name]
        found[arm.name] = RunningArm(
            spec=arm,
            pid=told["pid"],
            implementation=told["implementation"],
            stand_in=told["stand_in"],
            direct=Target(arm.kind, told["http"], told["grpc"], arm=arm.name),
            management=told["management"],
            metrics=told["metrics"],
        )
    http, grpc = str(listen.http), str(listen.grpc)
    shown = Admin(http, None).experiments().get("experiments", {}).get(arms[0].model, {}).get("arms", {})
    wire = {name: dict(told.get("wire", {})) for name, told in shown.items()}
    return LocalRunning(
        Target("gateway", http, grpc), status["gateway"]["pid"], found, dict(clock.took), wire, supervisor
    )


def arm_problems(arms: Sequence[ArmSpec]) -> list[str]:
    """What keeps these arms from standing side by side behind one gateway; empty where nothing does."""
    if not arms:
        return ["a stand needs at least one arm"]
    problems = []
    names = [arm.name for arm in arms]
    problems += [f"arm {name!r}: the name is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    models = sorted({arm.model for arm in arms})
    if len(models) > 1:
        problems.append(f"the arms of a stand serve one model, not {', '.join(models)}")
    for arm in arms:
        if arm.name == _RESERVED:
            problems.append(f"arm {arm.name!r}: the gateway is called so; take another name")
        if not arm.path.exists():
            problems.append(
                f"arm {arm.name!r}: there is no {arm.path}; build it with `abgate models build {arm.model}`"
            )
        unknown = sorted(set(arm.options) - _OPTIONS)
        if unknown:
            problems.append(f"arm {arm.name!r}: unknown options {unknown}; known: {', '.join(sorted(_OPTIONS))}")
    return problems


def signature_of(path: Path) -> Path | None:
    """The signature file of an artefact: the nearest signature.json above it, at most four folders up."""
    for parent in list(path.absolute().parents)[:4]:
        if (parent / "signature.json").is_file():
            return parent / "signature.json"
    return None


def document(arms: Sequence[ArmSpec]) -> dict[str, Any]:
    """The abgate.yaml of a start: a backend per arm on free ports, the model on all of them, the others where they are."""
    ports = iter(free_ports(2 + sum(len(_PORTS[arm.kind]) for arm in arms)))
    listen = {key: f"127.0.0.1:{next(ports)}" for key in ("http", "grpc")}
    backends = {
        arm.name: {
            "kind": arm.kind,
            **{key: f"127.0.0.1:{next(ports)}" for key in _PORTS[arm.kind]},
            "start": "local",
            "threads": arm.resources.threads,
            "workers": arm.resources.workers,
            "cores": list(arm.resources.cores) if arm.resources.cores is not None else None,
            "batching": {"max_batch_size": arm.batch.max_batch, "max_wait_ms": arm.batch.wait_ms},
        }
        for arm in arms
    }
    served: dict[str, dict[str, Path]] = {}
    for arm in arms:
        for model, path in ((arm.model, arm.path), *arm.others):
            served.setdefault(model, {})[arm.name] = path
    by_name = {arm.name: arm for arm in arms}
    models = {model: _model(model, paths, by_name) for model, paths in served.items()}
    return {"listen": listen, "backends": backends, "models": models}


def _model(model: str, paths: Mapping[str, Path], arms: Mapping[str, ArmSpec]) -> dict[str, Any]:
    signature = next(filter(None, map(signature_of, paths.values())), None)
    shown: dict[str, Any] = {
        name: {
            "backend": name,
            "weight": 1,
            "artifact": str(path.absolute()),
            **({"transport": arms[name].transport} if arms[name].transport else {}),
        }
        for name, path in paths.items()
    }
    experiment = {"id": f"lab-{model}", "salt": "lab", "unit": {"header": "x-user-id"}, "allow_forced_arm": True}
    return {
        "signature": str(signature) if signature else "import",
        "arms": shown,
        **({"experiment": experiment} if len(shown) > 1 else {}),  # one arm is plain routing
    }
