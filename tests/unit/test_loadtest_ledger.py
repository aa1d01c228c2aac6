"""The ledger loses nothing it was given, and says what it lost; run.json's numbers come from the window alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arro3.io import read_parquet

from gateway.stats.result import require
from gateway.stats.schedule import ScheduleCheck, schedule_check
from loadtest import ledger
from loadtest.arrivals import Window
from loadtest.profiles import parse
from loadtest.resources import at
from loadtest.summary import Course, Tallies, judge, limited_by, percentile


def row(send_ns: int = 100, **changes: Any) -> tuple[Any, ...]:
    base = ledger.Row(send_ns, 1_234_567, "tfs-rest", "u1-000001", "a", "sticky", "r1", 200, "", 1, True)
    return tuple(base._replace(**changes))


def table(path: Path) -> list[tuple[Any, ...]]:
    columns = read_parquet(str(path)).read_all()
    assert columns.column_names == list(ledger.COLUMNS)
    return list(zip(*(columns.column(name).to_pylist() for name in ledger.COLUMNS), strict=True))


def test_what_is_journaled_comes_out_as_parquet_unrounded(tmp_path: Path) -> None:
    journal = ledger.Journal(tmp_path / "ledger-0-1.jsonl")
    rows = [row(10), row(20, arm="", error="timeout", status=0, correct=None), row(30, unit="ü", correct=False)]
    for item in rows[:2]:
        journal.append(item)
    journal.flush()
    journal.append(rows[2])
    journal.flush()
    journal.flush()
    assert (journal.written, journal.dropped) == (3, 0)
    seen: list[ledger.Columns] = []
    (segment,) = ledger.compact([tmp_path / "ledger-0-1.jsonl"], tmp_path, start_ns=20, see=seen.append)
    expected = [(*rows[0], True), (*rows[1], False), (*rows[2], False)]
    assert (segment.rows, table(segment.path)) == (3, expected)
    assert [tuple(zip(*(columns[name] for name in ledger.COLUMNS), strict=True)) for columns in seen] == [
        tuple(expected)
    ]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".parquet"]


def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    journal = ledger.Journal(tmp_path / "j.jsonl")
    journal.append(row())
    journal.flush()
    with (tmp_path / "j.jsonl").open("ab") as file:
        file.write(b'[123,456,"tfs-')
    assert [len(rows) for rows in ledger.read_journal(tmp_path / "j.jsonl")] == [1]


def test_a_buffer_that_is_full_and_a_disk_that_fails_are_counted(tmp_path: Path) -> None:
    journal = ledger.Journal(tmp_path / "missing" / "j.jsonl", limit=2)
    for _ in range(3):
        journal.append(row())
    assert journal.dropped == 1
    journal.flush()
    assert (journal.written, journal.dropped) == (0, 3)


def test_an_empty_ledger_still_has_its_columns(tmp_path: Path) -> None:
    ledger.write_segment(tmp_path / "e.parquet", [])
    assert table(tmp_path / "e.parquet") == []


def test_long_journals_become_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "SEGMENT_ROWS", 2)
    journal = ledger.Journal(tmp_path / "j.jsonl")
    for number in range(5):
        journal.append(row(number))
    journal.flush()
    segments = ledger.compact([tmp_path / "j.jsonl"], tmp_path, 0)
    assert [segment.rows for segment in segments] == [2, 2, 1]
    assert [item[0] for segment in segments for item in table(segment.path)] == [0, 1, 2, 3, 4]


def tallies(*rows: tuple[Any, ...]) -> Tallies:
    found = Tallies(Window(0, 100, 200, 0))
    for part in filter(None, (rows[:3], rows[3:])):
        found.see(dict(zip(ledger.Row._fields, zip(*part, strict=True), strict=True)))
    return found


PROFILE = parse(
    {"model": "m", "users": 1, "duration": 10, "mix": {"tfs-rest": 1}, "limits": {"errors": 0.1, "correct": 0.5}}, "p"
)
OPEN = parse({"model": "m", "users": 1, "duration": 10, "mix": {"tfs-rest": 1}, "rate": 1.0}, "p")
BOTH = {"a": 50.0, "b": 50.0}
FINE = [row(100 + n) for n in range(10)] + [row(100 + n, arm="b") for n in range(10)]


def schedule(late: int) -> ScheduleCheck:
    due = np.arange(100, dtype=np.int64) * 10_000_000
    return require(schedule_check(due, due + 2_000_000 * (np.arange(100) < late)))


def test_only_the_window_counts() -> None:
    found = tallies(row(99), row(100), row(199), row(200), row(150, arm="b", error="reset", correct=None))
    assert found.requests == 3
    assert {arm: (tally.requests, dict(tally.errors)) for arm, tally in found.arms().items()} == {
        "a": (2, {}),
        "b": (1, {"reset": 1}),
    }


@pytest.mark.parametrize(
    ("rows", "options", "code", "reason"),
    [
        (FINE, {}, 0, None),
        ([*FINE, row(error="http 503", correct=None)], {}, 0, None),
        ([*FINE, *[row(error="http 503", correct=None)] * 2], {}, 1, "a: 2 of 12 requests failed (16.67%)"),
        ([*FINE, *[row(arm="b", correct=False)] * 11], {}, 1, "b: 10 of 21 judged answers were right (47.62%)"),
        ([*FINE, row(arm="", error="refused", correct=None)], {}, 0, None),
        ([*FINE, *[row(arm="", error="refused", correct=None)] * 3], {}, 1, "an arm: 3 of 23 requests failed (13.04%)"),
        (FINE[:10], {}, 2, "b: has weight and got no request"),
        (FINE[:10], {"weights": {"a": 1.0, "b": 0.0}}, 0, None),
        ([], {}, 2, "no request was sent in the measurement window"),
        (FINE, {"dropped": 4}, 2, "4 requests are missing in the ledger"),
        (FINE, {"interrupted": True}, 2, "interrupted before the end"),
        (FINE[:9], {"profile": OPEN, "weights": {"a": 1.0}}, 2, "90.0% of the wanted rate was sent"),
        (FINE[:10], {"profile": OPEN, "weights": {"a": 1.0}}, 0, None),
        (FINE, {"schedule": schedule(late=1)}, 0, None),
        (FINE, {"schedule": schedule(late=2)}, 2, "INVALID: 2 late and 0 dropped of 100 arrivals"),
        ([], {"schedule": schedule(late=2)}, 2, "INVALID: 2 late"),
    ],
)
def test_the_verdict_of_a_run(rows: list[Any], options: dict[str, Any], code: int, reason: str | None) -> None:
    verdict = judge(
        tallies(*rows),
        options.get("profile", PROFILE),
        options.get("weights", BOTH),
        Course(options.get("dropped", 0), options.get("interrupted", False), options.get("schedule")),
    )
    assert verdict.exit_code == code
    assert (reason is None and verdict.reasons == ()) or str(reason) in verdict.reasons[0]


def test_a_percentile_needs_its_samples() -> None:
    assert percentile([1_000_000] * 661, 0.99) is None
    assert percentile([1_000_000] * 662, 0.99) == 1.0
    assert percentile(list(range(0, 11_000_000, 1_000_000)), 0.5) == 5.0
    assert (
        percentile(list(range(0, 12_000_000, 1_000_000)), 0.5) == 5.0
    )  # an observation, as on the report, never between two


@pytest.mark.parametrize(
    ("cores", "limited"),
    [((0.7, 0.7), []), ((0.71, 0.2), ["generator"]), ((0.9, 0.8), ["generator", "gateway"])],
)
def test_what_limited_the_run(cores: tuple[float, float], limited: list[str]) -> None:
    assert limited_by(*cores) == limited


@pytest.mark.parametrize(("time_ns", "value"), [(5, 0.0), (10, 1.0), (15, 2.0), (20, 3.0), (99, 3.0)])
def test_a_cumulative_series_is_linear_between_samples(time_ns: int, value: float) -> None:
    assert at([10, 20], [1.0, 3.0], time_ns) == value
    assert at([], [], time_ns) == 0.0
    assert np.isclose(at([10, 20, 40], [1.0, 3.0, 4.0], 30), 3.5)
