"""TensorFlow's element types as one table: number, name, numpy type, TensorProto field, JSON rule.

Lives here: what each wire needs to know about a DataType. Must not live here: TensorFlow itself (numbers and names are
those of tensorflow/core/framework/types.proto), so that codecs stay testable in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_I32 = (-(2**31), 2**31 - 1)
_I64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Dtype:
    """One element type. `json` says which JSON values are taken (None: no JSON conversion); `limits` bound integers."""

    number: int
    name: str
    numpy: Any
    field: str
    json: str | None = None
    limits: tuple[int, int] = (0, 0)


def _bfloat16() -> Any:
    import ml_dtypes  # TensorFlow's own dependency; numpy has no bfloat16

    return np.dtype(ml_dtypes.bfloat16)


def dtype_table() -> dict[int, Dtype]:
    """Return the types both wires can carry, by DataType number; small integers are range-checked as int32 (json_tensor.cc)."""
    rows = (
        Dtype(1, "float", np.dtype(np.float32), "float_val", "number"),
        Dtype(2, "double", np.dtype(np.float64), "double_val", "number"),
        Dtype(3, "int32", np.dtype(np.int32), "int_val", "int", _I32),
        Dtype(4, "uint8", np.dtype(np.uint8), "int_val", "int", _I32),
        Dtype(5, "int16", np.dtype(np.int16), "int_val", "int", _I32),
        Dtype(6, "int8", np.dtype(np.int8), "int_val", "int", _I32),
        Dtype(7, "string", np.dtype(object), "string_val", "string"),
        Dtype(8, "complex64", np.dtype(np.complex64), "scomplex_val"),
        Dtype(9, "int64", np.dtype(np.int64), "int64_val", "int", _I64),
        Dtype(10, "bool", np.dtype(np.bool_), "bool_val", "bool"),
        Dtype(14, "bfloat16", _bfloat16(), "half_val"),
        Dtype(17, "uint16", np.dtype(np.uint16), "int_val"),
        Dtype(18, "complex128", np.dtype(np.complex128), "dcomplex_val"),
        Dtype(19, "half", np.dtype(np.float16), "half_val"),
        Dtype(22, "uint32", np.dtype(np.uint32), "uint32_val", "int", (0, 2**32 - 1)),
        Dtype(23, "uint64", np.dtype(np.uint64), "uint64_val", "int", (0, 2**64 - 1)),
    )
    return {row.number: row for row in rows}


DTYPES = dtype_table()
