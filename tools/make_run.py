"""Write a GENERATED run directory: seeded, shaped like a load test's, for tests of the report and for timing it.

    python tools/make_run.py OUT [--rows N] [--seconds S] [--seed K] [--scenario NAME] [--real]

Nothing in it was measured. run.json says so ("generated": true), and the report then prints a banner. Scenarios:
calm, backend_dies, wrong_answers, skewed_split, ramp,
killed (no end of the window, no records, no scrapes), no_parity, tiny (60 requests).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet
from numpy.typing import NDArray

SCENARIOS = ("calm", "backend_dies", "wrong_answers", "skewed_split", "ramp", "killed", "no_parity", "tiny")
ARMS = ("torchserve", "tfserving")
START_NS = 1_760_000_000_000_000_000
BOUNDS = [2**i for i in range(14)]


@dataclass(frozen=True)
class Plan:
    """What to generate: measured requests, seconds of the window, and what goes wrong."""

    rows: int = 20_000
    seconds: float = 20.0
    warmup: float = 2.0
    seed: int = 1
    scenario: str = "calm"
    stand_in: bool = True
    population: int = 10_000


@dataclass(frozen=True)
class Requests:
    """Columns of the generated requests, each of shape [n], in order of time."""

    send_ns: NDArray[np.int64]
    unit: NDArray[np.int64]
    arm: NDArray[np.int64]
    phase: NDArray[np.int64]
    grpc: NDArray[np.bool_]
    upstream_ns: NDArray[np.int64]
    gateway_ns: NDArray[np.int64]
    codec_ns: NDArray[np.int64]
    client_ns: NDArray[np.int64]
    batch: NDArray[np.int64]
    queue_ns: NDArray[np.int64]
    failed: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    judged: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Number of requests, warm-up included."""
        return int(self.send_ns.size)


def draw(plan: Plan) -> Requests:
    """Draw all requests of a plan; equal plans give equal requests."""
    rng = np.random.default_rng(plan.seed)
    span = plan.warmup + plan.seconds
    n = round((60 if plan.scenario == "tiny" else plan.rows) * span / plan.seconds)
    offset = np.sort(rng.random(n)) * span
    unit = rng.integers(0, plan.population, n)
    draws, drifts = rng.random(plan.population), rng.normal(0, 0.25, plan.population)
    ramped = (offset > plan.warmup + plan.seconds / 2) & (plan.scenario == "ramp")
    share = np.where(ramped, 0.5, {"ramp": 0.9}.get(plan.scenario, 0.5))
    arm = (draws[unit] >= (0.56 if plan.scenario == "skewed_split" else share)).astype(np.int64)
    batch = _batches(rng, arm)
    base = np.where(arm == 0, 2.1e6, 1.5e6)
    upstream = base * np.exp(drifts[unit] + rng.normal(0, 0.35, n)) + batch * 0.12e6
    pauses = rng.random(n) < 0.004
    upstream[pauses] += rng.exponential(12e6, int(pauses.sum()))
    dead = (
        (plan.scenario == "backend_dies")
        & (arm == 0)
        & (offset > plan.warmup + 0.45 * plan.seconds)
        & (offset < plan.warmup + 0.6 * plan.seconds)
    )
    upstream[dead] = rng.exponential(0.3e6, int(dead.sum()))
    missed = rng.random(n) < np.where((arm == 1) & (plan.scenario == "wrong_answers"), 0.3, 0.013)
    return Requests(
        send_ns=START_NS + (offset * 1e9).astype(np.int64),
        unit=unit,
        arm=arm,
        phase=np.where(ramped, 2, 1),
        grpc=rng.random(n) < 0.5,
        upstream_ns=upstream.astype(np.int64),
        gateway_ns=(1.3e5 * np.exp(rng.normal(0, 0.3, n))).astype(np.int64),
        codec_ns=(np.where(arm == 0, 6e4, 1e4) * np.exp(rng.normal(0, 0.2, n))).astype(np.int64),
        client_ns=(2.5e5 * np.exp(rng.normal(0, 0.5, n))).astype(np.int64),
        batch=batch,
        queue_ns=(rng.exponential(0.6e6, n)).astype(np.int64),
        failed=dead | (rng.random(n) < 2e-5),
        correct=~missed,
        judged=np.arange(n) % (1 if plan.rows < 500_000 else 4) == 0,
    )


def _batches(rng: np.random.Generator, arm: NDArray[np.int64]) -> NDArray[np.int64]:
    """Requests per batch as each request saw it (a batch of 4 is seen by 4 requests)."""
    sizes = np.array([1, 2, 3, 4, 5, 6, 8])
    weights = sizes * np.array([0.55, 0.22, 0.1, 0.06, 0.04, 0.02, 0.01])
    return rng.choice(sizes, arm.size, p=weights / weights.sum()).astype(np.int64)


def _strings(values: list[str]) -> Array:
    return Array(values, type=DataType.utf8())


def _codes(names: tuple[str, ...], index: NDArray[np.int64]) -> Array:
    return _strings(np.array(names, dtype=object)[index].tolist())


def ledger_table(requests: Requests, plan: Plan) -> Table:
    """The generator's ledger: one row a request, columns as the run directory's contract has them."""
    r = requests
    latency = r.upstream_ns + r.gateway_ns + r.codec_ns + r.client_ns
    told = (r.judged & ~r.failed).tolist()
    correct = [right if judged else None for right, judged in zip(r.correct.tolist(), told, strict=True)]
    return Table.from_pydict(
        {
            "send_ns": Array(r.send_ns),
            "latency_ns": Array(latency),
            "protocol": _codes(("tfs-rest", "tfs-grpc"), r.grpc.astype(np.int64)),
            "unit": _strings([f"u{value}" for value in r.unit.tolist()]),
            "arm": _codes(ARMS, r.arm),
            "assignment": _codes(("sticky",), np.zeros(r.n, dtype=np.int64)),
            "request_id": _strings([f"{plan.seed:04x}-{i:08x}" for i in range(r.n)]),
            "status": Array(np.where(r.failed, np.where(r.grpc, 14, 502), np.where(r.grpc, 0, 200)).astype(np.int32)),
            "error": _codes(("", "upstream_refused"), r.failed.astype(np.int64)),
            "rows": Array(np.ones(r.n, dtype=np.int32)),
            "correct": Array(correct, type=DataType.bool()),
            "warmup": Array((r.send_ns < START_NS + int(plan.warmup * 1e9)).tolist(), type=DataType.bool()),
        }
    )


def records_table(requests: Requests, plan: Plan, implementations: tuple[str, str]) -> Table:
    """The gateway's records of the same requests. TorchServe tells its batch, the TensorFlow side does not."""
    r = requests
    zero = np.zeros(r.n, dtype=np.int64)
    told = (r.arm == 0) & ~r.failed
    units = [hashlib.sha256(f"{plan.seed}.{u}".encode()).hexdigest()[:16] for u in range(plan.population)]
    out = 2 * (1 - r.arm) + r.grpc
    return Table.from_pydict(
        {
            "time_ns": Array(r.send_ns + r.client_ns // 2),
            "request_id": _strings([f"{plan.seed:04x}-{i:08x}" for i in range(r.n)]),
            "experiment": _codes(("digits-servers",), zero),
            "phase": Array(r.phase.astype(np.int32)),
            "assigned_arm": _codes(ARMS, r.arm),
            "served_arm": _codes(ARMS, r.arm),
            "assignment": _codes(("sticky",), zero),
            "unit_hash": _codes(tuple(units), r.unit),
            "protocol_in": _codes(("tfs-rest", "tfs-grpc"), r.grpc.astype(np.int64)),
            "protocol_out": _codes(("tfs-rest", "tfs-grpc", "torchserve-http", "torchserve-grpc"), out),
            "model": _codes(("digits",), zero),
            "version": _codes(("1",), zero),
            "implementation": _codes(implementations, r.arm),
            "status": Array(np.where(r.failed, np.where(r.grpc, 14, 502), np.where(r.grpc, 0, 200)).astype(np.int32)),
            "error_kind": _codes(("", "upstream_refused"), r.failed.astype(np.int64)),
            "rows": Array(np.ones(r.n, dtype=np.int32)),
            "bytes_in": Array(np.full(r.n, 420)),
            "bytes_out": Array(np.full(r.n, 180)),
            "gateway_ns": Array(r.gateway_ns),
            "codec_ns": Array(r.codec_ns),
            "upstream_ns": Array(r.upstream_ns),
            "loop_lag_ns": Array(r.gateway_ns // 3),
            "batch_size": Array(np.where(told, r.batch, -1).astype(np.int32)),
            "batch_rows": Array(np.where(told, r.batch, -1).astype(np.int32)),
            "queue_ns": Array(np.where(told, r.queue_ns, -1)),
        }
    )


def _histogram(name: str, counts: NDArray[np.float64], total: float, label: str = "") -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    head = f"{label}," if label else ""
    for bound, below in zip([*map(str, BOUNDS), "+Inf"], np.cumsum(counts).tolist(), strict=True):
        lines.append(f'{name}_bucket{{{head}le="{bound}"}} {below:g}')
    return [*lines, f"{name}_sum{{{label}}} {total:.12g}", f"{name}_count{{{label}}} {counts.sum():g}"]


def scrape_texts(requests: Requests, measured: NDArray[np.bool_]) -> dict[str, tuple[str, str]]:
    """Before and after scrapes of both servers: TF Serving's batching histograms, our handler's counters."""
    sizes = requests.batch[(requests.arm == 1) & measured]
    counts = np.zeros(len(BOUNDS) + 1)
    padded = 0.0
    for size in np.unique(sizes):
        batches = np.round((sizes == size).sum() / size)
        allowed = next(b for b in (1, 2, 4, 8, 16) if b >= size)
        counts[BOUNDS.index(allowed)] += batches
        padded += batches * (allowed - size)
    total = float((counts[:-1] * np.array(BOUNDS)).sum())
    prefix = ":tensorflow:serving:batching_session:"
    after = [
        *_histogram(f"{prefix}processed_batch_size", counts + 3, total + 12),
        *_histogram(f"{prefix}padding_size", np.r_[padded, np.zeros(14)], padded, 'execution_batch_size="4"'),
        f"# TYPE {prefix}queuing_latency histogram",
        f'{prefix}queuing_latency_sum{{thread_pool_name="x"}} {len(sizes) * 410.0:.12g}',
        f'{prefix}queuing_latency_count{{thread_pool_name="x"}} {len(sizes)}',
    ]
    before = _histogram(f"{prefix}processed_batch_size", np.full(len(BOUNDS) + 1, 3.0), 12.0)
    torch = requests.batch[(requests.arm == 0) & measured]
    lines = []
    for bound in (1, 2, 4, 8, 16, 32, 64):
        below = sum(np.round((torch == s).sum() / s) for s in range(1, 9) if s <= bound)
        lines.append(f'abgate_batch_size_bucket{{ModelName="digits",ModelVersion="1.0",le="{bound}",}} {below:g}')
    batches = sum(np.round((torch == s).sum() / s) for s in range(1, 9))
    labels = 'ModelName="digits",ModelVersion="1.0",'
    lines += [
        f'abgate_batch_size_bucket{{{labels}le="+Inf",}} {batches:g}',
        f"abgate_batch_size_sum{{{labels}}} {torch.size}",
        f"abgate_batch_size_count{{{labels}}} {batches:g}",
        f"abgate_batch_rows_sum{{{labels}}} {torch.size}",
    ]
    return {
        "tfserving": ("\n".join(before) + "\n", "\n".join(after) + "\n"),
        "torchserve": ("", "\n".join(lines) + "\n"),
    }


def resources_table(plan: Plan) -> Table:
    """Cores and resident bytes of each process, one sample a second."""
    rng = np.random.default_rng(plan.seed + 1)
    roles = {"gateway": 0.35, "generator": 0.55, "backend:torchserve": 0.6, "backend:tfserving": 0.3}
    seconds = int(plan.warmup + plan.seconds)
    times = [START_NS + s * 10**9 for s in range(seconds) for _ in roles]
    return Table.from_pydict(
        {
            "time_ns": Array(np.array(times, dtype=np.int64)),
            "role": _strings(list(roles) * seconds),
            "cpu_cores": Array(np.array(list(roles.values()) * seconds) * rng.uniform(0.8, 1.2, len(times))),
            "rss_bytes": Array((np.array([90, 210, 820, 640] * seconds) * 2**20).astype(np.int64)),
        }
    )


def run_document(plan: Plan, implementations: tuple[str, str]) -> dict[str, Any]:
    """run.json of the plan."""
    start, end = START_NS + int(plan.warmup * 1e9), START_NS + int((plan.warmup + plan.seconds) * 1e9)
    profile = {
        "name": f"generated-{plan.scenario}", "model": "digits", "users": 8, "duration": plan.seconds,
        "warmup": plan.warmup, "mix": {"tfs-rest": 0.5, "tfs-grpc": 0.5}, "rows": [{"rows": 1, "weight": 1}],
        "rate": None, "check": {"kind": "label"}, "limits": {"errors": 0.01, "correct": None},
    }  # fmt: skip
    weights = {"ramp": [90, 10]}.get(plan.scenario, [50, 50])
    phases = [
        {"phase": 1, "from_ns": START_NS - 10**9, "weights": dict(zip(ARMS, weights, strict=True)), "killed": None}
    ]
    if plan.scenario == "ramp":
        middle = (start + end) // 2
        phases.append(
            {"phase": 2, "from_ns": middle, "weights": dict(zip(ARMS, [50, 50], strict=True)), "killed": None}
        )
    died = [
        {"time_ns": start + int((end - start) * 0.45), "what": "backend torchserve died (exit code 137)"},
        {"time_ns": start + int((end - start) * 0.6), "what": "backend torchserve is ready again"},
    ]
    wires = (
        {"tfs-rest": "torchserve-http oip-binary", "tfs-grpc": "torchserve-grpc oip-binary"},
        {"tfs-rest": "tfs-rest", "tfs-grpc": "tfs-grpc"},
    )
    arms = {
        name: {
            "backend": name, "kind": ("torchserve", "tensorflow_serving")[i], "implementation": implementations[i],
            "stand_in": plan.stand_in and i == 1, "cores": 2, "threads": 1, "workers": 1,
            "weight": weights[i], "wire": wires[i],
        }
        for i, name in enumerate(ARMS)
    }  # fmt: skip
    artefact = {"kind": "generated", "ok": True, "max_abs_diff": 3.1e-6, "argmax_agreement": 1.0, "versions": {},
                "export_path": "generated", "sha256": hashlib.sha256(b"generated").hexdigest()}  # fmt: skip
    return {
        "format": 1, "generated": True, "run_id": f"generated-{plan.scenario}-{plan.seed}", "kind": "live split",
        "profile": profile, "profile_sha256": hashlib.sha256(json.dumps(profile).encode()).hexdigest(),
        "seed": plan.seed,
        "window": {"warmup_start_ns": START_NS, "start_ns": start, "end_ns": end},
        "machine": {"cpu": "generated", "cores": 2, "memory_bytes": 8 << 30, "os": "generated", "python": "3.11"},
        "versions": {"abgate": "0.1.0", "locust": "2.47", "grpcio": "1.85.1"},
        "config_sha256": hashlib.sha256(b"generated").hexdigest(), "config": "# generated\n",
        "model": {"name": "digits", "manifest": {
            "format": 1, "model": "digits", "ok": plan.scenario != "no_parity", "failures": [], "inputs": {"rows": 1797},
            "reference": "generated", "tolerance": {"rtol": 1e-4, "atol": 1e-4},
            "artifacts": {"savedmodel": artefact, "torchserve": artefact}}},
        "arms": arms,
        "processes": [
            {"role": role, "pids": [1], "cpu_seconds": cores * plan.seconds, "mean_cores": cores, "max_rss_bytes": rss << 20}
            for role, cores, rss in (("gateway", 0.35, 92), ("generator", 0.55, 214), ("backend:torchserve", 0.6, 830),
                                     ("backend:tfserving", 0.3, 645))
        ],
        "scrapes": {n: {"before": f"scrapes/{n}-before.prom", "after": f"scrapes/{n}-after.prom"} for n in ARMS},
        "gateway": {"records_dropped": 0, "revision": 1, "phases": phases},
        "limits": {"generator_mean_cores": 0.55, "gateway_mean_cores": 0.35, "limited_by": []},
        "ledger": {"dropped": 0},
        "events": died if plan.scenario == "backend_dies" else [],
    }  # fmt: skip


def write(out: Path, plan: Plan) -> Path:
    """Write the run directory `out` and return it; equal plans write equal data."""
    if plan.scenario not in SCENARIOS:
        raise SystemExit(f"{plan.scenario}: no such scenario; one of {', '.join(SCENARIOS)}")
    implementations = ("TorchServe 0.12.0", "abgate embedded stand-in (TensorFlow 2.21.0)")
    if not plan.stand_in:
        implementations = ("TorchServe 0.12.0", "TensorFlow Serving 2.21.0")
    requests = draw(plan)
    for folder in ("ledger", "records", "scrapes"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    document = run_document(plan, implementations)
    write_parquet(ledger_table(requests, plan), str(out / "ledger" / "part-0.parquet"))
    if plan.scenario == "killed":
        document["window"]["end_ns"] = None
        del document["scrapes"], document["processes"], document["limits"]
    else:
        write_parquet(records_table(requests, plan, implementations), str(out / "records" / "part-0.parquet"))
        write_parquet(resources_table(plan), str(out / "resources.parquet"))
        for name, (before, after) in scrape_texts(requests, requests.send_ns >= document["window"]["start_ns"]).items():
            (out / "scrapes" / f"{name}-before.prom").write_text(before, encoding="utf-8")
            (out / "scrapes" / f"{name}-after.prom").write_text(after, encoding="utf-8")
    (out / "run.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="write a generated run directory (nothing in it is measured)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=20_000, help="requests in the measurement window")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS, default="calm")
    parser.add_argument("--real", action="store_true", help="no arm is a stand-in")
    given = parser.parse_args()
    plan = Plan(given.rows, given.seconds, seed=given.seed, scenario=given.scenario, stand_in=not given.real)
    print(write(given.out, plan))


if __name__ == "__main__":
    main()
