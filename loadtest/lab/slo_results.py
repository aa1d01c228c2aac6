"""Capacity at an SLO, what the measured grid shows: shape of lab.json's "results" in slo.py. PURE.

Rule: an interval holds for the starts that were measured unless it comes from six starts or more, and a verdict needs those;
a figure that the generator, the gateway or other processes may have limited is not called a capacity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.stats.blocks import Resampling
from gateway.stats.capacity import Capacity, Slo, capacity, capacity_ratio, cost_per_million, over_slo, rate_point
from gateway.stats.effects import Effect, Margin, Scale
from gateway.stats.equivalence import ABVerdict, decide_effect
from gateway.stats.paired import MIN_PAIRS, Pair, pair_orders, paired_ratio
from gateway.stats.quantiles import sample_floor
from gateway.stats.result import Estimate, Interval, NotComputable
from loadtest.lab.slo import PERCENTILE, Objective
from loadtest.points.spec import Requests

Json = dict[str, Any]

NO_VERDICT = "no verdict: stand-in"


@dataclass(frozen=True)
class Outcomes:
    """One point's requests in order of due time: milliseconds from the intended time (inf: no answer), answered rightly."""

    latency_ms: NDArray[np.float64]
    answered: NDArray[np.bool_]

    @classmethod
    def of(cls, requests: Requests, check: str) -> Outcomes:
        """From the window's requests; dropped, failed and timed out ones are not answered, nor are outputs unlike the
        reference. check "label": a wrong class is the model's own mistake, alike on all arms, and no error of the server."""
        answered = (requests.done_ns >= 0) & (requests.error == "")
        if check != "label":
            answered &= requests.correct != 0
        latency = np.where(answered, (requests.done_ns - requests.due_ns) / 1e6, math.inf)
        return cls(latency, np.asarray(answered))


@dataclass(frozen=True)
class Measured:
    """One point of the grid: `reasons` says why what it carried may not be called a capacity; cores as means over the window."""

    arm: str
    rate: float
    replicate: int
    block: str
    outcomes: Outcomes
    server_cores: float | None = None
    gateway_cores: float | None = None
    generator_cores: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What was written down before the run. arms: baseline first. aa: the baseline's second instance among them, "" for none.
    cores: those given (pinned) to each arm's server, None: used ones count. stand_in: one of the two is a stand-in, so that no
    verdict between them is given. replicates: of the block bootstrap.
    """

    objective: Objective
    arms: tuple[str, ...]
    starts: int
    seed: int
    path: str
    protocol: str
    cores: Mapping[str, int | None] = field(default_factory=dict)
    price: float | None = None
    margin: float = 0.05
    stand_in: bool = False
    aa: str = ""
    replicates: int = 2000


def results(points: Sequence[Measured], terms: Terms) -> Json:
    """Everything of "results" that comes from the grid."""
    arms = {arm: _Arm.of(arm, [point for point in points if point.arm == arm], terms) for arm in terms.arms}
    by_starts = terms.starts >= MIN_PAIRS
    compared = {"ratio": _Arm.as_found, "ratio_per_core": _Arm.core_capacity}
    told: Json = {
        "slo": {"percentile": PERCENTILE, "threshold_ms": terms.objective.threshold_ms, "over": terms.objective.over,
                "errors": terms.objective.errors},
        "path": terms.path, "protocol": terms.protocol, "confidence": 0.95, "starts": terms.starts,
        "primary": "starts" if by_starts else "points",
        "arms": {name: arm.told() for name, arm in arms.items()},
        "price_per_core_hour": terms.price,
    }  # fmt: skip
    pair = [arms[name] for name in terms.arms if name != terms.aa]
    if len(pair) == 2:
        if terms.aa:
            told["aa"] = _twins(pair[0], arms[terms.aa], terms)
        for key, value in compared.items():
            told[key] = _unless_biased(_ratio(key, pair, value, terms), told.get("aa"))
    return told


def _twins(baseline: _Arm, twin: _Arm, terms: Terms) -> Json:
    """AA of slo.py's shapes: the ratio of two instances of one arm, which must hold 1."""
    found = _ratio("ratio", [baseline, twin], _Arm.as_found, replace(terms, stand_in=False))
    told = {key: value for key, value in found.items() if key not in ("verdict", "reason", "margin")}
    if "missing" in told:
        return told | {"unbiased": None}
    low, high = told["low"], told["high"]
    return told | {"unbiased": (low is None or low <= 1.0) and (high is None or high >= 1.0)}


def _unless_biased(ratio: Json, aa: Json | None) -> Json:
    """A ratio whose verdict falls where twins of one arm differ; no verdict at all stays that."""
    if aa is None or aa["unbiased"] is not False or ratio.get("verdict", NO_VERDICT) == NO_VERDICT:
        return ratio
    reason = (
        f"two instances of {aa['baseline']} differ by a factor of {aa['value']:.3f} ({_limit(aa['low'])} to "
        f"{_limit(aa['high'])}): starts differ by more than the interval covers; take --starts {MIN_PAIRS} or more"
    )
    return ratio | {"verdict": "INVALID", "reason": reason}


def _limit(value: float | None) -> str:
    return "no limit" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class _Arm:
    """One arm's points joined over the starts, its capacity from all of them and from each start."""

    name: str
    points: list[Measured]
    rates: NDArray[np.float64]
    cores: NDArray[np.float64] | None
    terms: Terms
    all: Capacity | NotComputable
    starts: list[Capacity | NotComputable]

    @classmethod
    def of(cls, name: str, points: list[Measured], terms: Terms) -> _Arm:
        rates = sorted({point.rate for point in points})
        used = [[p.server_cores for p in points if p.rate == rate] for rate in rates]
        known = bool(used) and all(core is not None for cores in used for core in cores)
        cores = np.array([np.mean(np.array(row, dtype=np.float64)) for row in used]) if known else None
        starts = [_capacity([p for p in points if p.replicate == i], terms) for i in range(terms.starts)]
        whole = starts[0] if terms.starts == 1 else _capacity(points, terms)
        return cls(name, points, np.array(rates), cores, terms, whole, starts)

    @property
    def given(self) -> int | None:
        """Cores the server was pinned to."""
        return self.terms.cores.get(self.name)

    def as_found(self, found: Capacity | NotComputable) -> Capacity | NotComputable:
        return found

    def core_capacity(self, found: Capacity | NotComputable) -> Capacity | NotComputable:
        """The same per core: replicates and limits each divided by the cores at their own rate."""
        if isinstance(found, NotComputable):
            return found
        if self.given is None and self.cores is None:
            return NotComputable("the CPU time of the server's processes was not sampled")
        value, interval = found.estimate.value, found.estimate.interval
        finite = np.where(np.isfinite(found.replicates), found.replicates, 0.0)
        replicates = np.where(np.isfinite(found.replicates), finite / self.cores_at(finite), math.inf)
        if isinstance(interval, Interval):
            low, high = np.quantile(replicates, (0.025, 0.975), method="inverted_cdf")
            interval = Interval(float(low), float(high), interval.confidence)
        estimate = Estimate(value / float(self.cores_at(value)), found.estimate.n, interval)
        return replace(found, estimate=estimate, replicates=replicates)

    def cores_at(self, rate: Any) -> Any:
        """Cores at a rate: the given ones, or the used ones on straight lines between the grid's rates."""
        if self.given is not None:
            return np.full(np.shape(rate), float(self.given))
        assert self.cores is not None
        return np.maximum(np.interp(rate, self.rates, self.cores), 1e-6)

    def estimates(self, value: Callable[[_Arm, Any], Capacity | NotComputable]) -> Estimate | NotComputable:
        """The primary figure: over starts where there are enough, else that of all points."""
        if len(self.starts) < MIN_PAIRS:
            found = value(self, self.all)
            return found if isinstance(found, NotComputable) else found.estimate
        return over_starts([value(self, start) for start in self.starts])

    def told(self) -> Json:
        whole = self.estimates(_Arm.as_found)
        core = self.estimates(_Arm.core_capacity)
        reasons = self.reasons(whole)
        used: Any = {"missing": "no capacity"}
        if isinstance(whole, Estimate):
            known = self.given is not None or self.cores is not None
            used = float(self.cores_at(whole.value)) if known else {"missing": "not sampled"}
        return {
            "curve": self.curve(),
            "capacity": told(whole),
            "cores": {"basis": "given" if self.given is not None else "used", "value": used},
            "per_core": told(core),
            "cost_per_million": cost(core, self.terms.price),
            "valid": not reasons,
            "reasons": reasons,
            "per_start": [told(start if isinstance(start, NotComputable) else start.estimate) for start in self.starts],
        }

    def reasons(self, whole: Estimate | NotComputable) -> list[str]:
        """What of the points next to the capacity makes it something else than the server's capacity."""
        if isinstance(whole, NotComputable):
            return [whole.reason]
        at = int(np.searchsorted(self.rates, whole.value, side="right"))
        near = set(self.rates[max(0, at - 1) : at + 1].tolist())
        told = (f"at {p.rate:g}/s: {reason}" for p in self.points if p.rate in near for reason in p.reasons)
        return list(dict.fromkeys(told))

    def curve(self) -> list[Json]:
        fitted = {} if isinstance(self.all, NotComputable) else {p.rate: p.fitted for p in self.all.curve}
        rows = []
        for rate in self.rates.tolist():
            points = [point for point in self.points if point.rate == rate]
            latency = np.concatenate([point.outcomes.latency_ms for point in points])
            answered = np.concatenate([point.outcomes.answered for point in points])
            over = over_slo(latency, answered, self.terms.objective.threshold_ms)
            rows.append({
                "rate": rate, "n": int(latency.size), "over": share(over), "failed": share(~answered), "fitted": fitted.get(rate),
                "p50_ms": _quantile(latency, 0.5), "p99_ms": _quantile(latency, 0.99),
                "server_cores": _mean([p.server_cores for p in points]),
                "gateway_cores": _mean([p.gateway_cores for p in points]),
                "generator_cores": _mean([p.generator_cores for p in points]),
                "blocks": [point.block for point in points],
            })  # fmt: skip
        return rows


def _capacity(points: Sequence[Measured], terms: Terms) -> Capacity | NotComputable:
    """From the points of one arm, those of one rate joined in order of the starts."""
    found = []
    for rate in sorted({point.rate for point in points}):
        parts = [point.outcomes for point in points if point.rate == rate]
        latency, answered = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("latency_ms", "answered")
        )
        over = over_slo(latency, answered, terms.objective.threshold_ms)
        point = rate_point(rate, over, ~answered)
        if isinstance(point, NotComputable):
            return point
        found.append(point)
    plan = Resampling(terms.seed, terms.replicates)
    return capacity(found, Slo(terms.objective.over, terms.objective.errors), plan)


def over_starts(found: Sequence[Capacity | NotComputable]) -> Estimate | NotComputable:
    """Geometric mean of one capacity per fresh start with Student's t interval on the logs. One bad start spoils it."""
    values = []
    for i, start in enumerate(found):
        if isinstance(start, NotComputable):
            return NotComputable(f"start {i + 1}: {start.reason}")
        values.append(math.log(start.estimate.value))
    n = len(values)
    spread = float(np.std(values, ddof=1))
    effect = Effect(float(np.mean(values)), spread / math.sqrt(n), n - 1, n, Scale.RATIO)
    interval = effect.interval() if spread > 0.0 else NotComputable("all starts gave the same capacity")
    return Estimate(effect.value, n, interval)


def cost(core: Estimate | NotComputable, price: float | None) -> Json | None:
    """Price of a million inferences, the limits swapped as more requests cost less each; None without a price."""
    if price is None:
        return None
    if isinstance(core, NotComputable):
        return told(core)
    interval = core.interval
    if isinstance(interval, Interval):
        high, low = (cost_per_million(limit, price) for limit in (interval.low, interval.high))
        interval = Interval(low, high, interval.confidence)
    return told(Estimate(cost_per_million(core.value, price), core.n, interval))


def told(estimate: Estimate | NotComputable) -> Json:
    """EST of slo.py's shapes."""
    if isinstance(estimate, NotComputable):
        return {"missing": estimate.reason}
    interval = estimate.interval
    if isinstance(interval, NotComputable):
        return {"value": estimate.value, "low": None, "high": None, "reason": interval.reason}
    return {"value": estimate.value, "low": interval.low, "high": interval.high}


def _ratio(key: str, arms: list[_Arm], value: Callable[[_Arm, Any], Capacity | NotComputable], terms: Terms) -> Json:
    """RATIO of slo.py's shapes: the second arm over the first; more is better."""
    a, b = arms
    margin = Margin(terms.margin)
    head: Json = {"baseline": a.name, "arm": b.name, "metric": "capacity" if key == "ratio" else "capacity per core",
                  "confidence": 0.95, "margin": terms.margin}  # fmt: skip
    if terms.starts >= MIN_PAIRS:
        pairs = [
            Pair(order, *(f if isinstance(f, NotComputable) else f.estimate.value for f in (value(a, x), value(b, y))))
            for order, x, y in zip(pair_orders(terms.starts, terms.seed), a.starts, b.starts, strict=True)
        ]
        paired = paired_ratio(pairs)
        if isinstance(paired, NotComputable):
            return head | {"missing": paired.reason}
        decision = decide_effect(paired.effect, margin, lower_is_better=False)
        numbers = (paired.value, paired.interval, paired.p_value)
        method = f"paired t on log capacities of {terms.starts} fresh starts"
    else:
        ratio = capacity_ratio(value(a, a.all), value(b, b.all))
        if isinstance(ratio, NotComputable):
            return head | {"missing": ratio.reason}
        decision = None
        numbers = (ratio.value, ratio.interval, ratio.p_value)
        method = "block bootstrap of the points; holds for the measured starts, another start may differ"
    if decision is None:
        count = f"{terms.starts} start{'s were' if terms.starts > 1 else ' was'}"
        verdict, reason = (
            str(ABVerdict.CANNOT_TELL),
            f"{count} measured, and starts differ; a verdict needs --starts {MIN_PAIRS}",
        )
    else:
        verdict, reason = str(decision.verdict), decision.reason
    wrong = [f"{arm.name}: {text}" for arm in arms for text in arm.reasons(arm.estimates(_Arm.as_found))]
    if wrong:
        verdict, reason = "INVALID", "; ".join(wrong)
    if terms.stand_in:
        verdict, reason = NO_VERDICT, "one of the two servers is the stand-in, which is not TensorFlow Serving"
    figure, interval, p_value = numbers
    return head | {"value": figure, "low": finite(interval.low), "high": finite(interval.high), "p": p_value, "method": method,
                   "verdict": verdict, "reason": reason}  # fmt: skip


def share(which: NDArray[np.bool_]) -> float:
    """The share of True; 0 of nothing."""
    return float(which.mean()) if which.size else 0.0


def finite(value: float) -> float | None:
    """The value, None where an interval has no limit on that side (JSON knows no infinity)."""
    return value if math.isfinite(value) else None


def _quantile(latency: NDArray[np.float64], q: float) -> float | None:
    """The order statistic in ms; None below the sample floor and where it is an unanswered request."""
    if latency.size < sample_floor(q):
        return None
    value = float(np.quantile(latency, q, method="inverted_cdf"))
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
