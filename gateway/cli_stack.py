"""Local servers for commands: abgate.yaml's backends as the supervisor's specifications, with the gateway in front.

Lives here: the translation Config -> backends.spec and the start of a TorchServe for a single folder. The supervising itself
is backends.launch's.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.free_ports import free_ports
from backends.launch import BackendError, Event, GatewayProcess, Supervisor
from backends.ports import PortInUseError, check_free
from backends.spec import BackendSpec, Batching, ServedModel
from gateway.config import Config
from gateway.errors import AbgateError, ConfigError


class StackError(AbgateError):
    """The local servers could not be started; the supervisor's words."""


def specs(config: Config) -> list[BackendSpec]:
    """Every backend with start: local that an arm uses; ConfigError for what cannot be started from here."""
    document = config.document
    problems: list[str] = []
    found = []
    for name, backend in document.backends.items():
        if backend.start != "local":
            continue
        models = _models(config, name, problems)
        if not models:
            continue
        cores = tuple(backend.cores) if backend.cores is not None else None
        found.append(
            BackendSpec(
                name=name,
                kind=backend.kind,
                http=str(backend.http),
                grpc=str(backend.grpc),
                management=str(backend.management) if backend.management else None,
                metrics=str(backend.metrics) if backend.metrics else None,
                models=models,
                cores=cores,
                threads=backend.threads,
                workers=backend.workers,
                batching=Batching(backend.batching.max_batch_size, backend.batching.max_wait_ms),
                binary=str(backend.binary) if backend.binary else None,
                run_dir=str(config.run_dir),
                log_dir=str(log_dir(config)),
                job_queue=backend.job_queue,
                max_rows=document.limits.rows,
            )
        )
    if problems:
        raise ConfigError(problems)
    return found


def _models(config: Config, backend: str, problems: list[str]) -> tuple[ServedModel, ...]:
    """What a backend serves: one entry per model name, from every arm that uses it."""
    served: dict[str, ServedModel] = {}
    for model, section in config.document.models.items():
        for name, arm in section.arms.items():
            if arm.backend != backend:
                continue
            path = config.artifact(model, name)
            where = f"models.{model}.arms.{name}"
            if not path.exists():
                problems.append(
                    f"{where}.artifact: there is no {path}; `abgate models build` makes the built-in models"
                )
            known = served.setdefault(arm.model or model, ServedModel(arm.model or model, str(path), arm.version))
            if known.path != str(path):
                problems.append(
                    f"{where}: backend {backend!r} would serve {known.name!r} from two places; name one `model`"
                )
    return tuple(served.values())


def log_dir(config: Config) -> Path:
    """Where the processes' output goes."""
    return config.base / ".abgate" / "logs"


def info_file(config: Config) -> Path:
    """The supervisor's file."""
    return config.run_dir / "backends.json"


def gateway_process(config: Config) -> GatewayProcess:
    """The gateway as the supervisor's child; ConfigError where a listener has no fixed port."""
    listen = config.document.listen
    if not listen.http.port or not listen.grpc.port:
        raise ConfigError(["listen: port 0 has no meaning here: name the ports, others must find them"])
    path = str(config.path.absolute())
    command = (sys.executable, "-P", "-m", "gateway", "serve", "--config", path)
    return GatewayProcess(
        argv=(*command, "--backends-info", str(info_file(config))),
        http=str(listen.http),
        grpc=str(listen.grpc),
        log_dir=str(log_dir(config)),
    )


def check_ports(config: Config) -> None:
    """Refuse at once what a start would refuse after minutes of building: StackError names every taken port's owner."""
    listen = config.document.listen
    wanted = {"gateway http": listen.http.authority, "gateway grpc": listen.grpc.authority}
    for name, backend in config.document.backends.items():
        if backend.start == "local":
            for key in ("http", "grpc", "management", "metrics"):
                address = getattr(backend, key)
                if address is not None and address.authority not in wanted.values():
                    wanted[f"{name} {key}"] = address.authority
    try:
        check_free(wanted)
    except PortInUseError as error:
        raise StackError(str(error)) from error


@contextmanager
def torchserve_for(folder: Path) -> Iterator[str]:
    """A TorchServe that serves one folder or archive under its own name, on free ports; yields its "host:port"."""
    http, grpc, management, metrics = (f"127.0.0.1:{port}" for port in free_ports(4))
    with tempfile.TemporaryDirectory(prefix="abgate-") as scratch:
        spec = BackendSpec(
            name="torchserve",
            kind="torchserve",
            http=http,
            grpc=grpc,
            management=management,
            metrics=metrics,
            models=(ServedModel(folder.stem if folder.suffix == ".mar" else folder.name, str(folder)),),
            run_dir=scratch,
            log_dir=scratch,
        )
        supervisor = Supervisor([spec], info_file=Path(scratch) / "backends.json", on_event=lambda _: None)
        try:
            supervisor.start()
            supervisor.wait_ready(120)
            yield http
        except BackendError as error:
            raise StackError(str(error)) from error
        finally:
            supervisor.stop()


@contextmanager
def running(
    config: Config, on_event: Callable[[Event], None], adjust: Callable[[BackendSpec], BackendSpec] | None = None
) -> Iterator[Supervisor]:
    """The local servers and the gateway in front, started (not yet ready); all of it has ended when the block has.

    adjust: changes what the configuration has no words for.
    Raises ConfigError for what cannot be started as configured, StackError for a taken port (it names the owner).
    """
    backends = [adjust(spec) if adjust else spec for spec in specs(config)]
    supervisor = Supervisor(backends, info_file=info_file(config), on_event=on_event, gateway=gateway_process(config))
    try:
        try:
            supervisor.start()
        except PortInUseError as error:
            raise StackError(str(error)) from error
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError([str(error)]) from error
        yield supervisor
    except BackendError as error:
        raise StackError(str(error)) from error
    finally:
        with _deaf():
            supervisor.stop()


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP mean what Ctrl-C means: KeyboardInterrupt, so that what was started is ended."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _deaf() -> Iterator[None]:
    """No signal cuts the stopping short: it is bounded by itself, and cut short it would leave processes behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
