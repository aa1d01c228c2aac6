"""What TorchServe's clients send, form by form: what is read, how it is answered, what is refused."""

import json
import pickle

import numpy as np
import pytest

from gateway.errors import RequestError
from gateway.protocol import multipart
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import InferResponse, Tensor
from gateway.protocol.torchserve_predictions import GrpcAsked, HttpAsked

ONE = Signature("one", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))
TEXT = Signature("text", "serving_default", (TensorSpec("t", "BYTES", (-1,)),), (TensorSpec("u", "BYTES", (-1,)),))
TWO = Signature(
    "two",
    "serving_default",
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))),
    (TensorSpec("s", "FP32", (-1,)), TensorSpec("t", "INT64", (-1,))),
)
X = np.float32([[1, 2], [3, 4]])
Y = Tensor("y", "FP32", np.float32([[0.5], [np.nan]]))
S, T = Tensor("s", "FP32", np.float32([1, 2])), Tensor("t", "INT64", np.int64([3, 1 << 60]))
BOUND = "multipart/form-data; boundary=--x1"


def form(**parts: tuple[str, bytes]) -> bytes:
    pieces = []
    for name, (media_type, content) in parts.items():
        kind = f"\r\nContent-Type: {media_type}" if media_type else ""
        head = f'Content-Disposition: form-data; name="{name}"; filename="f"{kind}\r\n\r\n'
        pieces.append(b"----x1\r\n" + head.encode() + content + b"\r\n")
    return b"".join(pieces) + b"----x1--\r\n"


JSON = "application/json"
OIP = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}


@pytest.mark.parametrize(
    ("content_type", "body", "answer"),
    [
        (JSON, b'{"instances": [[1, 2], [3, 4]]}', b'{"predictions":[[0.5],[NaN]]}'),
        ("", b'{"inputs": [[1, 2], [3, 4]]}', b'{"outputs":[[0.5],[NaN]]}'),
        ("application/json; charset=utf-8", b" [[1, 2], [3, 4]] ", b"[[0.5],[NaN]]"),
        ("application/x-www-form-urlencoded", b'{"data": [[1, 2], [3, 4]]}', b"[[0.5],[NaN]]"),
        ("text/plain", b'[{"x": [1, 2]}, {"x": [3, 4]}]', b"[[0.5],[NaN]]"),
        (JSON, b'{"x": [[1, 2], [3, 4]]}', b'{"y":[[0.5],[NaN]]}'),
        ("application/octet-stream", X.tobytes(), Y.data.tobytes()),
        (BOUND, form(data=("application/octet-stream", X.tobytes())), Y.data.tobytes()),
        (BOUND, form(data=("", b"[[1, 2], [3, 4]]")), b"[[0.5],[NaN]]"),
        (BOUND, form(body=(JSON, b'{"instances": [[1, 2], [3, 4]]}')), b'{"predictions":[[0.5],[NaN]]}'),
        (BOUND, form(x=(JSON, b"[[1, 2], [3, 4]]")), b'{"y":[[0.5],[NaN]]}'),
        (BOUND, form(x=("image/raw", X.tobytes())), b'{"y":[[0.5],[NaN]]}'),
    ],
)
def test_one_input_in_every_form(content_type: str, body: bytes, answer: bytes) -> None:
    asked = HttpAsked(body, content_type, "one", "2.0")
    request = asked.request(ONE)
    assert (request.model, request.version) == ("one", "2.0")
    (x,) = request.inputs
    assert (x.name, x.datatype, x.data.dtype) == ("x", "FP32", np.float32)
    assert np.array_equal(x.data, X)
    assert asked.answer(InferResponse("one", (Y,)), ONE).body == answer
    elsewhere = pickle.loads(pickle.dumps(asked.answerer()))  # big JSON is read and answered in another process
    assert len(pickle.dumps(elsewhere)) < 600
    assert elsewhere.answer(InferResponse("one", (Y,)), ONE).body == answer


def test_the_open_inference_form_is_answered_in_its_own() -> None:
    asked = HttpAsked(json.dumps(OIP).encode(), JSON, "one", "")
    assert np.array_equal(asked.request(ONE).inputs[0].data, X)
    finite = Tensor("y", "FP32", np.float32([[0.5], [1]]))
    answer = json.loads(asked.answer(InferResponse("one", (finite,), "1.0"), ONE).body)
    assert (answer["id"], answer["model_name"]) == ("7", "one")
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 1.0]}]


@pytest.mark.parametrize(
    ("content_type", "body", "answer"),
    [
        (JSON, b'[{"a": [1, 2], "n": 5}, {"n": 6, "a": [3, 4]}]', [{"s": 1, "t": 3}, {"s": 2, "t": 1 << 60}]),
        (JSON, b'{"a": [[1, 2], [3, 4]], "n": [5, 6]}', {"s": [1, 2], "t": [3, 1 << 60]}),
        (BOUND, form(a=("image/raw", X.tobytes()), n=(JSON, b"[5, 6]")), {"s": [1, 2], "t": [3, 1 << 60]}),
    ],
)
def test_two_inputs_are_named(content_type: str, body: bytes, answer: object) -> None:
    asked = HttpAsked(body, content_type, "two", "")
    a, n = asked.request(TWO).inputs
    assert np.array_equal(a.data, X)
    assert n.data.tolist() == [5, 6]
    assert json.loads(asked.answer(InferResponse("two", (S, T)), TWO).body) == answer


def test_a_whole_body_is_one_element_of_a_bytes_input() -> None:
    asked = HttpAsked(b"\x89PNG\0", "application/octet-stream", "text", "")
    (t,) = asked.request(TEXT).inputs
    assert (t.shape, t.data.tolist()) == ((1,), [b"\x89PNG\0"])
    answer = asked.answer(InferResponse("text", (Tensor("u", "BYTES", np.array([b"\xff!"], dtype=object)),)), TEXT)
    assert (answer.body, answer.headers["content-type"]) == (b"\xff!", "application/octet-stream")


def predictions(model: str = "one", **values: bytes) -> bytes:
    message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")(
        model_name=model, model_version="1.0"
    )
    for name, value in values.items():
        message.input[name] = value
    payload: bytes = message.SerializeToString()
    return payload


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"data": b"[[1, 2], [3, 4]]"}, b"[[0.5],[NaN]]"),
        ({"body": b'{"instances": [[1, 2], [3, 4]]}'}, b'{"predictions":[[0.5],[NaN]]}'),
        ({"data": X.tobytes()}, Y.data.tobytes()),
        ({"x": X.tobytes()}, b'{"y":[[0.5],[NaN]]}'),
    ],
)
def test_grpc_values_are_json_where_they_are_json(values: dict[str, bytes], answer: bytes) -> None:
    asked = GrpcAsked(predictions(**values))
    assert (asked.model, asked.version) == ("one", "1.0")
    assert np.array_equal(asked.request(ONE).inputs[0].data, X)
    reply = asked.answer(InferResponse("one", (Y,)), ONE).body
    assert message_class("org.pytorch.serve.grpc.inference.PredictionResponse").FromString(reply).prediction == answer


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        (JSON, b"", "The document is empty"),
        (JSON, b"7", "a list of rows or an object"),
        (JSON, b'{"pixels": [[1, 2]]}', "the keys are pixels; expected instances, inputs, data, or every input: x"),
        (JSON, b'[[1, "2"]]', "Type: String is not of expected type: float"),
        (JSON, b"[[1, 2], [3]]", "Expecting tensor size: 2 but got: 1"),
        (JSON, b'[[1, 2]], "signature_name": "x"', "JSON Parse error"),
        (JSON, b"[[1, 2]]]", "JSON Parse error"),
        (JSON, b"[[1, 2]], [[1, 2]]", "JSON Parse error"),
        (JSON, b"[[1, 2]]}", "JSON Parse error"),
        (JSON, b'{"data": [[1, 2]]}}', "JSON Parse error"),
        (JSON, b'{"data": [[1, 2]]', "JSON Parse error"),
        (JSON, b'{"data": [[1, 2]]} 5', "JSON Parse error"),
        (JSON, b'{"data": [[1, 2]]}\x0c', "JSON Parse error"),
        (JSON, b"\x0c[[1, 2]]", "JSON Parse error"),
        (JSON, b'{"instances": [[1, 2]]} 5', "JSON Parse error"),
        (JSON, b'{"data": [[1, 2]], "data": [[3, 4]]}', "the key 'data' is there twice"),
        (JSON, b'{"x": [[1, 2]], "x": [[3, 4]]}', "the key 'x' is there twice"),
        (JSON, b'{"instances": [[1, 2]], "instances": [[3, 4]]}', "the key 'instances' is there twice"),
        ("image/jpeg", b"\xff\xd8", "Content-Type 'image/jpeg' is not read here"),
        ("application/octet-stream", X.tobytes()[:-1], "of 15 bytes: not a whole number of rows of 8 bytes"),
        ("application/octet-stream", b"", "of 0 bytes"),
        (BOUND, b"", "does not begin with its boundary"),
        ("multipart/form-data", b"x", "has no boundary"),
        (BOUND, form(data=("", b"[]"))[:-8], "does not end with its boundary"),
        (BOUND, form(image=("", b"[[1, 2]]")), "the field 'image' is neither data nor body nor an input (x)"),
        (BOUND, form(x=("", b'[[1, 2]], "y": 1')), "JSON Parse error"),
    ],
)
def test_what_cannot_be_read_is_refused(content_type: str, body: bytes, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        HttpAsked(body, content_type, "one", "").request(ONE)
    assert refused.value.kind == "invalid_argument"
    assert said in refused.value.message


LONG = np.random.default_rng(3).standard_normal((900, 2), np.float32)
LONG_ROWS = LONG.tolist()


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"instances": LONG_ROWS}, b'{"predictions":[[0.5],[NaN]]}'),
        ({"signature_name": "serving_default", "inputs": {"x": LONG_ROWS}}, b'{"outputs":[[0.5],[NaN]]}'),
        ({"data": LONG_ROWS}, b"[[0.5],[NaN]]"),
        (LONG_ROWS, b"[[0.5],[NaN]]"),
        ([{"x": row} for row in LONG_ROWS], b"[[0.5],[NaN]]"),
        ({"x": LONG_ROWS}, b'{"y":[[0.5],[NaN]]}'),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [900, 2], "data": LONG_ROWS}]},
            b'{"model_name":"one",',
        ),
    ],
)
def test_a_long_body_has_the_form_of_a_short_one(document: object, answer: bytes) -> None:
    asked = HttpAsked(json.dumps(document).encode(), JSON, "one", "")
    assert np.array_equal(asked.request(ONE).inputs[0].data, LONG)
    assert asked.answer(InferResponse("one", (Y,)), ONE).body.startswith(answer)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"data": %b, "data": [[1, 2]]}', "the key 'data' is there twice"),
        (b'{"data": [[1, 2]], "data": %b}', "the key 'data' is there twice"),
        (b'{"x": %b, "x": [[1, 2]]}', "the key 'x' is there twice"),
        (b'{"instances": %b, "instances": %b}', "the key 'instances' is there twice"),
        (b'{"data": %b, "more": 1}', "the keys are data, more; expected"),
        (b'{"data": %b, [1]}', "JSON Parse error"),
        (b'{"data": %b} 5', "JSON Parse error"),
        (b'{"instances": %b, "inputs": 1}', "expecting only one of"),
    ],
)
def test_a_long_body_is_refused_as_a_short_one_is(body: bytes, said: str) -> None:
    for rows in ([[1, 2]], LONG_ROWS):
        asked = HttpAsked(body.replace(b"%b", json.dumps(rows).encode()), JSON, "one", "")
        with pytest.raises(RequestError) as refused:
            asked.request(ONE)
        assert refused.value.kind == "invalid_argument"
        assert said in refused.value.message


def test_without_a_signature_or_a_model_nothing_is_read() -> None:
    with pytest.raises(RequestError, match="no signature to read a request by"):
        HttpAsked(b"[]", JSON, "one", "").request(None)
    with pytest.raises(RequestError, match="names no model"):
        GrpcAsked(predictions("", data=b"[]"))
    with pytest.raises(RequestError, match="no TorchServe PredictionsRequest"):
        GrpcAsked(b"\xff")
    with pytest.raises(RequestError, match="raw bytes are for models of one input"):
        HttpAsked(b"12", "application/octet-stream", "two", "").request(TWO)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(a=("", b"1"), b=("", b"2")).replace(b'"b"', b'"a"'), "twice"),
        (b"----x1\r\nContent-Disposition: form-data\r\n\r\nx\r\n----x1--", "with a name"),
        (b"----x1\r\nnothing\r\n\r\nx\r\n----x1--", "without a colon"),
        (b"----x1\r\nA: b\r\n----x1--", "no end of its headers"),
        (b"----x1\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n----x1--", "Content-Transfer-Encoding"),
        (b"----x1--\r\n", "no field"),
        (form(**{f"f{n}": ("", b"") for n in range(300)}), "more than 256 fields"),
    ],
)
def test_a_form_is_taken_strictly(body: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        multipart.fields(body, BOUND)


def test_a_field_keeps_every_byte() -> None:
    content = bytes(range(256)) + b"\r\n--\r\n----x2\r\n"
    (field,) = multipart.fields(form(data=("image/x; q=1", content)), 'multipart/form-data; boundary="--x1"').values()
    assert field == (content, "image/x")
