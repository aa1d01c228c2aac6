"""Recordings and BLOCK dictionaries for the lab's tests, made of literals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from loadtest.lab.recording import BlockPlan, Recording
from loadtest.lab.spec import ArmSpec, RunningArm
from loadtest.points.spec import Load, PointResult, PointSpec, Requests
from loadtest.targets import Target

TARGET = Target("gateway", "127.0.0.1:1", "127.0.0.1:2")
START = 1_000_000_000_000


def arm(name: str = "a", kind: Any = "torchserve", **given: Any) -> ArmSpec:
    return ArmSpec(name, kind, "m", "v", Path("/nowhere"), **given)


def running_arm(spec: ArmSpec) -> RunningArm:
    return RunningArm(spec, 1, "a server", False, TARGET, None, None)


def requests(seconds: Any, latency_ms: Any, **changed: Any) -> Requests:
    """Requests due (and sent) at seconds after START, answered after latency_ms."""
    due = START + np.round(np.asarray(seconds, float) * 1e9).astype(np.int64)
    n = due.size
    none = np.full(n, -1, np.int64)
    columns: dict[str, Any] = {
        "due_ns": due,
        "sent_ns": due.copy(),
        "done_ns": due + np.round(np.broadcast_to(np.asarray(latency_ms, float), n) * 1e6).astype(np.int64),
        "status": np.full(n, 200, np.int16),
        "error": np.full(n, "", object),
        "rows": np.ones(n, np.int32),
        "correct": np.full(n, -1, np.int8),
        "upstream_ns": none,
        "gateway_ns": none,
        "codec_ns": none,
        "batch_size": np.full(n, -1, np.int32),
        "queue_ns": none,
    }
    return Requests(**(columns | changed))


def recording(
    load: Load, found: Requests | None, name: str = "a", slack: float = 1.0, resources: Any = (), **given: Any
) -> Recording:
    plan = BlockPlan(load, Path("inputs.npz"), id=f"b-{name}", slack=slack, name="load")
    spec = PointSpec(TARGET, "tfs-rest", "m", load, Path("inputs.npz"))
    n = 0 if found is None else found.due_ns.size
    result = PointResult(Path(), spec, START, START, START, 1, 0.2, 2.0, n, n, 0, 0, n, 0, 1.0, 1.0)
    running = running_arm(arm(name))
    return Recording(plan, running, Path(), None if found is None else result, found, resources, None, 3.0, **given)


def block(arm_name: str, replicate: int, order: int, p50: float, **changed: Any) -> dict[str, Any]:
    """A BLOCK of a closed load "c1" whose latencies are multiples of p50 (ms) and whose throughput is 1000/p50."""
    told = {level: {"value": p50 * times, "low": None, "high": None} for level, times in
            (("p50", 1.0), ("p95", 2.0), ("p99", 3.0))}  # fmt: skip
    base: dict[str, Any] = {
        "id": f"{replicate}-{order}-{arm_name}",
        "replicate": replicate,
        "order": order,
        "name": "c1",
        "arm": arm_name,
        "path": "gateway",
        "protocol": "tfs-rest",
        "mode": "closed loop",
        "load": {"concurrency": 1, "rate": None, "arrivals": None, "duration": 1.0, "warmup": 0.0},
        "n": 1000,
        "errors": 0,
        "dropped": 0,
        "goodput": 1000.0 / p50,
        "service_ms": told,
        "intended_ms": told,
        "upstream_ms": None,
        "cpu": {f"arm {arm_name}": {"cores": 0.5, "rss_bytes": 10**8}},
        "cpu_us": 500.0 * p50,
        "valid": True,
        "reasons": [],
        "capacity": {"valid": True, "reasons": []},
    }
    return base | changed
