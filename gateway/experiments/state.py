"""The weights that outlive the process: what was changed through the admin API, and when the YAML wins again.

PURE: values in, values out; reading and writing the file is storage's. Kept weights beat the YAML's until the YAML's own
weights of that model change (their hash is kept beside them). A phase is the revision at which an allocation began; it begins
anew with other weights, and with another experiment id or salt, as those deal the units anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from gateway.errors import ConfigError
from gateway.experiments.model import ModelSpec, Snapshot

FORMAT = 1
Source = Literal["config", "state"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model's allocation in force: where it came from, when it began, and the YAML it is judged against."""

    weights: Mapping[str, int]
    phase: int
    source: Source
    yaml_sha256: str
    experiment: str
    killed: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything the state file holds."""

    revision: int = 0
    models: Mapping[str, ModelState] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The file as JSON values."""
        models = {
            name: {
                "weights": dict(model.weights),
                "phase": model.phase,
                "source": model.source,
                "killed": model.killed,
                "yaml_sha256": model.yaml_sha256,
                "experiment": model.experiment,
            }
            for name, model in self.models.items()
        }
        return {"format": FORMAT, "revision": self.revision, "models": models}


def from_dict(document: Any, source: str) -> State:
    """Check a decoded state file; ConfigError says what is wrong, as guessing could undo a kill switch."""
    try:
        if document["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, not {document['format']!r}")
        models = {str(name): _model(str(name), model) for name, model in document["models"].items()}
        return State(_whole(document["revision"], "revision"), models)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            [f"{source}: is no state file: {text}; repair it, or remove it to go back to the weights of abgate.yaml"]
        ) from error


def _model(name: str, document: Any) -> ModelState:
    weights = {str(arm): _whole(weight, f"{name}.weights.{arm}") for arm, weight in document["weights"].items()}
    if not sum(weights.values()):
        raise ValueError(f"{name}.weights must not all be 0")
    if document["source"] not in ("config", "state"):
        raise ValueError(f"{name}.source must be config or state, not {document['source']!r}")
    killed = document["killed"]
    if killed is not None and killed not in weights:
        raise ValueError(f"{name}.killed names no arm: {killed!r}")
    return ModelState(
        weights=weights,
        phase=_whole(document["phase"], f"{name}.phase"),
        source=document["source"],
        yaml_sha256=str(document["yaml_sha256"]),
        experiment=str(document["experiment"]),
        killed=killed,
    )


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{where} must be a whole number of at least 0, not {value!r}")
    return value


def weights_hash(spec: ModelSpec) -> str:
    """What tells whether the YAML's weights of a model have changed: arms and weights in their order."""
    return sha256(json.dumps([[arm.name, arm.weight] for arm in spec.arms]).encode()).hexdigest()


def _deal(spec: ModelSpec) -> str:
    """What else decides who gets which arm."""
    experiment = spec.experiment
    return json.dumps([experiment.id, experiment.salt] if experiment else [])


def merge(specs: Mapping[str, ModelSpec], kept: State) -> tuple[Snapshot, State]:
    """The snapshot in force and the state that describes it, from the YAML's models and what was kept.

    The revision goes up by one when any model's allocation is not the kept one; models gone from the YAML are forgotten.
    """
    fresh = kept.revision + 1
    models: dict[str, ModelSpec] = {}
    states: dict[str, ModelState] = {}
    for name, spec in specs.items():
        yaml = weights_hash(spec)
        old = kept.models.get(name)
        if old is None or old.yaml_sha256 != yaml or set(old.weights) != {arm.name for arm in spec.arms}:
            weights = {arm.name: arm.weight for arm in spec.arms}
            state = ModelState(weights, fresh, "config", yaml, _deal(spec))
        elif old.experiment != _deal(spec):
            state = replace(old, phase=fresh, experiment=_deal(spec))
        else:
            state = old
        states[name] = state
        arms = tuple(replace(arm, weight=state.weights[arm.name]) for arm in spec.arms)
        models[name] = replace(spec, arms=arms, phase=state.phase, killed=state.killed)
    changed = any(state.phase == fresh for state in states.values())
    revision = fresh if changed else kept.revision
    return Snapshot(revision, models), State(revision, states)


def changed(state: State, snapshot: Snapshot, model: str) -> State:
    """The state after an admin's change of one model's weights, as the snapshot has them."""
    spec = snapshot.models[model]
    weights = {arm.name: arm.weight for arm in spec.arms}
    new = replace(state.models[model], weights=weights, phase=spec.phase, source="state", killed=spec.killed)
    return State(snapshot.revision, {**state.models, model: new})
