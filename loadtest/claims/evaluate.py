"""From blocks to answers: values of cells, pairs over starts, effects, the A/A checks, Holm, and the documents. PURE.

Blocks are BLOCK dictionaries of loadtest.lab.spec with "model" and "load_name" beside them. A claim's family is every claim of
the run that can be answered here at all: one whose figures are missing stays a member, one that a stand-in or its scope takes
away was never a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.stats.effects import Effect
from gateway.stats.holm import FAMILY_ALPHA, Adjusted, holm
from gateway.stats.paired import Order, Pair, paired_ratio
from gateway.stats.result import NotComputable
from loadtest.claims.answer import OVER, Circumstances, Judged, alone, answer, combine, judge
from loadtest.claims.plan import TWIN, Group, Plan, block_id
from loadtest.claims.table import Cell, Claim, Part
from loadtest.lab.figures import value_of

Blocks = Mapping[str, Mapping[str, Any]]
_TOLD = {
    "speed": "speed",
    "mean speed": "1/mean",
    "throughput": "answers/s",
    "tail": "1/p99",
    "memory": "bytes under load",
    "memory at rest": "bytes at rest",
}


@dataclass(frozen=True)
class Found:
    """One comparison with its figures: the effect, what it says against the claim's rule, its pairs and blocks.

    figures: value, low, high and n where they come from no effect. certain: what was seen to be so or not; no test.
    """

    label: str
    unit: str
    effect: Effect | NotComputable
    judged: Judged | NotComputable
    pairs: Sequence[Sequence[Any]] = ()
    blocks: Sequence[str] = ()
    reason: str = ""
    figures: Mapping[str, Any] | None = None
    certain: bool | None = None


@dataclass(frozen=True)
class Measured:
    """Everything a run has measured so far. special: claim id -> what its scenario found; skipped: "model/arm" -> reason.

    stand_in: TensorFlow's side was a stand-in.
    """

    blocks: Blocks
    special: Mapping[str, Sequence[Found]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    stand_in: bool = True


def value(block: Mapping[str, Any] | None, metric: str) -> float | NotComputable:
    """A block's value, more is better except for bytes. The median and p99 are the server's own where they are told."""
    if block is None:
        return NotComputable("the block was not measured")
    if not block["valid"]:
        return NotComputable(f"block {block['id']}: {'; '.join(block['reasons']) or 'invalid'}")
    if metric == "throughput":
        limits = block["capacity"]["reasons"]
        return NotComputable(f"block {block['id']}: {'; '.join(limits)}") if limits else float(block["goodput"])
    if metric == "memory":
        used = (block["cpu"].get(f"arm {block['arm']}") or {}).get("rss_bytes") or 0
        return float(used) if used else NotComputable(f"block {block['id']}: no memory was read")
    if metric == "memory at rest":
        rest = block.get("rest_rss_bytes") or 0
        return float(rest) if rest else NotComputable(f"block {block['id']}: no memory was read at rest")
    quantiles = block["upstream_ms"] or block["service_ms"] or {}
    if metric == "mean speed":
        mean = quantiles.get("mean")
        return 1000.0 / float(mean) if mean else NotComputable(f"block {block['id']}: no mean was told")
    name = "p99" if metric == "tail" else "p50"
    # of a pair the value is wanted, whose spread is that of the starts; its bounds within one block are not
    told = value_of({name: quantiles.get(name) or {"missing": "no latency was told"}}, name)
    return NotComputable(f"block {block['id']}: {told.reason}") if isinstance(told, NotComputable) else 1000.0 / told


@dataclass(frozen=True)
class Compared:
    """Two products of cells over all starts: B/A with its p of no difference, the pairs [A, B, order] and their blocks."""

    effect: Effect | NotComputable
    p_value: float | NotComputable
    pairs: Sequence[Sequence[Any]]
    blocks: Sequence[str]


def compare(
    metric: str, up: Sequence[Sequence[str]], down: Sequence[Sequence[str]], blocks: Blocks, gone: str = ""
) -> Compared:
    """up and down: per start the ids of the blocks that are multiplied. gone: why there is nothing to compare."""
    pairs = [
        Pair(
            _order(blocks.get(below[0]), blocks.get(above[0])),
            _product([value(blocks.get(name), metric) for name in below]),
            _product([value(blocks.get(name), metric) for name in above]),
        )
        for above, below in zip(up, down, strict=True)
    ]
    used = [name for names in (*up, *down) for name in names if name in blocks]
    shown = [[_plain(pair.a), _plain(pair.b), pair.order] for pair in pairs] if used else []
    result = NotComputable(gone) if gone else paired_ratio(pairs)
    if isinstance(result, NotComputable):
        return Compared(result, result, shown, used)
    return Compared(result.effect, result.p_value, shown, used)


def _compared(part: Part, blocks: Blocks, starts: int, skipped: Mapping[str, str]) -> Compared:
    """One comparison of a claim, over all starts."""
    cells = part.cells
    up, down = cells[: len(part.up)], cells[len(part.up) :]
    gone = [f"{cell.arm}: {skipped[where]}" for cell in cells if (where := f"{cell.model}/{cell.arm}") in skipped]

    def names(side: Sequence[Cell]) -> list[list[str]]:
        return [[block_id(c.model, r, c.arm.name, c.load) for c in side] for r in range(starts)]

    return compare(part.metric, names(up), names(down), blocks, "; ".join(dict.fromkeys(gone)))


def _order(down: Mapping[str, Any] | None, up: Mapping[str, Any] | None) -> Order:
    return "AB" if down is None or up is None or down["order"] <= up["order"] else "BA"


def _product(values: Sequence[float | NotComputable]) -> float | NotComputable:
    for one in values:
        if isinstance(one, NotComputable):
            return one
    return math.prod(one for one in values if not isinstance(one, NotComputable))


def _plain(one: float | NotComputable) -> float | None:
    return None if isinstance(one, NotComputable) else one


def label(part: Part, up: Sequence[Cell], down: Sequence[Cell]) -> str:
    """A comparison in words: what is over what, of which model under which load."""
    metric = _TOLD[part.metric]
    if len(up) == 1:
        return f"{up[0].model}, {up[0].load}: {up[0].arm.name} / {down[0].arm.name}, {metric}"
    told = " x ".join(f"{cell.arm.name} {cell.model} {cell.load}" for cell in up)
    under = " x ".join(f"{cell.arm.name} {cell.model} {cell.load}" for cell in down)
    return f"{told} / {under}, {metric}"


def biased(groups: Iterable[Group], blocks: Blocks) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """A/A of each model: baseline against twin per load, for speed and throughput; (model -> why it is invalid, documents).

    The checks are many, so they share one alpha by Holm: an alarm is a bias, not the one in twenty that chance gives.
    """
    found: dict[str, tuple[str, str, str, Compared]] = {}
    for group in groups:
        for arm in (arm for arm in group.arms if arm.twin):
            for load in arm.loads:
                plain, twin = (
                    [[block_id(group.model, r, name, load)] for r in range(group.starts)]
                    for name in (arm.name.removesuffix(TWIN), arm.name)
                )
                for metric in ("speed", "throughput"):
                    compared = compare(metric, twin, plain, blocks)
                    found[f"{group.model}/{load}/{metric}"] = group.model, load, metric, compared
    adjusted = holm({key: compared.p_value for key, (_, _, _, compared) in found.items()})
    alarms: dict[str, str] = {}
    documents: dict[str, list[dict[str, Any]]] = {}
    for key, (model, load, metric, compared) in found.items():
        p, told = adjusted[key], _effect(compared.effect)
        shown = {"metric": metric, "load": load, "unit": "ratio", **told, "pairs": compared.pairs}
        documents.setdefault(model, []).append({**shown, "adjusted_p": p.p_value if isinstance(p, Adjusted) else None})
        if isinstance(p, Adjusted) and p.shown:
            alarms[model] = (
                f"A/A of {model}, {load}: two servers of the same arm differ in {metric} "
                f"({told['value']:.3f}, {told['low']:.3f} to {told['high']:.3f}), so that a difference means nothing"
            )
    return alarms, documents


def results(plan: Plan, measured: Measured) -> dict[str, Any]:
    """`results` of lab.json: every claim of the plan with its answer, the family, the groups' A/A."""
    alarms, aa = biased(plan.groups, measured.blocks)
    parts = {claim.id: _parts(claim, plan, measured) for claim in plan.claims}
    judged = {claim.id: combine([part.judged for part in parts[claim.id]]) for claim in plan.claims}
    members = [claim.id for claim in plan.claims if testable(claim, measured.stand_in)]
    p_values = {name: one.p if isinstance(one := judged[name], Judged) else one for name in members}
    adjusted = holm(p_values)
    claims = []
    for claim in plan.claims:
        models = {cell.model for part in claim.parts for cell in part.cells}
        invalid = "; ".join(alarms[model] for model in sorted(models) if model in alarms)
        around = Circumstances(claim.transfers, measured.stand_in and claim.about == "servers", claim.scope, invalid)
        given = answer(around, judged[claim.id], adjusted.get(claim.id))
        claims.append(_document(claim, given, parts[claim.id]))
    groups = [
        {
            "id": group.model,
            "model": group.model,
            "arms": {arm.name: str(arm.key) for arm in group.arms},
            "loads": sorted({load for arm in group.arms for load in arm.loads}),
            "starts": len({b["replicate"] for b in measured.blocks.values() if b["model"] == group.model}),
            "wanted": group.starts,
            "minutes": round(group.seconds / 60, 1),
            "aa": aa.get(group.model, []),
        }
        for group in plan.groups
    ]
    return {
        "claims": claims,
        "family": {"method": "Holm", "alpha": FAMILY_ALPHA, "size": len(members), "members": members},
        "groups": groups,
        "stand_in": measured.stand_in,
    }


def testable(claim: Claim, stand_in: bool) -> bool:
    """Whether the claim can be answered here at all, known before anything is measured."""
    return claim.transfers and not (stand_in and claim.about == "servers")


def _parts(claim: Claim, plan: Plan, measured: Measured) -> list[Found]:
    if claim.scenario != "compare":
        found = measured.special.get(claim.id)
        missing = NotComputable("its scenario was not run")
        return list(found) if found else [Found(claim.scenario, claim.unit, missing, missing)]
    starts = {group.model: group.starts for group in plan.groups}
    told = []
    for part in claim.parts:
        n = min(starts[cell.model] for cell in part.cells)
        compared = _compared(part, measured.blocks, n, measured.skipped)
        verdict = judge(compared.effect, claim.rule, claim.bound)
        up, down = part.cells[: len(part.up)], part.cells[len(part.up) :]
        told.append(Found(label(part, up, down), "ratio", compared.effect, verdict, compared.pairs, compared.blocks))
    return told


def _effect(effect: Effect | NotComputable) -> dict[str, Any]:
    if isinstance(effect, NotComputable):
        return {"value": None, "low": None, "high": None, "n": 0, "missing": effect.reason}
    interval = effect.interval()
    return {"value": effect.value, "low": interval.low, "high": interval.high, "n": effect.n}


def part_document(part: Found) -> dict[str, Any]:
    """A PART of results.claims."""
    told = dict(part.figures) if part.figures is not None else _effect(part.effect)
    missing = told.pop("missing", "")
    judged = part.judged if isinstance(part.judged, Judged) and part.certain is None else None
    return {
        "label": part.label,
        "unit": part.unit,
        **told,
        "p": judged.p if judged else None,
        "answer": alone(part.judged),
        "reason": part.reason or missing,
        "pairs": [list(pair) for pair in part.pairs],
        "blocks": list(part.blocks),
    }


def _document(claim: Claim, given: Any, parts: Sequence[Found]) -> dict[str, Any]:
    """A CLAIM of results.claims; its own value is that of its weakest part: the one that decides."""
    shown = [part_document(part) for part in parts]
    weakest = decisive(parts, given.answer)
    told = {name: shown[weakest][name] for name in ("value", "low", "high", "n", "unit")}
    reason = (shown[weakest]["reason"] or given.reason) if given.reason == OVER else given.reason
    return {
        "id": claim.id,
        "claim": claim.claim,
        "source": claim.source.model_dump(exclude={"same"}),
        "scope": list(claim.scope),
        "question": claim.question,
        "estimand": claim.estimand,
        "margin": claim.margin,
        "scenario": claim.scenario,
        "about": claim.about,
        "answer": given.answer,
        "reason": reason,
        **told,
        "confidence": 0.95,
        "p": given.p,
        "adjusted_p": given.adjusted,
        "decided_by": shown[weakest]["label"],
        "blocks": list(dict.fromkeys(name for part in parts for name in part.blocks)),
        "parts": shown,
    }


def decisive(parts: Sequence[Found], given: str) -> int:
    """The part whose figures stand for the claim: the most contradicted one where it is contradicted, else the least shown."""

    def weight(index: int) -> tuple[float, float]:
        judged = parts[index].judged
        if isinstance(judged, NotComputable):
            return (2.0, 2.0)
        return (judged.contradicted, -judged.holds) if given.startswith("contradicted") else (-judged.holds, 0.0)

    return min(range(len(parts)), key=weight)
