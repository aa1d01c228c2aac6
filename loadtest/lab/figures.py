"""Numbers of one block from its arrays: quantiles with bounds, use of the machine in a window, batches. PURE.

Lives here: what turns raw rows into the QUANTILES, "cpu" and "batches" of lab/spec.py. Which rows belong to the window is
cut.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.reports.batches import from_scrapes
from gateway.reports.prometheus_text import counter_delta, parse
from gateway.stats.blocks import Resampling, dependent_quantile
from gateway.stats.effects import Effect, Scale
from gateway.stats.quantiles import sample_floor
from gateway.stats.result import Interval, NotComputable

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
PARTS = 6
"""Of a window, whose rates tell how much its rate may have been chance."""

REPLICATES = 500
"""Of the block bootstrap: it only finds a variance, which 500 tell within 6%."""


def quantiles(values: NDArray[np.float64], bounds: bool = True) -> dict[str, Any]:
    """QUANTILES of latencies in send order, shape [n]; +inf: no good answer. bounds False: points alone (fast).

    A quantile below its floor is missing. Where only the dependence between requests puts it there, "point" holds the order
    statistic: no claim about this block, but a fine value for pairs of starts.
    """
    finite = values[np.isfinite(values)]
    told: dict[str, Any] = {"n": int(values.size)}
    if not finite.size:
        reason = "no request was answered" if values.size else "no requests"
        return told | {"mean": None, "sd": None, "max": None, **{name: {"missing": reason} for name in LEVELS}}
    told |= {"mean": float(finite.mean()), "sd": float(finite.std(ddof=1)) if finite.size > 1 else None}
    told["max"] = float(finite.max())
    ordered = np.sort(values)
    for name, q in LEVELS.items():
        told[name] = _quantile(values, ordered, q, bounds)
    return told


def _quantile(values: NDArray[np.float64], ordered: NDArray[np.float64], q: float, bounds: bool) -> dict[str, Any]:
    n, floor = int(values.size), sample_floor(q)
    if n < floor:
        return {"missing": f"{n} samples, p{100 * q:g} needs {floor}"}
    point = float(ordered[min(n - 1, math.ceil(q * n - 1e-9) - 1)])
    if math.isinf(point):
        return {"missing": f"more than {100 * (1 - q):.3g}% of the requests got no good answer"}
    if not bounds:
        return {"value": point, "low": None, "high": None}
    found = dependent_quantile(values, q, Resampling(replicates=REPLICATES))
    if isinstance(found, NotComputable):
        return {"missing": found.reason, "point": point}
    interval = found.interval
    if isinstance(interval, Interval):
        return {"value": found.value, "low": interval.low, "high": interval.high}
    return {"value": found.value, "low": None, "high": None, "why": interval.reason}


def rate_bounds(done_ns: NDArray[np.int64], start_ns: int, end_ns: int) -> dict[str, Any]:
    """{"low", "high"} of the answers a second in a window, 95% by Student's t over PARTS equal parts of it; or {"missing"}.

    done_ns: when each good answer came, shape [n]. Holds for this window of this start; another start may differ by more.
    """
    inside = done_ns[(done_ns >= start_ns) & (done_ns < end_ns)]
    if inside.size < 5 * PARTS:
        return {"missing": f"{inside.size} answers, {5 * PARTS} are needed"}
    counts = np.histogram(inside, PARTS, (start_ns, end_ns))[0] * (PARTS * 1e9 / (end_ns - start_ns))
    error = float(counts.std(ddof=1)) / math.sqrt(PARTS)
    interval = Effect(float(counts.mean()), error, PARTS - 1, PARTS, Scale.DIFFERENCE).interval()
    return {"low": max(0.0, interval.low), "high": interval.high}


def value_of(told: Mapping[str, Any] | None, name: str) -> float | NotComputable:
    """A quantile of QUANTILES as a pair's value: the told one, or the point that dependence keeps from being told."""
    if told is None:
        return NotComputable("not told by the server")
    entry = told.get(name)
    if isinstance(entry, Mapping):
        found = entry.get("value", entry.get("point"))
        return float(found) if found is not None else NotComputable(str(entry.get("missing", "missing")))
    return float(entry) if entry is not None else NotComputable("missing")


def usage(rows: Sequence[tuple[int, str, float, int]], start_ns: int, end_ns: int) -> dict[str, dict[str, Any]]:
    """role -> {"cores": mean, "rss_bytes": peak} inside [start, end); a row's cores hold since the role's row before it."""
    span = end_ns - start_ns
    last: dict[str, int] = {}
    used: dict[str, float] = {}
    peak: dict[str, int] = {}
    for time_ns, role, cores, rss in rows:
        since = last.get(role)
        last[role] = time_ns
        used.setdefault(role, 0.0)
        if since is not None:
            inside = min(time_ns, end_ns) - max(since, start_ns)
            used[role] += cores * max(0, inside)
        if start_ns <= time_ns < end_ns:
            peak[role] = max(peak.get(role, 0), rss)
    return {
        role: {"cores": total / span if span > 0 else 0.0, "rss_bytes": peak.get(role, 0)}
        for role, total in sorted(used.items())
    }


def batches(
    sizes: NDArray[np.int32], scrapes: tuple[str, str] | None, max_batch: int
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The BLOCK's "batches", and what else the server's counters tell (padding, queue mean).

    sizes: requests in the batch of each answered request, -1 where not told. A batch of s answers s requests, so that s of
    them tell of it. Scrapes span the whole recording, warm-up included.
    """
    entries, extra = from_scrapes(scrapes)
    extra |= torchserve_queue(scrapes) if "queue_mean_ms" not in extra else {}
    told = sizes[sizes > 0]
    if told.size:
        values, counts = np.unique(told, return_counts=True)
        number = counts / values
        mean = float(told.size / number.sum())
        buckets = {str(int(size)): float(n) for size, n in zip(values, number, strict=True)}
        return _batches("told with each answer", mean, buckets, max_batch), extra
    for entry in entries:
        buckets = {item["size"]: item["batches"] for item in entry["buckets"]}
        mean = entry["mean"]
        if isinstance(mean, float):
            source = f"{entry['what']}; the server's counters, warm-up included"
            return _batches(source, mean, buckets, max_batch), extra
    return None, extra


def torchserve_queue(scrapes: tuple[str, str] | None) -> dict[str, float]:
    """Mean wait in TorchServe's queue between two scrapes, ms, from its two counters; empty where it tells none."""
    if scrapes is None:
        return {}
    before, after = parse(scrapes[0]), parse(scrapes[1])
    waited = counter_delta(before, after, "ts_queue_latency_microseconds")
    served = counter_delta(before, after, "ts_inference_requests_total")
    if isinstance(waited, NotComputable) or isinstance(served, NotComputable) or not served:
        return {}
    return {"queue_mean_ms": waited / served / 1000.0}


def _batches(source: str, mean: float, buckets: Mapping[str, float], max_batch: int) -> dict[str, Any]:
    fill = mean / max_batch if max_batch > 1 else None
    return {"source": source, "mean": mean, "buckets": dict(buckets), "fill": fill}
