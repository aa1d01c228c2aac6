"""TensorFlow's signature definitions, as JSON, turned into the signature file's words.

The JSON is protobuf's mapping of tensorflow.SignatureDef, which a SavedModel holds and which TensorFlow Serving answers at
/v1/models/M/metadata. Here lives the translation and its complaints, pure; reading files or servers lives elsewhere.
"""

from collections.abc import Mapping
from typing import Any

from gateway.protocol.signature_file import Signature, TensorSpec

_DATATYPES = {
    "DT_BOOL": "BOOL",
    "DT_UINT8": "UINT8",
    "DT_UINT16": "UINT16",
    "DT_UINT32": "UINT32",
    "DT_UINT64": "UINT64",
    "DT_INT8": "INT8",
    "DT_INT16": "INT16",
    "DT_INT32": "INT32",
    "DT_INT64": "INT64",
    "DT_HALF": "FP16",
    "DT_FLOAT": "FP32",
    "DT_DOUBLE": "FP64",
    "DT_BFLOAT16": "BF16",
    "DT_STRING": "BYTES",
}
_INTERNAL = "__saved_model_init_op"


def from_metadata(document: Mapping[str, Any], model: str, signature_name: str) -> Signature:
    """The signature in the body of GET /v1/models/M/metadata; raises ValueError with what is missing or cannot be served."""
    try:
        found = document["metadata"]["signature_def"]["signature_def"]
    except (KeyError, TypeError) as error:
        raise ValueError("the answer has no metadata.signature_def.signature_def") from error
    return from_signature_defs(found, model, signature_name)


def from_signature_defs(found: Mapping[str, Any], model: str, signature_name: str) -> Signature:
    """One of a model's signature definitions, tensors sorted by name; raises ValueError where the gateway cannot guard it."""
    if signature_name not in found:
        names = ", ".join(sorted(set(found) - {_INTERNAL})) or "none"
        raise ValueError(f"has no signature {signature_name!r}; it has: {names}")
    definition = found[signature_name]
    problems: list[str] = []
    inputs = _tensors(definition.get("inputs", {}), "input", problems)
    outputs = _tensors(definition.get("outputs", {}), "output", problems)
    if not inputs or not outputs:
        problems.append("needs at least one input and one output")
    if problems:
        raise ValueError(f"signature {signature_name!r}: " + "; ".join(problems))
    return Signature(model, signature_name, inputs, outputs)


def _tensors(infos: Mapping[str, Any], what: str, problems: list[str]) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    for name in sorted(infos):
        info = infos[name]
        dtype = info.get("dtype", "DT_INVALID")
        shape = info.get("tensor_shape", {})
        if dtype not in _DATATYPES:
            problems.append(f"{what} {name!r} has type {dtype}, which no inference protocol carries")
        elif shape.get("unknown_rank", False):
            problems.append(f"{what} {name!r} has no fixed rank: export the model with one, or give a signature file")
        else:
            sizes = tuple(int(dimension.get("size", 0)) for dimension in shape.get("dim", ()))
            specs.append(TensorSpec(name, _DATATYPES[dtype], sizes))
    return tuple(specs)
