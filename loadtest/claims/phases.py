"""Requests cut by the phases of a change of versions, and what the starts together say of it. PURE.

A request belongs to the phase in which it was due. Latency counts from the intended time, so that a server that stands still is
seen by everybody who would have come; a request without a good answer counts as failed and has no latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.stats.effects import Effect, Scale
from gateway.stats.paired import Pair, paired_ratio
from gateway.stats.result import NotComputable
from loadtest.claims.answer import Judged, judge
from loadtest.claims.changes import ROUNDS, Clock
from loadtest.claims.evaluate import Found
from loadtest.claims.table import Claim
from loadtest.points.spec import Requests

TAIL_NS = 500_000_000
"""What is felt of a step up to half a second after it is its own."""
FAILURES = 0.001
Point = Mapping[str, Any]


def phases(requests: Requests, start_ns: int, clock: Clock) -> list[dict[str, Any]]:
    """before, each step, between and after as "after", and "changes": from the first step's beginning to the last one's end."""
    steps = clock.steps
    if not steps:
        return [{"phase": "before", **_part(requests, start_ns, int(requests.due_ns.max()) + 1, start_ns)}]
    first = min(begun for begun, _ in steps.values())
    last = max(done for _, done in steps.values()) + TAIL_NS
    spans = {"before": (start_ns, first), "changes": (first, last), "after": (last, int(requests.due_ns.max()) + 1)}
    spans |= {name: (begun, done + TAIL_NS) for name, (begun, done) in steps.items()}
    return [{"phase": name, **_part(requests, *span, start_ns)} for name, span in spans.items()]


def seconds(requests: Requests, start_ns: int) -> list[dict[str, Any]]:
    """The same for each second."""
    last = int(requests.due_ns.max()) + 1
    whole = range((last - start_ns) // 1_000_000_000 + 1)
    parts = (_part(requests, start_ns + s * 10**9, start_ns + (s + 1) * 10**9, start_ns) for s in whole)
    names = ("n", "errors", "p50_ms", "p99_ms")
    return [{"s": s, **{name: part[name] for name in names}} for s, part in enumerate(parts) if part["n"]]


def _part(requests: Requests, begin: int, end: int, zero: int) -> dict[str, Any]:
    inside = (requests.due_ns >= begin) & (requests.due_ns < end)
    good = inside & (requests.error == "") & (requests.done_ns >= 0)
    latency: NDArray[np.float64] = (requests.done_ns[good] - requests.due_ns[good]) / 1e6
    some = latency.size > 0
    return {
        "start_s": round((begin - zero) / 1e9, 3),
        "end_s": round((end - zero) / 1e9, 3),
        "n": int(inside.sum()),
        "errors": int(inside.sum() - good.sum()),
        "p50_ms": round(float(np.quantile(latency, 0.5, method="inverted_cdf")), 3) if some else None,
        "p99_ms": round(float(np.quantile(latency, 0.99, method="inverted_cdf")), 3) if some else None,
        "max_ms": round(float(latency.max()), 3) if some else None,
    }


def found(claim: Claim, points: Sequence[Point]) -> list[Found]:
    """The claim's parts for each number of models: the tail's ratio where the claim is one, failed requests always."""
    parts: list[Found] = []
    for served in claim.models_served:
        mine = [point for point in points if point["models"] == served]
        parts += _served(claim, served, mine)
    return parts


def _served(claim: Claim, served: int, points: Sequence[Point]) -> Iterator[Found]:
    blocks = [str(point["block"]) for point in points]
    models = f"{served} model{'s' if served > 1 else ''}"
    refused = [str(point["refused"]) for point in points if point["refused"]]
    missing = [str(point["missing"]) for point in points if point["missing"]]
    if refused:
        why = NotComputable(f"the server refused in {len(refused)} of {len(points)} starts: {refused[0]}")
        yield Found(f"{models}: the changes", claim.unit, why, Judged(1.0, 0.0), (), blocks, why.reason, certain=False)
        return
    if missing or not points:
        told = f"{len(missing)} of {len(points)} starts are not whole: {missing[0]}" if missing else "it was not run"
        yield Found(f"{models}: the changes", claim.unit, (why := NotComputable(told)), why, (), blocks, told)
        return
    cut = [{part["phase"]: part for part in point["phases"]} for point in points]
    if claim.unit == "ratio":
        pairs = [Pair("AB", _tail(one["before"]), _tail(one["changes"])) for one in cut]
        result = paired_ratio(pairs)
        effect = result if isinstance(result, NotComputable) else result.effect
        shown = [[one["before"]["p99_ms"], one["changes"]["p99_ms"], "AB"] for one in cut]
        label = f"{models}: p99 while versions change / before"
        yield Found(label, "ratio", effect, judge(effect, claim.rule, claim.bound), shown, blocks)
    yield failures(f"{models}: failed requests", cut, blocks)
    both = [point["both_answered"] for point in points]
    if claim.server == "torchserve":
        right = all(both)
        note = NotComputable(
            "both versions answered, side by side" if right else "one of the two versions did not answer"
        )
        judged = Judged(0.0, 1.0) if right else Judged(1.0, 0.0)
        yield Found(f"{models}: two versions at once", "share", note, judged, (), blocks, note.reason, certain=right)


def _tail(part: Mapping[str, Any]) -> float | NotComputable:
    return float(part["p99_ms"]) if part["p99_ms"] else NotComputable("no request was answered in the phase")


def failures(label: str, cut: Sequence[Mapping[str, Mapping[str, Any]]], blocks: Sequence[str]) -> Found:
    """The share of failed requests, at most FAILURES: Student's t over the starts' shares; nothing is shown where none failed.

    Requests fail together, with the change that fails. Taken for independent, so many as a start sends would show the bound
    at once; of changes there are far too few for it, which the reason tells.
    """
    n, changes = sum(one["changes"]["n"] for one in cut), len(cut) * ROUNDS
    shares = np.array([one["changes"]["errors"] / max(1, one["changes"]["n"]) for one in cut])
    if not shares.any():
        felt = 1.0 - 0.05 ** (1.0 / max(1, changes))
        figures = {"value": 0.0, "low": None, "high": None, "n": len(cut)}
        note = (
            f"none of {n} requests failed in {changes} rounds of changes, so that at most {100 * felt:.0f}% of rounds fail any "
            f"(95%); that less than {100 * FAILURES:g}% of requests do would need some thousand rounds, as they fail together"
        )
        judged = Judged((1.0 - FAILURES) ** changes, 1.0)
        return Found(label, "share", NotComputable(note), judged, (), blocks, note, figures)
    spread = float(shares.std(ddof=1)) if len(shares) > 1 else 0.0
    if not spread:
        why = NotComputable("the starts' shares of failed requests do not vary")
        return Found(label, "share", why, why, (), blocks, why.reason)
    effect = Effect(
        float(shares.mean()), spread / math.sqrt(len(shares)), len(shares) - 1, len(shares), Scale.DIFFERENCE
    )
    return Found(label, "share", effect, judge(effect, "at most", FAILURES), (), blocks)
