"""`abgate capture`: keep a sample of the real requests on a running gateway, over its admin API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gateway.cli_experiment import WHO, gateway_options
from gateway.cli_gateway import client


@click.group()
def capture() -> None:
    """Keep a sample of the real requests, body and time, for the load test to replay."""


@capture.command()
@gateway_options
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), required=True, help="Of the requests, e.g. 0.01.")
@click.option("--size", help="Of all captures, e.g. 64MiB; default and most: capture.size.")
@click.option("--body", help="Larger bodies are left out, e.g. 256KiB; default and most: capture.body.")
@click.option(
    "--model", "models", multiple=True, help="Only this model's; may be given again. Default: capture.models."
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the draws; default: capture.seed.")
@click.option("--why", default="capture", show_default=True, help="The reason, for the audit.")
@WHO
def start(path: Path, url: str | None, token_file: Path | None, why: str, who: str, **asked: Any) -> None:
    """Begin to capture; the gateway's user owns the files, nobody else reads them."""
    asked["models"] = list(asked["models"]) or None
    body = {"who": who, "why": why, **{key: value for key, value in asked.items() if value is not None}}
    _print(client(path, url, token_file).call("POST", "/admin/v1/capture/start", body))


@capture.command()
@gateway_options
@click.option("--why", default="capture", show_default=True, help="The reason, for the audit.")
@WHO
def stop(path: Path, url: str | None, token_file: Path | None, why: str, who: str) -> None:
    """End the capture; what was taken is on the disk when this returns."""
    _print(client(path, url, token_file).call("POST", "/admin/v1/capture/stop", {"who": who, "why": why}))


@capture.command()
@gateway_options
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's answer as it is.")
def status(path: Path, url: str | None, token_file: Path | None, as_json: bool) -> None:
    """Say whether requests are captured, where to, and what was lost."""
    found = client(path, url, token_file).call("GET", "/admin/v1/capture")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    """A capture in lines; problems on stderr."""
    of = ", ".join(found["models"]) or "all models"
    on = f"capturing {found['share']:.4g} of the requests of {of}" if found["active"] else "not capturing"
    click.echo(on)
    if found["folder"]:
        click.echo(f"  {found['folder']}: {found['written']} requests, {found['bytes']} of {found['size']} bytes")
        lost = {name: found[f"dropped_{name}"] for name in ("queue_full", "body", "ended")}
        if any(lost.values()):
            told = ", ".join(f"{count} ({name.replace('_', ' ')})" for name, count in lost.items() if count)
            click.echo(f"  lost of those drawn: {told}")
    for problem in (found["stopped"], found.get("problem")):
        if problem:
            click.echo(f"warning: {problem}", err=True)
