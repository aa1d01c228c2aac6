"""`abgate models`: build, verify, add; the work is model_store's, the words on the screen its console's."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.errors import ConfigError

ROOT_OPTION = click.option(
    "--root", type=click.Path(path_type=Path), default="model_store/artifacts", show_default=True,
    help="Where the artefacts lie.",
)  # fmt: skip


@click.group()
def models() -> None:
    """Build the models twice, prove that both are the same, add your own pair."""


VARIANTS_OPTION = click.option(
    "--variants", is_flag=True, help="Also the variants: eager, compile, onnx, xla, litert ..."
)
ONLY_OPTION = click.option(
    "--only", multiple=True, metavar="VARIANT", help="With --variants: only this one; repeatable."
)


@models.command()
@click.argument("names", nargs=-1)
@VARIANTS_OPTION
@ONLY_OPTION
@ROOT_OPTION
def build(names: tuple[str, ...], variants: bool, only: tuple[str, ...], root: Path) -> int:
    """Build NAMES (default: all): one training, a SavedModel and a TorchServe folder of each. Unchanged ones are left alone.

    With --variants also every variant a model can have, each proved equal at once; exit 1 when one is not.
    """
    from rich.console import Console

    from backends.torchserve import handler_path
    from model_store import build as work
    from model_store import console as words
    from model_store import variants_build, variants_console

    _check_only(variants, only)
    console = Console()
    with words.progress(console) as progress:
        results = work.build(names, root, handler_path(), progress)
        chosen = [result.model for result in results]
        made = variants_build.build(chosen, root, handler_path(), progress, only or None) if variants else []
    words.show_builds(results, console)
    if not variants:
        return 0
    variants_console.show_builds(made, console)
    return _verify_variants(chosen, root, only, unproved=True)


def _check_only(variants: bool, only: tuple[str, ...]) -> None:
    if only and not variants:
        raise ConfigError(["--only chooses among variants: give --variants with it"])


def _verify_variants(names: list[str], root: Path, only: tuple[str, ...], *, unproved: bool) -> int:
    from rich.console import Console

    from model_store import console as words
    from model_store import variants_console, variants_parity

    console = Console()
    with words.progress(console) as progress:
        proofs = variants_parity.verify(names, root, progress, only or None, unproved=unproved)
    variants_console.show_parity(proofs, console)
    return 0 if all(proof.ok for proof in proofs) else 1


@models.command()
@click.argument("names", nargs=-1)
@VARIANTS_OPTION
@ONLY_OPTION
@ROOT_OPTION
def verify(names: tuple[str, ...], variants: bool, only: tuple[str, ...], root: Path) -> int:
    """Run every evaluation input through every artefact of NAMES (default: all) and keep the proof; exit 1 when they differ."""
    from rich.console import Console

    from gateway.cli_stack import torchserve_for
    from model_store import console as words
    from model_store import parity

    _check_only(variants, only)
    console = Console()
    with words.progress(console) as progress:
        results = parity.verify(names or None, root, progress, torchserve_for)
    words.show_parity(results, console)
    code = 0 if all(result.ok for result in results) else 1
    if not variants:
        return code
    return max(code, _verify_variants([result.model for result in results], root, only, unproved=False))


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
