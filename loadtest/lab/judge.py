"""From blocks to verdicts. PURE: a plan, the arms and the blocks of lab.json in, its "comparisons" and "verdict" out.

Rule: the start is the replicate, each gives one pair. What makes a comparison INVALID (a bad block, an A/A check that finds a
difference) comes before any number; a stand-in is never judged against a server of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.reports.lab.shape import load_name
from gateway.stats.effects import Effect, Margin, Scale
from gateway.stats.equivalence import ABVerdict, BiasCheck, bias_check, compare, decide_effect
from gateway.stats.holm import Adjusted, holm
from gateway.stats.paired import OrderEffect, Pair, Paired, paired_difference, paired_ratio
from gateway.stats.result import NotComputable
from loadtest.lab.figures import value_of
from loadtest.lab.plan import ComparisonPlan

Json = dict[str, Any]
Block = Mapping[str, Any]
STAND_IN = "no verdict: stand-in"
_TOLD_REASONS = 3


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a block. capacity: it needs blocks whose generator and gateway were not the limit."""

    name: str
    unit: str
    value: Callable[[Block], float | NotComputable]
    lower_is_better: bool = True
    scale: Scale = Scale.RATIO
    capacity: bool = False
    only: str = ""  # "closed loop", "open loop" or "gateway": the blocks that have it


def _quantile(kind: str, level: str) -> Callable[[Block], float | NotComputable]:
    return lambda block: value_of(block.get(f"{kind}_ms"), level)


def _cpu(block: Block) -> float | NotComputable:
    found = block.get("cpu_us")
    return float(found) if found else NotComputable("the server's CPU time was not seen")


def _memory(block: Block) -> float | NotComputable:
    found = (block.get("cpu") or {}).get(f"arm {block['arm']}", {}).get("rss_bytes")
    return float(found) if found else NotComputable("the server's memory was not seen")


def _throughput(block: Block) -> float | NotComputable:
    return float(block["goodput"]) or NotComputable("no request got a good answer")


def _errors(block: Block) -> float | NotComputable:
    return (block["errors"] + block["dropped"]) / block["n"] if block["n"] else NotComputable("no requests")


METRICS = (
    Metric("throughput", "/s", _throughput, lower_is_better=False, capacity=True, only="closed loop"),
    *(Metric(f"service {level}", "ms", _quantile("service", level)) for level in ("p50", "p95", "p99")),
    *(
        Metric(f"intended {level}", "ms", _quantile("intended", level), only="open loop")
        for level in ("p50", "p95", "p99")
    ),
    Metric("upstream p50", "ms", _quantile("upstream", "p50"), only="gateway"),
    Metric("CPU per request", "us", _cpu),
    Metric("memory", "bytes", _memory),
    Metric("errors", "share", _errors, scale=Scale.DIFFERENCE),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """Blocks that may be held against each other: one load, one protocol, one path."""

    name: str
    protocol: str
    path: str
    blocks: tuple[Block, ...]

    def of(self, arm: str) -> dict[int, Block]:
        """An arm's blocks by start."""
        return {block["replicate"]: block for block in self.blocks if block["arm"] == arm}

    def has(self, metric: Metric) -> bool:
        """Whether the metric means something here."""
        return metric.only in ("", self.path, self.blocks[0]["mode"])


def conditions(blocks: Sequence[Block]) -> list[Condition]:
    """The blocks by load, protocol and path, in order of their first."""
    grouped: dict[tuple[str, str, str], list[Block]] = {}
    for block in blocks:
        grouped.setdefault((block["name"], block["protocol"], block["path"]), []).append(block)
    return [Condition(*key, tuple(found)) for key, found in grouped.items()]


def pairs(a: Mapping[int, Block], b: Mapping[int, Block], metric: Metric) -> list[Pair]:
    """One pair of values for each start that has both blocks, in order of the starts."""
    return [
        Pair("AB" if a[start]["order"] < b[start]["order"] else "BA", metric.value(a[start]), metric.value(b[start]))
        for start in sorted(a.keys() & b.keys())
    ]


def effect_of(found: Sequence[Pair], metric: Metric, confidence: float) -> Paired | NotComputable:
    """The paired analysis on the metric's scale."""
    if metric.scale is Scale.DIFFERENCE:
        if len(found) > 0 and all(pair.a == pair.b == 0 for pair in found):
            return NotComputable("none in any block of either arm")
        return paired_difference(found, confidence)
    return paired_ratio(found, confidence)


def comparisons(plan: ComparisonPlan, arms: Mapping[str, Json], blocks: Sequence[Block]) -> list[Json]:
    """Every arm against the baseline, metric by metric and load by load, secondary ones with Holm's p."""
    told = [
        comparison(plan, arms, condition, metric, arm.name)
        for condition in conditions(blocks)
        for arm in plan.arms[1:]
        if arm.name != plan.aa
        for metric in METRICS
        if condition.has(metric)
    ]
    family = {str(i): one.get("p", NotComputable("missing")) for i, one in enumerate(told) if not one["primary"]}
    adjusted = holm(family, plan.alpha)
    for i, one in enumerate(told):
        found = adjusted.get(str(i))
        one["p_holm"] = found.p_value if isinstance(found, Adjusted) else None
    return told


def comparison(plan: ComparisonPlan, arms: Mapping[str, Json], condition: Condition, metric: Metric, arm: str) -> Json:
    """One COMPARISON of lab/spec.py."""
    baseline = plan.baseline.name
    mine, theirs, twin = condition.of(baseline), condition.of(arm), condition.of(plan.aa) if plan.aa else {}
    found = pairs(mine, theirs, metric)
    result = effect_of(found, metric, 1 - plan.alpha)
    margin = Margin(plan.margin_of(metric.name), metric.scale)
    told: Json = {
        "metric": metric.name,
        "unit": metric.scale.value,
        "lower_is_better": metric.lower_is_better,
        "baseline": baseline,
        "arm": arm,
        "protocol": condition.protocol,
        "path": condition.path,
        "name": condition.name,
        "load": load_name(condition.blocks[0]),
        "primary": plan.primary.metric == metric.name and plan.primary.load == condition.name,
        "n": len(found),
        "confidence": 1 - plan.alpha,
        "margin": margin.size,
        "pairs": [[_number(pair.a), _number(pair.b), pair.order] for pair in found],
    }
    check = aa_check(mine, twin, metric, margin, plan.alpha)
    told["aa"] = _check_words(check, effect_of(pairs(mine, twin, metric), metric, 1 - plan.alpha))
    if isinstance(result, NotComputable):
        return told | {"missing": result.reason}
    told |= _effect_words(result)
    if strange(arms, baseline, arm):
        reason = "one of the two is a stand-in for TensorFlow Serving: its speed says nothing about the real server's"
        return told | {"verdict": STAND_IN, "reason": reason}
    decision = decide_effect(result.effect, margin, plan.alpha, metric.lower_is_better)
    involved = [*mine.values(), *theirs.values(), *twin.values()]
    decision = compare(check, decision, bad_blocks(involved, metric.capacity))
    return told | {"verdict": decision.verdict.value, "reason": decision.reason}


def aa_check(
    mine: Mapping[int, Block], twin: Mapping[int, Block], metric: Metric, margin: Margin, alpha: float
) -> BiasCheck | NotComputable:
    """The A/A check of one metric under one load."""
    if not twin:
        return NotComputable("no second instance of the baseline was measured")
    result = effect_of(pairs(mine, twin, metric), metric, 1 - alpha)
    return bias_check(result if isinstance(result, NotComputable) else result.interval, margin)


def bad_blocks(blocks: Sequence[Block], capacity: bool) -> list[str]:
    """Why blocks make a comparison INVALID: the first few reasons, each with its block."""
    reasons = []
    for block in blocks:
        told = block["capacity"] if capacity else block
        if not told["valid"]:
            reasons.append(f"block {block['id']}: {'; '.join(told['reasons'])}")
    more = len(reasons) - _TOLD_REASONS
    return [*reasons[:_TOLD_REASONS], *([f"and {more} more blocks"] if more > 0 else [])]


def strange(arms: Mapping[str, Json], one: str, other: str) -> bool:
    """A stand-in against another kind of server."""
    a, b = arms.get(one, {}), arms.get(other, {})
    return a.get("kind") != b.get("kind") and bool(a.get("stand_in") or b.get("stand_in"))


def _number(value: float | NotComputable) -> float | None:
    return None if isinstance(value, NotComputable) else value


def _effect_words(result: Paired) -> Json:
    told: Json = {
        "value": result.value,
        "low": result.interval.low,
        "high": result.interval.high,
        "p": result.p_value,
        "order_effect": None,
    }
    order = result.order
    if isinstance(order, OrderEffect):
        adjusted: Effect = order.adjusted
        told["order_effect"] = {
            "value": order.value,
            "low": order.interval.low,
            "high": order.interval.high,
            "p": order.p_value,
            "found": order.found,
            "adjusted": adjusted.value,
        }
    return told


def _check_words(check: BiasCheck | NotComputable, effect: Paired | NotComputable) -> Json:
    if isinstance(check, NotComputable) or isinstance(effect, NotComputable):
        return {"missing": check.reason if isinstance(check, NotComputable) else "not computable"}
    return {
        "value": effect.value,
        "low": check.interval.low,
        "high": check.interval.high,
        "p": effect.p_value,
        "unbiased": check.unbiased,
        "resolves": check.resolves,
        "reason": check.reason,
    }


_CODES = {
    ABVerdict.A_BETTER.value: 1,
    ABVerdict.B_BETTER.value: 0,
    ABVerdict.NO_DIFFERENCE.value: 0,
}


def verdict(told: Sequence[Json], complete: bool) -> Json:
    """The document's "verdict" from its primary comparisons: 0 fine, 1 the baseline is better, 2 nothing can be said."""
    primary = [one for one in told if one["primary"]]
    if not primary:
        reason = "nothing was measured under the primary load"
        return {"text": reason, "code": 2, "valid": False, "reasons": [reason]}
    codes = [_CODES.get(one.get("verdict", ""), 2) for one in primary]
    reasons = [f"{_where(one)}: {one.get('reason', one.get('missing'))}" for one in primary]
    if not complete:
        reasons.append("not all starts were measured: `--resume` goes on")
    valid = complete and not any(one.get("verdict") == ABVerdict.INVALID.value for one in primary)
    worst = 2 if 2 in codes or not complete else max(codes)
    text = "; ".join(_sentence(one) for one in primary)
    return {"text": text, "code": worst, "valid": valid, "reasons": reasons}


def _where(one: Json) -> str:
    return f"{one['arm']} (B) against {one['baseline']} (A), {one['metric']}, {one['load']}, {one['protocol']}"


def _sentence(one: Json) -> str:
    if "missing" in one:
        return f"cannot tell: {_where(one)}: {one['missing']}"
    times = "times" if one["unit"] == Scale.RATIO.value else "difference"
    percent = f"{100 * one['confidence']:g}%"
    return (
        f"{one['verdict']}: {_where(one)}: {one['value']:.3g} {times} ({percent} {one['low']:.3g} to {one['high']:.3g})"
    )
