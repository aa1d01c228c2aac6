"""From what a lab run told to its report as one JSON-ready dictionary (schema: lab.schema.json). PURE.

The lab has judged already: its verdict and comparisons stand as they are. Added here: figures over starts for each condition,
the checks a reader makes first, and words for what kind of run it is. Pictures are made from the same dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.reports.facts import DEFAULT_RIGHT
from gateway.reports.jsonable import Json
from gateway.reports.lab import words
from gateway.reports.lab.read import LabRun
from gateway.reports.lab.shape import Condition, Doc, conditions, items, mean_of, number, of_blocks, part, reason_of
from gateway.reports.words import listing, percent

FORMAT = 1
QUANTILES = ("p50", "p90", "p95", "p99", "p999")
ARM = (
    "role",
    "kind",
    "variant",
    "implementation",
    "stand_in",
    "cores",
    "threads",
    "workers",
    "max_batch",
    "wait_ms",
    "wire",
    "path",
    "digest",
)
"""What is told of an arm; a run that was cut short before its servers were up does not know all of it."""
LATE_LIMIT, CORE_LIMIT, MIN_STARTS = 0.01, 0.7, 6
OK, WARNING, INCONCLUSIVE, FAILED = "ok", "warning", "inconclusive", "failed"
KEPT = (
    "question",
    "plan",
    "machine",
    "versions",
    "model",
    "blocks",
    "comparisons",
    "results",
    "not_tested",
    "config",
)


def build(run: LabRun) -> Json:
    """The whole report of a lab run, without pictures."""
    document = run.document
    verdict = part(document, "verdict")
    found = conditions(document)
    complete = bool(document.get("complete"))
    checks = _checks(document, complete)
    code = verdict.get("code")
    return {
        "format": FORMAT,
        "report": "lab",
        "generated": bool(document.get("generated", False)),
        "kind": str(document.get("kind", "not told")),
        "run": {
            "id": str(document.get("run_id") or run.path.name),
            "started": document.get("started"),
            "seconds": number(document.get("seconds")),
            "complete": complete,
            "raw": str(run.path),
        },
        "summary": {
            "question": str(document.get("question") or "not told"),
            "sentence": str(verdict.get("text") or "The run ended before a verdict."),
            "valid": bool(verdict.get("valid", False)) and complete,
            "reasons": [str(reason) for reason in verdict.get("reasons") or []],
            "exit_code": code if isinstance(code, int) and complete else 2,
            "checks": sorted(checks, key=lambda c: (FAILED, INCONCLUSIVE, WARNING, OK).index(c["state"])),
        },
        "kinds": words.kinds(document, found),
        **{key: document.get(key, [] if key in ("blocks", "comparisons", "not_tested") else {}) for key in KEPT},
        "arms": {
            name: dict.fromkeys(ARM) | dict(arm)
            for name, arm in part(document, "arms").items()
            if isinstance(arm, dict)
        },
        "conditions": [condition(one) for one in found],
        "caveats": words.caveats(document),
        "missing": [*words.missing_parts(document), *run.missing],
    }


def condition(one: Condition) -> Json:
    """A condition's figures over the starts of each arm."""
    return {
        "name": one.name,
        "group": one.group,
        "protocol": one.protocol,
        "path": one.path,
        "load": one.load,
        "open": one.is_open,
        "arms": {arm: _arm(one.of(arm)) for arm in one.arms},
    }


def _arm(blocks: Sequence[Doc]) -> Json:
    def total(key: str) -> int:
        return sum(int(number(block.get(key)) or 0) for block in blocks)

    n = total("n")
    return {
        "starts": len({block.get("replicate") for block in blocks}),
        "blocks": [str(block.get("id")) for block in blocks],
        "invalid": [str(block.get("id")) for block in blocks if not block.get("valid", True)],
        **{key: total(key) for key in ("n", "errors", "late", "dropped", "wrong", "judged")},
        "error_share": total("errors") / n if n else None,
        **{
            key: mean_of(blocks, key)
            for key in ("offered", "achieved", "goodput", "discarded_s", "start_seconds", "generator_us")
        },
        "drifts": [f"{block.get('id')}: {block['drift']}" for block in blocks if block.get("drift")],
        "intended_ms": _quantiles(blocks, "intended_ms"),
        "service_ms": _quantiles(blocks, "service_ms"),
        "parts_ms": _parts(blocks),
        "batches": _batches(blocks),
        "cpu": _cpu(blocks),
    }


def _quantiles(blocks: Sequence[Doc], key: str) -> Json:
    found: Json = {name: of_blocks(blocks, key, name) for name in QUANTILES}
    largest = [value for block in blocks if (value := number(part(block, key).get("max"))) is not None]
    counted = [number(part(block, key).get("n")) or 0 for block in blocks]
    return {
        **found,
        "n": int(sum(counted)),
        "mean": mean_of(blocks, key, "mean"),
        "sd": mean_of(blocks, key, "sd"),
        "max": max(largest) if largest else None,
    }


def _parts(blocks: Sequence[Doc]) -> Json:
    """Mean milliseconds of the parts of a request; None where nobody told them. Means add up, percentiles do not."""
    service, upstream, gateway, codec, queue = (
        mean_of(blocks, f"{name}_ms", "mean") for name in ("service", "upstream", "gateway", "codec", "queue")
    )
    rest = None
    if service is not None:
        rest = service - sum(value or 0.0 for value in (upstream, gateway, codec))
    compute = None if upstream is None else upstream - (queue or 0.0)
    return {
        "service": service,
        "upstream": upstream,
        "gateway": gateway,
        "codec": codec,
        "queue": queue,
        "compute": compute,
        "rest": rest,
    }


def _batches(blocks: Sequence[Doc]) -> Json:
    """Batches of all starts together: ranges by their number, the mean weighted by batches."""
    told = [part(block, "batches") for block in blocks if part(block, "batches").get("buckets")]
    if not told:
        return {"missing": "not told by the server"}
    buckets: dict[str, float] = {}
    weights = []
    for one in told:
        mine = {str(size): float(count) for size, count in part(one, "buckets").items()}
        weights.append(sum(mine.values()))
        for size, count in mine.items():
            buckets[size] = buckets.get(size, 0.0) + count
    total = sum(buckets.values()) or 1.0
    means = [(number(one.get("mean")), weight) for one, weight in zip(told, weights, strict=True)]
    known = [(mean, weight) for mean, weight in means if mean is not None and weight]
    ordered = sorted(buckets, key=lambda size: int(size.rstrip("+").split("-")[0]))
    fills = [value for one in told if (value := number(one.get("fill"))) is not None]
    return {
        "source": str(told[0].get("source", "not told")),
        "batches": total,
        "mean": sum(m * w for m, w in known) / sum(w for _, w in known) if known else None,
        "fill": sum(fills) / len(fills) if fills else None,
        "buckets": [{"size": size, "batches": buckets[size], "share": buckets[size] / total} for size in ordered],
    }


def _cpu(blocks: Sequence[Doc]) -> Json:
    roles = dict.fromkeys(str(role) for block in blocks for role in part(block, "cpu"))
    return {
        role: {
            "cores": mean_of(blocks, "cpu", role, "cores"),
            "rss_bytes": max(
                (number(part(part(b, "cpu"), role).get("rss_bytes")) or 0.0 for b in blocks), default=None
            ),
        }
        for role in roles
    }


def _check(name: str, state: str, text: str) -> Json:
    return {"name": name, "state": state, "text": text}


def _checks(document: Doc, complete: bool) -> list[Json]:
    """What an expert looks at before any number, each with what was found."""
    blocks = items(document, "blocks")
    found = [
        _check(
            "run complete",
            OK if complete else INCONCLUSIVE,
            "all planned blocks ran"
            if complete
            else "the run was cut short: what it measured so far is shown, without a verdict",
        )
    ]
    if not blocks:
        return [*found, _check("blocks", INCONCLUSIVE, "no block was measured")]
    n = sum(int(number(block.get("n")) or 0) for block in blocks)
    late = [b for b in blocks if (number(b.get("late")) or 0) > LATE_LIMIT * max(number(b.get("n")) or 0, 1)]
    opened = [b for b in blocks if b.get("mode") == "open loop"]
    if opened:
        text = (
            f"{len(late)} of {len(opened)} open-loop blocks sent more than {percent(LATE_LIMIT)} of their requests late"
        )
        found.append(_check("schedule kept", INCONCLUSIVE if late else OK, text))
    errors = sum(int(number(block.get("errors")) or 0) for block in blocks)
    share = errors / n if n else 0.0
    found.append(
        _check(
            "errors",
            OK if share <= 0.01 else WARNING,
            f"{errors} of {n} requests failed ({percent(share)}); they stay in the denominator",
        )
    )
    judged, wrong = (sum(int(number(block.get(key)) or 0) for block in blocks) for key in ("judged", "wrong"))
    found.append(_check_answers(judged, wrong, str(part(document, "plan").get("check", "not told"))))
    found += [_saturation(blocks, role) for role in ("generator", "gateway")]
    invalid = [str(block.get("id")) for block in blocks if not block.get("valid", True)]
    text = f"{len(invalid)} of {len(blocks)} blocks are not valid" + (
        f": {listing(invalid[:3])}{' and more' if len(invalid) > 3 else ''}" if invalid else ""
    )
    found.append(_check("blocks", INCONCLUSIVE if invalid else OK, text))
    drifts = [str(block.get("id")) for block in blocks if block.get("drift")]
    text = f"latency drifted inside {len(drifts)} of {len(blocks)} blocks" + (
        f" ({listing(drifts[:3])})" if drifts else ""
    )
    found.append(_check("drift", WARNING if drifts else OK, text))
    return [*found, *_check_comparisons(document), *_check_servers(document)]


def _check_answers(judged: int, wrong: int, check: str) -> Json:
    """Against a reference every answer must be right; against labels the model's own mistakes count as wrong."""
    if not judged:
        return _check("answers", WARNING, "no answer was judged")
    share = wrong / judged
    limit = 1.0 - DEFAULT_RIGHT.get(check, 1.0)
    state = FAILED if share > limit + 1e-9 else OK
    return _check(
        "answers", state, f"{wrong} of {judged} judged answers were wrong (check: {check}; limit {percent(limit)})"
    )


def _saturation(blocks: Sequence[Doc], role: str) -> Json:
    seen = [(value, b) for b in blocks if (value := number(part(part(b, "cpu"), role).get("cores"))) is not None]
    if not seen:
        return _check(f"{role} load", WARNING, f"the {role}'s CPU is not told")
    most, at = max(seen, key=lambda pair: pair[0])
    over = sum(value > CORE_LIMIT for value, _ in seen)
    text = f"at most {most:.2f} of a core ({at.get('id')}); {over} of {len(seen)} blocks above {CORE_LIMIT:g}"
    more = ": it shapes those figures; measure past the gateway with --direct" if over and role == "gateway" else ""
    return _check(f"{role} load", WARNING if over else OK, text + more)


def _check_comparisons(document: Doc) -> list[Json]:
    compared = items(document, "comparisons")
    if not compared:
        return []
    aa = [(part(c, "aa"), c) for c in compared if "aa" in c and "missing" not in part(c, "aa")]
    biased = [c for one, c in aa if not one.get("unbiased", True)]
    blind = [c for one, c in aa if not one.get("resolves", True)]
    text = (
        f"{len(biased)} of {len(aa)} A/A intervals miss no effect (about {0.05 * len(aa):.1f} do by chance); "
        f"{len(blind)} are wider than the margin"
    )
    state = INCONCLUSIVE if biased else WARNING if blind or not aa else OK
    pairs = [int(number(c.get("n")) or 0) for c in compared if "n" in c]
    few = f"{min(pairs, default=0)} pairs of starts at least (needed: {MIN_STARTS})"
    return [
        _check(
            "A/A", state, text if aa else f"no A/A comparison: {reason_of(part(compared[0], 'aa'), 'none was planned')}"
        ),
        _check("starts", OK if pairs and min(pairs) >= MIN_STARTS else INCONCLUSIVE, few),
    ]


def _check_servers(document: Doc) -> list[Json]:
    manifest: Any = part(document, "model").get("manifest")
    proved = part(document, "model").get("manifest") if isinstance(manifest, dict) else None
    checks = []
    if proved:
        ok = proved.get("ok")
        state = WARNING if ok is None else OK if ok else FAILED
        checks.append(
            _check(
                "parity",
                state,
                "the proof that all arms serve the same model "
                + ("passed" if ok else "failed" if ok is False else "is not told"),
            )
        )
    stand_ins = [name for name, arm in part(document, "arms").items() if isinstance(arm, dict) and arm.get("stand_in")]
    if stand_ins:
        text = f"{listing(stand_ins)}: a stand-in answered; no verdict on the real server's speed follows"
        checks.append(_check("real servers", WARNING, text))
    return checks
