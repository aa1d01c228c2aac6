"""How the handler runs a model, whatever form its file has: `load` gives one object that turns arrays into arrays.

Copied into a model folder beside handler.py: the standard library and numpy, and the one runtime that a form needs, imported
where it is loaded. Must not live here: requests, answers, TorchServe's context. The form is `form` in the handler section of
model-config.yaml, else the suffix of the file that MANIFEST.json names as serializedFile:

    torchscript  .pt     frozen TorchScript                      exported  .pt2   torch.export
    onnx         .onnx   ONNX Runtime                            python    .py    plain Python, `Model(folder)` of the file
    eager, compile       weights (.pth) for `module(**arguments)` of the file module.py, operator by operator or by torch.compile
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

SUFFIXES = {".pt": "torchscript", ".pt2": "exported", ".onnx": "onnx", ".py": "python"}
MODULE_FILE = "module.py"
EXAMPLE_FILE = "example.npz"

Arrays = list[np.ndarray]
Run = Callable[[Arrays], Arrays]


class Model:
    """A loaded model: `run` takes the inputs in the signature's order and gives the outputs in theirs.

    example: one row of real inputs, where the folder brings them: what a form is compiled for must look like a request.
    """

    def __init__(self, form: str, run: Run, versions: dict[str, str]) -> None:
        self.form = form
        self.run = run
        self.versions = versions
        self.example: Arrays | None = None
        self.warm: Run = run
        self.must_warm = False


def load(folder: str, serialized: str, config: Mapping[str, Any], signature: Any) -> Model:
    """Load the file with `threads` of config (1) for its runtime; raises ValueError on an unknown form.

    signature is handler_wire's: inputs and outputs as (name, datatype, shape).
    """
    path = os.path.join(folder, serialized)
    form = str(config.get("form") or SUFFIXES.get(os.path.splitext(serialized)[1], ""))
    threads = int(config.get("threads", 1))
    if form == "onnx":
        model = load_onnx(path, threads)
    elif form == "python":
        model = Model(form, load_plain(path), {"numpy": np.__version__})
    elif form in ("torchscript", "exported", "eager", "compile"):
        model = load_torch(form, path, threads, config.get("arguments") or {}, signature)
    else:
        raise ValueError(
            f"{serialized}: form {form!r} is none of {', '.join((*SUFFIXES.values(), 'eager', 'compile'))}"
        )
    model.example = read_example(os.path.join(folder, EXAMPLE_FILE), [name for name, _, _ in signature.inputs])
    return model


def read_example(path: str, names: Sequence[str]) -> Arrays | None:
    """The inputs of one row, in the signature's order; None where the folder has none."""
    if not os.path.exists(path):
        return None
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in names]


def load_torch(form: str, path: str, threads: int, arguments: Mapping[str, Any], signature: Any) -> Model:
    """Everything that PyTorch runs."""
    import torch

    torch.set_num_threads(threads)
    names = [name for name, _, _ in signature.outputs]
    call = {
        "torchscript": lambda: load_torchscript(path),
        "exported": lambda: load_exported(path),
        "eager": lambda: load_module(path, arguments),
        "compile": lambda: load_module(path, arguments),
    }[form]()
    if form == "compile":
        import torch._inductor.config as inductor

        inductor.compile_threads = 1  # else it keeps a pool of processes beside the worker
        call = torch.compile(call)

    def apply(tensors: Sequence[Any]) -> Arrays:
        with torch.inference_mode():
            found = call(*tensors)
        if isinstance(found, dict):
            found = [found[name] for name in names]
        answers = [found] if isinstance(found, torch.Tensor) else list(found)
        return [tensor.contiguous().numpy() for tensor in answers]

    def warm(arrays: Arrays) -> Arrays:
        """Compile for any size of a dimension that the signature leaves open; a size of 1 is always a form of its own."""
        tensors = [torch.from_numpy(array) for array in arrays]
        for tensor, (_, _, shape) in zip(tensors, signature.inputs, strict=True):
            for axis, size in enumerate(shape):
                if size < 0 and tensor.shape[axis] > 1:
                    torch._dynamo.maybe_mark_dynamic(tensor, axis)
        return apply(tensors)

    model = Model(
        form, lambda arrays: apply([torch.from_numpy(array) for array in arrays]), {"torch": torch.__version__}
    )
    if form == "compile":
        model.warm, model.must_warm = warm, True
    return model


def load_torchscript(path: str) -> Any:
    """A TorchScript file, ready to serve."""
    import torch

    with warnings.catch_warnings():
        # torch announces the end of TorchScript, and still serves it
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]


def load_exported(path: str) -> Any:
    """A program of torch.export, called with its tensors one after the other, however its exporter nested them."""
    import torch
    from torch.utils import _pytree as pytree

    program = torch.export.load(path)
    module, spec = program.module(), program.call_spec.in_spec

    def call(*tensors: Any) -> Any:
        if spec is None:
            return module(*tensors)
        positional, named = pytree.tree_unflatten(list(tensors), spec)
        return module(*positional, **named)

    return call


def load_module(path: str, arguments: Mapping[str, Any]) -> Any:
    """The nn.Module of module.py beside the weights, filled with them."""
    import torch

    definition = import_file(os.path.join(os.path.dirname(path), MODULE_FILE))
    module = definition.module(**arguments)
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


def load_onnx(path: str, threads: int) -> Model:
    """An ONNX file in ONNX Runtime, on the CPU; its inputs and outputs are in the signature's order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        answers: Arrays = session.run(None, dict(zip(names, arrays, strict=True)))
        return answers

    return Model("onnx", run, {"onnxruntime": onnxruntime.__version__})


def load_plain(path: str) -> Run:
    """A model in plain Python, for what is no tensor of PyTorch's: `Model(folder)` of the file, called with the input arrays in
    the signature's order, gives the output arrays in theirs; BYTES are object arrays of bytes."""
    model = import_file(path).Model(os.path.dirname(path))
    return lambda arrays: list(model(*arrays))


def import_file(path: str) -> ModuleType:
    """A Python file as a module of no package."""
    name = f"abgate_{os.path.splitext(os.path.basename(path))[0]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
