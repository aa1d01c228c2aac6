"""What `abgate models` shows: progress while it works, and the results as tables.

Here lives presentation on a rich console; nothing here builds, runs or decides.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from model_store import process
from model_store.build import BuildResult
from model_store.results import ParityResult


@contextmanager
def progress(console: Console) -> Iterator[process.Progress]:
    """A progress bar per model while the block runs; without a terminal, a line for each new step instead."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("[bold]{task.fields[model]}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(model: str, step: str, fraction: float) -> None:
            if model not in tasks:
                tasks[model] = bars.add_task(escape(step), total=1.0, model=escape(model))
            bars.update(tasks[model], description=escape(step), completed=min(fraction, 1.0))
            if fraction >= 1.0:
                bars.stop_task(tasks[model])

        yield show


class _Lines:
    """Progress for a log: the step's name once, without its counting."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, str] = {}

    def __call__(self, model: str, step: str, fraction: float) -> None:
        kind = step.split(",", maxsplit=1)[0].split(":", maxsplit=1)[0]
        if self._last.get(model) != kind:
            self._last[model] = kind
            self._console.print(f"{escape(model)}: {escape(kind)}", highlight=False)


def show_builds(results: Sequence[BuildResult], console: Console) -> None:
    """One line per model: what was built, where, and how long it took."""
    for result in results:
        what = f"built ({', '.join(result.steps_run)})" if result.changed else "up to date"
        console.print(
            f"{escape(result.model)}: {what} in {result.seconds:.1f} s: {escape(str(result.folder))}",
            highlight=False,
            soft_wrap=True,
        )


def show_parity(results: Sequence[ParityResult], console: Console) -> None:
    """The table of artefacts beside their reference, then each failure and warning in full, then where the proof lies."""
    table = Table()
    for head in ("model", "artefact", "inputs", "max diff", "argmax", "accuracy", "verdict"):
        table.add_column(head, no_wrap=True, justify="left" if head in ("model", "artefact", "verdict") else "right")
    for result in results:
        for item in result.artifacts:
            distances = [d.max_abs_diff for d in item.differences if d.max_abs_diff is not None]
            agreements = [d.argmax_agreement for d in item.differences if d.argmax_agreement is not None]
            table.add_row(
                escape(result.model),
                escape(item.artifact.name),
                str(result.rows),
                f"{max(distances):.3g}" if distances else "n/a",
                f"{min(agreements):.2%}" if agreements else "n/a",
                f"{item.accuracy:.2%}" if item.accuracy is not None else "n/a",
                "[green]equal[/]" if item.ok else "[red]NOT equal[/]",
            )
    console.print(table)
    for result in results:
        for failure in result.failures:
            console.print(f"[red]failed[/] {escape(failure)}", highlight=False, soft_wrap=True)
        for warning in result.warnings:
            console.print(f"[yellow]note[/] {escape(warning)}", highlight=False, soft_wrap=True)
        lines = [f"{item.artifact.name}: {item.artifact.export_path}" for item in result.artifacts]
        lines += [f"compared with: {result.reference}", f"proof: {result.manifest}"]
        for line in lines:
            console.print(f"{escape(result.model)}: {escape(line)}", highlight=False, soft_wrap=True)
