"""Which batching serves best: settings to measure, the front, what to measure next, what to recommend. PURE.

Equal terms: rows (one row a request) and the longest wait are what both servers are given. A wait of 0 is only asked of
TensorFlow's side, because TorchServe then caps batches at 2. Throughput comes from a saturating closed loop, p99 from one
moderate open rate that is the same in every cell: the latency under saturation tells of the number of clients, not of the setting.

lab.json's "results" of kind batching: {path, protocol, open_rate, levels {max_batch, wait_ms}, cells: [CELL],
  front {arm: [{max_batch, wait_ms}]}, best {arm: {objective: BEST}}, fragments {arm: {objective: {file, server, abgate}}}, stopped}
CELL = {max_batch, wait_ms, stage: "unbatched"|"grid"|"refined", arm, applied, saturated: SIDE, open: SIDE}; SIDE: batch_shape.py
BEST = {max_batch, wait_ms, throughput, bounds {low, high}, p99_ms, why} or {missing}; objectives: throughput, latency, balanced
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.stats.result import NotComputable
from loadtest.lab.figures import value_of
from loadtest.lab.slo import significant

Json = dict[str, Any]

BATCHES = (2, 4, 8, 16, 32, 64)
WAITS = (1.0, 2.0, 5.0, 10.0)
MODERATE = 0.6
"""The open rate, as a share of what the slower arm does without batching: every setting ought to carry it."""

LEAST_CLIENTS = 8
OBJECTIVES = ("throughput", "latency", "balanced")


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """Rows of a batch and the longest wait in milliseconds; (1, 0) is no batching."""

    max_batch: int
    wait_ms: float


UNBATCHED = Setting(1, 0.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a cell is judged by: answers per second at saturation, p99 in milliseconds at the open rate."""

    throughput: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Levels:
    """Values a search may use, ascending; the most settings it may measure, without batching included. zero: arms that may
    be asked to wait 0 ms."""

    batches: tuple[int, ...] = BATCHES
    waits: tuple[float, ...] = WAITS
    most: int = 20
    zero: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Next:
    """What to measure next, and on which arms."""

    setting: Setting
    stage: str
    arms: tuple[str, ...]


Done = Mapping[str, Mapping[Setting, Figures | None]]
"""arm -> setting -> its figures, None where a measured cell has none."""


def thirds(values: Sequence[Any]) -> tuple[Any, ...]:
    """The lowest, the middle and the highest of ascending values."""
    return tuple(dict.fromkeys((values[0], values[(len(values) - 1) // 2], values[-1])))


def first_grid(levels: Levels, seed: int) -> tuple[Setting, ...]:
    """3 x 3 settings over the whole range, in random order, so that a drift of the machine has no direction."""
    cells = [Setting(batch, wait) for batch in thirds(levels.batches) for wait in thirds(levels.waits)]
    return tuple(cells[i] for i in np.random.default_rng(seed).permutation(len(cells)))


def front(figures: Mapping[Setting, Figures | None]) -> tuple[Setting, ...]:
    """Settings that no other one beats in both throughput and p99, most throughput first."""
    known = {setting: value for setting, value in figures.items() if value is not None}

    def beaten(mine: Figures) -> bool:
        return any(
            other.throughput >= mine.throughput
            and other.p99_ms <= mine.p99_ms
            and (other.throughput > mine.throughput or other.p99_ms < mine.p99_ms)
            for other in known.values()
        )

    kept = [setting for setting, value in known.items() if not beaten(value)]
    return tuple(sorted(kept, key=lambda setting: (-known[setting].throughput, setting)))


def neighbours(setting: Setting, batches: Sequence[int], waits: Sequence[float]) -> tuple[Setting, ...]:
    """The next level up and down in rows and in wait; of "no batching" the smallest batch with the shortest wait."""
    if setting.max_batch == 1:
        return (Setting(batches[0], waits[0]),)
    row, column = batches.index(setting.max_batch), waits.index(setting.wait_ms)
    found = [(row + 1, column), (row - 1, column), (row, column - 1), (row, column + 1)]
    return tuple(Setting(batches[i], waits[j]) for i, j in found if 0 <= i < len(batches) and 0 <= j < len(waits))


def following(done: Done, levels: Levels, seed: int) -> Next | str:
    """The next cell, or why there is none: first without batching, then the 3 x 3 grid, then round each arm's front.

    Depends on nothing but what was measured, so that a run that was cut short goes on where it was.
    """
    arms = tuple(done)
    measured = {setting for settings in done.values() for setting in settings}
    enough = f"{levels.most} settings were measured, as many as were asked for"
    for stage, settings in (("unbatched", (UNBATCHED,)), ("grid", first_grid(levels, seed))):
        for setting in settings:
            missing = tuple(arm for arm in arms if setting not in done[arm])
            if missing and setting not in measured and len(measured) >= levels.most:
                return enough
            if missing:
                return Next(setting, stage, missing)
    if len(measured) >= levels.most:
        return enough
    for setting, wanted in _round_fronts(done, levels):
        missing = tuple(arm for arm in arms if arm in wanted and setting not in done[arm])
        if missing:
            return Next(setting, "refined", missing)
    return "every neighbour of every arm's front was measured"


def _round_fronts(done: Done, levels: Levels) -> list[tuple[Setting, frozenset[str]]]:
    """Neighbours of all fronts, those of the most throughput first, and the arms that can have them."""
    everyone = frozenset(done)
    found: dict[Setting, frozenset[str]] = {}
    ranked: list[tuple[int, Setting, frozenset[str]]] = []
    for arm, figures in done.items():
        waits = (0.0, *levels.waits) if arm in levels.zero else levels.waits
        for rank, setting in enumerate(front(figures)):
            for one in neighbours(setting, levels.batches, waits):
                ranked.append((rank, one, everyone if one.wait_ms > 0.0 else levels.zero & everyone))
    for _, setting, arms in sorted(ranked, key=lambda item: (item[0], item[1])):
        found.setdefault(setting, arms)
    return list(found.items())


def moderate(unbatched: Iterable[float]) -> float:
    """The open rate of every cell, from each arm's throughput without batching."""
    return significant(MODERATE * min(unbatched))


def clients(max_batch: int, workers: int) -> int:
    """Requests under way that keep the server's batches full: two batches for each worker."""
    return max(LEAST_CLIENTS, 2 * max_batch * workers)


def figures_of(cell: Json) -> Figures | None:
    """What CELL is judged by, None where either load did not hold."""
    saturated, opened = cell["saturated"], cell["open"]
    if not saturated["valid"] or not opened["valid"]:
        return None
    p99 = value_of({"p99": opened["p99"]}, "p99")
    return None if isinstance(p99, NotComputable) else Figures(saturated["throughput"], p99)


def done_of(cells: Iterable[Json], arms: Sequence[str]) -> dict[str, dict[Setting, Figures | None]]:
    """What `following` needs, from the cells of lab.json."""
    done: dict[str, dict[Setting, Figures | None]] = {arm: {} for arm in arms}
    for cell in cells:
        done[cell["arm"]][Setting(cell["max_batch"], cell["wait_ms"])] = figures_of(cell)
    return done


def best(figures: Mapping[Setting, Figures | None]) -> dict[str, Json]:
    """The setting for each objective. One measurement a cell: a lead within the intervals may be chance."""
    known = {setting: value for setting, value in figures.items() if value is not None}
    if not known:
        return {name: {"missing": "no setting carried both loads"} for name in OBJECTIVES}
    keys = {
        "throughput": (
            lambda one: (-known[one].throughput, known[one].p99_ms),
            "most answers per second at saturation",
        ),
        "latency": (lambda one: (known[one].p99_ms, -known[one].throughput), "lowest p99 at the open rate"),
        "balanced": (
            lambda one: (-known[one].throughput / known[one].p99_ms, one),
            "most throughput per millisecond of p99: a doubled p99 must bring doubled throughput",
        ),
    }
    told = {}
    for name, (key, why) in keys.items():
        chosen = min(known, key=key)
        told[name] = {"max_batch": chosen.max_batch, "wait_ms": chosen.wait_ms, "throughput": known[chosen].throughput,
                      "p99_ms": known[chosen].p99_ms, "why": why}  # fmt: skip
    return told


def expected_cells(done: Done, levels: Levels) -> int:
    """Settings a whole search is likely to measure: the first ten, and about eight round the fronts."""
    measured = len({setting for settings in done.values() for setting in settings})
    first = 1 + len(first_grid(levels, 0))
    return max(measured + 1, min(levels.most, max(first + 8, measured + 2)))
