"""Literal tables for moments, design effects, proportions and decisions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gateway.stats.clusters import design_effect, unit_hits, unit_sizes
from gateway.stats.decision import STAND_IN_LINE, Circumstances, Decision, Verdict, decide, performance
from gateway.stats.moments import Moments, mean_difference, mean_estimate
from gateway.stats.proportions import Rate, newcombe, wilson
from gateway.stats.result import Difference, Interval, NotComputable, require


def test_moments_add_exactly() -> None:
    left, right = Moments.of([1.0, 2.0, 3.0]), Moments.of([4.0, 5.0])
    assert left + right == Moments.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Moments(5, 15.0, 55.0)
    assert (left + right).mean == 3.0
    assert (left + right).variance == 2.5
    assert Moments() + left == left


def test_moments_of_nothing_say_so() -> None:
    assert isinstance(Moments().mean, NotComputable)
    assert isinstance(Moments.of([1.0]).variance, NotComputable)
    assert isinstance(mean_estimate(Moments()), NotComputable)
    assert isinstance(require(mean_estimate(Moments.of([1.0]))).interval, NotComputable)
    assert isinstance(mean_difference(Moments.of([1.0]), Moments.of([1.0, 2.0])), NotComputable)
    assert isinstance(mean_difference(Moments.of([1.0, 1.0]), Moments.of([2.0, 2.0])), NotComputable)


def test_mean_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(5, 1, 12), rng.normal(6, 3, 9)
    limits = require(mean_estimate(Moments.of(a))).interval
    assert isinstance(limits, Interval)
    assert (limits.low, limits.high) == pytest.approx(
        scipy_stats.t.interval(0.95, 11, loc=a.mean(), scale=a.std(ddof=1) / np.sqrt(12))
    )
    welch = scipy_stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    difference = require(mean_difference(Moments.of(a), Moments.of(b)))
    assert (difference.interval.low, difference.interval.high) == pytest.approx((welch.low, welch.high))


def test_design_effect_table() -> None:
    ones = np.ones(40)
    half = np.r_[np.ones(20), np.zeros(20)]
    assert design_effect(half, ones) == 1.0
    assert design_effect(half * 10, ones * 10) == pytest.approx(10.0, rel=0.15)
    assert design_effect(ones * 5, ones * 10) == 1.0  # every unit alike: never narrower than independent
    assert design_effect(ones * 0, ones * 10) == 1.0
    few = design_effect(np.ones(3), np.ones(3) * 4)
    assert isinstance(few, NotComputable)
    assert "only 3 units" in few.reason


def test_unit_sums() -> None:
    codes = np.array([0, 1, 1, 2, 2, 2])
    assert unit_sizes(codes).tolist() == [1, 2, 3]
    assert unit_hits(codes, np.array([True, False, True, False, False, True]), 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_numbers(hits: int, n: int, low: float, high: float) -> None:
    limits = require(wilson(Rate(hits, n))).interval
    assert isinstance(limits, Interval)
    assert (limits.low, limits.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("one", "two", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_newcombe_gives_the_published_numbers_of_method_10(
    one: tuple[int, int], two: tuple[int, int], low: float, high: float
) -> None:
    result = require(newcombe(Rate(*two), Rate(*one)))
    assert (result.interval.low, result.interval.high) == pytest.approx((low, high), abs=5e-5)


def test_rates_refuse_and_report() -> None:
    with pytest.raises(ValueError, match="3 hits among 2 trials"):
        Rate(3, 2)
    assert wilson(Rate(0, 0)) == NotComputable("no observations")
    assert newcombe(Rate(0, 0), Rate(1, 2)) == NotComputable("no observations")
    wide, narrow = (require(wilson(Rate(10, 100, factor))).interval for factor in (5.0, 1.0))
    assert isinstance(wide, Interval)
    assert isinstance(narrow, Interval)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert isinstance(Rate.clustered(np.ones(3), np.ones(3)), NotComputable)
    assert Rate.clustered(np.r_[np.ones(20), np.zeros(20)], np.ones(40)) == Rate(20, 40, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "verdict"),
    [
        (1.1, 3.0, True, Verdict.WORSE),
        (-3.0, -1.1, True, Verdict.BETTER),
        (-0.5, 0.9, True, Verdict.NO_DIFFERENCE),
        (0.2, 0.9, True, Verdict.NO_DIFFERENCE),
        (0.5, 2.0, True, Verdict.CANNOT_TELL),
        (-2.0, 2.0, True, Verdict.CANNOT_TELL),
        (1.1, 3.0, False, Verdict.BETTER),
        (-3.0, -1.1, False, Verdict.WORSE),
    ],
)
def test_verdict_table_with_margin_1(low: float, high: float, lower_is_better: bool, verdict: Verdict) -> None:
    decision = decide(Difference((low + high) / 2, Interval(low, high), 0.0, 0.0), 1.0, lower_is_better)
    assert decision.verdict is verdict
    assert decision.reason
    assert not decision.too_little_data


def test_verdict_needs_a_margin_and_data() -> None:
    with pytest.raises(ValueError, match="not negative"):
        decide(NotComputable("x"), -1.0)
    assert decide(NotComputable("3 samples"), 1.0) == Decision(Verdict.CANNOT_TELL, "3 samples", too_little_data=True)


WORSE = Decision(Verdict.WORSE, "beyond the margin")


@pytest.mark.parametrize(
    ("circumstances", "decision", "line", "winner", "inconclusive"),
    [
        (Circumstances(stand_ins=["b"]), WORSE, "no verdict: stand-in", False, False),
        (Circumstances(stand_ins=["b"], unfinished="x", srm_alarm=True), WORSE, "no verdict: stand-in", False, False),
        (Circumstances(unfinished="killed"), WORSE, "no verdict: unfinished run", False, True),
        (Circumstances(srm_alarm=True), WORSE, "no verdict: sample ratio mismatch", False, True),
        (Circumstances(arms=1), WORSE, "no verdict: one arm", False, False),
        (Circumstances(), decide(NotComputable("n"), 1), "no verdict: too little data", False, True),
        (Circumstances(), WORSE, "mixed system: b slower; no winner of capacity", False, False),
        (
            Circumstances(shared_machine=False, limited_by=["generator"]),
            WORSE,
            "no verdict: limited by the generator",
            False,
            True,
        ),
        (
            Circumstances(shared_machine=False),
            Decision(Verdict.CANNOT_TELL, "wide"),
            "no verdict: cannot tell",
            False,
            True,
        ),
        (Circumstances(shared_machine=False), WORSE, "worse: b slower", True, False),
    ],
)
def test_performance_line(
    circumstances: Circumstances, decision: Decision, line: str, winner: bool, inconclusive: bool
) -> None:
    result = performance(circumstances, decision, "b slower")
    assert (result.line, result.names_winner, result.inconclusive) == (line, winner, inconclusive)
    assert result.reason


def test_the_stand_in_line_is_fixed() -> None:
    assert STAND_IN_LINE == "no verdict: stand-in"
