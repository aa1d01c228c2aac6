"""TensorProto <-> Tensor: tables of literals, every refusal, and the round trip for every datatype and shape."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.errors import RequestError
from gateway.protocol.descriptors import message_class
from gateway.protocol.tensor_proto import BY_DATATYPE, decode, new
from gateway.protocol.tensors import DTYPES, Tensor

MIB = 1 << 20


def proto(dtype: int, shape: list[int], **fields: Any) -> Any:
    message = message_class("tensorflow.TensorProto")(dtype=dtype, **fields)
    for size in shape:
        message.tensor_shape.dim.add().size = size
    return message


@pytest.mark.parametrize(
    ("message", "datatype", "expected"),
    [
        (proto(1, [2], float_val=[1.5, -2]), "FP32", [1.5, -2.0]),
        (proto(1, [2, 2], float_val=[1.0, 7.0]), "FP32", [[1.0, 7.0], [7.0, 7.0]]),
        (proto(1, [3]), "FP32", [0.0, 0.0, 0.0]),
        (proto(1, [], float_val=[4.0]), "FP32", 4.0),
        (proto(1, [0, 3]), "FP32", np.zeros((0, 3)).tolist()),
        (proto(1, [1], tensor_content=b"\x00\x00\xc0\x3f"), "FP32", [1.5]),
        (proto(2, [1], double_val=[1e300]), "FP64", [1e300]),
        (proto(3, [2], int_val=[-(2**31), 2**31 - 1]), "INT32", [-(2**31), 2**31 - 1]),
        (proto(4, [3], int_val=[0, 255]), "UINT8", [0, 255, 255]),
        (proto(5, [2], int_val=[-32768, 32767]), "INT16", [-32768, 32767]),
        (proto(6, [2], int_val=[-128, 127]), "INT8", [-128, 127]),
        (proto(7, [2], string_val=[b"a\xff", b""]), "BYTES", [b"a\xff", b""]),
        (proto(7, [3], string_val=[b"a"]), "BYTES", [b"a", b"a", b"a"]),
        (proto(7, [2], tensor_content=b"\x01\x02abc"), "BYTES", [b"a", b"bc"]),
        (proto(9, [2], int64_val=[-(2**63), 2**63 - 1]), "INT64", [-(2**63), 2**63 - 1]),
        (proto(10, [3], bool_val=[True, False]), "BOOL", [True, False, False]),
        (proto(10, [2], tensor_content=b"\x01\x00"), "BOOL", [True, False]),
        (proto(14, [1], half_val=[0x3F80]), "BF16", [0x3F80]),
        (proto(17, [1], int_val=[65535]), "UINT16", [65535]),
        (proto(19, [2], half_val=[0x3C00, 0xC000]), "FP16", [1.0, -2.0]),
        (proto(22, [1], uint32_val=[2**32 - 1]), "UINT32", [2**32 - 1]),
        (proto(23, [1], uint64_val=[2**64 - 1]), "UINT64", [2**64 - 1]),
    ],
)
def test_what_tensorflow_reads(message: Any, datatype: str, expected: Any) -> None:
    tensor = decode(message, "x", MIB)
    assert (tensor.name, tensor.datatype, tensor.data.tolist()) == ("x", datatype, expected)
    assert tensor.data.dtype == DTYPES[datatype]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (proto(0, [1], float_val=[1]), "DT_INVALID"),
        (proto(8, [1], scomplex_val=[1, 2]), "DT_COMPLEX64"),
        (proto(20, [1]), "DT_RESOURCE"),
        (proto(21, [1]), "DT_VARIANT"),
        (proto(101, [1], float_val=[1]), "DT_FLOAT_REF"),
        (proto(999, [1], float_val=[1]), "999"),
        (proto(1, [-1], float_val=[1]), "negative"),
        (proto(1, [1] * 65, float_val=[1]), "65 dimensions"),
        (proto(1, [2**62], float_val=[1]), "more than"),
        (proto(1, [2**62, 2**62, 2**62], float_val=[1]), "more than"),
        (proto(1, [0, 2**62]), "more than"),
        (proto(1, [2**19], float_val=[1]), "more than"),
        (proto(1, [1], float_val=[1, 2]), "2 values"),
        (proto(1, [1], float_val=[1], tensor_content=b"\0\0\0\0"), "takes its values from"),
        (proto(1, [1], float_val=[1], double_val=[1]), "takes its values from"),
        (proto(1, [1], int_val=[1]), "takes its values from"),
        (proto(1, [1], version_number=1, float_val=[1]), "version_number"),
        (proto(1, [2], tensor_content=b"\0\0\0\0"), "need 8"),
        (proto(1, [0], tensor_content=b"\0"), "need 0"),
        (proto(4, [1], int_val=[256]), "outside DT_UINT8"),
        (proto(6, [2], int_val=[0, -129]), "outside DT_INT8"),
        (proto(19, [1], half_val=[65536]), "outside DT_HALF"),
        (proto(10, [1], tensor_content=b"\x02"), "other than 0 and 1"),
        (proto(7, [2], tensor_content=b"\x01"), "lengths of 2 strings"),
        (proto(7, [2], tensor_content=b"\x01\x02abcd"), "need 5"),
        (proto(7, [1], tensor_content=b"\xff\xff\xff\xff\xff\xff"), "lengths"),
        (proto(7, [100], string_val=[b"x" * MIB]), "repeated"),
    ],
)
def test_what_is_refused(message: Any, problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as caught:
        decode(message, "x", MIB)
    assert caught.value.kind == "invalid_argument"
    assert "'x'" in caught.value.message


def test_an_unknown_rank_is_refused() -> None:
    message = proto(1, [1], float_val=[1])
    message.tensor_shape.unknown_rank = True
    with pytest.raises(RequestError, match="unknown rank"):
        decode(message, "x", MIB)


def arrays(datatype: str) -> st.SearchStrategy[Any]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    if datatype == "BYTES":
        return shapes.flatmap(
            lambda shape: hnp.arrays(object, shape, elements=st.binary(max_size=5), fill=st.nothing())
        )
    return hnp.arrays(DTYPES[datatype], shapes)


@given(st.sampled_from(sorted(BY_DATATYPE)).flatmap(lambda d: st.tuples(st.just(d), arrays(d))), st.booleans())
def test_decode_undoes_encode(case: tuple[str, Any], typed: bool) -> None:
    datatype, data = case
    tensor = Tensor("x", datatype, data)
    message = new(tensor, typed=typed)
    again = decode(message_class("tensorflow.TensorProto").FromString(message.SerializeToString()), "x", MIB)
    assert again.datatype == datatype
    assert again.shape == tensor.shape
    assert again.data.dtype == DTYPES[datatype]
    if datatype == "BYTES":
        assert again.data.tolist() == data.tolist()
    else:
        assert again.data.tobytes() == data.tobytes()


@given(st.binary(max_size=80))
def test_only_our_errors_leave(payload: bytes) -> None:
    message = message_class("tensorflow.TensorProto")()
    with suppress(DecodeError, RequestError):
        message.ParseFromString(payload)
        decode(message, "x", MIB)
