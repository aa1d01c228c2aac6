"""`abgate up`: the local servers and the gateway in the foreground, until Ctrl-C or SIGTERM ends all of it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backends.launch import Event, Supervisor
from gateway.cli_config import CONFIG_OPTION, example
from gateway.cli_stack import info_file, interruptible, log_dir, running
from gateway.config import DEFAULT_NAME, Config, load
from gateway.config_schema import BatchingSection
from gateway.preflight import prepare

READY_S = 180.0
_STYLES = {"ready": "green", "died": "red", "failed": "red", "restarting": "yellow", "unready": "yellow"}


@click.command()
@CONFIG_OPTION
@click.option(
    "--wait", type=click.FloatRange(min=1), default=READY_S, show_default=True, metavar="SECONDS",
    help="Give up when not everything is ready by then.",
)  # fmt: skip
def up(path: Path, wait: float) -> None:
    """Start the local servers and the gateway, print what runs where, and stay; Ctrl-C stops all of it within 10 s.

    Without an abgate.yaml the commented default is written first, as `abgate init` does.
    """
    console = Console()
    config = load_or_init(path, console)
    prepare(config)
    with interruptible():
        try:
            with running(config, event_lines(console)) as supervisor:
                supervisor.wait_ready(wait)
                console.print(table(config, supervisor))
                console.print(f"logs: {log_dir(config)}   state: {info_file(config)}   stop: Ctrl-C", soft_wrap=True)
                while True:
                    signal.pause()
        except KeyboardInterrupt:
            console.print("stopped; nothing is left running")


def load_or_init(path: Path, console: Console) -> Config:
    """The configuration; where the default file is missing, the example is written there first, and told."""
    if not path.exists() and path == Path(DEFAULT_NAME):
        path.write_text(example(), "utf-8")
        console.print(f"no {path} here: wrote the commented default for digits and mlp")
    return load(path)


def event_lines(console: Console) -> Any:
    """Prints the supervisor's events, one line each."""

    def show(event: Event) -> None:
        style = _STYLES.get(event.what, "dim")
        pid = f" (pid {event.pid})" if event.pid else ""
        console.print(f"[{style}]{escape(event.name)}: {event.what}[/]{pid} {escape(event.detail)}", highlight=False)

    return show


def table(config: Config, supervisor: Supervisor) -> Table:
    """Server, implementation and version, addresses, cores, threads, workers and state of everything there is."""
    status = supervisor.status()
    found = Table("server", "implementation", "addresses", "resources", "state", show_lines=True)
    gateway = status.get("gateway", {})
    listen = config.document.listen
    found.add_row("gateway", "abgate", f"http {listen.http}\ngrpc {listen.grpc}", "1 process", _state(gateway))
    for name, backend in config.document.backends.items():
        told = status["backends"].get(name)
        known = (("http", backend.http), ("grpc", backend.grpc))
        addresses = "\n".join(f"{key} {address}" for key, address in known if address is not None)
        if told is None:
            found.add_row(escape(name), backend.kind, addresses, "", "not started here")
            continue
        if told["management"]:
            addresses += f"\nadmin {told['management']}"
        implementation = escape(told["implementation"]) + ("\n[yellow]stand-in[/]" if told["stand_in"] else "")
        found.add_row(escape(name), implementation, addresses, _resources(told, backend.batching), _state(told))
    return found


def _resources(told: dict[str, Any], batching: BatchingSection) -> str:
    cores = f"cores {','.join(map(str, told['cores']))}" if told["cores"] else "all cores"
    size, wait = batching.max_batch_size, batching.max_wait_ms
    batch = f"batch {size}, {wait:g} ms" if size > 1 else "no batching"
    return f"{cores}\nthreads {told['threads']}, workers {told['workers']}\n{batch}"


def _state(told: dict[str, Any]) -> str:
    style = "green" if told.get("state") == "ready" else "yellow"
    return f"[{style}]{told.get('state', 'unknown')}[/]\npid {told.get('pid')}"
