"""`abgate compare RUN RUN...`: runs side by side, of both kinds: what differs in how they were made, their figures with
intervals, and where they must not be compared. PURE but for `read`, which reads run.json or lab.json and report.json.

No verdict is given across runs: they were not paired, and nobody randomised their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.reports.jsonable import Json
from gateway.reports.lab.shape import Doc, number, part, reason_of
from gateway.reports.words import milliseconds, percent, significant, span

ABSENT = "not told"
QUANTILES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Facts:
    """A run: its name, how it was made (key -> text), and its figures: (condition, arm, metric) -> (value, below)."""

    name: str
    made: Mapping[str, str]
    loads: frozenset[str]
    figures: Mapping[tuple[str, str, str], tuple[str, str]]


@dataclass(frozen=True)
class Rule:
    """A key whose difference forbids a comparison of figures, and why."""

    key: str
    why: str


RULES = (
    Rule("kind of run", "a live split, a comparison, a capacity run and a sweep answer different questions"),
    Rule("model", "they served different models"),
    Rule("model digest", "they served different files of the model"),
    Rule("payload", "the requests had different rows or contents"),
    Rule("processor", "they ran on different processors"),
    Rule("processor cores", "they ran on machines with different numbers of cores"),
    Rule("memory", "they ran on machines of different memory"),
)
"""Differences in versions, threads, batching and seeds may be what is compared; these may not."""


def read(run_dir: Path) -> Facts:
    """The facts of a run directory, its report built anew. Raises ConfigError where there is no run."""
    from gateway.reports import build_report

    report = json.loads(build_report(run_dir).json.read_text(encoding="utf-8"))
    if report.get("report") == "lab":
        return lab_facts(report)
    try:
        document = json.loads((run_dir / "run.json").read_text(encoding="utf-8"), parse_constant=str)
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"{run_dir / 'run.json'}: cannot be read ({error}), so there is nothing to compare"]
        ) from error
    return live_facts(report, document)


def _text(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, dict) and "not_computable" in value):
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _digest(value: Any) -> str:
    if not value:
        return ABSENT
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _machine(machine: Doc) -> dict[str, str]:
    memory = number(machine.get("memory_bytes"))
    return {
        "processor": _text(machine.get("cpu")),
        "processor cores": _text(machine.get("cores")),
        "memory": ABSENT if memory is None else f"{memory / 2**30:.1f} GiB",
        "operating system": _text(machine.get("os")),
        "Python": _text(machine.get("python")),
    }


def _arms(arms: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    return {
        f"{name}: {key}": _text(told.get(key)) for name, told in arms.items() for key in keys if isinstance(told, dict)
    }


def _artefacts(manifest: Any) -> Any:
    found = part(manifest, "artifacts")
    return {name: part(found, name).get("sha256") for name in found} or None


def lab_facts(report: Json) -> Facts:
    """Of a lab's report.json."""
    arms, plan = part(report, "arms"), part(report, "plan")
    keys = ("implementation", "variant", "threads", "workers", "cores", "max_batch", "wait_ms", "wire")
    digests = {name: part(arms, name).get("digest") for name in arms}
    payload = {key: plan[key] for key in ("rows", "payloads", "replay", "check") if key in plan}
    made = {
        "kind of run": f"lab: {report.get('kind')}",
        "question": _text(report["summary"]["question"]),
        "model": _text(part(report, "model").get("name")),
        "model digest": _digest(_artefacts(part(report, "model").get("manifest")) or digests),
        "payload": _text(payload or None),
        **_machine(part(report, "machine")),
        **{f"version of {name}": _text(value) for name, value in part(report, "versions").items()},
        **_arms(arms, keys),
        **{
            f"plan: {key}": _text(plan.get(key))
            for key in ("profile", "margin", "alpha", "seed", "seeds", "replicates", "starts")
        },
    }
    figures: dict[tuple[str, str, str], tuple[str, str]] = {}
    for one in report["conditions"]:
        for arm, told in one["arms"].items():
            key = "intended_ms" if one["open"] else "service_ms"
            for quantile in QUANTILES:
                figures[one["name"], arm, f"{quantile}, {key.removesuffix('_ms')}"] = _cell(
                    told[key][quantile], milliseconds
                )
            figures[one["name"], arm, "goodput"] = _plain(told["goodput"], lambda v: f"{significant(v, 4)} /s")
            figures[one["name"], arm, "failed"] = _plain(told["error_share"], percent)
    for one in report.get("comparisons") or []:
        where = f"{one.get('protocol')} · {one.get('load')}"
        label = f"{one.get('metric')}, {one.get('unit')} to {one.get('baseline')}"
        figures[where, str(one.get("arm")), label] = _cell(one, lambda v: f"{v:.3f}")
    loads = frozenset(one["name"] for one in report["conditions"])
    return Facts(str(report["run"]["id"]), made, loads, figures)


def live_facts(report: Json, document: Doc) -> Facts:
    """Of a live split's or a direct run's report.json and run.json."""
    profile, run = part(document, "profile"), report["run"]
    keys = ("implementation", "threads", "workers", "cores", "weight", "wire")
    load = "open loop" if profile.get("arrivals") in ("poisson", "constant") else "closed loop"
    rate = profile.get("rate")
    made = {
        "kind of run": _text(document.get("kind")),
        "model": _text(run.get("model")),
        "model digest": _digest(_artefacts(part(document, "model").get("manifest"))),
        "payload": _text({key: profile[key] for key in ("rows", "check", "payloads") if key in profile} or None),
        **_machine(part(document, "machine")),
        **{f"version of {name}": _text(value) for name, value in part(document, "versions").items()},
        **_arms({arm["name"]: arm for arm in report["arms"]}, keys),
        **{
            f"profile: {key}": _text(profile.get(key)) for key in ("name", "users", "rate", "duration", "warmup", "mix")
        },
        "seed": _text(document.get("seed")),
        "configuration (SHA-256)": _text(document.get("config_sha256"))[:12],
    }
    where = f"{load}, {f'{rate:g} /s' if isinstance(rate, int | float) else str(profile.get('users')) + ' users'}"
    figures: dict[tuple[str, str, str], tuple[str, str]] = {}
    for arm in report["arms"]:
        latency = part(part(arm, "latency_ms"), "answered")
        for quantile in QUANTILES:
            figures[where, arm["name"], f"{quantile}, service"] = _cell(latency.get(quantile), milliseconds)
        figures[where, arm["name"], "answered"] = _plain(arm.get("answered_rps"), lambda v: f"{significant(v, 4)} /s")
        figures[where, arm["name"], "failed"] = _cell(part(part(arm, "errors"), "rate"), percent)
    return Facts(str(run["id"]), made, frozenset([where]), figures)


def _cell(found: Any, write: Callable[[float], str]) -> tuple[str, str]:
    value = number(found)
    if value is None:
        return "n/a", reason_of(found)
    low, high = number(found.get("low")), number(found.get("high"))
    if low is None or high is None:
        return write(value), str(found.get("interval_not_computable") or found.get("reason") or "no interval")
    return write(value), span(low, high, write)


def _plain(value: Any, write: Callable[[float], str]) -> tuple[str, str]:
    found = number(value)
    return ("n/a", ABSENT) if found is None else (write(found), "")


def compare(runs: Sequence[Facts]) -> Json:
    """Side by side: what differs, what is alike, what forbids a comparison, and the figures."""
    keys = list(dict.fromkeys(key for run in runs for key in run.made))
    rows = [(key, [run.made.get(key, ABSENT) for run in runs]) for key in keys]
    forbidden = [
        {"key": rule.key, "why": rule.why, "values": values}
        for rule in RULES
        for key, values in rows
        if key == rule.key and len({v for v in values if v != ABSENT}) > 1
    ]
    untold = [key for key, values in rows if key in {rule.key for rule in RULES} and ABSENT in values]
    common = frozenset.intersection(*(run.loads for run in runs))
    if not common:
        loads = ["; ".join(sorted(run.loads)) or "none" for run in runs]
        forbidden.append(
            {
                "key": "load",
                "why": "no load (closed or open loop, its size, the protocol) is in all of them",
                "values": loads,
            }
        )
    figures = list(dict.fromkeys(key for run in runs for key in run.figures))
    missing = ("", "not in this run")
    return {
        "format": 1,
        "report": "compare",
        "runs": [run.name for run in runs],
        "comparable": not forbidden,
        "must_not": forbidden,
        "untold": untold,
        "differs": [{"key": key, "values": values} for key, values in rows if len(set(values)) > 1],
        "alike": [{"key": key, "value": values[0]} for key, values in rows if len(set(values)) == 1],
        "figures": [
            {
                "condition": c,
                "arm": a,
                "metric": m,
                "values": [list(run.figures.get((c, a, m), missing)) for run in runs],
            }
            for c, a, m in sorted(figures, key=lambda key: (key[0] not in common, key))
        ],
    }


def render(found: Json) -> str:
    """The comparison as one offline page."""
    from gateway.reports.page import environment, style_sheet

    return environment("gateway.reports").get_template("compare.html.j2").render(r=found, css=style_sheet())
