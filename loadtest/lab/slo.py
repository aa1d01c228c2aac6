"""Capacity at an SLO, the plan: where to look (bracket), what to measure (one grid), in which order, drained when. PURE.

Probes only bracket: no figure comes from a point that was chosen because of what the points before it showed. The figure
comes from ONE grid of rates for all arms, fixed when the brackets are known. What is made of it: slo_results.

lab.json's "results" of kind slo:
  slo {percentile, threshold_ms, over, errors}, path, protocol, confidence, starts, primary ("points": block bootstrap of the
  measured starts; "starts": paired t over fresh starts), probes {arm: [{rate, over, errors, held, block}]},
  bracket {arm: {low, high, note}}, grid [rate], whole [starts measured], points [{arm, rate, replicate, block, reasons,
  server_cores, gateway_cores, generator_cores}], arms {arm: ARM}, ratio and ratio_per_core (RATIO), price_per_core_hour,
  aa (AA, where two instances of the baseline ran)
ARM = {curve: [{rate, n, over, failed, fitted, p50_ms, p99_ms, server_cores, gateway_cores, generator_cores, blocks}],
  capacity: EST, cores: {basis: "given"|"used", value}, per_core: EST, cost_per_million: EST|null, valid, reasons, per_start: [EST]}
AA = {baseline, arm, metric, value, low, high, p, confidence, method, unbiased} or {missing, unbiased: null}
RATIO = {baseline, arm, metric, value, low, high, p, confidence, margin, method, verdict, reason} or {missing}
EST = {value, low, high, reason (where there is no interval)} or {missing}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.stats.paired import MIN_PAIRS, pair_orders
from gateway.stats.quantiles import sample_floor

PERCENTILE = 99.0
GROWTH = 2.0
CLOSE = 1.25
"""A bracket this narrow (high over low) is narrow enough: the grid reaches beyond both ends anyway."""

BISECTIONS = 5
LONGEST = 120.0
"""Seconds a point may take for more than the least its percentile needs."""

SURE = 1.2
"""Arrivals come at random: so many times the least ones are offered, or every other point would lack a few."""


@dataclass(frozen=True, slots=True)
class Objective:
    """p99 at most threshold_ms; errors: the largest share of failed requests, None for no limit of its own."""

    threshold_ms: float
    errors: float | None = None

    @property
    def over(self) -> float:
        """The share that may be over the threshold."""
        return 1.0 - PERCENTILE / 100.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What a short open loop at a rate showed; given: the generator kept its schedule, so that the rate is a rate."""

    rate: float
    over: float
    errors: float
    given: bool = True

    def held(self, objective: Objective) -> bool:
        """Few enough over and failed, at the rate that was asked for."""
        within = self.over <= objective.over and (objective.errors is None or self.errors <= objective.errors)
        return within and self.given


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest rate seen to hold and the lowest seen not to; None where there is none, `note` then says why."""

    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """Rates in requests per second: where to start, and the limits of the search."""

    start: float = 64.0
    lowest: float = 1.0
    highest: float = 65536.0


def next_probe(probes: Sequence[Probe], objective: Objective, search: Search) -> float | Bracket:
    """The next rate to try, or the bracket where enough is known: doubling (halving), then geometric bisection.

    A rate is missed when it was missed twice: one pause of the machine in a short probe would end the search far too low.
    """
    if not probes:
        return search.start
    verdicts = _verdicts(probes, objective)
    doubtful = next((rate for rate, verdict in verdicts.items() if verdict is None), None)
    if doubtful is not None:
        return doubtful
    held = [rate for rate, verdict in verdicts.items() if verdict]
    failed = [rate for rate, verdict in verdicts.items() if not verdict]
    low = max((rate for rate in held if not failed or rate < min(failed)), default=None)
    high = min(failed, default=None)
    if high is None:
        assert low is not None
        if low >= search.highest:
            return Bracket(low, None, f"the SLO still held at {low:g}/s, the highest rate asked for")
        return min(search.highest, low * GROWTH)
    if low is None:
        if high <= search.lowest:
            return Bracket(None, high, f"the SLO was missed already at {high:g}/s, the lowest rate asked for")
        return max(search.lowest, high / GROWTH)
    told = list(verdicts.values())
    turned = next(i for i in range(len(told)) if len(set(told[: i + 1])) == 2)  # from here on it is bisection
    if high / low <= CLOSE or len(told) - turned - 1 >= BISECTIONS:
        late = next((probe for probe in probes if probe.rate == high and not probe.given), None)
        return Bracket(low, high, f"at {high:g}/s the generator did not keep its schedule" if late else "")
    return significant(math.sqrt(low * high))


def _verdicts(probes: Sequence[Probe], objective: Objective) -> dict[float, bool | None]:
    """Of each rate, in the order they were first tried: held, missed, or None where it was missed once and is to be asked again.

    A rate that the generator could not give was offered more than once already.
    """
    told: dict[float, bool | None] = {}
    for probe in probes:
        again = probe.rate in told
        told[probe.rate] = (
            bool(told.get(probe.rate)) or probe.held(objective) or (False if again or not probe.given else None)
        )
    return told


def significant(value: float, digits: int = 3) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def grid(brackets: Iterable[Bracket], points: int = 8, reach: tuple[float, float] = (0.6, 1.6)) -> tuple[float, ...]:
    """One grid for all arms: around each bracket `points` rates in equal ratios from reach[0]*low to reach[1]*high.

    Rates of two brackets that lie closer to each other than 6% are one. Empty where no arm has a bracket.
    """
    rates: set[float] = set()
    for bracket in brackets:
        if bracket.low is not None and bracket.high is not None:
            rates |= {float(rate) for rate in np.geomspace(reach[0] * bracket.low, reach[1] * bracket.high, points)}
    kept: list[float] = []
    for rate in sorted(rates):
        if not kept or rate > kept[-1] * 1.06:
            kept.append(rate)
    return tuple(dict.fromkeys(significant(rate) for rate in kept))


def seconds_for(rate: float, least: float, errors: float | None = None) -> float:
    """How long a rate is offered: `least`, longer where that gives fewer than twice the requests a limit needs to be seen to hold.

    A p99 needs its sample floor. errors: the limit on their share, None for no own one. Of n requests without an error the
    share lies below 3/n with 95% confidence (rule of three, Hanley and Lippman-Hand 1983): with fewer than 3/errors it could
    never be seen to hold, with no more than those hardly ever: one failed request, or dependent ones, would spoil it. Of a
    slow server more than LONGEST is asked only for the floor, without which there would be no capacity at all.
    """
    floor = sample_floor(PERCENTILE / 100.0)
    need = 2.0 * max(floor, 3.0 / errors if errors else 0.0) / rate
    return round(max(SURE * floor / rate, min(LONGEST, max(least, need))), 1)


@dataclass(frozen=True, slots=True)
class Place:
    """One point of the plan."""

    replicate: int
    order: int
    arm: str
    rate: float


def order(arms: Sequence[str], rates: Sequence[float], starts: int, seed: int) -> tuple[Place, ...]:
    """Every rate for every arm in every start. Fewer than 6 starts: arms and rates shuffled together, so that a drift of the
    machine hits all alike. From 6 on a start is a pair AB or BA (as many of both), the rates shuffled within each arm.
    """
    rng = np.random.default_rng(seed)
    pairs = pair_orders(starts, seed)
    places = []
    for replicate in range(starts):
        cells = [(arm, rate) for arm in arms for rate in rates]
        cells = [cells[i] for i in rng.permutation(len(cells))]
        if starts >= MIN_PAIRS:
            first = {arm: i for i, arm in enumerate(arms if pairs[replicate] == "AB" else reversed(arms))}
            cells.sort(key=lambda cell: first[cell[0]])
        places += [Place(replicate, i, arm, rate) for i, (arm, rate) in enumerate(cells)]
    return tuple(places)


def drained(latencies_ms: Sequence[float], idle_ms: float, failed: int) -> bool:
    """A single client's requests are answered as on the idle server again: none failed, their median within twice the idle
    one (at least 2 ms more, as wake-ups vary by that). Only asked where requests were given up unanswered: they may stand in
    the server's queue; where all were answered none can."""
    if failed or not latencies_ms:
        return False
    return float(np.median(np.asarray(latencies_ms))) <= max(2.0 * idle_ms, idle_ms + 2.0)
