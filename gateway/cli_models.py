"""`abgate models`: build, verify, add; the work is model_store's, the words on the screen its console's."""

from __future__ import annotations

from pathlib import Path

import click

ROOT_OPTION = click.option(
    "--root", type=click.Path(path_type=Path), default="model_store/artifacts", show_default=True,
    help="Where the artefacts lie.",
)  # fmt: skip


@click.group()
def models() -> None:
    """Build the models twice, prove that both are the same, add your own pair."""


@models.command()
@click.argument("names", nargs=-1)
@ROOT_OPTION
def build(names: tuple[str, ...], root: Path) -> None:
    """Build NAMES (default: all): one training, a SavedModel and a TorchServe folder of each. Unchanged ones are left alone."""
    from rich.console import Console

    from backends.torchserve import handler_path
    from model_store import build as work
    from model_store import console as words

    console = Console()
    with words.progress(console) as progress:
        results = work.build(names, root, handler_path(), progress)
    words.show_builds(results, console)


@models.command()
@click.argument("names", nargs=-1)
@ROOT_OPTION
def verify(names: tuple[str, ...], root: Path) -> int:
    """Run every evaluation input through every artefact of NAMES (default: all) and keep the proof; exit 1 when they differ."""
    from rich.console import Console

    from gateway.cli_stack import torchserve_for
    from model_store import console as words
    from model_store import parity

    console = Console()
    with words.progress(console) as progress:
        results = parity.verify(names or None, root, progress, torchserve_for)
    words.show_parity(results, console)
    return 0 if all(result.ok for result in results) else 1


@models.command()
@click.argument("name")
@click.option("--inputs", type=click.Path(path_type=Path), required=True, help="Evaluation inputs: .npz or JSON lines.")
@click.option("--savedmodel", type=click.Path(path_type=Path), help="A SavedModel's directory or TF Serving base path.")
@click.option("--tensorflow", "tensorflow_address", help="Instead: a running TF Serving's REST address, host:port.")
@click.option("--mar", type=click.Path(path_type=Path), help="A TorchServe archive or handler folder.")
@click.option(
    "--torchserve", "torchserve_address", help="Instead: a running TorchServe's inference address, host:port."
)
@click.option("--signature", type=click.Path(path_type=Path), help="A signature file instead of the SavedModel's own.")
@click.option("--signature-name", help="Which of the SavedModel's signatures; default: serving_default.")
@click.option("--tensorflow-model", help="The model's name on the running TF Serving; default: NAME.")
@click.option("--torchserve-model", help="The model's name on the running TorchServe; default: NAME.")
@click.option("--rtol", type=click.FloatRange(min=0), help="Relative tolerance of equal outputs.")
@click.option("--atol", type=click.FloatRange(min=0), help="Absolute tolerance of equal outputs.")
@click.option("--replace", is_flag=True, help="Take the place of a model of that name.")
@ROOT_OPTION
def add(name: str, inputs: Path, root: Path, replace: bool, **given: Path | str | float | None) -> int:
    """Take your own pair in as NAME, import its signature, and verify it on your inputs."""
    from rich.console import Console

    from gateway.cli_stack import torchserve_for
    from model_store import add as work
    from model_store import console as words

    console = Console()
    said = {key: value for key, value in given.items() if value is not None}
    request = work.AddRequest(name=name, inputs=inputs, replace=replace, **said)  # type: ignore[arg-type]
    with words.progress(console) as progress:
        result = work.add(request, root, torchserve_for, progress)
    words.show_parity([result], console)
    return 0 if result.ok else 1
