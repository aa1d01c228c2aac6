"""Schedules of open loops: tables of literals, and what holds for any course and seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from loadtest.points import schedule
from loadtest.points.spec import Load, Segment


def open_load(course: tuple[Segment, ...], warmup: float = 0.0, kind: str = "constant") -> Load:
    total = sum(part.seconds for part in course)
    return Load("open", total, warmup, None, kind, course)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("course", "warmup", "milliseconds"),
    [
        (schedule.constant(4, 1), 0.0, [0, 250, 500, 750]),
        (schedule.constant(4, 1), 0.5, [0, 250, 500, 750, 1000, 1250]),
        (schedule.steps((2, 1), (4, 0.5)), 0.0, [0, 500, 1000, 1250]),
        (schedule.spike(1, 10, 1, 0.3, 1), 0.0, [0, 1000, 1100, 1200, 1300]),
        # rate t on [0, 4): the k-th arrival is at sqrt(2 k)
        (schedule.ramp(0, 4, 4), 0.0, [0, 1414.213562, 2000, 2449.489742, 2828.427124, 3162.27766, 3464.101615, 3741.657386]),
        # rate 4 - t: at 4 - sqrt(16 - 2 k)
        (schedule.ramp(4, 0, 4), 0.0, [0, 258.342613, 535.898384, 837.72234, 1171.572875, 1550.510257, 2000, 2585.786437]),
        (schedule.steps((0, 1), (2, 1)), 0.0, [0 + 1000, 1500]),
        (schedule.soak(2, 3, 1), 0.0, [0, 1000, 1500, 2000, 2500]),
    ],
)  # fmt: skip
def test_constant_arrivals_are_where_the_integrated_rate_says(
    course: tuple[Segment, ...], warmup: float, milliseconds: list[float]
) -> None:
    found = schedule.arrivals(open_load(course, warmup), seed=1)
    assert found.dtype == np.int64
    assert (found / 1e6).tolist() == pytest.approx(milliseconds, abs=1e-5)


def test_the_seed_is_the_schedule() -> None:
    load = Load.open(1000, 2)
    first = schedule.arrivals(load, 7)
    assert first[:5].tolist() == [2462256, 3340319, 3607884, 4654279, 4978170]
    assert np.array_equal(first, schedule.arrivals(load, 7))
    assert not np.array_equal(first[:100], schedule.arrivals(load, 8)[:100])


def test_poisson_gaps_are_exponential_and_counts_vary_as_they_should() -> None:
    times = schedule.arrivals(Load.open(500, 100), 3)
    gaps = np.diff(times) / 1e9
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 500, rel=0.03)
    assert np.quantile(gaps, 0.5) == pytest.approx(np.log(2) / 500, rel=0.03)
    counts = np.histogram(times, bins=1000, range=(0, 100e9))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


def test_poisson_follows_a_ramp() -> None:
    times = schedule.arrivals(open_load(schedule.ramp(0, 2000, 10), kind="poisson"), 5) / 1e9
    counts = np.histogram(times, bins=5, range=(0, 10))[0]
    assert counts.tolist() == pytest.approx([400, 1200, 2000, 2800, 3600], rel=0.1)


segments = st.builds(Segment, st.floats(0.01, 5), st.floats(0, 500), st.floats(0, 500))


@settings(max_examples=60, deadline=None)
@given(st.lists(segments, min_size=1, max_size=5), st.floats(0, 2), st.integers(0, 2**40))
def test_any_course_gives_ascending_times_inside_it(parts: list[Segment], warmup: float, seed: int) -> None:
    for kind in ("constant", "poisson"):
        load = open_load(tuple(parts), warmup, kind)
        times = schedule.arrivals(load, seed)
        mean, whole = schedule.expected(load), (load.warmup + load.duration) * 1e9
        assert (np.diff(times) >= 0).all()
        assert times.size == 0 or (times[0] >= 0 and times[-1] <= whole + 1)
        if kind == "constant":
            assert abs(times.size - mean) <= 1
        else:
            assert abs(times.size - mean) <= 7 * np.sqrt(mean) + 12


@settings(max_examples=25, deadline=None)
@given(st.lists(segments, min_size=1, max_size=4))
def test_constant_arrivals_are_one_apart_in_integrated_rate(parts: list[Segment]) -> None:
    times = schedule.arrivals(open_load(tuple(parts)), 0) / 1e9
    grid = np.linspace(0, sum(part.seconds for part in parts), 1_001)
    rates = np.array([schedule.rate_at(parts, moment) for moment in grid])
    reached = np.concatenate([[0], np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(grid))])
    assert np.interp(times, grid, reached) == pytest.approx(np.arange(times.size), abs=0.6 + 1000 * grid[1])


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (Load("closed", 1, 0, None), "concurrency of at least 1, not None"),
        (Load.closed(0, 1), "concurrency of at least 1, not 0"),
        (Load.closed(1, 0), "the duration must be above 0"),
        (Load("open", 1), "at least one segment"),
        (Load("open", 2, course=schedule.constant(1, 1)), "they must be equal"),
        (Load("open", 1, course=schedule.constant(-1, 1)), "rates that are not negative"),
        (Load.open(10, 1, outstanding=0), "at least 1 place"),
        (Load.open(1e9, 1), "lower the rate"),
    ],
)
def test_a_load_that_cannot_be_says_why(load: Load, told: str) -> None:
    assert any(told in problem for problem in schedule.problems(load))
    with pytest.raises(ConfigError):
        schedule.arrivals(load, 1)
