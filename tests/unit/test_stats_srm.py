"""Literal tables for the sample-ratio check."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gateway.stats.result import NotComputable, require
from gateway.stats.srm import PhaseCounts, first_exposures, phase_test, stratified_test

HALVES = {"a": 50, "b": 50}


@pytest.mark.parametrize(
    ("units", "weights", "alarm"),
    [
        ({"a": 5000, "b": 5000}, HALVES, False),
        ({"a": 5100, "b": 4900}, HALVES, False),
        ({"a": 5300, "b": 4700}, HALVES, True),
        ({"a": 9000, "b": 1000}, {"a": 90, "b": 10}, False),
        ({"a": 8500, "b": 1500}, {"a": 90, "b": 10}, True),
        ({"a": 3400, "b": 3300, "c": 3300}, {"a": 1, "b": 1, "c": 1}, False),
    ],
)
def test_one_phase_is_pearsons_test(units: dict[str, int], weights: dict[str, float], alarm: bool) -> None:
    test = require(phase_test(PhaseCounts(1, units, weights)))
    total = sum(weights.values())
    expected = [sum(units.values()) * w / total for w in weights.values()]
    statistic, p_value = scipy_stats.chisquare(list(units.values()), expected)
    assert test.statistic == pytest.approx(statistic)
    assert test.p_value == pytest.approx(p_value)
    assert test.freedom == len(weights) - 1
    assert test.alarm is alarm


def test_a_ramp_without_mismatch_raises_no_alarm() -> None:
    ramp = [
        PhaseCounts(1, {"a": 9012, "b": 988}, {"a": 90, "b": 10}),
        PhaseCounts(2, {"a": 2490, "b": 2510}, HALVES),
    ]
    test = require(stratified_test(ramp))
    assert test.expected == pytest.approx((11500.0, 3500.0))
    assert not test.alarm
    # the same units against the last weights alone would alarm
    assert require(phase_test(PhaseCounts(2, {"a": 11502, "b": 3498}, HALVES))).alarm


def test_small_mismatches_of_several_phases_add_up() -> None:
    one = PhaseCounts(1, {"a": 5150, "b": 4850}, HALVES)
    assert not require(phase_test(one)).alarm
    assert require(stratified_test([one, one, one])).alarm


@pytest.mark.parametrize(
    ("phases", "reason"),
    [
        ([], "no units"),
        ([PhaseCounts(1, {}, HALVES)], "no units"),
        ([PhaseCounts(1, {"a": 3, "b": 4}, HALVES)], "fewer than 5"),
        ([PhaseCounts(1, {"a": 300}, {"a": 1})], "only one arm"),
        ([PhaseCounts(3, {"a": 300}, {"a": 0})], "phase 3 has no arm with weight"),
    ],
)
def test_not_computable(phases: list[PhaseCounts], reason: str) -> None:
    result = stratified_test(phases)
    assert isinstance(result, NotComputable)
    assert reason in result.reason


def test_units_in_an_arm_without_weight_alarm() -> None:
    test = require(phase_test(PhaseCounts(1, {"a": 1000, "b": 1}, {"a": 100, "b": 0})))
    assert test.alarm
    assert test.unweighted == ("b",)


def test_first_exposures_count_each_unit_once() -> None:
    rows = [
        (7, 1, 0), (7, 1, 0),  # twice in one arm: one exposure
        (8, 1, 0), (8, 2, 1),  # moved by new weights: counts in phase 1
        (9, 2, 0), (9, 2, 1),  # two arms in one phase: multiple exposure
        (10, 2, 1),
    ]  # fmt: skip
    unit, phase, arm = (np.array(column) for column in zip(*rows, strict=True))
    result = first_exposures(unit.astype(np.uint64), phase, arm, ["a", "b"], {1: {"a": 1.0}, 2: HALVES})
    assert (result.units, result.multiple) == (4, 1)
    assert result.phases == (PhaseCounts(1, {"a": 2}, {"a": 1.0}), PhaseCounts(2, {"b": 1}, HALVES))


def test_no_rows_no_exposures() -> None:
    empty = np.array([], dtype=np.int64)
    assert first_exposures(empty.astype(np.uint64), empty, empty, ["a"], {}).units == 0
