"""What a batching server did with its requests: sizes, how batches were closed, queue wait, padding. PURE.

TorchServe tells its batch's size and the queue wait with every answer, exactly. TensorFlow's side tells histograms: a size is
known to its bucket [2^i, 2^(i+1)), which is exact for full batches of a power of two, and a wait to its bucket of 100*1.2^i us.
What neither tells is missing, with the reason. No server says why it closed a batch: full ones were closed by size, the others
can only have been closed by the wait.

SIDE = {block, concurrency, rate, throughput, bounds: {low, high} or {missing}, errors, p50, p99, valid, reasons,
  batches: BATCHES, queue: QUEUE, padding, server_cores, gateway_cores, generator_cores}
BATCHES = {source, unit: "requests"|"rows", mean, fill, buckets {range: batches}, full, timeout, closed_source} or {missing}
QUEUE = {source, mean_ms, p50: {low, high}, p99: {low, high}} in ms; low == high: exact; or {missing}
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.reports.batches import COUNTERS, NOT_TOLD, TFS, range_name
from gateway.reports.prometheus_text import (
    HistogramDelta,
    Samples,
    batch_buckets,
    counter_delta,
    histogram_delta,
    parse,
)
from gateway.stats.quantiles import sample_floor
from gateway.stats.result import NotComputable
from loadtest.lab.session import Taken, cores

Json = dict[str, Any]
Both = tuple[Samples, Samples] | None
"""The server's metrics before and after; None where they could not be read."""

ANSWERS = "told with each answer"
SCRAPED = f"{COUNTERS}, warm-up included"
BY_SIZE = "full batches were closed by size; all others can only have been closed by the wait"


def side(taken: Taken, kind: str, max_batch: int) -> Json:
    """SIDE of a block. kind: the arm's server."""
    block, requests = taken.block, taken.requests
    times = block["service_ms"] if block["mode"] == "closed loop" else block["intended_ms"]
    torchserve = kind == "torchserve"
    samples = None if taken.scrapes is None else (parse(taken.scrapes[0]), parse(taken.scrapes[1]))
    sizes = np.empty(0, np.int32) if requests is None else requests.batch_size
    waits = np.empty(0, np.int64) if requests is None else requests.queue_ns
    busy = [] if block["valid"] else list(block["reasons"])
    busy += [text for text in (block.get("capacity") or {}).get("reasons", []) if text not in busy]
    return {
        "block": block["id"],
        "concurrency": block["load"].get("concurrency"),
        "rate": block["load"].get("rate"),
        "throughput": block["goodput"],
        "bounds": block.get("goodput_bounds"),
        "errors": (block["errors"] + block["dropped"]) / block["n"] if block["n"] else 0.0,
        "p50": times["p50"],
        "p99": times["p99"],
        "valid": block["valid"],
        "reasons": busy,
        **(_torchserve(sizes, waits, samples, max_batch) if torchserve else _tensorflow(samples, max_batch)),
        "server_cores": cores(block, f"arm {block['arm']}"),
        "gateway_cores": cores(block, "gateway") if block["path"] == "gateway" else None,
        "generator_cores": cores(block, "generator"),
    }  # fmt: skip


def _torchserve(sizes: NDArray[np.int32], waits: NDArray[np.int64], samples: Both, max_batch: int) -> Json:
    """Answers tell all; through the gateway, which keeps that for its records, the handler's counters tell less."""
    told = bool((sizes > 0).any())
    return {
        "batches": from_answers(sizes, max_batch) if told else from_handler(samples, max_batch),
        "queue": queue_answers(waits) if told else queue_handler(samples),
        "padding": {"share": 0.0, "source": "our handler stacks the rows it got"},
    }


def _tensorflow(samples: Both, max_batch: int) -> Json:
    if max_batch == 1:
        return {key: {"missing": "batching is off"} for key in ("batches", "queue", "padding")}
    return {"batches": from_rows(samples, max_batch), "queue": queue_rows(samples), "padding": padding(samples)}


def from_answers(sizes: NDArray[np.int32], max_batch: int) -> Json:
    """BATCHES from the batch size of each answer, shape [n], -1 where not told: a batch of s is told s times."""
    told = sizes[sizes > 0]
    if not told.size:
        return {"missing": NOT_TOLD}
    values, counts = np.unique(told, return_counts=True)
    batches = counts / values
    total = float(batches.sum())
    buckets: dict[str, float] = {}
    for size, number in zip(values.tolist(), batches.tolist(), strict=True):
        buckets[range_name(size)] = buckets.get(range_name(size), 0.0) + number
    full = float(batches[values == max_batch].sum()) / total
    return {
        "source": ANSWERS, "unit": "requests", "mean": told.size / total, "fill": told.size / total / max_batch,
        "buckets": buckets, "full": full, "timeout": 1.0 - full, "closed_source": f"{ANSWERS}: {BY_SIZE}",
    }  # fmt: skip


def from_handler(samples: Both, max_batch: int) -> Json:
    """BATCHES from our TorchServe handler's counters, whose buckets include their upper bound: how many were full is hidden."""
    histogram = _histogram(samples, "abgate_batch_size")
    if isinstance(histogram, NotComputable):
        return {"missing": histogram.reason}
    mean = histogram.total / histogram.count
    hidden = {
        "missing": "only answers past the gateway (--direct) tell how many batches were full, and none told it here"
    }
    return {
        "source": SCRAPED, "unit": "requests", "mean": mean, "fill": mean / max_batch, "buckets": batch_buckets(histogram),
        "full": hidden, "timeout": hidden, "closed_source": SCRAPED,
    }  # fmt: skip


def queue_handler(samples: Both) -> Json:
    """QUEUE from our TorchServe handler's counters: the mean alone."""
    if samples is None:
        return {"missing": "the server's metrics could not be read"}
    total, count = (counter_delta(*samples, f"abgate_queue_ns_{part}") for part in ("sum", "count"))
    if not isinstance(total, float) or not isinstance(count, float) or count <= 0:
        return {"missing": NOT_TOLD}
    hidden = {"missing": "only answers past the gateway (--direct) tell each wait, and none told it here"}
    return {"source": SCRAPED, "mean_ms": total / count / 1e6, "p50": hidden, "p99": hidden}


def from_rows(samples: Both, max_batch: int) -> Json:
    """BATCHES from TensorFlow Serving's processed_batch_size; its buckets exclude their upper bound (std::upper_bound)."""
    histogram = _histogram(samples, f"{TFS}processed_batch_size")
    if isinstance(histogram, NotComputable):
        return {"missing": histogram.reason}
    buckets: dict[str, float] = {}
    low = 0.0
    full: float | None = None
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        high = min(bound - 1, float(max_batch))
        if count > 0:
            name = f"{low:g}" if low >= high else f"{low:g}-{high:g}"
            buckets[name] = buckets.get(name, 0.0) + count
        if low == max_batch:
            full = count / histogram.count
        low = bound
    mean = histogram.total / histogram.count
    hidden = {"missing": f"its histogram has no bucket that begins at {max_batch}"}
    return {
        "source": SCRAPED, "unit": "rows", "mean": mean, "fill": mean / max_batch, "buckets": buckets,
        "full": hidden if full is None else full, "timeout": hidden if full is None else 1.0 - full,
        "closed_source": f"bucket of {max_batch} rows of processed_batch_size: {BY_SIZE}",
    }  # fmt: skip


def queue_answers(waits_ns: NDArray[np.int64]) -> Json:
    """QUEUE from the wait told with each answer, shape [n], -1 where not told."""
    told = np.sort(waits_ns[waits_ns >= 0]) / 1e6
    if not told.size:
        return {"missing": NOT_TOLD}
    found: Json = {"source": ANSWERS, "mean_ms": float(told.mean())}
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        if told.size < sample_floor(q):
            found[name] = {"missing": f"{told.size} samples, {name} needs {sample_floor(q)}"}
            continue
        value = float(told[math.ceil(q * told.size - 1e-9) - 1])
        found[name] = {"low": value, "high": value}
    return found


def queue_rows(samples: Both) -> Json:
    """QUEUE from TensorFlow Serving's queuing_latency (microseconds): the bucket each quantile lies in."""
    histogram = _histogram(samples, f"{TFS}queuing_latency")
    if isinstance(histogram, NotComputable):
        return {"missing": histogram.reason}
    found: Json = {"source": SCRAPED, "mean_ms": histogram.total / histogram.count / 1e3}
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        if histogram.count < sample_floor(q):
            found[name] = {"missing": f"{histogram.count:g} samples, {name} needs {sample_floor(q)}"}
            continue
        rank = math.ceil(q * histogram.count - 1e-9)
        at = int(np.searchsorted(np.cumsum(histogram.counts), rank, side="left"))
        high = histogram.bounds[at] / 1e3
        low = histogram.bounds[at - 1] / 1e3 if at else 0.0
        found[name] = {"low": low, "high": high if math.isfinite(high) else None}
    return found


def padding(samples: Both) -> Json:
    """Rows that were added to reach an allowed size, as a share of the rows computed."""
    if samples is None:
        return {"missing": "the server's metrics could not be read"}
    padded, processed = (
        counter_delta(*samples, f"{TFS}{name}_sum") for name in ("padding_size", "processed_batch_size")
    )
    for part in (padded, processed):
        if isinstance(part, NotComputable):
            return {"missing": part.reason}
    assert isinstance(padded, float)
    assert isinstance(processed, float)
    return {"share": padded / processed, "source": SCRAPED} if processed > 0 else {"missing": "no batch was computed"}


def _histogram(samples: Both, name: str) -> HistogramDelta | NotComputable:
    if samples is None:
        return NotComputable("the server's metrics could not be read")
    found = histogram_delta(*samples, name)
    if not isinstance(found, NotComputable) and found.count <= 0:
        return NotComputable("no batch was computed")
    return found
