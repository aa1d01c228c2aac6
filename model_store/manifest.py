"""manifest.json: the parity proof as it is kept beside the artefacts and embedded in every run.

Here live its fields, and the cheap question whether the proof still fits the files; the proof itself is made in `parity`.
"""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_store import record
from model_store.compare import OutputDifference
from model_store.layout import Layout, combined, digests, own_digests, sha256_file
from model_store.results import ArtifactResult, ParityResult

FORMAT = 1


def write(layout: Layout, result: ParityResult) -> None:
    """Write the manifest of one verification."""
    record.write_json(layout.manifest, to_dict(layout, result))


def to_dict(layout: Layout, result: ParityResult) -> dict[str, Any]:
    """The manifest's JSON: verdict, inputs, tolerance, each artefact's differences, and the sha256 of every file."""
    files = own_digests(layout)
    made = record.load(layout.build_record)
    return {
        "format": FORMAT,
        "model": result.model,
        "ok": result.ok,
        "failures": list(result.failures),
        "warnings": list(result.warnings),
        "verified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "inputs": {"rows": result.rows, "sha256": files[layout.inputs.name]},
        "tolerance": {"rtol": result.tolerance.rtol, "atol": result.tolerance.atol},
        "reference": result.reference,
        "build_versions": {name: stage.versions for name, stage in made.stages.items()},
        "artifacts": {item.artifact.name: _artifact(layout, item) for item in result.artifacts},
        "between": [_difference(difference) for difference in result.between],
        "files": files,
    }


def problems(layout: Layout) -> list[str]:
    """Why the model may not be used for a comparison: no proof, a failed one, or files changed since. Empty when proved.

    Costs the digests of all artefacts and imports no framework.
    """
    try:
        document = json.loads(layout.manifest.read_text())
        if document["format"] != FORMAT:
            return [f"{layout.manifest}: format {document['format']!r} is not {FORMAT}; run `abgate models verify`"]
        kept: dict[str, str] = document["files"]
        failures: list[str] = [] if document["ok"] is True else list(document["failures"]) or ["parity failed"]
    except FileNotFoundError:
        return [f"{layout.model}: parity was never proved; run `abgate models verify {layout.model}`"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{layout.manifest}: cannot be read ({error}); run `abgate models verify {layout.model}`"]
    changed = [path for path in kept if _changed(layout.folder / path, kept[path])]
    return failures + [f"{layout.model}: {path} changed since its parity was proved" for path in changed]


def _changed(path: Path, digest: str) -> bool:
    return not path.is_file() or sha256_file(path) != digest


def _artifact(layout: Layout, item: ArtifactResult) -> dict[str, Any]:
    artifact = item.artifact
    sums = digests(layout.folder / artifact.path, layout.folder) if artifact.path else {}
    return {
        "kind": artifact.kind,
        "ok": item.ok,
        "path": artifact.path,
        "address": artifact.address,
        "export_path": artifact.export_path,
        "sha256": combined(sums) if sums else None,
        "files": sums,
        **figures(item),
    }


def figures(item: ArtifactResult) -> dict[str, Any]:
    """What one artefact's run found, in JSON."""
    distances = [d.max_abs_diff for d in item.differences if d.max_abs_diff is not None]
    agreements = [d.argmax_agreement for d in item.differences if d.argmax_agreement is not None]
    relative = [d.relative_error for d in item.differences if d.relative_error is not None]
    return {
        "versions": item.versions,
        "relative_error": max(relative, default=None),
        "max_abs_diff": _number(max(distances, default=None)),
        "argmax_agreement": min(agreements, default=None),
        "accuracy": item.accuracy,
        "seconds": round(item.seconds, 3),
        "problem": item.problem,
        "outputs": [_difference(difference) for difference in item.differences],
    }


def _difference(difference: OutputDifference) -> dict[str, Any]:
    worst = difference.worst
    return {
        "output": difference.output,
        "ok": difference.ok,
        "max_abs_diff": _number(difference.max_abs_diff),
        "argmax_agreement": difference.argmax_agreement,
        "rows_outside": difference.rows_outside,
        "problem": difference.problem,
        "relative_error": difference.relative_error,
        "worst": None
        if worst is None
        else {"row": worst.row, "index": list(worst.index), "got": worst.got, "want": worst.want},
    }


def _number(distance: float | None) -> float | str | None:
    """JSON has no infinity: a distance to something that is not a number is written as text."""
    return "Infinity" if distance == float("inf") else distance
