"""What runs in the PyTorch process for a variant: export the twin in one form, and run what TorchServe will run.

Run as `python -m model_store.variants_torch ACTION JSON`. Only `exporter` imports Keras, on PyTorch; TensorFlow never is.
"""

import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.protocol import signature_file
from gateway.protocol.signature_file import Signature
from model_store import arrays, child, twins, zoo

EXAMPLE_FILE = "example.npz"
MODULE_FILE = "module.py"
FILES = {"eager": "weights.pth", "compile": "weights.pth", "pt2": "model.pt2", "int8": "model.pt", "onnx": "model.onnx"}
FILES["exporter"] = "model.pt2"


class Skip(Exception):
    """This model cannot have this variant; the message says why."""


def build(model: str, variant: str, weights: str, inputs: str, folder: str) -> dict[str, Any]:
    """Make the model's file (FILES) of one variant in `folder`.

    Gives {"export_path": how it came about}, {"skipped": why not}.
    """
    child.tell("importing PyTorch", 0.0)
    import torch

    rows = arrays.load(Path(inputs))
    names = [spec.name for spec in zoo.model(model).SIGNATURE.inputs]
    example = [rows[name][:2].copy() for name in names]
    if variant == "compile":
        arrays.save(Path(folder) / EXAMPLE_FILE, {name: rows[name][:1] for name in names})
    make = _exporter if variant == "exporter" else _from_twin
    child.tell(f"exporting {variant}", 0.3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations of what is asked for by name
            path = make(model, variant, arrays.load(Path(weights)), example, Path(folder))
    except Skip as skip:
        return {"skipped": str(skip)}
    return {"export_path": path, "torch": torch.__version__}


def _from_twin(model: str, variant: str, weights: Any, example: list[Any], folder: Path) -> str:
    import torch

    module: Any = zoo.model(model)
    twin = module.torch_twin(weights)
    tensors = tuple(torch.from_numpy(array) for array in example)
    make: dict[str, Callable[..., str]] = {
        "eager": _module,
        "compile": _module,
        "pt2": _exported,
        "int8": _int8,
        "onnx": _onnx,
    }
    how = make[variant](twin, tensors, module.SIGNATURE, folder / FILES[variant])
    if variant in ("eager", "compile"):
        found = twins.source(model)
        assert found is not None
        shutil.copyfile(found[0], folder / MODULE_FILE)
    if variant == "compile":
        how += " -> torch.compile (inductor) in the worker, before it is ready"
    return f"hand-written nn.Module (PyTorch {torch.__version__}) -> {how}"


def _module(twin: Any, tensors: Any, signature: Signature, target: Path) -> str:
    import torch

    torch.save(twin.state_dict(), target)
    return "its own class and a state_dict"


def _exported(twin: Any, tensors: Any, signature: Signature, target: Path) -> str:
    import torch

    with torch.no_grad():
        program = torch.export.export(twin, tensors, dynamic_shapes=_dynamic(signature))
    torch.export.save(program, target)
    return "torch.export"


def _int8(twin: Any, tensors: Any, signature: Signature, target: Path) -> str:
    import torch
    from torch import nn

    linear = [part for part in twin.modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise Skip("it has no Linear layer, the only ones whose dynamic quantisation PyTorch has")
    inside = sum(part.weight.numel() for part in linear)
    share = inside / sum(value.numel() for value in twin.parameters())
    quantise: Any = torch.ao.quantization.quantize_dynamic
    quantised = quantise(twin, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        traced = torch.jit.trace(quantised, tensors, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(torch.jit.freeze(traced.eval()), str(target))
    return (
        f"torch.ao.quantization.quantize_dynamic on {len(linear)} Linear layers ({share:.0%} of the weights) "
        "-> torch.jit.trace -> torch.jit.freeze"
    )


def _onnx(twin: Any, tensors: Any, signature: Signature, target: Path) -> str:
    import onnx
    import torch

    torch.onnx.export(
        twin,
        tensors,
        str(target),
        input_names=[spec.name for spec in signature.inputs],
        output_names=[spec.name for spec in signature.outputs],
        dynamic_shapes=_dynamic(signature),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    opset = onnx.load(str(target), load_external_data=False).opset_import[0].version
    return f"torch.onnx.export (dynamo, opset {opset})"


def _dynamic(signature: Signature) -> tuple[dict[int, Any], ...]:
    """Every dimension that the signature leaves open, of any size."""
    import torch

    free = torch.export.Dim.AUTO
    return tuple({axis: free for axis, size in enumerate(spec.shape) if size < 0} for spec in signature.inputs)


def _exporter(model: str, variant: str, weights: Any, example: list[Any], folder: Path) -> str:
    """Keras's own way: the Keras definition on PyTorch, exported by Keras."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    network = zoo.model(model).keras_model(weights)  # type: ignore[attr-defined]
    shapes: Any = _dynamic(zoo.model(model).SIGNATURE)
    # Keras takes the one input's dimensions bare, and those of several as its model takes them: in a list
    given = dict(shapes[0]) if len(shapes) == 1 else (list(shapes),)
    try:
        network.export(str(folder / FILES["exporter"]), format="torch", dynamic_shapes=given, verbose=False)
    except Exception as error:  # whatever the exporter stumbles over: it is not ours
        text = str(error).strip().splitlines() or [repr(error)]
        raise Skip(f"Keras {keras.__version__} cannot export it: {text[0][:300]}") from error
    return f"Keras {keras.__version__} definition on PyTorch {torch.__version__} -> model.export(format='torch')"


def predict(folder: str, signature: str, inputs: str, output: str, config: dict[str, Any]) -> dict[str, Any]:
    """Run the inputs through a TorchServe folder with its own handler_models, as the worker will, on one thread."""
    spec = signature_file.load(Path(signature))
    feed = arrays.load(Path(inputs))
    rows = len(next(iter(feed.values())))
    sys.path.insert(0, folder)
    child.tell("loading the model", 0.0)
    models, wire = (importlib.import_module(name) for name in ("handler_models", "handler_wire"))
    served = wire.load_signature(os.path.join(folder, "signature.json"))
    model = models.load(folder, config.pop("file"), config, served)
    if model.must_warm:
        child.tell("compiling", 0.1)
        for count in (1, 2):
            model.warm([np.repeat(array[:1], count, axis=0) for array in model.example])
    step = arrays.rows_at_once(feed)
    answers: dict[str, list[Any]] = {tensor.name: [] for tensor in spec.outputs}
    for start in [0, *range(1, rows, step)]:  # one row alone, too: many runtimes treat it apart
        end = 1 if start == 0 else start + step
        result = model.run([feed[tensor.name][start:end] for tensor in spec.inputs])
        for name, value in zip(answers, result, strict=True):
            answers[name].append(value)
        child.tell(f"{model.form}: {min(end, rows)} of {rows} inputs", 0.2 + 0.8 * start / rows)
    arrays.save(Path(output), {name: np.concatenate(parts) for name, parts in answers.items()})
    return dict(model.versions)


if __name__ == "__main__":
    child.main({"build": build, "predict": predict})
