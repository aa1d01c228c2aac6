"""Whole points in their own process against fake servers: both loops, both protocols, and servers that fail."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from gateway_process import configuration, gateway, ready, two_fakes

from backends.fake.behaviour import Shape
from backends.fake.server import FakeBackend
from gateway.errors import ConfigError
from gateway.upstream.fake import FakeServer, held, raw, reply, reset, response
from loadtest.points import schedule
from loadtest.points.files import in_window, load_columns, load_requests, save_job
from loadtest.points.run import Progress, run_point
from loadtest.points.spec import Load, PointResult, PointSpec, Requests
from loadtest.targets import Target

ROOT = Path(__file__).resolve().parents[2]
TIMING = "gateway;dur=0.125, codec;dur=0, upstream;dur=1.001"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).random((200, 16), dtype=np.float32)
    expected = rows.sum(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    np.savez(tmp_path / "inputs.npz", x=rows, **{"out:output_0": expected})
    return tmp_path / "inputs.npz"


def spec_of(backend: FakeBackend, inputs: Path, load: Load, **changes: Any) -> PointSpec:
    target = Target("tensorflow_serving", backend.http, backend.grpc, "fake")
    return replace(PointSpec(target, "tfs-rest", "tiny", load, inputs), **changes)


def window_of(result: PointResult) -> Requests:
    return in_window(load_requests(result.folder), result.start_ns, result.end_ns)


@pytest.mark.parametrize("protocol", ["tfs-rest", "tfs-grpc"])
def test_both_loops_measure_and_judge(protocol: str, inputs: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    check: dict[str, Any] = {"check": "reference", "output": "output_0", "every": 2, "rows": ((1, 1.0), (3, 1.0))}
    with FakeBackend(shape=Shape(output="output_0")) as backend:
        closed = spec_of(backend, inputs, Load.closed(3, 0.4, 0.2), protocol=protocol, **check)
        opened = spec_of(backend, inputs, Load.open(80, 0.5, 0.2, outstanding=64), protocol=protocol, **check)
        first, second = run_point(closed, tmp_path / "closed", told.append), run_point(opened, tmp_path / "open")
    assert told
    assert told[-1].total == pytest.approx(0.6)
    for result in (first, second):
        requests, window = load_requests(result.folder), window_of(result)
        assert Counter(requests.error.tolist()).keys() == {""}
        assert (requests.done_ns > requests.sent_ns).all()
        assert (requests.sent_ns >= requests.due_ns).all()
        assert (np.diff(requests.due_ns) >= 0).all()
        assert set(requests.rows.tolist()) == {1, 3}
        assert (requests.correct == 1).sum() == (requests.due_ns.size + 1) // 2
        assert (result.due, result.sent, result.dropped, result.failed) == (window.due_ns.size, result.due, 0, 0)
        assert result.good == result.due
        assert result.generator_pid != os.getpid()
        assert result.generator_cpu_seconds > 0
    requests, load = load_requests(second.folder), opened.load
    assert np.array_equal(requests.due_ns - second.warmup_start_ns, schedule.arrivals(load, 1))
    assert (second.end_ns - second.start_ns, second.start_ns - second.warmup_start_ns) == (500_000_000, 200_000_000)
    assert set((load_requests(first.folder).due_ns - load_requests(first.folder).sent_ns).tolist()) == {0}


async def test_connections_are_kept_and_requests_say_whose_they_are(inputs: Path, tmp_path: Path) -> None:
    body = b'{"predictions": [[1.0]]}'
    async with FakeServer(reply(body=body, server_timing=TIMING)) as server:
        target = Target("gateway", server.address, "127.0.0.1:1")
        spec = PointSpec(target, "tfs-rest", "tiny", Load.closed(4, 0.4), inputs, arm="beta", block="b7")
        result = await asyncio.to_thread(run_point, spec, tmp_path / "point")
    requests = load_requests(result.folder)
    assert (server.connections, len(server.requests)) == (4, requests.due_ns.size)
    one = server.requests[0].headers
    assert (one["x-abgate-arm"], one["x-abgate-block"]) == ("beta", "b7")
    assert one["x-user-id"].startswith("u1-")
    assert len({request.headers["x-request-id"] for request in server.requests}) == requests.due_ns.size
    assert {(*row,) for row in zip(requests.gateway_ns, requests.codec_ns, requests.upstream_ns, strict=True)} == {
        (125_000, 0, 1_001_000)
    }


@pytest.mark.parametrize("protocol", ["tfs-rest", "tfs-grpc"])
def test_torchserve_told_directly_tells_its_batches(protocol: str, inputs: Path, tmp_path: Path) -> None:
    with FakeBackend() as backend:
        target = Target("torchserve", backend.http, backend.grpc, "fake")
        spec = spec_of(backend, inputs, Load.closed(2, 0.3), protocol=protocol, target=target)
        requests = load_requests(run_point(spec, tmp_path / "point").folder)
    assert set(requests.error.tolist()) == {""}
    assert set(requests.status.tolist()) == {200}
    assert set(requests.batch_size.tolist()) == {1}
    assert (requests.queue_ns >= 0).all()


def _stopping(backend: FakeBackend, after: float) -> Callable[[Progress], None]:
    stopped: list[float] = []

    def look(progress: Progress) -> None:
        if progress.elapsed > after and not stopped:
            stopped.append(progress.elapsed)
            backend.stop()

    return look


@pytest.mark.parametrize(
    ("protocol", "load"),
    [
        ("tfs-rest", Load.open(100, 0.8)),
        ("tfs-grpc", Load.closed(2, 0.8)),
    ],
)
def test_requests_to_a_server_that_died_are_errors_and_none_is_lost(
    protocol: str, load: Load, inputs: Path, tmp_path: Path
) -> None:
    backend = FakeBackend().start()
    try:
        spec = spec_of(backend, inputs, load, protocol=protocol, timeout=2.0)
        result = run_point(spec, tmp_path / "point", _stopping(backend, 0.3))
    finally:
        backend.stop()
    errors = Counter(load_requests(result.folder).error.tolist())
    failed = {"refused", "reset"} if protocol == "tfs-rest" else {"unavailable", "cancelled", "deadline_exceeded"}
    assert errors[""] == result.good > 0
    assert set(errors) - {""} <= failed
    assert result.failed == sum(errors[name] for name in failed) > 0
    if load.kind == "open":
        assert result.due == schedule.arrivals(load, spec.seed).size == result.sent + result.dropped


async def test_faults_have_the_names_they_have_in_a_locust_run(inputs: Path, tmp_path: Path) -> None:
    never = asyncio.Event()
    half = response()[:-5]
    async with FakeServer(held(never)) as server:
        server.script.extend(
            [reply(503), reset(), raw(half, close=True), raw(b"\x16\x03\x01 no HTTP\r\n\r\n"), reply()]
        )
        target = Target("gateway", server.address, "127.0.0.1:1")
        load = Load.open(20, 0.3, arrivals="constant", outstanding=9)
        spec = PointSpec(target, "tfs-rest", "tiny", load, inputs, timeout=0.4)
        result = await asyncio.to_thread(run_point, spec, tmp_path / "point")
    requests = load_requests(result.folder)
    assert requests.error.tolist() == ["http 503", "reset", "reset", "garbage", "", "timeout"]
    assert requests.status.tolist() == [503, 0, 0, 0, 200, 0]
    assert (requests.done_ns >= 0).tolist() == [True, False, False, False, True, False]
    assert (result.failed, result.good, result.sent, result.dropped) == (5, 1, 6, 0)


def test_an_overloaded_server_has_arrivals_dropped_and_the_run_invalid(inputs: Path, tmp_path: Path) -> None:
    with FakeBackend(mode="slow", delay_ms=300) as backend:
        spec = spec_of(backend, inputs, Load.open(100, 0.6, arrivals="constant", outstanding=3))
        result = run_point(spec, tmp_path / "point")
    requests = load_requests(result.folder)
    assert (result.due, result.sent + result.dropped) == (60, 60)
    assert result.dropped >= 50
    assert Counter(requests.error.tolist())["dropped"] == result.dropped
    assert set(requests.sent_ns[requests.error == "dropped"].tolist()) == {-1}
    assert any("INVALID" in note for note in result.notes)


def test_arrivals_of_a_generator_that_was_held_up_are_late_and_their_wait_is_counted(
    inputs: Path, tmp_path: Path
) -> None:
    def hold_up(progress: Progress) -> None:
        if progress.elapsed > 0.2 and not held:
            (child,) = [item for item in psutil.Process().children() if "loadtest.points" in item.cmdline()]
            held.append(child.pid)
            child.suspend()
            timer = subprocess.Popen(
                [sys.executable, "-c", f"import os, time; time.sleep(.3); os.kill({child.pid}, 18)"]
            )
            held.append(timer.wait())

    held: list[int] = []
    with FakeBackend() as backend:
        result = run_point(spec_of(backend, inputs, Load.open(100, 1)), tmp_path / "point", hold_up)
    requests = window_of(result)
    assert result.late >= 15
    assert (requests.sent_ns - requests.due_ns).max() > 200e6
    assert any("INVALID" in note for note in result.notes)
    assert result.due == result.sent  # late, not left out


def test_nothing_is_left_when_the_caller_is_interrupted(inputs: Path, tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(_: Progress) -> None:
        pids.extend(item.pid for item in psutil.Process().children() if "loadtest.points" in item.cmdline())
        raise KeyboardInterrupt

    with FakeBackend() as backend, pytest.raises(KeyboardInterrupt):
        run_point(spec_of(backend, inputs, Load.closed(1, 30)), tmp_path / "point", interrupt)
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_generator_ends_when_nobody_waits_for_it(inputs: Path, tmp_path: Path) -> None:
    with FakeBackend() as backend:
        job = save_job(spec_of(backend, inputs, Load.closed(1, 60)), tmp_path)
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.points", str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.close()  # as a killed parent's end of the pipe is
            assert process.wait(10) == 4
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def test_a_spec_that_cannot_be_run_says_why(inputs: Path, tmp_path: Path) -> None:
    spec = PointSpec(Target("gateway", "h:1", "h:2"), "tfs-rest", "tiny", Load.closed(1, 1), inputs, check="label")
    with pytest.raises(ConfigError, match="needs an array `label`"):
        run_point(spec, tmp_path / "point")


def test_the_gateway_forces_the_arm_of_a_block_and_tells_its_times(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    np.savez(tmp_path / "inputs.npz", x=rows, **{"out:output_0": rows.sum(axis=1)[:, None]})
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as found:
        ready(found)
        target = Target("gateway", found.http, found.grpc)
        for protocol, arm, own in (("tfs-rest", "a", "ts"), ("tfs-grpc", "b", "tf")):
            spec = PointSpec(target, protocol, "m", Load.closed(2, 0.3), tmp_path / "inputs.npz")  # type: ignore[arg-type]
            spec = replace(spec, arm=arm, block="b1", check="reference", every=1, signature=tmp_path / "signature.json")
            result = run_point(replace(spec, named=True), tmp_path / protocol)
            requests, columns = load_requests(result.folder), load_columns(result.folder)
            assert set(requests.error.tolist()) == {""}
            assert set(requests.correct.tolist()) == {1}
            assert set(columns["arm"].tolist()) == {arm}
            assert set(columns["assignment"].tolist()) == {"block"}
            spent = requests.upstream_ns + requests.gateway_ns + requests.codec_ns
            assert (requests.upstream_ns > 0).all()
            assert (spent <= requests.done_ns - requests.sent_ns).all()
            assert sum(fakes[own].behaviour.count.values()) == requests.due_ns.size
