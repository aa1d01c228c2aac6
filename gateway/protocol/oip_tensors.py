"""Open Inference Protocol tensors: a head's list of them, and raw bytes <-> arrays, the same for every form of the protocol.

PURE. Raw is little-endian, row-major, BYTES elements each behind a u32 little-endian length. What a head says is checked
before anything is allocated. Every error is RequestError("invalid_argument") and names the tensor; JSON data are `oip_json`'s,
messages and headers their forms'.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.errors import RequestError
from gateway.protocol import json_lists
from gateway.protocol.oip_json import Described, bad, from_json, from_long, json_data, loads, shown
from gateway.protocol.tensors import DTYPES, MAX_RANK, Tensor, element_count, raw_view

_U32 = Struct("<I")
# what a client asks of one server's memory or state cannot be kept where every request may go to another server
_REFUSED = {
    "shared_memory_region": "shared memory is that of one server, not of the gateway",
    "classification": "classification is an extension the gateway has not",
    "sequence_id": "sequences need every request of one at the same server",
}


def described(item: Any, where: str) -> Described:
    """A tensor's head entry; where ("inputs[0]") stands in the errors."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise bad(f"{where} must be an object with a 'name'")
    shape = item.get("shape")
    if not isinstance(shape, list):
        raise bad(f"{where}.shape must be a list of whole numbers")
    check_form(item["name"], item.get("datatype"), shape)
    return Described(item["name"], item["datatype"], tuple(shape), parameters_of(item, where))


def parameters_of(item: dict[str, Any], where: str) -> dict[str, Any]:
    """The "parameters" of a request, response, tensor or requested output; null, as MLServer writes it, is none at all."""
    parameters = item.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad(f"{where}: 'parameters' must be an object")
    refuse_parameters(parameters or {})
    return parameters or {}


def read_json(text: bytes, key: str) -> tuple[dict[str, Any], Mapping[str, bytes], bytes]:
    """The head in a JSON text, an object with the list `key`; the long lists lifted out of it, for `read_tensors`; what is left."""
    lifted = json_lists.lift(text, b'"data"')
    rest = text if lifted is None else lifted.rest
    head = loads(rest)
    if not isinstance(head, dict) or not isinstance(head.get(key), list):
        raise bad(f"the body must be a JSON object with the list {key!r}")
    return head, {} if lifted is None else lifted.lists, rest


def read_tensors(
    listed: list[Any], key: str, body: bytes, at: int, lists: Mapping[str, bytes] | None = None
) -> tuple[Tensor, ...]:
    """The tensors of a head's list, their raw contents one after the other in body from `at` to its end.

    key ("inputs") stands in the errors; lists are those lifted out of the head, None asks for raw contents of every tensor.
    """
    json_too = lists is not None
    tensors: dict[str, Tensor] = {}
    for index, item in enumerate(listed):
        form = described(item, f"{key}[{index}]")
        name, datatype, shape, _ = form
        if name in tensors:
            raise bad(f"{key}[{index}]: {name!r} is there twice")
        size = form.binary_size
        if size is None and json_too and "data" in item:
            data = item["data"]
            long = lists.get(data) if lists and type(data) is str else None
            tensors[name] = Tensor(name, datatype, from_json(data, form) if long is None else from_long(long, form))
            continue
        if size is None or "data" in item:
            either = "'data' or parameters.binary_data_size, and not both" if json_too else (
                "parameters.binary_data_size, a whole number, and no 'data'"
            )  # fmt: skip
            raise bad(f"{name!r} must have {either}")
        if size > len(body) - at:
            raise bad(f"{name!r} has {size} bytes, the payload has {len(body) - at} left")
        tensors[name] = Tensor(name, datatype, from_raw(body, at, size, datatype, shape, name))
        at += size
    if at != len(body):
        raise bad(f"{len(body) - at} bytes are left over after the last tensor")
    return tuple(tensors.values())


def write_tensors(
    tensors: Iterable[Tensor], binary: Container[str]
) -> tuple[list[dict[str, Any]], list[bytes | memoryview]]:
    """The list for a head, and the raw contents of those named in binary, in order.

    Raises RequestError("failed_precondition") for what JSON cannot hold.
    """
    listed: list[dict[str, Any]] = []
    chunks: list[bytes | memoryview] = []
    for tensor in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.name in binary:
            chunk = raw_contents(tensor)
            entry["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        else:
            entry["data"] = json_data(tensor)
        listed.append(entry)
    return listed, chunks


def check_form(name: str, datatype: Any, shape: list[Any] | tuple[int, ...]) -> int:
    """The elements of a tensor whose datatype and shape are possible ones."""
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise bad(f"{name!r}: the datatype {shown(datatype)} is not one of {', '.join(DTYPES)}")
    if len(shape) > MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise bad(f"{name!r}: the shape must be at most {MAX_RANK} whole numbers of at least 0")
    count = element_count(tuple(shape))
    if count < 0:
        raise bad(f"{name!r} has the shape {list(shape)}, more than any memory holds")
    return count


def refuse_parameters(parameters: Mapping[str, Any]) -> None:
    """RequestError("unimplemented") for a parameter that would change what a request means and cannot be followed."""
    for key, why in _REFUSED.items():
        if parameters.get(key):
            raise RequestError("unimplemented", f"parameter {key!r}: {why}")


def raw_contents(tensor: Tensor) -> bytes | memoryview:
    """A tensor's raw bytes: a view where the array lies in memory as it travels, else a copy."""
    if tensor.datatype == "BYTES":
        parts: list[bytes] = []
        for element in tensor.data.reshape(-1).tolist():
            parts.append(_U32.pack(len(element)))
            parts.append(element)
        return b"".join(parts)
    return raw_view(tensor)


def from_raw(payload: bytes, at: int, size: int, datatype: str, shape: tuple[int, ...], name: str) -> npt.NDArray[Any]:
    """The array in payload[at : at + size], a view on it except for BYTES; datatype and shape are checked ones."""
    count = element_count(shape)
    if datatype == "BYTES":
        return _strings(payload, at, size, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if size != count * dtype.itemsize:
        raise bad(f"{name!r} has {size} bytes, shape {list(shape)} and {datatype} need {count * dtype.itemsize}")
    if not count:
        return np.zeros(shape, dtype)
    if datatype == "BOOL" and np.frombuffer(payload, np.uint8, count, at).max() > 1:
        raise bad(f"{name!r} is BOOL and has bytes other than 0 and 1")
    return np.frombuffer(payload, dtype, count, at).reshape(shape)


def _strings(payload: bytes, at: int, size: int, count: int, name: str) -> npt.NDArray[Any]:
    end = at + size
    if count * 4 > size:
        raise bad(f"{name!r} has {size} bytes, too few for {count} elements")
    array = np.empty(count, object)
    for index in range(count):
        stop = at + 4 + (_U32.unpack_from(payload, at)[0] if at + 4 <= end else end)
        if stop > end:
            raise bad(f"{name!r}: element {index} ends beyond its {size} bytes")
        array[index] = payload[at + 4 : stop]
        at = stop
    if at != end:
        raise bad(f"{name!r}: {end - at} bytes are left over after its {count} elements")
    return array
