"""The guard: may these JSON predict bytes reach a server? Judged by the model's signature, before anything is forwarded.

PURE. The bytes are parsed to look at them and are never changed, coerced or copied: what passes is what the client sent.
Two parsers must not read one body differently (RapidJSON keeps the first of two equal keys, orjson the last), so duplicate
keys are refused: in a body without them there are exactly two quote characters for each string that was parsed; only
where the count differs does a slower parser look at every object's keys.
Knows neither servers nor wire formats other than TF Serving's row ("instances") and column ("inputs") JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, Literal, NamedTuple

import orjson

from gateway.errors import RequestError
from gateway.protocol.json_skeleton import Skeleton
from gateway.protocol.json_strict import find_duplicate, parse_lenient
from gateway.protocol.signature_faults import (
    bad_b64,
    both_formats,
    element_fault,
    level_fault,
    missing_column,
    neither_format,
    row_names_fault,
    show,
)
from gateway.protocol.signature_file import Signature, TensorSpec

Mode = Literal["strict", "types", "off"]

_LIST = {list}
_DICT = {dict}
_FLOATS = frozenset({float, int})
_ALLOWED: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    "FP16": _FLOATS,
    "BF16": _FLOATS,
    "FP32": _FLOATS,
    "FP64": _FLOATS,
    "BYTES": frozenset({str, dict}),
}
_INT = frozenset({int})


class Checked(NamedTuple):
    """A body that passed: rows, the format it came in, and each input's nested lists as they were parsed."""

    rows: int
    column: bool
    blocks: dict[str, Any]


class _Input:
    """One input's checks, compiled: what elements may be, how long each level is."""

    __slots__ = ("allowed", "fixed_rows", "high", "inner", "low", "name", "scalar", "spec", "strings")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.inner = spec.shape[1:]
        self.scalar = not spec.shape
        self.fixed_rows = spec.shape[0] if spec.shape and spec.shape[0] >= 0 else -1
        self.allowed = _ALLOWED.get(spec.datatype, _INT)
        self.strings = spec.datatype == "BYTES"
        self.low, self.high = _range(spec.datatype)

    def plain(self) -> bool:
        """Floats, any number of rows, every other dimension known: what a skeleton can prove."""
        return not self.scalar and self.fixed_rows < 0 and self.allowed is _FLOATS and Skeleton.fits(self.inner)


def _range(datatype: str) -> tuple[int, int]:
    if datatype.startswith("UINT"):
        return 0, (1 << int(datatype[4:])) - 1
    if datatype.startswith("INT"):
        half = 1 << (int(datatype[3:]) - 1)
        return -half, half - 1
    return 0, 0


class Guard:
    """Judges predict bodies of one signature.

    mode strict: names, element types, rank, fixed dimensions, rectangular lists, rows; types: all but rank and dimensions;
    off: nothing is read, and the number of rows stays unknown (0). rows_limit bounds the batch.
    """

    __slots__ = (
        "_inputs",
        "_mode",
        "_names",
        "_rows_limit",
        "_signature_name",
        "_single",
        "_skeleton",
        "check",
    )

    def __init__(self, signature: Signature | None, mode: Mode = "strict", rows_limit: int = 1024) -> None:
        if signature is None:
            mode = "off"
        self._mode = mode
        self._rows_limit = rows_limit
        self._inputs = [_Input(spec) for spec in signature.inputs] if signature else []
        self._names = sorted(spec.name for spec in self._inputs)
        self._signature_name = signature.signature_name if signature else ""
        self._single = self._inputs[0] if len(self._inputs) == 1 else None
        self._skeleton: Skeleton | None = None
        if mode == "strict" and self._single is not None and self._single.plain():
            self._skeleton = Skeleton(self._single.inner, ("instances", "inputs"), rows_limit)
        self.check: Callable[[bytes], int] = self._off if mode == "off" else self._rows
        """Rows of a body that may pass; RequestError (invalid_argument, too_large) says what is wrong with any other."""

    @staticmethod
    def _off(_body: bytes) -> int:
        return 0

    def _rows(self, body: bytes) -> int:
        """The common bodies first: one float input of known dimensions, {"instances": [...]} or {"inputs": [...]}.

        Their skeleton proves all but that they are JSON: that is what is left to find out.
        """
        found = self._skeleton.find(body) if self._skeleton is not None else None
        if found is not None:
            key, rows = found
            try:
                if key in orjson.loads(body):
                    return rows
            except orjson.JSONDecodeError:
                pass
        return self.parse(body).rows

    def parse(self, body: bytes) -> Checked:
        """Judge a body and keep what was parsed, for a codec that goes on with it. Raises RequestError as `check` does."""
        try:
            doc = orjson.loads(body)
            sure = False
        except orjson.JSONDecodeError:
            doc, sure = parse_lenient(body), True
        if type(doc) is not dict:
            raise RequestError("invalid_argument", f"JSON Value: {show(doc)} Is not object")
        strings = len(doc) + self._signature(doc)
        column = "inputs" in doc
        if column == ("instances" in doc):
            raise both_formats(doc) if column else neither_format()
        if column:
            blocks, more = self._columns(doc["inputs"])
        else:
            blocks, more = self._instances(doc["instances"])
        rows, texts = self._tensors(blocks, column)
        if not sure and body.count(b'"') != 2 * (strings + more + texts):
            find_duplicate(body)
        return Checked(rows, column, blocks)

    def _signature(self, doc: dict[str, Any]) -> int:
        """Check "signature_name"; how many strings its value is."""
        if "signature_name" not in doc:
            return 0
        name = doc["signature_name"]
        if type(name) is not str:
            raise RequestError(
                "invalid_argument",
                f"JSON Value: {show(doc)} not formatted correctly. 'signature_name' key must be a string value.",
            )
        if name not in ("", self._signature_name):
            raise RequestError("invalid_argument", f'Serving signature name: "{name}" not found in signature def')
        return 1

    def _instances(self, rows: Any) -> tuple[dict[str, Any], int]:
        """Row format -> every input's rows; and how many keys the rows hold."""
        if type(rows) is not list:
            raise RequestError("invalid_argument", "Expecting 'instances' to be an list/array")
        if not rows:
            raise RequestError("invalid_argument", "No values in 'instances' array")
        if type(rows[0]) is not dict or (self._single is not None and _bare_b64(self._single, rows[0])):
            if self._single is None:
                raise RequestError(
                    "invalid_argument",
                    "instances is a plain list, but expecting list of objects as multiple input tensors required "
                    "as per tensorinfo_map",
                )
            return {self._single.name: rows}, 0
        names = self._names
        if {*map(type, rows)} != _DICT or any(sorted(keys) != names for keys in {*map(tuple, rows)}):
            raise row_names_fault(rows, names)
        return {spec.name: [row[spec.name] for row in rows] for spec in self._inputs}, len(rows) * len(names)

    def _columns(self, value: Any) -> tuple[dict[str, Any], int]:
        """Column format -> every input's tensor; and how many keys the object holds. TF Serving ignores unknown ones."""
        single = self._single
        if type(value) is not dict or (single is not None and _bare_b64(single, value)):
            if single is None:
                raise RequestError(
                    "invalid_argument",
                    "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                    "as per tensorinfo_map",
                )
            return {single.name: value}, 0
        for spec in self._inputs:
            if spec.name not in value:
                raise missing_column(spec.name)
        return {spec.name: value[spec.name] for spec in self._inputs}, len(value)

    def _tensors(self, blocks: dict[str, Any], column: bool) -> tuple[int, int]:
        """Check every input; rows of the request and how many strings its elements hold."""
        rows, texts = -1, 0
        for spec in self._inputs:
            block = blocks[spec.name]
            if column and (spec.scalar if self._mode == "strict" else type(block) is not list):
                texts += self._elements(spec, [block], (), column)
                continue
            if type(block) is not list:
                raise RequestError(
                    "invalid_argument",
                    f"input {spec.name!r}: expecting a list of rows, shape {show(list(spec.spec.shape))}, but got: "
                    f"{show(block)}",
                )
            size = len(block)
            self._batch(spec, size, rows)
            rows = size if rows < 0 or spec.fixed_rows < 0 else rows
            texts += self._tensor(spec, block, column)
        return (1 if rows < 0 else rows), texts

    def _batch(self, spec: _Input, size: int, rows: int) -> None:
        if size == 0:
            raise RequestError("invalid_argument", f"input {spec.name!r} has no rows; send at least one")
        if size > self._rows_limit:
            raise RequestError(
                "too_large",
                f"{size} rows in one request; the limit is {self._rows_limit}: send them in several requests",
            )
        if self._mode != "strict":
            return
        if spec.scalar:
            raise RequestError("invalid_argument", f"input {spec.name!r} is a scalar without rows: send it in 'inputs'")
        if spec.fixed_rows >= 0:
            if size != spec.fixed_rows:
                raise RequestError(
                    "invalid_argument", f"input {spec.name!r}: expecting {spec.fixed_rows} rows but got: {size}"
                )
        elif rows not in (-1, size):
            raise RequestError(
                "invalid_argument", f"input {spec.name!r} has {size} rows where another input has {rows}"
            )

    def _tensor(self, spec: _Input, block: list[Any], column: bool) -> int:
        """Walk the levels down to the elements, one pass in C each; strings among the elements are counted."""
        whole = block
        depth = 1
        strict = self._mode == "strict"
        while depth <= len(spec.inner) if strict else type(block[0]) is list:
            size = spec.inner[depth - 1] if strict else -1
            if {*map(type, block)} != _LIST:
                raise level_fault(spec.spec, whole, depth, column)
            sizes = {*map(len, block)}
            if len(sizes) != 1 or 0 in sizes or size not in (-1, *sizes):
                raise level_fault(spec.spec, whole, depth, column)
            block = [*chain.from_iterable(block)]
            depth += 1
        return self._elements(spec, block, whole, column)

    def _elements(self, spec: _Input, flat: list[Any], whole: Any, column: bool) -> int:
        kinds = {*map(type, flat)}
        if not kinds <= spec.allowed:
            raise element_fault(spec.spec, whole or flat, spec.allowed, column)
        if spec.strings:
            return _texts(spec, flat)
        if spec.high and (min(flat) < spec.low or max(flat) > spec.high):
            bad = next(value for value in flat if not spec.low <= value <= spec.high)
            raise RequestError(
                "invalid_argument",
                f"input {spec.name!r}: JSON Value: {bad} is outside the range of {spec.spec.datatype}, "
                f"{spec.low} to {spec.high}",
            )
        return 0


def _bare_b64(spec: _Input, value: dict[str, Any]) -> bool:
    """Is this object one BYTES element, {"b64": ...}, rather than an object of inputs?"""
    return spec.strings and len(value) == 1 and "b64" in value and spec.name != "b64"


def _texts(spec: _Input, flat: list[Any]) -> int:
    """Check BYTES elements, plain strings or {"b64": ...}; how many strings they are in the text."""
    count = 0
    for element in flat:
        count += 1
        if type(element) is dict:
            count += 1
            bad_b64(spec.spec, element)
    return count
