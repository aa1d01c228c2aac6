"""What an operator does to a running stack: kill switch, weights, and a backend that dies under load."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest

from gateway.cli import run
from tests.contract.stack import ARMS, ARTIFACTS, Stack

pytestmark = pytest.mark.servers


def ask(stack: Stack, count: int, protocol: str) -> Counter[tuple[int, str]]:
    """How many of so many requests of different units ended with which status on which arm."""
    data = np.load(ARTIFACTS / "digits" / "inputs.npz")["pixels"][:1]
    found: Counter[tuple[int, str]] = Counter()
    for number in range(count):
        answer = stack.predict(protocol, "digits", data, x_user_id=f"u{number}")
        found[answer.status, answer.headers.get("x-abgate-arm", "")] += 1
    return found


def test_kill_switch_empties_an_arm_at_the_next_request(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(stack.folder / "abgate.yaml")]
    before = ask(stack, 40, "rest")
    assert {arm for _, arm in before} == set(ARMS), before
    assert run(["experiment", "kill", "digits", "--to", "tfserving", "--why", "test", *config]) == 0
    for protocol in ("rest", "grpc"):
        assert ask(stack, 40, protocol) == {(200, "tfserving"): 40}
    assert stack.experiment()["killed"] == "tfserving"
    assert run(["experiment", "weights", "digits", "torchserve=50", "tfserving=50", "--why", "test", *config]) == 0
    assert ask(stack, 40, "rest") == before
    capsys.readouterr()
    audit = [json.loads(line) for line in (stack.folder / ".abgate/audit.jsonl").read_text().splitlines()]
    assert [entry["why"] for entry in audit[-2:]] == ["test", "test"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_dead_backend_is_its_arms_error_and_nobody_elses(stack: Stack, arm: str) -> None:
    """kill -9; the other arm never notices, the dead one's errors carry its name, and it comes back by itself."""
    pid = stack.backends()["backends"][arm]["pid"]
    os.kill(pid, signal.SIGKILL)
    data = np.load(ARTIFACTS / "digits" / "inputs.npz")["pixels"][:1]
    failed, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        other = next(name for name in ARMS if name != arm)
        for protocol in ("rest", "grpc"):
            assert stack.predict(protocol, "digits", data, x_abgate_arm=other).status == 200
            answer = stack.predict(protocol, "digits", data, x_abgate_arm=arm)
            assert answer.headers["x-abgate-arm"] == arm
            assert answer.status in (200, 500, 502, 503, 504), (
                answer
            )  # 504: TorchServe takes requests before it has workers
            failed += answer.status != 200
        told = stack.backends()["backends"][arm]
        if told["state"] == "ready" and told["pid"] not in (pid, None) and failed:
            break
    assert failed > 0
    stack.wait_ready(60)
    deadline = time.monotonic() + 3  # a gRPC channel tries again after at most 0.3 s
    for protocol in ("rest", "grpc"):
        while stack.predict(protocol, "digits", data, x_abgate_arm=arm).status != 200:
            assert time.monotonic() < deadline, f"{protocol}: ready, and still no answer; {stack.log()}"
    told = stack.backends()["backends"][arm]
    assert (told["pid"] != pid, told["restarts"]) == (True, 1)


def test_every_request_left_one_record(stack: Stack) -> None:
    """Units of this test's own, both protocols, then the segments say what happened to each."""
    import duckdb

    data = np.load(ARTIFACTS / "digits" / "inputs.npz")["pixels"][:2]
    for number in range(10):
        for protocol in ("rest", "grpc"):
            stack.predict(protocol, "digits", data, x_user_id=f"r{number}", x_request_id=f"rec-{protocol}-{number}")
    stack.rest("digits", [[1.0]], x_request_id="rec-bad")
    segments = stack.send("POST", "/admin/v1/records/flush", b"").rows["segments"]
    query = "select * from read_parquet(?) where request_id like 'rec-%' order by request_id"
    found = duckdb.connect().execute(query, [segments])
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert [row["request_id"] for row in rows] == sorted(
        ["rec-bad", *(f"rec-{p}-{n}" for p in ("rest", "grpc") for n in range(10))]
    )
    bad = rows.pop(0)
    assert (bad["status"], bad["error_kind"], bad["served_arm"], bad["upstream_ns"]) == (400, "invalid_argument", "", 0)
    for row in rows:
        assert row["served_arm"] == row["assigned_arm"]
        assert row["served_arm"] in ARMS
        assert (row["rows"], row["assignment"], row["error_kind"], row["model"]) == (2, "sticky", "", "digits")
        assert len(row["unit_hash"]) == 16
        assert min(row["upstream_ns"], row["gateway_ns"]) > 0  # which is longer is the machine's affair
        if row["served_arm"] == "torchserve":
            assert row["batch_size"] >= 1
            assert row["queue_ns"] >= 0
            assert row["implementation"].startswith("TorchServe 0.12")
