"""The variants of a model that can stand behind an arm: which there are, where each one's files lie, and why one is missing.

Here live the table of variants, the variants' manifest and the questions a lab asks; building lives in `variants_build`, the
proof in `variants_parity`. Imports no framework and changes no file.

A variant is named by what runs: the default artefacts are variants too (`torchscript`, `savedmodel`), so that every arm of a
comparison has one name. The others lie in <artefacts>/<model>/variants/<variant>/, a TorchServe model folder or a base path
of version folders, which an arm of abgate.yaml names by `artifact:`.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gateway.errors import ConfigError
from model_store import record, zoo
from model_store.compare import Tolerance
from model_store.layout import Layout, combined, digests

Kind = Literal["torchserve", "tensorflow_serving"]
FORMAT = 1
# sizes of batches that a variant with fixed shapes is compiled for before it is served
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
# 8 bits a weight: seen relative errors of 0.002 to 0.03; an answer may tip where two outputs are nearly equal
INT8 = Tolerance(0.0, 0.0, relative_error=0.05, argmax=0.9)


@dataclass(frozen=True, slots=True)
class VariantInfo:
    """One variant of one model: which server runs it, in a sentence what it is, and how equal it must be.

    default: it is what `abgate models build` makes anyway. tolerance None is the model's own. stand_in_only: the real
    TensorFlow Serving cannot serve it as we start it. skipped: why this model cannot have it, as far as that is known unbuilt.
    """

    name: str
    kind: Kind
    what: str
    default: bool = False
    tolerance: Tolerance | None = None
    stand_in_only: bool = False
    note: str = ""
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class ArmFiles:
    """What an arm serves: path for `artifact:`, or in `skipped` why there is nothing to serve.

    digest is one sha256 over the files' sums as they were recorded when they were made; "" where there are none. near: the
    variant's tolerance is one of all outputs together, so that single answers may differ from the reference by more.
    """

    kind: Kind
    path: Path
    stand_in_only: bool
    skipped: str | None
    digest: str
    near: bool = False


_LITERT = (
    "runs in LiteRT's interpreter in the stand-in only: the real TensorFlow Serving would need --prefer_tflite_model, "
    "which is experimental there and not tried here"
)
_XLA = (
    f"compiled for batches of {', '.join(map(str, BATCH_SIZES))} rows before it is AVAILABLE, other sizes at their first request; "
    "the real TensorFlow Serving needs --xla_cpu_compilation_enabled, which `abgate up` sets for it"
)
VARIANTS = (
    VariantInfo("torchscript", "torchserve", "native twin, traced and frozen TorchScript", default=True),
    VariantInfo("eager", "torchserve", "native twin, an nn.Module run operator by operator"),
    VariantInfo(
        "compile",
        "torchserve",
        "native twin through torch.compile (inductor)",
        note="compiled in the worker before it is ready, with a batch dimension of any size; needs g++",
    ),
    VariantInfo("pt2", "torchserve", "native twin through torch.export, a batch dimension of any size"),
    VariantInfo(
        "int8",
        "torchserve",
        "native twin, Linear layers dynamically quantised to 8 bits, traced and frozen TorchScript",
        tolerance=INT8,
        note="weights of Linear layers are 8 bits, activations are quantised per call; all other layers stay FP32",
    ),
    VariantInfo("onnx", "torchserve", "native twin through torch.onnx, run by ONNX Runtime"),
    VariantInfo(
        "exporter",
        "torchserve",
        "Keras's own torch export of the Keras definition",
        note="shows what an exporter costs beside a hand-written module",
    ),
    VariantInfo("savedmodel", "tensorflow_serving", "SavedModel of the Keras definition", default=True),
    VariantInfo("xla", "tensorflow_serving", "SavedModel whose signature is compiled by XLA", note=_XLA),
    VariantInfo(
        "litert", "tensorflow_serving", "SavedModel converted to LiteRT, FP32", stand_in_only=True, note=_LITERT
    ),
    VariantInfo(
        "litert-int8",
        "tensorflow_serving",
        "SavedModel converted to LiteRT, weights of 8 bits",
        tolerance=INT8,
        stand_in_only=True,
        note=f"dynamic range: weights are 8 bits, activations are quantised per call; {_LITERT}",
    ),
)
NAMES = tuple(info.name for info in VARIANTS)


def variants_of(model: str) -> tuple[VariantInfo, ...]:
    """Every variant there is, with the reason where this model cannot have it; raises ConfigError on an unknown model."""
    module = zoo.model(model)
    signature = module.SIGNATURE
    texts = sorted(spec.name for spec in (*signature.inputs, *signature.outputs) if spec.datatype == "BYTES")
    python = hasattr(module, "PYTHON_TWIN")
    keras = hasattr(module, "keras_model")

    def reason(info: VariantInfo) -> str | None:
        if info.name == "savedmodel":
            return None
        if texts:
            return f"{', '.join(texts)}: BYTES, which only the SavedModel and plain Python take"
        if info.kind == "torchserve" and python:
            return "its twin for TorchServe is plain Python, no nn.Module"
        if info.name == "exporter" and not keras:
            return "it has no Keras definition, only functions of TensorFlow"
        return None

    return tuple(replace(info, skipped=reason(info)) for info in VARIANTS)


def variant(model: str, name: str) -> VariantInfo:
    """One variant of a model; raises ConfigError on an unknown name of either."""
    for info in variants_of(model):
        if info.name == name:
            return info
    raise ConfigError([f"variants: {name!r} is not one of {', '.join(NAMES)}"])


def home(base: Layout) -> Path:
    """The folder of a model's variants."""
    return base.folder / "variants"


def manifest_path(base: Layout) -> Path:
    """The variants' manifest."""
    return home(base) / "manifest.json"


def read_manifest(base: Layout) -> dict[str, Any]:
    """The manifest's entries by variant, {} where nothing was built; raises ConfigError when it cannot be read."""
    path = manifest_path(base)
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ConfigError([f"{path}: format {document['format']!r} is not {FORMAT}; build the variants again"])
        entries: dict[str, Any] = document["variants"]
        return entries
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error}); build the variants again"]) from error


def arm_files(artifacts_root: Path, model: str, name: str) -> ArmFiles:
    """Where the files of a variant lie, whatever state they are in; `skipped` says why they cannot be served.

    Reads two small files. Raises ConfigError on an unknown model or variant. Whether parity was proved and holds is asked
    with `problems`.
    """
    info = variant(model, name)
    base = Layout(artifacts_root, model)
    path = _place(base, info)
    if info.skipped is not None:
        return ArmFiles(info.kind, path, info.stand_in_only, info.skipped, "")
    if info.default:
        return _default_files(base, info, path)
    entry = read_manifest(base).get(name)
    if entry is None:
        missing = f"is not built; `abgate models build {model} --variants` makes it"
        return ArmFiles(info.kind, path, info.stand_in_only, missing, "")
    reason = entry["skipped"]
    if reason is None and entry.get("made_from") not in (None, weights_digest(base)):
        reason = f"was made from other weights; `abgate models build {model} --variants` makes it again"
    near = (entry.get("tolerance") or {}).get("relative_error") is not None
    return ArmFiles(info.kind, path, info.stand_in_only, reason, entry["digest"] or "", near)


def weights_digest(base: Layout) -> str | None:
    """The sha256 of a built model's weights, as its build recorded it; None where there is no such record."""
    try:
        stages = record.load(base.build_record).stages
    except ConfigError:
        return None
    return next((stage.files[base.weights.name] for stage in stages.values() if base.weights.name in stage.files), None)


def problems(artifacts_root: Path, model: str, name: str) -> list[str]:
    """Why a variant that is not a default one may not be compared: missing, unproved, unequal, changed. Empty when proved.

    Costs the digests of its files. The default ones' proof is `model_store.manifest.problems`.
    """
    info, base = variant(model, name), Layout(artifacts_root, model)
    where = f"{model}: variant {name}"
    files = arm_files(artifacts_root, model, name)
    if files.skipped is not None:
        return [f"{where}: {files.skipped}"]
    if info.default:
        return []
    entry = read_manifest(base)[name]
    parity = entry["parity"]
    if parity is None:
        return [f"{where}: parity was never proved; run `abgate models verify {model} --variants`"]
    if not parity["ok"]:
        return list(parity["failures"])
    if combined(digests(files.path, files.path)) != entry["digest"]:
        return [f"{where}: its files changed since its parity was proved; run `abgate models build {model} --variants`"]
    return []


def _place(base: Layout, info: VariantInfo) -> Path:
    if not info.default:
        return home(base) / info.name
    return base.torchserve if info.kind == "torchserve" else base.savedmodel


def _default_files(base: Layout, info: VariantInfo, path: Path) -> ArmFiles:
    try:
        stages = record.load(base.build_record).stages
    except ConfigError:
        missing = f"is not built; `abgate models build {base.model}` makes it"
        return ArmFiles(info.kind, path, info.stand_in_only, missing, "")
    below = path.relative_to(base.folder).as_posix() + "/"
    sums = {
        file.removeprefix(below): digest
        for stage in stages.values()
        for file, digest in stage.files.items()
        if file.startswith(below)
    }
    return ArmFiles(info.kind, path, info.stand_in_only, None, combined(sums))


def write_entry(base: Layout, name: str, entry: dict[str, Any]) -> None:
    """Put one variant's entry into the manifest."""
    entries = read_manifest(base) | {name: entry}
    ordered = {known: entries[known] for known in NAMES if known in entries}
    record.write_json(manifest_path(base), {"format": FORMAT, "model": base.model, "variants": ordered})
