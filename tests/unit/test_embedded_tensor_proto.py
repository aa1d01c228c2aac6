"""TensorProto in the stand-in: both request encodings, TensorFlow's rules for missing values, typed answers."""

import numpy as np
import pytest

from backends.embedded.dtypes import DTYPES
from backends.embedded.errors import Code, ServingError
from backends.embedded.tensor_proto import decode_tensor, encode_tensor
from gateway.protocol.descriptors import message_class

BFLOAT16 = DTYPES[14].numpy


def proto(dtype, shape, **fields):
    message = message_class("tensorflow.TensorProto")(dtype=dtype, **fields)
    for size in shape:
        message.tensor_shape.dim.add().size = size
    return message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(1, [2, 2], float_val=[1, 2, 3, 4]), np.array([[1, 2], [3, 4]], np.float32)),
        (proto(1, [3], float_val=[1, 2]), np.array([1, 2, 2], np.float32)),
        (proto(1, [2], float_val=[1, 2, 3]), np.array([1, 2], np.float32)),
        (proto(1, [2]), np.zeros(2, np.float32)),
        (proto(1, [], float_val=[7]), np.array(7, np.float32)),
        (proto(1, [0, 3]), np.zeros((0, 3), np.float32)),
        (proto(1, [2], tensor_content=np.float32([5, 6]).tobytes()), np.array([5, 6], np.float32)),
        (proto(4, [2], int_val=[1, 255]), np.array([1, 255], np.uint8)),
        (proto(9, [1], int64_val=[-(2**63)]), np.array([-(2**63)], np.int64)),
        (proto(23, [1], uint64_val=[2**64 - 1]), np.array([2**64 - 1], np.uint64)),
        (proto(10, [2], bool_val=[True, False]), np.array([True, False])),
        (proto(19, [2], half_val=[0x3C00, 0x4000]), np.array([1, 2], np.float16)),
        (proto(14, [1], half_val=[0x3F80]), np.array([1], BFLOAT16)),
        (proto(8, [2], scomplex_val=[1, 2, 3, 4]), np.array([1 + 2j, 3 + 4j], np.complex64)),
        (proto(18, [2], dcomplex_val=[1, 2]), np.array([1 + 2j, 1 + 2j])),
    ],
)
def test_requests_are_read_as_tensorflow_reads_them(message, expected):
    tensor = decode_tensor("x", message)
    assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(tensor, expected)


def test_text_is_read_and_repeated():
    assert decode_tensor("x", proto(7, [3], string_val=[b"a", b"\xff"])).tolist() == [b"a", b"\xff", b"\xff"]
    assert decode_tensor("x", proto(7, [2])).tolist() == [b"", b""]


@pytest.mark.parametrize(
    "message",
    [
        proto(0, [1]),
        proto(99, [1]),
        proto(1, [-1], float_val=[1]),
        proto(1, [2], tensor_content=b"123"),
        proto(7, [1], tensor_content=b"\x01a"),
        proto(1, [2**20, 2**20], float_val=[1]),
        proto(1, [2**62, 4], float_val=[1]),
    ],
)
def test_tensors_that_cannot_be_read(message):
    with pytest.raises(ServingError) as error:
        decode_tensor("x", message)
    assert (error.value.code, error.value.message) == (Code.INVALID_ARGUMENT, "tensor parsing error: x")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda dtype: dtype.name)
def test_answers_use_the_typed_field_of_their_type(dtype):
    values = np.array([[0, 1], [1, 0]]).astype(dtype.numpy)
    if dtype.field == "string_val":
        values = np.array([[b"a", b""], [b"\x00", b"b"]], dtype=object)
    message = message_class("tensorflow.TensorProto")()
    encode_tensor(values, dtype, message)
    assert message.tensor_content == b""
    assert len(getattr(message, dtype.field)) == (8 if "complex" in dtype.field else 4)
    read = decode_tensor("y", message)
    assert (read.dtype, read.tolist()) == (values.dtype, values.tolist())
