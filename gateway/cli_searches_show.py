"""What the searches print: their tables, their verdicts in a sentence with an exit code, and the fragments to paste.

PURE but for printing: results in, words out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from loadtest.lab.batching import Setting
    from loadtest.lab.spec import ArmSpec

Json = dict[str, Any]
_MORE = "more is better"


def interval(value: Json | None, digits: int = 4) -> str:
    """ "value (low to high)", or why it is missing."""
    if value is None:
        return ""
    if "missing" in value:
        return f"missing: {value['missing']}"
    head = f"{value['value']:.{digits}g}"
    if value.get("low") is None:
        return f"{head} (no interval{': ' + value['reason'] if value.get('reason') else ''})"
    return f"{head} ({value['low']:.{digits}g} to {value['high']:.{digits}g})"


def _number(value: Any, digits: int = 3) -> str:
    if isinstance(value, dict):
        value = value.get("value", value.get("point"))
    return "" if value is None else f"{value:.{digits}g}"


def _verdict(text: str, code: int, reasons: list[str]) -> Json:
    return {"text": text, "code": code, "reasons": reasons}


def slo_verdict(results: Json) -> Json:
    """0: both capacities are told (no verdict beside a stand-in), and the arm is not worse; 1: worse, or the SLO missed by an
    arm at every rate; 2: cannot tell or invalid."""
    arms, ratio = results.get("arms", {}), results.get("ratio", {})
    reasons = [f"{name}: {text}" for name, arm in arms.items() for text in arm["reasons"]]
    missed = [name for name, bracket in results["bracket"].items() if bracket["low"] is None]
    if missed:
        notes = [f"{name}: {results['bracket'][name]['note']}" for name in missed]
        return _verdict(f"the SLO is missed at every rate: {', '.join(missed)}", 1, notes)
    if not arms:
        return _verdict("no capacity: no arm could be bracketed", 2, [b["note"] for b in results["bracket"].values()])
    told = "; ".join(f"{name} {interval(arm['per_core'])} req/s per core" for name, arm in arms.items())
    if reasons:
        return _verdict(f"INVALID: {told}", 2, reasons)
    verdict = ratio.get("verdict", "cannot tell") if ratio else "one arm: nothing to compare"
    where = "measured on the stand-in, " if verdict.startswith("no verdict") else ""
    code = {"A better": 1, "cannot tell": 2, "INVALID": 2}.get(verdict, 0)
    why = ratio.get("reason") or ratio.get("missing") or ""
    return _verdict(f"{told}; {where}{verdict}", code, [why] if why else [])


def sweep_verdict(results: Json) -> Json:
    """0: every curve has a valid point; 2: one has none."""
    empty = [f"{curve['arm']}, {curve['mode']}: no valid point" for curve in results["curves"] if not curve["peak"]]
    limited = [
        f"{curve['arm']}, {curve['mode']}: at its most, {text}: that is no capacity"
        for curve in results["curves"]
        if curve["peak"]
        for text in curve["peak"].get("limits", [])
    ]
    peaks = "; ".join(
        f"{curve['arm']} {curve['mode']}: most {curve['peak']['goodput']:.4g}/s at {curve['peak']['at']:g}"
        for curve in results["curves"]
        if curve["peak"]
    )
    return _verdict(
        f"{peaks}; curves compare nothing: see `abgate loadtest slo` and `compare`",
        2 if empty else 0,
        [*empty, *limited],
    )


def batching_verdict(results: Json) -> Json:
    """0: every arm has a best setting; 2: one has none."""
    parts, none = [], []
    for arm, objectives in results["best"].items():
        best = objectives["balanced"]
        if "missing" in best:
            none.append(f"{arm}: {best['missing']}")
            continue
        parts.append(f"{arm}: batch {best['max_batch']}, wait {best['wait_ms']:g} ms")
    text = f"balanced settings: {'; '.join(parts)}" if parts else "no setting carried both loads"
    busy = sorted(
        {
            reason
            for cell in results["cells"]
            for reason in cell["saturated"]["reasons"]
            if "of a core" in reason or "other processes" in reason
        }
    )
    hint = (
        f"in some cells not only the server was at work, so that they tell another limit ({busy[-1]})" if busy else ""
    )
    notes = ["each arm is compared with itself; one measurement a cell, so that near ones may change places", hint]
    return _verdict(text, 2 if none else 0, [*none, *filter(None, notes)])


def show_slo(document: Json, console: Console) -> None:
    """Capacity, capacity per core, cost; then the ratio."""
    results = document["results"]
    if not results.get("arms"):
        return
    errors = results["slo"]["errors"]
    limit = "" if errors is None else f", errors <= {100 * errors:g}%"
    title = (
        f"p99 <= {results['slo']['threshold_ms']:g} ms{limit}; {results['path']}, {results['protocol']}; 95% intervals"
    )
    table = Table("arm", "req/s at the SLO", "cores", "req/s per core", "cost per million", title=title)
    for name, arm in results["arms"].items():
        cores = arm["cores"]
        stand_in = " (stand-in)" if document["arms"][name].get("stand_in") else ""
        table.add_row(
            f"{name}{stand_in}", interval(arm["capacity"]), f"{_number(cores['value'])} {cores['basis']}",
            interval(arm["per_core"]), interval(arm["cost_per_million"], 3),
        )  # fmt: skip
    console.print(table)
    for key in ("aa", "ratio", "ratio_per_core"):
        ratio = results.get(key)
        if ratio is not None:
            head = f"{ratio['metric']}, {ratio['arm']} / {ratio['baseline']} ({_MORE})"
            verdict = f": {ratio['verdict']}" if "verdict" in ratio else ""
            console.print(f"{head}: {interval(ratio)}{verdict}", markup=False, soft_wrap=True)


def show_sweep(document: Json, console: Console) -> None:
    """One table per curve."""
    for curve in document["results"]["curves"]:
        closed = curve["mode"] == "closed loop"
        stand_in = " (stand-in)" if document["arms"][curve["arm"]].get("stand_in") else ""
        title = f"{curve['arm']}{stand_in}, {curve['mode']}, start {curve['replicate'] + 1}"
        table = Table("in flight" if closed else "rate/s", "answers/s", "errors", "p50 ms", "p90 ms", "p99 ms", "server cores",
                      "", title=title)  # fmt: skip
        for point in curve["points"]:
            table.add_row(
                f"{point['concurrency'] or point['rate']:g}", _number(point["goodput"], 4), f"{100 * point['error_share']:.2g}%",
                _number(point["p50"]), _number(point["p90"]), _number(point["p99"]), _number(point["server_cores"]),
                "; ".join(point["reasons"]),
            )  # fmt: skip
        console.print(table)
        if curve["stopped"]:
            console.print(f"  {curve['stopped']}", markup=False)


def show_batching(document: Json, console: Console) -> None:
    """The cells of each arm, * on the front; then what to paste for each objective."""
    results = document["results"]
    for name, arm in document["arms"].items():
        front = {(one["max_batch"], one["wait_ms"]) for one in results["front"][name]}
        stand_in = " (stand-in)" if arm.get("stand_in") else ""
        title = f"{name}{stand_in}: saturated, and p99 at {results['open_rate']:g}/s; * nothing beats it in both"
        table = Table(
            "batch", "wait ms", "answers/s", "p99 ms", "fill", "full", "queue p50 ms", "queue p99 ms", "", title=title
        )
        cells = [cell for cell in results["cells"] if cell["arm"] == name]
        for cell in sorted(cells, key=lambda cell: (cell["max_batch"], cell["wait_ms"])):
            full, queue = cell["saturated"], cell["open"]["queue"]
            batches = full["batches"]
            share = batches.get("full")
            table.add_row(
                str(cell["max_batch"]), f"{cell['wait_ms']:g}" if cell["max_batch"] > 1 else "",
                _number(full["throughput"], 4), _number(cell["open"]["p99"]), _number(batches.get("fill"), 2),
                f"{100 * share:.0f}%" if isinstance(share, float) else "",
                _bounds(queue.get("p50")), _bounds(queue.get("p99")),
                "*" if (cell["max_batch"], cell["wait_ms"]) in front else "",
            )  # fmt: skip
        console.print(table)
    for name, objectives in results["fragments"].items():
        for objective, texts in objectives.items():
            best = results["best"][name][objective]
            console.print(f"\n{name}, {objective}: {best['why']}", markup=False)
            console.print(
                f"# {texts['file']}\n{texts['server']}# abgate.yaml\n{texts['abgate']}",
                markup=False,
                end="",
                soft_wrap=True,
            )


def _bounds(value: Json | None) -> str:
    if value is None or "missing" in value:
        return ""
    low, high = value["low"], value["high"]
    if low == high:
        return f"{low:.3g}"
    return f"{low:.3g} to {high:.3g}" if high is not None else f"above {low:.3g}"


def fragments(arm: ArmSpec, setting: Setting) -> Json:
    """What to paste for a setting: the server's own file and the section of abgate.yaml, in the words the servers were started
    with."""
    import yaml

    from backends.spec import BackendSpec, Batching
    from backends.tfserving.config_text import batching_parameters
    from backends.torchserve.folder import model_config

    batching, resources = Batching(setting.max_batch, setting.wait_ms), arm.resources
    section = {"max_batch_size": setting.max_batch, "max_wait_ms": setting.wait_ms}
    ours = yaml.safe_dump({"backends": {arm.name: {"batching": section}}}, sort_keys=False)
    if arm.kind == "torchserve":
        return {
            "file": "model-config.yaml",
            "server": model_config(batching, resources.threads, resources.workers),
            "abgate": ours,
        }
    if setting.max_batch == 1:
        text = "# no batching: start without --enable_batching\n"
    else:
        text = batching_parameters(batching, resources.workers, BackendSpec.job_queue, BackendSpec.max_rows)
    return {"file": "batching.config", "server": text, "abgate": ours}
