"""tensorflow.TensorProto <-> numpy, without TensorFlow's Python layer in between.

Lives here: both encodings of requests (tensor_content and the typed *_val fields), the typed answers clients rely on
(predict_util.cc answers AsProtoField, never tensor_content). Must not live here: which tensors a signature wants.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backends.embedded.dtypes import DTYPES, Dtype
from backends.embedded.errors import invalid

_MAX_BYTES = 2**31 - 1
_PAIRS = ("scomplex_val", "dcomplex_val")


def decode_tensor(alias: str, proto: Any) -> np.ndarray:
    """Read a TensorProto; fewer values than the shape holds repeat the last one, none at all are zeros, extra are ignored.

    Raises ServingError (INVALID_ARGUMENT, "tensor parsing error: <alias>") when type, shape and bytes do not fit.
    """
    dtype = DTYPES.get(proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if dtype is None or proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise _unreadable(alias)
    size = math.prod(shape)
    width = 1 if dtype.field == "string_val" else dtype.numpy.itemsize
    if size * width > _MAX_BYTES:
        raise _unreadable(alias)
    if proto.tensor_content:
        if dtype.field == "string_val" or len(proto.tensor_content) != size * width:
            raise _unreadable(alias)
        return np.frombuffer(proto.tensor_content, dtype.numpy).reshape(shape)
    return _from_values(getattr(proto, dtype.field), size, dtype).reshape(shape)


def _unreadable(alias: str) -> Exception:
    return invalid(f"tensor parsing error: {alias}")


def _from_values(field: Any, size: int, dtype: Dtype) -> np.ndarray:
    if dtype.field == "string_val":
        values = np.empty(size, dtype=object)
        given = list(field)[:size]
        values[:] = given + [given[-1] if given else b""] * (size - len(given))
        return values
    if dtype.field == "half_val":
        array = np.array(field, dtype=np.uint16).view(dtype.numpy)
    elif dtype.field in _PAIRS:
        parts = np.array(field, dtype=np.float32 if dtype.numpy.itemsize == 8 else np.float64)
        array = parts[: parts.size // 2 * 2].view(dtype.numpy)
    elif dtype.field == "int_val":
        array = np.array(field, dtype=np.int32).astype(dtype.numpy)
    else:
        array = np.array(field, dtype=dtype.numpy)
    if array.size == 0:
        return np.zeros(size, dtype=dtype.numpy)
    if array.size < size:
        return np.concatenate([array, np.full(size - array.size, array[-1], dtype=dtype.numpy)])
    kept: np.ndarray = array[:size]
    return kept


def encode_tensor(values: np.ndarray, dtype: Dtype, proto: Any) -> None:
    """Fill `proto` with `values` in the typed field of `dtype`."""
    proto.dtype = dtype.number
    shape = proto.tensor_shape
    for size in values.shape:
        shape.dim.add().size = size
    flat = values.reshape(-1)
    if dtype.field == "half_val":
        flat = flat.view(np.uint16)
    elif dtype.field in _PAIRS:
        flat = flat.view(np.float32 if dtype.numpy.itemsize == 8 else np.float64)
    getattr(proto, dtype.field).extend(flat.tolist())
