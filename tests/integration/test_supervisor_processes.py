"""The supervisor on real processes (the fake backend): order, refusals, restarts, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.free_ports import free_ports
from backends.launch import BackendError, GatewayProcess, Supervisor
from backends.ports import PortInUseError
from backends.spec import BackendSpec, Command, ServedModel
from backends.unit import Event

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def spec_of(tmp_path: Path, name: str = "fake", **given: Any) -> BackendSpec:
    base = {"models": (ServedModel("m", ""),), "log_dir": str(tmp_path / "logs"), "management": None, "metrics": None}
    return BackendSpec(name, "tensorflow_serving", free_address(), free_address(), **(base | given))


def fake_plan(spec: BackendSpec) -> Command:
    argv = (sys.executable, "-m", "backends.fake", "--http", spec.http, "--grpc", spec.grpc)
    return Command(argv, dict(os.environ), "fake", stand_in=True)


def gateway_of(tmp_path: Path, **given: Any) -> GatewayProcess:
    """A fake in the gateway's place: its /ping answers 200."""
    http = free_address()
    argv = (sys.executable, "-m", "backends.fake", "--http", http, "--grpc", free_address())
    return GatewayProcess(argv, http, ready_path="/ping", log_dir=str(tmp_path / "logs"), **given)


def supervise(tmp_path: Path, *specs: BackendSpec, **given: Any) -> tuple[Supervisor, list[Event]]:
    events: list[Event] = []
    given = {"planner": fake_plan, "info_file": tmp_path / "run" / "backends.json"} | given
    return Supervisor(specs, on_event=events.append, **given), events


def wait_until(true: Any, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return bool(true())


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_the_gateway_starts_last_and_stops_first_and_the_info_file_tells(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path)
    one, two = spec_of(tmp_path, "one", cores=(0,)), spec_of(tmp_path, "two", threads=2)
    supervisor, events = supervise(tmp_path, one, two, gateway=gateway)
    supervisor.start()
    try:
        supervisor.wait_ready(30)
        info = json.loads((tmp_path / "run" / "backends.json").read_text())
        affinity = psutil.Process(info["backends"]["one"]["pid"]).cpu_affinity()
        pids = [info["gateway"]["pid"], *(told["pid"] for told in info["backends"].values())]
        assert len(alive(pids)) == 3
    finally:
        supervisor.stop()
    order = [(event.name, event.what) for event in events]
    assert set(order[:4]) == {(name, what) for name in ("one", "two") for what in ("starting", "ready")}
    assert order[4:7] == [("gateway", "starting"), ("gateway", "ready"), ("gateway", "stopped")]
    assert set(order[7:]) == {("one", "stopped"), ("two", "stopped")}
    assert affinity == [0]
    assert (info["format"], info["pid"]) == (1, os.getpid())
    assert info["gateway"]["http"] == gateway.http
    told = info["backends"]["one"]
    assert (told["state"], told["implementation"], told["stand_in"], told["cores"]) == ("ready", "fake", True, [0])
    assert told["metrics"] == f"{one.http}/monitoring/prometheus/metrics"
    assert info["backends"]["two"]["threads"] == 2
    assert alive(pids) == []


def test_a_taken_port_is_refused_with_its_owner_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        taken = f"127.0.0.1:{owner.getsockname()[1]}"
        supervisor, events = supervise(tmp_path, spec_of(tmp_path, "one"), spec_of(tmp_path, "two"))
        supervisor._specs["two"] = BackendSpec("two", "tensorflow_serving", free_address(), taken, None, None, ())
        with pytest.raises(PortInUseError) as caught:
            supervisor.start()
        supervisor.stop()
    name = psutil.Process().name()
    assert str(caught.value) == f"two grpc: {taken} is in use by pid {os.getpid()} ({name})"
    assert events == []


def test_the_same_port_twice_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    twin = BackendSpec("twin", "tensorflow_serving", spec.http, free_address(), None, None, ())
    supervisor, _ = supervise(tmp_path, spec, twin)
    with pytest.raises(PortInUseError, match="is also fake http's"):
        supervisor.start()


def test_a_dead_backend_is_restarted_while_the_gateway_stays(tmp_path: Path) -> None:
    supervisor, events = supervise(tmp_path, spec_of(tmp_path), gateway=gateway_of(tmp_path))
    supervisor.start()
    try:
        supervisor.wait_ready(30)
        gateway_pid = supervisor.status()["gateway"]["pid"]
        for count in (1, 2):
            os.kill(supervisor.status()["backends"]["fake"]["pid"], signal.SIGKILL)
            assert wait_until(lambda: [event.what for event in events].count("died") == count)  # noqa: B023
            supervisor.wait_ready(30)
        info = supervisor.status()
        assert (info["gateway"]["pid"], info["backends"]["fake"]["restarts"]) == (gateway_pid, 2)
    finally:
        supervisor.stop()
    waits = [event.detail for event in events if event.what == "restarting"]
    assert waits == ["in 1 s: died (signal SIGKILL)", "in 2 s: died (signal SIGKILL)"]
    assert "supervisor: died signal SIGKILL" in (tmp_path / "logs" / "fake.log").read_text()


def test_a_hopeless_start_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    def broken(spec: BackendSpec) -> Command:
        argv = (sys.executable, "-c", "import sys; sys.exit('no such model: m')")
        return Command(argv, dict(os.environ), "broken", stand_in=False)

    supervisor, events = supervise(tmp_path, spec_of(tmp_path), planner=broken)
    supervisor.start()
    try:
        with pytest.raises(BackendError) as caught:
            supervisor.wait_ready(30)
    finally:
        supervisor.stop()
    assert "fake: failed: died (exit code 1)" in str(caught.value)
    assert "no such model: m" in str(caught.value)
    assert [event.what for event in events].count("starting") == 3


def test_a_server_that_answers_but_is_not_the_child_is_no_readiness(tmp_path: Path) -> None:
    """The child dies of a port that was taken after the check; the other server on it answers every question."""
    spec = spec_of(tmp_path)
    supervisor, _ = supervise(
        tmp_path, spec, planner=lambda spec: Command((sys.executable, "-c", STUBBORN), dict(os.environ), "", False)
    )
    supervisor.start()
    stranger = subprocess.Popen(fake_plan(spec).argv, stdout=subprocess.DEVNULL)
    try:
        with pytest.raises(BackendError, match="does not listen there"):
            supervisor.wait_ready(3)
    finally:
        supervisor.stop()
        stranger.terminate()
        stranger.wait(10)


def test_what_ignores_sigterm_is_killed_with_all_it_started_within_ten_seconds(tmp_path: Path) -> None:
    parent = f"import subprocess,sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n{STUBBORN}"
    command = Command((sys.executable, "-c", parent), dict(os.environ), "stubborn", stand_in=False)
    supervisor, events = supervise(tmp_path, spec_of(tmp_path), planner=lambda spec: command)
    supervisor.start()
    log = tmp_path / "logs" / "fake.log"
    assert wait_until(lambda: log.read_text().count("up\n") == 2)
    pid = supervisor.status()["backends"]["fake"]["pid"]
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    started = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started < 10
    assert len(family) == 2
    assert alive(family) == []
    assert events[-1].detail == "killed: it did not stop in time"


def test_killing_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    parent = f"import subprocess,sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n{STUBBORN}"
    script = textwrap.dedent(
        f"""
        import os, sys, time
        from pathlib import Path
        from backends.launch import Supervisor
        from backends.spec import BackendSpec, Command, ServedModel
        spec = BackendSpec("b", "tensorflow_serving", {free_address()!r}, {free_address()!r}, None, None,
                           (ServedModel("m", ""),), log_dir={str(tmp_path)!r})
        command = Command((sys.executable, "-c", {parent!r}), dict(os.environ), "stubborn", False)
        supervisor = Supervisor([spec], info_file=Path({str(tmp_path / "info.json")!r}), on_event=print, planner=lambda s: command)
        supervisor.start()
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as process:
        log = tmp_path / "b.log"
        assert wait_until(lambda: log.exists() and log.read_text().count("up\n") == 2)
        family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.kill()
    assert len(family) == 3  # the server, its worker, the janitor
    assert wait_until(lambda: not alive(family), 5)


def test_a_chatty_servers_log_keeps_its_limit_while_it_runs(tmp_path: Path) -> None:
    from backends.logs import RotatingLog
    from backends.process import Child, Janitor

    janitor, log = Janitor(), RotatingLog(tmp_path / "chatty.log", limit=20_000, keep=1)
    argv = (sys.executable, "-c", "while True: print('x' * 99)")
    child = Child(argv, os.environ, None, None, log, janitor)
    try:
        assert wait_until((tmp_path / "chatty.log.1").exists)
        sizes = [file.stat().st_size for file in tmp_path.iterdir()]
        assert max(sizes) <= 20_000
        assert child.exit_code() is None
    finally:
        child.kill_group()
        janitor.close()
        log.close()
