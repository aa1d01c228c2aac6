"""Was the answer right: decoding of a reply's one output, and its comparison with the label or the reference.

PURE. Wire formats: TF Serving's REST predict reply (row format), tensorflow.serving.PredictResponse, and TorchServe's
gRPC reply in the handler's frame. Nothing here knows sockets or Locust.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import orjson

from gateway.protocol.descriptors import message_class
from loadtest.payloads import Dataset
from loadtest.profiles import Check

_FRAME = b"ABG1"
# tensorflow.DataType -> numpy type and the repeated field that may hold the values (tensor.proto)
_TYPES = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
    17: ("<u2", "int_val"),
    19: ("<f2", "half_val"),
    22: ("<u4", "uint32_val"),
    23: ("<u8", "uint64_val"),
}


class BadAnswer(ValueError):
    """A reply with a good status that is no answer."""


def rows_of_json(body: bytes, output: str | None) -> list[Any]:
    """The output's rows of a REST predict reply; NaN and Infinity tokens are legal; raises BadAnswer."""
    try:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = json.loads(body)
        rows = document["predictions"]
        if not isinstance(rows, list) or not rows:
            raise BadAnswer("predictions is no list of rows")
        if not isinstance(rows[0], dict):
            return rows
        return [row[output] if output else next(iter(row.values())) for row in rows]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise BadAnswer(f"no predict reply: {type(error).__name__}") from error


def array_of_proto(message: bytes, output: str | None) -> Any:
    """The output of a serialized PredictResponse as an array; raises BadAnswer."""
    response = message_class("tensorflow.serving.PredictResponse")()
    try:
        response.ParseFromString(message)
    except Exception as error:  # protobuf's runtimes raise different classes
        raise BadAnswer("no PredictResponse") from error
    name = output or next(iter(response.outputs), None)
    if name is None or name not in response.outputs:
        raise BadAnswer(f"no output {output!r}; there are {sorted(response.outputs)}")
    tensor = response.outputs[name]
    if tensor.dtype not in _TYPES:
        raise BadAnswer(f"output of data type {tensor.dtype}")
    dtype, field = _TYPES[tensor.dtype]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype=dtype)
    elif tensor.dtype == 19:  # half_val carries the bits in whole numbers
        values = np.asarray(tensor.half_val, dtype="<u2").view("<f2")
    else:
        values = np.asarray(getattr(tensor, field), dtype=dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if len(values) < count and len(values):  # the last value repeats, tensor.proto
        values = np.concatenate([values, np.full(count - len(values), values[-1])])
    if len(values) != count:
        raise BadAnswer(f"{len(values)} values for the shape {list(shape)}")
    return values.reshape(shape)


def unwrap_torchserve(message: bytes) -> tuple[int, bytes, str]:
    """(status, payload, error) of TorchServe's serialized PredictionResponse; raises BadAnswer on another frame."""
    response = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")()
    try:
        response.ParseFromString(message)
        frame = bytes(response.prediction)
        if frame[:4] != _FRAME:
            raise BadAnswer("no framed reply")
        end = 8 + int.from_bytes(frame[4:8], "little")
        head = orjson.loads(frame[8:end])
        return int(head["status"]), frame[end:], str(head.get("error", ""))
    except BadAnswer:
        raise
    except Exception as error:  # as above, plus a head that is no JSON object
        raise BadAnswer("no framed reply") from error


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Compares answers with what the data set expects; every row of a request must be right."""

    check: Check
    dataset: Dataset
    output: str | None

    def rows(self, rows: list[Any], indices: tuple[int, ...]) -> bool:
        """Judge the rows of a REST reply."""
        if len(rows) != len(indices):
            return False
        try:
            if self.check.kind == "label" and len(rows) == 1 and type(rows[0][0]) is float:
                row = rows[0]  # the common case, without numpy's cost per call
                if not isnan(sum(row)):
                    return self._is_label(row.index(max(row)), 0.0, indices[0])
            return self.array(np.asarray(rows, dtype=np.float64), indices)
        except (ValueError, TypeError, LookupError):
            return False

    def array(self, values: Any, indices: tuple[int, ...]) -> bool:
        """Judge an output array, first dimension the row."""
        if values.ndim == 0 or len(values) != len(indices) or not values.size:
            return False
        if self.check.kind == "label":
            if values.ndim == 1:  # one number a row has no largest place
                return False
            flat = values.reshape(len(indices), -1)
            return all(
                self._is_label(int(top), row[top], index)
                for row, top, index in zip(flat, flat.argmax(axis=1), indices, strict=True)
            )
        expected = self.dataset.reference[self.output or next(iter(self.dataset.reference))][list(indices)]
        return expected.shape == values.shape and bool(
            np.allclose(values, expected, rtol=self.check.rtol, atol=self.check.atol, equal_nan=True)
        )

    def _is_label(self, place: int, top: float, index: int) -> bool:
        """Whether the largest output stands at the row's label; argmax answers a NaN's place, which is never right."""
        if self.dataset.label is None:
            raise ValueError("the data set has no labels")
        return bool(not isnan(top) and place == self.dataset.label[index])
