"""report.json of one seeded generated run, number by number to six digits: what a change of a formula moves is seen here.

After a change that is meant: `python tests/golden/test_report_golden.py` writes the file anew; read its difference.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway.reports import build_report

GOLDEN = Path(__file__).with_name("report_backend_dies.json")
SCRIPT = Path(__file__).parents[2] / "tools" / "make_run.py"


def rounded(value: Any) -> Any:
    """The document with floats to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def produce(folder: Path) -> Any:
    """The report of the generated run, without the curves' points."""
    spec = importlib.util.spec_from_file_location("make_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("make_run", module)
    spec.loader.exec_module(module)
    run = module.write(folder / "run", module.Plan(rows=3000, seconds=6.0, warmup=1.0, seed=7, scenario="backend_dies"))
    report = json.loads(build_report(run).json.read_text(encoding="utf-8"))
    del report["plots"]["percentile_curve"]
    return rounded(report)


def test_report_of_a_seeded_run(tmp_path: Path) -> None:
    assert produce(tmp_path) == json.loads(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        text = json.dumps(produce(Path(name)), indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")
