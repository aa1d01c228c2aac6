"""Write a GENERATED lab run directory (lab.json and blocks/): seeded, for tests of the report and for timing it.

    python tools/make_lab.py OUT [--kind comparison|sweep|slo|batching|claims] [--rows N] [--starts S] [--seed K] [--scenario NAME]

Nothing in it was measured. lab.json says so ("generated": true), and the report then prints a banner. --rows: requests in
all blocks together. Scenarios: calm, worse (B is 40% slower), biased (A/A fails), late (an open loop that kept no schedule),
cut (interrupted: half of the blocks, no comparisons), thin (too few requests for a p99). lab_results.py makes the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab_results
import numpy as np
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet
from numpy.typing import NDArray

from gateway.stats.effects import Margin
from gateway.stats.equivalence import bias_check, decide_effect
from gateway.stats.equivalence import compare as judge
from gateway.stats.paired import Pair, Paired, paired_ratio
from gateway.stats.quantiles import Sample, quantile
from gateway.stats.result import Interval, NotComputable

KINDS = ("comparison", "sweep", "slo", "batching", "claims")
SCENARIOS = ("calm", "worse", "biased", "late", "cut", "thin")
START_NS = 1_760_000_000_000_000_000
BASE, OTHER, TWIN = "torchserve", "tfserving", "torchserve-again"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class Plan:
    """What to generate. rows: requests of all blocks together, warm-up not counted."""

    kind: str = "comparison"
    rows: int = 120_000
    starts: int = 6
    seed: int = 1
    scenario: str = "calm"
    seconds: float = 10.0
    stand_in: bool = False


@dataclass(frozen=True)
class Cell:
    """One block to make: which start, which arm, which load."""

    replicate: int
    order: int
    arm: str
    protocol: str
    load: dict[str, Any]
    path: str = "gateway"
    level: float = 1.0  # how loaded the server is, 0 to 1
    batch: int = 1
    wait_ms: float = 0.0
    at_s: float = 0.0  # seconds from the start of the run
    name: str = ""

    @property
    def id(self) -> str:
        """The block's id."""
        load = f"c{self.load['concurrency']}" if self.load["concurrency"] else f"r{self.load['rate']:g}"
        return self.name or f"{self.replicate:02d}-{self.order}-{self.arm}-{self.protocol}-{load}"


def closed(concurrency: int, seconds: float) -> dict[str, Any]:
    """A closed loop's load."""
    return {"concurrency": concurrency, "rate": None, "arrivals": None, "duration": seconds, "warmup": 2.0}


def opened(rate: float, seconds: float) -> dict[str, Any]:
    """An open loop's load."""
    return {"concurrency": None, "rate": rate, "arrivals": "poisson", "duration": seconds, "warmup": 2.0}


def cells(plan: Plan) -> list[Cell]:
    """All blocks of the plan, in the order they would have run."""
    if plan.kind in ("sweep", "slo"):
        loads = [(opened(r, plan.seconds), r / 900) for r in (100, 200, 300, 400, 500, 600, 700, 800)]
        if plan.kind == "sweep":
            loads += [(closed(c, plan.seconds), min(1.0, c / 8)) for c in (1, 2, 4, 8, 16, 32)]
        arms, protocols = [BASE, OTHER], ["tfs-grpc"]
    elif plan.kind == "batching":
        return lab_results.batching_cells(plan, Cell, closed(32, plan.seconds))
    else:
        loads = [(closed(1, plan.seconds), 0.1), (closed(8, plan.seconds), 0.8), (opened(300, plan.seconds), 0.4)]
        arms, protocols = [BASE, OTHER, TWIN], ["tfs-rest", "tfs-grpc"]
    rng, found, at = np.random.default_rng(plan.seed), [], 0.0
    for start in range(plan.starts):
        for order, arm in enumerate(rng.permutation(arms).tolist()):
            for protocol in protocols:
                for load, level in loads:
                    found.append(Cell(start, order, arm, protocol, load, level=level, at_s=at))
                    at += plan.seconds + 4.0
    return found[: len(found) // 2] if plan.scenario == "cut" else found


def _base_ms(plan: Plan, cell: Cell) -> float:
    side = {BASE: 1.9, TWIN: 1.9, OTHER: 1.75}.get(cell.arm, 1.9)
    if cell.arm == OTHER and plan.scenario == "worse":
        side *= 1.5
    if cell.arm == TWIN and plan.scenario == "biased":
        side *= 1.12
    return side * (1.0 + 0.35 * (cell.protocol == "tfs-rest")) * (1.0 + 3.0 * cell.level**3)


def draw(plan: Plan, cell: Cell, n: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """The requests of one block, warm-up of a tenth included, one array per column of loadtest.points.spec.COLUMNS."""
    warm = n // 10
    total = n + warm
    start = START_NS + int(cell.at_s * 1e9) + 2 * 10**9
    offset = np.sort(np.r_[-2.0 * rng.random(warm), plan.seconds * rng.random(n)])
    due = start + (offset * 1e9).astype(np.int64)
    base = _base_ms(plan, cell) * np.exp(rng.normal(0, 0.03))
    queue = rng.exponential(0.15 + 2.0 * cell.level**2 + cell.wait_ms / 2, total)
    compute = base * np.exp(rng.normal(0, 0.22, total)) * (1.0 + 0.4 * (offset < -1.0))
    pauses = rng.random(total) < 0.003
    compute[pauses] += rng.exponential(9.0, int(pauses.sum()))
    codec = np.where(cell.protocol == "tfs-rest", 0.11, 0.03) * np.exp(rng.normal(0, 0.2, total))
    gateway, client = 0.16 * np.exp(rng.normal(0, 0.3, total)), 0.22 * np.exp(rng.normal(0, 0.4, total))
    delay = rng.exponential(0.04, total) if cell.load["rate"] else np.zeros(total)
    if plan.scenario == "late" and cell.load["rate"]:
        delay += np.where(rng.random(total) < 0.06, rng.exponential(30.0, total), 0.0)
    sent = due + (delay * 1e6).astype(np.int64)
    upstream = queue + compute
    done = sent + ((upstream + codec + gateway + client) * 1e6).astype(np.int64)
    error = np.zeros(total, dtype=np.int64)  # 0 fine, 1 dropped, 2 http 503, 3 timeout
    error[rng.random(total) < 0.0004 * (1 + 20 * (cell.level > 0.85))] = 2
    if cell.load["rate"] and cell.level > 0.85:
        error[rng.random(total) < 0.004] = 1
    dropped = error == 1
    tells = cell.arm != OTHER
    return {
        "due_ns": due if cell.load["rate"] else sent,
        "sent_ns": np.where(dropped, -1, sent),
        "done_ns": np.where(dropped, -1, done),
        "status": np.where(error == 2, 503, np.where(dropped, 0, 200)),
        "error": error,
        "rows": np.ones(total, dtype=np.int64),
        "correct": np.where(np.arange(total) % 8 == 0, np.where(error == 0, 1, -1), -1),
        "upstream_ns": np.where(error > 0, -1, (upstream * 1e6)).astype(np.int64),
        "gateway_ns": np.where(dropped, -1, (gateway * 1e6)).astype(np.int64),
        "codec_ns": np.where(dropped, -1, (codec * 1e6)).astype(np.int64),
        "batch_size": np.where(tells & (error == 0), rng.integers(1, max(2, cell.batch + 1), total), -1),
        "queue_ns": np.where(tells & (error == 0), queue * 1e6, -1).astype(np.int64),
    }


def quantiles(values: NDArray[np.float64]) -> dict[str, Any] | None:
    """QUANTILES of the contract, from values in ms."""
    if not values.size:
        return None
    sample = Sample.of(values)
    found: dict[str, Any] = {"n": sample.n, "mean": float(values.mean()), "sd": float(values.std()),
                             "max": float(values.max())}  # fmt: skip
    for name, q in QUANTILES.items():
        told = quantile(sample, q)
        if isinstance(told, NotComputable):
            found[name] = {"missing": told.reason}
        else:
            low, high = (told.interval.low, told.interval.high) if isinstance(told.interval, Interval) else (None, None)
            found[name] = {"value": told.value, "low": low, "high": high}
    return found


def block(plan: Plan, cell: Cell, columns: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, Any]:
    """BLOCK of the contract."""
    inside = columns["due_ns"] >= START_NS + int(cell.at_s * 1e9) + 2 * 10**9
    told = {name: values[inside] for name, values in columns.items()}
    good, n = told["error"] == 0, int(inside.sum())
    service = (told["done_ns"] - told["sent_ns"])[good] / 1e6
    intended = (told["done_ns"] - told["due_ns"])[good] / 1e6
    late = int(((told["sent_ns"] - told["due_ns"])[told["sent_ns"] >= 0] > 1e6).sum()) if cell.load["rate"] else 0
    dropped = int((told["error"] == 1).sum())
    reasons = [f"{late} of {n} requests were sent more than 1 ms late (limit 1%)"] if late > 0.01 * n else []
    sizes = np.bincount(told["batch_size"][told["batch_size"] > 0])
    if cell.arm == OTHER:
        sizes = np.bincount(rng.integers(1, max(2, cell.batch + 1), n // max(1, cell.batch)))
    buckets = {str(size): int(c / (size if cell.arm != OTHER else 1)) for size, c in enumerate(sizes) if size and c}
    total = sum(buckets.values()) or 1
    mean = sum(int(size) * count for size, count in buckets.items()) / total
    idle = [arm for arm in (BASE, OTHER, TWIN) if arm != cell.arm]
    cpu = {"gateway": {"cores": 0.05 + n / plan.seconds * 7e-5, "rss_bytes": 118 << 20},
           "generator": {"cores": 0.05 + n / plan.seconds * 5e-5, "rss_bytes": 96 << 20},
           f"arm {cell.arm}": {"cores": 0.3 + 0.65 * cell.level, "rss_bytes": (690 if cell.arm == OTHER else 910) << 20},
           **{f"arm {arm}": {"cores": 0.004, "rss_bytes": 640 << 20} for arm in idle}}  # fmt: skip
    return {
        "id": cell.id, "replicate": cell.replicate, "order": cell.order, "arm": cell.arm, "path": cell.path,
        "protocol": cell.protocol, "mode": "open loop" if cell.load["rate"] else "closed loop", "load": cell.load,
        "n": n, "errors": int((~good).sum()), "late": late, "dropped": dropped,
        "wrong": int((told["correct"] == 0).sum()), "judged": int((told["correct"] >= 0).sum()),
        "offered": n / plan.seconds, "achieved": (n - dropped) / plan.seconds, "goodput": int(good.sum()) / plan.seconds,
        "service_ms": quantiles(service), "intended_ms": quantiles(intended),
        **{f"{name}_ms": quantiles(told[f"{name}_ns"][told[f"{name}_ns"] >= 0] / 1e6)
           for name in ("upstream", "gateway", "codec", "queue")},
        "batches": {"source": "told with each answer" if cell.arm != OTHER else "server's counters over the window",
                    "mean": mean, "buckets": buckets, "fill": mean / cell.batch if cell.batch > 1 else None},
        "cpu": cpu, "generator_us": 48.0 + 4 * rng.random(), "start_seconds": 6.0 + 2 * rng.random(),
        "discarded_s": 2.0, "drift": "p50 rose by 9% from the first third to the last" if rng.random() < 0.03 else None,
        "valid": not reasons, "reasons": reasons, "folder": f"blocks/{cell.id}",
    }  # fmt: skip


def write_requests(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """requests.parquet of one block."""
    names = np.array(["", "dropped", "http 503", "timeout"], dtype=object)
    kinds = {"status": np.int16, "rows": np.int32, "correct": np.int8, "batch_size": np.int32}
    arrays: dict[str, Any] = {
        name: Array(names[values].tolist(), type=DataType.utf8())
        if name == "error"
        else Array(np.ascontiguousarray(values.astype(kinds.get(name, np.int64))))
        for name, values in columns.items()
    }
    write_parquet(Table.from_pydict(arrays), str(path))


def _value_of(field: str, name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda block_: block_[field][name].get("value") if name else block_[field]


def _pairs(blocks: list[dict[str, Any]], arm: str, key: tuple[str, str], which: tuple[str, str]) -> list[list[Any]]:
    protocol, load = key
    field, name = which
    by: dict[tuple[int, str], dict[str, Any]] = {
        (b["replicate"], b["arm"]): b for b in blocks if b["protocol"] == protocol and load_name(b) == load
    }
    found = []
    for replicate in sorted({start for start, _ in by}):
        a, b = by.get((replicate, BASE)), by.get((replicate, arm))
        if a and b:
            first = "AB" if a["order"] < b["order"] else "BA"
            value = _value_of(field, name)
            found.append([value(a), value(b), first])
    return found


def load_name(block_: dict[str, Any]) -> str:
    """A load in words."""
    load = block_["load"]
    return f"closed loop, {load['concurrency']} at a time" if load["concurrency"] else f"open loop, {load['rate']:g}/s"


def _paired(pairs: list[list[Any]]) -> Paired | NotComputable:
    if any(None in pair for pair in pairs):
        return NotComputable("a start has too few requests for this quantile")
    return paired_ratio([Pair(order, a, b) for a, b, order in pairs])


def comparisons(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """COMPARISONs of the contract over all protocols, loads and two metrics."""
    found, margin = [], Margin(0.05)
    keys = sorted({(b["protocol"], load_name(b)) for b in blocks}, key=str)
    for metric, which, lower in (("p99 latency", ("intended_ms", "p99"), True), ("p50 latency", ("intended_ms", "p50"), True),
                                 ("throughput", ("achieved", ""), False)):  # fmt: skip
        for key in keys:
            if metric == "throughput" and key[1].startswith("open"):
                continue
            first = metric == "p99 latency" and key == ("tfs-grpc", "closed loop, 8 at a time")
            base = {"metric": metric, "unit": "ratio", "lower_is_better": lower, "baseline": BASE, "arm": OTHER,
                    "path": "gateway", "primary": first, "p_holm": None,
                    "protocol": key[0], "load": key[1]}  # fmt: skip
            pairs = _pairs(blocks, OTHER, key, which)
            result, twin = _paired(pairs), _paired(_pairs(blocks, TWIN, key, which))
            if isinstance(result, NotComputable):
                found.append({**base, "missing": result.reason})
                continue
            check = twin if isinstance(twin, NotComputable) else bias_check(twin.interval, margin)
            decision = judge(check, decide_effect(result.effect, margin, lower_is_better=lower))
            aa: dict[str, Any] = {"missing": check.reason} if isinstance(check, NotComputable) else {
                "value": twin.value if isinstance(twin, Paired) else 1.0, "low": check.interval.low, "high": check.interval.high,
                "unbiased": check.unbiased, "resolves": check.resolves, "reason": check.reason}  # fmt: skip
            order = None if isinstance(result.order, NotComputable) else {
                "value": result.order.value, "low": result.order.interval.low, "high": result.order.interval.high,
                "p": result.order.p_value, "found": result.order.found}  # fmt: skip
            found.append({**base, "n": len(pairs), "value": result.value, "low": result.interval.low,
                          "high": result.interval.high, "confidence": 0.95, "p": result.p_value, "margin": 0.05,
                          "pairs": pairs, "order_effect": order, "aa": aa, "verdict": str(decision.verdict),
                          "reason": decision.reason})  # fmt: skip
    return found


def _verdict(plan: Plan, blocks: list[dict[str, Any]], compared: list[dict[str, Any]]) -> dict[str, Any]:
    invalid = [f"{b['id']}: {r}" for b in blocks for r in b["reasons"]]
    first: dict[str, Any] = next((c for c in compared if c["primary"] and "value" in c), {})
    code = 2 if plan.scenario == "cut" or invalid or not first or first["verdict"] in ("INVALID", "cannot tell") else 0
    text = (
        f"{OTHER}'s {first['metric']} is {first['value']:.3f} times {BASE}'s ({first['low']:.3f} to {first['high']:.3f}; "
        f"{first['n']} pairs of starts, {first['protocol']}, {first['load']}): {first['verdict']}."
        if first
        else "No comparison: " + (compared[0]["missing"] if compared else "the run did not compare anything") + "."
    )
    return {"text": text, "code": code, "valid": not invalid and plan.scenario != "cut",
            "reasons": invalid or (["interrupted"] if plan.scenario == "cut" else [])}  # fmt: skip


def write(out: Path, plan: Plan) -> Path:
    """Write the run directory `out` and return it; equal plans write equal data."""
    rng = np.random.default_rng(plan.seed)
    planned = cells(plan)
    weights = np.array([c.load["rate"] or 150.0 * min(8, c.load["concurrency"]) for c in planned])
    blocks = []
    for cell, share in zip(planned, weights / weights.sum(), strict=True):
        n = 400 if plan.scenario == "thin" else max(50, round(plan.rows * share))
        if cell.load["concurrency"]:
            n = round(n * float(np.exp(rng.normal(0, 0.02))) / (1.0 if cell.arm != OTHER else 0.93))
        columns = draw(plan, cell, n, rng)
        folder, start = out / "blocks" / cell.id, START_NS + int(cell.at_s * 1e9) + 2 * 10**9
        folder.mkdir(parents=True, exist_ok=True)
        window = {"warmup_start_ns": start - 2 * 10**9, "start_ns": start, "end_ns": start + int(plan.seconds * 1e9)}
        (folder / "point.json").write_text(json.dumps(window), encoding="utf-8")
        write_requests(out / "blocks" / cell.id / "requests.parquet", columns)
        blocks.append(block(plan, cell, columns, rng))
    compared = comparisons(blocks) if plan.kind in ("comparison", "claims") and plan.scenario != "cut" else []
    document = {
        "format": 1, "generated": True, "kind": plan.kind, "run_id": f"generated-{plan.kind}-{plan.scenario}-{plan.seed}",
        "started": "2025-10-09T08:53:20+00:00", "seconds": planned[-1].at_s + 14.0, "complete": plan.scenario != "cut",
        "question": "Is digits served faster by TensorFlow Serving than by TorchServe, on this machine's CPU?",
        "verdict": _verdict(plan, blocks, compared),
        "plan": {"profile": "generated", "margin": 0.05, "primary_metric": "p99 latency", "alpha": 0.05,
                 "seeds": {"order": plan.seed, "arrivals": plan.seed + 1, "payloads": plan.seed + 2}, "starts": plan.starts,
                 "written": "2025-10-09T08:53:19+00:00"},
        "machine": {"cpu": "generated", "cores": 2, "memory_bytes": 8 << 30, "os": "generated", "python": "3.11"},
        "versions": {"abgate": "0.1.0", "grpcio": "1.85.1", "torchserve": "0.12.0", "tensorflow": "2.21.0"},
        "model": {"name": "digits", "manifest": {"format": 1, "model": "digits", "ok": True, "failures": []}},
        "arms": {name: arm(name, plan) for name in (BASE, OTHER, TWIN) if name in {c.arm for c in planned}},
        "blocks": blocks, "comparisons": compared,
        "results": lab_results.results(plan, blocks, compared),
        "not_tested": ["A network: client, gateway and servers talked over loopback.", "Models other than digits."],
    }  # fmt: skip
    (out / "lab.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return out


def arm(name: str, plan: Plan) -> dict[str, Any]:
    """An arm's facts."""
    tensorflow = name.startswith(OTHER)
    implementation = "TensorFlow Serving 2.21.0" if tensorflow else "TorchServe 0.12.0"
    if tensorflow and plan.stand_in:
        implementation = "abgate embedded stand-in (TensorFlow 2.21.0)"
    return {
        "kind": "tensorflow_serving" if tensorflow else "torchserve", "variant": "savedmodel" if tensorflow else "torchscript",
        "implementation": implementation, "stand_in": tensorflow and plan.stand_in, "threads": 1, "workers": 1, "cores": [0],
        "max_batch": 1, "wait_ms": 0.0, "path": f"model_store/artifacts/digits/{name}", "digest": "sha256:" + 8 * "0123abcd",
        "wire": {"tfs-rest": "tfs-rest" if tensorflow else "torchserve-http oip-binary",
                 "tfs-grpc": "tfs-grpc" if tensorflow else "torchserve-grpc oip-binary"},
        "role": {BASE: "baseline", TWIN: "A/A"}.get(name, "arm"),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="write a generated lab run directory (nothing in it is measured)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="comparison")
    parser.add_argument("--rows", type=int, default=120_000, help="requests of all blocks together")
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS, default="calm")
    parser.add_argument("--stand-in", action="store_true", help="TensorFlow's side is the stand-in")
    given = parser.parse_args()
    plan = Plan(given.kind, given.rows, given.starts, given.seed, given.scenario, stand_in=given.stand_in)
    print(write(given.out, plan))


if __name__ == "__main__":
    main()
