"""The self-framed binary form of an Open Inference Protocol request or response, as our TorchServe handler takes it.

Wire: u32 little-endian length of the head | the head, JSON: an OIP infer request or response whose tensors carry
"parameters": {"binary_data_size": N} in place of "data" | the raw tensors, one after the other in the head's order
(little-endian, row-major; BYTES elements each behind a u32 little-endian length). Nothing may be left over.
The JSON form and HTTP's split form of the same protocol live elsewhere; no sockets here.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from gateway.errors import RequestError
from gateway.protocol.tensors import DTYPES, MAX_RANK, InferRequest, InferResponse, Tensor, element_count

_U32 = Struct("<I")


def encode_request(request: InferRequest) -> bytes:
    """A request's bytes; model, version and label are not part of the form (the server's address names them)."""
    head: dict[str, Any] = {"id": request.id} if request.id else {}
    if request.outputs:
        head["outputs"] = [{"name": name} for name in request.outputs]
    return _frame(head, "inputs", request.inputs)


def encode_response(response: InferResponse) -> bytes:
    """A response's bytes; what the server told of its batch is not part of the form."""
    head = {"model_name": response.model, "model_version": response.version, "id": response.id}
    return _frame(head, "outputs", response.outputs)


def decode_request(payload: bytes, model: str) -> InferRequest:
    """The request in a payload, for the model named; RequestError("invalid_argument") says where it is no request."""
    head, inputs = _unframe(payload, "inputs")
    outputs = head.get("outputs", [])
    if not (isinstance(outputs, list) and all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs)):
        raise _bad("'outputs' must be a list of objects with a 'name'")
    return InferRequest(model, inputs, id=_text(head, "id"), outputs=tuple(output["name"] for output in outputs))


def decode_response(payload: bytes) -> InferResponse:
    """The response in a payload; RequestError("invalid_argument") says where it is none."""
    head, outputs = _unframe(payload, "outputs")
    return InferResponse(_text(head, "model_name"), outputs, _text(head, "model_version"), _text(head, "id"))


def _frame(head: dict[str, Any], key: str, tensors: tuple[Tensor, ...]) -> bytes:
    chunks = [_contents(tensor) for tensor in tensors]
    listed = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(chunk)},
        }
        for tensor, chunk in zip(tensors, chunks, strict=True)
    ]
    text = orjson.dumps({**head, key: listed})
    return b"".join((_U32.pack(len(text)), text, *chunks))


def _contents(tensor: Tensor) -> bytes:
    if tensor.datatype != "BYTES":
        return tensor.data.tobytes()
    parts: list[bytes] = []
    for element in tensor.data.reshape(-1).tolist():
        parts.append(_U32.pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def _unframe(payload: bytes, key: str) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    if len(payload) < 4:
        raise _bad(f"{len(payload)} bytes are too short for the length of the head")
    start = 4 + _U32.unpack_from(payload)[0]
    if start > len(payload):
        raise _bad(f"the head ends at byte {start}, the payload at {len(payload)}")
    try:
        head = orjson.loads(memoryview(payload)[4:start])
    except orjson.JSONDecodeError as error:
        raise _bad(f"the head is no JSON: {error}") from error
    if not isinstance(head, dict) or not isinstance(head.get(key), list):
        raise _bad(f"the head must be an object with the list {key!r}")
    tensors: dict[str, Tensor] = {}
    at = start
    for index, item in enumerate(head[key]):
        name, datatype, shape, size = _described(item, f"{key}[{index}]")
        if name in tensors:
            raise _bad(f"{key}[{index}]: {name!r} is there twice")
        if size > len(payload) - at:
            raise _bad(f"{name!r} has {size} bytes, the payload has {len(payload) - at} left")
        tensors[name] = Tensor(name, datatype, _array(payload, at, size, datatype, shape, name))
        at += size
    if at != len(payload):
        raise _bad(f"{len(payload) - at} bytes are left over after the last tensor")
    return head, tuple(tensors.values())


def _described(item: Any, where: str) -> tuple[str, str, tuple[int, ...], int]:
    """A tensor's name, datatype, shape and byte count as the head states them."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise _bad(f"{where} must be an object with a 'name'")
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise _bad(f"{where}.datatype {datatype!r} is not one of {', '.join(DTYPES)}")
    shape = item.get("shape")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise _bad(f"{where}.shape must be a list of at most {MAX_RANK} whole numbers of at least 0")
    parameters = item.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if type(size) is not int or size < 0 or "data" in item:
        raise _bad(f"{where} must have parameters.binary_data_size, a whole number, and no 'data'")
    return item["name"], datatype, tuple(shape), size


def _array(payload: bytes, at: int, size: int, datatype: str, shape: tuple[int, ...], name: str) -> npt.NDArray[Any]:
    count = element_count(shape)
    if count < 0:
        raise _bad(f"{name!r} has the shape {list(shape)}, more than any memory holds")
    if datatype == "BYTES":
        return _strings(payload, at, size, count, name).reshape(shape)
    dtype = DTYPES[datatype]
    if size != count * dtype.itemsize:
        raise _bad(f"{name!r} has {size} bytes, shape {list(shape)} and {datatype} need {count * dtype.itemsize}")
    if datatype == "BOOL" and payload[at : at + size].translate(None, b"\x00\x01"):
        raise _bad(f"{name!r} is BOOL and has bytes other than 0 and 1")
    if not count:
        return np.zeros(shape, dtype)
    return np.frombuffer(payload, dtype, count, at).reshape(shape)


def _strings(payload: bytes, at: int, size: int, count: int, name: str) -> npt.NDArray[Any]:
    end = at + size
    if count * 4 > size:
        raise _bad(f"{name!r} has {size} bytes, too few for {count} elements")
    array = np.empty(count, object)
    for index in range(count):
        stop = at + 4 + (_U32.unpack_from(payload, at)[0] if at + 4 <= end else end)
        if stop > end:
            raise _bad(f"{name!r}: element {index} ends beyond its {size} bytes")
        array[index] = payload[at + 4 : stop]
        at = stop
    if at != end:
        raise _bad(f"{name!r}: {end - at} bytes are left over after its {count} elements")
    return array


def _text(head: dict[str, Any], key: str) -> str:
    value = head.get(key, "")
    if not isinstance(value, str):
        raise _bad(f"{key!r} must be a text")
    return value


def _bad(problem: str) -> RequestError:
    return RequestError("invalid_argument", f"oip-binary: {problem}")
