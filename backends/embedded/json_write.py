"""Tensors -> JSON answer in TF Serving's text (util/json_tensor.cc, tag 2.19.1).

Lives here: float texts, b64, row and columnar format, values inside error messages. Must not live here: reading.
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.embedded.errors import invalid

_ROW_HEAD = '{\n    "predictions": ['
_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_ROW_TAIL = "\n    ]\n}"


def render_value(value: Any) -> str:
    """Print a JSON value as error messages carry it: indented by 4, floats in their own text."""
    if type(value) is float:
        return float_texts(np.array([value]))[0]
    return json.dumps(value, indent=4, ensure_ascii=False)


def error_body(message: str) -> bytes:
    """Return the body of an error answer."""
    return json.dumps({"error": message}, indent=4, ensure_ascii=False).encode("utf-8", "replace")


def float_texts(values: np.ndarray) -> list[str]:
    """Print floats the way absl::StrCat does: 6 digits when they come back equal, else all digits; ".0" on whole numbers.

    `values` is flat, float32 or float64; NaN, Infinity and -Infinity are written as such. Plain Python on purpose: on the
    few floats of an ordinary answer it takes a fifth of the time of the same in numpy.
    """
    single = values.dtype == np.float32
    plain = values.tolist()
    texts = (("%g " * len(plain)) % tuple(plain)).split()
    back = array("f" if single else "d", map(float, texts))
    digits = "%.9g" if single else "%.17g"
    for index, (rounded, value) in enumerate(zip(back, plain, strict=True)):
        if rounded != value:
            texts[index] = digits % value
    return [text if "." in text or "e" in text else _WORDS.get(text) or text + ".0" for text in texts]


def _texts(alias: str, tensor: np.ndarray) -> list[str]:
    flat = tensor.reshape(-1)
    kind = flat.dtype.kind
    if kind == "f" or flat.dtype.name == "bfloat16":
        return float_texts(flat if flat.dtype.itemsize >= 4 else flat.astype(np.float32))
    if kind in "iu":
        return list(map(str, flat.tolist()))
    if kind == "b":
        return ["true" if value else "false" for value in flat.tolist()]
    if kind == "O":
        if alias.endswith("_bytes"):
            return [json.dumps({"b64": base64.b64encode(value).decode()}, indent=4) for value in flat.tolist()]
        return [json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False) for value in flat.tolist()]
    raise invalid(f"Failed to write JSON value for tensor type: {flat.dtype.name}")


def _nest(texts: list[str], shape: tuple[int, ...]) -> list[str]:
    """Join texts into the elements along the first dimension of `shape`, inner arrays on one line."""
    if 0 in shape[1:]:
        return [json.dumps(element) for element in np.zeros(shape).tolist()]
    for size in reversed(shape[1:]):
        texts = [f"[{', '.join(texts[start : start + size])}]" for start in range(0, len(texts), size)]
    return texts


def write_rows(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Write the row format; every output must have the same first dimension. Raises ServingError where it has not."""
    rows = -1
    for alias in sorted(tensors):
        shape = tensors[alias].shape
        if not shape:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if rows >= 0 and shape[0] != rows:
            raise invalid(f"Tensor name: {alias} has inconsistent batch size: {shape[0]} expecting: {rows}")
        rows = shape[0]
    columns = {alias: _nest(_texts(alias, tensors[alias]), tensors[alias].shape) for alias in sorted(tensors)}
    if len(columns) == 1:
        (elements,) = columns.values()
        return f"{_ROW_HEAD}{', '.join(elements)}{_ROW_TAIL}".encode()
    pad = "\n            "
    objects = (
        "\n        {"
        + ",".join(f"{pad}{json.dumps(a)}: {text}" for a, text in zip(columns, texts, strict=True))
        + "\n        }"
        for texts in zip(*columns.values(), strict=True)
    )
    return f"{_ROW_HEAD}{','.join(objects)}{_ROW_TAIL}".encode()


def write_columns(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Write the columnar format: the bare tensor when there is one output, else an object of them."""
    texts = {}
    for alias in sorted(tensors):
        tensor = tensors[alias]
        texts[alias] = _nest(_texts(alias, tensor), (1, *tensor.shape))[0]
    if len(texts) == 1:
        (text,) = texts.values()
        return f'{{\n    "outputs": {text}\n}}'.encode()
    members = ",".join(f"\n        {json.dumps(alias)}: {text}" for alias, text in texts.items())
    return f'{{\n    "outputs": {{{members}\n    }}\n}}'.encode()
