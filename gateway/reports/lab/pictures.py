"""All pictures of a lab report, in the order of its sections. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.reports.charts import Picture
from gateway.reports.jsonable import Json
from gateway.reports.lab import pictures_claims, pictures_effects, pictures_latency, pictures_load, pictures_search
from gateway.reports.lab.read import LabRun
from gateway.reports.lab.shape import Condition, Doc, conditions, items, part


def arm_index(document: Doc) -> dict[str, int]:
    """The number of each arm, by which colour, dash and shape are chosen, the baseline first; GROUP/ARM has the arm's."""
    names: dict[str, int] = {}
    arms = part(document, "arms")
    order = ("baseline", "arm", "A/A")
    first = sorted(arms, key=lambda a: order.index(r) if (r := part(arms, a).get("role")) in order else len(order))
    for full in (*first, *(str(block.get("arm")) for block in items(document, "blocks"))):
        short = str(full).rpartition("/")[2]
        names.setdefault(short, len(names))
        names.setdefault(str(full), names[short])
    return names


def pictures(run: LabRun, report: Json) -> dict[str, list[Picture]]:
    """Section -> its pictures."""
    document = run.document
    found, index, told = conditions(document), arm_index(document), report["conditions"]
    kind = report["kind"]
    results = part(document, "results")
    answer: list[Picture] = []
    if kind == "slo":
        answer = pictures_search.capacity(results, index)
    elif kind == "batching":
        answer = pictures_search.batching(results, index)
    elif kind == "claims":
        answer = [*pictures_claims.claims(results), *pictures_claims.changes(results), *pictures_claims.worker(results)]
    compared = sorted(items(document, "comparisons"), key=lambda c: not c.get("primary"))
    if compared or kind == "comparison":
        answer += [*pictures_effects.effects(compared, index), pictures_effects.pairs(compared, index)]
    return {
        "answer": answer,
        "curves": pictures_load.throughput_latency(found, index),
        "latency": pictures_latency.latency(_first(found, compared), run.rows, index),
        "batches": [pictures_load.batch_sizes(told, index), pictures_load.batch_means(found, index)],
        "inside": [pictures_load.breakdown(told)],
        "processes": [pictures_load.processes(told), pictures_load.saturation(found)],
    }


def _first(found: list[Condition], compared: list[Doc]) -> list[Condition]:
    """Conditions with a comparison first, in the comparisons' order: only some are drawn."""
    wanted = sorted(compared, key=lambda c: not c.get("primary"))
    order: Mapping[tuple[str, str], int] = {
        (str(c.get("protocol")), str(c.get(key))): i
        for i, c in reversed(list(enumerate(wanted)))
        for key in ("load", "name")
    }

    def place(one: Condition) -> int:
        return min(order.get((one.protocol, name), len(wanted)) for name in (one.load, *one.plan_names))

    return sorted(found, key=place)
