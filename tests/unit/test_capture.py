"""Captures: which requests are drawn, what is kept of them, that bounds hold, and what a full disk does."""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.telemetry.capture import Capture, Counts, Kept, Terms
from gateway.telemetry.capture_format import Captured, Start, read
from gateway.telemetry.capture_writer import CaptureWriter
from gateway.telemetry.unit_hash import unit_hash
from loadtest.replay import Replay

KEY = bytes(32)
TERMS = Terms(share=1.0, size=1 << 20, body=1000)
START = Start("c", 0, 1, 1.0, 1, [], "0")
PATH = "/v1/models/m:predict"


@dataclass
class Call:
    """A request as the data plane would give it."""

    model: str = "m"
    start_ns: int = 1_500
    unit: str = "alice"
    kept: Kept | None = None
    wall_ns: int = 7
    protocol_in: str = "tfs-rest"
    version: str = "1"
    rows: int = 2


def send(
    capture: Capture, body: bytes = b"{}", call: Call | None = None, headers: dict[bytes, bytes] | None = None
) -> bool:
    """One request through a capture; whether it was taken."""
    call = call or Call()
    capture.take(call, b"POST", PATH, headers or {}, body)
    if call.kept is None:
        return False
    call.kept.end(call, 200)
    return True


def writer(capture: Capture, folder: Path, room: int = 1 << 20) -> tuple[CaptureWriter, list[int]]:
    """A started writer, and what grows when it ends by itself."""
    ended: list[int] = []
    made = CaptureWriter(capture, folder, START, room=room, unit_key=KEY, ended=lambda: ended.append(1))
    made.start()
    return made, ended


def stored(folder: Path) -> list[tuple[Captured, bytes]]:
    """Every record in the folder's segments, as it lies there."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        found += [(head, data[place.offset : place.offset + place.size]) for head, place in read(data)[1]]
    return found


def test_the_same_seed_takes_the_same_requests() -> None:
    def drawn(seed: int) -> list[bool]:
        capture = Capture(Terms(0.25, 1 << 20, 1000, seed=seed), Counts(), 0)
        return [send(capture) for _ in range(2000)]

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert 400 < sum(first) < 600


def test_what_is_kept_of_a_request_and_what_is_not(tmp_path: Path) -> None:
    capture = Capture(TERMS, Counts(), 1_000)
    made, ended = writer(capture, tmp_path / "c")
    headers = {
        b"content-type": b"application/octet-stream",
        b"inference-header-content-length": b"12",
        b"authorization": b"Bearer secret",
        b"cookie": b"session=secret",
        b"x-user-id": b"alice",
    }
    send(capture, b"\x00\xffbody", headers=headers)
    made.close()
    kept = {"content-type": "application/octet-stream", "inference-header-content-length": "12"}
    expected = Captured(7, 500, "tfs-rest", "m", "1", "POST", PATH, kept, 2, 200, unit_hash("alice", KEY))
    assert stored(tmp_path / "c") == [(expected, b"\x00\xffbody")]
    (path,) = (tmp_path / "c").iterdir()
    assert b"secret" not in path.read_bytes()
    assert b"alice" not in path.read_bytes()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert Replay.load(tmp_path).payload(0).body == b"\x00\xffbody"
    assert not ended


def test_only_the_models_asked_for_and_no_body_over_the_limit(tmp_path: Path) -> None:
    capture = Capture(Terms(1.0, 1 << 20, body=3, models=["m"]), Counts(), 0)
    made, _ = writer(capture, tmp_path / "c")
    for body, model in ((b"123", "m"), (b"1234", "m"), (b"1", "other")):
        send(capture, body, Call(model=model))
    made.close()
    assert [body for _, body in stored(tmp_path / "c")] == [b"123"]
    assert (capture.counts.seen, capture.counts.written, capture.counts.body) == (3, 1, 1)


def test_the_size_holds_and_the_capture_ends_there(tmp_path: Path) -> None:
    capture = Capture(TERMS, Counts(), 0)
    made, ended = writer(capture, tmp_path / "c", room=5_000)
    for _ in range(100):
        send(capture, b"x" * 500)
    made.close()
    size = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert 4_000 < size <= 5_000
    assert capture.counts.bytes == size
    assert made.reason == "the size that is allowed is used up"
    assert ended == [1]
    assert capture.counts.written == len(stored(tmp_path / "c")) > 4
    assert capture.counts.written + capture.counts.ended == 100


def test_segments_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.capture_writer._SEGMENT_BYTES", 2_000)
    monkeypatch.setattr("gateway.telemetry.capture_writer._CHUNK_BYTES", 1)
    capture = Capture(TERMS, Counts(), 0)
    made, _ = writer(capture, tmp_path / "c", room=20_000)
    for number in range(40):
        send(capture, b"%03d" % number * 100, Call(start_ns=number))
    made.close()
    files = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert files[:2] == ["000000.abgcap", "000001.abgcap"]
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) <= 20_000
    replay = Replay.load(tmp_path / "c")
    assert [replay.payload(index).body for index in range(3)] == [b"000" * 100, b"001" * 100, b"002" * 100]


def test_a_queue_that_is_full_drops_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.capture._WAITING_BYTES", 1_000)
    capture = Capture(TERMS, Counts(), 0)
    for _ in range(10):
        send(capture, b"x" * 400)
    assert (len(capture.waiting), capture.counts.queue) == (2, 8)


def test_what_ends_after_the_stop_is_counted_and_not_kept(tmp_path: Path) -> None:
    capture = Capture(TERMS, Counts(), 0)
    call = Call()
    capture.take(call, b"POST", PATH, {}, b"")
    capture.stopped = True
    assert call.kept is not None
    call.kept.end(call, 200)
    assert (len(capture.waiting), capture.counts.late) == (0, 1)


def test_a_disk_that_is_full_ends_the_capture_with_whole_records(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
        from pathlib import Path
        from test_capture import TERMS, Capture, Counts, send, stored, writer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        capture = Capture(TERMS, Counts(), 0)
        folder = Path({str(tmp_path / "c")!r})
        made, ended = writer(capture, folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
        for _ in range(3):
            send(capture, b"x" * 300)
        while capture.counts.written < 3: pass
        for _ in range(50):
            send(capture, b"x" * 300)
        made.close()
        assert made.reason.startswith("the disk: "), made.reason
        assert ended == [1]
        assert len(stored(folder)) == capture.counts.written == 3, capture.counts
        assert capture.counts.ended == 50, capture.counts
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "c") == ["000000.abgcap"]
