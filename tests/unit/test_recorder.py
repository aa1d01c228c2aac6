"""The recorder's files and counts, on a real disk under tmp_path."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from arro3.core import DataType
from arro3.io import read_parquet

from gateway.errors import ConfigError
from gateway.telemetry.events import Record
from gateway.telemetry.journal import Journal, orphans, read
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.unit_hash import load_key, unit_hash

KEY = bytes(range(32))


def record(number: int, unit: str = "user-1", request_id: str = "") -> Record:
    return Record(
        time_ns=1_700_000_000_000_000_000 + number,
        request_id=request_id or f"r{number}",
        experiment="e",
        phase=3,
        assigned_arm="a",
        served_arm="b",
        assignment="sticky",
        unit_hash=unit,
        protocol_in="tfs-rest",
        protocol_out="torchserve-http",
        model="m",
        version="1",
        implementation="TorchServe 0.12.0",
        status=200,
        error_kind="",
        rows=1,
        bytes_in=2**40,
        bytes_out=10,
        gateway_ns=11,
        codec_ns=12,
        upstream_ns=13,
        loop_lag_ns=14,
        batch_size=-1,
        batch_rows=-1,
        queue_ns=-1,
    )


def row(number: int, unit: str = "user-1", request_id: str = "") -> tuple[Any, ...]:
    return tuple(record(number, unit, request_id))


def rows_of(paths: list[Path]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for path in paths:
        table = read_parquet(path).read_all()
        columns = {name: table.column(name).to_pylist() for name in table.schema.names}
        rows.extend(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return rows


def test_a_flushed_record_is_in_a_segment_as_it_was_put_but_for_its_unit(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1 << 30, KEY)
    recorder.start()
    for number in range(200):
        recorder.put(row(number, unit="" if number == 7 else "user-1"))
    segments = recorder.flush()
    recorder.close()
    rows = rows_of(segments)
    expected = [record(n)._replace(unit_hash=unit_hash("user-1", KEY))._asdict() for n in range(200)]
    expected[7]["unit_hash"] = ""
    assert rows == expected
    assert recorder.stats()["written"] == 200
    assert recorder.assignments == {("m", "e", "b", "sticky"): 200}
    assert recorder.dropped == 0
    assert list((tmp_path / "journal").iterdir()) == []
    assert b"user-1" not in segments[0].read_bytes()


def test_the_columns_have_the_types_the_report_reads(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1 << 30, KEY)
    recorder.start()
    recorder.put(row(1))
    fields = read_parquet(recorder.flush()[0]).read_all().schema
    recorder.close()
    types = {name: fields.field(name).type for name in fields.names}
    assert list(types) == list(Record._fields)
    int32 = {"phase", "status", "rows", "batch_size", "batch_rows"}
    assert {name for name, kind in types.items() if kind == DataType.int32()} == int32
    text = {name for name, value in record(1)._asdict().items() if isinstance(value, str)}
    assert {name for name, kind in types.items() if kind == DataType.string()} == text
    assert {name for name, kind in types.items() if kind == DataType.int64()} == set(types) - int32 - text


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1 << 30, KEY, queue_limit=10)
    for number in range(25):
        recorder.put(row(number))
    assert recorder.stats() | {"path": ""} == {
        "queued": 10,
        "written": 0,
        "dropped": 15,
        "dropped_queue_full": 15,
        "dropped_disk": 0,
        "stopped": "",
        "segments": 0,
        "path": "",
    }


def test_a_text_that_is_no_unicode_costs_its_own_row_only(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1 << 30, KEY)
    recorder.start()
    recorder.put(row(1))
    recorder.put(row(2, request_id="\udc80"))
    recorder.put(row(3))
    rows = rows_of(recorder.flush())
    recorder.close()
    assert [found["request_id"] for found in rows] == ["r1", "r3"]
    assert recorder.dropped == 1


def test_a_full_disk_stops_recording_counts_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path, 1 << 30, KEY)
    full = {"disk": True}

    def write(fd: int, data: memoryview) -> int:
        if full["disk"]:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    real = os.write
    monkeypatch.setattr("gateway.telemetry.journal.os.write", write)
    monkeypatch.setattr("gateway.telemetry.recorder._RETRY_S", 0.0)
    recorder.start()
    recorder.put(row(1))
    assert recorder.flush() == []
    assert recorder.dropped == 1
    assert "No space left" in recorder.stats()["stopped"]
    full["disk"] = False
    recorder.put(row(2))
    rows = rows_of(recorder.flush())
    recorder.close()
    assert [found["request_id"] for found in rows] == ["r2"]
    assert recorder.stats()["stopped"] == ""


def test_retention_removes_the_oldest_segments_and_keeps_the_newest(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1, KEY)
    recorder.start()
    recorder.put(row(1))
    first = recorder.flush()
    recorder.put(row(2))
    second = recorder.flush()
    recorder.close()
    assert len(first) == len(second) == 1
    assert first != second


def test_a_journal_whose_owner_was_killed_becomes_a_segment_at_the_next_start(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_recorder import KEY, row
from gateway.telemetry.recorder import Recorder
recorder = Recorder(Path({str(tmp_path)!r}), 1 << 30, KEY)
recorder.start()
for number in range(100):
    recorder.put(row(number))
while recorder.written < 100:
    pass
print("written", flush=True)
while True:
    pass
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(orphans(tmp_path / "journal")) == 1
    recorder = Recorder(tmp_path, 1 << 30, KEY)
    recorder.start()
    rows = rows_of(recorder.flush())
    recorder.close()
    assert [found["request_id"] for found in rows] == [f"r{number}" for number in range(100)]


@pytest.mark.parametrize("cut", [1, 2, 40, 100])
def test_a_journal_cut_off_anywhere_keeps_its_whole_lines(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, "1-1")
    journal.append([row(1), row(2)])
    journal.append([row(3)])
    assert orphans(tmp_path) == []
    journal.close()
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-cut] if cut != 2 else data[:-2] + b"\n")
    assert [found[1] for line in read(journal.path) for found in line] == ["r1", "r2"]


def test_the_key_is_made_once_for_the_owner_only_and_refused_when_broken(tmp_path: Path) -> None:
    path = tmp_path / "unit.key"
    key = load_key(path)
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert unit_hash("user-1", key) != unit_hash("user-1", KEY)
    path.write_text("abcd\n")
    with pytest.raises(ConfigError, match="holds 2 bytes"):
        load_key(path)
