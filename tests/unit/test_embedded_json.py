"""The stand-in's JSON: TF Serving's rules, texts and float forms (notes of util/json_tensor.cc), without TensorFlow."""

import json

import numpy as np
import pytest

from backends.embedded.dtypes import DTYPES
from backends.embedded.errors import Code, ServingError
from backends.embedded.json_read import read_predict
from backends.embedded.json_write import float_texts, write_columns, write_rows
from backends.embedded.signature import Signature, TensorInfo

NUMBERS = {dtype.name: number for number, dtype in DTYPES.items()}


def signature(**inputs):
    infos = {
        alias: TensorInfo(alias, f"{alias}:0", DTYPES[NUMBERS[name]], None) for alias, name in sorted(inputs.items())
    }
    return Signature("serving_default", infos, infos)


def read(body, **inputs):
    return read_predict(body, lambda name: signature(**inputs))


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("float", b'{"instances": [1, 2.5, -3]}', np.array([1, 2.5, -3], np.float32)),
        ("float", b'{"instances": [[1, 2], [3, 4]]}', np.array([[1, 2], [3, 4]], np.float32)),
        ("float", b'{"inputs": 2}', np.array(2, np.float32)),
        ("float", b'{"inputs": [[]]}', np.zeros((1, 0), np.float32)),
        ("float", b'{"inputs": {"x": [[1], [2]], "ignored": 3}}', np.array([[1], [2]], np.float32)),
        ("float", b'{"instances": [{"x": [1]}, {"x": [2]}]}', np.array([[1], [2]], np.float32)),
        ("float", b'{"instances": [NaN, Infinity, -Infinity]}', np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("float", b'{"instances": [1e39, -1e39, Infinity]}', np.array([np.inf, -np.inf, np.inf], np.float32)),
        ("float", b'{"instances": [123456789012345678901234567890]}', np.array([1.2345679e29], np.float32)),
        ("double", b'{"instances": [0.1]}', np.array([0.1])),
        ("int32", b'{"instances": [-2147483648, 2147483647]}', np.array([-(2**31), 2**31 - 1], np.int32)),
        ("int64", b'{"instances": [9223372036854775807]}', np.array([2**63 - 1], np.int64)),
        ("uint64", b'{"instances": [18446744073709551615]}', np.array([2**64 - 1], np.uint64)),
        ("uint8", b'{"instances": [300]}', np.array([44], np.uint8)),
        ("bool", b'{"instances": [true, false]}', np.array([True, False])),
    ],
)
def test_bodies_become_tensors(name, body, expected):
    tensor = read(body, x=name).tensors["x"]
    assert tensor.dtype == expected.dtype
    assert tensor.shape == expected.shape
    np.testing.assert_array_equal(tensor, expected)


def test_text_and_base64_become_bytes():
    body = '{"instances": ["héé", {"b64": "AP8="}, {"b64": "AP8"}]}'.encode()
    assert read(body, x="string").tensors["x"].tolist() == ["héé".encode(), b"\x00\xff", b"\x00\xff"]


def test_the_form_of_the_body_is_remembered():
    assert read(b'{"instances": [1]}', x="float").row
    assert not read(b'{"inputs": [1]}', x="float").row


IN_INSTANCES = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("inputs", "body", "message"),
    [
        ({"x": "float"}, b"", "JSON Parse error: The document is empty"),
        (
            {"x": "float"},
            b'{"instances": [1e400]}',
            "JSON Parse error: Number too big to be stored in double. at offset: 15",
        ),
        (
            {"x": "float"},
            b'{"instances": [' + b"9" * 5000 + b"]}",
            "JSON Parse error: Number too big to be stored in double. at offset: 15",
        ),
        ({"x": "float"}, b"this is not json", "JSON Parse error: Invalid value. at offset: 0"),
        (
            {"x": "float"},
            b'{"a": [1 2]}',
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 9",
        ),
        (
            {"x": "float"},
            b'{"a": 1 "b": 2}',
            "JSON Parse error: Missing a comma or } after an object member. at offset: 8",
        ),
        ({"x": "float"}, b"{1: 2}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ({"x": "float"}, b'{"a" 2}', "JSON Parse error: Missing a colon after a name of object member. at offset: 5"),
        (
            {"x": "float"},
            b'{"instances": [1]} 1',
            "JSON Parse error: The document root must not be followed by other values. at offset: 19",
        ),
        ({"x": "float"}, b'{"a": "\xff"}', "JSON Parse error: Invalid encoding in string. at offset: 7"),
        ({"x": "float"}, b"[1]", "JSON Value: [\n    1\n] Is not object"),
        (
            {"x": "float"},
            b'{"signature_name": 5}',
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly.'
            " 'signature_name' key must be a string value.",
        ),
        ({"x": "float"}, b"{}", "Missing 'inputs' or 'instances' key"),
        (
            {"x": "float"},
            b'{"inputs": 1, "instances": [1]}',
            'JSON Value: {\n    "inputs": 1,\n    "instances": [\n        1\n    ]\n} Not formatted correctly expecting'
            " only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            {"x": "float"},
            b'{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
        ),
        (
            {"x": "float"},
            b'{"instances": []}',
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            {"a": "float", "b": "float"},
            b'{"instances": [1]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per"
            " tensorinfo_map",
        ),
        (
            {"x": "float"},
            b'{"instances": [{"y": 1}]}',
            "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have"
            " named input: y",
        ),
        (
            {"a": "float", "b": "float"},
            b'{"instances": [{"a": 1}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b",
        ),
        ({"a": "float", "b": "float"}, b'{"inputs": {"a": 1}}', "Missing named input: b in 'inputs' object."),
        (
            {"x": "float"},
            b'{"instances": ["x"]}',
            IN_INSTANCES.format(0) + 'JSON Value: "x" Type: String is not of expected type: float',
        ),
        (
            {"x": "float"},
            b'{"instances": [1, true]}',
            IN_INSTANCES.format(1) + "JSON Value: true Type: True is not of expected type: float",
        ),
        (
            {"x": "float"},
            b'{"instances": [[null]]}',
            IN_INSTANCES.format(0) + "JSON Value: null Type: Null is not of expected type: float",
        ),
        ({"x": "int32"}, b'{"inputs": 1.5}', "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        ({"x": "int32"}, b'{"inputs": [1.0]}', "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        (
            {"x": "int32"},
            b'{"inputs": 2147483648}',
            "JSON Value: 2147483648 Type: Number is not of expected type: int32",
        ),
        ({"x": "uint64"}, b'{"inputs": -1}', "JSON Value: -1 Type: Number is not of expected type: uint64"),
        (
            {"x": "half"},
            b'{"instances": [1]}',
            "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1 to type: half",
        ),
        (
            {"x": "float"},
            b'{"instances": [[1, 2], [1]]}',
            IN_INSTANCES.format(1) + "Expecting tensor size: 2 but got: 1",
        ),
        (
            {"x": "float"},
            b'{"instances": [[1, 2], [[1, 2]]]}',
            IN_INSTANCES.format(1) + "Expecting shape [2] but got: [1,2]",
        ),
        (
            {"x": "float"},
            b'{"inputs": [[1, 2], [3]]}',
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ({"x": "string"}, b'{"inputs": {"b64": "*"}}', "Unable to base64 decode"),
    ],
)
def test_refusals_carry_tf_servings_text(inputs, body, message):
    with pytest.raises(ServingError) as error:
        read(body, **inputs)
    assert error.value.message == message
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.http_status == 400


def test_half_in_columns_is_501():
    with pytest.raises(ServingError) as error:
        read(b'{"inputs": 1}', x="half")
    assert (error.value.http_status, error.value.message) == (501, "Conversion of JSON Value: 1 to type: half")


def test_json_nested_too_deeply_is_refused():
    with pytest.raises(ServingError, match="JSON Parse error"):
        read(b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", x="float")


def test_the_json_is_parsed_before_the_model_is_looked_for():
    def no_model(name):
        raise ServingError(Code.NOT_FOUND, "no such model")

    with pytest.raises(ServingError, match="JSON Parse error"):
        read_predict(b"{", no_model)
    with pytest.raises(ServingError, match="no such model"):
        read_predict(b"{}", no_model)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9e6, "9e+06"),
        (999999.0, "999999.0"),
        (0.5, "0.5"),
        (3e-5, "3e-05"),
        (555557.5, "555557.5"),
        (16777216.0, "16777216.0"),
        (1435774380.0, "1.43577434e+09"),
        (0.1, "0.1"),
        (1 / 3, "0.333333343"),
        (-0.0, "-0.0"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (3.4028234663852886e38, "3.40282347e+38"),
    ],
)
def test_floats_are_written_as_tf_serving_writes_them(value, text):
    assert float_texts(np.array([value], np.float32)) == [text]


def test_every_float32_comes_back_exactly():
    values = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    np.testing.assert_array_equal(np.array([float(text) for text in float_texts(values)], np.float32), values)
    doubles = np.random.default_rng(1).standard_normal(1000)
    assert [float(text) for text in float_texts(doubles)] == doubles.tolist()


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"y": np.array([[1, 2], [3, 4]], np.float32)}, [[1.0, 2.0], [3.0, 4.0]]),
        ({"y": np.array([1, 2], np.int64)}, [1, 2]),
        ({"y": np.zeros((2, 3, 0), np.float32)}, [[[], [], []]] * 2),
        ({"y": np.zeros((0, 3), np.float32)}, []),
        ({"y": np.array([True, False])}, [True, False]),
        ({"y": np.array([[0.5]], np.float16)}, [[0.5]]),
        (
            {"b": np.array([1, 2], np.int32), "a": np.eye(2, dtype=np.float64)},
            [{"a": [1, 0], "b": 1}, {"a": [0, 1], "b": 2}],
        ),
    ],
)
def test_answers_in_both_formats(tensors, expected):
    assert json.loads(write_rows(tensors)) == {"predictions": expected}
    columns = json.loads(write_columns(tensors))["outputs"]
    if len(tensors) == 1:
        assert columns == expected
    else:
        assert columns == {alias: tensor.tolist() for alias, tensor in tensors.items()}


def test_text_is_written_raw_and_bytes_as_base64():
    text = np.array([b'caf\xc3\xa9 "q"', b"\x00"], dtype=object)
    answer = json.loads(write_rows({"text": text, "raw_bytes": text}))
    assert answer["predictions"][0] == {"text": 'café "q"', "raw_bytes": {"b64": "Y2Fmw6kgInEi"}}
    assert answer["predictions"][1] == {"text": "\x00", "raw_bytes": {"b64": "AA=="}}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_answers_that_have_no_row_format(tensors, message):
    with pytest.raises(ServingError) as error:
        write_rows(tensors)
    assert error.value.message == message


def test_a_row_answer_keeps_its_rows_on_one_line():
    assert write_rows({"y": np.array([2.5, 3.0], np.float32)}) == b'{\n    "predictions": [2.5, 3.0\n    ]\n}'
