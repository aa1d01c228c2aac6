"""`abgate loadtest` and `abgate report`: the work is loadtest's and gateway.reports'; this is options and exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.cli import EXPERIMENTS, Lazy
from gateway.cli_config import CONFIG_OPTION

_PROFILE = "profile"


class _ProfileOrExperiment(Lazy):
    """Takes a profile as if it were a command, so that `abgate loadtest smoke` and `abgate loadtest compare` both work."""

    table = EXPERIMENTS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.table, *ctx.help_option_names):
            args = [_PROFILE, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return profile_run if cmd_name == _PROFILE else super().get_command(ctx, cmd_name)


@click.group(cls=_ProfileOrExperiment, subcommand_metavar="PROFILE [OPTIONS] | EXPERIMENT [ARGS]...")
def loadtest() -> None:
    """Run a load test against the gateway or one server, or an experiment that starts its own servers.

    PROFILE is a file, or a shipped one's name; `abgate loadtest smoke --help` shows its options. `abgate loadtest --replay
    FILE` sends a capture in its place.
    """


@click.command("loadtest PROFILE")
@click.argument("profile", required=False, default="")
@CONFIG_OPTION
@click.option("--duration", help="Of the measurement window, e.g. 60s; default: the profile's.")
@click.option("--warmup", help="Before it, e.g. 10s; default: the profile's.")
@click.option("--users", type=click.IntRange(min=1), help="Concurrent users; default: the profile's.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second; default: the profile's.")
@click.option("--seed", type=int, help="Of payloads and units; default: the profile's.")
@click.option("--direct", metavar="BACKEND", help="Past the gateway, to one server.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Locust worker processes.")
@click.option("--ui", is_flag=True, help="Open Locust's own web page.")
@click.option("--ui-port", type=click.IntRange(1, 65535), help="The page's port; default: a free one.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), help="A capture to send, in place of PROFILE.")
@click.option(
    "--speed", type=click.FloatRange(0, 1000, min_open=True), default=1.0, show_default=True, help="Of --replay."
)
@click.option("--model", help="Of --replay: the model whose requests are sent.")
@click.option("--backends-info", type=click.Path(path_type=Path), help="The supervisor's file; default: abgate up's.")
@click.option(
    "--report/--no-report", "with_report", default=True, show_default=True, help="Write the report at the end."
)
def profile_run(profile: str, path: Path, with_report: bool, **given: Any) -> int:
    """Run PROFILE (a file, or a shipped one's name) against the running gateway or, with --direct, one server.

    --replay FILE sends a capture's requests at their own times in its place.
    """
    from gateway.config import load
    from loadtest.run import run

    if bool(profile) == (given["replay"] is not None):
        raise click.UsageError("give a PROFILE or --replay FILE, one of the two")
    result = run(options(load(path), profile, **given))
    for reason in result.reasons:
        click.echo(reason, err=True)
    if result.run_dir is None:
        return result.exit_code
    click.echo(f"run: {result.run_dir}")
    verdict = write_report(result.run_dir) if with_report else 0
    return result.exit_code or verdict


def options(config: Any, profile: str, **given: Any) -> Any:
    """loadtest's RunOptions for the gateway of a configuration; given overrides the profile where it is not None."""
    from gateway.cli_gateway import reachable
    from gateway.cli_stack import info_file
    from gateway.config_units import duration
    from gateway.errors import ConfigError
    from loadtest.options import RunOptions

    for name in ("duration", "warmup"):
        if given.get(name) is not None:
            try:
                given[name] = duration(given[name])
            except ValueError as error:
                raise ConfigError([f"--{name}: {error}"]) from error
    listen = config.document.listen
    info = given.pop("backends_info", None) or info_file(config)
    return RunOptions(
        profile=profile,
        http=str(reachable(listen.http)),
        grpc=str(reachable(listen.grpc)),
        admin_token=config.token(),
        tls_ca=listen.tls.cert if listen.tls else None,
        out_dir=config.base / ".abgate" / "runs",
        backends_info=info,
        artifacts=config.base / "model_store" / "artifacts",
        config_path=config.path.absolute(),
        config_text=config.text,
        **given,
    )


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@CONFIG_OPTION
def report(run_dir: Path, path: Path) -> int:
    """Write report.html, report.json and csv/ of RUN, a load test or a lab run: a run's directory, its id, or `latest`."""
    return write_report(find(run_dir, path.absolute().parent / ".abgate" / "runs"))


def find(given: Path, runs: Path) -> Path:
    """A run's directory from a directory, an id, or `latest`; raises ConfigError where there is none."""
    from gateway.errors import ConfigError

    if given.is_dir():
        return given
    if str(given) == "latest":
        found = sorted(
            (path for path in runs.glob("*") if any((path / name).is_file() for name in ("run.json", "lab.json"))),
            key=lambda p: p.stat().st_mtime,
        )
        if found:
            return found[-1]
    elif (runs / given).is_dir():
        return runs / given
    raise ConfigError([f"{given}: there is no such run; runs lie in {runs}"])


def write_report(run_dir: Path) -> int:
    """Write a run's report, print its two lines and where it is; returns the verdict's exit code."""
    from gateway.reports import build_report

    paths = build_report(run_dir)
    click.echo(paths.sentence)
    click.echo(paths.performance)
    click.echo(f"report: {paths.html.absolute()}")
    return paths.verdict_exit_code
