"""lab.json: begun before the first block, written anew after every one, read again to go on. The words are lab/spec.py's."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from loadtest.lab.spec import ArmSpec, Running
from loadtest.runfile import machine, versions

FORMAT = 1
NAME = "lab.json"
NOT_TESTED = (
    "CPU only: the ranking may reverse on a GPU",
    "one machine: client, gateway and servers share its cores, and no network lies between them",
)


def new_run(runs: Path, kind: str) -> Path:
    """A new run's directory."""
    folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{kind}-{secrets.token_hex(2)}"
    (folder / "blocks").mkdir(parents=True)
    return folder.absolute()


def begin(
    run_dir: Path, kind: str, question: str, plan: Mapping[str, Any], model: str, payloads: Path | None = None
) -> dict[str, Any]:
    """A document before anything was measured. payloads: the model's inputs; its manifest lies beside them."""
    manifest = _manifest(payloads.parent / "manifest.json") if payloads else None
    return {
        "format": FORMAT,
        "kind": kind,
        "run_id": run_dir.name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": 0.0,
        "complete": False,
        "question": question,
        "verdict": {"text": "nothing was measured yet", "code": 2, "valid": False, "reasons": ["it is not complete"]},
        "plan": dict(plan),
        "machine": machine(),
        "versions": versions(),
        "model": {"name": model, "manifest": manifest},
        "arms": {},
        "blocks": [],
        "comparisons": [],
        "results": {},
        "not_tested": list(NOT_TESTED),
    }


def _manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def planned_arm(arm: ArmSpec) -> dict[str, Any]:
    """What is known of an arm before its server runs."""
    return {
        "kind": arm.kind,
        "variant": arm.variant,
        "threads": arm.resources.threads,
        "workers": arm.resources.workers,
        "cores": list(arm.resources.cores) if arm.resources.cores is not None else None,
        "max_batch": arm.batch.max_batch,
        "wait_ms": arm.batch.wait_ms,
        "path": str(arm.path),
        "digest": arm.digest,
    }


def arms_entry(arms: Sequence[ArmSpec], running: Running, roles: Mapping[str, str]) -> dict[str, Any]:
    """The document's "arms", known once the servers run. roles: arm -> baseline, arm or A/A."""
    return {
        arm.name: planned_arm(arm)
        | {
            "implementation": running.arms[arm.name].implementation,
            "stand_in": running.arms[arm.name].stand_in,
            "options": dict(arm.options),
            "wire": dict(running.wire.get(arm.name, {})),
            "role": roles.get(arm.name, "arm"),
        }
        for arm in arms
    }


def write(run_dir: Path, document: Mapping[str, Any]) -> None:
    """Write lab.json whole: a reader sees the old one or the new one. A number that is none is refused (ValueError)."""
    part = run_dir / f".{NAME}.{os.getpid()}"
    # without indent: json then encodes in C, ten times as fast, and this is done after every block
    part.write_text(json.dumps(document, allow_nan=False, default=str) + "\n", "utf-8")
    part.replace(run_dir / NAME)


def read(run_dir: Path) -> dict[str, Any]:
    """A run's lab.json; raises ConfigError where there is none."""
    try:
        found = json.loads((run_dir / NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{run_dir / NAME}: cannot be read: {error}"]) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError([f"{run_dir / NAME}: is no lab document of format {FORMAT}"])
    return found


def reopen(run_dir: Path, kind: str) -> dict[str, Any]:
    """A run's lab.json to go on with; raises ConfigError where there is none or it is of another kind."""
    found = read(run_dir)
    if found.get("kind") != kind:
        raise ConfigError([f"{run_dir}: a run of kind {found.get('kind')!r}, not {kind!r}"])
    found["results"].pop("interrupted", None)
    return found
