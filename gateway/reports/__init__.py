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
    """Write report.html and report.json into the run directory, replacing older ones whole.

    Raises gateway.errors.ConfigError when the directory holds no run; a run that was cut short gives a report that says
    what is missing.
    """
    from gateway.reports.build import build
    from gateway.reports.html import render
    from gateway.reports.ledger import read_run

    report = build(read_run(run_dir))
    page = render(report)
    paths = run_dir / "report.html", run_dir / "report.json"
    _replace(paths[1], json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _replace(paths[0], page)
    summary = report["summary"]
    return ReportPaths(paths[0], paths[1], summary["exit_code"], summary["sentence"], summary["performance"]["line"])


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
