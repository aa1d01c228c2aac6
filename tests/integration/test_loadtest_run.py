"""Whole load tests against a small gateway: Locust in its subprocess, the ledger, run.json, and every way to end."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from arro3.io import read_parquet
from rich.console import Console

import loadtest
from backends.free_ports import free_ports
from loadtest.run import RunOptions, RunResult, run

LOCUSTFILE = Path(loadtest.__file__).with_name("locustfile.py")
FAKE = Path(__file__).with_name("loadtest_fake.py")
PROFILE = """
model: tiny
users: 4
duration: 1.5s
warmup: 1s
mix: {tfs-rest: 1, tfs-grpc: 1}
rows: [{rows: 1, weight: 3}, {rows: 3}]
payloads: inputs.npz
seed: 3
"""


@contextmanager
def fake_gateway(*arguments: str) -> Iterator[dict[str, Any]]:
    """The fake's addresses while it runs."""
    process = subprocess.Popen(
        [sys.executable, str(FAKE), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def options_of(folder: Path, address: dict[str, Any], profile: str = PROFILE, **changes: Any) -> RunOptions:
    rows = np.random.default_rng(0).random((200, 16), dtype=np.float32)
    np.savez(folder / "inputs.npz", x=rows, label=rows.argmax(axis=1))
    (folder / "tiny.yaml").write_text(profile)
    return RunOptions(
        profile=str(folder / "tiny.yaml"),
        http=address["http"],
        grpc=address["grpc"],
        out_dir=folder / "runs",
        backends_info=folder / "backends.json",
        progress=False,
        **changes,
    )


def ledger_of(result: RunResult) -> list[dict[str, Any]]:
    assert result.run_dir is not None
    return [row for path in sorted((result.run_dir / "ledger").glob("*.parquet")) for row in rows_of(path)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    table = read_parquet(str(path)).read_all()
    columns = [table.column(name).to_pylist() for name in table.column_names]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def document_of(result: RunResult) -> dict[str, Any]:
    assert result.run_dir is not None
    document: dict[str, Any] = json.loads((result.run_dir / "run.json").read_text())
    return document


def locusts(folder: Path) -> list[int]:
    """Generator processes that work in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("ABGATE_LOADTEST_JOB", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def test_a_run_measures_both_protocols_on_both_arms(tmp_path: Path) -> None:
    with fake_gateway() as address:
        backends = {"alpha": {"kind": "torchserve", "metrics": address["http"], "pid": address["pid"], "threads": 1}}
        (tmp_path / "backends.json").write_text(json.dumps({"format": 1, "backends": backends}))
        console = Console(record=True, width=100, quiet=False, file=(tmp_path / "told.txt").open("w"))
        result = run(options_of(tmp_path, address, config_text="backends: {}\n"), console)
        console.file.close()
    assert (result.exit_code, result.reasons) == (0, ())
    rows, document = ledger_of(result), document_of(result)
    window = document["window"]

    assert {row["protocol"] for row in rows} == {"tfs-rest", "tfs-grpc"}
    assert {row["arm"] for row in rows} == {"alpha", "beta"}
    assert {row["rows"] for row in rows} == {1, 3}
    assert all(row["correct"] and not row["error"] and row["assignment"] == "sticky" for row in rows)
    assert {row["status"] for row in rows if row["protocol"] == "tfs-rest"} == {200}
    assert {row["status"] for row in rows if row["protocol"] == "tfs-grpc"} == {0}
    by_unit: dict[str, set[str]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], set()).add(row["arm"])
        assert row["request_id"].endswith(row["unit"])  # the fake's own id, from the response
        assert row["warmup"] == (row["send_ns"] < window["start_ns"])
        assert window["warmup_start_ns"] <= row["send_ns"] < window["end_ns"]
        assert 0 < row["latency_ns"] < 10_000_000_000
    assert all(len(arms) == 1 for arms in by_unit.values())
    assert len(by_unit) > 100
    assert any(row["latency_ns"] % 1000 for row in rows)  # unrounded

    assert window["end_ns"] - window["start_ns"] == 1_500_000_000
    assert window["start_ns"] - window["warmup_start_ns"] == 1_000_000_000
    assert (document["format"], document["kind"], document["seed"]) == (1, "live split", 3)
    assert document["arms"]["alpha"] == {
        "backend": "alpha",
        "kind": "fake",
        "implementation": "fake 1",
        "stand_in": True,
        "weight": 50,
        "wire": {"tfs-rest": "tfs-rest", "tfs-grpc": "tfs-grpc"},
        "cores": None,
        "threads": 1,
        "workers": None,
    }
    assert document["gateway"]["phases"][0]["weights"] == {"alpha": 50, "beta": 50}
    assert (document["gateway"]["revision"], document["gateway"]["records_dropped"]) == (7, 0)
    assert document["ledger"] == {"rows": len(rows), "dropped": 0}
    assert document["config"] == "backends: {}\n"
    processes = {process["role"]: process for process in document["processes"]}
    assert set(processes) == {"generator", "backend:alpha"}  # one process has one role: the fake's pid is the backend's
    assert processes["generator"]["cpu_seconds"] > 0
    assert processes["generator"]["mean_cores"] == pytest.approx(processes["generator"]["cpu_seconds"] / 1.5)
    assert processes["generator"]["max_rss_bytes"] > 30_000_000
    assert document["scrapes"] == {
        "alpha": {"before": "scrapes/alpha-before.prom", "after": "scrapes/alpha-after.prom"}
    }
    assert result.run_dir is not None
    assert (result.run_dir / "scrapes" / "alpha-after.prom").read_text() == "requests_total 7\n"
    resources = read_parquet(str(result.run_dir / "resources.parquet")).read_all()
    assert set(resources.column("role").to_pylist()) == {"generator", "backend:alpha"}
    told = (tmp_path / "told.txt").read_text()
    assert "tfs-grpc" in told
    assert "beta" in told
    assert not (result.run_dir / "work").exists()
    assert locusts(tmp_path) == []


def test_errors_and_wrong_answers_fail_the_run_and_name_the_arm(tmp_path: Path) -> None:
    with fake_gateway("--break-arm", "alpha", "--wrong-arm", "beta") as address:
        result = run(options_of(tmp_path, address))
    assert result.exit_code == 1
    assert result.reasons[0].startswith("alpha: ")
    assert "http 503" in result.reasons[0]
    assert "unavailable" in result.reasons[0]
    assert result.reasons[1].startswith("beta: 0 of ")
    rows = ledger_of(result)
    assert {(row["arm"], row["status"], row["error"], row["correct"]) for row in rows} == {
        ("alpha", 503, "http 503", None),
        ("alpha", 14, "unavailable", None),
        ("beta", 200, "", False),
        ("beta", 0, "", False),
    }


def test_three_workers_share_one_window_draw_on_their_own_and_add_up(tmp_path: Path) -> None:
    with fake_gateway() as address:
        result = run(options_of(tmp_path, address, workers=3, rate=150.0, users=9))
    assert result.exit_code in (0, 2), result.reasons
    assert result.run_dir is not None
    window, whole = document_of(result)["window"], len(ledger_of(result))
    seconds = (window["end_ns"] - window["start_ns"]) / 1e9
    units: dict[str, set[str]] = {}
    measured: dict[str, int] = {}
    for path in sorted((result.run_dir / "ledger").iterdir()):
        rows = rows_of(path)
        worker = path.name.split("-")[1]
        units[worker] = {row["unit"] for row in rows}
        measured[worker] = sum(not row["warmup"] for row in rows)
        whole -= len(rows)
        assert all(window["warmup_start_ns"] <= row["send_ns"] < window["end_ns"] for row in rows)
    assert whole == 0
    assert list(measured) == ["1", "2", "3"]
    for one, other in (("1", "2"), ("1", "3"), ("2", "3")):  # equal draws would be equal sets of units
        assert len(units[one] & units[other]) < 0.3 * min(len(units[one]), len(units[other]))
    assert max(measured.values()) <= 50 * seconds * 1.1 + 1  # each sends its third of the rate, and no more
    if result.exit_code == 0:  # else the machine could not send what was wanted, and the run says so
        assert min(measured.values()) >= 50 * seconds * 0.8
        assert sum(measured.values()) >= 150 * seconds * 0.95
    assert locusts(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_written_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    code = (
        "import sys, pickle; from loadtest.run import run\n"
        "result = run(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
        "print(result.run_dir); sys.exit(result.exit_code)"
    )
    with fake_gateway() as address:
        options = options_of(tmp_path, address, duration=60.0)
        process = subprocess.Popen(
            [sys.executable, "-c", code, pickle.dumps(options).hex()], stdout=subprocess.PIPE, text=True
        )
        try:
            journals = wait_for(lambda: list((tmp_path / "runs").glob("*/work/ledger-*.jsonl")))
            folder = journals[0].parent
            window = json.loads((folder / "window.json").read_text())
            wait_for(lambda: time.time_ns() > window["start_ns"] + 500_000_000)
            process.send_signal(number)
            told, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 2
    result = RunResult(Path(told.strip()), process.returncode)
    document, rows = document_of(result), ledger_of(result)
    assert document["window"]["start_ns"] < document["window"]["end_ns"] < window["end_ns"]
    assert [row for row in rows if not row["warmup"]]
    assert [event["what"] for event in document["events"]][-1] == "interrupted"
    assert locusts(tmp_path) == []


def test_a_generator_that_dies_is_no_result(tmp_path: Path) -> None:
    with fake_gateway() as address:
        killed: list[int] = []

        def kill() -> None:
            wait_for(lambda: list((tmp_path / "runs").glob("*/work/ledger-*.jsonl")))
            killed.extend(locusts(tmp_path))
            os.kill(killed[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        result = run(options_of(tmp_path, address, duration=60.0))
        thread.join()
    assert killed
    assert result.exit_code == 99
    assert "the generator failed, exit code -9" in result.reasons[0]
    assert ledger_of(result)  # what was measured is there


def test_a_generator_whose_parent_is_killed_ends_by_itself(tmp_path: Path) -> None:
    code = "import sys, pickle; from loadtest.run import run; run(pickle.loads(bytes.fromhex(sys.argv[1])))"
    with fake_gateway() as address:
        options = options_of(tmp_path, address, duration=60.0)
        process = subprocess.Popen([sys.executable, "-c", code, pickle.dumps(options).hex()])
        try:
            wait_for(lambda: list((tmp_path / "runs").glob("*/work/ledger-*.jsonl")))
        finally:
            process.kill()
            process.wait()
        wait_for(lambda: not locusts(tmp_path), seconds=20)


def test_locusts_page_is_open_while_the_run_goes_on(tmp_path: Path) -> None:
    pages: list[set[tuple[str, str]]] = []

    def look(port: int) -> None:
        def page() -> set[tuple[str, str]]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=2) as response:
                    stats = json.load(response)["stats"]
            except OSError:
                return set()
            names = {(entry["method"], entry["name"]) for entry in stats}
            # a page read early has the answers of one arm only
            return names if {("tfs-rest", "alpha"), ("tfs-rest", "beta")} <= names else set()

        pages.append(wait_for(page))

    port = free_ports(1)[0]
    with fake_gateway() as address:
        thread = threading.Thread(target=look, args=(port,))
        thread.start()
        result = run(options_of(tmp_path, address, ui=True, ui_port=port, hold_ui=False, duration=4.0))
        thread.join()
    assert (result.exit_code, result.reasons) == (0, ())
    assert pages, "the page never named both arms while the run went on"
    assert document_of(result)["ledger"]["rows"] == len(ledger_of(result)) > 0
    assert locusts(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "protocols"),
    [
        ("tensorflow_serving", {"tfs-rest", "tfs-grpc"}),
        ("torchserve", {"torchserve-http", "torchserve-grpc"}),
    ],
)
def test_a_direct_run_goes_past_the_gateway(tmp_path: Path, kind: str, protocols: set[str]) -> None:
    with fake_gateway() as address:
        backend = {"kind": kind, "http": address["http"], "grpc": address["grpc"], "implementation": "fake 1"}
        (tmp_path / "backends.json").write_text(json.dumps({"backends": {"only": backend}}))
        nowhere = {"http": "127.0.0.1:1", "grpc": "127.0.0.1:1"}
        result = run(options_of(tmp_path, nowhere, direct="only"))
    assert (result.exit_code, result.reasons) == (0, ())
    rows, document = ledger_of(result), document_of(result)
    assert {row["protocol"] for row in rows} == protocols
    assert {row["arm"] for row in rows} == {"only"}
    assert all(row["correct"] for row in rows)
    assert document["kind"] == "direct"
    assert document["arms"]["only"]["kind"] == kind


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_gateway_behind_tls(tmp_path: Path) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    with fake_gateway("--certificate", str(tmp_path / "tls.pem")) as address:
        result = run(options_of(tmp_path, address, tls_ca=tmp_path / "tls.pem"))
    assert (result.exit_code, result.reasons) == (0, ())
    assert {row["protocol"] for row in ledger_of(result)} == {"tfs-rest", "tfs-grpc"}


def test_locust_runs_the_users_by_itself(tmp_path: Path) -> None:
    with fake_gateway() as address:
        profile = options_of(tmp_path, address).profile
        (tmp_path / "tiny.yaml").write_text(PROFILE.replace("inputs.npz", str(tmp_path / "inputs.npz")))
        named = {"ABGATE_PROFILE_NAME": profile, "ABGATE_HTTP": address["http"], "ABGATE_GRPC": address["grpc"]}
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--json"]
        command += ["-u", "2", "-r", "10", "-t", "5s"]
        ended = subprocess.run(
            command, check=False, env={**os.environ, **named}, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 0, ended.stderr
    entries = {(entry["method"], entry["name"]): entry for entry in json.loads(ended.stdout)}
    assert entries.keys() == {(p, arm) for p in ("tfs-rest", "tfs-grpc") for arm in ("alpha", "beta")}
    assert all(entry["num_requests"] > 0 and not entry["num_failures"] for entry in entries.values())


@pytest.mark.parametrize(
    ("profile", "changes", "reason"),
    [
        (PROFILE + "colour: red\n", {}, "tiny.yaml: colour: unknown key"),
        (PROFILE.replace("tiny", "big"), {}, "the gateway has no model 'big'; it has tiny"),
        (PROFILE + "check: reference\n", {}, "check: reference needs an array `out:<output>` in the payloads"),
        (PROFILE, {"http": "127.0.0.1:1"}, "no gateway: http://127.0.0.1:1/admin/v1/experiments"),
        (PROFILE, {"http": "here"}, "is no address"),
        (PROFILE, {"direct": "x"}, "--direct x: no such backend; there are none"),
    ],
)
def test_what_is_wrong_beforehand_sends_nothing(
    tmp_path: Path, profile: str, changes: dict[str, Any], reason: str
) -> None:
    with fake_gateway() as address:
        result = run(options_of(tmp_path, {**address, **changes}, profile, direct=changes.get("direct")))
    assert (result.run_dir, result.exit_code) == (None, 3)
    assert reason in result.reasons[0]
    assert not (tmp_path / "runs").exists()
