"""A private copy of a model for one start, so that the start's batching, threads and workers are the ones in force.

TorchServe lets a model's own yaml beat parameters given elsewhere, so the only sure place is that yaml. The copy links the
model's files and owns three: MANIFEST.json, model-config.yaml and, where missing, the other parts of our handler.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml

from backends.spec import Batching, ServedModel

CONFIG_NAME = "model-config.yaml"


def handler_path() -> Path:
    """The handler every model folder carries as handler.py; it needs `handler_files` beside it."""
    return Path(__file__).with_name("handler.py")


def handler_files() -> tuple[Path, ...]:
    """All files of the handler, to be copied into a model folder under their own names."""
    here = Path(__file__)
    return handler_path(), here.with_name("handler_wire.py"), here.with_name("handler_models.py")


def model_config(batching: Batching, threads: int, workers: int) -> str:
    """The text of model-config.yaml: workers, batch size and delay of one model, and torch's threads per worker."""
    return yaml.safe_dump(settings(batching, threads, workers), sort_keys=False)


def settings(batching: Batching, threads: int, workers: int) -> dict[str, Any]:
    """The same as a mapping. The delay is at least 1 ms: with 0 TorchServe 0.12 never fills a batch beyond 2."""
    return {
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": batching.max_batch_size,
        "maxBatchDelay": max(1, math.ceil(batching.max_wait_ms)),
        "responseTimeout": 120,
        "handler": {"threads": threads},
    }


def assemble(model: ServedModel, into: Path, own: dict[str, Any]) -> None:
    """Make the folder `into` from a model folder or .mar file, with the settings `own` in force.

    Raises FileNotFoundError or ValueError naming the model and what its folder lacks.
    """
    source = Path(model.path).resolve()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model.name):
        raise ValueError(f"model name {model.name!r}: letters, digits, dot, dash and underscore only")
    into.mkdir(parents=True)
    if source.is_dir():
        for entry in source.iterdir():
            if entry.name != "MAR-INF":
                (into / entry.name).symlink_to(entry)
        manifest_text = read_manifest(source / "MAR-INF" / "MANIFEST.json", model)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            archive.extractall(into)
        manifest_text = read_manifest(into / "MAR-INF" / "MANIFEST.json", model)
        shutil.rmtree(into / "MAR-INF")
    else:
        raise FileNotFoundError(f"model {model.name!r}: {model.path} is neither a model folder nor a .mar file")
    write_own_files(model, into, json.loads(manifest_text), own)


def read_manifest(path: Path, model: ServedModel) -> str:
    """The text of MANIFEST.json."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"model {model.name!r}: {model.path} has no MAR-INF/MANIFEST.json") from None


def write_own_files(model: ServedModel, into: Path, manifest: dict[str, Any], own: dict[str, Any]) -> None:
    """Write manifest and yaml; what the model's own yaml says beyond `own` stays."""
    described = manifest.setdefault("model", {})
    theirs: dict[str, Any] = {}
    if "configFile" in described:
        theirs = yaml.safe_load((into / described["configFile"]).read_text(encoding="utf-8")) or {}
    merged = theirs | own | {"handler": (theirs.get("handler") or {}) | own["handler"]}
    config = into / CONFIG_NAME
    config.unlink(missing_ok=True)
    config.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    described |= {"modelName": model.name, "configFile": CONFIG_NAME}
    if model.version is not None:
        described["modelVersion"] = model.version
    (into / "MAR-INF").mkdir()
    (into / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest), encoding="utf-8")
    handler = into / "handler.py"
    if handler.exists() and "handler_wire" in handler.read_text(encoding="utf-8", errors="replace"):
        for file in handler_files()[1:]:
            if not os.path.lexists(into / file.name):
                (into / file.name).symlink_to(file)
