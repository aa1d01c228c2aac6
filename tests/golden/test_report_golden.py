"""report.json of seeded generated runs, number by number to six digits: what a change of a formula moves is seen here.

After a change that is meant: `python tests/golden/test_report_golden.py` writes the file anew; read its difference.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gateway.reports import build_report

TOOLS = Path(__file__).parents[2] / "tools"


def rounded(value: Any) -> Any:
    """The document with floats to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def tool(name: str) -> Any:
    """A script of tools/, which is no package."""
    sys.path.insert(0, str(TOOLS))  # where scripts find each other
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(TOOLS))


def backend_dies(folder: Path) -> Any:
    """The report of a generated load test, without the curves' points."""
    module = tool("make_run")
    run = module.write(folder / "run", module.Plan(rows=3000, seconds=6.0, warmup=1.0, seed=7, scenario="backend_dies"))
    report = json.loads(build_report(run).json.read_text(encoding="utf-8"))
    del report["plots"]["percentile_curve"]
    return rounded(report)


def lab_comparison(folder: Path) -> Any:
    """The report of a generated comparison in which B is slower: all that is judged, of blocks and conditions the first."""
    module = tool("make_lab")
    run = module.write(folder / "run", module.Plan("comparison", rows=120_000, seed=7, scenario="worse"))
    report = json.loads(build_report(run).json.read_text(encoding="utf-8"))
    for key in ("blocks", "conditions"):
        report[key] = report[key][:1]
    return rounded({key: value for key, value in report.items() if key not in ("run", "generated")})


PRODUCED = {"report_backend_dies": backend_dies, "report_lab_comparison": lab_comparison}


@pytest.mark.parametrize("name", PRODUCED)
def test_report_of_a_seeded_run(tmp_path: Path, name: str) -> None:
    assert PRODUCED[name](tmp_path) == json.loads(_golden(name).read_text(encoding="utf-8"))


def _golden(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.json")


if __name__ == "__main__":
    for name, produce in PRODUCED.items():
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(produce(Path(folder)), indent=1, ensure_ascii=False)
        _golden(name).write_text(text + "\n", encoding="utf-8")
