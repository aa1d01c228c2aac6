"""What a point writes down and what is read back: specs, results, requests, the gateway's own times."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from loadtest.points import files
from loadtest.points.recorder import Recorder
from loadtest.points.schedule import spike
from loadtest.points.spec import COLUMNS, Load, PointResult, PointSpec, Requests
from loadtest.targets import Target

TARGET = Target("gateway", "127.0.0.1:1", "127.0.0.1:2", "a", "/ca.pem")


@pytest.mark.parametrize(
    "spec",
    [
        PointSpec(TARGET, "tfs-rest", "m", Load.closed(3, 2.5, 1), Path("/x/inputs.npz")),
        PointSpec(
            Target("torchserve", "h:1", "h:2"),
            "tfs-grpc",
            "m",
            Load("open", 3, 0.5, None, "constant", spike(1, 9, 1, 1, 1), 7),
            Path("a.npz"),
            Path("s.json"),
            "sig",
            ((1, 3.0), (4, 1.0)),
            "arm",
            "b1",
            2**40,
            0.5,
            "reference",
            "y",
            3,
            "x-unit",
            Path("capture"),
            replay_speed=2.0,
        ),
    ],
)
def test_a_job_comes_back_as_it_was(spec: PointSpec, tmp_path: Path) -> None:
    assert files.load_job(files.save_job(spec, tmp_path)) == spec


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    spec = PointSpec(TARGET, "tfs-rest", "m", Load.open(5, 1), Path("i.npz"))
    result = PointResult(tmp_path, spec, 1, 2, 3, 44, 0.5, 2.0, 10, 9, 1, 1, 8, 1, 10.0, 9.5, ("a", "b"))
    files.save_result(result)
    assert files.load_result(tmp_path) == result
    assert (result.generator_cores, result.generator_us) == (0.25, pytest.approx(55555.6, abs=0.1))
    with pytest.raises(FileNotFoundError, match="no result of a point"):
        files.load_result(tmp_path / "nothing")


def test_what_is_recorded_is_in_order_of_due_time_and_in_wall_clock(tmp_path: Path) -> None:
    recorder = Recorder(every=2)
    for due, payload in ((30, 0), (10, 1), (20, 1)):
        slot = recorder.begin(due, payload)
        recorder.sent[slot] = due + 1
    recorder.sent[2] = -1
    recorder.fail(2, "dropped")
    recorder.fail(0, "http 503", 503)
    recorder.done[0], recorder.done[1], recorder.status[1] = 99, 55, 200
    recorder.timing(1, b"gateway;dur=0.125, codec;dur=0, upstream;dur=1.001")
    recorder.timing(0, b"miss;dur=1")
    recorder.batch[1], recorder.queue[1], recorder.correct[1] = 4, 77, 1
    assert [recorder.wants(slot) for slot in range(3)] == [True, False, True]
    made = recorder.table(1000, np.array([1, 8], dtype=np.int32))
    files.save_requests(made, tmp_path)
    read = files.load_requests(tmp_path)
    expected = {
        "due_ns": [1010, 1020, 1030],
        "sent_ns": [1011, -1, 1031],
        "done_ns": [1055, -1, 1099],
        "status": [200, 0, 503],
        "error": ["", "dropped", "http 503"],
        "rows": [8, 8, 1],
        "correct": [1, -1, -1],
        "upstream_ns": [1_001_000, -1, -1],
        "gateway_ns": [125_000, -1, -1],
        "codec_ns": [0, -1, -1],
        "batch_size": [4, -1, -1],
        "queue_ns": [77, -1, -1],
    }
    for requests in (made, read):
        assert {name: getattr(requests, name).tolist() for name in COLUMNS} == expected
        assert [str(getattr(requests, name).dtype) for name in COLUMNS] == [
            "int64", "int64", "int64", "int16", "object", "int32", "int8", "int64", "int64", "int64", "int32", "int64",
        ]  # fmt: skip
    assert {item.name for item in fields(Requests)} == set(COLUMNS)
    assert files.in_window(read, 1020, 1030).due_ns.tolist() == [1020]


def test_the_recorder_grows_and_keeps_what_it_has() -> None:
    recorder = Recorder(every=0)
    for number in range(40_000):
        assert recorder.begin(number, number % 2) == number
    made = recorder.table(0, np.array([1, 2], dtype=np.int32))
    assert made.due_ns.tolist() == list(range(40_000))
    assert made.rows.tolist() == [1, 2] * 20_000
    assert not recorder.wants(0)
