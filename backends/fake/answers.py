"""Answers that follow from the request, so that an answer given to the wrong client shows. PURE: values and bytes.

Row i of the output is [s, s+1, ... s+width-1] with s = the sum of row i over all inputs. Formats: TensorFlow Serving's REST
predict body (row and column), Open Inference Protocol JSON, and oip-binary (u32 LE length, JSON head, raw tensors).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from backends.fake.behaviour import Shape


def total(value: Any) -> float:
    """The sum of all numbers in nested lists or an object; everything that is no number counts 0."""
    if isinstance(value, dict):
        return sum(map(total, value.values()))
    if isinstance(value, list):
        return sum(map(total, value))
    return float(value) if isinstance(value, (int, float)) else 0.0


def spread(sums: list[float], shape: Shape) -> np.ndarray:
    """The output tensor, FP32 [rows, width]."""
    return (np.array(sums, np.float64)[:, None] + np.arange(shape.width)).astype(np.float32)


def answer_tfs(body: bytes, shape: Shape) -> bytes:
    """Answer a predict body; raises ValueError when it is none."""
    request = json.loads(body)
    if "instances" in request:
        return json.dumps(
            {"predictions": spread([total(row) for row in request["instances"]], shape).tolist()}
        ).encode()
    columns = request["inputs"] if isinstance(request["inputs"], dict) else {"": request["inputs"]}
    sums = [sum(map(total, row)) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"outputs": spread(sums, shape).tolist()}).encode()


def answer_oip(body: bytes, shape: Shape, model: str) -> bytes:
    """Answer an OIP infer request in JSON."""
    inputs = [np.array(one["data"], np.float64).reshape(one["shape"]) for one in json.loads(body)["inputs"]]
    output = spread(row_sums(inputs), shape)
    tensor = {"name": shape.output, "datatype": "FP32", "shape": list(output.shape), "data": output.ravel().tolist()}
    return json.dumps({"model_name": model, "model_version": shape.version, "id": "", "outputs": [tensor]}).encode()


def answer_binary(body: bytes, shape: Shape, model: str) -> bytes:
    """Answer an oip-binary request."""
    (length,) = struct.unpack_from("<I", body)
    offset, inputs = 4 + length, []
    types = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "BOOL": "?", "FP16": "<f2"}
    for one in json.loads(body[4:offset])["inputs"]:
        size = one["parameters"]["binary_data_size"]
        inputs.append(np.frombuffer(body[offset : offset + size], types[one["datatype"]]).reshape(one["shape"]))
        offset += size
    raw = spread(row_sums(inputs), shape)
    size = {"binary_data_size": raw.nbytes}
    tensor = {"name": shape.output, "datatype": "FP32", "shape": list(raw.shape), "parameters": size}
    head = json.dumps({"model_name": model, "model_version": shape.version, "id": "", "outputs": [tensor]}).encode()
    return struct.pack("<I", len(head)) + head + raw.astype("<f4").tobytes()


def row_sums(inputs: list[np.ndarray]) -> list[float]:
    """The sum of each row over all inputs."""
    return [
        float(sum(one.reshape(len(one), -1)[row].sum(dtype=np.float64) for one in inputs))
        for row in range(len(inputs[0]))
    ]


def answer(form: str, body: bytes, shape: Shape, model: str) -> bytes:
    """Answer a body in the format `form` (tfs-json, oip-json, oip-binary); ValueError for bytes that are no request."""
    try:
        if form == "oip-binary":
            return answer_binary(body, shape, model)
        return answer_oip(body, shape, model) if form == "oip-json" else answer_tfs(body, shape)
    except (KeyError, TypeError, struct.error, IndexError, AttributeError) as fault:
        raise ValueError(f"no {form} request: {fault!r}") from None
