"""Coverage and type I error by simulation with fixed seeds. Each band is the nominal rate with room for the simulation's
own error (R = 400: three standard deviations are 3.3 points at 95%) and for the known conservatism of the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from gateway.stats.decision import Verdict, decide
from gateway.stats.proportions import Rate, newcombe, wilson
from gateway.stats.quantiles import Sample, difference, quantile
from gateway.stats.result import Difference, Interval, NotComputable, require
from gateway.stats.srm import PhaseCounts, phase_test, stratified_test

RUNS = 400


def covers(interval: Interval | NotComputable, truth: float) -> bool:
    assert isinstance(interval, Interval)
    return interval.low <= truth <= interval.high


def clustered_latencies(
    rng: np.random.Generator, units: int, spread: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-normal latencies: 1 + Poisson(9) requests a unit, a normal unit effect of the given spread on the log scale."""
    sizes = 1 + rng.poisson(9, units)
    codes = np.repeat(np.arange(units), sizes)
    effects = rng.normal(0, spread, units)[codes]
    return np.exp(effects + rng.normal(0, math.sqrt(1 - spread**2), codes.size)), codes


@pytest.mark.parametrize(("q", "n"), [(0.5, 40), (0.9, 200), (0.99, 700), (0.99, 3000)])
def test_quantile_interval_covers_independent_requests(q: float, n: int) -> None:
    rng = np.random.default_rng(11)
    truth = float(scipy_stats.lognorm.ppf(q, 1.0))
    hits = sum(covers(require(quantile(Sample.of(rng.lognormal(size=n)), q)).interval, truth) for _ in range(RUNS))
    assert 0.925 <= hits / RUNS <= 0.995


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99])
def test_quantile_interval_covers_clustered_requests(q: float) -> None:
    rng = np.random.default_rng(12)
    truth = math.exp(float(scipy_stats.norm.ppf(q)))
    clustered = plain = 0
    for _ in range(RUNS):
        values, codes = clustered_latencies(rng, 400, 0.7)
        clustered += covers(require(quantile(Sample.of(values, codes), q)).interval, truth)
        plain += covers(require(quantile(Sample.of(values), q)).interval, truth)
    assert 0.92 <= clustered / RUNS <= 0.99
    assert plain < clustered  # what the correction is for
    if q == 0.5:
        assert plain / RUNS < 0.85


@pytest.mark.parametrize("units", [25, 60])
def test_median_interval_holds_with_few_units(units: int) -> None:
    rng = np.random.default_rng(13)
    hits = sum(
        covers(require(quantile(Sample.of(*clustered_latencies(rng, units, 0.7)), 0.5)).interval, 1.0)
        for _ in range(RUNS)
    )
    assert 0.92 <= hits / RUNS <= 0.995


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_difference_of_two_equal_arms_holds_zero(q: float) -> None:
    """Type I error of "the interval excludes 0" on an A/A comparison of clustered arms: at most 5%, with room."""
    rng = np.random.default_rng(14)
    wrong = 0
    for _ in range(RUNS):
        base, arm = (quantile(Sample.of(*clustered_latencies(rng, 600, 0.7)), q) for _ in range(2))
        wrong += not covers(require(difference(base, arm)).interval, 0.0)
    assert wrong / RUNS <= 0.08


def test_difference_covers_a_real_shift_of_a_skewed_tail() -> None:
    rng = np.random.default_rng(15)
    truth = 0.5 * math.exp(float(scipy_stats.norm.ppf(0.95)))
    hits = 0
    for _ in range(RUNS):
        base = quantile(Sample.of(*clustered_latencies(rng, 300, 0.6)), 0.95)
        values, codes = clustered_latencies(rng, 200, 0.6)
        hits += covers(require(difference(base, quantile(Sample.of(1.5 * values, codes), 0.95))).interval, truth)
    assert 0.92 <= hits / RUNS <= 0.99


def test_equivalent_arms_are_never_called_better_or_worse() -> None:
    """With a margin of 10% of the median, false "better"/"worse" on A/A stays far below the interval's own 5%."""
    rng = np.random.default_rng(16)
    verdicts = []
    for _ in range(200):
        base, arm = (quantile(Sample.of(*clustered_latencies(rng, 300, 0.5)), 0.5) for _ in range(2))
        verdicts.append(decide(require(difference(base, arm)), 0.1).verdict)
    assert sum(v in (Verdict.BETTER, Verdict.WORSE) for v in verdicts) <= 2


def clustered_rate(rng: np.random.Generator, units: int, mean: float) -> Rate:
    """10 trials a unit whose success probability is Beta distributed: correlation 0.2 within a unit (design effect 2.8)."""
    sizes = np.full(units, 10.0)
    hits = rng.binomial(10, rng.beta(4 * mean, 4 * (1 - mean), units)).astype(np.float64)
    return require(Rate.clustered(hits, sizes))


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_wilson_covers_independent_trials(p: float) -> None:
    rng = np.random.default_rng(17)
    hits = sum(covers(require(wilson(Rate(int(rng.binomial(500, p)), 500))).interval, p) for _ in range(RUNS))
    assert 0.92 <= hits / RUNS <= 0.995


def test_wilson_covers_clustered_trials() -> None:
    rng = np.random.default_rng(18)
    clustered = plain = 0
    for _ in range(RUNS):
        rate = clustered_rate(rng, 300, 0.1)
        clustered += covers(require(wilson(rate)).interval, 0.1)
        plain += covers(require(wilson(Rate(rate.hits, rate.n))).interval, 0.1)
    assert 0.92 <= clustered / RUNS <= 0.99
    assert plain / RUNS < 0.85


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: Rate(int(rng.binomial(800, 0.02)), 800),
        lambda rng: clustered_rate(rng, 200, 0.05),
    ],
    ids=["independent", "clustered"],
)
def test_newcombe_type_one_error(draw: Callable[[np.random.Generator], Rate]) -> None:
    rng = np.random.default_rng(19)
    results: list[Difference] = [require(newcombe(draw(rng), draw(rng))) for _ in range(RUNS)]
    assert sum(not covers(r.interval, 0.0) for r in results) / RUNS <= 0.08


def test_srm_p_values_are_uniform_without_a_mismatch() -> None:
    rng = np.random.default_rng(20)
    weights = {"a": 70, "b": 30}
    p_values, alarms = [], 0
    for _ in range(2000):
        first, second = int(rng.binomial(3000, 0.7)), int(rng.binomial(2000, 0.4))
        test = require(
            stratified_test(
                [
                    PhaseCounts(1, {"a": first, "b": 3000 - first}, weights),
                    PhaseCounts(2, {"a": second, "b": 2000 - second}, {"a": 40, "b": 60}),
                ]
            )
        )
        p_values.append(test.p_value)
        alarms += test.alarm
    assert scipy_stats.kstest(p_values, "uniform").pvalue > 0.01
    assert alarms <= 8  # 2 expected


def test_srm_finds_a_52_to_48_split_of_20000_units() -> None:
    rng = np.random.default_rng(21)
    alarms = 0
    for _ in range(200):
        a = int(rng.binomial(20_000, 0.52))
        alarms += require(phase_test(PhaseCounts(1, {"a": a, "b": 20_000 - a}, {"a": 1, "b": 1}))).alarm
    assert alarms >= 190


def test_srm_on_requests_would_alarm_falsely() -> None:
    """Why the test is on units: with a few heavy units the same fair split of units looks unfair in requests."""
    rng = np.random.default_rng(22)
    on_units = on_requests = 0
    for _ in range(200):
        in_a = rng.random(1000) < 0.5
        load = rng.pareto(1.5, 1000) * 10 + 1
        a, total = int(in_a.sum()), int(load.sum())
        a_load = int(load[in_a].sum())
        on_units += require(phase_test(PhaseCounts(1, {"a": a, "b": 1000 - a}, {"a": 1, "b": 1}))).alarm
        on_requests += require(phase_test(PhaseCounts(1, {"a": a_load, "b": total - a_load}, {"a": 1, "b": 1}))).alarm
    assert on_units <= 2
    assert on_requests > 50
