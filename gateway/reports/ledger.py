"""Reads a run directory: run.json, Parquet (with DuckDB), scrapes. All counting over rows that can be done in SQL is done
here; no statistics, no verdicts and no words for readers. What is missing or broken is listed, not raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.reports.records import GatewayRecords, read_records
from gateway.stats.result import NotComputable
from gateway.stats.schedule import ScheduleCheck, schedule_check

MEMORY_LIMIT = "512MB"
FORCED = ("forced", "block")


@dataclass(frozen=True)
class Window:
    """The measurement window [start, end), wall nanoseconds, and whether run.json told both ends."""

    start_ns: int
    end_ns: int
    told: bool

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class Requests:
    """The ledger's rows in the window, one array a column, shape [n].

    arm, protocol, error: index into the names beside them, -1 for none; error 0 is "ok". unit: hash, 0 for none.
    latency_ms: of an open loop from the time the request was due, and service_ms from its send (None in a closed loop).
    correct: -1 not judged, 0 wrong, 1 right. forced: the arm was not drawn by the weights; sticky: drawn by its unit.
    """

    offset_s: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    arm: NDArray[np.int64]
    protocol: NDArray[np.int64]
    error: NDArray[np.int64]
    unit: NDArray[np.uint64]
    correct: NDArray[np.int64]
    rows: NDArray[np.int64]
    forced: NDArray[np.bool_]
    sticky: NDArray[np.bool_]
    arms: tuple[str, ...]
    protocols: tuple[str, ...]
    errors: tuple[str, ...]
    service_ms: NDArray[np.float64] | None = None

    @property
    def n(self) -> int:
        """Number of requests."""
        return int(self.latency_ms.size)


@dataclass(frozen=True)
class Run:
    """Everything a run directory told."""

    path: Path
    document: Mapping[str, Any]
    window: Window | None
    requests: Requests | None
    records: GatewayRecords | None
    scrapes: Mapping[str, tuple[str, str]]
    resources: Mapping[str, Mapping[str, float]]
    warmup_rows: int = 0
    missing: tuple[str, ...] = field(default=())
    schedule: ScheduleCheck | NotComputable | None = None  # None in a closed loop


def read_run(path: Path) -> Run:
    """Read a run directory; raises ConfigError when the directory holds neither run.json nor a ledger."""
    missing: list[str] = []
    document = _read_document(path, missing)
    if not document and not (path / "ledger").is_dir():
        raise ConfigError([f"{path}: neither run.json nor ledger/ there; give the directory a load test wrote"])
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit='{MEMORY_LIMIT}'; SET threads=2; SET enable_progress_bar=false")
        records = readable(connection, path / "records", missing, "the gateway's records")
        warmup_rows = _load_ledger(connection, readable(connection, path / "ledger", missing, "the ledger"), missing)
        window = _window(connection, document, warmup_rows is not None, missing)
        schedule = _schedule(connection) if warmup_rows is not None else None
        arms = _arm_names(connection, document, warmup_rows is not None)
        in_window = None if window is None else (window.start_ns, window.end_ns)
        model = str((document.get("model") or {}).get("name") or "")
        told = read_records(connection, records, arms, in_window, model, missing)
        requests = _requests(connection, arms, window) if warmup_rows is not None and window is not None else None
        resources = _resources(connection, path / "resources.parquet", window, missing)
    finally:
        connection.close()
    scrapes = _scrapes(path, document, missing)
    return Run(path, document, window, requests, told, scrapes, resources, warmup_rows or 0, tuple(missing), schedule)


def _read_document(path: Path, missing: list[str]) -> dict[str, Any]:
    file = path / "run.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_constant=str)  # NaN is no JSON
    except FileNotFoundError:
        missing.append("run.json: not there, so the profile, versions, machine and parity are unknown")
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        missing.append(f"run.json: cannot be read ({error})")
        return {}
    if not isinstance(document, dict):
        missing.append("run.json: holds no JSON object")
        return {}
    return document


def readable(connection: duckdb.DuckDBPyConnection, folder: Path, missing: list[str], what: str) -> list[str]:
    """Parquet files of a folder that can be opened; a file cut short by a kill is left out and named."""
    files = []
    for file in sorted(folder.glob("*.parquet")):
        try:
            connection.execute("SELECT count(*) FROM parquet_file_metadata(?)", [str(file)]).fetchone()
            files.append(str(file))
        except duckdb.Error:
            missing.append(f"{folder.name}/{file.name}: is no complete Parquet file and was left out")
    if not files:
        missing.append(
            f"{folder.name}/: {what} are missing" if what.endswith("s") else f"{folder.name}/: {what} is missing"
        )
    return files


def _load_ledger(connection: duckdb.DuckDBPyConnection, files: list[str], missing: list[str]) -> int | None:
    """Make the table `ledger` without warm-up rows; returns how many those were, None without a usable ledger."""
    if not files:
        return None
    try:
        named = connection.execute("DESCRIBE SELECT * FROM read_parquet(?, union_by_name=true)", [files]).fetchall()
        # an open loop's requests stand at the time they were due, their latency counts from there
        due = "coalesce(due_ns, send_ns)" if any(row[0] == "due_ns" for row in named) else "send_ns"
        open_loop = due != "send_ns"
        connection.execute(
            f"""CREATE TEMP TABLE ledger AS
            SELECT {due} AS send_ns, latency_ns + send_ns - {due} AS latency_ns,
                   {"send_ns" if open_loop else "NULL::BIGINT"} AS sent_ns,
                   {"latency_ns" if open_loop else "NULL::BIGINT"} AS service_ns,
                   coalesce(protocol, '') AS protocol, coalesce(arm, '') AS arm,
                   coalesce(assignment, '') AS assignment, coalesce(error, '') AS error, rows, correct,
                   CASE WHEN coalesce(unit, '') = '' THEN 0 ELSE hash(unit) END::UBIGINT AS unit,
                   CASE WHEN coalesce(request_id, '') = '' THEN 0 ELSE hash(request_id) END::UBIGINT AS id
            FROM read_parquet(?, union_by_name=true) WHERE NOT coalesce(warmup, false)""",
            [files],
        )
        row = connection.execute(
            "SELECT count(*) FROM read_parquet(?, union_by_name=true) WHERE warmup", [files]
        ).fetchone()
    except duckdb.Error as error:
        missing.append(f"ledger/: cannot be used ({str(error).splitlines()[0]})")
        return None
    return int(row[0]) if row else 0


def _schedule(connection: duckdb.DuckDBPyConnection) -> ScheduleCheck | NotComputable | None:
    """The check of an open loop's schedule; arrivals that were dropped leave the table: nothing was asked of a server."""
    found = connection.execute("SELECT count(service_ns) FROM ledger").fetchone()
    if not found or not found[0]:
        return None
    times = connection.execute("SELECT send_ns, coalesce(sent_ns, -1)::BIGINT AS sent_ns FROM ledger").fetchnumpy()
    connection.execute("DELETE FROM ledger WHERE sent_ns IS NULL")
    due, sent = (np.ma.getdata(times[name]).astype(np.int64) for name in ("send_ns", "sent_ns"))
    return schedule_check(due, sent)


def _window(
    connection: duckdb.DuckDBPyConnection, document: Mapping[str, Any], has_ledger: bool, missing: list[str]
) -> Window | None:
    told = document.get("window") or {}
    start, end = told.get("start_ns"), told.get("end_ns")
    if start is not None and end is not None and end > start:
        if has_ledger:
            connection.execute("DELETE FROM ledger WHERE send_ns < ? OR send_ns >= ?", [start, end])
        return Window(int(start), int(end), True)
    missing.append("run.json window: its end is missing, so the run did not finish; the ledger's own times are used")
    if not has_ledger:
        return None
    row = connection.execute("SELECT min(send_ns), max(send_ns) FROM ledger").fetchone()
    if row is None or row[0] is None:
        return None
    return Window(int(start if start is not None else row[0]), int(row[1]) + 1, False)


def _arm_names(connection: duckdb.DuckDBPyConnection, document: Mapping[str, Any], has_ledger: bool) -> tuple[str, ...]:
    names = list((document.get("arms") or {}).keys())
    if has_ledger:
        seen = connection.execute("SELECT DISTINCT arm FROM ledger WHERE arm <> '' ORDER BY arm").fetchall()
        names += [name for (name,) in seen if name not in names]
    return tuple(names)


def _requests(connection: duckdb.DuckDBPyConnection, arms: tuple[str, ...], window: Window) -> Requests:
    """The window's rows as arrays. A row that got no answer learns its arm from the gateway's record of it."""
    has_records = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'record'").fetchone()
    if has_records and has_records[0]:
        connection.execute(
            """CREATE TEMP TABLE lost AS SELECT l.rowid AS row, any_value(r.arm) AS arm, any_value(r.assignment) AS assignment
            FROM ledger l JOIN record r ON r.id = l.id WHERE l.id <> 0 AND (l.arm = '' OR l.assignment = '') GROUP BY l.rowid"""
        )
        connection.execute(
            """UPDATE ledger SET arm = CASE WHEN ledger.arm = '' THEN lost.arm ELSE ledger.arm END,
            assignment = CASE WHEN ledger.assignment = '' THEN lost.assignment ELSE ledger.assignment END
            FROM lost WHERE ledger.rowid = lost.row"""
        )

    def names(column: str) -> list[str]:
        rows = connection.execute(f"SELECT {column} FROM ledger GROUP BY 1 ORDER BY count(*) DESC, 1").fetchall()
        return [name for (name,) in rows if name]

    protocols, errors = sorted(names("protocol")), ["", *names("error")]
    data = connection.execute(
        """SELECT (send_ns - ?) / 1e9 AS offset_s, latency_ns / 1e6 AS latency_ms, service_ns / 1e6 AS service_ms,
        coalesce(list_position(?, arm), 0)::TINYINT AS arm, coalesce(list_position(?, protocol), 0)::TINYINT AS protocol,
        coalesce(list_position(?, error), 1)::SMALLINT AS error, unit,
        CASE WHEN correct IS NULL THEN -1 WHEN correct THEN 1 ELSE 0 END::TINYINT AS correct,
        coalesce(rows, 0)::INTEGER AS rows, list_contains(?, assignment) AS forced,
        assignment = 'sticky' AND unit <> 0 AS sticky FROM ledger""",
        [window.start_ns, list(arms), protocols, errors, list(FORCED)],
    ).fetchnumpy()
    timed = data["service_ms"].size > 0 and not np.ma.getmaskarray(data["service_ms"]).any()
    plain = {name: np.ma.getdata(column) for name, column in data.items()}
    return Requests(
        offset_s=plain["offset_s"].astype(np.float64),
        latency_ms=plain["latency_ms"].astype(np.float64),
        arm=plain["arm"].astype(np.int64) - 1,
        protocol=plain["protocol"].astype(np.int64) - 1,
        error=plain["error"].astype(np.int64) - 1,
        unit=plain["unit"].astype(np.uint64),
        correct=plain["correct"].astype(np.int64),
        rows=plain["rows"].astype(np.int64),
        forced=plain["forced"].astype(np.bool_),
        sticky=plain["sticky"].astype(np.bool_),
        arms=arms,
        protocols=tuple(protocols),
        errors=tuple(errors),
        service_ms=plain["service_ms"].astype(np.float64) if timed else None,
    )


def _resources(
    connection: duckdb.DuckDBPyConnection, file: Path, window: Window | None, missing: list[str]
) -> dict[str, dict[str, float]]:
    if not file.exists():
        missing.append("resources.parquet: CPU and memory over time are missing")
        return {}
    bounds = (window.start_ns, window.end_ns) if window else (0, 2**62)
    try:
        rows = connection.execute(
            """SELECT role, avg(cpu_cores), max(cpu_cores), avg(rss_bytes), max(rss_bytes), count(*)
            FROM read_parquet(?) WHERE time_ns >= ? AND time_ns < ? GROUP BY role ORDER BY role""",
            [str(file), *bounds],
        ).fetchall()
    except duckdb.Error as error:
        missing.append(f"resources.parquet: cannot be used ({str(error).splitlines()[0]})")
        return {}
    keys = ("mean_cores", "max_cores", "mean_rss_bytes", "max_rss_bytes", "samples")
    return {row[0]: dict(zip(keys, map(float, row[1:]), strict=True)) for row in rows}


def _scrapes(path: Path, document: Mapping[str, Any], missing: list[str]) -> dict[str, tuple[str, str]]:
    texts: dict[str, tuple[str, str]] = {}
    named = document.get("scrapes") or {}
    if not named:
        missing.append("scrapes: the servers' metrics before and after the run are missing")
    for backend, files in named.items():
        pair = []
        for moment in ("before", "after"):
            name = (files or {}).get(moment)
            try:
                pair.append((path / name).read_text(encoding="utf-8", errors="replace") if name else None)
            except OSError:
                pair.append(None)
            if pair[-1] is None:
                missing.append(f"scrapes: {backend}'s metrics {moment} the run are missing")
        if pair[0] is not None and pair[1] is not None:
            texts[backend] = (pair[0], pair[1])
    return texts
