"""A tiny TorchScript model in a TorchServe folder, for tests that need a real worker: made in a second, answers known by heart."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from pathlib import Path

from backends.spec import Batching
from backends.torchserve import handler_files, model_config

SIGNATURE = {
    "format": 1,
    "model": "tiny",
    "signature_name": "serving_default",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
PAIR_SIGNATURE = {
    "format": 1,
    "model": "pair",
    "signature_name": "serving_default",
    "inputs": [
        {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "k", "datatype": "INT64", "shape": [-1]},
    ],
    "outputs": [
        {"name": "sum", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "next", "datatype": "INT64", "shape": [-1]},
    ],
}


def write_tiny(folder: Path) -> Path:
    """Model `tiny`: y = [sum of the row, 2 * first element]."""
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack((x.sum(1), 2 * x[:, 0]), 1)

    return write_folder(folder, Tiny(), SIGNATURE)


def write_pair(folder: Path) -> Path:
    """Model `pair`: sum = a + k, next = k + 1; two inputs, two outputs, two datatypes."""
    import torch

    class Pair(torch.nn.Module):
        def forward(self, a: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a + k.unsqueeze(1).to(a.dtype), k + 1

    return write_folder(folder, Pair(), PAIR_SIGNATURE)


def write_folder(folder: Path, module, signature: dict) -> Path:
    """Write a TorchServe folder as model_store does: frozen TorchScript, handler, manifest, yaml, signature."""
    import torch

    (folder / "MAR-INF").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        torch.jit.save(torch.jit.freeze(torch.jit.script(module.eval())), str(folder / "model.pt"))
    for file in handler_files():
        shutil.copyfile(file, folder / file.name)
    described = {
        "modelName": signature["model"],
        "modelVersion": "1.0",
        "serializedFile": "model.pt",
        "handler": "handler.py",
        "configFile": "model-config.yaml",
    }
    manifest = {"runtime": "python", "model": described, "archiverVersion": "0.12.0", "createdOn": "x"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model-config.yaml").write_text(model_config(Batching(), threads=1, workers=1))
    (folder / "signature.json").write_text(json.dumps(signature))
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """The same folder as a .mar file, as a user would bring it."""
    with zipfile.ZipFile(archive, "w") as mar:
        for file in sorted(folder.rglob("*")):
            mar.write(file, file.relative_to(folder))
    return archive
