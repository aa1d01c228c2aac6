"""What is wrong with a refused body, in TF Serving's words where it has some (util/json_tensor.cc).

PURE, and slow on purpose: called only once a fast check has failed, to find where. Every function returns or raises a
RequestError of kind invalid_argument.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from gateway.errors import RequestError
from gateway.protocol.signature_file import TensorSpec

_SHOWN = 120
# DataType names as TF Serving prints them in an element's type error
_WORDS = {
    "BOOL": "bool",
    "BYTES": "string",
    "FP16": "half",
    "BF16": "bfloat16",
    "FP32": "float",
    "FP64": "double",
}


def _error(message: str) -> RequestError:
    return RequestError("invalid_argument", message)


def show(value: Any) -> str:
    """A value as JSON text, cut to a readable length."""
    if isinstance(value, list | dict) and len(value) > _SHOWN:
        value = value[:_SHOWN] if isinstance(value, list) else dict(list(value.items())[:_SHOWN])
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def both_formats(doc: dict[str, Any]) -> RequestError:
    """The error for a body that holds "inputs" and "instances"."""
    return _error(
        f"JSON Value: {show(doc)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
    )


def neither_format() -> RequestError:
    """The error for a body that holds neither "inputs" nor "instances"."""
    return _error("Missing 'inputs' or 'instances' key")


def missing_column(name: str) -> RequestError:
    """The error for an "inputs" object without one of the model's inputs."""
    return _error(f"Missing named input: {name} in 'inputs' object.")


def row_names_fault(rows: list[Any], names: list[str]) -> RequestError:
    """Find the row that is no object, or whose keys are not exactly the inputs' names."""
    for index, row in enumerate(rows):
        head = f"Failed to process element: {index} "
        if type(row) is not dict:
            return _error(f"{head}of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: {show(row)} Is not object")
        for key in row:
            if key not in names:
                return _error(
                    f"{head}key: {key} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named "
                    f"input: {key}; the inputs are: {', '.join(names)}"
                )
        if sorted(row) != names:
            return _error(
                f"{head}of 'instances' list. Error: INVALID_ARGUMENT: JSON object: {show(row)} keys must be equal to: "
                f"{','.join(names)}"
            )
    raise AssertionError("no row is at fault")


def _place(spec: TensorSpec, path: tuple[int, ...], column: bool) -> str:
    where = "".join(f"[{index}]" for index in path)
    return f"input {spec.name!r}{where}" if column else f"instances{where} (input {spec.name!r})"


def _kind(value: Any) -> str:
    names = {str: "String", bool: "Boolean", type(None): "Null", dict: "Object", list: "Array"}
    return names.get(type(value), "Number")


def _dims(shape: tuple[int, ...]) -> str:
    return "[" + ",".join("?" if size < 0 else str(size) for size in shape) + "]"


def level_fault(spec: TensorSpec, whole: list[Any], depth: int, column: bool) -> RequestError:
    """Find the first part, `depth` levels down, that is no list or has the wrong length. shape: the signature's."""
    parts: list[tuple[tuple[int, ...], Any]] = [((), whole)]
    for _ in range(depth):
        parts = [((*path, index), part) for path, value in parts for index, part in enumerate(value)]
    expected = spec.shape[depth] if depth < len(spec.shape) else -1
    first = next((len(part) for _, part in parts if type(part) is list), 0)
    wanted = expected if expected >= 0 else first
    for path, part in parts:
        place = _place(spec, path, column)
        if type(part) is not list:
            what = "rank is too low" if depth < len(spec.shape) else "ragged"
            return _error(
                f"{place}: JSON Value: {show(part)} Type: {_kind(part)} where a list is expected ({what}); the input's "
                f"shape is {_dims(spec.shape)}, the first dimension being the rows"
            )
        if not part:
            return _error(f"{place}: the list is empty; the input's shape is {_dims(spec.shape)}")
        if len(part) != wanted:
            return _error(
                f"{place}: Expecting tensor size: {wanted} but got: {len(part)}; the input's shape is {_dims(spec.shape)}"
            )
    raise AssertionError("no part is at fault")


def element_fault(spec: TensorSpec, whole: Any, allowed: frozenset[type], column: bool) -> RequestError:
    """Find the first element that is of none of the allowed Python types, a list where the rank is too high included."""
    found = _first_bad(whole, allowed, len(spec.shape) or 1)
    path, value = found if found is not None else ((), whole)
    word = _WORDS.get(spec.datatype, spec.datatype.lower())
    if type(value) is list:
        text = (
            f"{_place(spec, path, column)}: Expecting shape {_dims(spec.shape)} but the lists are nested deeper "
            "(rank is too high)"
        )
    else:
        text = f"JSON Value: {show(value)} Type: {_kind(value)} is not of expected type: {word}"
        if not column and path:
            text = f"Failed to process element: {path[0]} of 'instances' list. Error: INVALID_ARGUMENT: {text}"
        text += f" ({_place(spec, path, column)})"
    return _error(text)


def _first_bad(value: Any, allowed: frozenset[type], levels: int) -> tuple[tuple[int, ...], Any] | None:
    if type(value) is not list or levels == 0:
        return None if type(value) in allowed else ((), value)
    for index, part in enumerate(value):
        found = _first_bad(part, allowed, levels - 1)
        if found is not None:
            return (index, *found[0]), found[1]
    return None


def bad_b64(spec: TensorSpec, element: dict[str, Any]) -> None:
    """Raise RequestError unless a BYTES element's object is {"b64": "<valid base64>"}."""
    text = element.get("b64")
    if len(element) != 1 or type(text) is not str:
        raise _error(
            f'input {spec.name!r}: JSON Value: {show(element)} not formatted correctly for base64 data; send {{"b64": "..."}}'
        )
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _error(f"input {spec.name!r}: Unable to base64 decode: {show(text)} ({error})") from error
