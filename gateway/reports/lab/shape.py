"""Reading a lab document by its words: parts that may be missing, figures that may be {"missing": reason}, what a load is
called, and which blocks belong together. PURE. A run that was cut short lacks parts: every reader here takes that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.reports.jsonable import Json
from gateway.stats.effects import Effect, Scale
from gateway.stats.result import Interval

Doc = Mapping[str, Any]
CONFIDENCE = 0.95


def part(document: Any, key: str) -> Doc:
    """A mapping inside a mapping; empty where it is missing or something else."""
    value = document.get(key) if isinstance(document, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def items(document: Any, key: str) -> list[Doc]:
    """The mappings of a list inside a mapping."""
    value = document.get(key) if isinstance(document, Mapping) else None
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, or the "value" (else the "point") of an estimate; None for anything else."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("point"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def reason_of(value: Any, nothing: str = "not told") -> str:
    """Why a figure is not there."""
    if isinstance(value, Mapping):
        return str(value.get("missing") or value.get("not_computable") or value.get("reason") or nothing)
    return nothing


def load_name(block: Doc) -> str:
    """The load in words: "closed loop, 8 at a time", "open loop, 300 /s, poisson"."""
    load = part(block, "load")
    if load.get("concurrency"):
        return f"closed loop, {load['concurrency']} at a time"
    rate, arrivals = number(load.get("rate")), load.get("arrivals")
    return f"open loop, {rate:.4g} /s{f', {arrivals}' if arrivals else ''}" if rate else str(block.get("mode", "?"))


def ordered_load(block: Doc) -> tuple[str, float]:
    """A key that sorts loads: closed loops first, then by size."""
    load = part(block, "load")
    return str(block.get("mode", "")), number(load.get("concurrency")) or number(load.get("rate")) or 0.0


def path_name(block: Doc) -> str:
    """How the requests went."""
    return "past the gateway" if block.get("path") == "direct" else "through the gateway"


@dataclass(frozen=True)
class Condition:
    """Blocks that differ only in arm and start: the same protocol, path, load, and group (a claim's, or "")."""

    group: str
    protocol: str
    path: str
    load: str
    blocks: tuple[Doc, ...]

    @property
    def name(self) -> str:
        """For a row's second line and a heading."""
        head = f"{self.group}: " if self.group else ""
        return f"{head}{self.protocol} · {self.load}{'' if self.path == 'through the gateway' else ' · ' + self.path}"

    @property
    def plan_names(self) -> frozenset[str]:
        """What the plan calls this load, where it does."""
        return frozenset(str(block["name"]) for block in self.blocks if block.get("name"))

    @property
    def is_open(self) -> bool:
        """Whether arrivals were scheduled, so that intended and service latency differ."""
        return self.blocks[0].get("mode") == "open loop"

    @property
    def arms(self) -> tuple[str, ...]:
        """In the order the document names them."""
        return tuple(dict.fromkeys(str(block.get("arm")) for block in self.blocks))

    def of(self, arm: str) -> list[Doc]:
        """The arm's blocks by start."""
        mine = [block for block in self.blocks if block.get("arm") == arm]
        return sorted(mine, key=lambda block: (block.get("replicate") or 0, block.get("order") or 0))


def conditions(document: Doc) -> list[Condition]:
    """All conditions, by group, protocol, path and load. Groups: a claims
    document's by the arm's prefix, a batching search's settings.
    """
    grouped: dict[tuple[Any, ...], list[Doc]] = {}
    settings = batch_settings(part(document, "results"))
    for block in items(document, "blocks"):
        arm = str(block.get("arm"))
        group = arm.partition("/")[0] if "/" in arm else settings.get(str(block.get("id")), "")
        key = (
            group,
            str(block.get("client_protocol", block.get("protocol"))),
            path_name(block),
            ordered_load(block),
            load_name(block),
        )
        grouped.setdefault(key, []).append(block)
    arms = list(part(document, "arms"))
    known = {arm: place for place, arm in enumerate(arms)}
    for blocks in grouped.values():
        blocks.sort(key=lambda block: known.get(str(block.get("arm")), len(arms)))
    return [
        Condition(group, protocol, path, load, tuple(grouped[key]))
        for key in sorted(grouped, key=lambda key: (_numbers(key[0]), key))
        for group, protocol, path, _, load in (key,)
    ]


def _numbers(group: str) -> tuple[int, float]:
    """A batching search's "16 x 1 ms" by its numbers, so that 2 rows come before 16; (0, 0) for other groups."""
    found = re.fullmatch(r"(\d+) x ([0-9.e+-]+) ms", group)
    return (int(found[1]), float(found[2])) if found else (0, 0.0)


def batch_settings(results: Doc) -> dict[str, str]:
    """Block id -> "16 x 1 ms" (rows x wait) of a batching search: blocks of different settings are not one condition."""
    found = {}
    for cell in items(results, "cells"):
        for side in ("saturated", "open"):
            block = part(cell, side).get("block")
            if block is not None:
                found[str(block)] = f"{cell.get('max_batch')} x {number(cell.get('wait_ms')) or 0:g} ms"
    return found


def over_starts(values: Sequence[tuple[Any, float | None, str]]) -> Json:
    """One value for several starts: the geometric mean with Student's t interval over the starts (on logs), and the range.

    values: (start, value, why it is missing). Several blocks of one start are averaged (on logs) first. With one start its
    value stands without an interval. A start without a value leaves none for all: leaving it out would choose.
    """
    if not values:
        return {"missing": "no block"}
    lacking = [(start, why) for start, value, why in values if value is None]
    if lacking:
        return {"missing": f"start {lacking[0][0]}: {lacking[0][1]}", "starts": len({start for start, _, _ in values})}
    known = [(start, value) for start, value, _ in values if value is not None]
    by_start: dict[Any, list[float]] = {}
    for start, value in known:
        by_start.setdefault(start, []).append(value)
    plain = [value for _, value in known]
    if min(plain) <= 0.0:
        mean = sum(sum(v) / len(v) for v in by_start.values()) / len(by_start)
        return {
            "value": mean,
            "low": None,
            "high": None,
            "starts": len(by_start),
            "min": min(plain),
            "max": max(plain),
            "reason": "no interval on logs: a value is 0",
        }
    logs = [sum(math.log(value) for value in found) / len(found) for found in by_start.values()]
    return {**_t(logs), "starts": len(logs), "min": min(plain), "max": max(plain)}


def _t(logs: Sequence[float]) -> Json:
    n, mean = len(logs), sum(logs) / len(logs)
    if n < 2:
        return {"value": math.exp(mean), "low": None, "high": None, "reason": "one start: no interval over starts"}
    error = math.sqrt(sum((value - mean) ** 2 for value in logs) / (n - 1) / n)
    if error <= 0.0:
        return {"value": math.exp(mean), "low": None, "high": None, "reason": "all starts gave the same value"}
    found: Interval = Effect(mean, error, n - 1, n, Scale.RATIO).interval(CONFIDENCE)
    return {"value": math.exp(mean), "low": found.low, "high": found.high}


def of_blocks(blocks: Iterable[Doc], *keys: str) -> Json:
    """`over_starts` of a figure inside blocks, e.g. of_blocks(blocks, "service_ms", "p99")."""
    values = []
    for block in blocks:
        found: Any = block
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        values.append((block.get("replicate"), number(found), reason_of(found)))
    return over_starts(values)


def mean_of(blocks: Sequence[Doc], *keys: str) -> float | None:
    """Mean of a figure inside blocks, over those that tell it."""
    values = []
    for block in blocks:
        found: Any = block
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        value = number(found)
        if value is not None:
            values.append(value)
    return sum(values) / len(values) if values else None
