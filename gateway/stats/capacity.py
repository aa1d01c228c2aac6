"""Capacity at an SLO from one fixed grid of offered rates: the highest rate at which few enough requests are over.

Lives here: what counts as over, the monotone fit, the crossing, block-bootstrap intervals of a capacity and of the ratio
of two. A request over the threshold, failed, shed or dropped is over alike, so that refusing work cannot look fast.
The intervals hold for the starts that were measured: over fresh starts take one capacity per start to paired.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.stats.blocks import MIN_BLOCKS, Cells, Resampling, block_length, few_blocks
from gateway.stats.quantiles import sample_floor
from gateway.stats.result import Estimate, Interval, NotComputable

NEAR = 5.0
"""A share within this factor of the limit tells how the curve runs there."""

MIN_RATES = 4
"""Rates a grid needs: two on each side of the crossing."""

_SHUFFLE = 20_771


@dataclass(frozen=True, slots=True)
class Slo:
    """p(1 - over) at most the threshold, i.e. at most this share `over` it; errors at most `errors` (None: no own limit)."""

    over: float = 0.01
    errors: float | None = None

    def __post_init__(self) -> None:
        for share in (self.over, self.errors):
            if share is not None and not 0.0 < share < 1.0:
                raise ValueError(f"a limit on a share lies strictly between 0 and 1, got {share}")


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One rate (requests per second), its requests over and failed per cell of time; `memory`: requests in a block as
    dependence asks for, which may be more than the blocks that were cut."""

    rate: float
    cells: Cells
    over: NDArray[np.float64]
    failed: NDArray[np.float64]
    memory: int

    @property
    def n(self) -> int:
        """Requests."""
        return int(self.cells.sizes.sum())


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One rate of the curve: share over, and the monotone fit through it."""

    rate: float
    n: int
    over: float
    failed: float
    fitted: float


@dataclass(frozen=True)
class Capacity:
    """Requests per second at the SLO with interval, the curve, and the replicates (inf: above the grid, 0: below)."""

    estimate: Estimate
    curve: tuple[CurvePoint, ...]
    replicates: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CapacityRatio:
    """Capacity of B over that of A, of the starts that were measured; p_value is two-sided."""

    value: float
    interval: Interval
    p_value: float


def over_slo(latency: NDArray[np.float64], answered: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Which requests are over: slower than the threshold (same unit), or without a right answer; shape [n] each.

    latency of an unanswered request may be anything. Raises ValueError on unequal lengths or a threshold <= 0.
    """
    if latency.shape != answered.shape:
        raise ValueError(f"{latency.shape[0]} latencies but {answered.shape[0]} outcomes")
    if not threshold > 0.0:
        raise ValueError(f"a latency threshold is positive, got {threshold}")
    return np.asarray(~answered | ~(latency <= threshold))


def rate_point(
    rate: float, over: NDArray[np.bool_], failed: NDArray[np.bool_], length: int | None = None
) -> RatePoint | NotComputable:
    """The requests of one rate in SEND ORDER, shape [n] each. rate: offered, requests per second; length: of a block.

    over: see `over_slo`; failed: those of them without a right answer. Raises ValueError on unequal lengths, on a failed
    request that is not over, and on a rate that is not positive.
    """
    n = int(over.size)
    if over.shape != failed.shape or bool((failed & ~over).any()) or not rate > 0.0:
        raise ValueError(
            f"{n} requests at {rate:g} req/s: a positive rate, and `failed` as long as `over` and within it"
        )
    if n < MIN_BLOCKS:
        return NotComputable(f"{n} requests at {rate:g} req/s")
    memory = length or block_length(over)
    cells = Cells.of(n, min(memory, n // MIN_BLOCKS))
    if isinstance(cells, NotComputable):
        return cells
    width = cells.sizes.size
    hits, errors = (np.bincount(cells.codes[what], minlength=width).astype(np.float64) for what in (over, failed))
    return RatePoint(rate, cells, hits, errors, memory)


def monotone(shares: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Isotonic (never falling) weighted least squares along the last axis; shares [..., rates], sizes [rates] or the same.

    The min-max formula (Barlow et al. 1972, eq. 1.9), equal to pooling adjacent violators: fit_i = max over j <= i of
    min over k >= i of the weighted mean of j..k. All pairs at once, which for a grid of tens is faster than pooling.
    """
    zero = np.zeros((*shares.shape[:-1], 1))
    sizes = np.broadcast_to(sizes, shares.shape)
    hits = np.concatenate([zero, np.cumsum(shares * sizes, axis=-1)], axis=-1)
    total = np.concatenate([zero, np.cumsum(sizes, axis=-1)], axis=-1)
    count = shares.shape[-1]
    fit = np.full(shares.shape, -np.inf)
    for j in range(count):
        means = (hits[..., j + 1 :] - hits[..., j : j + 1]) / (total[..., j + 1 :] - total[..., j : j + 1])
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fit[..., j:] = np.maximum(fit[..., j:], least)
    return fit


def crossing(
    rates: NDArray[np.float64], fit: NDArray[np.float64], limit: float, places: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Where a never falling curve passes the limit, shape [replicates] from fit [replicates, rates]; shares > 0.

    Between two rates the share's logarithm is a straight line (exact for the sojourn time of an M/M/1 queue). inf: not
    passed on the grid; 0: passed before it. places: shape [replicates], from 0 to 1; where the curve jumps over the limit
    from one rate to the next (from below limit/NEAR to above limit x NEAR) no line says where, and the place given is taken.
    """
    within = (fit <= limit).sum(axis=1)
    low, high = np.clip(within - 1, 0, None), np.clip(within, None, rates.size - 1)
    rows = np.arange(fit.shape[0])
    below, above = np.log(fit[rows, low]), np.log(fit[rows, high])
    part = (math.log(limit) - below) / np.where(above > below, above - below, 1.0)
    if places is not None:
        jumps = (below < math.log(limit / NEAR)) & (above > math.log(min(limit * NEAR, 0.9)))
        part = np.where(jumps, places, part)
    found = rates[low] + part * (rates[high] - rates[low])
    return np.where(within == 0, 0.0, np.where(within == rates.size, np.inf, found))


def capacity(points: Sequence[RatePoint], slo: Slo, plan: Resampling | None = None) -> Capacity | NotComputable:
    """The highest rate that holds the SLO, from points at distinct rates (any order), with a percentile interval.

    Fit and crossing on shares (hits + 1/2)/(n + 1). Replicates: each rate's share is drawn from Beta(h + 1/2, m - h + 1/2)
    (Jeffreys), h and m being hits and requests divided by the design effect that a block bootstrap finds near the limit, in
    proportion to the rate. (Resampled blocks alone miss the capacity of a queue in 10% of runs: a rate that was lucky has
    both a low share and a small spread.) Where a replicate jumps over the limit between two rates, it may lie anywhere
    between them. With an own error limit the lesser of both crossings.
    Raises ValueError where a rate occurs twice.
    """
    plan = plan or Resampling()
    points = sorted(points, key=lambda point: point.rate)
    rates = np.array([point.rate for point in points])
    problem = _grid_problem(points, slo)
    if problem:
        return NotComputable(problem)
    rng = np.random.default_rng(plan.seed)
    hits = np.array([[point.over.sum(), point.failed.sum()] for point in points])
    sizes = np.array([float(point.n) for point in points])
    spreads = np.stack([_spreads(point, plan.replicates, rng) for point in points])
    blocks = min(point.cells.blocks for point in points)
    limits = [slo.over] if slo.errors is None else [slo.over, slo.errors]
    found = np.full(plan.replicates + 1, np.inf)
    places = rng.random(plan.replicates)
    fits = []
    for k, limit in enumerate(limits):
        effects = _design_effects(rates, hits[:, k] / sizes, spreads[:, k] * sizes, limit)
        factor = effects * few_blocks(blocks, plan.confidence)
        h, m = hits[:, k] / factor, sizes / factor
        shares = rng.beta(h + 0.5, m - h + 0.5, (plan.replicates + 1, rates.size))
        shares[0] = (hits[:, k] + 0.5) / (sizes + 1.0)
        fits.append(monotone(shares, sizes))
        crossed = [crossing(rates, fits[k][:1], limit), crossing(rates, fits[k][1:], limit, places)]
        found = np.minimum(found, np.concatenate(crossed))
    value, replicates = float(found[0]), found[1:]
    if value == 0.0:
        return NotComputable(f"the SLO is missed already at the lowest rate, {rates[0]:g} req/s")
    if math.isinf(value):
        return NotComputable(f"the SLO still holds at the highest rate, {rates[-1]:g} req/s: capacity lies above it")
    last = points[max(0, int(np.searchsorted(rates, value, side="right")) - 1)]
    curve = tuple(
        CurvePoint(p.rate, p.n, float(p.over.sum()) / p.n, float(p.failed.sum()) / p.n, float(fits[0][0, i]))
        for i, p in enumerate(points)
    )
    interval = _interval(replicates, plan.confidence, (rates[0], rates[-1]))
    if last.memory > last.n // MIN_BLOCKS:
        interval = NotComputable(
            f"at {last.rate:g} req/s requests depend on each other over {last.memory} of {last.n}: a longer run is needed"
        )
    n = sum(point.n for point in points)
    return Capacity(Estimate(value, n, interval), curve, replicates)


def _grid_problem(points: Sequence[RatePoint], slo: Slo) -> str:
    rates = [point.rate for point in points]
    for first, second in pairwise(rates):
        if first == second:
            raise ValueError(f"the rate {first:g} occurs twice; join its requests into one point")
    if len(points) < MIN_RATES:
        return f"{len(points)} rates, a curve needs at least {MIN_RATES}"
    floor = sample_floor(1.0 - slo.over)
    least = min(points, key=lambda point: point.n)
    if least.n < floor:
        return f"{least.n} requests at {least.rate:g} req/s, p{100 * (1 - slo.over):g} needs {floor}"
    return ""


def _spreads(point: RatePoint, replicates: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Variances of the shares over and failed over resampled blocks, shape [2]."""
    weights = point.cells.weights(rng, replicates)
    shares = (weights @ np.stack([point.over, point.failed], axis=1)) / (weights @ point.cells.sizes)[:, None]
    return np.asarray(shares.var(axis=0))


def _design_effects(
    rates: NDArray[np.float64], shares: NDArray[np.float64], scaled: NDArray[np.float64], limit: float
) -> NDArray[np.float64]:
    """Variance relative to independent requests, at least 1, of each rate; all shapes [rates].

    What makes requests late together (a stall, a queue that must drain) lasts a time, so that the requests it holds are
    as many as arrive in it: effect = time x rate, the time being the mean of effect/rate over the rates within a factor
    NEAR of the limit. Where none is that near, the highest rate below the limit tells it (above the jump a queue grows for
    as long as the rate is offered, which is no stall), and where nothing is over there either, 1 will do.
    """
    near = (shares >= limit / NEAR) & (shares <= min(NEAR * limit, 0.9))
    if not near.any():
        last = int(np.argmax(shares > limit)) - 1 if (shares > limit).any() else shares.size - 1
        if last < 0 or shares[last] == 0.0:
            return np.ones(rates.size)
        near[last] = True
    times = scaled[near] / (shares[near] * (1.0 - shares[near])) / rates[near]
    return np.maximum(1.0, float(times.mean()) * rates)


def _interval(
    replicates: NDArray[np.float64], confidence: float, grid: tuple[float, float]
) -> Interval | NotComputable:
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(replicates, (tail, 1.0 - tail), method="inverted_cdf")
    if low == 0.0:
        return NotComputable(f"the interval reaches below the lowest rate, {grid[0]:g} req/s")
    if math.isinf(high):
        return NotComputable(f"the interval reaches above the highest rate, {grid[1]:g} req/s")
    return Interval(float(low), float(high), confidence)


def capacity_ratio(
    a: Capacity | NotComputable, b: Capacity | NotComputable, confidence: float = 0.95
) -> CapacityRatio | NotComputable:
    """B/A from the two arms' replicates, put together at random (arms are loaded one at a time, so that nothing pairs them).
    Not computable where an arm's own interval is not: a ratio of something unknown."""
    for name, arm in (("A", a), ("B", b)):
        if isinstance(arm, NotComputable):
            return NotComputable(f"arm {name}: {arm.reason}")
        if isinstance(arm.estimate.interval, NotComputable):
            return NotComputable(f"arm {name}: {arm.estimate.interval.reason}")
    assert isinstance(a, Capacity)
    assert isinstance(b, Capacity)
    count = min(a.replicates.size, b.replicates.size)
    # shuffled: of two arms that were resampled from one seed, replicate i would be high or low in both at once
    apart = np.random.default_rng(_SHUFFLE).permutation(b.replicates[:count])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = apart / a.replicates[:count]
    # neither arm on the grid: the ratio may be anything, so it counts against both limits
    lowest, highest = np.nan_to_num(ratios, nan=0.0, posinf=np.inf), np.nan_to_num(ratios, nan=np.inf, posinf=np.inf)
    tail = (1.0 - confidence) / 2
    low = float(np.quantile(lowest, tail, method="inverted_cdf"))
    high = float(np.quantile(highest, 1.0 - tail, method="inverted_cdf"))
    below, above = int((lowest <= 1.0).sum()), int((highest >= 1.0).sum())
    p_value = min(1.0, 2.0 * (min(below, above) + 1.0) / (count + 1.0))
    return CapacityRatio(b.estimate.value / a.estimate.value, Interval(low, high, confidence), p_value)


def cost_per_million(rate_per_core: float, price_per_core_hour: float) -> float:
    """Price of a million inferences at this many requests per second and core; the price's currency. ValueError unless > 0."""
    if not (rate_per_core > 0.0 and price_per_core_hour >= 0.0):
        raise ValueError(f"a rate above 0 and a price are needed, got {rate_per_core} and {price_per_core_hour}")
    return price_per_core_hour * 1e6 / (rate_per_core * 3600.0)
