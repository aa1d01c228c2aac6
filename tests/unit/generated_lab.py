"""Loads tools/make_lab.py, which is a script and no package, so that tests can write generated lab runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parents[2] / "tools"


def write(out: Path, kind: str = "comparison", **plan: Any) -> Path:
    """Write a lab run of the kind: 12000 requests, 6 starts, seed 1, unless told otherwise."""
    sys.path.insert(0, str(TOOLS))
    try:
        module = importlib.import_module("make_lab")
    finally:
        sys.path.remove(str(TOOLS))
    result: Path = module.write(out, module.Plan(kind, **{"rows": 12_000, **plan}))
    return result
