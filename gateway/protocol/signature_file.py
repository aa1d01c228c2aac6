"""The signature file: what a model's tensors are called and look like, in the Open Inference Protocol's words.

Here live the format of signature.json and its dataclasses, without numpy, as the gateway, the model
store and the load test all read them. The guard that judges requests by a signature lives in `signature`; nothing here
knows tensors' contents, servers or wire formats.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError

FORMAT = 1
DEFAULT_SIGNATURE_NAME = "serving_default"
DATATYPES = frozenset(
    {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"}
    | {"FP16", "FP32", "FP64", "BF16", "BYTES"}
)
_KEYS = {"format", "model", "signature_name", "inputs", "outputs"}
_TENSOR_KEYS = {"name", "datatype", "shape"}


class SignatureError(ConfigError):
    """A signature file that cannot be used; `problems` holds every fault, each with the file and its place in it."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__([f"{source}: {problem}" for problem in problems])
        self.source = source


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's name, datatype and shape; -1 is a dimension of any size, the first one being the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The tensor as signature.json writes it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors one signature of a model takes and gives, in the model's own order."""

    model: str
    signature_name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_dict(self) -> dict[str, Any]:
        """The whole file as JSON values."""
        return {
            "format": FORMAT,
            "model": self.model,
            "signature_name": self.signature_name,
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
        }


def load(path: Path) -> Signature:
    """Read a signature file.

    Raises SignatureError, naming the file, when it is missing, is not JSON, or when a field is wrong (all are listed).
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SignatureError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise SignatureError(str(path), [f"is not UTF-8: byte {error.start}"]) from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SignatureError(str(path), [f"is not JSON: {error}"]) from error
    return from_dict(document, source=str(path))


def dumps(signature: Signature) -> bytes:
    """The file's bytes: UTF-8 JSON, keys in a fixed order, so that equal signatures give equal files."""
    return (json.dumps(signature.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()


def from_dict(document: Any, source: str = "signature") -> Signature:
    """Check a decoded signature file and build the Signature; raises SignatureError with every problem found."""
    if not isinstance(document, Mapping):
        raise SignatureError(source, [f"must be a JSON object, not {_kind(document)}"])
    problems: list[str] = [f"unknown key {key!r}" for key in document if key not in _KEYS]
    if type(document.get("format")) is not int or document["format"] != FORMAT:
        problems.append(f"format must be {FORMAT}, not {document.get('format')!r}")
    model = _text(document.get("model"), "model", problems)
    name = _text(document.get("signature_name", DEFAULT_SIGNATURE_NAME), "signature_name", problems)
    inputs = _tensors(document.get("inputs"), "inputs", problems)
    outputs = _tensors(document.get("outputs"), "outputs", problems)
    if problems:
        raise SignatureError(source, problems)
    return Signature(model, name, inputs, outputs)


def _tensors(value: Any, where: str, problems: list[str]) -> tuple[TensorSpec, ...]:
    if not isinstance(value, list) or not value:
        problems.append(f"{where} must be a list of at least one tensor")
        return ()
    specs: list[TensorSpec] = []
    for index, item in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(item, Mapping):
            problems.append(f"{place} must be an object with name, datatype and shape, not {_kind(item)}")
            continue
        problems.extend(f"{place}: unknown key {key!r}" for key in item if key not in _TENSOR_KEYS)
        name = _text(item.get("name"), f"{place}.name", problems)
        if name and any(spec.name == name for spec in specs):
            problems.append(f"{place}.name {name!r} is there twice")
        datatype = item.get("datatype")
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            problems.append(f"{place}.datatype {datatype!r} is not one of {', '.join(sorted(DATATYPES))}")
        specs.append(TensorSpec(name, str(datatype), _shape(item.get("shape"), f"{place}.shape", problems)))
    return tuple(specs)


def _shape(value: Any, where: str, problems: list[str]) -> tuple[int, ...]:
    """A shape's dimensions: whole numbers, -1 for any size; a scalar's empty shape is legal."""
    if not isinstance(value, list):
        problems.append(f"{where} must be a list of whole numbers, -1 for any size, not {value!r}")
        return ()
    bad = [dimension for dimension in value if type(dimension) is not int or dimension < -1]
    if bad:
        problems.append(f"{where} {value!r}: {bad[0]!r} is not a whole number of at least 0, nor -1 for any size")
        return ()
    return tuple(value)


def _text(value: Any, where: str, problems: list[str]) -> str:
    if isinstance(value, str) and value:
        return value
    problems.append(f"{where} must be a text that is not empty, not {value!r}")
    return ""


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
