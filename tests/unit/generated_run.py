"""Loads tools/make_run.py, which is a script and no package, so that tests can write generated run directories."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "tools" / "make_run.py"


def load() -> ModuleType:
    """The generator's module."""
    if "make_run" not in sys.modules:
        spec = importlib.util.spec_from_file_location("make_run", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_run"] = module
        spec.loader.exec_module(module)
    return sys.modules["make_run"]


def write(out: Path, scenario: str = "calm", rows: int = 4000, stand_in: bool = True) -> Path:
    """Write a run directory of the scenario: eight seconds, seed 1."""
    module = load()
    plan = module.Plan(rows, seconds=8.0, warmup=1.0, scenario=scenario, stand_in=stand_in)
    result: Path = module.write(out, plan)
    return result
