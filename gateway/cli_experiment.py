"""`abgate experiment`: what is in force on a running gateway, and changing it. Everything goes over its admin API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gateway.cli_config import CONFIG_OPTION
from gateway.cli_gateway import client, user
from gateway.errors import ConfigError


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which gateway."""
    for option in (
        click.option("--token-file", type=click.Path(path_type=Path, exists=True), help="The admin token, with --url."),
        click.option(
            "--url", help="The gateway, e.g. http://127.0.0.1:8080; default: the configuration's listen.http."
        ),
        CONFIG_OPTION,
    ):
        command = option(command)
    return command


WHO = click.option("--who", default=user, help="Who changes it, for the audit; default: you.")


@click.group()
def experiment() -> None:
    """Show experiments; change weights; the kill switch."""


@experiment.command()
@gateway_options
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's answer as it is.")
def show(path: Path, url: str | None, token_file: Path | None, as_json: bool) -> None:
    """Print every model's arms, weights in force and where they come from."""
    found = client(path, url, token_file).call("GET", "/admin/v1/experiments")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


@experiment.command()
@gateway_options
@click.argument("model")
@click.argument("weights", nargs=-1, required=True, metavar="ARM=WEIGHT...")
@click.option("--why", required=True, help="The reason, for the audit.")
@WHO
@click.option("--revision", type=int, help="The revision you decided on; default: the one in force now.")
def weights(
    path: Path, url: str | None, token_file: Path | None, model: str, weights: tuple[str, ...], why: str, who: str,
    revision: int | None,
) -> None:  # fmt: skip
    """Give every arm of MODEL a new weight, e.g. torchserve=90 tfserving=10."""
    gateway = client(path, url, token_file)
    wanted = dict(map(_weight, weights))
    if len(wanted) != len(weights):
        raise ConfigError(["every arm is named once"])
    if revision is None:
        revision = gateway.call("GET", "/admin/v1/experiments")["revision"]
    body = {"weights": wanted, "revision": revision, "who": who, "why": why}
    _print(gateway.call("PUT", f"/admin/v1/experiments/{model}/weights", body), model)


@experiment.command()
@gateway_options
@click.argument("model")
@click.option("--to", required=True, metavar="ARM", help="The arm that gets everything from the next request on.")
@click.option("--why", default="kill switch", show_default=True, help="The reason, for the audit.")
@WHO
def kill(path: Path, url: str | None, token_file: Path | None, model: str, to: str, why: str, who: str) -> None:
    """Send all traffic of MODEL to one arm, on the next request."""
    gateway = client(path, url, token_file)
    body = {"to": to, "who": who, "why": why}
    _print(gateway.call("POST", f"/admin/v1/experiments/{model}/kill", body), model)


def _weight(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not name or not number.isdigit():
        raise ConfigError([f"{text!r}: must be ARM=WEIGHT with a whole number, e.g. torchserve=90"])
    return name, int(number)


def _print(found: dict[str, Any], only: str = "") -> None:
    """The experiments as lines; problems of keeping a change on stderr."""
    click.echo(f"revision {found['revision']}")
    for name, model in found["experiments"].items():
        if only and name != only:
            continue
        killed = f", kill switch: everything to {model['killed']}" if model["killed"] else ""
        experiment_id = model["id"] or "plain routing"
        click.echo(f"{name}: {experiment_id} (phase {model['phase']}, from the {model['source']}{killed})")
        for arm, values in model["arms"].items():
            ready = "ready" if values["ready"] else "not ready"
            click.echo(f"  {arm:<16} weight {values['weight']:<6} {ready:<10} {values['implementation']}")
    if found.get("problem"):
        click.echo(f"warning: {found['problem']}", err=True)
