"""What is sent: a model's evaluation inputs, and every request body built before the first one goes out.

PURE apart from reading the one file of rows. Bodies are bytes; the wire formats are TF Serving's REST predict API (row
format) and its PredictRequest, which TorchServe's handler takes as `tfs-json`. Nothing here knows sockets or Locust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gateway.errors import ConfigError
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature
from loadtest import payload_files
from loadtest.arrivals import generator
from loadtest.profiles import Check, Profile

_LABEL, _SPLIT, _REFERENCE = "label", "split", "out:"
_BUDGET = 64 << 20  # bytes of precomputed bodies a generator process keeps
_SPLITS = {"train": 0, "test": 1}
# numpy kind and size -> tensorflow.DataType (types.proto)
_DATA_TYPES = {
    "f4": 1,
    "f8": 2,
    "i4": 3,
    "u1": 4,
    "i2": 5,
    "i1": 6,
    "i8": 9,
    "b1": 10,
    "u2": 17,
    "f2": 19,
    "u4": 22,
    "u8": 23,
}


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Evaluation rows: one array per input name, first dimension the row; labels and reference outputs where told."""

    inputs: Mapping[str, Any]
    label: Any | None
    reference: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True, slots=True)
class Payload:
    """One request, ready to send: how many rows, which ones of the data set, and the body of each wire format."""

    rows: int
    indices: tuple[int, ...]
    json: bytes
    proto: bytes


@dataclass(frozen=True, slots=True)
class PayloadGroup:
    """All payloads of one size in rows, and how often that size is chosen."""

    weight: float
    payloads: tuple[Payload, ...]


def load_dataset(path: Path, split: str, signature: Signature | None) -> Dataset:
    """Read .npz or JSON lines: inputs, optional `label`, optional `out:<output>`, optional `split` (0 train, 1 test).

    split names the rows to keep where the file tells; raises ConfigError with every problem.
    """
    arrays = payload_files.read(path, signature)
    if split in _SPLITS and _SPLIT in arrays:
        keep = arrays[_SPLIT] == _SPLITS[split]
        arrays = {name: array[keep] if len(array) == len(keep) else array for name, array in arrays.items()}
    label = arrays.pop(_LABEL, None)
    arrays.pop(_SPLIT, None)
    reference = {name[len(_REFERENCE) :]: arrays.pop(name) for name in list(arrays) if name.startswith(_REFERENCE)}
    problems = _problems(arrays, label, reference, signature)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    inputs = {name: _little_endian(array) for name, array in arrays.items()}
    return Dataset(inputs, label, reference)


def _problems(
    inputs: Mapping[str, Any], label: Any, reference: Mapping[str, Any], signature: Signature | None
) -> list[str]:
    problems = []
    if not inputs:
        return ["holds no input arrays; one per input name is needed"]
    lengths = {
        name: len(array) if array.ndim else 0 for name, array in {**inputs, "label": label}.items() if array is not None
    }
    lengths |= {_REFERENCE + name: len(array) for name, array in reference.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        problems.append(f"all arrays need the same number of rows, at least one, not {lengths}")
    problems += [
        f"{name}: arrays of {array.dtype} cannot be sent; use numbers or booleans"
        for name, array in inputs.items()
        if array.dtype.str[1:] not in _DATA_TYPES
    ]
    if signature is not None:
        wanted = {spec.name: spec.shape for spec in signature.inputs}
        if set(wanted) != set(inputs):
            problems.append(f"has the inputs {sorted(inputs)}; the model's signature wants {sorted(wanted)}")
        problems += [
            f"{name}: rows have the shape {list(inputs[name].shape[1:])}; the model's signature wants {list(shape[1:])}"
            for name, shape in wanted.items()
            if name in inputs and not _fits(inputs[name].shape[1:], shape[1:])
        ]
    return problems


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, size) for size, want in zip(shape, wanted, strict=True))


def _little_endian(array: Any) -> Any:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def check_problems(check: Check, dataset: Dataset, outputs: Sequence[str]) -> list[str]:
    """What keeps a check from being made on these rows and outputs; outputs empty means they are not known."""
    if check.kind == "off":
        return []
    problems = []
    if check.output is not None and outputs and check.output not in outputs:
        problems.append(f"check.output: the model has no output {check.output!r}; it has {', '.join(outputs)}")
    if check.output is None and len(outputs) > 1:
        problems.append(f"check.output: the model has several outputs; name one of {', '.join(outputs)}")
    if check.kind == "label" and dataset.label is None:
        problems.append("check: label needs an array `label` in the payloads; use reference or off")
    if check.kind == "reference":
        name = check.output or (outputs[0] if outputs else None)
        if name not in dataset.reference:
            problems.append(f"check: reference needs an array `out:{name or '<output>'}` in the payloads")
    return problems


def json_body(dataset: Dataset, indices: Sequence[int]) -> bytes:
    """A row-format predict body; a single input stands bare in its row, several stand by name."""
    rows = list(indices)
    if not all(np.isfinite(array[rows]).all() for array in dataset.inputs.values() if array.dtype.kind == "f"):
        bare = len(dataset.inputs) == 1  # orjson would write null; TF Serving takes NaN and Infinity as they are
        named = [{name: array[row].tolist() for name, array in dataset.inputs.items()} for row in rows]
        return json.dumps({"instances": [next(iter(row.values())) if bare else row for row in named]}).encode()
    if len(dataset.inputs) == 1:
        instances: Any = np.ascontiguousarray(next(iter(dataset.inputs.values()))[rows])
        if instances.dtype == np.float16:
            instances = instances.astype(np.float32)
    else:
        instances = [{name: array[row].tolist() for name, array in dataset.inputs.items()} for row in rows]
    return orjson.dumps({"instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY)


def predict_request(model: str, signature_name: str, dataset: Dataset, indices: Sequence[int]) -> bytes:
    """A serialized tensorflow.serving.PredictRequest with the rows as tensor_content."""
    request = message_class("tensorflow.serving.PredictRequest")()
    request.model_spec.name = model
    request.model_spec.signature_name = signature_name
    for name, array in dataset.inputs.items():
        rows = array[list(indices)]
        tensor = request.inputs[name]
        tensor.dtype = _DATA_TYPES[array.dtype.str[1:]]
        for size in rows.shape:
            tensor.tensor_shape.dim.add().size = size
        tensor.tensor_content = rows.tobytes()
    return bytes(request.SerializeToString(deterministic=True))


def torchserve_request(model: str, body: bytes) -> bytes:
    """A serialized PredictionsRequest of TorchServe whose input's key names the body's form."""
    request = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")()
    request.model_name = model
    request.input["tfs-json"] = body
    return bytes(request.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True)
class Wire:
    """Which bodies a run needs: TF Serving's names, and whether gRPC goes to TorchServe itself."""

    model: str
    signature_name: str
    json: bool
    proto: bool
    torchserve: bool = False


def build(dataset: Dataset, profile: Profile, wire: Wire, budget: int = _BUDGET) -> tuple[PayloadGroup, ...]:
    """Every payload of a run: for each number of rows as many different ones as the budget (bytes) holds.

    Single rows run through the data set in a seeded order; larger requests take seeded random rows.
    """
    groups = []
    for choice in profile.rows:
        rng = generator(profile.seed, 1, choice.rows)
        first = _payload(dataset, wire, [0] * choice.rows)
        fit = max(8, budget // len(profile.rows) // max(1, len(first.json) + len(first.proto)))
        if choice.rows == 1:
            picks = rng.permutation(dataset.rows)[:fit].reshape(-1, 1)
        else:
            picks = rng.integers(0, dataset.rows, (min(fit, 512), choice.rows))
        groups.append(PayloadGroup(choice.weight, tuple(_payload(dataset, wire, row) for row in picks.tolist())))
    return tuple(groups)


def _payload(dataset: Dataset, wire: Wire, indices: Sequence[int]) -> Payload:
    proto = b""
    body = json_body(dataset, indices) if wire.json or wire.torchserve else b""
    if wire.proto:
        proto = (
            torchserve_request(wire.model, body)
            if wire.torchserve
            else predict_request(wire.model, wire.signature_name, dataset, indices)
        )
    return Payload(len(indices), tuple(indices), body if wire.json else b"", proto)
