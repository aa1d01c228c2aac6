"""`abgate demo`: the whole way once, with real parts: models, proof, servers, gateway, load test, report."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gateway.cli_config import CONFIG_OPTION
from gateway.cli_loadtest import options, write_report
from gateway.cli_stack import check_ports, interruptible, running, torchserve_for
from gateway.cli_up import READY_S, event_lines, load_or_init, table
from gateway.config import Config
from gateway.errors import AbgateError
from gateway.preflight import prepare


class DemoError(AbgateError):
    """A step of the demo failed."""


@click.command()
@CONFIG_OPTION
@click.option("--profile", default="demo", show_default=True, help="The load test's profile: a file or a shipped name.")
def demo(path: Path, profile: str) -> int:
    """Build the models, prove them equal, start everything, load it, write the report, and end everything again."""
    console = Console()
    config = load_or_init(path, console)
    check_ports(config)
    with interruptible():
        _models(config, console)
        prepare(config)
        with running(config, event_lines(console)) as supervisor:
            supervisor.wait_ready(READY_S)
            console.print(table(config, supervisor))
            code, run_dir = _load(config, profile, console)
        verdict = write_report(run_dir)
    return code or verdict


def _models(config: Config, console: Console) -> None:
    """Build and prove the built-in models that the configuration uses; what is up to date is left alone."""
    from backends.torchserve import handler_path
    from model_store import build, manifest, parity, zoo
    from model_store import console as words
    from model_store.layout import Layout

    root = config.base / "model_store" / "artifacts"
    names = [name for name in config.document.models if name in zoo.NAMES]
    with words.progress(console) as progress:
        built = build.build(names, root, handler_path(), progress)
    words.show_builds(built, console)
    unproved = [name for name in names if manifest.problems(Layout(root, name))]
    if not unproved:
        console.print("parity: proved already, files unchanged since")
        return
    with words.progress(console) as progress:
        results = parity.verify(unproved, root, progress, torchserve_for)
    words.show_parity(results, console)
    if not all(result.ok for result in results):
        raise DemoError("the artefacts are not the same model; a comparison would compare models, not servers")


def _load(config: Config, profile: str, console: Console) -> tuple[int, Path]:
    """The load test's exit code and run directory."""
    from loadtest.run import run

    result = run(options(config, profile), console)
    for reason in result.reasons:
        console.print(reason, markup=False)
    if result.run_dir is None:
        raise DemoError("the load test did not run")
    return result.exit_code, result.run_dir
