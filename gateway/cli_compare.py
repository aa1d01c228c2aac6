"""`abgate compare`: runs side by side; the work is gateway.reports.compare's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli_config import CONFIG_OPTION

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.reports.jsonable import Json


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@CONFIG_OPTION
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page (and .json beside it).")
def compare(runs: tuple[Path, ...], path: Path, out: Path | None) -> int:
    """Show RUNs (directories, ids or `latest`) side by side; exit code 2 when they must not be compared."""
    from rich.console import Console

    from gateway.cli_loadtest import find
    from gateway.errors import ConfigError
    from gateway.reports import compare as side_by_side

    if len(runs) < 2:
        raise ConfigError(["compare: give at least two runs"])
    folder = path.absolute().parent / ".abgate" / "runs"
    found = side_by_side.compare([side_by_side.read(find(run, folder)) for run in runs])
    _print(found, Console())
    if out is not None:
        out.write_text(side_by_side.render(found), encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        click.echo(f"comparison: {out.absolute()}")
    return 0 if found["comparable"] else 2


def _print(found: Json, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    figures = [
        (
            f"{one['arm']}: {one['metric']}\n  {one['condition']}",
            [f"{v[0]} {f'({v[1]})' if v[1] else ''}" for v in one["values"]],
        )
        for one in found["figures"]
    ]
    differs = [(one["key"], one["values"]) for one in found["differs"]]
    for title, rows in (("What differs", differs), ("Figures (95% intervals within each run)", figures)):
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("", *found["runs"]):
            table.add_column(Text(name), overflow="fold")
        for key, values in rows:
            table.add_row(Text(key), *map(Text, values))
        console.print(table)
    for one in found["must_not"]:
        console.print(f"must not be compared: {one['key']}: {one['why']}", markup=False)
    if found["untold"]:
        console.print(f"not told by every run: {', '.join(found['untold'])}", markup=False)
