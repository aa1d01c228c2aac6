"""What is to be measured for a choice of claims, in which order, and how long it will take. PURE.

Claims are grouped by model: one series of fresh starts holds every arm that any of them needs, and a twin of the group's
baseline. In each start the arms come in a seeded, balanced order, a few servers at a time; each arm is loaded alone, its loads in
random order too. Durations are estimates from this project's own two-core machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadtest.claims.table import ArmKey, Cell, Claim, Table
from loadtest.lab.order import turns as balanced

STARTS = 6
TOGETHER = 3
"""Servers that run at once, at most: more would only wait for memory and for the two cores while they start."""

TWIN = "-twin"
_BLOCK_S = 2.5  # a generator's start, its end, and the cut
_PRIME_S = {"torchserve": 45.0, "tensorflow_serving": 8.0}  # first requests, several servers at once
_STAND_S = 4.0  # a gateway's start and the end of all processes
# CPU seconds until a server is ready; two cores share them
_START_S = {"torchserve": 7.0, "tensorflow_serving": 7.0}
_MORE_S = {"compile": 35.0, "xla": 8.0}
_LARGE = {"resnet50": 3.0, "encoder": 8.0}
_TAIL_S = 10.0  # a p99 with bounds needs 662 answers of a block, here some 70 to 140 a second
_SWAP_S = {1: 58.0, 10: 90.0}
_WORKER_S = 8.0


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """One server of a start. loads: in no order yet. twin: the baseline once more."""

    name: str
    key: ArmKey
    loads: tuple[str, ...]
    twin: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """One model's series of starts. baseline: the arm that has a twin, for the A/A check. tails: loads whose p99 is asked for."""

    model: str
    baseline: str
    arms: tuple[PlannedArm, ...]
    starts: int
    window: float
    warmup: float
    tails: frozenset[str] = frozenset()

    @property
    def blocks(self) -> int:
        """Blocks of the whole series."""
        return self.starts * sum(len(arm.loads) for arm in self.arms)

    def lasts(self, load: str) -> float:
        """Seconds of a block's window; alike for all arms, so that they are compared over as long."""
        return max(self.window, _TAIL_S) if load in self.tails else self.window

    @property
    def seconds(self) -> float:
        """How long it should take."""
        once = sum(self.lasts(load) + self.warmup + _BLOCK_S for arm in self.arms for load in arm.loads)
        starting = sum(
            (_START_S[arm.key.kind] + _MORE_S.get(arm.key.variant, 0.0) + _LARGE.get(self.model, 0.0)) / 2
            + _PRIME_S[arm.key.kind]
            for arm in self.arms
        )
        stands = -(-len(self.arms) // TOGETHER)
        return self.starts * (once + starting + stands * _STAND_S)


@dataclass(frozen=True, slots=True)
class Swap:
    """A series of version changes under load, of so many models on one server."""

    server: str
    model: str
    served: int
    starts: int

    @property
    def seconds(self) -> float:
        """How long it should take."""
        return self.starts * _SWAP_S.get(self.served, 6.0 * self.served)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run of some claims measures."""

    claims: tuple[Claim, ...]
    groups: tuple[Group, ...]
    swaps: tuple[Swap, ...]
    workers: tuple[str, ...]
    seed: int

    @property
    def seconds(self) -> float:
        """How long it should take."""
        measuring = sum(group.seconds for group in self.groups) + sum(swap.seconds for swap in self.swaps)
        return measuring + STARTS * _WORKER_S * len(self.workers)


@dataclass(frozen=True, slots=True)
class Turn:
    """One block to come: which arm under which load; order: its place within the start, from 0."""

    arm: PlannedArm
    load: str
    order: int


def plan(table: Table, claims: Sequence[Claim], seed: int, starts: int = STARTS) -> Plan:
    """Groups, swaps and worker measurements that these claims need."""
    workers = tuple(dict.fromkeys(claim.model for claim in claims if claim.scenario == "worker"))
    cells = [cell for claim in claims for part in claim.parts for cell in part.cells]
    # the worker's share needs the group's baseline one request at a time, whatever else is asked of it
    cells += [Cell(model=m, arm=ArmKey.parse(table.models[m].baseline), load="one") for m in workers]
    models = tuple(name for name in table.models if any(cell.model == name for cell in cells))
    tails = [c for claim in claims for part in claim.parts if part.metric == "tail" for c in part.cells]

    def group(model: str) -> Group:
        mine, far = ([cell for cell in some if cell.model == model] for some in (cells, tails))
        return _group(table, model, mine, starts, frozenset(cell.load for cell in far))

    groups = tuple(group(model) for model in models)
    swaps = tuple(
        Swap(claim.server or "", claim.model, served, starts)
        for claim in claims
        if claim.scenario == "swap"
        for served in claim.models_served
    )
    return Plan(tuple(claims), groups, swaps, workers, seed)


def _group(table: Table, model: str, cells: Sequence[Cell], starts: int, tails: frozenset[str]) -> Group:
    rule = table.models[model]
    keys = dict.fromkeys(cell.arm for cell in cells)
    baseline = ArmKey.parse(rule.baseline)
    if baseline not in keys:  # nobody asks for it: what stands below in the last comparison has the twin
        baseline = cells[-1].arm
    arms = []
    for key in keys:
        wanted = {cell.load for cell in cells if cell.arm == key}
        arms.append(PlannedArm(key.name, key, tuple(name for name in table.loads if name in wanted)))
    for arm in list(arms):
        if arm.key == baseline:
            plain = tuple(load for load in arm.loads if not table.loads[load].lengths)
            arms.append(PlannedArm(arm.name + TWIN, arm.key, plain or arm.loads, twin=True))
    return Group(model, baseline.name, tuple(arms), starts, rule.window, rule.warmup, tails)


def turns(group: Group, replicate: int, seed: int) -> list[list[Turn]]:
    """The blocks of one start, as stands of at most TOGETHER servers; the same for the same seed, replicate and model.

    Orders are balanced over the starts: of any two arms each comes first in half of them.
    """
    rng = np.random.default_rng([seed, replicate, *group.model.encode()])
    by_name = {arm.name: arm for arm in group.arms}
    orders = balanced(list(by_name), group.starts, zlib.crc32(f"{seed} {group.model}".encode()))
    arms = [by_name[name] for name in orders[replicate]]
    stands, order = [], 0
    for part in np.array_split(np.arange(len(arms)), -(-len(arms) // TOGETHER)):
        stand = []
        for arm in (arms[i] for i in part):
            for i in rng.permutation(len(arm.loads)):
                stand.append(Turn(arm, arm.loads[i], order))
                order += 1
        stands.append(stand)
    return stands


def share(plan_: Plan, claim: Claim) -> float:
    """Minutes that this claim alone would take; what claims share is counted for each."""
    only = [group for group in plan_.groups if any(c.model == group.model for p in claim.parts for c in p.cells)]
    seconds = 0.0
    for group in only:
        cells = {(c.arm, c.load) for p in claim.parts for c in p.cells if c.model == group.model}
        arms = [arm for arm in group.arms if any(arm.key == key for key, _ in cells)]
        alone = tuple(
            PlannedArm(arm.name, arm.key, tuple(load for key, load in cells if key == arm.key), arm.twin)
            for arm in arms
        )
        seconds += replace(group, arms=alone).seconds
    if claim.scenario == "swap":
        seconds += sum(swap.seconds for swap in plan_.swaps if swap.server == claim.server)
    if claim.scenario == "worker":
        seconds += STARTS * (_WORKER_S + 12.0)
    return seconds / 60


def block_id(model: str, replicate: int, arm: str, load: str) -> str:
    """Names a block and its folder."""
    return f"{model}-r{replicate}-{arm}-{load}"
