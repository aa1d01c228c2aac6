"""`abgate serve`: one gateway process in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli_config import CONFIG_OPTION


@click.command()
@CONFIG_OPTION
@click.option(
    "--backends-info", type=click.Path(path_type=Path), default=None,
    help="The supervisor's file that says what the servers are (abgate up writes .abgate/run/backends.json).",
)  # fmt: skip
def serve(path: Path, backends_info: Path | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from gateway.config import load
    from gateway.process import run

    run(load(path), backends_info)
