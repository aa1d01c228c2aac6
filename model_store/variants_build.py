"""Builds the variants of models that are built: only what changed, and all of a variant or nothing of it.

Here live a variant's steps, its keys and its entry in the variants' manifest; the exchange of folders is `build`'s, what a
step does in a framework is in `variants_torch` and `variants_tensorflow`. Nothing here imports a framework.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.errors import ConfigError
from gateway.protocol import signature_file
from model_store import (
    arrays,
    process,
    record,
    stages,
    tensorflow_process,
    torchserve_folder,
    twins,
    variants,
    variants_tensorflow,
    variants_torch,
    zoo,
)
from model_store.build import install, locked, run_steps, still_valid
from model_store.layout import Layout, combined, digests
from model_store.process import Progress, silent
from model_store.record import Artifact, BuildRecord
from model_store.variants import VariantInfo

PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript"),
    "exporter": ("torch", "keras"),
    "xla": ("tensorflow", "tensorflow-serving-api"),
    "litert": ("tensorflow",),
    "litert-int8": ("tensorflow",),
}
_BASE = "base/"
_EXTRA = {
    # g++ may take minutes for a large model on a small machine; TorchServe's own limit is 120 s
    "compile": "startupTimeout: 1800\n",
}


@dataclass(frozen=True, slots=True)
class VariantBuild:
    """One variant's build: which steps ran (none: it was up to date), how long it took, or why the model cannot have it."""

    model: str
    variant: str
    folder: Path
    steps_run: tuple[str, ...]
    seconds: float
    size: int
    skipped: str | None


class _Skipped(Exception):
    """The framework's process found that the model cannot have the variant."""


def build(
    names: Sequence[str],
    root: Path,
    handler: Path,
    progress: Progress = silent,
    only: Sequence[str] | None = None,
) -> list[VariantBuild]:
    """Build every variant (or `only` those) of models that `model_store.build` has built below `root`.

    A variant whose sources, versions and files are unchanged is left alone, and so is the reason why there is none. Raises
    ConfigError on an unknown name, a model not built or a missing package, ProcessError when a framework process fails:
    variants finished before that stay.
    """
    root = root.absolute()
    unknown = sorted(set(only or ()) - set(variants.NAMES))
    problems = [f"variants: {name!r} is not one of {', '.join(variants.NAMES)}" for name in unknown]
    for name in names:
        if zoo.model(name) and not Layout(root, name).build_record.is_file():
            problems.append(f"{root}: {name!r} is not there; `abgate models build {name}` makes it")
    if problems:
        raise ConfigError(problems)
    found = []
    with locked(root, lambda: progress(names[0], "waiting for another build to end", 0.0)):
        for name in dict.fromkeys(names):
            chosen = [
                info
                for info in variants.variants_of(name)
                if not info.default and info.name in (only or variants.NAMES)
            ]
            for index, info in enumerate(chosen):
                part = _part(progress, index, len(chosen))
                found.append(_build_one(Layout(root, name), info, handler, part))
            progress(name, "variants built", 1.0)
    return found


def _part(progress: Progress, index: int, count: int) -> Progress:
    return lambda model, step, share: progress(model, step, min((index + share) / count, 0.999))


def _build_one(base: Layout, info: VariantInfo, handler: Path, progress: Progress) -> VariantBuild:
    started = time.perf_counter()
    layout = Layout(variants.home(base), info.name)
    entries = variants.read_manifest(base)
    before = entries.get(info.name)
    given = _given(base)

    def result(steps_run: tuple[str, ...], entry: Mapping[str, Any]) -> VariantBuild:
        seconds = time.perf_counter() - started
        return VariantBuild(base.model, info.name, layout.folder, steps_run, seconds, entry["bytes"], entry["skipped"])

    if info.skipped is not None:
        return result((), _write(base, info, {"skipped": info.skipped}, before))
    plan = _steps(base, info, handler)
    first = stages.key(plan[0], given)
    progress(base.model, f"{info.name}: checking what is there", 0.0)
    if before and before["skipped"] and before["key"] == first:
        return result((), before)
    valid = still_valid(layout, plan, given)
    if before and not before["skipped"] and len(valid) == len(plan):
        return result((), before)
    work = base.root / f".building-{base.model}-{info.name}"
    shutil.rmtree(work, ignore_errors=True)
    fresh = Layout(work, info.name)
    fresh.folder.mkdir(parents=True)
    context = stages.Context(fresh, handler, lambda _, step, share: progress(base.model, f"{info.name}: {step}", share))
    try:
        finished, steps_run = run_steps((layout, fresh), plan, valid, given, context)
        layout.root.mkdir(exist_ok=True)
        record.save(fresh.build_record, _record(base, info, fresh, finished))
        entry = _entry(base, fresh, {"key": first, "seconds": round(time.perf_counter() - started, 1)})
        install(fresh, layout)
    except _Skipped as skipped:
        shutil.rmtree(layout.folder, ignore_errors=True)
        layout.root.mkdir(exist_ok=True)
        steps_run, entry = (), {"skipped": str(skipped), "key": first}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return result(steps_run, _write(base, info, entry, before))


def _given(base: Layout) -> dict[str, str]:
    """Digests of the model's own files, as its build recorded them."""
    built = record.load(base.build_record)
    return {_BASE + path: sum_ for stage in built.stages.values() for path, sum_ in stage.files.items()}


def _steps(base: Layout, info: VariantInfo, handler: Path) -> tuple[stages.Step, ...]:
    export = _torch_step(base, info) if info.kind == "torchserve" else _tensorflow_step(base, info)
    if info.kind != "torchserve":
        return (export,)
    file = variants_torch.FILES[info.name]
    folder = stages.Step(
        "folder",
        0.98,
        1.0,
        (),
        (stages.file_of(torchserve_folder), *torchserve_folder.handler_files(handler)),
        (_BASE + "signature.json", file),
        lambda context: torchserve_folder.write(
            context.layout.folder, base.model, file, context.handler, base.signature, _config(base, info)
        ),
    )
    return (export, folder)


def _torch_step(base: Layout, info: VariantInfo) -> stages.Step:
    twin = twins.source(base.model)
    assert twin is not None  # a twin in plain Python has none of these variants
    common = (variants_torch, arrays, signature_file, twins)

    def run(context: stages.Context) -> None:
        _run(context, process.TORCH_VARIANTS, "build", weights=str(base.weights), inputs=str(base.inputs),
             model=base.model, variant=info.name, folder=str(context.layout.folder))  # fmt: skip

    return stages.Step(
        "torch",
        0.0,
        0.98,
        (*PACKAGES.get(info.name, ("torch",)), "numpy"),
        (*map(stages.file_of, common), zoo.source(base.model), twin[0]),
        (_BASE + "weights.npz", _BASE + "inputs.npz"),
        run,
    )


def _tensorflow_step(base: Layout, info: VariantInfo) -> stages.Step:
    saved = base.savedmodel / "1"

    def run(context: stages.Context) -> None:
        given = {"model": base.model, "savedmodel": str(saved), "version": str(context.layout.folder / "1")}
        if info.name == "xla":
            sizes = list(variants.BATCH_SIZES)
            _run(context, process.TENSORFLOW_VARIANTS, "xla", **given, inputs=str(base.inputs), batch_sizes=sizes)
            # for the server's plan, which must not batch to other sizes
            (context.layout.folder / "batch_sizes.json").write_text(json.dumps(sizes) + "\n")
        else:
            _run(context, process.TENSORFLOW_VARIANTS, "litert", **given, int8=info.name == "litert-int8")

    files = sorted(path.relative_to(base.folder).as_posix() for path in saved.rglob("*") if path.is_file())
    sources = (variants_tensorflow, tensorflow_process, arrays, signature_file, variants)
    return stages.Step(
        "tensorflow",
        0.0,
        1.0,
        (*PACKAGES[info.name], "numpy"),
        tuple(map(stages.file_of, sources)),
        tuple(_BASE + file for file in files),
        run,
    )


def _run(context: stages.Context, module: str, action: str, **arguments: Any) -> None:
    """Run a framework's process; how the artefact came about is kept in a file until the record is written."""
    found = process.run(module, action, context.layout.model, context.progress, **arguments)
    if found.get("skipped"):
        raise _Skipped(found["skipped"])
    (context.layout.folder / "export.txt").write_text(found["export_path"] + "\n")


def _config(base: Layout, info: VariantInfo) -> str:
    """What the handler must know beyond the default, in yaml."""
    form = {"eager": "eager", "compile": "compile"}.get(info.name)
    if form is None:
        return ""
    twin = twins.source(base.model)
    assert twin is not None
    lines = yaml.safe_dump({"form": form, "arguments": twin[1]}, sort_keys=False)
    return "".join(f"  {line}\n" for line in lines.splitlines()) + _EXTRA.get(info.name, "")


def _record(base: Layout, info: VariantInfo, fresh: Layout, finished: dict[str, record.Stage]) -> BuildRecord:
    kind: record.Kind = "torchserve-variant" if info.kind == "torchserve" else "savedmodel"
    if info.name.startswith("litert"):
        kind = "litert"
    path = "" if info.kind == "torchserve" else "1"
    how = (fresh.folder / "export.txt").read_text().strip()
    tolerance = info.tolerance or zoo.model(base.model).TOLERANCE
    reference = record.load(base.build_record).reference
    return BuildRecord(base.model, (Artifact(info.name, kind, how, path=path),), tolerance, reference, finished)


def _entry(base: Layout, fresh: Layout, more: dict[str, Any]) -> dict[str, Any]:
    made = record.load(fresh.build_record)
    sums = digests(fresh.folder, fresh.folder)
    return {
        "export_path": made.artifacts[0].export_path,
        "versions": next(iter(made.stages.values())).versions,
        "digest": combined(sums),
        "files": sums,
        "bytes": sum((fresh.folder / path).stat().st_size for path in sums),
        **more,
    }


def _write(
    base: Layout, info: VariantInfo, entry: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Put a variant's entry into the manifest; a proof of files that are the same stays."""
    empty = dict.fromkeys(("skipped", "key", "export_path", "digest", "seconds", "parity")) | {"bytes": 0}
    tolerance = info.tolerance or zoo.model(base.model).TOLERANCE
    said = {
        "kind": info.kind,
        "what": info.what,
        "note": info.note,
        "stand_in_only": info.stand_in_only,
        "made_from": variants.weights_digest(base),
        "tolerance": {"said": str(tolerance), **{name: getattr(tolerance, name) for name in tolerance.__slots__}},
    }
    whole = said | empty | {"versions": {}, "files": {}} | dict(entry)
    if (
        before
        and before["digest"]
        and before["digest"] == whole["digest"]
        and before["tolerance"] == whole["tolerance"]
    ):
        whole["parity"] = before["parity"]
    variants.home(base).mkdir(exist_ok=True)
    variants.write_entry(base, info.name, whole)
    return whole
