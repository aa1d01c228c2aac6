"""Long lists of JSON numbers: read at once, the same values as one by one, and everything odd left to the careful way."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.errors import RequestError
from gateway.protocol import json_lists, oip_rest
from gateway.protocol.tensors import DTYPES

pytest.importorskip("simdjson", reason="the extra fast is not installed")

RNG = np.random.default_rng(5)
FLOATS = RNG.standard_normal((40, 50)) * 10.0 ** RNG.integers(-30, 30, (40, 50))


def body(tensor: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", **tensor}], **more}).encode()


def read(text: bytes) -> np.ndarray[Any, Any]:
    return oip_rest.InferAsked(text, None, "m", "").request(None).inputs[0].data


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("BYTES", "BF16", "BOOL")])
@pytest.mark.parametrize("nested", [True, False])
def test_every_bit_is_that_of_one_number_at_a_time(datatype: str, nested: bool) -> None:
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            data = FLOATS.astype(dtype)
        data[~np.isfinite(data)] = 0
    else:
        data = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (40, 50), dtype, endpoint=True)
    text = orjson.dumps(data if nested else data.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
    found = json_lists.numbers(text, (40, 50), dtype)
    assert found is not None
    assert found.dtype == dtype
    assert np.array_equal(found.view(f"u{dtype.itemsize}"), data.view(f"u{dtype.itemsize}"))


def test_doubles_given_for_float32_are_rounded_once() -> None:
    text = json.dumps(FLOATS.tolist(), indent=1).encode()
    with np.errstate(over="ignore"):
        expected = np.array(FLOATS.tolist()).astype("<f4")
    found = json_lists.numbers(text, (40, 50), np.dtype("<f4"))
    assert found is not None
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        (b"[1.0,true]", (2,), "<f4"),
        (b'[1.0,"2"]', (2,), "<f4"),
        (b"[1.0,null]", (2,), "<f4"),
        (b"[1.0,NaN]", (2,), "<f4"),
        (b"[1.0,1e400]", (2,), "<f8"),
        (b"[1.0,01]", (2,), "<f4"),
        (b"[1.0,2 3]", (2,), "<f4"),
        (b"[1.0,2.0]]", (2,), "<f4"),
        (b"[1,2.0]", (2,), "<i8"),
        (b"[1,128]", (2,), "i1"),
        (b"[1,-1]", (2,), "<u8"),
        (b"[1,9223372036854775808]", (2,), "<i8"),
        (b"[[1,2,3],[4]]", (2, 2), "<f4"),
        (b"[[1,2],[[3],4]]", (2, 2), "<f4"),
        (b"[[1,2],3,4,[]]", (4,), "<f4"),
        (b"[1,2,3]", (4,), "<f4"),
        (b"[1,2]", (2**62, 2), "<f4"),
        (b"[]", (0,), "<f4"),
        (b"[true,false]", (2,), "?"),
    ],
)
def test_what_is_not_plain_is_left_to_the_careful_way(text: bytes, shape: tuple[int, ...], dtype: str) -> None:
    assert json_lists.numbers(text, shape, np.dtype(dtype)) is None


def test_lists_are_lifted_out_of_a_body() -> None:
    longs = [json.dumps(list(range(size))).encode() for size in (3000, 2000)]
    text = b'{"a":"}","data" :\n[1],"b":[{"data":%b},{"data": %b ,"c":1}]}' % (longs[0], longs[1])
    lifted = json_lists.lift(text, b'"data"')
    assert lifted is not None
    names = list(lifted.lists)
    assert [lifted.lists[name] for name in names] == longs
    expected = {"a": "}", "data": [1], "b": [{"data": names[0]}, {"data": names[1], "c": 1}]}
    assert json.loads(lifted.rest) == expected
    assert json_lists.lift(b'{"data":[1,2]}', b'"data"') is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([0.5] * 1999 + [None], "element 1999 of 'data' is null"),
        ([0.5] * 1999 + [True], "element 1999 of 'data' is true"),
        ([0.5] * 1999 + ["2"], "element 1999 of 'data' is '2'"),
        ([0.5] * 1998, "dimension 0 has 1998 elements"),
        ([0.5] * 1999 + [[0.5]], "element 1999"),
    ],
)
def test_a_long_list_that_is_wrong_is_told_as_a_short_one_is(data: list[Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read(body({"datatype": "FP32", "shape": [2000], "data": data}))


def test_long_lists_with_nan_and_of_booleans_and_texts_are_read_too() -> None:
    for datatype, value in (("FP32", float("nan")), ("BOOL", True), ("BYTES", "text")):
        found = read(body({"datatype": datatype, "shape": [2000], "data": [value] * 2000}))
        assert found.shape == (2000,)
        assert str(found[7]) == {"FP32": "nan", "BOOL": "True", "BYTES": "b'text'"}[datatype]


def test_nobody_can_name_a_list_that_was_lifted() -> None:
    text = body({"datatype": "FP32", "shape": [2000], "data": [0.5] * 2000})
    first, second = (json_lists.lift(text, b'"data"') for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.lists.keys().isdisjoint(second.lists)


def test_many_keys_without_an_end_cost_no_more_than_their_bytes() -> None:
    text = b'{"inputs":[' + b'"data":[' * 200_000
    started = time.process_time()
    assert json_lists.lift(text, b'"data"') is None
    assert time.process_time() - started < 5


def test_an_outline_tells_a_form_and_leaves_the_numbers_out() -> None:
    long = json.dumps(list(range(3000))).encode()
    text = b'{"signature_name":"s","x":%b,"data":[1],"y": [%b]}' % (long, long)
    outline = json_lists.outline(text, ("instances", "x", "y"))
    assert len(outline) < 200
    document = json.loads(outline)
    assert list(document) == ["signature_name", "x", "data", "y"]
    assert [type(value) for value in document.values()] == [str, str, list, str]
    assert json_lists.outline(b'{"x":[1]}', ("x",)) == b'{"x":[1]}'


def test_a_parser_that_is_kept_keeps_nothing_of_the_text_before() -> None:
    first = json_lists.judged_numbers(b"[1.5,2.5]", (2,), np.dtype("<f8"))
    assert json_lists.judged_numbers(b"[1.5,", (2,), np.dtype("<f8")) is None
    assert json_lists.judged_numbers(b'["a",2.5]', (2,), np.dtype("<f8")) is None
    second = json_lists.judged_numbers(b"[3.5,4.5]", (2,), np.dtype("<f8"))
    assert first is not None
    assert second is not None
    assert [first.tolist(), second.tolist()] == [[1.5, 2.5], [3.5, 4.5]]
    second[0] = 7  # each owns its memory
    assert first.tolist() == [1.5, 2.5]
