"""A file of evaluation rows -> arrays by name: .npz, or JSON lines with one row a line.

Reading and fitting to the signature's element types live here; which rows are kept and what the names mean is payloads'.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import DTYPES

_LINES = (".jsonl", ".ndjson")


def read(path: Path, signature: Signature | None) -> dict[str, Any]:
    """Arrays by name, first dimension the row; inputs have the signature's datatypes where one is given.

    A line of a .jsonl file is {"<input>": nested list, ..., "label": n} or, for a model with one input, the nested list alone.
    Floats are rounded to the signature's precision, whole numbers converted where none changes. Raises ConfigError.
    """
    arrays = _lines(path, signature) if path.suffix.lower() in _LINES else _npz(path)
    problems: list[str] = []
    for spec in signature.inputs if signature is not None else ():
        wanted = DTYPES.get(spec.datatype)
        if spec.name in arrays and wanted is not None:
            arrays[spec.name] = _fitted(arrays[spec.name], np.dtype(wanted), f"{path}: {spec.name}", problems)
    if problems:
        raise ConfigError(problems)
    return arrays


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError):
            raise ConfigError([f"{path}: cannot be read as an npz file of plain arrays: {error}"]) from error
        raise ConfigError(
            [f"{path}: cannot be read as an npz file of plain arrays; JSON lines need the suffix .jsonl"]
        ) from error


def _lines(path: Path, signature: Signature | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.strip():
                rows.append(_row(json.loads(line), signature, f"{path}:{number}"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}:{len(rows) + 1}: cannot be read as JSON lines: {error}"]) from error
    odd = next((number for number, row in enumerate(rows, 1) if row.keys() != rows[0].keys()), 0)
    if odd:
        raise ConfigError([f"{path}: row {odd} has {sorted(rows[odd - 1])}, the first one has {sorted(rows[0])}"])
    arrays = {}
    for name in rows[0] if rows else ():
        try:
            arrays[name] = np.array([row[name] for row in rows])
        except ValueError as error:
            raise ConfigError([f"{path}: {name!r}: the rows differ in shape, or one is ragged"]) from error
    return arrays


def _row(value: Any, signature: Signature | None, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if signature is not None and len(signature.inputs) == 1:
        return {signature.inputs[0].name: value}
    raise ConfigError([f'{where}: must be an object, {{"<input>": nested list, ...}}'])


def _fitted(array: Any, wanted: np.dtype[Any], where: str, problems: list[str]) -> Any:
    """The array in the wanted type, if its values survive that."""
    if array.dtype == wanted or array.dtype.kind not in "biuf" or wanted.kind not in "biuf":
        return array  # a kind that cannot be sent is told by payloads
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(wanted)
    floats = array.dtype.kind == wanted.kind == "f"
    if floats or np.array_equal(made, array):
        return made
    problems.append(f"{where}: values of {array.dtype} do not survive as the model's {wanted}")
    return array
