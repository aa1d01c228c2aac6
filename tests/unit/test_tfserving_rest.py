"""TF Serving's REST bodies: text to tensors and back, with literals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gateway.errors import RequestError, UpstreamError
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor
from gateway.protocol.tfserving_rest import decode_request, decode_response, encode_request, encode_response


def one(datatype: str, *shape: int, output: str = "y") -> Signature:
    return Signature(
        "m", "serving_default", (TensorSpec("x", datatype, shape),), (TensorSpec(output, datatype, shape),)
    )


PAIR = Signature(
    "m",
    "serving_default",
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))),
    (TensorSpec("p", "FP32", (-1, 2)), TensorSpec("q", "INT64", (-1,))),
)

REQUESTS: list[tuple[Signature, str, list[Any]]] = [
    (one("FP32", -1, 2), '{"instances": [[1, 2.5]]}', [[[1.0, 2.5]]]),
    (one("FP32", -1, 2), '{"inputs": {"x": [[1, 2.5]]}}', [[[1.0, 2.5]]]),
    (one("FP64", -1), '{"instances": [0.1, 1e300]}', [[0.1, 1e300]]),
    (one("FP16", -1), '{"instances": [0.5, 65504]}', [[0.5, 65504.0]]),
    (one("INT64", -1), '{"instances": [9007199254740993, -9223372036854775808]}', [[2**53 + 1, -(2**63)]]),
    (one("UINT64", -1), '{"instances": [18446744073709551615]}', [[2**64 - 1]]),
    (one("BOOL", -1), '{"instances": [true, false]}', [[True, False]]),
    (one("BYTES", -1), '{"instances": ["a\\u00e9", {"b64": "AP8="}]}', [[b"a\xc3\xa9", b"\x00\xff"]]),
    (one("BYTES", -1, 1), '{"inputs": [["a"], ["b"]]}', [[[b"a"], [b"b"]]]),
    (one("FP32"), '{"inputs": 1.5}', [1.5]),
    (PAIR, '{"instances": [{"a": [1, 2], "b": 3}, {"b": 4, "a": [5, 6]}]}', [[[1, 2], [5, 6]], [3, 4]]),
]


@pytest.mark.parametrize(("signature", "body", "values"), REQUESTS)
def test_a_request_is_decoded_and_survives_encoding(signature: Signature, body: str, values: list[Any]) -> None:
    first = decode_request(body.encode(), signature)
    again = decode_request(encode_request(first), signature)
    for request in (first, again):
        for tensor, spec, expected in zip(request.inputs, signature.inputs, values, strict=True):
            assert (tensor.name, tensor.datatype) == (spec.name, spec.datatype)
            assert tensor.data.dtype == DTYPES[spec.datatype]
            assert tensor.data.tolist() == expected


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (one("FP32", -1), '{"instances": ["2"]}'),
        (one("FP32", -1), '{"instances": [null]}'),
        (one("FP32", -1), '{"instances": [true]}'),
        (one("INT64", -1), '{"instances": [1.0]}'),
        (one("FP32", -1, 2), '{"instances": [[1, 2], [3]]}'),
        (one("BYTES", -1), '{"instances": [["a"], "b"]}'),
        (one("BYTES", -1, 2), '{"instances": [["a", "b"], ["c"]]}'),
    ],
)
def test_nothing_is_coerced(signature: Signature, body: str) -> None:
    with pytest.raises(RequestError):
        decode_request(body.encode(), signature)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_nan_and_infinity_survive_both_ways(datatype: str) -> None:
    signature = one(datatype, -1, 2)
    request = decode_request(b'{"instances": [[NaN, Infinity], [-Infinity, 0.1]]}', signature)
    array = np.array([[np.nan, np.inf], [-np.inf, 0.1]], dtype=DTYPES[datatype])
    np.testing.assert_array_equal(request.inputs[0].data, array)
    np.testing.assert_array_equal(decode_request(encode_request(request), signature).inputs[0].data, array)
    for column in (False, True):
        body = encode_response(InferResponse("m", (Tensor("y", datatype, array),)), column)
        assert b"NaN" in body
        assert b"-Infinity" in body
        np.testing.assert_array_equal(decode_response(body, signature)[0].data, array)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_every_bit_of_a_float_survives_its_text(datatype: str) -> None:
    dtype = DTYPES[datatype]
    raw = np.random.default_rng(7).integers(0, 256, size=(4000 * dtype.itemsize,), dtype=np.uint8).view(dtype)
    finite = raw[np.isfinite(raw)]
    signature = one(datatype, -1)
    for array in (finite, np.append(finite, np.array([np.inf], dtype=dtype))):
        body = encode_response(InferResponse("m", (Tensor("y", datatype, array),)), column=False)
        assert decode_response(body, signature)[0].data.tobytes() == array.tobytes()
        request = InferRequest("m", (Tensor("x", datatype, array),))
        assert decode_request(encode_request(request), signature).inputs[0].data.tobytes() == array.tobytes()


def test_bf16_travels_as_the_nearest_number() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], dtype=np.uint16)  # 1, -2, infinity, the smallest
    signature = one("BF16", -1)
    body = encode_response(InferResponse("m", (Tensor("y", "BF16", bits),)), column=True)
    assert decode_response(body, signature)[0].data.tolist() == bits.tolist()


PREDICTED = Tensor("p", "FP32", np.array([[1, 2], [3, 4]], dtype=np.float32))
COUNTED = Tensor("q", "INT64", np.array([5, 6], dtype=np.int64))
RESPONSES: list[tuple[tuple[Tensor, ...], bool, Any]] = [
    ((PREDICTED,), False, {"predictions": [[1.0, 2.0], [3.0, 4.0]]}),
    ((PREDICTED,), True, {"outputs": [[1.0, 2.0], [3.0, 4.0]]}),
    ((PREDICTED, COUNTED), False, {"predictions": [{"p": [1.0, 2.0], "q": 5}, {"p": [3.0, 4.0], "q": 6}]}),
    ((PREDICTED, COUNTED), True, {"outputs": {"p": [[1.0, 2.0], [3.0, 4.0]], "q": [5, 6]}}),
    ((Tensor("t", "BYTES", np.array([b"a", b"\xff"], dtype=object)),), True, {"outputs": ["a", {"b64": "/w=="}]}),
    ((Tensor("t_bytes", "BYTES", np.array([b"a"], dtype=object)),), False, {"predictions": [{"b64": "YQ=="}]}),
    ((Tensor("s", "FP32", np.array(0.5, dtype=np.float32)),), True, {"outputs": 0.5}),
]


@pytest.mark.parametrize(("tensors", "column", "document"), RESPONSES)
def test_an_answer_in_both_formats(tensors: tuple[Tensor, ...], column: bool, document: Any) -> None:
    body = encode_response(InferResponse("m", tensors), column)
    assert json.loads(body) == document
    outputs = tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)
    for tensor, decoded in zip(tensors, decode_response(body, Signature("m", "s", (), outputs)), strict=True):
        assert decoded.data.tolist() == tensor.data.tolist()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"predictions": []}',
        b'{"predictions": [[1, 2]], "outputs": [[1, 2]]}',
        b'{"predictions": [{"z": 1}]}',
        b'{"predictions": [{"p": [1, 2]}]}',
        b'{"outputs": {"p": [[1, 2]]}}',
        b'{"outputs": {"p": [[1, 2]], "q": ["1"]}}',
        b'{"outputs": {"p": [[1, 2], [1]], "q": [1]}}',
    ],
)
def test_an_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        decode_response(body, PAIR)
    assert caught.value.kind == "upstream_invalid"


def test_rows_need_a_batch_dimension() -> None:
    with pytest.raises(UpstreamError, match="Tensor name: s has no shape information"):
        encode_response(InferResponse("m", (Tensor("s", "FP32", np.array(1, dtype=np.float32)),)), column=False)
