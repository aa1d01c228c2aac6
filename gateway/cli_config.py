"""`abgate init` and `abgate check`: the configuration before anything runs. Opens no port, starts nothing."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from gateway.config import DEFAULT_NAME, Config, load
from gateway.errors import ConfigError

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
def check(path: Path) -> None:
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


def _yaml_weights(config: Config, model: str) -> str:
    return ", ".join(f"{arm.name} {arm.weight}" for arm in config.specs()[model].arms)
