"""What of a request TorchServe spends in its Python worker outside the model: from counters, a client's times and a forward. PURE.

whole: the client's mean over the block. queue, server: TorchServe's own counters over the block, per request: time until a
worker took it, and time from its arrival to the worker's answer. worker = server - queue: front end to worker and back.
The share is (worker - forward) / whole, with the forward timed alone in another process of the same start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gateway.stats.effects import Effect, Scale
from gateway.stats.result import NotComputable
from loadtest.claims.answer import judge
from loadtest.claims.evaluate import Found
from loadtest.claims.table import Claim

SOURCES = {
    "whole_ms": "the client's mean service time in the block",
    "queue_ms": "ts_queue_latency_microseconds over ts_inference_requests_total",
    "worker_ms": "ts_inference_latency_microseconds over ts_inference_requests_total, less queue_ms",
    "forward_ms": "median of the TorchScript forward of one row in a process without a server",
}
_LINE = re.compile(r"^(\w+)(?:\{[^}]*\})?\s+([0-9.eE+-]+)\s*$", re.MULTILINE)


def counters(before: str, after: str) -> dict[str, float] | NotComputable:
    """queue_ms and worker_ms per request between two scrapes."""
    totals = [_sums(text) for text in (before, after)]

    def delta(name: str) -> float:
        return totals[1].get(name, 0.0) - totals[0].get(name, 0.0)

    n = delta("ts_inference_requests_total")
    if n < 1 or delta("ts_inference_latency_microseconds") <= 0:
        return NotComputable("TorchServe's counters did not move: its times are told of HTTP requests only")
    queue = delta("ts_queue_latency_microseconds") / n / 1000
    return {"queue_ms": queue, "worker_ms": delta("ts_inference_latency_microseconds") / n / 1000 - queue, "n": n}


def _sums(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, number in _LINE.findall(text):
        found[name] = found.get(name, 0.0) + float(number)
    return found


def unlike(worker_ms: float, forward_ms: float) -> str:
    """Why a forward is not of its start: alone it cannot take much longer than within the worker; "" where it does not."""
    if forward_ms <= 1.1 * worker_ms:
        return ""
    return (
        f"the model's forward alone took {forward_ms:.3g} ms, the worker with it {worker_ms:.3g} ms: they were not timed under "
        "the same conditions"
    )


def share(start: Mapping[str, Any]) -> float:
    """The worker's share of one start."""
    return float((start["worker_ms"] - start["forward_ms"]) / start["whole_ms"])


def found(claim: Claim, starts: Sequence[Mapping[str, Any]], blocks: Sequence[str], gone: Sequence[str] = ()) -> Found:
    """The mean share over starts with Student's t interval, against the claim's rule.

    gone: why starts have no figure; one is enough, as leaving out the starts that failed would choose.
    """
    values = np.array([share(start) for start in starts])
    effect: Effect | NotComputable
    if gone:
        effect = NotComputable(f"{len(gone)} of {len(gone) + len(values)} starts have no figure; {gone[0]}")
    elif len(values) < 3 or float(values.std()) == 0.0:
        effect = NotComputable(f"{len(values)} starts with all figures, at least 3 that differ are needed")
    else:
        n = len(values)
        error = float(values.std(ddof=1)) / math.sqrt(n)
        effect = Effect(float(values.mean()), error, n - 1, n, Scale.DIFFERENCE)
    label = f"{claim.model}, one: worker outside the model / whole request"
    return Found(label, "share", effect, judge(effect, claim.rule, claim.bound), (), blocks)
