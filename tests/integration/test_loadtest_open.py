"""Open-loop load tests against a small gateway: the same run directory as a run of users, with the schedule in it."""

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from gateway.reports import build_report
from gateway.telemetry.capture_format import Captured, Start, frame, opening, segment_name
from loadtest.run import RunOptions, run
from tests.integration.test_loadtest_run import document_of, fake_gateway, ledger_of, options_of, wait_for

PROFILE = """
model: tiny
arrivals: poisson
shape: {kind: spike, base: 40, peak: 150, at: 0.5s, for: 0.4s, duration: 1.5s}
warmup: 0.4s
mix: {tfs-rest: 1, tfs-grpc: 1}
rows: [{rows: 1, weight: 3}, {rows: 3}]
payloads: inputs.npz
seed: 3
"""


def test_an_open_loop_leaves_a_run_with_its_schedule(tmp_path: Path) -> None:
    with fake_gateway() as address:
        told = tmp_path / "told.txt"
        with told.open("w") as file:
            result = run(options_of(tmp_path, address, PROFILE), Console(width=120, file=file))
    rows, document = ledger_of(result), document_of(result)
    late = not document["schedule"]["valid"]  # a machine with other things to do
    assert (result.exit_code, len(result.reasons)) == ((2, 1) if late else (0, 0))
    window, schedule = document["window"], document["schedule"]
    inside = [row for row in rows if window["start_ns"] <= row["due_ns"] < window["end_ns"]]
    assert window["end_ns"] - window["start_ns"] == 1_500_000_000
    assert (document["loop"], schedule["due"], schedule["dropped"]) == ("open", len(inside), 0)
    assert 70 < len(inside) < 145  # 104 on average
    assert [row["warmup"] for row in rows] == [row["due_ns"] < window["start_ns"] for row in rows]
    assert {row["protocol"] for row in rows} == {"tfs-rest", "tfs-grpc"}
    assert {row["arm"] for row in rows} == {"alpha", "beta"}
    assert {(row["correct"], row["error"]) for row in rows} == {(True, "")}
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert all(row["send_ns"] >= row["due_ns"] and row["latency_ns"] > 0 for row in rows)
    # one population of units for both protocols, each unit always on its arm
    assert len({(row["unit"], row["arm"]) for row in rows}) == len({row["unit"] for row in rows})
    text = told.read_text()
    assert "from the intended send" in text
    assert "service times, from the actual send" in text
    assert "us of CPU a request" in text
    assert result.run_dir is not None
    paths = build_report(result.run_dir)
    report = json.loads(paths.json.read_text())
    assert report["loop"]["schedule"]["due"] == len(inside)
    assert sum(arm["requests"] for arm in report["arms"]) == len(inside)
    for arm in report["arms"]:
        assert arm["service_ms"]["p50"]["value"] <= arm["latency_ms"]["answered"]["p50"]["value"]
    assert "Service time of answered requests, from the actual send" in paths.html.read_text()


def test_more_than_one_percent_dropped_is_invalid_whatever_else(tmp_path: Path) -> None:
    profile = """
model: tiny
arrivals: constant
rate: 400
duration: 0.5s
warmup: 0
outstanding: 1
mix: {tfs-grpc: 1}
payloads: inputs.npz
"""
    with fake_gateway("--break-arm", "beta", "--slow-ms", "30") as address:
        result = run(options_of(tmp_path, address, profile))
    assert result.exit_code == 2
    assert result.reasons[0].startswith("INVALID: ")
    rows = ledger_of(result)
    assert len(rows) == 200
    dropped = [row for row in rows if row["error"] == "dropped"]
    assert document_of(result)["schedule"]["dropped"] == len(dropped) > 100
    assert {(row["send_ns"], row["latency_ns"]) for row in dropped} == {(None, None)}
    assert result.run_dir is not None
    paths = build_report(result.run_dir)
    report = json.loads(paths.json.read_text())
    assert paths.verdict_exit_code == 2
    assert "INVALID" in json.dumps(report["summary"]["checks"])
    assert sum(arm["requests"] for arm in report["arms"]) + report["unattributed"]["requests"] == 200 - len(dropped)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupted_open_loop_keeps_what_it_measured(number: int, tmp_path: Path) -> None:
    profile = PROFILE.replace("duration: 1.5s", "duration: 61s")

    def interrupt() -> None:
        wait_for(lambda: list((tmp_path / "runs").glob("*/work/progress.json")))
        wait_for(lambda: "under way" in next((tmp_path / "runs").glob("*/work/progress.json")).read_text())
        time.sleep(0.5)  # something must be measured after the warm-up of 0.4 s
        os.kill(os.getpid(), number)

    with fake_gateway() as address:
        thread = threading.Thread(target=interrupt)
        thread.start()
        result = run(options_of(tmp_path, address, profile))
        thread.join()
    assert result.exit_code == 2
    assert any("interrupted" in reason for reason in result.reasons)
    assert Counter(row["error"] for row in ledger_of(result))[""] > 10
    children = [item for item in psutil.Process().children(recursive=True) if "loadtest.points" in item.cmdline()]
    assert children == []


def captured(folder: Path) -> Path:
    """A capture of 30 requests over both protocols, 20 ms apart."""
    from loadtest.payloads import Dataset, json_body, predict_request

    rows = np.random.default_rng(0).random((30, 16), dtype=np.float32)
    dataset = Dataset({"x": rows}, None, {})
    data = opening(Start("one", 0, 5, 1.0, 1, [], "0.1.0"))
    for index in range(30):
        rest = index % 2 == 0
        head = Captured(
            time_ns=index,
            offset_ns=index * 20_000_000,
            protocol="tfs-rest" if rest else "tfs-grpc",
            model="tiny",
            version="",
            method="POST" if rest else "",
            path="/v1/models/tiny:predict" if rest else "/tensorflow.serving.PredictionService/Predict",
            headers={"content-type": "application/json"} if rest else {},
            rows=1,
            status=200,
            unit_hash=f"unit{index % 4}",
        )
        body = json_body(dataset, [index]) if rest else predict_request("tiny", "serving_default", dataset, [index])
        data += frame(head._asdict(), body)
    folder.mkdir()
    (folder / segment_name(0)).write_bytes(data)
    return folder


def test_a_capture_is_sent_again_at_its_times(tmp_path: Path) -> None:
    capture = captured(tmp_path / "capture")
    with fake_gateway() as address:
        options = options_of(tmp_path, address)
        result = run(
            RunOptions(
                profile="",
                replay=capture,
                speed=2.0,
                http=options.http,
                grpc=options.grpc,
                out_dir=options.out_dir,
                backends_info=options.backends_info,
                progress=False,
            )
        )
    assert document_of(result)["schedule"]["dropped"] == 0
    rows, window = ledger_of(result), document_of(result)["window"]
    due = sorted((row["due_ns"] - window["start_ns"], row["protocol"], row["unit"]) for row in rows)
    assert due == [
        (index * 10_000_000, "tfs-rest" if index % 2 == 0 else "tfs-grpc", f"unit{index % 4}") for index in range(30)
    ]
    assert {row["error"] for row in rows} == {""}
