"""The batching search, the doing: for each setting fresh servers that run with it, both loads on each arm, then the next.

A setting is applied by starting both servers with it: TorchServe by the model's own yaml, TensorFlow's side by its batching
parameters; TorchServe's management API is asked what is in force. Which setting comes next is batching.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loadtest.admin import AdminError, fetch
from loadtest.lab import batching
from loadtest.lab.batch_shape import side
from loadtest.lab.batching import Levels, Next, Setting
from loadtest.lab.session import START_SECONDS, Ask, Bench, SearchError, Step, planned
from loadtest.lab.slo import seconds_for
from loadtest.lab.spec import ArmSpec, BatchRule, Running, RunningArm
from loadtest.points.spec import Load

Json = dict[str, Any]
Fragments = Callable[[ArmSpec, Setting], Mapping[str, str]]
"""What to paste for a setting: file, server (its text), abgate (the section of abgate.yaml)."""


@dataclass(frozen=True, slots=True)
class BatchingPlan:
    """Seconds of a point and of the warm-up before it. rate: the open rate, None: chosen from the unbatched throughputs."""

    path: str
    protocol: str
    levels: Levels
    rate: float | None = None
    point: float = 6.0
    warmup: float = 2.0


@dataclass
class BatchingRun:
    """One run, or the rest of one: what lab.json already holds is not measured again."""

    bench: Bench
    plan: BatchingPlan
    fragments: Fragments
    rate: float | None = None
    cells: list[Json] = field(default_factory=list)
    done: float = 0.0

    def __post_init__(self) -> None:
        """Take up what an earlier part of this run measured."""
        earlier = self.bench.book.document.get("results") or {}
        self.cells = list(earlier.get("cells") or [])
        self.rate = self.plan.rate or earlier.get("open_rate")

    def run(self) -> Json:
        """All cells; returns and writes "results". Raises StandError, SearchError."""
        while isinstance(step := self._following(), Next):
            arms = [self._arm(arm, step.setting) for arm in self.bench.arms if arm.name in step.arms]
            name = f"b{step.setting.max_batch}-w{step.setting.wait_ms:g}"
            self._tell(f"batch {step.setting.max_batch}, wait {step.setting.wait_ms:g} ms: fresh servers")
            with self.bench.stand.up(arms, self.bench.start_folder(name)) as running:
                self.bench.warm(running, name)
                self.done += START_SECONDS
                self._cell(running, step, name, arms)
        return self._write(step)

    def _following(self) -> Next | str:
        done = batching.done_of(self.cells, [arm.name for arm in self.bench.arms])
        return batching.following(done, self.plan.levels, self.bench.seed)

    @staticmethod
    def _arm(arm: ArmSpec, setting: Setting) -> ArmSpec:
        return replace(arm, batch=BatchRule(setting.max_batch, setting.wait_ms))

    def _cell(self, running: Running, step: Next, name: str, arms: list[ArmSpec]) -> None:
        """Saturation of all arms, then the open rate of all: without batching the one has to be known for the other."""
        saturated: dict[str, Json] = {}
        applied = {arm.name: in_force(running.arms[arm.name], step.setting) for arm in arms}
        for i, arm in enumerate(arms):
            clients = batching.clients(step.setting.max_batch, arm.resources.workers)
            load = Load.closed(clients, self.plan.point, self.plan.warmup)
            saturated[arm.name] = self._side(running, Ask(f"{name}-{arm.name}-full", arm.name, load, 0, i), arm)
        if self.rate is None:
            self.rate = batching.moderate(self._unbatched(saturated))
        for i, arm in enumerate(arms):
            load = Load.open(self.rate, seconds_for(self.rate, self.plan.point), self.plan.warmup)
            ask = Ask(f"{name}-{arm.name}-open", arm.name, load, 0, len(arms) + i, self.bench.seed)
            opened = self._side(running, ask, arm)
            self.cells.append({
                "max_batch": step.setting.max_batch, "wait_ms": step.setting.wait_ms, "stage": step.stage, "arm": arm.name,
                "applied": applied[arm.name], "saturated": saturated[arm.name], "open": opened,
            })  # fmt: skip
            self._write("")

    def _unbatched(self, now: Mapping[str, Json]) -> list[float]:
        """Throughputs without batching: of this cell and, where the run was cut short within it, of the cells before."""
        found = {cell["arm"]: cell["saturated"]["throughput"] for cell in self.cells if cell["stage"] == "unbatched"}
        found |= {name: one["throughput"] for name, one in now.items()}
        if min(found.values()) <= 0.0:
            raise SearchError("an arm answered nothing without batching: there is no rate to offer")
        return list(found.values())

    def _side(self, running: Running, ask: Ask, arm: ArmSpec) -> Json:
        load = ask.load
        what = f"{load.concurrency} in flight" if load.concurrency else f"{load.course[0].from_rate:g}/s"
        self._tell(f"batch {arm.batch.max_batch}, wait {arm.batch.wait_ms:g} ms, {arm.name}: {what}")
        taken = self.bench.take(running, ask)
        self.done += planned(load)
        return side(taken, arm.kind, arm.batch.max_batch)

    def _tell(self, text: str) -> None:
        done = batching.done_of(self.cells, [arm.name for arm in self.bench.arms])
        measured = len({setting for settings in done.values() for setting in settings})
        left = batching.expected_cells(done, self.plan.levels) - measured
        opened = seconds_for(self.rate or 1000.0, self.plan.point)
        loads = [Load.closed(1, seconds, self.plan.warmup) for seconds in (self.plan.point, opened)]
        each = START_SECONDS + len(self.bench.arms) * sum(planned(load) for load in loads)
        self.bench.tell(Step(self.done, self.done + max(1, left) * each, text))

    def _write(self, stopped: str) -> Json:
        arms = {arm.name: arm for arm in self.bench.arms}
        levels = self.plan.levels
        done = batching.done_of(self.cells, list(arms))
        chosen = {name: batching.best(done[name]) for name in arms}
        bounds = {(c["arm"], c["max_batch"], c["wait_ms"]): c["saturated"].get("bounds") for c in self.cells}
        for name, objectives in chosen.items():
            for one in objectives.values():
                if "missing" not in one:
                    one["bounds"] = bounds[name, one["max_batch"], one["wait_ms"]]
        told: Json = {
            "path": self.plan.path,
            "protocol": self.plan.protocol,
            "open_rate": self.rate,
            "levels": {"max_batch": list(levels.batches), "wait_ms": [*([0.0] if levels.zero else []), *levels.waits]},
            "cells": self.cells,
            "front": {
                name: [{"max_batch": one.max_batch, "wait_ms": one.wait_ms} for one in batching.front(done[name])]
                for name in arms
            },
            "best": chosen,
            "fragments": {
                name: {
                    objective: dict(self.fragments(arms[name], Setting(one["max_batch"], one["wait_ms"])))
                    for objective, one in objectives.items()
                    if "missing" not in one
                }
                for name, objectives in chosen.items()
            },
            "stopped": stopped,
        }
        self.bench.book.change(results=told)
        return told


def in_force(arm: RunningArm, setting: Setting) -> Json:
    """What the server says its batching is; raises SearchError where TorchServe says something else than it was given."""
    if arm.spec.kind != "torchserve" or arm.management is None:
        return {"source": "batching parameters of this start; the server has no way to tell them"}
    model = arm.spec.model
    try:
        versions = json.loads(fetch(f"http://{arm.management}/models/{model}"))
        told = {"max_batch": versions[0]["batchSize"], "wait_ms": versions[0]["maxBatchDelay"]}
    except (AdminError, ValueError, LookupError, TypeError) as error:
        raise SearchError(f"arm {arm.spec.name}: TorchServe does not tell its batching: {error}") from error
    if told["max_batch"] != setting.max_batch or (setting.max_batch > 1 and told["wait_ms"] != setting.wait_ms):
        raise SearchError(f"arm {arm.spec.name}: asked for {setting}, TorchServe runs with {told}")
    return {"source": f"GET /models/{model} of its management API", **told}
