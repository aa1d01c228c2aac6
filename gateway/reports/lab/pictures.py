"""All pictures of a lab report, in the order of its sections. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.reports.charts import Picture
from gateway.reports.jsonable import Json
from gateway.reports.lab import pictures_claims, pictures_effects, pictures_latency, pictures_load, pictures_search
from gateway.reports.lab.read import LabRun
from gateway.reports.lab.shape import Condition, Doc, conditions, items, part


def arm_index(document: Doc) -> dict[str, int]:
    """The number of each arm, by which colour, dash and shape are chosen; GROUP/ARM has the arm's."""
    names: dict[str, int] = {}
    for full in (*part(document, "arms"), *(str(block.get("arm")) for block in items(document, "blocks"))):
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
        answer = pictures_claims.claims(results)
    compared = items(document, "comparisons")
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
    order: Mapping[tuple[str, str], int] = {
        (str(c.get("protocol")), str(c.get("load"))): i for i, c in reversed(list(enumerate(compared)))
    }
    return sorted(found, key=lambda one: order.get((one.protocol, one.load), len(order)))
