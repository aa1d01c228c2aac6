"""Latency quantiles with distribution-free intervals, clustered by unit, and differences between arms.

A quantile is an order statistic of what was seen, never interpolated, and is not told below the sample floor. Infinite
values are legal: a request that failed never answered, so it is slower than every answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from gateway.stats.clusters import design_effect, unit_sizes
from gateway.stats.result import DEFAULT_CONFIDENCE, Difference, Estimate, Interval, NotComputable
from gateway.stats.special import beta_cdf, binomial_quantile

FLOOR_CONFIDENCE = 0.99


@lru_cache(maxsize=256)
def sample_floor(q: float, confidence: float = FLOOR_CONFIDENCE, slower: int = 1) -> int:
    """Least number of samples from which the q-quantile may be told.

    The rule is MLPerf LoadGen's early stopping with zero tolerance: n samples of which `slower` exceed a bound prove, at
    the confidence, that the q-quantile lies below the bound iff I_q(n - slower, slower + 1) < 1 - confidence, I being the
    regularised incomplete beta function, i.e. P(Binomial(n, 1-q) <= slower). One slower sample is allowed, so that the
    bound is not the maximum: 11, 64, 130, 662, 6636 for p50, p90, p95, p99, p99.9.
    """
    if not 0.0 < q < 1.0:
        raise ValueError(f"a quantile lies strictly between 0 and 1, got {q}")

    def proven(n: int) -> bool:
        return beta_cdf(q, n - slower, slower + 1) < 1.0 - confidence

    high = slower + 1
    while not proven(high):
        high *= 2
    low = max(slower + 1, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(middle) else (middle + 1, high)
    return high


@dataclass(frozen=True)
class Sample:
    """Sorted observations of one arm, shape [n], and the dense unit code 0..K-1 of each (None: independent)."""

    values: NDArray[np.float64]
    codes: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, values: NDArray[np.float64], units: NDArray[np.int64] | NDArray[np.uint64] | None = None) -> Sample:
        """Sort the observations; units: any integer labels, shape [n]. Raises ValueError on NaN or unequal lengths."""
        if np.isnan(values).any():
            raise ValueError("latencies contain NaN: an unanswered request is +inf or absent, never NaN")
        if units is None:
            return cls(np.sort(values))
        if units.shape != values.shape:
            raise ValueError(f"{values.shape[0]} values but {units.shape[0]} unit labels")
        order = np.argsort(values, kind="stable")
        codes = np.unique(units, return_inverse=True)[1].astype(np.int64)
        return cls(values[order], codes[order])

    @property
    def n(self) -> int:
        """Number of observations."""
        return int(self.values.size)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Observations per unit, shape [K]."""
        return unit_sizes(self.codes) if self.codes is not None else np.ones(self.n)

    def cluster_factor(self, rank: int, confidence: float) -> float | NotComputable:
        """Design effect of the indicator "among the `rank` smallest"."""
        if self.codes is None:
            return 1.0
        hits = np.bincount(self.codes[:rank], minlength=self.sizes.size).astype(np.float64)
        return design_effect(hits, self.sizes, confidence)


def quantile(sample: Sample, q: float, confidence: float = DEFAULT_CONFIDENCE) -> Estimate | NotComputable:
    """The q-quantile with a distribution-free interval.

    Value: the order statistic of rank ceil(q*n). Interval: order statistics whose ranks follow from the number of
    observations below the true quantile being Binomial(n_eff, q) (David and Nagaraja, Order Statistics, 7.1; for clustered
    data Woodruff 1952), n_eff = n / design effect at the quantile (Deng, Knoblich, Yu 2018). Conservative for ties.
    Breaks where units are few (not computable below clusters.MIN_UNITS) and where requests are correlated in time.
    The floor is applied to n_eff: 700 requests of 7 units do not tell a p99.
    """
    floor = sample_floor(q)
    if sample.n < floor:
        return NotComputable(f"{sample.n} samples, p{100 * q:g} needs {floor}")
    rank = min(sample.n, max(1, math.ceil(q * sample.n - 1e-9)))
    value = float(sample.values[rank - 1])
    if math.isinf(value):
        return NotComputable(f"more than {100 * (1 - q):.3g}% of the requests got no answer")
    factor = sample.cluster_factor(rank, confidence)
    if isinstance(factor, NotComputable):
        return Estimate(value, sample.n, factor)
    effective = math.floor(sample.n / factor)
    if effective < floor:
        return NotComputable(f"{sample.n} samples weigh as {effective} independent ones, p{100 * q:g} needs {floor}")
    return Estimate(value, sample.n, order_interval(sample, q, effective, confidence), factor)


def order_interval(sample: Sample, q: float, effective: int, confidence: float) -> Interval | NotComputable:
    """The two order statistics around the q-quantile whose ranks are those of `effective` independent observations."""
    tail = (1.0 - confidence) / 2
    low_share = binomial_quantile(tail, effective, q) / effective
    high_share = (binomial_quantile(1.0 - tail, effective, q) + 1.0) / effective
    low_rank = max(1, math.floor(low_share * sample.n))
    high_rank = math.ceil(high_share * sample.n)
    if high_rank > sample.n:
        return NotComputable("the upper limit lies beyond the largest observation")
    high = float(sample.values[high_rank - 1])
    if math.isinf(high):
        return NotComputable("the upper limit falls among the requests that got no answer")
    return Interval(float(sample.values[low_rank - 1]), high, confidence)


def difference(baseline: Estimate | NotComputable, arm: Estimate | NotComputable) -> Difference | NotComputable:
    """Arm minus baseline of two independent estimates, by squaring and adding the distances to their own limits.

    MOVER (Zou and Donner 2008, eq. 3): low = d - sqrt((arm - arm.low)^2 + (base.high - base)^2), high alike. With
    symmetric intervals this is adding variances; unlike that it keeps the skew of a tail quantile's interval.
    Holds for independent arms, i.e. every unit in one arm.
    """
    for estimate in (baseline, arm):
        if isinstance(estimate, NotComputable):
            return estimate
        if isinstance(estimate.interval, NotComputable):
            return estimate.interval
    assert isinstance(baseline, Estimate)
    assert isinstance(arm, Estimate)
    base_limits, arm_limits = baseline.interval, arm.interval
    assert isinstance(base_limits, Interval)
    assert isinstance(arm_limits, Interval)
    if base_limits.confidence != arm_limits.confidence:
        raise ValueError(f"intervals of different confidence: {base_limits.confidence} and {arm_limits.confidence}")
    value = arm.value - baseline.value
    low = value - math.hypot(arm.value - arm_limits.low, base_limits.high - baseline.value)
    high = value + math.hypot(arm_limits.high - arm.value, baseline.value - base_limits.low)
    return Difference(value, Interval(low, high, arm_limits.confidence), baseline.value, arm.value)
