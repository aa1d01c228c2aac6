"""tensorflow.TensorProto <-> Tensor, with every way to lie about a tensor refused.

Here lives how TensorFlow lays values out in a protobuf (tensorflow/core/framework/tensor.cc, Tensor::FromProto): either
the raw bytes (tensor_content) or one typed list per element type, where fewer values than the shape holds repeat the
last one and none at all mean zeros. What TensorFlow would silently ignore (a second encoding, surplus values, values
of another type, a number outside its type) is refused: two servers must not read one request differently.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.errors import RequestError
from gateway.protocol.descriptors import message_class
from gateway.protocol.proto_wire import Piece, field
from gateway.protocol.tensors import DTYPES, MAX_RANK, Tensor, element_count, raw_view


class Layout(NamedTuple):
    """How a datatype travels: TensorFlow's enum number and name, the typed list's field and number, the list's numpy type."""

    enum: int
    enum_name: str
    datatype: str
    field: str
    number: int
    listed: str


LAYOUTS = (
    Layout(1, "DT_FLOAT", "FP32", "float_val", 5, "<f4"),
    Layout(2, "DT_DOUBLE", "FP64", "double_val", 6, "<f8"),
    Layout(3, "DT_INT32", "INT32", "int_val", 7, "<i4"),
    Layout(4, "DT_UINT8", "UINT8", "int_val", 7, "<i4"),
    Layout(5, "DT_INT16", "INT16", "int_val", 7, "<i4"),
    Layout(6, "DT_INT8", "INT8", "int_val", 7, "<i4"),
    Layout(7, "DT_STRING", "BYTES", "string_val", 8, "O"),
    Layout(9, "DT_INT64", "INT64", "int64_val", 10, "<i8"),
    Layout(10, "DT_BOOL", "BOOL", "bool_val", 11, "?"),
    Layout(14, "DT_BFLOAT16", "BF16", "half_val", 13, "<i4"),
    Layout(17, "DT_UINT16", "UINT16", "int_val", 7, "<i4"),
    Layout(19, "DT_HALF", "FP16", "half_val", 13, "<i4"),
    Layout(22, "DT_UINT32", "UINT32", "uint32_val", 16, "<u4"),
    Layout(23, "DT_UINT64", "UINT64", "uint64_val", 17, "<u8"),
)
BY_ENUM = {layout.enum: layout for layout in LAYOUTS}
BY_DATATYPE = {layout.datatype: layout for layout in LAYOUTS}
_CONTENT = 4  # the number of tensor_content
_COMMON = frozenset({1, 2, 3})  # dtype, tensor_shape, version_number
# typed lists wider than the element: values outside the type would be cut off by TensorFlow
_RANGES = {"UINT8": (0, 255), "INT8": (-128, 127), "INT16": (-32768, 32767)} | dict.fromkeys(
    ("UINT16", "FP16", "BF16"), (0, 65535)
)


class Form(NamedTuple):
    """What a TensorProto says of itself, found consistent: layout, shape, number of elements, the raw bytes (b"": a list)."""

    layout: Layout
    shape: tuple[int, ...]
    elements: int
    content: bytes  # protobuf copies it at every look


def inspect(proto: Any, name: str, max_bytes: int) -> Form:
    """Check everything about a TensorProto that does not need its signature; max_bytes bounds the tensor once expanded.

    Raises RequestError("invalid_argument"), which names the tensor and the fault.
    """
    layout = BY_ENUM.get(proto.dtype)
    if layout is None:
        raise _bad(name, f"element type {_enum_name(proto)} is not one that can be served")
    shape = _shape(proto.tensor_shape, name)
    count = element_count(shape)
    itemsize = DTYPES[layout.datatype].itemsize
    if count < 0 or count * itemsize > max_bytes:
        raise _bad(
            name, f"tensor_shape {list(shape)} of {layout.enum_name} is more than the {max_bytes} bytes that are taken"
        )
    if proto.version_number:
        raise _bad(name, f"version_number {proto.version_number} is not 0")
    content = proto.tensor_content
    if content:
        _check_content(content, layout, count, name)
        held = 1
    else:
        held = _check_list(getattr(proto, layout.field), layout, count, name, max_bytes)
    # dtype is set, or there would be no layout: any field more is a second way to read the values
    if len(proto.ListFields()) != 1 + proto.HasField("tensor_shape") + held:
        names = sorted(field.name for field, _ in proto.ListFields() if field.number not in _COMMON)
        raise _bad(name, f"{layout.enum_name} takes its values from tensor_content or {layout.field}, got {names}")
    return Form(layout, shape, count, content)


def decode(proto: Any, name: str, max_bytes: int) -> Tensor:
    """The tensor a TensorProto holds; contents are a view on its bytes where they can be.

    Raises RequestError("invalid_argument") as `inspect` does.
    """
    return read(proto, name, inspect(proto, name, max_bytes))


def read(proto: Any, name: str, form: Form) -> Tensor:
    """The tensor of a TensorProto that was inspected."""
    layout, shape, count, content = form
    if layout.datatype == "BYTES":
        strings = _split(content, count, name) if content else list(proto.string_val)
        return Tensor(name, "BYTES", _strings(strings, count).reshape(shape))
    dtype = DTYPES[layout.datatype]
    if content:
        return Tensor(name, layout.datatype, np.frombuffer(content, dtype).reshape(shape))
    values = np.array(getattr(proto, layout.field), layout.listed)
    if layout.field == "half_val":
        values = values.astype("<u2").view(dtype)
    values = values.astype(dtype, copy=False)  # before they are repeated: a list's type may be four times as wide
    if values.size < count:
        last = values[-1:] if values.size else np.zeros(1, dtype)
        values = np.concatenate((values, np.broadcast_to(last, count - values.size)))
    return Tensor(name, layout.datatype, values.reshape(shape))


def fill(proto: Any, tensor: Tensor, *, typed: bool) -> None:
    """Write a tensor into an empty TensorProto: typed lists (what TF Serving answers with), or raw bytes (cheapest).

    BYTES always go into string_val.
    """
    layout = _describe(proto, tensor)
    data = tensor.data
    if tensor.datatype == "BYTES":
        proto.string_val.extend(data.reshape(-1).tolist())
    elif not typed:
        proto.tensor_content = data.tobytes()
    elif layout.listed in ("<f4", "<f8", "?"):
        # packed values of fixed width, and booleans, stand on the wire as they stand in memory
        raw = data.tobytes()
        if raw:
            proto.MergeFromString(packed(layout, raw))
    else:
        flat = data.reshape(-1)
        bits = flat.view("<u2") if layout.field == "half_val" else flat
        getattr(proto, layout.field).extend(bits.tolist())


def written(tensor: Tensor) -> list[Piece]:
    """The TensorProto that `fill` makes of raw bytes, on the wire and in pieces."""
    proto = message_class("tensorflow.TensorProto")()
    if tensor.datatype == "BYTES":
        fill(proto, tensor, typed=False)
        return [proto.SerializeToString()]
    _describe(proto, tensor)
    head: bytes = proto.SerializeToString()
    return [head, *field(_CONTENT, raw_view(tensor))] if tensor.data.size else [head]


def _describe(proto: Any, tensor: Tensor) -> Layout:
    """Datatype and shape."""
    layout = BY_DATATYPE[tensor.datatype]
    proto.dtype = layout.enum
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add().size = size
    return layout


def packed(layout: Layout, raw: bytes) -> bytes:
    """The field of a typed list whose values stand in memory as they stand on the wire."""
    return b"".join(field(layout.number, raw))


def new(tensor: Tensor, *, typed: bool) -> Any:
    """A TensorProto of its own."""
    proto = message_class("tensorflow.TensorProto")()
    fill(proto, tensor, typed=typed)
    return proto


def _shape(proto: Any, name: str) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise _bad(name, "tensor_shape has an unknown rank")
    dims = proto.dim
    if len(dims) > MAX_RANK:
        raise _bad(name, f"tensor_shape has {len(dims)} dimensions, at most {MAX_RANK} are taken")
    shape = tuple([dim.size for dim in dims])
    if shape and min(shape) < 0:
        raise _bad(name, f"tensor_shape {list(shape)} has a negative dimension")
    return shape


def _check_content(content: bytes, layout: Layout, count: int, name: str) -> None:
    if layout.datatype == "BYTES":
        _split(content, count, name)
        return
    wanted = count * DTYPES[layout.datatype].itemsize
    if len(content) != wanted:
        raise _bad(name, f"tensor_content has {len(content)} bytes, its shape and {layout.enum_name} need {wanted}")
    if layout.datatype == "BOOL" and content.translate(None, b"\x00\x01"):
        raise _bad(name, "tensor_content of DT_BOOL has bytes other than 0 and 1")


def _check_list(values: Any, layout: Layout, count: int, name: str, max_bytes: int) -> bool:
    """Judge a typed list; whether it holds anything."""
    given = len(values)
    if given > count:
        raise _bad(name, f"{layout.field} has {given} values, its shape holds {count}")
    bounds = _RANGES.get(layout.datatype)
    if given and bounds is not None:
        array = np.array(values, layout.listed)
        low, high = int(array.min()), int(array.max())
        if low < bounds[0] or high > bounds[1]:
            wrong = low if low < bounds[0] else high
            raise _bad(name, f"{layout.field} has the value {wrong}, outside {layout.enum_name}'s {list(bounds)}")
    if given and layout.datatype == "BYTES" and (count - given) * len(values[-1]) > max_bytes:
        raise _bad(name, f"the last string repeated to fill the shape is more than {max_bytes} bytes")
    return given > 0


def _split(content: bytes, count: int, name: str) -> list[bytes]:
    """The strings of a raw DT_STRING tensor: all lengths as varints, then all bytes (tsl/platform/coding: DecodeStringList)."""
    sizes, at = [], 0
    for _ in range(count):
        value, shift = 0, 0
        while True:
            if at >= len(content) or shift > 28:
                raise _bad(name, f"tensor_content does not hold the lengths of {count} strings")
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        sizes.append(value)
    if at + sum(sizes) != len(content):
        raise _bad(name, f"tensor_content has {len(content)} bytes, its {count} strings need {at + sum(sizes)}")
    strings = []
    for size in sizes:
        strings.append(content[at : at + size])
        at += size
    return strings


def _strings(values: list[bytes], count: int) -> npt.NDArray[Any]:
    array = np.empty(count, object)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if values else b""
    return array


def _enum_name(proto: Any) -> str:
    known = proto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number.get(proto.dtype)
    return known.name if known is not None else str(proto.dtype)


def _bad(name: str, problem: str) -> RequestError:
    return RequestError("invalid_argument", f"tensor parsing error: {name!r}: {problem}")
