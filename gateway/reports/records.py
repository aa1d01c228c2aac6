"""Reads the gateway's records of a run and reduces them to what the report shows, in SQL.

The records of other traffic through the same gateway are left out: a record counts when its request id is in the
ledger's window; where no ids match, the window's time decides and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

TIMES = ("gateway_ns", "codec_ns", "upstream_ns", "queue_ns", "loop_lag_ns")


@dataclass(frozen=True)
class ArmRecords:
    """One arm's records: times in ms by column and statistic, counts by error kind, what its server told of batches.

    batches: requests per batch -> number of batches; batch_rows: rows per batch -> number of batches; told by the
    replies: a batch of b is seen by b requests, so each of them counts 1/b.
    """

    count: int
    times: Mapping[str, Mapping[str, float]]
    error_kinds: Mapping[str, int]
    batches: Mapping[int, float]
    batch_rows: Mapping[int, float]
    batch_told: int
    protocols_out: Mapping[str, int]
    implementations: Mapping[str, int]
    versions: Mapping[str, int]
    bytes_in: float
    bytes_out: float


@dataclass(frozen=True)
class GatewayRecords:
    """All arms' records, and the distinct (unit, phase, assigned arm) rows of sticky assignments, shape [k] each."""

    arms: Mapping[str, ArmRecords]
    joined: bool
    rows: int
    foreign: int
    unrecorded: int
    rerouted: int
    assignments: Mapping[str, int]
    unit: NDArray[np.uint64]
    phase: NDArray[np.int64]
    assigned: NDArray[np.int64]
    assigned_names: tuple[str, ...]


def read_records(
    connection: duckdb.DuckDBPyConnection,
    files: list[str],
    arms: tuple[str, ...],
    window: tuple[int, int] | None,
    model: str,
    missing: list[str],
) -> GatewayRecords | None:
    """Load the run's records into the table `record` and reduce them; None when there is nothing to read.

    Uses the table `ledger` of the same connection where it exists.
    """
    if not files or window is None:
        return None
    try:
        joined, foreign, unrecorded = _load(connection, files, window, model)
        per_arm = {arm: _arm(connection, arm) for arm in arms}
        return _reduce(connection, per_arm, (joined, foreign, unrecorded))
    except duckdb.Error as error:
        missing.append(f"records/: cannot be used ({str(error).splitlines()[0]})")
        connection.execute("DROP TABLE IF EXISTS record")
        return None


def _one(connection: duckdb.DuckDBPyConnection, query: str, values: list[Any] | None = None) -> Any:
    row = connection.execute(query, values or []).fetchone()
    return row[0] if row else None


def _load(
    connection: duckdb.DuckDBPyConnection, files: list[str], window: tuple[int, int], model: str
) -> tuple[bool, int, int]:
    connection.execute(
        """CREATE TEMP TABLE record AS
        SELECT * EXCLUDE (request_id, unit_hash, experiment, time_ns, model), time_ns >= ? AND time_ns < ? AS inside,
            CASE WHEN served_arm <> '' THEN served_arm ELSE assigned_arm END AS arm,
            CASE WHEN request_id = '' THEN 0 ELSE hash(request_id) END::UBIGINT AS id,
            CASE WHEN unit_hash = '' THEN 0 ELSE hash(unit_hash) END::UBIGINT AS unit
        FROM read_parquet(?, union_by_name=true) WHERE ? = '' OR model = ?""",
        [*window, files, model, model],
    )
    has_ledger = _one(connection, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'ledger'")
    mine = 0
    if has_ledger:
        connection.execute(
            """CREATE TEMP TABLE mine AS SELECT id FROM record SEMI JOIN (SELECT id FROM ledger WHERE id <> 0) l USING (id)"""
        )
        mine = _one(connection, "SELECT count(*) FROM mine")
    if not mine:
        connection.execute("DELETE FROM record WHERE NOT inside")
        return False, 0, 0
    foreign = _one(connection, "SELECT count(*) FROM record ANTI JOIN mine USING (id) WHERE inside")
    unrecorded = _one(connection, "SELECT count(*) FROM ledger ANTI JOIN mine USING (id)")
    connection.execute("DELETE FROM record WHERE id NOT IN (SELECT id FROM mine)")
    return True, int(foreign), int(unrecorded)


def _counts(connection: duckdb.DuckDBPyConnection, column: str, where: str, values: list[Any]) -> dict[Any, Any]:
    query = f"SELECT {column}, count(*) FROM record WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1"
    return {name: count for name, count in connection.execute(query, values).fetchall() if name != ""}


def _arm(connection: duckdb.DuckDBPyConnection, arm: str) -> ArmRecords:
    times: dict[str, dict[str, float]] = {}
    for column in TIMES:
        row = connection.execute(
            f"""SELECT count(*), avg({column}) / 1e6, quantile_disc({column}, [0.5, 0.95, 0.99]), max({column}) / 1e6
            FROM record WHERE arm = ? AND {column} >= 0""",
            [arm],
        ).fetchone()
        if row and row[0]:
            p50, p95, p99 = (value / 1e6 for value in row[2])
            times[column] = {"n": row[0], "mean": row[1], "p50": p50, "p95": p95, "p99": p99, "max": row[3]}

    def batches(column: str) -> dict[int, float]:
        # a batch of b requests left b records: each stands for 1/b of a batch, whatever its rows
        rows = connection.execute(
            f"""SELECT {column}, sum(1.0 / batch_size) FROM record
            WHERE arm = ? AND batch_size > 0 AND {column} > 0 GROUP BY 1 ORDER BY 1""",
            [arm],
        ).fetchall()
        return {int(size): float(count) for size, count in rows}

    count, bytes_in, bytes_out, told = connection.execute(
        "SELECT count(*), avg(bytes_in), avg(bytes_out), count(*) FILTER (WHERE batch_size > 0) FROM record WHERE arm = ?",
        [arm],
    ).fetchall()[0]
    return ArmRecords(
        count=int(count),
        times=times,
        error_kinds=_counts(connection, "error_kind", "arm = ?", [arm]),
        batches=batches("batch_size"),
        batch_rows=batches("batch_rows"),
        batch_told=int(told),
        protocols_out=_counts(connection, "protocol_out", "arm = ?", [arm]),
        implementations=_counts(connection, "implementation", "arm = ?", [arm]),
        versions=_counts(connection, "version", "arm = ?", [arm]),
        bytes_in=float(bytes_in or 0.0),
        bytes_out=float(bytes_out or 0.0),
    )


def _reduce(
    connection: duckdb.DuckDBPyConnection, per_arm: dict[str, ArmRecords], join: tuple[bool, int, int]
) -> GatewayRecords:
    joined, foreign, unrecorded = join
    names = [name for (name,) in connection.execute("SELECT DISTINCT assigned_arm FROM record ORDER BY 1").fetchall()]
    distinct = connection.execute(
        """SELECT DISTINCT unit, phase, list_position(?, assigned_arm) - 1 AS arm FROM record
        WHERE assignment = 'sticky' AND unit <> 0 AND assigned_arm <> ''""",
        [names],
    ).fetchnumpy()
    plain = {name: np.ma.getdata(column) for name, column in distinct.items()}
    return GatewayRecords(
        arms=per_arm,
        joined=joined,
        rows=int(_one(connection, "SELECT count(*) FROM record")),
        foreign=foreign,
        unrecorded=unrecorded,
        rerouted=int(
            _one(connection, "SELECT count(*) FROM record WHERE served_arm <> '' AND served_arm <> assigned_arm")
        ),
        assignments=_counts(connection, "assignment", "true", []),
        unit=plain["unit"].astype(np.uint64),
        phase=plain["phase"].astype(np.int64),
        assigned=plain["arm"].astype(np.int64),
        assigned_names=tuple(names),
    )
