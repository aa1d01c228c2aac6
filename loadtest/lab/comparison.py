"""A comparison: arms of one model on fresh starts, the baseline's second instance among them, judged by a plan made before.

Lives here: how a plan is made of an experiment and arms, the run, and going on with a run. The doing is starts.py's, the judging
judge.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gateway.errors import ConfigError
from loadtest.lab import document as lab
from loadtest.lab.cut import OTHERS_LIMIT
from loadtest.lab.judge import comparisons, verdict
from loadtest.lab.order import turns
from loadtest.lab.plan import ComparisonPlan, Experiment, from_json, to_json
from loadtest.lab.spec import ArmSpec, Stand
from loadtest.lab.starts import Json, Starts, Tell, idle_cores

KIND = "comparison"
AA_SUFFIX = "-aa"


def plan_of(
    experiment: Experiment, name: str, arms: Sequence[ArmSpec], artifacts: Path, *, full: bool, direct: bool
) -> ComparisonPlan:
    """The plan of an experiment for these arms, the first being the baseline; an A/A arm is added to them.

    artifacts: the model's folder with its inputs. Raises ConfigError where something is missing or does not fit.
    """
    if not arms:
        raise ConfigError(["a comparison needs arms"])
    model = arms[0].model
    payloads, signature = inputs_of(artifacts, model)
    twin = twin_of(arms)
    return ComparisonPlan(
        profile=name,
        question=experiment.question.format(model=model),
        model=model,
        arms=(*arms, twin),
        aa=twin.name,
        loads=experiment.loads,
        protocols=experiment.protocols,
        path="direct" if direct else "gateway",
        primary=experiment.primary,
        margin=experiment.margin,
        margins={str(metric): size for metric, size in experiment.margins.items()},
        alpha=experiment.alpha,
        replicates=experiment.replicates,
        timing=experiment.full if full else experiment.quick,
        payloads=payloads,
        signature=signature,
        check=check_of(payloads),
        rows=experiment.rows,
        seed=experiment.seed,
    )


def twin_of(arms: Sequence[ArmSpec]) -> ArmSpec:
    """The baseline once more; raises ConfigError where its name is taken."""
    twin = replace(arms[0], name=arms[0].name + AA_SUFFIX)
    if twin.name in {arm.name for arm in arms}:
        raise ConfigError([f"arm {twin.name!r}: the baseline's second instance is called so; take another name"])
    return twin


def inputs_of(artifacts: Path, model: str) -> tuple[Path, Path | None]:
    """A model's inputs and, where it has one, its signature, from its folder; raises ConfigError without inputs."""
    payloads, signature = artifacts / "inputs.npz", artifacts / "signature.json"
    if not payloads.is_file():
        raise ConfigError([f"{payloads}: no such file; build the model with `abgate models build {model}`"])
    return payloads.absolute(), signature.absolute() if signature.is_file() else None


def check_of(payloads: Path) -> Literal["off", "label", "reference"]:
    """How answers can be judged with these inputs: by their reference outputs, else by labels, else not."""
    try:
        with np.load(payloads) as found:
            names = set(found.files)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{payloads}: cannot be read: {error}"]) from error
    if any(name.startswith("out:") for name in names):
        return "reference"
    return "label" if "label" in names else "off"


def run(stand: Stand, plan: ComparisonPlan, run_dir: Path, tell: Tell) -> Json:
    """Run a comparison into a new run directory; the plan is on disk before anything starts. Returns the document."""
    found = lab.begin(run_dir, KIND, plan.question, to_json(plan), plan.model, plan.payloads)
    return _starts(stand, plan, run_dir, found, tell).run()


def resume(stand: Stand, run_dir: Path, tell: Tell) -> Json:
    """Go on with a comparison by the plan it was begun with."""
    found = lab.reopen(run_dir, KIND)
    return _starts(stand, from_json(found["plan"]), run_dir, found, tell).run()


def _starts(stand: Stand, plan: ComparisonPlan, run_dir: Path, document: Json, tell: Tell) -> Starts:
    orders = turns([arm.name for arm in plan.arms], plan.replicates, plan.seed)
    return Starts(stand, plan, orders, run_dir, document, lambda found: analyse(plan, found), tell)


def analyse(plan: ComparisonPlan, document: Json) -> None:
    """Fill in what follows from the blocks: comparisons, verdict, the idle arms' use of the machine. PURE."""
    document["comparisons"] = comparisons(plan, document["arms"], document["blocks"])
    document["verdict"] = verdict(document["comparisons"], document["complete"])
    document["results"]["idle_cores"] = idle_cores(document["blocks"])
    if crowd := crowded(document["blocks"]):
        document["verdict"]["reasons"].append(crowd)


def crowded(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence where other processes used the machine while it was measured. PURE."""
    others = [block["others_cores"] for block in blocks if block.get("others_cores") is not None]
    busy = [cores for cores in others if cores > OTHERS_LIMIT]
    if not busy:
        return None
    return (
        f"in {len(busy)} of {len(others)} blocks other processes of this machine used more than {OTHERS_LIMIT:g} cores, "
        f"{max(busy):.2f} at most: differences are noisier than on a quiet machine, and absolute figures too slow"
    )


def seconds(plan: ComparisonPlan, start: float | None = None) -> float:
    """About how long a run takes; start: seconds until all servers of one start are ready, None: 4 for each and 4 more."""
    start = 4.0 + 4.0 * len(plan.arms) if start is None else start
    timing = plan.timing
    blocks = len(plan.loads) * len(plan.protocols) * len(plan.arms)
    one = timing.duration + timing.warmup + timing.slack + 1.5
    primes = len(plan.protocols) * min(timing.prime, 9.0 + 18.0 * sum(arm.kind == "torchserve" for arm in plan.arms))
    return (plan.replicates + bool(plan.pilot_load)) * (start + 3.0 + primes) + plan.replicates * blocks * one
