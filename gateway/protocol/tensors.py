"""The canonical tensor: what every codec decodes to and encodes from.

Words are the Open Inference Protocol's: name, datatype, shape, contents. Contents are little-endian, row-major numpy arrays,
views where possible; BYTES are object arrays of bytes. Nothing here knows a wire format, a model or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

# datatype -> numpy type; BF16 has no numpy type and travels as its raw 16 bits
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}

MAX_RANK = 64  # numpy's; TensorFlow's own is 254
_MOST_ELEMENTS = 1 << 59  # of 8 bytes: numpy takes no array whose dimensions without the zeros exceed this
_MOST_EMPTY = 1 << 16


def element_count(shape: tuple[int, ...]) -> int:
    """Elements of a shape, -1 where no array can have it (a zero beside a huge dimension does not make it small).

    Nor may the dimensions before a zero be many: nested JSON has a list for each, out of a request of twenty bytes.
    """
    count = prod(shape)
    if count:
        return count if count <= _MOST_ELEMENTS else -1
    lists = prod(shape[: shape.index(0)])
    return 0 if lists <= _MOST_EMPTY and prod(size or 1 for size in shape) <= _MOST_ELEMENTS else -1


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One named array; data.shape == shape and data.dtype == DTYPES[datatype]."""

    name: str
    datatype: str
    data: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


def raw_view(tensor: Tensor) -> memoryview | bytes:
    """The raw bytes of a tensor that is no BYTES: a view where the array lies in memory as it travels, else a copy."""
    data = tensor.data
    if data.size and data.flags.c_contiguous and data.dtype == DTYPES[tensor.datatype]:
        return data.reshape(-1).view(np.uint8).data
    return data.astype(DTYPES[tensor.datatype], copy=False).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """One inference request; version and label exclude each other; outputs empty means all.

    parameters: what an Open Inference Protocol client says of the whole request, for arms that take it.
    """

    model: str
    inputs: tuple[Tensor, ...]
    version: str | None = None
    label: str | None = None
    signature_name: str = ""
    id: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """What a server told of the batch a request was served in; -1 where it told nothing. queue_ns is in nanoseconds."""

    batch_size: int = -1
    batch_rows: int = -1
    queue_ns: int = -1


UNTOLD = BatchInfo()


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """The answer: output tensors and what the server said of itself."""

    model: str
    outputs: tuple[Tensor, ...]
    version: str = ""
    id: str = ""
    batch: BatchInfo = field(default=UNTOLD)
