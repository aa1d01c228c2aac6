"""A signature as the codecs need it: aliases, element types, tensor names, known dimensions.

Lives here: the frozen view of one SignatureDef. Must not live here: loading, running, or any JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.embedded.dtypes import DTYPES, Dtype

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorInfo:
    """One named tensor of a signature; `shape` is None for unknown rank, -1 for an unknown dimension."""

    alias: str
    tensor: str
    dtype: Dtype
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """One callable of a SavedModel; both maps are in alias order (that of std::set in TF Serving's messages)."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


def signature_from_proto(name: str, definition: Any) -> Signature | None:
    """Read a tensorflow.SignatureDef; None when a tensor is not dense or its type cannot travel on either wire."""
    inputs = _tensors(definition.inputs)
    outputs = _tensors(definition.outputs)
    if not inputs or not outputs:
        return None
    return Signature(name, inputs, outputs)


def _tensors(infos: Mapping[str, Any]) -> dict[str, TensorInfo] | None:
    found: dict[str, TensorInfo] = {}
    for alias in sorted(infos):
        info = infos[alias]
        dtype = DTYPES.get(info.dtype)
        if info.WhichOneof("encoding") != "name" or dtype is None:
            return None
        shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
        found[alias] = TensorInfo(alias, info.name, dtype, shape)
    return found
