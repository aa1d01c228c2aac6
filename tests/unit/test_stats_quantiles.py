"""Literal tables for sample floors, quantiles and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gateway.stats.quantiles import Sample, difference, quantile, sample_floor
from gateway.stats.result import Difference, Estimate, Interval, NotComputable, require


@pytest.mark.parametrize(("q", "floor"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_floors_of_the_source(q: float, floor: int) -> None:
    assert sample_floor(q) == floor


@pytest.mark.parametrize("q", [0.5, 0.75, 0.9, 0.97, 0.99])
def test_floor_is_the_least_n_by_the_binomial_tail(q: float) -> None:
    n = sample_floor(q)
    assert scipy_stats.binom.cdf(1, n, 1 - q) < 0.01 <= scipy_stats.binom.cdf(1, n - 1, 1 - q)


def test_zero_slower_samples_need_459_for_p99() -> None:
    assert sample_floor(0.99, slower=0) == 459


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 1.5])
def test_floor_refuses_what_is_no_quantile(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_floor(q)


def test_median_of_1_to_101_and_its_binomial_ranks() -> None:
    estimate = require(quantile(Sample.of(np.arange(1.0, 102.0)), 0.5))
    # binom(101, 0.5): 2.5% quantile 41, 97.5% quantile 60 -> order statistics 41 and 61
    assert (estimate.value, estimate.n) == (51.0, 101)
    assert estimate.interval == Interval(41.0, 61.0, 0.95)


def test_quantile_is_an_order_statistic_of_rank_ceil_qn() -> None:
    values = np.arange(1.0, 1001.0)
    assert [require(quantile(Sample.of(values), q)).value for q in (0.5, 0.9, 0.95, 0.99)] == [500, 900, 950, 990]


@pytest.mark.parametrize(("q", "n"), [(0.5, 10), (0.9, 63), (0.95, 129), (0.99, 661)])
def test_one_below_the_floor_is_not_told(q: float, n: int) -> None:
    below, at = quantile(Sample.of(np.arange(float(n))), q), quantile(Sample.of(np.arange(float(n + 1))), q)
    assert isinstance(below, NotComputable)
    assert f"needs {n + 1}" in below.reason
    assert isinstance(at, Estimate)
    assert isinstance(at.interval, Interval)


def test_failures_count_as_slower_than_every_answer() -> None:
    values = np.r_[np.arange(950.0), np.full(50, math.inf)]
    sample = Sample.of(values)
    assert require(quantile(sample, 0.5)).value == 499.0
    tail = quantile(sample, 0.99)
    assert isinstance(tail, NotComputable)
    assert "got no answer" in tail.reason
    edge = require(quantile(sample, 0.94))
    assert isinstance(edge.interval, NotComputable)
    assert "no answer" in edge.interval.reason


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Sample.of(np.array([1.0, math.nan]))
    with pytest.raises(ValueError, match="2 values but 1 unit"):
        Sample.of(np.array([1.0, 2.0]), np.array([1]))


def test_one_request_per_unit_is_the_unclustered_interval() -> None:
    values = np.random.default_rng(1).exponential(size=500)
    plain = require(quantile(Sample.of(values), 0.9))
    by_unit = require(quantile(Sample.of(values, np.arange(500)), 0.9))
    assert by_unit == plain


def test_identical_requests_of_a_unit_weigh_as_one() -> None:
    values = np.random.default_rng(2).exponential(size=500)
    clustered = require(quantile(Sample.of(np.repeat(values, 10), np.repeat(np.arange(500), 10)), 0.5))
    assert clustered.design_effect == pytest.approx(10.0, rel=0.02)
    assert clustered.n == 5000


def test_a_tail_of_few_units_is_not_told() -> None:
    values = np.repeat(np.linspace(1, 2, 30), 100)
    result = quantile(Sample.of(values, np.repeat(np.arange(30), 100)), 0.99)
    assert isinstance(result, NotComputable)
    assert "independent" in result.reason


def test_few_units_give_a_value_without_an_interval() -> None:
    values = np.random.default_rng(3).exponential(size=2000)
    result = require(quantile(Sample.of(values, np.arange(2000) % 5), 0.5))
    assert isinstance(result.interval, NotComputable)
    assert "5 units" in result.interval.reason


def test_difference_squares_and_adds_the_distances() -> None:
    base = Estimate(10.0, 100, Interval(9.0, 14.0))
    arm = Estimate(13.0, 100, Interval(12.0, 16.0))
    result = require(difference(base, arm))
    assert result.value == 3.0
    assert result.interval.low == pytest.approx(3.0 - math.hypot(1.0, 4.0))
    assert result.interval.high == pytest.approx(3.0 + math.hypot(3.0, 1.0))


@pytest.mark.parametrize("missing", [NotComputable("no samples"), Estimate(1.0, 5, NotComputable("no samples"))])
def test_difference_passes_the_reason_on(missing: Estimate | NotComputable) -> None:
    there = Estimate(1.0, 5, Interval(0.5, 1.5))
    assert difference(missing, there) == NotComputable("no samples")
    assert difference(there, missing) == NotComputable("no samples")


def test_difference_refuses_mixed_confidence() -> None:
    with pytest.raises(ValueError, match="different confidence"):
        difference(Estimate(1.0, 5, Interval(0.5, 1.5, 0.95)), Estimate(1.0, 5, Interval(0.5, 1.5, 0.99)))


def test_require_names_the_reason() -> None:
    with pytest.raises(ValueError, match="not computable: because"):
        require(NotComputable("because"))
    assert isinstance(require(Difference(1.0, Interval(0, 2), 1.0, 2.0)), Difference)
