"""The words of the lab: arms, stands, blocks, and the document an experiment leaves. PURE.

Lives here: values and protocols that every experiment shares. Nothing here starts a process, sends a request or judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from loadtest.targets import Target

Kind = Literal["torchserve", "tensorflow_serving"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a server may use: cores (None: all), threads per worker, workers."""

    threads: int = 1
    workers: int = 1
    cores: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class BatchRule:
    """Rows (one row a request) and the longest wait in milliseconds; max_batch 1 is no batching."""

    max_batch: int = 1
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """One arm of an experiment: a server of its own that serves one variant of one model.

    path: TorchServe's model folder or TF Serving's base path. variant: its name in model_store ("torchscript",
    "savedmodel", "onnx", ...). transport None: the client's. two arms may be equal but for the name (A/A).
    """

    name: str
    kind: Kind
    model: str
    variant: str
    path: Path
    resources: Resources = Resources()
    batch: BatchRule = BatchRule()
    transport: Literal["http", "grpc"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[tuple[str, Path], ...] = ()  # further models the same server holds, (name, path)
    digest: str = ""  # one sha256 over the files at path, as recorded when they were made
    near: bool = False  # its proof allows outputs that are only near the reference's (int8)


@dataclass(frozen=True)
class RunningArm:
    """One arm's server as it runs now. direct: the target that reaches it without the gateway."""

    spec: ArmSpec
    pid: int
    implementation: str
    stand_in: bool
    direct: Target
    management: str | None
    metrics: str | None  # host:port/path of its Prometheus text


class Running(Protocol):
    """A stand's processes while they run: fresh servers, and a gateway in front that has all arms of one model."""

    @property
    def gateway(self) -> Target:
        """Where the gateway listens."""
        ...

    @property
    def gateway_pid(self) -> int: ...

    @property
    def arms(self) -> Mapping[str, RunningArm]: ...

    @property
    def started_seconds(self) -> Mapping[str, float]:
        """How long each server took from its start to ready."""
        ...

    @property
    def wire(self) -> Mapping[str, Mapping[str, str]]:
        """arm -> client protocol -> the wire format the gateway speaks to that arm."""
        ...

    def roots(self) -> Mapping[str, Sequence[int]]:
        """role -> pids, for loadtest.resources.Sampler: "gateway" and "arm NAME"."""
        ...


class Stand(Protocol):
    """Starts fresh server processes and a gateway in front of them; the context's end leaves no process."""

    def up(self, arms: Sequence[ArmSpec], folder: Path) -> AbstractContextManager[Running]:
        """Ready when entered. folder: for configuration, logs and temporary files of this start. Raises StandError."""
        ...


class StandError(RuntimeError):
    """A server or the gateway did not become ready; the text holds the reason and the end of its log."""


# The document of an experiment: `lab.json` in its run directory (.abgate/runs/<run_id>/lab.json); raw data of block N in
# blocks/<id>/ (point.json, requests.parquet, resources.parquet, scrapes). Reports are made from it by gateway.reports.
#
# {
#   "format": 1,
#   "kind": "comparison" | "slo" | "sweep" | "batching" | "claims" | "aa",
#   "run_id": str, "started": ISO 8601, "seconds": float, "complete": bool,
#   "question": str,                      # in a user's words
#   "verdict": {"text": str, "code": 0|1|2, "valid": bool, "reasons": [str]},
#   "plan": {...},                        # what was written down before the run: profile, margin, primary metric, alpha, seeds
#   "machine": {...}, "versions": {...},  # loadtest.runfile.machine(), versions()
#   "model": {"name": str, "manifest": {...}},
#   "arms": {name: {"kind", "variant", "implementation", "stand_in", "threads", "workers", "cores", "max_batch",
#                   "wait_ms", "path", "digest", "wire": {protocol: wire}, "role": "baseline"|"arm"|"A/A"}},
#   "blocks": [BLOCK, ...],
#   "primed": {start: {arm: {"seconds": s, "settled": bool, "cost_ms": [f], "compiling_cores": [f], "failed": str|null}}},
#                                         # first requests, by round: the server's CPU time an answer, its compilers' cores
#   "comparisons": [COMPARISON, ...],
#   "results": {...},                     # what the kind needs beside that: curves, capacities, grid, claims
#   "not_tested": [str]
# }
#
# BLOCK = {
#   "id": str, "replicate": int, "order": int,   # order: place within the start, from 0
#   "arm": str, "path": "gateway"|"direct", "protocol": str, "mode": "closed loop"|"open loop",
#   "load": {"concurrency": int|null, "rate": float|null, "arrivals": str|null, "duration": s, "warmup": s},
#   "n": int, "errors": int, "late": int, "dropped": int, "wrong": int, "judged": int,
#   "offered": /s, "achieved": /s, "goodput": /s,
#   "goodput_bounds": {"low": f, "high": f}|{"missing": reason}|null,     # of this window of this start
#   "service_ms": QUANTILES, "intended_ms": QUANTILES, "upstream_ms": QUANTILES|null,
#   "gateway_ms": QUANTILES|null, "codec_ms": QUANTILES|null, "queue_ms": QUANTILES|null,
#   "batches": {"source": str, "mean": float, "buckets": {"1": n, ...}, "fill": float|null}|null,
#   "cpu": {role: {"cores": float, "rss_bytes": int}}, "generator_us": float, "start_seconds": float|null,
#   "discarded_s": float, "drift": str|null, "valid": bool, "reasons": [str], "folder": "blocks/<id>",
#   "name": str, "notes": [str],                       # the load's name in the plan; findings that stop nothing
#   "wire": str,                                       # what the arm's server is spoken to in ("protocol" is the client's)
#   "others_cores": float|null,                        # what processes used that are none of the lab's
#   "cpu_us": float|null,                              # the arm's server: CPU microseconds a request
#   "server": {...},                                   # what else its counters tell (padding, queue mean)
#   "capacity": {"valid": bool, "reasons": [str]}      # may its achieved rate be called a capacity?
# }
# QUANTILES = {"n": int, "mean": f, "sd": f, "max": f, "p50": Q, "p90": Q, "p95": Q, "p99": Q, "p999": Q}
# Q = {"value": f, "low": f|null, "high": f|null} or {"missing": reason} (with "point": f where only dependence forbids it)
# COMPARISON = {
#   "metric": str, "unit": "ratio"|"difference", "lower_is_better": bool, "baseline": str, "arm": str, "protocol": str,
#   "load": str, "n": pairs, "value": f, "low": f, "high": f, "confidence": .95, "p": f, "margin": f,
#   "pairs": [[a, b, "AB"|"BA"], ...], "order_effect": {...}|null,
#   "aa": {"value", "low", "high", "unbiased": bool, "resolves": bool, "reason": str}|{"missing": reason},
#   "verdict": "A better"|"B better"|"no difference beyond the margin"|"cannot tell"|"INVALID"|"no verdict: stand-in",
#   "reason": str, "path": "gateway"|"direct", "primary": bool, "p_holm": f|null
# }  (or {"metric", "baseline", "arm", ..., "missing": reason})
