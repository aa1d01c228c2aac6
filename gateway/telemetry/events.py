"""The record: one flat row a request, in the order its columns are stored.

PURE: the shape of a row and nothing else. Queueing, files and Parquet live in telemetry/recorder.py.
"""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """One request as it was served. Times in nanoseconds; -1 where a server told nothing; "" where nothing applies."""

    time_ns: int
    request_id: str
    experiment: str
    phase: int
    assigned_arm: str
    served_arm: str
    assignment: str
    unit_hash: str
    protocol_in: str
    protocol_out: str
    model: str
    version: str
    implementation: str
    status: int
    error_kind: str
    rows: int
    bytes_in: int
    bytes_out: int
    gateway_ns: int
    codec_ns: int
    upstream_ns: int
    loop_lag_ns: int
    batch_size: int
    batch_rows: int
    queue_ns: int


STRING_COLUMNS = frozenset(
    name
    for name, kind in Record.__annotations__.items()
    if kind in ("str", str) or getattr(kind, "__forward_arg__", "") == "str"
)
INT32_COLUMNS = frozenset({"phase", "status", "rows", "batch_size", "batch_rows"})
