"""Cutting recordings: where warm-up ends, that the same is cut from all, what the block then says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadtest.lab.blocks import common, cut
from loadtest.lab.cut import Cut, own_discard, strangers, validity
from loadtest.lab.figures import batches, quantiles, rate_bounds, torchserve_queue, usage, value_of
from loadtest.lab.recording import BlockPlan
from loadtest.points.spec import Load, Segment
from tests.unit.lab_values import START, recording, requests

CLOSED = Load.closed(1, duration=4.0, warmup=1.0)


def steady(count: int, seconds: float, warm: float = 0.0) -> Any:
    """Requests spread evenly; those of the first `warm` seconds take five times as long."""
    times = np.arange(count) * seconds / count
    latency = 10.0 + np.random.default_rng(1).normal(0, 0.5, count)
    return requests(times, np.where(times < warm, 5 * latency, latency))


@pytest.mark.parametrize(
    ("warm", "slack", "least", "most", "noted"),
    [
        (0.0, 2.0, 1.0, 1.01, False),  # never less than planned
        (1.8, 2.0, 1.7, 2.1, False),  # found
        (2.6, 1.0, 2.0, 2.0, True),  # longer than the recording allows: told
        (2.0, 0.0, 1.0, 1.0, False),  # no slack: the plan's
    ],
)
def test_warm_up_ends_where_the_level_settles(
    warm: float, slack: float, least: float, most: float, noted: bool
) -> None:
    found = own_discard(recording(CLOSED, steady(3000, 5.0 + slack, warm), slack=slack))
    assert least <= found.seconds <= most
    assert (found.note is not None) is noted


def test_few_requests_leave_the_planned_warm_up_and_say_so() -> None:
    found = own_discard(recording(CLOSED, steady(40, 6.0)))
    assert found.seconds == 1.0
    assert "is not known" in (found.note or "")


def test_the_longer_discard_is_used_for_all_and_the_same_duration_kept() -> None:
    slow, fast = (
        recording(CLOSED, steady(3500, 7.0, 1.9), "slow", 2.0),
        recording(CLOSED, steady(7000, 7.0), "fast", 2.0),
    )
    a, b = common([slow, fast])
    assert a.cut.seconds == b.cut.seconds > 1.5
    assert (a.document["n"], b.document["n"]) == (2000, 4000)  # 4 s of 500/s and of 1000/s
    assert a.document["discarded_s"] == b.document["discarded_s"]


@pytest.mark.parametrize(
    ("load", "room", "recorded"),
    [
        (CLOSED, 1.0, 5.0),
        (Load.open(10, 4.0), 1.0, 5.0),
        (Load("open", 4.0, course=(Segment(2, 1, 5), Segment(2, 5, 1))), 0.0, 4.0),
    ],
)
def test_only_a_steady_load_has_slack(load: Load, room: float, recorded: float) -> None:
    plan = BlockPlan(load, None, slack=1.0)  # type: ignore[arg-type]
    assert (plan.room, plan.recorded.duration) == (room, recorded)
    assert sum(part.seconds for part in plan.recorded.course) in (0, recorded)


def test_a_block_counts_errors_late_and_dropped_in_the_denominator() -> None:
    found = requests(np.arange(100) / 100, 5.0)
    found.error[:10], found.done_ns[5:10] = "http 503", -1
    found.error[10:30], found.sent_ns[10:30], found.done_ns[10:30] = "dropped", -1, -1
    found.sent_ns[30:35] += 2_000_000
    found.correct[40:50] = 1
    found.correct[40] = 0
    told = cut(recording(Load.open(100, 1.0), found, slack=0.0), Cut(0.0)).document
    counts = {key: told[key] for key in ("n", "errors", "late", "dropped", "wrong", "judged")}
    assert counts == {"n": 100, "errors": 10, "late": 5, "dropped": 20, "wrong": 1, "judged": 10}
    assert (told["offered"], told["achieved"], told["goodput"]) == (100, 75, 70)
    assert told["service_ms"]["n"] == 80  # dropped ones were never sent
    assert told["intended_ms"]["n"] == 100
    assert "no good answer" in told["intended_ms"]["p90"]["missing"]
    assert not told["valid"]
    assert "sent late" in told["reasons"][0]


def test_intended_latency_counts_from_the_schedule() -> None:
    found = requests(np.arange(200) / 200, 7.0)
    found.sent_ns[:] += 4_000_000
    told = cut(recording(Load.open(200, 1.0), found, slack=0.0), Cut(0.0)).document
    assert told["intended_ms"]["p50"]["value"] == pytest.approx(7.0)
    assert told["service_ms"]["p50"]["value"] == pytest.approx(3.0)


@pytest.mark.parametrize("faults", [(), ("arm a: the process that was started (pid 1) ended",)])
def test_a_block_without_a_generator_is_invalid_and_whole(faults: tuple[str, ...]) -> None:
    told = cut(recording(CLOSED, None, faults=faults), Cut(1.0)).document
    assert (told["valid"], told["n"]) == (False, 0)
    assert told["reasons"] == (list(faults) or ["nothing was measured"])
    assert "missing" in told["service_ms"]["p50"]


@pytest.mark.parametrize(
    ("counts", "cpu", "valid", "capacity"),
    [
        ({}, {}, True, True),
        ({"late": 1}, {}, True, True),
        ({"late": 2}, {}, False, False),
        ({"unlike": 1}, {}, False, False),
        ({"dropped": 50}, {}, True, True),
        ({"errors": 60, "dropped": 40}, {}, False, False),
        ({"n": 0}, {}, False, False),
        ({}, {"generator": 0.71}, True, False),
        ({}, {"gateway": 0.8}, True, False),
        ({}, {"gateway": 0.7, "generator": 0.7}, True, True),
        ({}, {"others": 0.3}, True, False),
    ],
)
def test_what_makes_a_block_invalid_and_what_only_its_capacity(
    counts: dict[str, int], cpu: dict[str, float], valid: bool, capacity: bool
) -> None:
    base = {"n": 100, "errors": 0, "late": 0, "dropped": 0, "wrong": 0, "judged": 0}
    used = {role: {"cores": cores, "rss_bytes": 0} for role, cores in cpu.items()}
    others = used.pop("others", {"cores": None})["cores"]
    unlike = counts.get("unlike", 0)
    told = validity((), base | counts, used, "gateway", others, unlike)
    assert (told["valid"], told["capacity"]["valid"]) == (valid, capacity)
    if "gateway" in cpu and not capacity:
        assert "--direct" in told["capacity"]["reasons"][0]


def test_use_of_the_machine_is_cut_to_the_window() -> None:
    second = 1_000_000_000
    rows = [(i * second, "arm a", cores, 100 + i) for i, cores in enumerate((0.0, 1.0, 0.5, 0.5, 0.0))]
    rows += [(i * second, "machine", 2.0, 0) for i in range(5)]
    rows.sort()
    found = usage(rows, second // 2, 5 * second // 2)
    assert found["arm a"] == {"cores": pytest.approx((0.5 * 1 + 1 * 0.5 + 0.5 * 0.5) / 2), "rss_bytes": 102}
    assert strangers(found) == pytest.approx(2.0 - 0.625)
    assert list(found) == ["arm a"]
    assert strangers(found) is None


def test_quantiles_are_missing_below_their_floors() -> None:
    told = quantiles(np.arange(1.0, 101.0))
    assert told["n"] == 100
    assert told["p999"] == {"missing": "100 samples, p99.9 needs 6636"}
    assert told["p90"]["value"] == 90.0 or told["p90"]["point"] == 90.0  # a straight line depends on itself
    assert value_of(told, "p90") == 90.0
    assert value_of(quantiles(np.random.default_rng(2).gamma(4, 1, 2000)), "p99") == pytest.approx(10, rel=0.1)


def test_batches_are_counted_once_for_the_requests_that_share_them() -> None:
    sizes = np.array([4, 4, 4, 4, 2, 2, 1, -1], np.int32)
    told, _ = batches(sizes, None, max_batch=4)
    assert told == {
        "source": "told with each answer",
        "mean": pytest.approx(7 / 3),
        "buckets": {"1": 1.0, "2": 1.0, "4": 1.0},
        "fill": pytest.approx(7 / 12),
    }
    assert batches(np.full(3, -1, np.int32), None, 4) == (None, {})


def test_torchserve_tells_its_mean_queue_wait_by_two_counters() -> None:
    texts = [
        f'ts_queue_latency_microseconds{{model_name="m"}} {wait}\nts_inference_requests_total{{model_name="m"}} {count}\n'
        for wait, count in ((1000.0, 10), (5000.0, 12))
    ]
    assert torchserve_queue((texts[0], texts[1])) == {"queue_mean_ms": 2.0}
    assert torchserve_queue((texts[0], texts[0])) == {}


def test_the_window_begins_at_the_loads_own_start() -> None:
    found = requests(np.arange(50) / 10, 1.0)
    told = cut(recording(Load.closed(1, 2.0, 1.0), found, slack=2.0), Cut(1.5)).document
    assert told["n"] == 20
    assert found.due_ns[0] == START


def test_a_windows_rate_has_the_bounds_of_its_parts() -> None:
    second = 1_000_000_000
    times = [
        np.arange(count) * second // count + part * second for part, count in enumerate((98, 102, 99, 101, 97, 103))
    ]
    told = rate_bounds(np.concatenate(times), 0, 6 * second)
    # mean 100, standard deviation 2.37, t(5) 2.571: half an interval is 2.571 x 2.37 / sqrt(6)
    assert (told["low"], told["high"]) == pytest.approx((100 - 2.483, 100 + 2.483), abs=0.01)
    assert rate_bounds(np.arange(29), 0, 6 * second) == {"missing": "29 answers, 30 are needed"}
