"""Evaluation inputs a user gives: an .npz file or JSON lines, checked against the signature.

Here live reading and the check; every problem is told at once, with its place.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature, TensorSpec
from model_store import arrays

# before the name of an output: what the right answer to the inputs is
OUT = "out:"
_MOST_PROBLEMS = 10


def read(path: Path, signature: Signature) -> dict[str, NDArray[Any]]:
    """Read inputs from `path`: .npz (one array per input, rows first), or .jsonl (one row a line).

    A line is {"input name": nested list, ...} or, for a model with one input, the nested list alone; text and {"b64": ...} are
    bytes. Numbers are converted to the signature's datatype, floats by rounding, whole numbers only where none changes; an .npz may
    also hold `label`, `split` and `out:<output>`. Raises ConfigError with every problem.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".jsonl", ".ndjson"):
        raise ConfigError(
            [f"{path}: inputs must be an .npz file or JSON lines (.jsonl), not {suffix or 'a file without suffix'}"]
        )
    try:
        found = _read_npz(path, signature) if suffix == ".npz" else _read_lines(path, signature)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    check(found, signature, str(path))
    return _kept(found, signature, str(path))


def _kept(found: Mapping[str, NDArray[Any]], signature: Signature, source: str) -> dict[str, NDArray[Any]]:
    """The inputs, and of what else a file may hold only `label` and `split` (integers) and `out:<output>`, one per row."""
    rows = len(found[signature.inputs[0].name])
    extras = dict.fromkeys(("label", "split"), "iu") | {OUT + spec.name: "biufO" for spec in signature.outputs}
    kept = {spec.name: found[spec.name] for spec in signature.inputs}
    problems: list[str] = []
    for name, kinds in extras.items():
        if name not in found or name in kept:
            continue
        array = found[name]
        if array.dtype.kind not in kinds or not array.ndim or len(array) != rows or (kinds == "iu" and array.ndim != 1):
            problems.append(
                f"{source}: {name!r} is {array.dtype} {list(array.shape)}; one entry per input ({rows}) is right"
            )
        kept[name] = array
    if problems:
        raise ConfigError(problems)
    return kept


def check(found: Mapping[str, NDArray[Any]], signature: Signature, source: str) -> None:
    """Raise ConfigError unless every input is there with the signature's datatype and shape and the same number of rows."""
    problems: list[str] = []
    counts: dict[str, int] = {}
    for spec in signature.inputs:
        array = found.get(spec.name)
        if array is None:
            names = ", ".join(repr(name) for name in found) or "nothing"
            problems.append(f"{source}: no input {spec.name!r}; the file has {names}")
            continue
        if array.dtype != np.dtype(arrays.DTYPES.get(spec.datatype, np.void)):
            problems.append(f"{source}: input {spec.name!r} is {array.dtype} where {spec.datatype} is right")
        if not _fits(array.shape, spec.shape):
            problems.append(
                f"{source}: input {spec.name!r} has shape {list(array.shape)} where {list(spec.shape)} is right"
            )
        elif array.ndim:
            counts[spec.name] = len(array)
    if len(set(counts.values())) > 1:
        problems.append(f"{source}: the inputs differ in their number of rows: {counts}")
    elif counts and not next(iter(counts.values())):
        problems.append(f"{source}: there are no rows")
    if problems:
        raise ConfigError(problems)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """The first dimension is the batch: evaluation inputs bring many rows even where a model takes a fixed number."""
    return len(shape) == len(wanted) >= 1 and all(
        want in (-1, got) for got, want in zip(shape[1:], wanted[1:], strict=True)
    )


def _read_npz(path: Path, signature: Signature) -> dict[str, NDArray[Any]]:
    try:
        found = arrays.load(path)
    except OSError:
        raise
    except Exception as error:  # numpy raises what zipfile, zlib and its own reader raise
        raise ConfigError([f"{path}: is not an .npz file of plain arrays: {error}"]) from error
    problems: list[str] = []
    for spec in signature.inputs:
        if spec.name in found:
            found[spec.name] = _converted(found[spec.name], spec, str(path), problems)
    if problems:
        raise ConfigError(problems)
    return found


def _read_lines(path: Path, signature: Signature) -> dict[str, NDArray[Any]]:
    rows: dict[str, list[NDArray[Any]]] = {spec.name: [] for spec in signature.inputs}
    problems: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip() or len(problems) >= _MOST_PROBLEMS:
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(f"{where}: is not JSON: {error}")
            continue
        row = row if isinstance(row, dict) and "b64" not in row else _bare(row, signature)
        if set(row) != set(rows):
            problems.append(f"{where}: has {sorted(row)} where the inputs {sorted(rows)} are right")
            continue
        for spec in signature.inputs:
            _append_row(rows[spec.name], row[spec.name], spec, where, problems)
    if problems:
        raise ConfigError(problems)
    empty = {spec.name: np.zeros((0, *(max(d, 0) for d in spec.shape[1:]))) for spec in signature.inputs}
    return {name: np.stack(parts) if parts else empty[name] for name, parts in rows.items()}


def _bare(row: Any, signature: Signature) -> dict[str, Any]:
    return {signature.inputs[0].name: row} if len(signature.inputs) == 1 else {"a bare list": row}


def _append_row(rows: list[NDArray[Any]], value: Any, spec: TensorSpec, where: str, problems: list[str]) -> None:
    try:
        array = np.array(_bytes(value), np.object_) if spec.datatype == "BYTES" else np.array(value)
    except ValueError:
        problems.append(f"{where}: input {spec.name!r} is ragged: its lists differ in length")
        return
    before = len(problems)
    array = _converted(array, spec, where, problems)
    if len(problems) > before:
        return
    if not _fits((1, *array.shape), spec.shape) or (rows and rows[0].shape != array.shape):
        wanted = list(rows[0].shape if rows else spec.shape[1:])
        problems.append(f"{where}: input {spec.name!r} has shape {list(array.shape)} where {wanted} is right for a row")
        return
    rows.append(array)


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, str):
        return value.encode()
    raise ValueError(f"{value!r} is neither text nor bytes")


def _converted(array: NDArray[Any], spec: TensorSpec, where: str, problems: list[str]) -> NDArray[Any]:
    """The array in the signature's datatype, or a problem when a value would change its meaning on the way."""
    dtype = arrays.DTYPES.get(spec.datatype)
    if dtype is None:
        problems.append(f"{where}: input {spec.name!r} is {spec.datatype}, which numpy files cannot hold")
        return array
    if spec.datatype == "BYTES":
        if array.dtype.kind in "SU":
            values = np.empty(array.size, np.object_)
            values[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
            return values.reshape(array.shape)
        return array
    kind, wanted = array.dtype.kind, np.dtype(dtype).kind
    numeric = kind in "iuf" and wanted in "iuf"
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(dtype) if numeric else array
    if numeric and wanted == "f" and np.array_equal(np.isfinite(array), np.isfinite(converted)):
        return converted
    if numeric and wanted != "f" and kind != "f" and np.array_equal(array, converted):
        return converted
    problems.append(f"{where}: input {spec.name!r} is {array.dtype} where {spec.datatype} is right")
    return array
