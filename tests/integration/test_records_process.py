"""Records end to end: every request leaves one, in the gateway's own words, and kill -9 loses at most the last second."""

import signal
import time
from pathlib import Path
from typing import Any

from arro3.io import read_parquet
from gateway_process import GatewayProcess, configuration, gateway, ready, two_fakes, until

from gateway.telemetry.unit_hash import load_key, unit_hash


def flushed(running: GatewayProcess) -> list[dict[str, Any]]:
    """Every record there is, after a flush."""
    reply = running.send("POST", "/admin/v1/records/flush", {})
    assert reply.status == 200
    rows: list[dict[str, Any]] = []
    for path in reply.body["segments"]:
        assert Path(path).is_absolute()
        table = read_parquet(path).read_all()
        names = table.schema.names
        columns = [table.column(name).to_pylist() for name in names]
        rows.extend(dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    return rows


def test_every_request_leaves_one_record_that_says_what_happened(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        before = time.time_ns()
        running.predict(x_user_id="alice", x_request_id="sticky-1")
        running.predict(x_request_id="random-1")
        running.predict(x_user_id="alice", x_abgate_arm="b", x_request_id="forced-1")
        running.predict(x_user_id="alice", x_abgate_arm="b", x_abgate_block="1", x_request_id="block-1")
        running.send("POST", "/v1/models/m:predict", {"instances": [[1.0]]}, x_request_id="refused-1")
        running.send("POST", "/v1/models/nope:predict", {"instances": []}, x_request_id="unknown-1")
        fakes["tf"].behaviour.set("500", times=1)
        running.predict(x_abgate_arm="b", x_request_id="failed-1")
        rows = {row["request_id"]: row for row in flushed(running)}
        assert set(rows) == {"sticky-1", "random-1", "forced-1", "block-1", "refused-1", "unknown-1", "failed-1"}
        key = load_key(tmp_path / ".abgate" / "unit.key")
        sticky = rows["sticky-1"]
        assert before <= sticky["time_ns"] <= time.time_ns()
        assert (sticky["experiment"], sticky["phase"], sticky["model"], sticky["rows"]) == ("e", 1, "m", 1)
        assert sticky["unit_hash"] == unit_hash("alice", key)
        assert sticky["assigned_arm"] == sticky["served_arm"]
        assert (sticky["protocol_in"], sticky["status"], sticky["error_kind"]) == ("tfs-rest", 200, "")
        assert sticky["upstream_ns"] > 0
        assert sticky["gateway_ns"] > 0
        assert [rows[name]["assignment"] for name in ("random-1", "forced-1", "block-1")] == [
            "random",
            "forced",
            "block",
        ]
        assert rows["random-1"]["unit_hash"] == ""
        assert rows["forced-1"]["assigned_arm"] == sticky["assigned_arm"]
        assert rows["forced-1"]["served_arm"] == "b"
        assert (rows["refused-1"]["status"], rows["refused-1"]["error_kind"]) == (400, "invalid_argument")
        assert (rows["refused-1"]["served_arm"], rows["refused-1"]["upstream_ns"]) == ("", 0)
        assert (rows["unknown-1"]["status"], rows["unknown-1"]["assigned_arm"]) == (404, "")
        assert (rows["failed-1"]["served_arm"], rows["failed-1"]["error_kind"]) == ("b", "upstream_error")
        assert rows["failed-1"]["status"] >= 500
        stored = b"".join(path.read_bytes() for path in (tmp_path / ".abgate" / "records").rglob("*") if path.is_file())
        assert b"alice" not in stored
        stats = running.send("GET", "/admin/v1/records").body
        assert (stats["queued"], stats["written"], stats["dropped"], stats["stopped"]) == (0, 7, 0, "")
        assert running.stop() == 0


def test_metrics_count_what_the_records_say(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        for number in range(5):
            running.predict(x_user_id=f"secret-unit-{number}", x_abgate_arm="a")
        running.predict(x_abgate_arm="b")
        running.send("POST", "/v1/models/m:predict", {"instances": [[1.0]]}, x_abgate_arm="b")
        flushed(running)
        text = running.send("GET", "/metrics").body
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        labels = 'experiment="e",model="m",protocol="tfs-rest"'
        assert samples[f'abgate_requests_total{{arm="a",code="200",{labels}}}'] == "5.0"
        assert samples[f'abgate_requests_total{{arm="b",code="200",{labels}}}'] == "1.0"
        assert samples[f'abgate_requests_total{{arm="b",code="400",{labels}}}'] == "1.0"
        assert samples[f'abgate_request_seconds_count{{arm="a",{labels}}}'] == "5.0"
        assert samples['abgate_assignments_total{arm="a",assignment="forced",experiment="e",model="m"}'] == "5.0"
        assert samples['abgate_arm_ready{arm="a",experiment="e",model="m"}'] == "1.0"
        assert samples['abgate_arm_weight{arm="a",experiment="e",model="m"}'] == "50.0"
        assert samples["abgate_records_written_total"] == "7.0"
        assert "secret-unit" not in text


def test_kill_9_loses_at_most_the_last_second(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes)
        with gateway(tmp_path, document) as running:
            ready(running)
            for number in range(30):
                running.predict(x_request_id=f"early-{number}")
            sent = time.monotonic()
            until("a second has gone by", lambda: time.monotonic() - sent > 1.0)
            running.predict(x_request_id="late")
            assert running.stop(signal.SIGKILL) == -signal.SIGKILL
        with gateway(tmp_path, document) as running:
            found = [row["request_id"] for row in flushed(running)]
            assert set(found) >= {f"early-{number}" for number in range(30)}
            assert len(found) == len(set(found))
            assert running.stop() == 0


def test_a_stop_leaves_segments_and_no_journal(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        running.predict()
        assert running.stop() == 0
        records = tmp_path / ".abgate" / "records"
        assert len(list((records / "segments").glob("records-*.parquet"))) == 1
        assert list((records / "journal").iterdir()) == []
