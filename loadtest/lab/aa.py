"""Real A/A analyses: how often does the comparison find a difference between two instances of the same arm?

Every analysis has fresh starts of its own. Both kinds of server stand in the same start, two instances each, one loaded at a
time: a start gives a pair to an analysis of each kind. One metric, written down before, is counted; the others are told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.stats.paired import MIN_PAIRS
from gateway.stats.result import NotComputable
from gateway.stats.special import binomial_quantile
from loadtest.lab import document as lab
from loadtest.lab.comparison import AA_SUFFIX, check_of, inputs_of, seconds
from loadtest.lab.judge import METRICS, Metric, conditions, effect_of, pairs
from loadtest.lab.order import turns
from loadtest.lab.plan import ComparisonPlan, Experiment, from_json, to_json
from loadtest.lab.spec import ArmSpec, Stand
from loadtest.lab.starts import Json, Starts, Tell, idle_cores

KIND = "aa"
BOUND_CONFIDENCE = 0.98


def plan_of(
    experiment: Experiment, name: str, arms: Sequence[ArmSpec], artifacts: Path, *, analyses: int, full: bool = False
) -> ComparisonPlan:
    """The plan: each arm and its second instance side by side, as many starts as the analyses need; raises ConfigError."""
    if experiment.replicates < MIN_PAIRS:
        raise ConfigError([f"replicates: an analysis needs {MIN_PAIRS} pairs of starts, not {experiment.replicates}"])
    payloads, signature = inputs_of(artifacts, arms[0].model)
    both = tuple(one for arm in arms for one in (arm, replace(arm, name=arm.name + AA_SUFFIX)))
    sets = math.ceil(analyses / len(arms))
    return ComparisonPlan(
        profile=name,
        question=experiment.question,
        model=arms[0].model,
        arms=both,
        aa="",
        loads=experiment.loads,
        protocols=experiment.protocols,
        path="gateway",
        primary=experiment.primary,
        margin=experiment.margin,
        margins={},
        alpha=experiment.alpha,
        replicates=experiment.replicates * sets,
        timing=experiment.full if full else experiment.quick,
        payloads=payloads,
        signature=signature,
        check=check_of(payloads),
        rows=experiment.rows,
        seed=experiment.seed,
    )


def run(stand: Stand, plan: ComparisonPlan, analyses: int, run_dir: Path, tell: Tell) -> Json:
    """Run so many analyses into a new run directory; returns the document."""
    sets = math.ceil(analyses / (len(plan.arms) // 2))
    told = to_json(plan) | {"analyses": analyses, "starts_each": plan.replicates // sets}
    found = lab.begin(run_dir, KIND, plan.question, told, plan.model, plan.payloads)
    return _starts(stand, plan, run_dir, found, tell).run()


def resume(stand: Stand, run_dir: Path, tell: Tell) -> Json:
    """Go on with a run of A/A analyses."""
    found = lab.reopen(run_dir, KIND)
    return _starts(stand, from_json(found["plan"]), run_dir, found, tell).run()


def _starts(stand: Stand, plan: ComparisonPlan, run_dir: Path, document: Json, tell: Tell) -> Starts:
    each = document["plan"]["starts_each"]
    names = [arm.name for arm in plan.arms]
    # balanced within every analysis, not only over all of them
    orders = [order for number in range(plan.replicates // each) for order in turns(names, each, plan.seed + number)]
    return Starts(stand, plan, orders, run_dir, document, lambda found: analyse(plan, found), tell)


def analyse(plan: ComparisonPlan, document: Json) -> None:
    """Fill in "results" and "verdict" from the blocks. PURE."""
    each, wanted = document["plan"]["starts_each"], document["plan"]["analyses"]
    blocks = document["blocks"]
    found = [
        one
        for metric in METRICS
        for number in range(plan.replicates // each)
        for arm in plan.arms[::2]
        for one in analysis(plan, blocks, metric, arm.name, range(number * each, (number + 1) * each))
    ]
    counted = [one for one in found if one["primary"]][:wanted]
    done = [one for one in counted if "alarm" in one]
    alarms = sum(one["alarm"] for one in done)
    most = bound(wanted, plan.alpha)
    by_metric = {
        f"{metric.name}": {"analyses": len(told), "alarms": sum(one["alarm"] for one in told)}
        for metric in METRICS
        if (told := [one for one in found if one["metric"] == metric.name and "alarm" in one])
    }
    document["results"] |= {
        "analyses": counted,
        "others": [one for one in found if not one["primary"]],
        "by_metric": by_metric,
        "done": len(done),
        "wanted": wanted,
        "alarms": alarms,
        "bound": most,
        "idle_cores": idle_cores(blocks),
    }
    document["verdict"] = _verdict(counted, wanted, most, document["complete"])


def bound(analyses: int, alpha: float) -> int:
    """The most alarms that an error rate of alpha explains: 3 of 20, 29 of 400 at 5% (more happen in under 2% of cases)."""
    return binomial_quantile(BOUND_CONFIDENCE, analyses, alpha)


def analysis(
    plan: ComparisonPlan, blocks: Sequence[Mapping[str, Any]], metric: Metric, arm: str, starts: range
) -> list[Json]:
    """The analyses of one metric between an arm and its second instance over some starts, one per load and protocol."""
    mine = [block for block in blocks if block["replicate"] in starts]
    told = []
    for condition in conditions(mine):
        if not condition.has(metric):
            continue
        a, b = condition.of(arm), condition.of(arm + AA_SUFFIX)
        found = pairs(a, b, metric)
        if len(found) < len(starts):
            continue
        result = effect_of(found, metric, 1 - plan.alpha)
        base: Json = {
            "metric": metric.name,
            "arm": arm,
            "name": condition.name,
            "protocol": condition.protocol,
            "starts": [starts.start, starts.stop - 1],
            "n": len(found),
            "primary": metric.name == plan.primary.metric and condition.name == plan.primary.load,
            "pairs": [[_number(pair.a), _number(pair.b), pair.order] for pair in found],
            "invalid_blocks": [block["id"] for block in (*a.values(), *b.values()) if not block["valid"]],
        }
        if isinstance(result, NotComputable):
            told.append(base | {"missing": result.reason})
            continue
        low, high = result.interval.low, result.interval.high
        alarm = not low <= metric.scale.no_effect <= high
        told.append(base | {"value": result.value, "low": low, "high": high, "p": result.p_value, "alarm": alarm})
    return told


def _number(value: float | NotComputable) -> float | None:
    return None if isinstance(value, NotComputable) else value


def _verdict(counted: Sequence[Json], wanted: int, most: int, complete: bool) -> Json:
    done = [one for one in counted if "alarm" in one]
    alarms = sum(one["alarm"] for one in done)
    missing = [f"{one['arm']}, starts {one['starts']}: {one['missing']}" for one in counted if "missing" in one]
    bad = [identity for one in counted for identity in one["invalid_blocks"]]
    reasons = [*missing, *([f"invalid blocks: {', '.join(bad[:5])}"] if bad else [])]
    text = f"{alarms} alarms in {len(done)} A/A analyses of {wanted}; at most {most} are in keeping with the error rate"
    if not complete or len(done) < wanted:
        return {"text": text, "code": 2, "valid": False, "reasons": [*reasons, "not all analyses are done: `--resume`"]}
    return {"text": text, "code": 0 if alarms <= most else 1, "valid": True, "reasons": reasons}


def duration(plan: ComparisonPlan) -> float:
    """About how many seconds a run takes."""
    return seconds(plan)
