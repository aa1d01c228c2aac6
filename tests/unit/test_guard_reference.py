"""The guard against a plain reading of its rules: any body is judged alike by both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RequestError
from gateway.protocol.signature import Guard
from gateway.protocol.signature_file import Signature, TensorSpec

SHAPES = [(-1, 2), (-1, 2, 1), (-1,), (-1, -1), (-1, 1, 2)]

numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.just(0), st.just(-0.0))
odd = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.just({}), st.just([]), st.just({"x": [1, 2]}))
leaves = st.one_of(numbers, numbers, numbers, odd)
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


def regular(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Lists of a shape, -1 being one to three, with numbers in them."""
    if not shape:
        return numbers
    size = {"min_size": 1, "max_size": 3} if shape[0] < 0 else {"min_size": shape[0], "max_size": shape[0]}
    return st.lists(regular(shape[1:]), **size)


def plainly(value: Any, shape: tuple[int, ...]) -> bool:
    """Is this a tensor of floats of the shape?"""
    sizes: list[set[int]] = [set() for _ in shape]

    def walk(part: Any, depth: int) -> bool:
        if depth == len(shape):
            return type(part) in (int, float)
        if type(part) is not list or not part or shape[depth] not in (-1, len(part)):
            return False
        sizes[depth].add(len(part))
        return all(walk(inner, depth + 1) for inner in part)

    return walk(value, 0) and all(len(seen) == 1 for seen in sizes)


def judged(guard: Guard, body: bytes) -> int:
    """Rows, or -1 for a refusal."""
    try:
        return guard.check(body)
    except RequestError:
        return -1


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_and_columns_are_judged_as_the_rules_say(shape: tuple[int, ...], data: st.DataObject) -> None:
    signature = Signature("m", "s", (TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", (-1, 1)),))
    value = data.draw(st.one_of(nested, regular(shape), regular((*shape, 1)), regular(shape[:-1])))
    expected = len(value) if plainly(value, shape) else -1
    spaces = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    guard = Guard(signature)
    named = type(value) is list and any(type(row) is dict for row in value)
    if not named:
        body = json.dumps({"instances": value}, separators=spaces).encode()
        assert judged(guard, body) == expected
    if type(value) is not dict:
        assert judged(guard, json.dumps({"inputs": value}, separators=spaces).encode()) == expected
    assert judged(guard, json.dumps({"inputs": {"x": value}}, separators=spaces).encode()) == expected
    if type(value) is list and value:
        rows = [{"x": row} for row in value]
        assert judged(guard, json.dumps({"instances": rows}, separators=spaces).encode()) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_rows_or_a_refusal(body: bytes) -> None:
    signature = Signature("m", "s", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))
    for mode in ("strict", "types"):
        for text in (body, b'{"instances":' + body + b"}", b'{"instances":[[1,' + body + b"]]}"):
            assert judged(Guard(signature, mode), text) >= -1  # type: ignore[arg-type]
