"""What `abgate models ... --variants` shows: what was built and what was proved, as tables on a rich console.

Here lives presentation only.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_store.variants_build import VariantBuild
from model_store.variants_parity import VariantParity


def _table(*heads: str) -> Table:
    table = Table()
    for head in heads:
        numbers = head in ("MB", "seconds", "inputs", "max diff", "relative", "argmax", "accuracy")
        table.add_column(head, no_wrap=head != "what was done", justify="right" if numbers else "left")
    return table


def show_builds(results: Sequence[VariantBuild], console: Console) -> None:
    """A row for each variant: built, up to date, or why the model cannot have it."""
    table = _table("model", "variant", "MB", "seconds", "what was done")
    for result in results:
        done = f"built ({', '.join(result.steps_run)})" if result.steps_run else "up to date"
        if result.skipped:
            done = f"[yellow]skipped[/]: {escape(result.skipped)}"
        size = f"{result.size / 1e6:.1f}" if result.size else ""
        table.add_row(escape(result.model), result.variant, size, f"{result.seconds:.1f}", done)
    console.print(table)


def show_parity(results: Sequence[VariantParity], console: Console) -> None:
    """A row for each variant that was run, then each failure in full."""
    table = _table("model", "variant", "inputs", "max diff", "relative", "argmax", "accuracy", "verdict")
    for result in results:
        if result.result is None:
            continue
        different = result.result.differences
        distances = [d.max_abs_diff for d in different if d.max_abs_diff is not None]
        relative = [d.relative_error for d in different if d.relative_error is not None]
        agreements = [d.argmax_agreement for d in different if d.argmax_agreement is not None]
        accuracy = result.result.accuracy
        table.add_row(
            escape(result.model),
            result.variant,
            str(result.rows),
            f"{max(distances):.3g}" if distances else "n/a",
            f"{max(relative):.2g}" if relative else "n/a",
            f"{min(agreements):.2%}" if agreements else "n/a",
            f"{accuracy:.2%}" if accuracy is not None else "n/a",
            "[green]equal[/]" if result.ok else "[red]NOT equal[/]",
        )
    if table.row_count:
        console.print(table)
    for result in results:
        for failure in result.failures:
            console.print(f"[red]failed[/] {escape(failure)}", highlight=False, soft_wrap=True)
