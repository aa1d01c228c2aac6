"""A skeleton proves a shape and nothing more; the numbers of large bodies are the same with simdjson and without."""

import json

import numpy as np
import orjson
import pytest

from gateway.errors import RequestError
from gateway.protocol import json_lists, tfserving_rest
from gateway.protocol.json_skeleton import Skeleton
from gateway.protocol.signature_file import Signature, TensorSpec

IMAGE = Signature(
    "image", "serving_default", (TensorSpec("x", "FP32", (-1, 40, 30, 3)),), (TensorSpec("y", "FP32", (-1, 2)),)
)
VALUES = np.random.default_rng(4).standard_normal((2, 40, 30, 3), np.float32) * np.float32(1e4)


@pytest.mark.parametrize(
    ("inner", "body", "found"),
    [
        ((2,), b'{"instances": [[1, 2], [3, -4e5]]}', ("instances", 2)),
        ((2,), b' {"inputs":[[1,2]]}\n', ("inputs", 1)),
        ((), b'{"instances": [1, 2, 3]}', ("instances", 3)),
        ((), b'{"instances": []}', None),
        ((1,), b'{"instances": [[1], []]}', None),
        ((2,), b'{"instances": [[1, 2], [3]]}', None),
        ((2,), b'{"instances": [[[1, 2]]]}', None),
        ((2,), b'{"instances": [[1, "2"]]}', None),
        ((2,), b'{"instances": [[1, null]]}', None),
        ((2,), b'{"other": [[1, 2]]}', None),
        ((2,), b'{"instances": [[1, 2]], "id": 1}', None),
        ((2,), b'{"instances": [[1, 2],[1, 2],[1, 2],[1, 2]]}', None),  # over the limit of 3
        ((2,), b'{"instances": [[1 2, ]]}', ("instances", 1)),  # no JSON: that is for a parser to say
    ],
)
def test_what_a_skeleton_proves(inner: tuple[int, ...], body: bytes, found: object) -> None:
    assert Skeleton(inner, ("instances", "inputs"), 3).find(body) == found


@pytest.mark.parametrize(
    ("inner", "text", "rows"),
    [
        ((2,), b" [[1, 2], [3, 4]]", 2),
        ((), b"[1]", 1),
        ((), b"[]", 0),
        ((2,), b"[[1, 2], [3, 4]", 0),
        ((2,), b"[[1, 2]]]", 0),
        ((2,), b"[[1, 2], [3]]", 0),
        ((2, 1), b"[[[1], [2]], [[3], []]]", 0),
        ((1,), b'{"x": [[1]]}', 0),
    ],
)
def test_a_bare_list_has_a_skeleton_too(inner: tuple[int, ...], text: bytes, rows: int) -> None:
    assert Skeleton(inner, ("",), 9).find(text) == (("", rows) if rows else None)


def read(body: bytes) -> np.ndarray:
    (tensor,) = tfserving_rest.PredictAsked(body, "image", "", "").request(IMAGE).inputs
    assert (tensor.name, tensor.datatype, tensor.data.dtype) == ("x", "FP32", np.float32)
    return tensor.data


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("indent", [None, 1])
def test_large_bodies_are_read_to_the_last_bit(
    key: str, indent: int | None, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:
        pytest.importorskip("simdjson", reason="the extra fast is not installed")
    else:
        monkeypatch.setattr(json_lists, "simdjson", None)
    body = json.dumps({key: VALUES.tolist()}, indent=indent).encode()
    assert np.array_equal(read(body), VALUES)
    assert np.array_equal(read(orjson.dumps({key: VALUES}, option=orjson.OPT_SERIALIZE_NUMPY)), VALUES)
    with pytest.raises(RequestError):  # one too many in one row
        read(body.replace(b",", b",7,", 1))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (b"1e39", np.inf),  # beyond float32, as TF Serving reads it
        (b"NaN", np.nan),
        (b"-Infinity", -np.inf),
        (b"-0.0", -0.0),
        (b"16777217", 16777216.0),
        (b"123456789012345678901234567890", np.float32(1.2345679e29)),
    ],
)
def test_odd_numbers_of_a_large_body_are_what_they_are_in_a_small_one(number: bytes, value: float) -> None:
    body = orjson.dumps({"instances": VALUES}, option=orjson.OPT_SERIALIZE_NUMPY)
    start = body.index(b"[[[[") + 4
    found = read(body[:start] + number + body[body.index(b",", start) :]).reshape(-1)
    assert np.array_equal(found[:1], np.float32([value]), equal_nan=True)
    assert np.signbit(found[0]) == np.signbit(np.float32(value))
    assert np.array_equal(found[1:], VALUES.reshape(-1)[1:])


NO_NUMBERS = [
    b"1e400", b"9" * 400, b"01", b"+1", b"1.", b".5", b"0x1", b"1 2", b"", b"true", b"null", b'"1"', b"nan",
]  # fmt: skip


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_what_is_no_json_number_is_refused_in_a_large_body_too(number: bytes) -> None:
    body = orjson.dumps({"instances": VALUES}, option=orjson.OPT_SERIALIZE_NUMPY)
    start = body.index(b"[[[[") + 4
    with pytest.raises(RequestError) as refused:
        read(body[:start] + number + body[body.index(b",", start) :])
    assert refused.value.kind == "invalid_argument"
