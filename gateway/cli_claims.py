"""`abgate claims`: options, the bench the claims are measured on, and the printing; the work is loadtest.claims'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loadtest.claims.measure import Bench
    from loadtest.claims.run import Asked


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--quick/--full", default=False, help="Half an hour on the smallest model, or the whole table: two and a half."
)
@click.option(
    "--list", "only_list", is_flag=True, help="Print what would be asked and how long it takes; start nothing."
)
@click.option("--resume", metavar="RUN", help="Go on with a run: its directory or id. Other options are its own.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of orders, payloads and units.")
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    default="model_store/artifacts",
    show_default=True,
    help="Where the models' artefacts lie.",
)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=".abgate/runs", show_default=True, help="Where runs lie."
)
def claims(ids: tuple[str, ...], quick: bool, only_list: bool, resume: str | None, seed: int, artifacts: Path,
           runs: Path) -> int:  # fmt: skip
    """Ask published claims about the two servers of this machine: holds here, contradicted here, or inconclusive here.

    ID: a claim of loadtest/claims.toml (see --list); none: the whole table. Exit code 2 where nothing could be answered.
    """
    from gateway.cli_lab import find_run, new_run
    from loadtest.claims import run as work
    from loadtest.lab import document as lab

    asked = work.Asked(ids, quick, seed)
    if resume:
        run_dir = find_run(resume, runs)
        document = lab.read(run_dir)
        asked = work.asked_of(document)
        return measure(bench(artifacts), asked, run_dir, document)
    _, planned = asked.plan()
    show_plan(planned)
    if only_list:
        return 0
    run_dir = new_run(runs, work.KIND)
    click.echo(f"run: {run_dir}")
    return measure(bench(artifacts), asked, run_dir, work.begin(asked, run_dir))


def show_plan(planned: Any) -> None:
    """Print every claim and the plan."""
    from rich.console import Console

    from loadtest.claims import words

    console = Console(width=None if Console().is_terminal else 160)
    console.print(words.listing(planned))
    for line in words.summary(planned):
        console.print(line, markup=False)


def measure(on: Bench, asked: Asked, run_dir: Path, document: dict[str, Any]) -> int:
    """Run or go on, then print the table; returns the verdict's exit code."""
    from rich.console import Console

    from gateway.cli_lab import interruptible, progress
    from loadtest.claims import words
    from loadtest.claims.run import Claims

    with progress("claims") as tell, interruptible():
        document = Claims(on, asked, run_dir, document, tell).run()
    console = Console(width=None if Console().is_terminal else 160)
    console.print(words.answers(document))
    verdict = document["verdict"]
    console.print(verdict["text"], markup=False)
    for reason in verdict["reasons"]:
        console.print(f"  {reason}", markup=False)
    console.print(f"table: {run_dir / 'claims.md'}", soft_wrap=True, markup=False)
    return int(verdict["code"])


def bench(artifacts: Path) -> Bench:
    """The local stand and the artefacts; a variant whose parity is not proved is not measured."""
    from functools import cache

    from gateway.cli_stand import LocalStand
    from loadtest.claims.measure import Bench, Files
    from model_store import variants
    from model_store.layout import Layout

    @cache
    def files(model: str, variant: str) -> Files:
        found = variants.arm_files(artifacts, model, variant)
        problems = variants.problems(artifacts, model, variant) if found.skipped is None else []
        entry = variants.read_manifest(Layout(artifacts, model)).get(variant) or {}
        skipped = found.skipped or "; ".join(problems) or None
        return Files(found.path.absolute(), skipped, found.digest, entry.get("parity"), found.near)

    return Bench(LocalStand(), artifacts, files)
