"""A capture's file and its replay: what is read back, in which order, when each request is due, what is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.telemetry.capture_format import Captured, CaptureError, Start, frame, opening, read, segment_name
from loadtest.replay import Options, Replay, due_times

REST = Captured(1_000, 0, "tfs-rest", "digits", "", "POST", "/v1/models/digits:predict", {}, 1, 200, "ab12")
GRPC = REST._replace(protocol="tfs-grpc", method="", path="/tensorflow.serving.PredictionService/Predict")


def start(segment: int = 0, capture: str = "one") -> Start:
    return Start(capture, segment, 5, 0.5, 1, [], "0.1.0")


def segment(requests: Sequence[tuple[Captured, bytes]], begin: Start | None = None) -> bytes:
    return opening(begin or start()) + b"".join(frame(head._asdict(), body) for head, body in requests)


def write(folder: Path, *segments: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(segments):
        (folder / segment_name(number)).write_bytes(data)
    return folder


def at(offset_ns: int, kind: Captured = REST) -> Captured:
    return kind._replace(offset_ns=offset_ns)


def test_requests_come_in_time_order_over_segments(tmp_path: Path) -> None:
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": "7"}
    last = at(9_000, REST)._replace(headers=headers, rows=4)
    folder = write(
        tmp_path / "one",
        segment([(at(6_000), b"second"), (at(4_000, GRPC), b"\x00first")]),
        segment([(last, b"third")], start(1)),
    )
    replay = Replay.load(folder)
    assert replay.due_ns.dtype == np.int64
    assert replay.due_ns.tolist() == [0, 2_000, 5_000]
    assert replay.protocol == ["tfs-grpc", "tfs-rest", "tfs-rest"]
    assert [replay.payload(index).body for index in range(3)] == [b"\x00first", b"second", b"third"]
    found = replay.payload(2)
    assert (found.method, found.path, found.headers, found.rows) == ("POST", REST.path, headers, 4)
    assert (found.model, found.unit_hash, len(replay), replay.distinct) == ("digits", "ab12", 3, 3)
    assert Replay.load(tmp_path).due_ns.tolist() == replay.due_ns.tolist()
    assert len(Replay.load(folder / segment_name(1))) == 1


def test_what_was_refused_then_is_left_out_and_the_share_is_told(tmp_path: Path) -> None:
    kinds = [(REST, s) for s in (200, 400, 404, 429, 503)] + [(GRPC, s) for s in (0, 3, 8, 14)]
    requests = [
        (at(i * 10**9, kind)._replace(status=status), str(status).encode()) for i, (kind, status) in enumerate(kinds)
    ]
    folder = write(tmp_path / "some", segment(requests))
    replay = Replay.load(folder)
    bodies = [replay.payload(index).body for index in range(len(replay))]
    assert bodies == [b"200", b"429", b"503", b"0", b"8", b"14"]
    assert replay.told == (
        "6 requests of capture one, a sample of 50% of the traffic, which all in all came 1.25 times a second at this speed; "
        "3 that were refused then are left out"
    )
    assert len(Replay.load(folder, Options(refused=True))) == 9
    write(tmp_path / "none", segment(requests[1:3]))
    with pytest.raises(ConfigError, match="2 were refused as they were captured"):
        Replay.load(tmp_path / "none")


def test_filters_choose_and_times_count_from_the_first_chosen(tmp_path: Path) -> None:
    other = REST._replace(model="mlp")
    folder = write(tmp_path, segment([(at(1), b"a"), (at(5, GRPC), b"b"), (at(8, other), b"c"), (at(9, GRPC), b"d")]))
    assert Replay.load(folder, Options(protocols=["tfs-grpc"])).due_ns.tolist() == [0, 4]
    assert [Replay.load(folder, Options(models={"mlp"})).payload(0).body] == [b"c"]
    with pytest.raises(ConfigError, match="models bert"):
        Replay.load(folder, Options(models=["bert"]))


OFFSETS = [100, 200, 400]  # mean distance 150, so that a loop takes 450


@pytest.mark.parametrize(
    ("options", "due"),
    [
        (Options(), [0, 100, 300]),
        (Options(speed=2.0), [0, 50, 150]),
        (Options(speed=0.5), [0, 200, 600]),
        (Options(loops=2), [0, 100, 300, 450, 550, 750]),
        (Options(loops=2, speed=2.0), [0, 50, 150, 225, 275, 375]),
        (Options(loops=3, most=4), [0, 100, 300, 450]),
        (Options(most=2), [0, 100]),
        (Options(seconds=0.2e-6), [0, 100]),
        (Options(seconds=0.6e-6), [0, 100, 300, 450, 550]),
        (Options(seconds=0.6e-6, most=4), [0, 100, 300, 450]),
    ],
)
def test_when_requests_are_due(options: Options, due: list[int]) -> None:
    assert due_times(np.asarray(OFFSETS, dtype=np.int64), options).tolist() == due


def test_a_loop_sends_the_same_requests_again(tmp_path: Path) -> None:
    replay = Replay.load(write(tmp_path, segment([(at(0), b"a"), (at(10, GRPC), b"b")])), Options(loops=2))
    assert [replay.payload(index).body for index in range(4)] == [b"a", b"b", b"a", b"b"]
    assert replay.protocol == ["tfs-rest", "tfs-grpc"] * 2
    assert replay.distinct == 2
    assert replay.rate == pytest.approx(3e9 / 30)


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 40])
def test_a_torn_last_record_counts_as_never_written(tmp_path: Path, cut: int) -> None:
    whole = segment([(at(0), b"a"), (at(1), b"b" * 30)])
    assert len(Replay.load(write(tmp_path, whole[:-cut]))) == 1


def test_a_last_record_of_zeros_counts_as_never_written(tmp_path: Path) -> None:
    whole = segment([(at(0), b"a"), (at(1), b"b" * 30)])
    assert len(Replay.load(write(tmp_path, whole[:-20] + bytes(20)))) == 1


def test_damage_in_the_middle_is_told_with_its_place(tmp_path: Path) -> None:
    good = bytearray(segment([(at(0), b"aaaa"), (at(1), b"b")]))
    good[good.index(b"aaaa")] ^= 1
    with pytest.raises(ConfigError, match=r"000000\.abgcap: is damaged: the frame at byte \d+"):
        Replay.load(write(tmp_path, bytes(good)))


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"PAR1....", "no segment of a capture"), (b"", "cannot be read"), (opening(start())[:9], "ends before")],
)
def test_what_is_no_capture_is_told(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Replay.load(write(tmp_path, data))


def test_a_head_without_a_field_is_told() -> None:
    with pytest.raises(CaptureError, match="'protocol' is missing"):
        list(read(opening(start()) + frame({"time_ns": 1, "offset_ns": 2}, b""))[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (Options(speed=0), "replay.speed"),
        (Options(loops=0), "replay.loops"),
        (Options(most=0), "replay.most"),
        (Options(seconds=0), "replay.seconds"),
        (Options(loops=2), "no rate"),
    ],
)
def test_options_that_cannot_be_are_told(tmp_path: Path, options: Options, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Replay.load(write(tmp_path, segment([(at(0), b"a")])), options)


def test_where_a_capture_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no capture"):
        Replay.load(tmp_path)
    write(tmp_path / "a", segment([(at(0), b"a")]))
    write(tmp_path / "b", segment([(at(0), b"a")]))
    with pytest.raises(ConfigError, match="holds 2 captures; name one of them: a, b"):
        Replay.load(tmp_path)
    mixed = write(tmp_path / "c", segment([(at(0), b"a")]), segment([(at(0), b"a")], start(1, "two")))
    with pytest.raises(ConfigError, match="different captures"):
        Replay.load(mixed)
