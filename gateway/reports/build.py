"""From what a run directory told to the report as one JSON-ready dictionary (schema: report.schema.json). PURE.

Reads no files and draws nothing; html.py renders the same dictionary, so the page never says more than report.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gateway.reports import facts, jsonable
from gateway.reports.batches import batching
from gateway.reports.jsonable import Json
from gateway.reports.ledger import Requests, Run
from gateway.reports.measure import ArmRows, curve, measure, rows_of, series
from gateway.reports.records import GatewayRecords
from gateway.reports.verdict import (
    LATENCY_MARGIN,
    STATES,
    Check,
    Comparison,
    check_arms,
    check_complete,
    check_lost,
    check_run,
    check_same_answers,
    check_schedule,
    compare,
    exit_code,
    performance_line,
)
from gateway.reports.words import headline
from gateway.stats.decision import Circumstances
from gateway.stats.result import NotComputable
from gateway.stats.schedule import ScheduleCheck
from gateway.stats.srm import ALARM_P, SrmTest, first_exposures, phase_test, stratified_test

FORMAT = 1


def build(run: Run) -> Json:
    """The whole report of a run."""
    document = run.document
    seconds = run.window.seconds if run.window else None
    rows = rows_of(run.requests) if run.requests is not None and run.requests.n else []
    measured = [measure(arm, seconds) for arm in rows] if seconds else []
    arms = [_arm(run, name, measured[i] if measured else None) for i, name in enumerate(_names(run))]
    served = [arm for arm in rows if arm.n]
    comparisons = [compare(served[0], other) for other in served[1:]]
    limits = facts.part(document, "limits")
    found: Json = {
        "run": _run(run),
        "arms": arms,
        "unattributed": _unattributed(run.requests),
        "differences": [_difference(comparison) for comparison in comparisons],
        "srm": _srm(run),
        "parity": facts.parity(facts.part(facts.part(document, "model"), "manifest")),
        "processes": facts.processes(document, run.resources),
        "limits": {**limits, "limited_by": [str(name) for name in limits.get("limited_by") or []]},
        "records": _records(run.records, document),
        "events": facts.events(document, run.window.start_ns if run.window else None),
        "missing": list(run.missing),
        **({} if run.schedule is None else {"loop": _loop(run.schedule)}),
        "not_tested": facts.not_tested(document, arms),
        "plots": {
            "percentile_curve": {arm.name: curve(arm) for arm in served},
            "over_time": series(served, seconds) if served and seconds else None,
        },
    }
    checks = check_arms(rows, measured, facts.part(document, "profile"))
    if _judged(measured):
        checks += [check_same_answers(comparison) for comparison in comparisons]
    summary = _summary(run, found, checks, comparisons, _units(run.requests, rows))
    _add_decisions(found["differences"], comparisons, summary["performance"])
    return {
        "format": FORMAT,
        "generated": bool(document.get("generated", False)),
        "summary": summary,
        **found,
    }


def _add_decisions(differences: list[Json], comparisons: Sequence[Comparison], line: Json) -> None:
    """Better or worse is said only where the run may name a winner; elsewhere the difference stands without a verdict."""
    for entry, comparison in zip(differences, comparisons, strict=True):
        decision = comparison.decision
        told = {"verdict": decision.verdict.value, "reason": decision.reason}
        entry["decision"] = told if line["names_winner"] else jsonable.missing(line["line"])


def _summary(run: Run, found: Json, of_arms: Sequence[Check], comparisons: Sequence[Comparison], units: int) -> Json:
    """The sentence, the performance line, the checks (troubles first) and the exit code."""
    unfinished, limited_by, arms = _unfinished(run), found["limits"]["limited_by"], found["arms"]
    invalid = run.schedule
    line, chosen = performance_line(
        comparisons,
        Circumstances(
            stand_ins=[arm["name"] for arm in arms if arm["stand_in"]],
            unfinished=unfinished
            or (invalid.reason if isinstance(invalid, ScheduleCheck) and not invalid.valid else ""),
            srm_alarm=bool(found["srm"].get("alarm")),
            limited_by=limited_by,
            shared_machine=run.document.get("kind", "live split") == "live split",
            arms=len(arms),
        ),
    )
    lost = found["unattributed"]["requests"]
    checks = [
        *check_run(found["parity"], found["srm"], limited_by, unfinished),
        *check_complete(found["records"], lost, facts.load_verdict(run.document)),
        *check_schedule(run.schedule),
        *check_lost(lost, sum(arm.get("requests", 0) for arm in arms), facts.part(run.document, "profile")),
        *of_arms,
    ]
    return {
        "sentence": headline(run.window.seconds if run.window else None, arms, units, lost),
        "performance": {"line": line.line, "reason": line.reason, "names_winner": line.names_winner},
        "exit_code": exit_code(checks, line, chosen),
        "checks": [check.json() for check in sorted(checks, key=lambda check: STATES.index(check.state))],
    }


def _unfinished(run: Run) -> str:
    if run.window is None or not run.window.told:
        return "the run was cut short: the end of its window is missing"
    return next((reason for reason in facts.load_verdict(run.document)[1] if reason.startswith("interrupted")), "")


def _names(run: Run) -> tuple[str, ...]:
    return run.requests.arms if run.requests is not None else tuple(facts.part(run.document, "arms"))


def _judged(measured: Sequence[Json]) -> bool:
    return all(numbers["accuracy"]["judged"] for numbers in measured if numbers["requests"])


def _units(requests: Requests | None, rows: Sequence[ArmRows]) -> int:
    """Units of the requests that are counted for an arm; others would make more users than requests."""
    if requests is None or not rows:
        return 0
    counted = np.any([arm.mask for arm in rows], axis=0) & (requests.unit != 0)
    return int(np.unique(requests.unit[counted]).size)


def _arm(run: Run, name: str, measured: Json | None) -> Json:
    records = run.records.arms.get(name) if run.records else None
    told = facts.part(facts.part(run.document, "arms"), name)
    arm = facts.arm_facts(name, told, records.implementations if records else {})
    overhead: Json = jsonable.missing("the gateway's records are missing")
    if records is not None:
        overhead = {
            "records": records.count,
            "gateway": records.times.get("gateway_ns", jsonable.missing("no records")),
            "codec": records.times.get("codec_ns", jsonable.missing("no records")),
            "upstream": records.times.get("upstream_ns", jsonable.missing("no records")),
            "loop_lag": records.times.get("loop_lag_ns", jsonable.missing("no records")),
            "error_kinds": dict(records.error_kinds),
            "protocols_out": dict(records.protocols_out),
            "versions": dict(records.versions),
            "mean_bytes_in": records.bytes_in,
            "mean_bytes_out": records.bytes_out,
        }
    return {
        **arm,
        **(measured or {}),
        "batching": batching(records, run.scrapes.get(str(arm["backend"]))),
        "gateway_ms": overhead,
    }


def _run(run: Run) -> Json:
    document = run.document
    window = run.window
    return {
        "id": document.get("run_id") or run.path.name,
        "kind": facts.absent(document, "kind"),
        "profile": facts.absent(document, "profile"),
        "profile_sha256": facts.absent(document, "profile_sha256"),
        "config_sha256": facts.absent(document, "config_sha256"),
        "seed": facts.absent(document, "seed"),
        "target": facts.absent(document, "target"),
        "model": facts.part(document, "model").get("name") or jsonable.missing(facts.UNKNOWN),
        "machine": facts.absent(document, "machine"),
        "versions": facts.absent(document, "versions"),
        "window": {"start_ns": window.start_ns, "end_ns": window.end_ns, "seconds": window.seconds, "told": window.told}
        if window
        else jsonable.missing("no window and no ledger"),
        "warmup_requests": run.warmup_rows,
    }


def _loop(check: ScheduleCheck | NotComputable) -> Json:
    """An open loop's schedule and its check; lags in ms: median, p99, largest."""
    if isinstance(check, NotComputable):
        return {"kind": "open", "schedule": jsonable.missing(check.reason)}
    lags = dict(zip(("p50", "p99", "max"), (1e3 * lag for lag in check.lags), strict=True))
    counts = {"due": check.due, "late": check.late, "dropped": check.dropped, "share": check.share}
    rates = {"offered_rps": check.offered, "achieved_rps": check.achieved}
    told = {**counts, **rates, "lag_ms": lags, "valid": check.valid, "reason": check.reason}
    return {"kind": "open", "schedule": told}


def _records(records: GatewayRecords | None, document: Mapping[str, Any]) -> Json:
    dropped: Json = {
        "dropped": facts.part(document, "gateway").get("records_dropped"),
        "ledger_dropped": facts.part(document, "ledger").get("dropped"),
    }
    if records is None:
        return {**dropped, "not_computable": "the gateway's records are missing"}
    return {
        **dropped,
        "rows": records.rows,
        "joined_by": "request id" if records.joined else "time only",
        "other_traffic": records.foreign,
        "requests_without_record": records.unrecorded,
        "rerouted": records.rerouted,
        "assignments": dict(records.assignments),
    }


def _unattributed(requests: Requests | None) -> Json:
    """Requests that no arm is known for (they failed before one was told), and forced ones left out of the comparison."""
    if requests is None:
        return {"requests": 0, "errors": [], "forced_left_out": 0}
    lost = requests.arm < 0
    kinds = np.bincount(requests.error[lost], minlength=len(requests.errors))
    compared = any((arm.mask & requests.forced).any() for arm in rows_of(requests))
    return {
        "requests": int(lost.sum()),
        "errors": [{"kind": requests.errors[i] or "ok", "count": int(c)} for i, c in enumerate(kinds) if c],
        "forced_left_out": 0 if compared else int((requests.forced & ~lost).sum()),
    }


def _difference(comparison: Comparison) -> Json:
    return {
        "arm": comparison.arm,
        "baseline": comparison.baseline,
        "latency_ms": {name: jsonable.difference(value) for name, value in comparison.latency.items()},
        "error_rate": jsonable.difference(comparison.errors),
        "accuracy": jsonable.difference(comparison.accuracy),
        "margin": {"share_of_baseline": LATENCY_MARGIN, "quantile": "p95", "ms": comparison.margin_ms},
    }


def _srm(run: Run) -> Json:
    """The sample-ratio check from the gateway's records; without those from the ledger, if the weights never changed."""
    if run.document.get("kind") == "direct":
        return jsonable.missing("a direct run is not split")
    weights = facts.phases(run.document)
    records, requests = run.records, run.requests
    if records is not None:
        units, phases, arms, names = records.unit, records.phase, records.assigned, records.assigned_names
        source = "the gateway's records"
    elif requests is not None and len(weights) == 1:
        chosen = requests.sticky & (requests.arm >= 0)
        units, arms, names = requests.unit[chosen], requests.arm[chosen], requests.arms
        phases, source = np.full(units.size, next(iter(weights)), dtype=np.int64), "the ledger"
    else:
        return jsonable.missing("the gateway's records are missing")
    if units.size == 0:
        return jsonable.missing("no unit was assigned by weight")
    unknown = sorted({int(p) for p in np.unique(phases)} - set(weights))
    if unknown:
        return jsonable.missing(f"run.json does not tell the weights of phase {', '.join(map(str, unknown))}")
    exposures = first_exposures(units, phases, arms, names, weights)
    result = stratified_test(exposures.phases)
    common = {"units_seen": exposures.units, "multiple_exposures": exposures.multiple, "source": source}
    if isinstance(result, NotComputable):
        return {**jsonable.missing(result.reason), **common}
    per_phase = [
        {"phase": counts.phase, "weights": dict(counts.weights), **_test(phase_test(counts))}
        for counts in exposures.phases
    ]
    return {**_test(result), **common, "units": sum(result.observed), "alarm_below": ALARM_P, "phases": per_phase}


def _test(test: SrmTest | NotComputable) -> Json:
    if isinstance(test, NotComputable):
        return jsonable.missing(test.reason)
    return {
        "arms": [
            {"name": name, "units": seen, "expected": expected}
            for name, seen, expected in zip(test.arms, test.observed, test.expected, strict=True)
        ],
        "statistic": test.statistic,
        "freedom": test.freedom,
        "p_value": test.p_value,
        "alarm": test.alarm,
        "units_in_unweighted_arms": list(test.unweighted),
    }
