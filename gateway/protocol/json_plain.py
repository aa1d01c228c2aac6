"""Long TF Serving JSON of numbers, requests and answers, read without Python's lists whatever stands around the numbers.

PURE. The long lists are lifted out of the text (`json_lists`); what is left is small and read strictly, duplicate keys
refused. Only forms beyond doubt are read here: {"<key>": [...]} or {"<key>": {"<name>": [...], ...}}, beside it at most
"signature_name". For anything else the answer is None: the caller reads as ever, and tells errors there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.errors import RequestError
from gateway.protocol import json_lists
from gateway.protocol.json_skeleton import Skeleton
from gateway.protocol.json_strict import parse_lenient
from gateway.protocol.signature_file import TensorSpec
from gateway.protocol.tensors import DTYPES

_KINDS = frozenset("fiu")
_DOUBLE = np.dtype("f8")
_ANY_ROWS = 1 << 31
_SIGNATURE_NAME = "signature_name"


class Plain(NamedTuple):
    """The key the numbers stood under, and an array for every name: floats as float64, integers in their own type."""

    key: str
    arrays: dict[str, npt.NDArray[Any]]


def read(body: bytes, specs: tuple[TensorSpec, ...], keys: tuple[str, ...], signature_name: str) -> Plain | None:
    """The numbers of every spec, shapes (rows, *spec.shape[1:]), under one of the keys; None where this way cannot read them."""
    if not specs or not all(_plain(spec) for spec in specs):
        return None
    for lifted in _lifts(body, keys, [spec.name for spec in specs]):
        found = _under(lifted.rest, keys, signature_name)
        if found is None:
            continue
        key, value = found
        values = value if type(value) is dict else {specs[0].name: value} if len(specs) == 1 else {}
        arrays = _arrays(values, specs, lifted.lists)
        return None if arrays is None else Plain(key, arrays)
    return None


def _plain(spec: TensorSpec) -> bool:
    """Numbers, any number of rows, every other dimension known."""
    return spec.shape[:1] == (-1,) and Skeleton.fits(spec.shape[1:]) and _kept(spec).kind in _KINDS


def _kept(spec: TensorSpec) -> np.dtype[Any]:
    """The type numbers are read into: doubles for every float, which the caller rounds."""
    return _DOUBLE if spec.datatype == "BF16" or spec.datatype.startswith("FP") else DTYPES[spec.datatype]


def _lifts(body: bytes, keys: tuple[str, ...], names: list[str]) -> Iterator[json_lists.Lifted]:
    """The body without the long list under a key; and without those of every name, one after the other, each there once."""
    for key in keys:
        lifted = json_lists.lift(body, b'"%b"' % key.encode())
        if lifted is not None:
            yield lifted
    lists: dict[str, bytes] = {}
    for name in names:
        lifted = json_lists.lift(body, b'"%b"' % name.encode())
        if lifted is None or len(lifted.lists) > 1:
            return
        body = lifted.rest
        lists |= lifted.lists
    yield json_lists.Lifted(body, lists)


def _under(text: bytes, keys: tuple[str, ...], signature_name: str) -> tuple[str, Any] | None:
    """The one of the keys that is there and what stands under it, where nothing else does but the name of this signature."""
    if len(text) >= json_lists.LONG:
        return None
    try:
        document = parse_lenient(text)
    except RequestError:
        return None
    if type(document) is not dict:
        return None
    name = document.pop(_SIGNATURE_NAME, "")
    if type(name) is not str or name not in ("", signature_name) or len(document) != 1:
        return None
    ((key, value),) = document.items()
    return (key, value) if key in keys else None


def _arrays(
    values: dict[str, Any], specs: tuple[TensorSpec, ...], lists: dict[str, bytes]
) -> dict[str, npt.NDArray[Any]] | None:
    if set(values) != {spec.name for spec in specs}:
        return None
    arrays: dict[str, npt.NDArray[Any]] = {}
    for spec in specs:
        mark = values[spec.name]
        text = lists.get(mark) if type(mark) is str else None
        array = None if text is None else _array(text, spec)
        if array is None:
            return None
        arrays[spec.name] = array
    return arrays


def _array(text: bytes, spec: TensorSpec) -> npt.NDArray[Any] | None:
    """The array in a nested list, whose rows its skeleton tells."""
    inner = spec.shape[1:]
    found = _skeleton(inner).find(text)
    return None if found is None else json_lists.judged_numbers(text, (found[1], *inner), _kept(spec))


@lru_cache(maxsize=64)
def _skeleton(inner: tuple[int, ...]) -> Skeleton:
    return Skeleton(inner, ("",), _ANY_ROWS)
