"""Checks, the performance line and the exit code. PURE.

| exit code | when |
|---|---|
| 1 | a check failed: errors above the limit, wrong answers, the arms' answers differ, parity failed; or a candidate is worse |
| 2 | nothing failed, but the run shows nothing firm: unfinished, no requests for an arm, sample-ratio alarm, too little data |
| 2 | INVALID, whatever else: an open loop did not keep its schedule |
| 0 | else; also when the performance line is "no verdict: stand-in", or describes the mixed system |

1 goes before 2 but for INVALID. Warnings (dropped records, a busy generator, units seen in several arms) stand in the
report and change the code only where the table says so. 3 (no such run) and 99 are given by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.reports import facts
from gateway.reports.jsonable import Json
from gateway.reports.measure import ArmRows
from gateway.reports.words import milliseconds, percent, span
from gateway.stats.decision import Circumstances, Decision, Performance, Verdict, decide, performance
from gateway.stats.proportions import newcombe
from gateway.stats.quantiles import difference
from gateway.stats.result import Difference, NotComputable
from gateway.stats.schedule import ScheduleCheck

DECIDED_BY = "p95"
LATENCY_MARGIN = 0.05
ACCURACY_MARGIN = 0.005
MULTIPLE_LIMIT = 0.01
STATES = FAILED, INCONCLUSIVE, WARNING, OK = "failed", "inconclusive", "warning", "ok"


@dataclass(frozen=True)
class Check:
    """One thing looked at: its state and what was found, in words with the numbers."""

    name: str
    state: str
    text: str

    def json(self) -> Json:
        """As it stands in report.json."""
        return {"name": self.name, "state": self.state, "text": self.text}


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline: latency differences in ms by quantile, failures counting as never answered."""

    baseline: str
    arm: str
    latency: dict[str, Difference | NotComputable]
    errors: Difference | NotComputable
    accuracy: Difference | NotComputable
    margin_ms: float
    decision: Decision


def compare(baseline: ArmRows, arm: ArmRows) -> Comparison:
    """All differences of two arms. The margin is LATENCY_MARGIN of the baseline's p95, chosen before any data."""
    base, other = baseline.quantiles(baseline.everything), arm.quantiles(arm.everything)
    latency = {name: difference(base[name], other[name]) for name in base}
    decided = latency[DECIDED_BY]
    margin = LATENCY_MARGIN * decided.baseline if isinstance(decided, Difference) else 0.0
    rates = []
    for one, two in ((baseline.error_rate, arm.error_rate), (baseline.right_rate, arm.right_rate)):
        parts = [rate for rate in (one, two) if isinstance(rate, NotComputable)]
        rates.append(parts[0] if parts else newcombe(one, two))  # type: ignore[arg-type]
    return Comparison(baseline.name, arm.name, latency, rates[0], rates[1], margin, decide(decided, margin))


def phrase(comparison: Comparison) -> str:
    """The decided difference in words, e.g. "b's p95 is 1.2 ms (0.9 to 1.5) above a's"."""
    found = comparison.latency[DECIDED_BY]
    if isinstance(found, NotComputable):
        return f"{DECIDED_BY} of {comparison.arm} and {comparison.baseline} cannot be compared ({found.reason})"
    side = "above" if found.value > 0 else "below"
    low, high = found.interval.low, found.interval.high
    if found.value <= 0:
        low, high = -high, -low
    size = milliseconds(abs(found.value))
    return f"{comparison.arm}'s {DECIDED_BY} is {size} {side} {comparison.baseline}'s ({span(low, high, milliseconds)})"


def check_arms(arms: Sequence[ArmRows], measured: Sequence[Json], profile: Any) -> list[Check]:
    """Per arm: any requests, errors within the limit, answers right."""
    if not arms:
        return [Check("requests", INCONCLUSIVE, "no request of the measurement window is on record")]
    checks = []
    limit, right = facts.error_limit(profile), facts.right_limit(profile)
    for rows, numbers in zip(arms, measured, strict=True):
        if not rows.n:
            checks.append(
                Check(f"requests of {rows.name}", INCONCLUSIVE, f"{rows.name} served no request in the window")
            )
            continue
        share = numbers["errors"]["count"] / rows.n
        text = f"{numbers['errors']['count']} of {rows.n} failed ({percent(share)}; limit {percent(limit)})"
        checks.append(Check(f"errors of {rows.name}", FAILED if share > limit else OK, text))
        judged = numbers["accuracy"]["judged"]
        if judged and right is not None:
            got = numbers["accuracy"]["right"] / judged
            text = f"{numbers['accuracy']['right']} of {judged} judged answers right ({percent(got)}; at least {percent(right)})"
            checks.append(Check(f"answers of {rows.name}", FAILED if got < right else OK, text))
    return checks


def check_same_answers(comparison: Comparison) -> Check:
    """Two arms that serve one model must be right equally often: ok only where the whole interval is within ACCURACY_MARGIN."""
    name = f"same answers: {comparison.arm} and {comparison.baseline}"
    if isinstance(comparison.accuracy, NotComputable):
        return Check(name, WARNING, f"not compared: {comparison.accuracy.reason}")
    decision = decide(comparison.accuracy, ACCURACY_MARGIN, lower_is_better=False)
    low, high = comparison.accuracy.interval.low, comparison.accuracy.interval.high
    text = (
        f"difference in right answers {100 * low:+.2f} to {100 * high:+.2f} points (margin {100 * ACCURACY_MARGIN:g})"
    )
    if decision.verdict is Verdict.CANNOT_TELL:
        return Check(name, WARNING, f"{text}: cannot tell, {decision.reason}")
    return Check(name, OK if decision.verdict is Verdict.NO_DIFFERENCE else FAILED, text)


def check_run(parity: Json, srm: Json, limited_by: Sequence[str], unfinished: str) -> list[Check]:
    """What concerns the run as a whole."""
    checks = [
        Check("run finished", INCONCLUSIVE if unfinished else OK, unfinished or "the window has a start and an end")
    ]
    state = {"passed": OK, "failed": FAILED}.get(parity["status"], WARNING)
    why = f" ({parity['reason']})" if parity["reason"] else ""
    checks.append(Check("parity", state, f"the proof that all arms serve the same model: {parity['status']}{why}"))
    if "not_computable" in srm:
        checks.append(Check("sample ratio", WARNING, f"not checked: {srm['not_computable']}"))
    else:
        text = f"chi-square on {srm['units']} units: p = {srm['p_value']:.3g} (alarm below {srm['alarm_below']:g})"
        checks.append(Check("sample ratio", INCONCLUSIVE if srm["alarm"] else OK, text))
    if srm.get("multiple_exposures"):
        share = srm["multiple_exposures"] / srm["units_seen"]
        text = f"{srm['multiple_exposures']} units ({percent(share)}) were served by several arms in one phase"
        checks.append(Check("one arm per unit", INCONCLUSIVE if share > MULTIPLE_LIMIT else WARNING, text))
    if limited_by:
        way = "; try --direct" if "gateway" in limited_by else ""
        text = (
            f"the {' and the '.join(limited_by)} used more than 70% of a core: it shapes these numbers, "
            f"which are no server's capacity{way}"
        )
        checks.append(Check("load side", WARNING, text))
    return checks


def check_schedule(schedule: ScheduleCheck | NotComputable | None) -> list[Check]:
    """Whether an open loop's generator kept its schedule; nothing to say of a closed loop."""
    if schedule is None:
        return []
    if isinstance(schedule, NotComputable):
        return [Check("schedule", WARNING, f"not checked: {schedule.reason}")]
    return [Check("schedule", OK if schedule.valid else INCONCLUSIVE, schedule.reason)]


def check_lost(lost: int, attributed: int, profile: Any) -> list[Check]:
    """Requests that failed before an arm was known (the gateway was away) are nobody's errors, and errors all the same."""
    if not lost:
        return []
    limit = facts.error_limit(profile)
    share = lost / (lost + attributed)
    text = f"{lost} of {lost + attributed} failed before an arm was known ({percent(share)}; limit {percent(limit)})"
    return [Check("requests without an arm", FAILED if share > limit else WARNING, text)]


def check_complete(records: Json, failed_early: int, load_verdict: tuple[int, list[str]]) -> list[Check]:
    """Whether rows were lost on the way, and what the load test itself found wrong beyond errors and wrong answers.

    failed_early: requests that failed before an arm was known; the gateway may never have seen those.
    """
    checks = []
    for key, what in (
        ("dropped", "the gateway dropped {} records"),
        ("ledger_dropped", "the generator lost {} ledger rows"),
    ):
        lost = records.get(key)
        name = "records complete" if key == "dropped" else "ledger complete"
        if lost is None:
            checks.append(Check(name, WARNING, "nobody told how many were lost"))
        else:
            checks.append(Check(name, WARNING if lost else OK, what.format(lost or "no")))
    unrecorded = records.get("requests_without_record", 0) - failed_early
    if unrecorded > 0:
        text = f"{unrecorded} requests that an arm answered have no record: the gateway ended before it was written"
        checks.append(Check("a record for each request", WARNING, text))
    code, reasons = load_verdict
    if code:
        checks.append(Check("load test", INCONCLUSIVE if code == 2 else FAILED, "; ".join(reasons)))
    return checks


def performance_line(
    comparisons: Sequence[Comparison], circumstances: Circumstances
) -> tuple[Performance, Comparison | None]:
    """The performance line from the first comparison (candidate against baseline)."""
    if not comparisons:
        nothing = Decision(Verdict.CANNOT_TELL, "there are no two arms to compare", too_little_data=True)
        return performance(circumstances, nothing, ""), None
    chosen = comparisons[0]
    return performance(circumstances, chosen.decision, phrase(chosen)), chosen


def exit_code(checks: Sequence[Check], line: Performance, chosen: Comparison | None) -> int:
    """The table at the head of this module."""
    states = {check.state for check in checks}
    if any(check.name == "schedule" and check.state == INCONCLUSIVE for check in checks):
        return 2
    worse = line.names_winner and chosen is not None and chosen.decision.verdict is Verdict.WORSE
    if FAILED in states or worse:
        return 1
    if INCONCLUSIVE in states or line.inconclusive:
        return 2
    return 0
