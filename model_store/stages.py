"""The steps of a build, and the keys that tell whether a step's result still holds.

A key is the sha256 of everything a step reads: its sources, the versions of its frameworks, and the digests of what earlier
steps made. Here live the steps; which of them must run is decided in `build`.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.errors import ConfigError
from gateway.protocol import signature_file
from model_store import arrays, process, record, tensorflow_process, torch_process, torchserve_folder, twins, zoo
from model_store.layout import Layout, sha256_file

TENSORFLOW_PACKAGES = ("tensorflow", "keras", "tensorflow-serving-api", "numpy")
TORCH_PACKAGES = ("torch", "numpy")


@dataclass(frozen=True, slots=True)
class Context:
    """What every step of one model's build is given; `layout` points into the folder being made."""

    layout: Layout
    handler: Path
    progress: process.Progress


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the packages its result depends on, its sources, the artefacts it reads, and what it does.

    from_share and to_share say which part of a model's build it is, for the progress shown (0..1).
    """

    name: str
    from_share: float
    to_share: float
    packages: tuple[str, ...]
    sources: tuple[Path, ...]
    reads: tuple[str, ...]
    run: Callable[[Context], None]


def steps(model: str, handler: Path) -> tuple[Step, ...]:
    """The steps of a model in their order."""
    common = (file_of(arrays), zoo.source(model), file_of(signature_file))
    found: Any = zoo.model(model)
    twin = getattr(found, "PYTHON_TWIN", None) or found.TWIN
    folder = f"torchserve/{model}"
    return (
        Step(
            "tensorflow",
            0.0,
            0.7,
            TENSORFLOW_PACKAGES + zoo.model(model).REQUIRES,
            (file_of(tensorflow_process), *common),
            (),
            _run_tensorflow,
        ),
        Step(
            "torch",
            0.7,
            0.98,
            TORCH_PACKAGES,
            (file_of(torch_process), *common, file_of(twins), twin),
            ("weights.npz", "inputs.npz"),
            _run_python if hasattr(found, "PYTHON_TWIN") else _run_torch,
        ),
        Step(
            "folder",
            0.98,
            1.0,
            (),
            (file_of(torchserve_folder), *torchserve_folder.handler_files(handler)),
            ("signature.json", f"{folder}/{torchserve_folder.MODEL_FILE}"),
            _run_folder,
        ),
    )


def versions(step: Step) -> dict[str, str]:
    """The installed versions a step depends on; raises ConfigError naming the extra that brings a missing one."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in step.packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            extra = "torchserve" if step.name == "torch" else "tensorflow"
            raise ConfigError([f"{package} is not installed; install abgate[{extra}]"]) from error
    return found


def key(step: Step, made: dict[str, str]) -> str:
    """The step's key; `made` holds the digests of what earlier steps made, by path in the model's folder."""
    document = {
        "versions": versions(step),
        "sources": [[path.name, sha256_file(path)] for path in step.sources],
        "reads": {path: made.get(path) for path in step.reads},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def artifacts(model: str) -> tuple[record.Artifact, ...]:
    """The two artefacts a built model has, and how each came about."""
    tensorflow, torch = metadata.version("tensorflow"), metadata.version("torch")
    exported = f"Keras {metadata.version('keras')} -> ExportArchive (SavedModel)"
    if not hasattr(zoo.model(model), "keras_model"):
        exported = f"tf.function (TensorFlow {tensorflow}) -> tf.saved_model.save"
    twin = f"hand-written nn.Module (PyTorch {torch}) -> torch.jit.trace -> torch.jit.freeze"
    kind: record.Kind = "torchscript"
    if hasattr(zoo.model(model), "PYTHON_TWIN"):
        twin, kind = "hand-written Python on numpy arrays", "python"
    return (
        record.Artifact("savedmodel", "savedmodel", exported, path="savedmodel/1"),
        record.Artifact("torchserve", kind, twin, path=f"torchserve/{model}/{model_file(model)}"),
    )


def model_file(model: str) -> str:
    """The name of the model's own file in TorchServe's folder."""
    python = hasattr(zoo.model(model), "PYTHON_TWIN")
    return torchserve_folder.PYTHON_FILE if python else torchserve_folder.MODEL_FILE


def reference(model: str) -> str:
    """Whose answers are the right ones for a built model, in words."""
    tensorflow = metadata.version("tensorflow")
    if not hasattr(zoo.model(model), "keras_model"):
        return f"TensorFlow {tensorflow} definition, run op by op before export"
    return f"Keras {metadata.version('keras')} definition on TensorFlow {tensorflow}, before export"


def scaled(progress: process.Progress, step: Step) -> process.Progress:
    """The progress of one step as a part of the model's build."""
    return lambda model, what, share: progress(model, what, step.from_share + share * (step.to_share - step.from_share))


def _run_tensorflow(context: Context) -> None:
    layout = context.layout
    process.run(process.TENSORFLOW, "build", layout.model, context.progress, model=layout.model, root=str(layout.root))


def _run_torch(context: Context) -> None:
    layout = context.layout
    layout.torchserve.mkdir(parents=True)
    process.run(
        process.TORCH,
        "build",
        layout.model,
        context.progress,
        model=layout.model,
        weights=str(layout.weights),
        inputs=str(layout.inputs),
        output=str(layout.torchserve / torchserve_folder.MODEL_FILE),
    )


def _run_python(context: Context) -> None:
    layout = context.layout
    layout.torchserve.mkdir(parents=True)
    twin: Any = zoo.model(layout.model)
    shutil.copyfile(twin.PYTHON_TWIN, layout.torchserve / torchserve_folder.PYTHON_FILE)


def _run_folder(context: Context) -> None:
    layout = context.layout
    context.progress(layout.model, "TorchServe folder", 0.0)
    file = model_file(layout.model)
    torchserve_folder.write(layout.torchserve, layout.model, file, context.handler, layout.signature)


def file_of(module: ModuleType) -> Path:
    return Path(str(module.__file__))
