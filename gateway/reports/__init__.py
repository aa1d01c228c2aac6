"""The report of a run: `build_report(run_dir)` reads what a load test left and writes report.html and report.json.

ledger.py and records.py read; build.py and what it uses compute (PURE); html.py and plots.py present. This package is
never part of the gateway process: it needs DuckDB, Jinja2 and scipy (extra `report`), imported when a report is built.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the report was written, the exit code its verdict gives (0, 1, 2), and its two lines for a console."""

    html: Path
    json: Path
    verdict_exit_code: int
    sentence: str
    performance: str


def build_report(run_dir: Path) -> ReportPaths:
    """Write report.html, report.json and csv/ into the run directory, replacing older ones whole.

    Raises gateway.errors.ConfigError when the directory holds no run; a run that was cut short gives a report that says
    what is missing.
    """
    if (run_dir / "lab.json").is_file():
        return _lab(run_dir)
    from gateway.reports.build import build
    from gateway.reports.html import render
    from gateway.reports.ledger import read_run
    from gateway.reports.plot_tables import plot_tables

    report = build(read_run(run_dir))
    page = render(report)
    _write_csv(run_dir, plot_tables(report))
    paths = run_dir / "report.html", run_dir / "report.json"
    _replace(paths[1], json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _replace(paths[0], page)
    summary = report["summary"]
    return ReportPaths(paths[0], paths[1], summary["exit_code"], summary["sentence"], summary["performance"]["line"])


def _lab(run_dir: Path) -> ReportPaths:
    """The report of a lab run."""
    from gateway.reports.lab.build import build
    from gateway.reports.lab.html import render
    from gateway.reports.lab.pictures import pictures
    from gateway.reports.lab.read import read_lab
    from gateway.reports.lab.tables import blocks_csv

    run = read_lab(run_dir)
    report = build(run)
    sections = pictures(run, report)
    page = render(report, sections)
    drawn = [picture for found in sections.values() for picture in found]
    report["figures"] = [
        {"name": p.name, "title": p.title, "description": p.description, "csv": f"csv/{p.name}.csv" if p.rows else None}
        for p in drawn
    ]
    _write_csv(run_dir, {**{p.name: p.csv() for p in drawn if p.rows}, "blocks": blocks_csv(report)})
    paths = run_dir / "report.html", run_dir / "report.json"
    _replace(paths[1], json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _replace(paths[0], page)
    summary = report["summary"]
    return ReportPaths(paths[0], paths[1], summary["exit_code"], summary["question"], summary["sentence"])


def _write_csv(run_dir: Path, texts: dict[str, str]) -> None:
    """csv/NAME.csv for each text; files of an older report that are not written anew are removed."""
    folder = run_dir / "csv"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.csv"):
        if old.stem not in texts:
            old.unlink()
    for name, text in texts.items():
        _replace(folder / f"{name}.csv", text)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
