"""JSON request body -> tensors, with TF Serving's rules and error texts (util/json_tensor.cc, tag 2.19.1).

Lives here: parsing, row ("instances") and columnar ("inputs") format, b64. Must not live here: model look-up (the caller
passes it in, because TF Serving parses the JSON before it looks for the model) and HTTP.
Ordinary numeric bodies take a short way through numpy; whatever it cannot prove right goes the long way, value by value,
which is also what words the error.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from backends.embedded.dtypes import Dtype
from backends.embedded.errors import Code, ServingError, invalid
from backends.embedded.json_write import render_value
from backends.embedded.signature import Signature, TensorInfo

_LONG_NUMBER = 300  # digits; a shorter integer is less than the largest double
_WORDS = (  # Python's wording -> rapidjson's
    ("Expecting value", "Invalid value."),
    ("Expecting property name", "Missing a name for object member."),
    ("Illegal trailing comma before end of object", "Missing a name for object member."),
    ("Illegal trailing comma before end of array", "Invalid value."),
    ("Expecting ':'", "Missing a colon after a name of object member."),
    ("Extra data", "The document root must not be followed by other values."),
    ("Unterminated string", "Missing a closing quotation mark in string."),
    ("Invalid \\", "Invalid escape character in string."),
    ("Invalid control", "Invalid encoding in string."),
)


@dataclass(frozen=True)
class PredictBody:
    """A parsed predict body: the signature it names, its tensors, and whether the answer is in row format."""

    signature: Signature
    tensors: dict[str, np.ndarray]
    row: bool


def read_document(body: bytes) -> dict[str, Any]:
    """Parse a body into its top-level object; NaN and Infinity are legal. Raises ServingError (INVALID_ARGUMENT)."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _read_lenient(body)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {render_value(document)} Is not object")
    return document


class _TooBigError(ValueError):
    """A number that no double holds, as it stands in the text."""


def _double(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _TooBigError(text)
    return value


def _number(text: str) -> int | float:
    return int(text) if len(text) < _LONG_NUMBER else _double(text)


def _read_lenient(body: bytes) -> Any:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    try:
        return json.loads(text, parse_float=_double, parse_int=_number)
    except _TooBigError as error:
        offset = len(text[: text.find(str(error))].encode())
        raise invalid(f"JSON Parse error: Number too big to be stored in double. at offset: {offset}") from None
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        if not text.strip():
            raise invalid(f"JSON Parse error: The document is empty. at offset: {len(body)}") from None
        raise invalid(f"JSON Parse error: {_rapidjson_words(error, text)} at offset: {offset}") from None
    except RecursionError:
        raise invalid("JSON Parse error: Terminate parsing due to Handler error. (nested too deeply)") from None


def _rapidjson_words(error: json.JSONDecodeError, text: str) -> str:
    if error.msg.startswith("Expecting ','"):
        # The parser does not say what it was in: the nearest bracket still open does.
        depth = 0
        for char in reversed(text[: error.pos]):
            depth += (char in "]}") - (char in "[{")
            if depth < 0:
                inside_list = char == "["
                break
        else:
            inside_list = False
        kind, end = ("array element", "]") if inside_list else ("object member", "}")
        return f"Missing a comma or {end} after an {kind}."
    return next((words for start, words in _WORDS if error.msg.startswith(start)), "Invalid value.")


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the body's signature name, "" when it names none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {render_value(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_predict(body: bytes, find_signature: Callable[[str], Signature]) -> PredictBody:
    """Turn a predict body into tensors; `find_signature` gets the name ("" for the default) after the JSON was parsed."""
    document = read_document(body)
    signature = find_signature(signature_name(document))
    has_bool = b"true" in body or b"false" in body
    if "instances" in document:
        instances = document["instances"]
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {render_value(document)} Not formatted correctly expecting only one of 'inputs' or"
                " 'instances' keys to exist "
            )
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {render_value(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {render_value(document)} No values in 'instances' array")
        return PredictBody(signature, _read_rows(instances, signature.inputs, has_bool), True)
    if "inputs" in document:
        return PredictBody(signature, _read_columns(document["inputs"], signature.inputs, has_bool), False)
    raise invalid("Missing 'inputs' or 'instances' key")


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_element_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _read_rows(instances: list[Any], inputs: Mapping[str, TensorInfo], has_bool: bool) -> dict[str, np.ndarray]:
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per"
            " tensorinfo_map"
        )
    tensors: dict[str, np.ndarray] = {}
    if _is_element_object(instances[0]):
        names = inputs.keys()
        same_keys = all(isinstance(element, dict) and element.keys() == names for element in instances)
        if same_keys:
            for name, info in inputs.items():
                column = _numeric([element[name] for element in instances], info.dtype, has_bool)
                if column is None:
                    break
                tensors[name] = column
            else:
                return tensors
    else:
        (info,) = inputs.values()
        column = _numeric(instances, info.dtype, has_bool)
        if column is not None:
            return {info.alias: column}
    return _rows_by_value(instances, inputs)


def _rows_by_value(instances: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    objects = _is_element_object(instances[0])
    columns: dict[str, _Column] = {}
    for index, element in enumerate(instances):
        if objects != _is_element_object(element):
            expected = "Expecting object but got list" if objects else "Expecting value/list but got object"
            raise invalid(f"{expected} at item {index} of input list")
        items = element if objects else {next(iter(inputs)): element}
        for name, item in items.items():
            try:
                if name not in inputs:
                    raise invalid(f"JSON object: does not have named input: {name}")
                columns.setdefault(name, _Column(inputs[name].dtype)).add(item)
            except ServingError as error:
                key = f" key: {name}" if objects else ""
                raise invalid(f"Failed to process element: {index}{key} of 'instances' list. Error: {error}") from None
        if objects and set(element) != set(inputs):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {render_value(element)} keys must"
                f" be equal to: {','.join(inputs)}"
            )
    return {name: column.array() for name, column in columns.items()}


class _Column:
    """The rows of one input, all of the first row's shape."""

    def __init__(self, dtype: Dtype) -> None:
        self._dtype = dtype
        self._values: list[Any] = []
        self._shape: tuple[int, ...] | None = None
        self._rows = 0

    def add(self, item: Any) -> None:
        shape = _shape_of(item)
        values: list[Any] = []
        _fill(item, 0, shape, self._dtype, values)
        if self._shape is None:
            self._shape = shape
        elif len(values) != (expected := int(np.prod(self._shape, dtype=np.int64))):
            raise invalid(f"Expecting tensor size: {expected} but got: {len(values)}")
        elif shape != self._shape:
            raise invalid(f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}")
        self._values += values
        self._rows += 1

    def array(self) -> np.ndarray:
        return _array(self._values, (self._rows, *(self._shape or ())), self._dtype)


def _read_columns(value: Any, inputs: Mapping[str, TensorInfo], has_bool: bool) -> dict[str, np.ndarray]:
    if not _is_element_object(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per"
                " tensorinfo_map"
            )
        (info,) = inputs.values()
        return {info.alias: _read_tensor(value, info.dtype, has_bool)}
    tensors = {}
    for name, info in inputs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        tensors[name] = _read_tensor(value[name], info.dtype, has_bool)
    return tensors


def _read_tensor(value: Any, dtype: Dtype, has_bool: bool) -> np.ndarray:
    array = _numeric(value, dtype, has_bool)
    if array is not None:
        return array
    shape = _shape_of(value)
    values: list[Any] = []
    _fill(value, 0, shape, dtype, values)
    return _array(values, shape, dtype)


def _numeric(value: Any, dtype: Dtype, has_bool: bool) -> np.ndarray | None:
    """Convert plain numbers in one step; None when numpy alone cannot prove them right (it takes True for 1, "2" for 2)."""
    if has_bool or dtype.json not in {"number", "int"}:
        return None
    try:
        array = np.array(value)
    except ValueError:  # ragged, or nested deeper than numpy goes
        return None
    if dtype.json == "number":
        if array.dtype.kind not in "fiu":
            return None
        with np.errstate(over="ignore"):  # over-range values become infinite
            return array.astype(dtype.numpy)
    if array.dtype.kind not in "iu" or (
        array.size and (int(array.min()) < dtype.limits[0] or int(array.max()) > dtype.limits[1])
    ):
        return None
    return array.astype(dtype.numpy)


def _array(values: list[Any], shape: tuple[int, ...], dtype: Dtype) -> np.ndarray:
    if dtype.json == "string":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.reshape(shape)
    if dtype.json == "int":
        # Small types were checked as int32 only: the rest wraps, as a C cast does.
        wide = np.uint64 if dtype.limits[0] == 0 else np.int64
        return np.array(values, dtype=wide).astype(dtype.numpy).reshape(shape)
    with np.errstate(over="ignore"):
        return (
            np.array(values, dtype=np.float64 if dtype.json == "number" else dtype.numpy)
            .astype(dtype.numpy)
            .reshape(shape)
        )


def _shape_of(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _fill(value: Any, level: int, shape: tuple[int, ...], dtype: Dtype, values: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {render_value(value)} found at incorrect level: {level + 1} in the JSON DOM."
                f" Expected at level: {len(shape)}"
            )
        values.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _fill(item, level + 1, shape, dtype, values)


def _scalar(value: Any, dtype: Dtype) -> Any:
    kind = type(value)
    if dtype.json is None:
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {render_value(value)} to type: {dtype.name}")
    if dtype.json == "number" and kind in (float, int):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    if dtype.json == "int" and kind is int and dtype.limits[0] <= value <= dtype.limits[1]:
        return value
    if dtype.json == "bool" and kind is bool:
        return value
    if dtype.json == "string" and kind is str:
        return value.encode("utf-8", "surrogatepass")
    if dtype.json == "string" and kind is dict:
        return _unescape(value)
    raise invalid(f"JSON Value: {render_value(value)} Type: {_type_name(value)} is not of expected type: {dtype.name}")


def _unescape(value: dict[str, Any]) -> bytes:
    if not _is_b64(value):
        raise invalid(f"JSON Value: {render_value(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _type_name(value: Any) -> str:
    names = {bool: str(value), dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
    return names.get(type(value), "Null")
