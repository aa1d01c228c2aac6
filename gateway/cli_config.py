"""`abgate init` and `abgate check`: the configuration before anything runs. Listens nowhere, starts nothing.

Only `check --online` leaves the machine's files: it asks the servers that are named, as the gateway would.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.config import DEFAULT_NAME, Config, load
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.preflight import Prepared

CONFIG_OPTION = click.option(
    "--config", "-c", "path", type=click.Path(path_type=Path), default=DEFAULT_NAME, show_default=True,
    help="The configuration file; relative paths in it count from its folder.",
)  # fmt: skip


def example() -> str:
    """The text of the commented example configuration."""
    return files("gateway").joinpath("abgate.example.yaml").read_text("utf-8")


@click.command()
@click.option("--config", "-c", "path", type=click.Path(path_type=Path), default=DEFAULT_NAME, show_default=True)
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: Path, force: bool) -> None:
    """Write a commented abgate.yaml: digits and mlp, each on TorchServe and TensorFlow Serving."""
    if path.exists() and not force:
        raise ConfigError([f"{path}: is there already; --force overwrites it"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example(), "utf-8")
    click.echo(f"wrote {path}; next: abgate models build, abgate check, abgate up")


@click.command()
@CONFIG_OPTION
@click.option("--online", is_flag=True, help="Also ask every arm's server for its metadata and say where they differ.")
def check(path: Path, online: bool) -> None:
    """Validate the configuration and the files it names; print the weights in force. Opens no port, writes nothing."""
    from gateway.preflight import prepare

    prepared = prepare(load(path))
    click.echo(f"{path}: fine (sha256 {prepared.config.sha256[:12]}, revision {prepared.snapshot.revision})")
    for name, spec in prepared.snapshot.models.items():
        kept = prepared.state.models[name]
        weights = ", ".join(f"{arm.name} {arm.weight}" for arm in spec.arms)
        origin = "abgate.yaml" if kept.source == "config" else f"{prepared.config.document.admin.state_file}"
        killed = f"; kill switch: everything to {spec.killed}" if spec.killed else ""
        click.echo(f"  {name}: {weights} (from {origin}, phase {spec.phase}{killed})")
        if kept.source == "state":
            click.echo(f"    abgate.yaml says: {_yaml_weights(prepared.config, name)}")
    capture = prepared.config.document.capture
    if capture.share:
        of = ", ".join(capture.models) or "all models"
        click.echo(
            f"  capture: {capture.share:.4g} of the requests of {of} into {capture.path}, {capture.size} bytes at most"
        )
    if online:
        _compare(prepared)


def _compare(prepared: Prepared) -> None:
    """Say of every model whether its arms' servers serve what its clients are told; ConfigError with all that differs."""
    from gateway.app import places
    from gateway.dataplane import Arm
    from gateway.protocol.arm_names import Names
    from gateway.upstream.metadata import compare

    where, backends, wrong = places(prepared.config), prepared.config.document.backends, []
    for place in where.values():
        if place.token is not None:
            place.token.refresh()
    for name, spec in prepared.snapshot.models.items():
        arms = [
            Arm(arm.name, arm.backend, backends[arm.backend].kind, model=arm.model, version=arm.version, limit=1)
            for arm in spec.arms
        ]
        for arm, part in zip(arms, spec.arms, strict=True):
            arm.names = Names(part.inputs, part.outputs)
        found, unasked = asyncio.run(
            compare(prepared.signatures.get(name), [(arm, where[arm.backend]) for arm in arms])
        )
        click.echo(f"  {name}: " + ("the arms' servers agree" if not found + unasked else "the arms' servers differ"))
        wrong += [f"models.{name}: {text}" for text in found + unasked]
    if wrong:
        raise ConfigError(wrong)


def _yaml_weights(config: Config, model: str) -> str:
    return ", ".join(f"{arm.name} {arm.weight}" for arm in config.specs()[model].arms)
