"""Literal tables for blocks of time, capacities, warm-up and schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gateway.stats.blocks import (
    MIN_BLOCKS,
    Cells,
    Resampling,
    block_length,
    dependent_quantile,
    dependent_rate,
    over_rate,
)
from gateway.stats.capacity import (
    Capacity,
    RatePoint,
    Slo,
    capacity,
    capacity_ratio,
    cost_per_million,
    crossing,
    monotone,
    over_slo,
    rate_point,
)
from gateway.stats.result import Estimate, Interval, NotComputable, require
from gateway.stats.schedule import ScheduleCheck, schedule_check
from gateway.stats.warmup import Drift, WarmUp, bin_means, common_discard, drift, mser, warm_up


@pytest.mark.parametrize(
    ("series", "low", "high"),
    [
        (np.zeros(100), 1, 1),
        (np.ones(5), 1, 1),
        (np.random.default_rng(1).random(5000), 1, 12),
        (np.repeat(np.random.default_rng(1).random(500), 20), 30, 200),
        (np.linspace(0.0, 1.0, 1000), 200, 250),
    ],
    ids=["still", "short", "independent", "runs of 20", "trend"],
)
def test_block_length_follows_the_memory(series: np.ndarray, low: int, high: int) -> None:
    assert low <= block_length(series) <= high


def test_cells_are_a_quarter_of_a_block() -> None:
    cells = require(Cells.of(1000, 10))
    assert (cells.blocks, cells.sizes.size, cells.sizes.sum()) == (100, 400, 1000.0)
    assert np.array_equal(cells.codes, np.sort(cells.codes))
    weights = cells.weights(np.random.default_rng(1), 50)
    assert weights.shape == (50, 400)
    assert np.array_equal(weights.sum(axis=1), np.full(50, 400.0))
    assert Cells.of(100, 6) == NotComputable(
        "requests depend on each other over 6 of them, so that 100 are only 16 independent stretches; 20 are needed: "
        "a longer run"
    )


def test_a_quantile_of_independent_requests_weighs_all_of_them() -> None:
    values = np.random.default_rng(2).permutation(np.arange(1.0, 2001.0))
    estimate = require(dependent_quantile(values, 0.5, Resampling(seed=1, length=1)))
    assert (estimate.value, estimate.n) == (1000.0, 2000)
    assert isinstance(estimate.interval, Interval)
    assert 940 < estimate.interval.low < 965
    assert 1035 < estimate.interval.high < 1062


def test_repeated_requests_weigh_less_and_seeds_repeat() -> None:
    values = np.repeat(np.random.default_rng(3).exponential(size=2000), 10)
    found = require(dependent_quantile(values, 0.5, Resampling(seed=5)))
    assert 9.0 <= found.design_effect <= 18.0
    assert dependent_quantile(values, 0.5, Resampling(seed=5)) == found


@pytest.mark.parametrize(
    ("values", "q", "reason"),
    [
        (np.arange(600.0), 0.99, "600 samples, p99 needs 662"),
        (np.repeat(np.random.default_rng(4).random(700), 10), 0.99, "independent ones, p99 needs 662"),
        (np.r_[np.ones(900), np.full(100, math.inf)], 0.95, "more than 5% of the requests got no answer"),
    ],
)
def test_quantiles_that_are_not_told(values: np.ndarray, q: float, reason: str) -> None:
    result = dependent_quantile(values, q)
    assert isinstance(result, NotComputable)
    assert reason in result.reason


def test_a_trend_has_a_value_and_no_interval() -> None:
    result = require(dependent_quantile(np.arange(2000.0), 0.5))
    assert result.value == 999.0
    assert isinstance(result.interval, NotComputable)
    assert "a longer run" in result.interval.reason


def test_nan_is_refused() -> None:
    for refusing in (lambda values: dependent_quantile(values, 0.5), lambda values: over_rate(values, 1.0)):
        with pytest.raises(ValueError, match="NaN"):
            refusing(np.array([1.0, math.nan]))


def test_shares_over_a_threshold() -> None:
    values = np.random.default_rng(5).exponential(size=4000)
    values[::100] = math.inf
    rate = require(over_rate(values, 3.0))
    assert (rate.hits, rate.n) == (int((values > 3.0).sum()), 4000)
    assert 1.0 <= rate.design_effect < 1.6
    for threshold, hits in ((1e9, 40), (1e-9, 4000)):
        assert require(over_rate(values, threshold)).hits == hits
    assert over_rate(np.array([]), 1.0) == NotComputable("no observations")
    for threshold in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive and finite"):
            over_rate(values, threshold)


def test_few_requests_over_inherit_the_dependence_of_the_others() -> None:
    values = np.repeat(np.random.default_rng(6).exponential(size=2000), 10)
    assert require(over_rate(values, float(values.max()))).hits == 0
    assert require(over_rate(values, float(values.max()))).design_effect > 5.0


def test_a_rate_by_blocks() -> None:
    hits = np.repeat(np.random.default_rng(7).random(400) < 0.1, 10)
    rate = require(dependent_rate(hits))
    assert (rate.hits, rate.n) == (int(hits.sum()), 4000)
    assert 6.0 < rate.design_effect < 16.0
    assert dependent_rate(np.zeros(0, dtype=bool)) == NotComputable("no observations")


def test_what_is_over() -> None:
    latency = np.array([1.0, 2.0, 2.1, math.nan, 0.5])
    answered = np.array([True, True, True, False, False])
    assert over_slo(latency, answered, 2.0).tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match="5 latencies but 2 outcomes"):
        over_slo(latency, answered[:2], 2.0)
    with pytest.raises(ValueError, match="threshold is positive"):
        over_slo(latency, answered, 0.0)


@pytest.mark.parametrize(
    ("shares", "sizes", "fit"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 1], [0.1, 0.2, 0.3]),
        ([0.3, 0.1, 0.5], [1, 1, 1], [0.2, 0.2, 0.5]),
        ([0.3, 0.1, 0.5], [1, 3, 1], [0.15, 0.15, 0.5]),
        ([0.5, 0.4, 0.3, 0.2], [1, 1, 1, 1], [0.35] * 4),
        ([0.1, 0.5, 0.4, 0.3, 0.9], [1, 1, 1, 1, 1], [0.1, 0.4, 0.4, 0.4, 0.9]),
    ],
)
def test_monotone_fit_pools_adjacent_violators(shares: list[float], sizes: list[float], fit: list[float]) -> None:
    found = monotone(np.array([shares, shares]), np.array(sizes, dtype=float))
    assert found == pytest.approx(np.array([fit, fit]))


def test_the_crossing_is_straight_in_the_logarithm() -> None:
    rates = np.array([10.0, 20.0, 30.0])
    fits = np.array([[0.001, 0.1, 0.5], [0.001, 0.01, 0.5], [0.02, 0.1, 0.5], [0.001, 0.002, 0.003], [0.01, 0.01, 1.0]])
    assert crossing(rates, fits, 0.01) == pytest.approx([15.0, 20.0, 0.0, math.inf, 20.0])


def grid(shares: dict[float, float], n: int = 4000, failed: float = 0.0) -> list[RatePoint]:
    """Evenly spread requests over the SLO, so that blocks hardly vary; of them the given part failed."""
    points = []
    for rate, share in shares.items():
        over = np.floor(np.arange(1, n + 1) * share) > np.floor(np.arange(n) * share)
        points.append(require(rate_point(rate, over, over & (np.arange(n) < failed * n), length=20)))
    return points


STEEP = {10.0: 0.0, 20.0: 0.001, 30.0: 0.003, 40.0: 0.1, 50.0: 0.6}


def test_capacity_of_a_steep_curve() -> None:
    found = require(capacity(grid(STEEP), Slo(0.01)))
    # between 12.5/4001 at 30 and 400.5/4001 at 40, logarithmically
    assert found.estimate.value == pytest.approx(30 + 10 * math.log(0.01 / (12.5 / 4001)) / math.log(400.5 / 12.5))
    assert isinstance(found.estimate.interval, Interval)
    # the high end is wide: where 0.2% or less are over at 30, the jump to 10% may be anywhere
    assert 31.0 < found.estimate.interval.low < found.estimate.value < found.estimate.interval.high < 37.5
    assert {p.rate: p.over for p in found.curve} == pytest.approx(STEEP)
    assert {p.n for p in found.curve} == {4000}
    assert require(capacity(list(reversed(grid(STEEP))), Slo(0.01))).estimate == found.estimate


def test_an_own_limit_on_errors_can_be_the_lesser() -> None:
    points = grid(STEEP, failed=1.0)
    assert require(capacity(points, Slo(0.05, 0.002))).estimate.value < 30.0
    assert require(capacity(points, Slo(0.002, 0.05))).estimate.value < 30.0
    assert require(capacity(grid(STEEP), Slo(0.05, 0.002))).estimate.value > 30.0


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (grid({10.0: 0.0, 20.0: 0.0, 30.0: 0.5}), "3 rates, a curve needs at least 4"),
        (grid(dict.fromkeys((10.0, 20.0, 30.0, 40.0), 0.001)), "the SLO still holds at the highest rate, 40 req/s"),
        (grid(dict.fromkeys((10.0, 20.0, 30.0, 40.0), 0.2)), "the SLO is missed already at the lowest rate, 10 req/s"),
        (grid(STEEP, n=600), "600 requests at 10 req/s, p99 needs 662"),
    ],
)
def test_capacities_that_are_not_told(points: list[RatePoint], reason: str) -> None:
    found = capacity(points, Slo(0.01))
    assert isinstance(found, NotComputable)
    assert found.reason.startswith(reason)


def test_a_capacity_at_the_edge_of_its_grid_has_no_interval() -> None:
    found = require(capacity(grid({10.0: 0.0, 20.0: 0.0, 30.0: 0.002, 40.0: 0.0115}), Slo(0.01)))
    assert found.estimate.interval == NotComputable("the interval reaches above the highest rate, 40 req/s")
    assert capacity_ratio(found, found) == NotComputable("arm A: the interval reaches above the highest rate, 40 req/s")


def test_a_burst_near_the_limit_says_little_about_low_rates() -> None:
    """A burst holds as many requests as arrive while it lasts: at a tenth of the rate a tenth of them."""
    points = grid({10.0: 0.0, 20.0: 0.0, 40.0: 0.0, 60.0: 0.0, 120.0: 0.4})
    burst = (np.arange(4000) >= 2000) & (np.arange(4000) < 2080)  # 2% in one piece
    points.append(require(rate_point(100.0, burst, np.zeros(4000, dtype=bool), length=80)))
    interval = require(require(capacity(points, Slo(0.01))).estimate.interval)
    assert 10.0 < interval.low < 100.0 < interval.high < 120.0


def test_long_memory_at_the_crossing_forbids_the_interval() -> None:
    points = grid(STEEP)
    slow = np.repeat(np.arange(8) == 3, 500)[:4000] & (np.arange(4000) % 50 == 0)
    points[2] = require(rate_point(30.0, slow, np.zeros(4000, dtype=bool), length=500))
    found = require(capacity(points, Slo(0.01)))
    assert isinstance(found.estimate.interval, NotComputable)
    assert "over 500 of 4000: a longer run is needed" in found.estimate.interval.reason


def test_a_rate_must_not_occur_twice_and_a_limit_is_a_share() -> None:
    with pytest.raises(ValueError, match="the rate 10 occurs twice"):
        capacity([*grid(STEEP), *grid({10.0: 0.1})], Slo(0.01))
    for over in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            Slo(over)


def told(value: float, replicates: list[float]) -> Capacity:
    return Capacity(Estimate(value, 10, Interval(1.0, 2.0)), (), np.array(replicates * 50))


def test_a_ratio_of_capacities_and_replicates_off_the_grid() -> None:
    ratio = require(capacity_ratio(told(10.0, [9.0, 10.0, 11.0]), told(20.0, [20.0, 20.0, 20.0])))
    assert ratio.value == 2.0
    assert (ratio.interval.low, ratio.interval.high) == pytest.approx((20 / 11, 20 / 9))
    assert ratio.p_value == pytest.approx(2 / 151)
    wide = require(capacity_ratio(told(10.0, [10.0, math.inf]), told(20.0, [20.0, math.inf])))
    assert (wide.interval.low, wide.interval.high) == (0.0, math.inf)
    assert wide.p_value == 1.0
    assert capacity_ratio(NotComputable("3 rates"), told(1.0, [1.0])) == NotComputable("arm A: 3 rates")


def test_cost() -> None:
    assert cost_per_million(100.0, 0.036) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="a rate above 0"):
        cost_per_million(0.0, 1.0)


def test_mser_cuts_the_loud_beginning() -> None:
    series = np.r_[np.full(50, 9.0), np.tile([1.0, 2.0, 1.0, 2.0, 1.5], 50)]
    assert mser(series) == 50
    assert mser(np.tile([1.0, 2.0, 1.0, 2.0, 1.5], 50)) == 0
    late = mser(np.r_[np.full(150, 9.0), np.tile([1.0, 2.0], 80)])
    assert isinstance(late, NotComputable)
    assert "a longer run" in late.reason
    assert mser(np.ones(99)) == NotComputable("99 observations, the end of warm-up needs 100")


def test_warm_up_in_seconds_and_the_longer_of_two() -> None:
    seconds = 1000.0 + np.arange(6000) / 100.0
    ripple = np.tile([1.0, 1.2, 0.8], 2000)
    slow = warm_up(seconds, np.where(seconds < 1012.0, 5.0, 1.0) * ripple)
    fast = warm_up(seconds, ripple)
    assert isinstance(slow, WarmUp)
    assert isinstance(fast, WarmUp)
    assert slow.seconds == pytest.approx(12.0, abs=0.5)
    assert slow.before == pytest.approx(5.0, rel=0.01)
    assert slow.after == pytest.approx(1.0, rel=0.01)
    assert common_discard(fast, slow) == slow.seconds
    assert common_discard(fast, NotComputable("9 requests")) == NotComputable("arm B: 9 requests")


def test_warm_ups_that_are_not_told() -> None:
    assert warm_up(np.arange(400.0), np.ones(400)) == NotComputable("400 requests, the end of warm-up needs 500")
    assert warm_up(np.arange(600.0), np.full(600, math.inf)) == NotComputable("no request was answered")
    with pytest.raises(ValueError, match="3 send times but 2 values"):
        warm_up(np.ones(3), np.ones(2))


def test_bins_leave_gaps_open() -> None:
    means = bin_means(np.array([0.0, 1.0, 9.0, 10.0]), np.array([1.0, 3.0, math.inf, 5.0]), 5)
    assert means.tolist()[::4] == [2.0, 5.0]
    assert np.isnan(means[1:4]).all()


def test_drift_of_a_step_and_of_nothing() -> None:
    seconds = np.arange(6000) / 100.0
    noise = np.random.default_rng(8).exponential(1.0, 6000)
    step = drift(seconds, noise + np.where(seconds >= 40.0, 2.0, 0.0))
    assert isinstance(step, Drift)
    assert step.found
    assert step.p_value == 0.001
    assert step.at == pytest.approx(40.0, abs=0.01)
    assert step.after - step.before == pytest.approx(2.0, abs=0.1)
    still = drift(seconds, noise)
    assert isinstance(still, Drift)
    assert (still.found, still.p_value) == (False, 1.0)


def test_drifts_that_are_not_told() -> None:
    assert drift(np.arange(50.0), np.ones(50)) == NotComputable("50 requests, drift needs 100")
    assert drift(np.arange(500.0), np.ones(500)) == NotComputable("the medians of all stretches are equal")
    broken = drift(np.arange(500.0), np.r_[np.random.default_rng(1).random(400), np.full(100, math.inf)])
    assert isinstance(broken, NotComputable)
    with pytest.raises(ValueError, match="alpha is one of"):
        drift(np.arange(500.0), np.ones(500), alpha=0.03)


@pytest.mark.parametrize(
    ("late", "dropped", "valid", "share"),
    [(0, 0, True, 0.0), (10, 0, True, 0.01), (11, 0, False, 0.011), (5, 6, False, 0.011), (0, 1000, False, 1.0)],
)
def test_schedule(late: int, dropped: int, valid: bool, share: float) -> None:
    due = np.arange(1000, dtype=np.int64) * 10_000_000
    sent = due + 500_000
    sent[:late] += 5_000_000
    sent[1000 - dropped :] = -1
    check = schedule_check(due, sent)
    assert isinstance(check, ScheduleCheck)
    assert (check.due, check.late, check.dropped, check.valid) == (1000, late, dropped, valid)
    assert check.share == pytest.approx(share)
    assert check.reason.startswith("INVALID") is not valid
    assert check.offered == pytest.approx(100.0)


def test_schedule_of_a_generator_that_fell_behind() -> None:
    due = np.arange(1000, dtype=np.int64) * 10_000_000
    check = schedule_check(due, due * 2)
    assert isinstance(check, ScheduleCheck)
    assert check.achieved == pytest.approx(50.0)
    assert check.lags == pytest.approx((4.995, 9.8901, 9.99))
    assert not check.valid


def test_schedules_without_arrivals() -> None:
    assert schedule_check(np.array([5]), np.array([5])) == NotComputable("1 scheduled arrivals: there is no rate")
    with pytest.raises(ValueError, match="2 arrivals were due but 1"):
        schedule_check(np.array([5, 6]), np.array([5]))


@pytest.mark.parametrize(("rate", "failed"), [(0.0, [False] * 30), (5.0, [False] * 29), (5.0, [True] * 30)])
def test_points_that_are_refused(rate: float, failed: list[bool]) -> None:
    with pytest.raises(ValueError, match="a positive rate, and `failed` as long as `over` and within it"):
        rate_point(rate, np.zeros(30, dtype=bool), np.array(failed))


def test_too_few_requests_for_blocks() -> None:
    assert rate_point(5.0, np.zeros(MIN_BLOCKS - 1, dtype=bool), np.zeros(MIN_BLOCKS - 1, dtype=bool)) == NotComputable(
        "19 requests at 5 req/s"
    )
