"""Plans, windows and draws: what is sent when, and that a seed repeats it."""

from itertools import islice

import numpy as np
import pytest

from loadtest.arrivals import (
    Plan,
    Step,
    Window,
    choice_draws,
    generator,
    unit_draws,
    unit_names,
    zipf_cumulative,
)

PLAN = Plan(warmup=5.0, steps=(Step(2, 10.0), Step(8, 20.0)), spawn_rate=4.0, rate=100.0)


@pytest.mark.parametrize(
    ("elapsed", "users"),
    [(0.0, 2), (4.9, 2), (5.0, 2), (14.9, 2), (15.0, 8), (34.9, 8), (35.0, None), (99.0, None)],
)
def test_users_follow_the_steps_after_the_warm_up(elapsed: float, users: int | None) -> None:
    assert PLAN.users_at(elapsed) == users


@pytest.mark.parametrize(("elapsed", "interval"), [(0.0, 0.02), (20.0, 0.08), (40.0, 0.08)])
def test_each_user_sends_its_share_of_the_rate(elapsed: float, interval: float) -> None:
    assert PLAN.interval(elapsed) == interval


def test_a_closed_loop_has_no_interval() -> None:
    plan = Plan(0.0, (Step(3, 1.0),), 3.0, None)
    assert (plan.interval(0.5), plan.offered) == (0.0, None)


def test_what_a_rate_offers_in_the_window() -> None:
    assert (PLAN.duration, PLAN.offered) == (30.0, 3000.0)


def test_the_planned_window_leaves_the_warm_up_out() -> None:
    window = Window.planned(PLAN, wall_ns=1_000, monotonic_ns=400)
    assert window == Window(1_000, 5_000_001_000, 35_000_001_000, 600)


@pytest.mark.parametrize(
    ("cut_at", "start", "end"),
    [(90, 20, 50), (40, 20, 40), (15, 15, 15), (3, 10, 10)],
)
def test_a_run_cut_off_keeps_what_it_measured(cut_at: int, start: int, end: int) -> None:
    assert Window(10, 20, 50, 0).cut(cut_at) == Window(10, start, end, 0)


def test_equal_seeds_give_equal_draws_and_users_differ() -> None:
    def units(*path: int) -> list[int]:
        return list(islice(unit_draws(generator(7, *path), 10_000, None), 5000))

    assert units(2, 0, 1) == units(2, 0, 1)
    assert units(2, 0, 1) != units(2, 0, 2)
    assert min(units(2, 0, 1)) >= 0
    assert max(units(2, 0, 1)) < 10_000


def test_zipf_prefers_the_first_ranks_by_its_law() -> None:
    cumulative = zipf_cumulative(10_000, 1.0)
    draws = np.fromiter(islice(unit_draws(generator(1), 10_000, cumulative), 200_000), dtype=np.int64)
    harmonic = float((1 / np.arange(1, 10_001)).sum())
    for rank in (1, 2, 10):
        expected = 200_000 / (rank * harmonic)
        assert abs((draws == rank - 1).sum() - expected) < 5 * expected**0.5
    assert draws.max() < 10_000


def test_groups_are_drawn_by_weight_and_their_members_evenly() -> None:
    drawn = list(islice(choice_draws(generator(3), sizes=[2, 5], weights=[3, 1]), 40_000))
    first = [member for group, member in drawn if group == 0]
    assert abs(len(first) - 30_000) < 500
    assert abs(sum(first) - 15_000) < 500
    assert {member for group, member in drawn if group == 1} == {0, 1, 2, 3, 4}


def test_another_seed_is_another_population() -> None:
    assert unit_names(1, 2) == ["u1-000000", "u1-000001"]
    assert not set(unit_names(1, 100)) & set(unit_names(2, 100))
