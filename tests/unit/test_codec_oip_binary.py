"""The self-framed binary form: bytes written out by hand, every refusal, the round trip for every datatype and shape."""

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.errors import RequestError
from gateway.protocol import oip_binary as codec
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor


def frame(head: Any, raw: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + raw


def described(size: int, **changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}} | changes


def test_a_request_as_bytes() -> None:
    tensors = (
        Tensor("x", "FP32", np.array([[1.5, -2.0]], "<f4")),
        Tensor("s", "BYTES", np.array([b"ab", b""], object)),
    )
    assert codec.encode_request(InferRequest("m", tensors, id="7", outputs=("y",))) == (
        b'\xd0\x00\x00\x00{"id":"7","outputs":[{"name":"y"}],"inputs":['
        b'{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},'
        b'{"name":"s","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":10}}]}'
        b"\x00\x00\xc0\x3f\x00\x00\x00\xc0"
        b"\x02\x00\x00\x00ab\x00\x00\x00\x00"
    )


def test_a_response_from_bytes() -> None:
    head = {"id": "7", "model_name": "m", "model_version": "1.0", "outputs": [described(8, name="y")]}
    answer = codec.decode_response(frame(head, struct.pack("<2f", 0.25, 4)))
    assert (answer.model, answer.version, answer.id) == ("m", "1.0", "7")
    assert [(t.name, t.datatype, t.data.tolist()) for t in answer.outputs] == [("y", "FP32", [[0.25, 4.0]])]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", "too short"),
        (b"\x00\x00\x00", "too short"),
        (b"\xff\xff\xff\xff{}", "the head ends at byte"),
        (frame(b"{"), "no JSON"),
        (frame(b'"\xff"'), "no JSON"),
        (frame([]), "must be an object"),
        (frame({"inputs": {}}), "the list 'inputs'"),
        (frame({"inputs": [1]}), r"inputs\[0\] must be an object"),
        (frame({"inputs": [described(8, name=1)]}), "with a 'name'"),
        (frame({"inputs": [described(8, datatype="FP31")]}, bytes(8)), "'FP31' is not one of"),
        (frame({"inputs": [described(8, datatype=["FP32"])]}, bytes(8)), "is not one of"),
        (frame({"inputs": [described(8, shape=[1, -2])]}, bytes(8)), "whole numbers of at least 0"),
        (frame({"inputs": [described(8, shape=[True, 2])]}, bytes(8)), "whole numbers of at least 0"),
        (frame({"inputs": [described(8, shape=[1] * 65)]}, bytes(8)), "at most 64"),
        (frame({"inputs": [described(8, shape=[2**62, 2**62])]}, bytes(8)), "more than any memory"),
        (frame({"inputs": [described(0, shape=[0, 2**62])]}), "more than any memory"),
        (frame({"inputs": [described(-1)]}), "binary_data_size"),
        (frame({"inputs": [described(8, parameters=None)]}, bytes(8)), "binary_data_size"),
        (frame({"inputs": [described(8, data=[1, 2])]}, bytes(8)), "no 'data'"),
        (frame({"inputs": [described(8)]}, bytes(7)), "the payload has 7 left"),
        (frame({"inputs": [described(8)]}, bytes(9)), "1 bytes are left over"),
        (frame({"inputs": [described(4)]}, bytes(4)), "need 8"),
        (frame({"inputs": [described(8), described(8)]}, bytes(16)), "there twice"),
        (frame({"inputs": [described(2, datatype="BOOL")]}, b"\x01\x02"), "other than 0 and 1"),
        (frame({"inputs": [described(4, datatype="BYTES")]}, bytes(4)), "too few for 2"),
        (frame({"inputs": [described(8, datatype="BYTES")]}, b"\x05\0\0\0abcd"), "ends beyond"),
        (frame({"inputs": [described(9, datatype="BYTES", shape=[1])]}, b"\x04\0\0\0abcde"), "left over after its 1"),
        (frame({"inputs": [], "outputs": ["y"]}), "'outputs' must be"),
        (frame({"inputs": [], "id": 7}), "'id' must be a text"),
    ],
)
def test_what_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as caught:
        codec.decode_request(payload, "m")
    assert caught.value.kind == "invalid_argument"


def numeric(name: str, datatype: str, shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Tensor]:
    return hnp.arrays(DTYPES[datatype], shapes).map(lambda data: Tensor(name, datatype, data))


def tensors(name: str) -> st.SearchStrategy[Tensor]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    numbers = [numeric(name, datatype, shapes) for datatype in DTYPES if datatype != "BYTES"]
    texts = shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=st.binary(max_size=5), fill=st.nothing()))
    return st.one_of(*numbers, texts.map(lambda data: Tensor(name, "BYTES", data)))


def plain(tensor: Tensor) -> tuple[Any, ...]:
    contents = tensor.data.tolist() if tensor.datatype == "BYTES" else tensor.data.tobytes()
    return tensor.name, tensor.datatype, tensor.shape, tensor.data.dtype, contents


@given(st.tuples(tensors("a"), tensors("é")))
def test_decode_undoes_encode(inputs: tuple[Tensor, Tensor]) -> None:
    again = codec.decode_request(codec.encode_request(InferRequest("m", inputs, id="i", outputs=("o",))), "m")
    assert (again.model, again.id, again.outputs) == ("m", "i", ("o",))
    assert [plain(tensor) for tensor in again.inputs] == [plain(tensor) for tensor in inputs]
    answer = codec.decode_response(codec.encode_response(InferResponse("m", inputs, "3", "i")))
    assert (answer.model, answer.version, answer.id) == ("m", "3", "i")
    assert [plain(tensor) for tensor in answer.outputs] == [plain(tensor) for tensor in inputs]


@given(st.data())
def test_only_our_errors_leave_damaged_bytes(data: st.DataObject) -> None:
    inputs = (Tensor("x", "FP32", np.ones((2, 2), "<f4")), Tensor("s", "BYTES", np.array([b"ab", b"c"], object)))
    payload = bytearray(codec.encode_request(InferRequest("m", inputs)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RequestError):
        codec.decode_request(bytes(payload[: data.draw(st.integers(0, len(payload)))]), "m")
