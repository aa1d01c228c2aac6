"""Simulated analyses whose right answer is known, each from one random generator to one outcome.

Here: A/A comparisons, coverage, and the error rates of decisions, on independent and on queueing-like data. How often
they are run and how many errors are allowed is for the callers: test_error_rates.py (few) and simulate.py (many).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gateway.stats.blocks import Resampling, dependent_quantile, dependent_rate, over_rate
from gateway.stats.capacity import Capacity, Slo, capacity, capacity_ratio, rate_point
from gateway.stats.effects import Margin
from gateway.stats.equivalence import ABVerdict, bias_check, decide_effect, non_inferiority, tost
from gateway.stats.holm import holm
from gateway.stats.paired import Pair, Paired, pair_orders, paired_difference, paired_ratio
from gateway.stats.proportions import newcombe
from gateway.stats.quantiles import difference
from gateway.stats.result import Interval, NotComputable, require
from gateway.stats.warmup import drift
from tests.statistics.queues import ar1, mm1, mm1_quantile, mm1_rate

PAIRS = 6
MARGIN = Margin(0.1)
FAST = Resampling(seed=3, replicates=500)
SLO = Slo(over=0.01)

Outcome = bool | None
"""True: an alarm (a wrong statement), False: none, None: not computable."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """alarms at most `nominal` of the computable runs are as promised; `computable`: the least share of runs told."""

    run: Callable[[np.random.Generator], Outcome]
    nominal: float = 0.05
    computable: float = 0.95


def _misses(interval: Interval | NotComputable, truth: float) -> Outcome:
    return None if isinstance(interval, NotComputable) else not interval.low <= truth <= interval.high


@dataclass(frozen=True, slots=True)
class Queue:
    """What each start of a server is measured on: a quantile of n requests of a queue at some load."""

    n: int = 400
    load: float = 0.7
    q: float = 0.95


CALM = Queue(2000, 0.3, 0.5)
"""Precise enough that six pairs can show equivalence within the margin."""


def starts(rng: np.random.Generator, ratio: float, queue: Queue | None = None, second: float = 1.03) -> Paired:
    """6 pairs of starts of a queue: 5% spread between starts, pairs that drift, 3% slower when second; B/A is `ratio`."""
    queue = queue or Queue()
    pairs = []
    for i, order in enumerate(pair_orders(PAIRS, int(rng.integers(1 << 30)))):
        values = {}
        for place, arm in enumerate(order):
            speed = math.exp(rng.normal(0.02 * i, 0.05)) * second**place * (ratio if arm == "B" else 1.0)
            values[arm] = float(np.quantile(mm1(rng, queue.n, queue.load, speed), queue.q))
        pairs.append(Pair(order, values["A"], values["B"]))
    return require(paired_ratio(pairs))


def aa_pairs(rng: np.random.Generator) -> Outcome:
    check = require(bias_check(starts(rng, 1.0).interval, MARGIN))
    return not check.unbiased


def aa_pairs_of_shares(rng: np.random.Generator) -> Outcome:
    pairs = []
    for order in pair_orders(PAIRS, int(rng.integers(1 << 30))):
        a, b = (float((mm1(rng, 400, 0.7, math.exp(rng.normal(0, 0.05))) > 8.0).mean()) for _ in range(2))
        pairs.append(Pair(order, a, b))
    result = paired_difference(pairs)
    return None if isinstance(result, NotComputable) else _misses(result.interval, 0.0)


def aa_order(rng: np.random.Generator) -> Outcome:
    order = starts(rng, 1.0, second=1.0).order
    return None if isinstance(order, NotComputable) else order.found


def aa_quantiles(rng: np.random.Generator) -> Outcome:
    """p95 of two runs of a queue, by blocks of time."""
    both = [dependent_quantile(mm1(rng, 8000, 0.7), 0.95, FAST) for _ in range(2)]
    result = difference(both[0], both[1])
    return None if isinstance(result, NotComputable) else _misses(result.interval, 0.0)


def aa_shares(rng: np.random.Generator) -> Outcome:
    """Over-SLO shares of two runs of a queue, by blocks of time."""
    both = [over_rate(mm1(rng, 8000, 0.7), 10.0, FAST) for _ in range(2)]
    for rate in both:
        if isinstance(rate, NotComputable):
            return None
    result = newcombe(require(both[0]), require(both[1]))
    return None if isinstance(result, NotComputable) else _misses(result.interval, 0.0)


def aa_errors(rng: np.random.Generator) -> Outcome:
    """Error shares of two runs whose errors come in bursts: one stretch of 40 in ten fails 20% of its requests."""
    both = []
    for _ in range(2):
        bad = np.repeat(rng.random(200) < 0.1, 40)
        both.append(require(dependent_rate(rng.random(8000) < np.where(bad, 0.2, 0.001))))
    return _misses(require(newcombe(both[0], both[1])).interval, 0.0)


SERVICE, THRESHOLD = 0.01, 0.1
GRID = (35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 80.0)


WIDE = (6.0, 9.0, 13.0, 19.0, 28.0, 36.0, 44.0, 52.0, 60.0, 80.0)
"""As a search lays its grid for arms of very different capacity: from a tenth of this arm's on, nothing over at most."""


def curve(rng: np.random.Generator, n: int = 4000, grid: tuple[float, ...] = GRID) -> Capacity | NotComputable:
    """A queue of 10 ms service on a grid of rates, p99 <= 100 ms."""
    points = []
    for rate in grid:
        over = mm1(rng, n, rate * SERVICE, SERVICE) > THRESHOLD
        points.append(require(rate_point(rate, over, np.zeros(n, dtype=bool))))
    return capacity(points, SLO, FAST)


def capacity_coverage(rng: np.random.Generator, grid: tuple[float, ...] = GRID) -> Outcome:
    result = curve(rng, grid=grid)
    truth = mm1_rate(THRESHOLD, SLO.over, SERVICE)
    return None if isinstance(result, NotComputable) else _misses(result.estimate.interval, truth)


KNEE = (500.0, 600.0, 720.0, 860.0, 985.0)


def knee_coverage(rng: np.random.Generator) -> Outcome:
    """A queue of 1 ms service, p99 <= 100 ms, on a grid so coarse that nothing is over at one rate and 22% at the next."""
    points = []
    for rate in KNEE:
        over = mm1(rng, 8000, rate * 0.001, 0.001) > THRESHOLD
        points.append(require(rate_point(rate, over, np.zeros(8000, dtype=bool))))
    result = capacity(points, SLO, FAST)
    return None if isinstance(result, NotComputable) else _misses(result.estimate.interval, mm1_rate(0.1, 0.01, 0.001))


def aa_capacity(rng: np.random.Generator) -> Outcome:
    ratio = capacity_ratio(curve(rng), curve(rng))
    return None if isinstance(ratio, NotComputable) else _misses(ratio.interval, 1.0)


def aa_capacity_of_independent_requests(rng: np.random.Generator) -> Outcome:
    """Both arms are resampled from one seed, as a search does: nothing may pair what was measured apart."""
    ratio = capacity_ratio(independent_curve(rng), independent_curve(rng))
    return None if isinstance(ratio, NotComputable) else _misses(ratio.interval, 1.0)


def independent_curve(rng: np.random.Generator) -> Capacity | NotComputable:
    """3 s at each rate of a server that takes 800 requests per second, 20 ms allowed: 1% are over at about 554."""
    points = []
    for rate in (440.0, 490.0, 530.0, 580.0, 640.0, 700.0):
        over = rng.random(int(3 * rate)) < math.exp(-(800.0 - rate) * (0.020 - 1 / 800.0))
        points.append(require(rate_point(rate, over, np.zeros(over.size, dtype=bool))))
    return capacity(points, SLO, FAST)


def quantile_coverage(process: str, n: int, q: float) -> Callable[[np.random.Generator], Outcome]:
    """`dependent_quantile` against the exact quantile of the process."""

    def run(rng: np.random.Generator) -> Outcome:
        if process == "ar1":
            values, truth = ar1(rng, n, 0.9), 1.0
        elif process == "independent":
            values, truth = rng.exponential(1.0, n), -math.log(1.0 - q)
        else:
            load = float(process)
            values, truth = mm1(rng, n, load), mm1_quantile(q, load)
        estimate = dependent_quantile(values, q, FAST)
        return None if isinstance(estimate, NotComputable) else _misses(estimate.interval, truth)

    return run


def equivalence_at_the_margin(rng: np.random.Generator) -> Outcome:
    """The arms differ by just the margin: equivalence must not be shown."""
    return require(tost(starts(rng, 1.1, CALM).effect, MARGIN)).shown


def non_inferiority_at_the_margin(rng: np.random.Generator) -> Outcome:
    return require(non_inferiority(starts(rng, 1.1, CALM).effect, MARGIN)).shown


def winner_at_the_margin(rng: np.random.Generator) -> Outcome:
    """B is slower by just the margin: naming A, or B, is wrong."""
    return decide_effect(starts(rng, 1.1, CALM).effect, MARGIN).verdict in (ABVerdict.A_BETTER, ABVerdict.B_BETTER)


def winner_of_equals(rng: np.random.Generator) -> Outcome:
    return decide_effect(starts(rng, 1.0, CALM).effect, MARGIN).verdict in (ABVerdict.A_BETTER, ABVerdict.B_BETTER)


def family(rng: np.random.Generator) -> Outcome:
    """13 dependent claims, none of them true: any one shown is an alarm."""
    shared = rng.normal(0.0, 1.0, PAIRS)
    p_values: dict[str, float | NotComputable] = {}
    for claim in range(13):
        deltas = 0.7 * shared + rng.normal(0.0, 1.0, PAIRS)
        pairs = [Pair("AB" if i % 2 else "BA", 0.0, float(delta)) for i, delta in enumerate(deltas)]
        p_values[str(claim)] = require(paired_difference(pairs)).p_value
    return any(require(result).shown for result in holm(p_values).values())


def drift_of_a_still_queue(rng: np.random.Generator) -> Outcome:
    result = drift(np.sort(rng.uniform(0.0, 60.0, 6000)), mm1(rng, 6000, 0.7))
    return None if isinstance(result, NotComputable) else result.found


ANALYSES: dict[str, Analysis] = {
    "A/A: p95 over 6 pairs of starts (queue), order effect 3%": Analysis(aa_pairs),
    "A/A: over-SLO share over 6 pairs of starts (queue)": Analysis(aa_pairs_of_shares, computable=0.9),
    "A/A: effect of the order where there is none": Analysis(aa_order, computable=0.9),
    "A/A: p95 of two runs, queue at 0.7": Analysis(aa_quantiles, computable=0.7),
    "A/A: over-SLO share of two runs, queue at 0.7": Analysis(aa_shares, computable=0.9),
    "A/A: error share of two runs, errors in bursts": Analysis(aa_errors),
    "A/A: ratio of two capacities at p99 <= 100 ms": Analysis(aa_capacity, computable=0.8),
    "A/A: ratio of two capacities, independent requests": Analysis(aa_capacity_of_independent_requests),
    "interval of a capacity": Analysis(capacity_coverage, computable=0.8),
    "interval of a capacity, on a wide grid": Analysis(partial(capacity_coverage, grid=WIDE), computable=0.8),
    "interval of a capacity at a sharp knee": Analysis(knee_coverage, computable=0.5),
    "interval of p99, independent, n 3000": Analysis(quantile_coverage("independent", 3000, 0.99)),
    "interval of p50, AR(1) 0.9, n 3000": Analysis(quantile_coverage("ar1", 3000, 0.5)),
    "interval of p95, queue at 0.5, n 3000": Analysis(quantile_coverage("0.5", 3000, 0.95), computable=0.9),
    "interval of p50, queue at 0.8, n 20000": Analysis(quantile_coverage("0.8", 20_000, 0.5)),
    "interval of p95, queue at 0.8, n 20000": Analysis(quantile_coverage("0.8", 20_000, 0.95), computable=0.8),
    "equivalence where B is slower by the margin": Analysis(equivalence_at_the_margin),
    "non-inferiority where B is slower by the margin": Analysis(non_inferiority_at_the_margin),
    "a winner where B is slower by the margin": Analysis(winner_at_the_margin),
    "a winner between equals": Analysis(winner_of_equals),
    "any of 13 false claims after Holm": Analysis(family),
    "drift of a queue that stands still": Analysis(drift_of_a_still_queue),
}
