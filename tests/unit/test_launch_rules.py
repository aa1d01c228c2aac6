"""The supervisor's rules without a process: addresses, back-off, the life of a unit, what counts as ready."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from backends import free_ports
from backends.launch import metrics_url, plan
from backends.process import how_it_ended
from backends.readiness import management_token, unready_workers
from backends.spec import BackendSpec, host_port, is_loopback
from backends.unit import Backoff, Event, Unit


def spec(kind: str = "torchserve", **given: Any) -> BackendSpec:
    base: dict[str, Any] = {"http": "127.0.0.1:1", "grpc": "127.0.0.1:2", "management": "127.0.0.1:3", "metrics": None}
    return BackendSpec(name="b", kind=kind, models=(), **(base | given))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8085", ("::1", 8085)), ("localhost:65535", ("localhost", 65535))],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert host_port(address) == expected


@pytest.mark.parametrize("address", ["", "80", ":80", "host:", "host:0", "host:65536", "host:x", "host:-1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        host_port(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    ("ran_for", "delays"),
    [
        ([0, 0, 0, 0, 0, 0, 0], [1, 2, 4, 8, 16, 30, 30]),
        ([0, 0, 59.9, 60, 0], [1, 2, 4, 1, 2]),
        ([600, 600], [1, 1]),
    ],
)
def test_backoff_doubles_and_begins_anew_after_a_stable_minute(ran_for: list[float], delays: list[float]) -> None:
    backoff = Backoff()
    assert [backoff.after(seconds) for seconds in ran_for] == delays


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (143, "exit code 143"), (-9, "signal SIGKILL"), (-250, "signal 250")]
)
def test_how_it_ended(code: int, words: str) -> None:
    assert how_it_ended(code) == words


@pytest.mark.parametrize(
    ("states", "expected", "ready"),
    [
        ([["READY"]], 1, True),
        ([["READY", "READY"]], 2, True),
        ([["READY"]], 2, False),
        ([["READY", "UNLOADING"]], 1, False),
        ([["READY"], ["UNLOADING"]], 1, False),
        ([[]], 1, False),
    ],
)
def test_worker_states(states: list[list[str]], expected: int, ready: bool) -> None:
    description = [{"workers": [{"status": state} for state in version]} for version in states]
    assert (unready_workers(description, expected) is None) is ready


def test_the_management_token_is_read_from_torchserves_own_file(tmp_path: Path) -> None:
    assert management_token(str(tmp_path)) == {}
    (tmp_path / "key_file.json").write_text(json.dumps({"management": {"key": "abc"}, "inference": {"key": "x"}}))
    assert management_token(str(tmp_path)) == {"authorization": "Bearer abc"}


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        ("torchserve", None, None),
        ("torchserve", "127.0.0.1:4", "127.0.0.1:4/metrics"),
        ("tensorflow_serving", None, "127.0.0.1:1/monitoring/prometheus/metrics"),
        ("tensorflow_serving", "127.0.0.1:1/custom", "127.0.0.1:1/custom"),
    ],
)
def test_where_metrics_are(kind: str, metrics: str | None, expected: str | None) -> None:
    assert metrics_url(spec(kind, metrics=metrics)) == expected


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="kind 'triton', expected torchserve or tensorflow_serving"):
        plan(spec("triton"))


class Script:
    """A child and its surroundings by the script: what each question answers at this moment."""

    def __init__(self) -> None:
        self.pid = 7
        self.code: int | None = None
        self.missing: str | None = "no answer"
        self.stranger: str | None = None
        self.fault: Exception | None = None
        self.killed = 0
        self.events: list[str] = []

    def begin(self) -> Script:
        if self.fault is not None:
            raise self.fault
        self.code = None
        return self

    def exit_code(self) -> int | None:
        return self.code

    def kill_group(self) -> None:
        self.killed += 1

    def terminate(self) -> None:
        self.code = 143

    def unit(self) -> Unit:
        return Unit("b", self.begin, lambda: self.missing, lambda pid: self.stranger, self.hear)  # type: ignore[arg-type]

    def hear(self, event: Event) -> None:
        self.events.append(f"{event.what} {event.detail}".strip())


def test_a_unit_becomes_ready_dies_and_comes_back() -> None:
    script = Script()
    unit = script.unit()
    unit.step(0.0)
    unit.step(0.1)  # too early to ask
    unit.step(0.3)
    assert (unit.state, unit.reason) == ("starting", "no answer")
    script.missing = None
    unit.step(0.6)
    script.code = -9
    unit.step(0.7)
    unit.step(1.6)  # before its time
    assert (unit.state, unit.pid, unit.restarts) == ("restarting", None, 1)
    unit.step(1.8)
    unit.step(2.1)
    assert unit.state == "ready"
    assert script.killed == 1  # the dead server's workers
    assert script.events == [
        "starting",
        "ready",
        "died signal SIGKILL",
        "restarting in 1 s: died (signal SIGKILL)",
        "starting",
        "ready",
    ]


def test_a_stranger_on_the_port_is_not_taken_for_the_child() -> None:
    script = Script()
    script.missing, script.stranger = None, "somebody else listens"
    unit = script.unit()
    unit.step(0.0)
    unit.step(0.3)
    assert (unit.state, unit.reason) == ("starting", "somebody else listens")


def test_one_missed_question_is_forgiven_two_are_not() -> None:
    script = Script()
    script.missing = None
    unit = script.unit()
    for now in (0.0, 0.3):
        unit.step(now)
    script.missing = "busy"
    unit.step(1.4)
    assert unit.state == "ready"
    unit.step(1.7)
    assert unit.state == "starting"
    script.missing = None
    unit.step(2.0)
    assert script.events == ["starting", "ready", "unready busy", "ready"]


def test_a_server_that_never_becomes_ready_is_given_up() -> None:
    script = Script()
    unit = script.unit()
    now = 0.0
    while unit.state != "failed" and now < 100:
        unit.step(now)
        script.code = 1
        now += 0.5
    assert script.events[-1] == "failed died (exit code 1); 3 starts, never ready"
    assert script.events.count("starting") == 3
    unit.step(now + 100)
    assert unit.state == "failed"


def test_a_start_that_raises_is_tried_again() -> None:
    script = Script()
    script.fault = FileNotFoundError("model gone")
    unit = script.unit()
    unit.step(0.0)
    assert script.events == ["restarting in 1 s: cannot be started: model gone"]
    script.fault = None
    unit.step(1.1)
    assert script.events[-1] == "starting"


@pytest.mark.parametrize(
    ("obeys", "words"), [(True, "stopped exit code 143"), (False, "stopped killed: it did not stop in time")]
)
def test_stopping(obeys: bool, words: str) -> None:
    script = Script()
    unit = script.unit()
    unit.step(0.0)
    if obeys:
        unit.ask_to_stop()
    unit.finish()
    unit.finish()
    unit.step(100.0)
    assert (script.events[-1], script.events.count(words), script.killed) == (words, 1, 1)


def test_free_ports_are_never_those_of_outgoing_connections_and_none_is_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = tmp_path / "ip_local_port_range"
    span.write_text("13002\t60999\n")
    monkeypatch.setattr(free_ports, "_OUTGOING", span)
    given = free_ports.free_ports(3)
    with socket.create_server(("127.0.0.1", given[-1] + 1 if given[-1] < 13_001 else 12_000)) as taken:
        given += free_ports.free_ports(50)
        assert taken.getsockname()[1] not in given
    assert len(set(given)) == 53
    assert all(12_000 <= port < 13_002 for port in given)
    with pytest.raises(OSError, match="2000 free ports are wanted, "):
        free_ports.free_ports(2_000)
    span.write_text("1024 65535")
    assert len(set(free_ports.free_ports(3))) == 3
