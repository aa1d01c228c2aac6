"""A point's files: the job that goes to the generator's process, point.json and requests.parquet that come back.

Here live the formats and nothing that sends or starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from loadtest.job import read
from loadtest.job import replace as write_whole
from loadtest.points.spec import COLUMNS, Load, PointResult, PointSpec, Requests, Segment
from loadtest.targets import Target

JOB, POINT, REQUESTS, LOG = "job.json", "point.json", "requests.parquet", "generator.log"
_PATHS = ("payloads", "signature", "replay")
_STRINGS = ("error", "unit", "arm", "assignment", "request_id")


def spec_document(spec: PointSpec) -> dict[str, Any]:
    """A spec as JSON's values."""
    document = asdict(spec)
    return document | {name: str(document[name]) if document[name] is not None else None for name in _PATHS}


def spec_of(document: Mapping[str, Any]) -> PointSpec:
    """What `spec_document` made."""
    load = dict(document["load"])
    load["course"] = tuple(Segment(**part) for part in load["course"])
    paths = {name: Path(document[name]) if document[name] is not None else None for name in _PATHS}
    changed = {"target": Target(**document["target"]), "load": Load(**load), **paths}
    return PointSpec(**{**document, **changed, "rows": tuple((int(rows), weight) for rows, weight in document["rows"])})


def save_job(spec: PointSpec, folder: Path) -> Path:
    """Write a job into the folder; returns the file."""
    file = folder / JOB
    write_whole(file, spec_document(spec))
    return file


def load_job(file: Path) -> PointSpec:
    """What `save_job` wrote."""
    return spec_of(orjson.loads(file.read_bytes()))


def save_result(result: PointResult) -> None:
    """Write point.json."""
    document = {item.name: getattr(result, item.name) for item in fields(result)}
    del document["folder"]
    document |= {"format": 1, "spec": spec_document(result.spec), "notes": list(result.notes)}
    document |= {"generator_cores": result.generator_cores, "generator_us": result.generator_us}
    write_whole(result.folder / POINT, document)


def load_result(folder: Path) -> PointResult:
    """What a point left in its folder; raises FileNotFoundError where it left none."""
    document = read(folder / POINT)
    if document is None:
        raise FileNotFoundError(f"{folder / POINT}: there is no result of a point")
    known = {item.name for item in fields(PointResult)} - {"folder", "spec", "notes"}
    values = {name: document[name] for name in known}
    return PointResult(folder=folder, spec=spec_of(document["spec"]), notes=tuple(document["notes"]), **values)


def save_requests(requests: Requests, folder: Path, named: Mapping[str, Any] | None = None) -> None:
    """Write requests.parquet, under a temporary name until it is whole; named: further columns (see NAMED)."""
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    arrays: dict[str, Any] = {}
    columns = {name: getattr(requests, name) for name in COLUMNS} | dict(named or {})
    for name, column in columns.items():
        arrays[name] = (
            Array(column.tolist(), DataType.utf8())
            if column.dtype == object
            else Array.from_numpy(np.ascontiguousarray(column))
        )
    file = folder / REQUESTS
    part = file.with_suffix(".part")
    write_parquet(Table(arrays), str(part), compression="zstd(1)")
    part.rename(file)


def load_requests(folder: Path) -> Requests:
    """A point's requests, in order of due time."""
    columns = load_columns(folder)
    return Requests(**{name: columns[name] for name in COLUMNS})


def load_columns(folder: Path) -> dict[str, Any]:
    """Every column a point's file has, by name: those of COLUMNS, and of NAMED where they were kept."""
    from arro3.io import read_parquet

    table = read_parquet(str(folder / REQUESTS)).read_all()
    columns: dict[str, Any] = {}
    for name in table.column_names:
        text = name in _STRINGS
        column = table.column(name)
        columns[name] = np.array(column.to_pylist(), dtype=object) if text else column.to_numpy()
    return columns


def in_window(requests: Requests, start_ns: int, end_ns: int) -> Requests:
    """Only the requests that were due in [start_ns, end_ns)."""
    inside = (requests.due_ns >= start_ns) & (requests.due_ns < end_ns)
    return replace(requests, **{name: getattr(requests, name)[inside] for name in COLUMNS})
