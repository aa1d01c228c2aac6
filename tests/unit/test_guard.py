"""The guard as a table: bodies that pass with their rows, bodies that do not with their reason."""

from __future__ import annotations

import json

import pytest

from gateway.errors import RequestError
from gateway.protocol.signature import Guard
from gateway.protocol.signature_file import Signature, TensorSpec


def one(datatype: str, *shape: int) -> Signature:
    return Signature("m", "serving_default", (TensorSpec("x", datatype, shape),), (TensorSpec("y", "FP32", (-1, 1)),))


PAIR = Signature(
    "m",
    "serving_default",
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))),
    (TensorSpec("y", "FP32", (-1, 1)),),
)
VECTOR, IMAGE, FLAT = one("FP32", -1, 2), one("FP32", -1, 2, 2, 1), one("FP32", -1)
FREE, INTS, TINY = one("FP32", -1, -1), one("INT64", -1, 2), one("UINT8", -1, 1)
TEXT, FLAGS, SCALAR, FIXED = one("BYTES", -1), one("BOOL", -1), one("FP32"), one("FP32", 2, 2)

PASSES = [
    (VECTOR, '{"instances": [[1.0, 2.0]]}', 1),
    (VECTOR, '{"instances": [[1, -2], [3e-1, 4E2]]}', 2),
    (VECTOR, '{"inputs": [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]}', 3),
    (VECTOR, '{"inputs": {"x": [[1.0, 2.0]]}}', 1),
    (VECTOR, '{"instances": [{"x": [1.0, 2.0]}, {"x": [0, 0]}]}', 2),
    (VECTOR, '{"signature_name": "serving_default", "instances": [[1, 2]]}', 1),
    (VECTOR, '{"signature_name": "", "instances": [[1, 2]]}', 1),
    (VECTOR, ' \n{"instances"\t:[ [1 , 2] ] }\r\n ', 1),
    (VECTOR, '{"instances": [[NaN, Infinity]]}', 1),
    (VECTOR, '{"instances": [[-Infinity, 1e39]]}', 1),
    (VECTOR, '{"unknown": {"deep": ["x"]}, "instances": [[1, 2]]}', 1),
    (VECTOR, '{"inputs": {"x": [[1, 2]], "ignored": "\\"quoted\\""}}', 1),
    (VECTOR, '{"inst\\u0061nces": [[1, 2]]}', 1),
    (VECTOR, '{"instances": [[18446744073709551616, 2]]}', 1),
    (IMAGE, '{"instances": [[[[1], [2]], [[3], [4]]]]}', 1),
    (IMAGE, '{"inputs": [[[[1], [2]], [[3], [4]]], [[[1], [2]], [[3], [4]]]]}', 2),
    (FLAT, '{"instances": [1, 2, 3]}', 3),
    (FREE, '{"instances": [[1, 2, 3], [4, 5, 6]]}', 2),
    (INTS, '{"instances": [[1, -9223372036854775808]]}', 1),
    (TINY, '{"instances": [[0], [255]]}', 2),
    (TEXT, '{"instances": ["a", {"b64": "QUI="}]}', 2),
    (TEXT, '{"instances": [{"b64": "QUI="}]}', 1),
    (TEXT, '{"instances": ["say \\"x\\"", "x"]}', 2),
    (TEXT, '{"instances": [{"x": "a"}]}', 1),
    (FLAGS, '{"instances": [true, false]}', 2),
    (SCALAR, '{"inputs": 1.5}', 1),
    (SCALAR, '{"inputs": {"x": 1.5}}', 1),
    (FIXED, '{"inputs": [[1, 2], [3, 4]]}', 2),
    (PAIR, '{"instances": [{"a": [1, 2], "b": 3}, {"b": 4, "a": [5, 6]}]}', 2),
    (PAIR, '{"inputs": {"b": [3], "a": [[1, 2]]}}', 1),
]

REFUSED = [
    (VECTOR, "", "The document is empty"),
    (VECTOR, "  ", "The document is empty"),
    (VECTOR, "{", "JSON Parse error: Invalid value. at offset: 1"),
    (VECTOR, "nonsense", "JSON Parse error: Invalid value. at offset: 0"),
    (VECTOR, '{"instances": [[1, 2]]} trailing', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, 2]]}{"instances": [[1, 2]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, 2,]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, +2]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1 2, 3]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, 0x2]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, nan]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[,]]}', "JSON Parse error"),
    (VECTOR, '{"instances": [[1, 1e400]]}', "JSON Parse error: Number too big to be stored in double. at offset: 19"),
    (
        VECTOR,
        '{"instances": [[NaN, -1.5e+0309]]}',
        "JSON Parse error: Number too big to be stored in double. at offset: 21",
    ),
    (
        VECTOR,
        '{"instances": [[' + "9" * 250 + "e60, 1]]}",
        "JSON Parse error: Number too big to be stored in double. at offset: 16",
    ),
    (
        VECTOR,
        '{"instances": [[' + "9" * 400 + ", 1]]}",
        "JSON Parse error: Number too big to be stored in double. at offset: 16",
    ),
    (VECTOR, "[1]", "JSON Value: [1] Is not object"),
    (VECTOR, '"text"', 'JSON Value: "text" Is not object'),
    (VECTOR, "{}", "Missing 'inputs' or 'instances' key"),
    (VECTOR, '{"instancs": [[1, 2]]}', "Missing 'inputs' or 'instances' key"),
    (VECTOR, '{"1nstances": [[1, 2]]}', "Missing 'inputs' or 'instances' key"),
    (VECTOR, '{"instances": [[1, 2]], "inputs": [[1, 2]]}', "expecting only one of 'inputs' or 'instances'"),
    (VECTOR, '{"instances": 1}', "Expecting 'instances' to be an list/array"),
    (VECTOR, '{"instances": {"x": [1, 2]}}', "Expecting 'instances' to be an list/array"),
    (VECTOR, '{"instances": []}', "No values in 'instances' array"),
    (FLAT, '{"instances": [ ]}', "No values in 'instances' array"),
    (FLAT, '{"inputs": []}', "input 'x' has no rows"),
    (IMAGE, '{"instances": [[[[ ], [2]], [[3], [4]]]]}', "the list is empty"),
    (VECTOR, '{"inputs": []}', "input 'x' has no rows"),
    (VECTOR, '{"inputs": {"x": []}}', "input 'x' has no rows"),
    (VECTOR, '{"inputs": {}}', "Missing named input: x in 'inputs' object."),
    (VECTOR, '{"inputs": {"y": [[1, 2]]}}', "Missing named input: x in 'inputs' object."),
    (VECTOR, '{"instances": [{"y": [1, 2]}]}', "JSON object: does not have named input: y"),
    (VECTOR, '{"instances": [{"x": [1, 2], "y": 1}]}', "does not have named input: y"),
    (VECTOR, '{"instances": [{}]}', "keys must be equal to: x"),
    (VECTOR, '{"instances": [{"x": [1, 2]}, [1, 2]]}', "Failed to process element: 1 of 'instances' list"),
    (VECTOR, '{"instances": [[1, 2], {"x": [1, 2]}]}', "instances[1]"),
    (VECTOR, '{"signature_name": 1, "instances": [[1, 2]]}', "'signature_name' key must be a string value."),
    (VECTOR, '{"signature_name": "nope", "instances": [[1, 2]]}', '"nope" not found in signature def'),
    (VECTOR, '{"instances": [[1, "2"]]}', 'JSON Value: "2" Type: String is not of expected type: float'),
    (VECTOR, '{"instances": [[1, null]]}', "JSON Value: null Type: Null is not of expected type: float"),
    (VECTOR, '{"instances": [[1, true]]}', "JSON Value: true Type: Boolean is not of expected type: float"),
    (VECTOR, '{"instances": [[1, {}]]}', "Type: Object is not of expected type: float"),
    (VECTOR, '{"instances": [[1]]}', "instances[0] (input 'x'): Expecting tensor size: 2 but got: 1"),
    (VECTOR, '{"instances": [[1, 2], [1, 2, 3]]}', "instances[1] (input 'x'): Expecting tensor size: 2 but got: 3"),
    (VECTOR, '{"inputs": [[1, 2], [1]]}', "input 'x'[1]: Expecting tensor size: 2 but got: 1"),
    (VECTOR, '{"instances": [1, 2]}', "rank is too low"),
    (VECTOR, '{"instances": [[[1], [2]]]}', "rank is too high"),
    (VECTOR, '{"instances": [[1, [2]]]}', "rank is too high"),
    (VECTOR, '{"inputs": 1}', "expecting a list of rows"),
    (IMAGE, '{"instances": [[1, 2, 3, 4]]}', "Expecting tensor size: 2 but got: 4"),
    (IMAGE, '{"instances": [[[[1], [2]], [[3], 4]]]}', "instances[0][1][1]"),
    (IMAGE, '{"instances": [[[[1], [2]], [[3], [4, 5]]]]}', "instances[0][1][1]"),
    (IMAGE, '{"instances": [[[[], [2]], [[3], [4]]]]}', "the list is empty"),
    (FLAT, '{"instances": [[1], [2]]}', "rank is too high"),
    (FREE, '{"instances": [[1, 2, 3], [4, 5]]}', "Expecting tensor size: 3 but got: 2"),
    (FREE, '{"instances": [[], []]}', "the list is empty"),
    (INTS, '{"instances": [[1, 2.0]]}', "is not of expected type: int64"),
    (INTS, '{"instances": [[1, 9223372036854775808]]}', "9223372036854775808 is outside the range of INT64"),
    (INTS, '{"instances": [[1, 1e3]]}', "is not of expected type: int64"),
    (INTS, '{"instances": [[1, NaN]]}', "is not of expected type: int64"),
    (INTS, '{"instances": [[1, true]]}', "is not of expected type: int64"),
    (TINY, '{"instances": [[256]]}', "256 is outside the range of UINT8, 0 to 255"),
    (TINY, '{"instances": [[-1]]}', "-1 is outside the range of UINT8"),
    (TEXT, '{"instances": [1]}', "is not of expected type: string"),
    (TEXT, '{"instances": [{"b64": "Q"}]}', "Unable to base64 decode"),
    (TEXT, '{"instances": ["a", {"b64": 1}]}', "not formatted correctly for base64"),
    (TEXT, '{"instances": ["a", {"b64": "QUI=", "c": ""}]}', "not formatted correctly for base64"),
    (FLAGS, '{"instances": [1, 0]}', "is not of expected type: bool"),
    (SCALAR, '{"instances": [1.5]}', "is a scalar without rows"),
    (SCALAR, '{"inputs": [1.5]}', "rank is too high"),
    (FIXED, '{"inputs": [[1, 2]]}', "expecting 2 rows but got: 1"),
    (PAIR, '{"instances": [[1, 2]]}', "expecting list of objects as multiple input tensors required"),
    (PAIR, '{"inputs": [[1, 2]]}', "multiple input tensors required"),
    (PAIR, '{"instances": [{"a": [1, 2]}]}', "keys must be equal to: a,b"),
    (PAIR, '{"inputs": {"a": [[1, 2]]}}', "Missing named input: b"),
    (PAIR, '{"inputs": {"a": [[1, 2]], "b": [1, 2]}}', "has 2 rows where another input has 1"),
]

TWICE = [
    (VECTOR, '{"instances": [[1, 2]], "instances": [[3, 4]]}'),
    (VECTOR, '{"instances": [[1, 2, 3]], "instances": [[3, 4]]}'),
    (VECTOR, '{"instances": [["evil"]], "inst\\u0061nces": [[3, 4]]}'),
    (VECTOR, '{"instances": [{"x": [[9]], "x": [3, 4]}]}'),
    (VECTOR, '{"inputs": {"x": 1, "x": [[3, 4]]}}'),
    (VECTOR, '{"signature_name": "other", "signature_name": "", "instances": [[3, 4]]}'),
    (VECTOR, '{"a": {"b": 1, "b": 2}, "instances": [[3, 4]]}'),
    (VECTOR, '{"instances": [[1, 2, NaN]], "instances": [[NaN, 4]]}'),
    (TEXT, '{"instances": [{"b64": "QUI=", "b64": "QUI="}]}'),
    (TEXT, '{"instances": ["a\\"\\"", "b"], "instances": ["a\\"\\""]}'),
]


@pytest.mark.parametrize(("signature", "body", "rows"), PASSES)
def test_passes(signature: Signature, body: str, rows: int) -> None:
    assert Guard(signature).check(body.encode()) == rows


@pytest.mark.parametrize(("signature", "body", "message"), REFUSED)
def test_refuses(signature: Signature, body: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Guard(signature).check(body.encode())
    assert caught.value.kind == "invalid_argument"
    assert message in caught.value.message


@pytest.mark.parametrize(("signature", "body"), TWICE)
def test_refuses_a_key_that_is_there_twice(signature: Signature, body: str) -> None:
    """The first value and the last are different requests to different JSON parsers."""
    with pytest.raises(RequestError, match="is there twice in one object"):
        Guard(signature).check(body.encode())


@pytest.mark.parametrize(
    "body", [b'{"instances": [[1, 2]]}\xff', b"\xff\xfe{\x00}\x00", b'\xef\xbb\xbf{"instances": [[1, 2]]}']
)
def test_refuses_what_is_not_utf8_text(body: bytes) -> None:
    with pytest.raises(RequestError, match="JSON Parse error"):
        Guard(VECTOR).check(body)


@pytest.mark.parametrize("depth", [10, 900, 1100, 200_000])
def test_refuses_deep_nesting_without_recursing_into_it(depth: int) -> None:
    with pytest.raises(RequestError):
        Guard(VECTOR).check(b'{"instances": ' + b"[" * depth + b"]" * depth + b"}")
    with pytest.raises(RequestError):
        Guard(VECTOR).check(b'{"instances": [[1, 2]], "a": ' + b"[" * depth)


def test_rows_over_the_limit_are_too_large() -> None:
    guard = Guard(VECTOR, rows_limit=2)
    assert guard.check(b'{"instances": [[1, 2], [1, 2]]}') == 2
    for text in ('{"instances": [[1, 2], [1, 2], [1, 2]]}', '{"inputs": {"x": [[1, 2], [1, 2], [1, 2]]}}'):
        with pytest.raises(RequestError) as caught:
            guard.check(text.encode())
        assert caught.value.kind == "too_large"


def test_types_mode_leaves_rank_and_dimensions_alone() -> None:
    guard = Guard(VECTOR, "types")
    assert guard.check(b'{"instances": [[1, 2, 3], [4, 5, 6]]}') == 2
    assert guard.check(b'{"inputs": [[[1]], [[2]]]}') == 2
    for text in ('{"instances": [["1"]]}', '{"instances": [[1, 2], [3]]}', '{"instances": [[1], 2]}'):
        with pytest.raises(RequestError):
            guard.check(text.encode())


@pytest.mark.parametrize("guard", [Guard(VECTOR, "off"), Guard(None)])
def test_off_reads_nothing(guard: Guard) -> None:
    assert guard.check(b"\x00 anything") == 0


@pytest.mark.parametrize("rows", [1, 2, 7, 500])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_the_fast_way_and_the_slow_way_agree(rows: int, key: str) -> None:
    """Every single-character corruption of a good body is judged alike with and without the skeleton."""
    fast, slow = Guard(IMAGE), Guard(IMAGE)
    slow._skeleton = None
    body = json.dumps({key: [[[[0.5], [-1e-3]], [[3], [4.25]]]] * rows}).encode()
    assert fast.check(body) == slow.check(body) == rows
    for place in range(0, min(len(body), 90)):
        for character in b'[]{},:"0e.- tN':
            changed = body[:place] + bytes([character]) + body[place + 1 :]
            assert judge(fast, changed) == judge(slow, changed), changed


def judge(guard: Guard, body: bytes) -> int | str:
    try:
        return guard.check(body)
    except RequestError as error:
        return error.message
