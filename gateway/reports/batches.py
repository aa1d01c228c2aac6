"""Batch sizes and queueing of each arm's server, side by side, from what each of them tells. PURE.

Two sources: replies (TorchServe's handler tells its batch with every answer) and the difference of two scrapes. A server
that tells nothing is "not told by the server", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.reports import jsonable
from gateway.reports.jsonable import Json
from gateway.reports.prometheus_text import batch_buckets, counter_delta, histogram_delta, parse
from gateway.reports.records import ArmRecords
from gateway.stats.result import NotComputable

NOT_TOLD = "not told by the server"
COUNTERS = "server's counters over the window"
TFS = ":tensorflow:serving:batching_session:"
RANGES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512), (513, 1024))


def range_name(size: int) -> str:
    """The range a batch size falls in: 1, 2, 3-4, 5-8 and so on by powers of two."""
    for low, high in RANGES:
        if low <= size <= high:
            return str(low) if low == high else f"{low}-{high}"
    return "1025+"


def _grouped(sizes: Mapping[int, float]) -> dict[str, float]:
    grouped: dict[str, float] = {}
    for size in sorted(sizes):
        name = range_name(size)
        grouped[name] = grouped.get(name, 0.0) + sizes[size]
    return grouped


def _number(value: float | NotComputable) -> float | Json:
    return jsonable.missing(value.reason) if isinstance(value, NotComputable) else value


def _entry(what: str, source: str, buckets: Mapping[str, float], mean: float | None) -> Json:
    total = sum(buckets.values())
    return {
        "what": what,
        "source": source,
        "batches": total,
        "mean": mean if mean is not None else jsonable.missing(NOT_TOLD),
        "buckets": [{"size": name, "batches": count, "share": count / total} for name, count in buckets.items()],
    }


def from_replies(records: ArmRecords | None) -> list[Json]:
    """Distributions told with the answers: requests per batch and rows per batch."""
    if records is None or not records.batches:
        return []
    entries = []
    for what, sizes in (("requests per batch", records.batches), ("rows per batch", records.batch_rows)):
        total = sum(sizes.values())
        if total:
            mean = sum(size * count for size, count in sizes.items()) / total
            entries.append(_entry(what, "told with each answer", _grouped(sizes), mean))
    return entries


def from_scrapes(texts: tuple[str, str] | None) -> tuple[list[Json], Json]:
    """Distributions and extra numbers from the metrics before and after the window, other traffic to the server included."""
    if texts is None:
        return [], {}
    before, after = parse(texts[0]), parse(texts[1])
    entries: list[Json] = []
    extra: Json = {}
    for name, what in (
        (f"{TFS}processed_batch_size", "rows per batch, padding included"),
        ("abgate_batch_size", "requests per batch"),
    ):
        histogram = histogram_delta(before, after, name)
        if not isinstance(histogram, NotComputable) and histogram.count > 0:
            entries.append(
                _entry(
                    what,
                    COUNTERS,
                    batch_buckets(histogram),
                    histogram.total / histogram.count,
                )
            )
        elif isinstance(histogram, NotComputable) and histogram.reason != NOT_TOLD:
            extra["note"] = histogram.reason
    processed = counter_delta(before, after, f"{TFS}processed_batch_size_sum")
    padding = counter_delta(before, after, f"{TFS}padding_size_sum")
    if isinstance(processed, float) and processed > 0:
        extra["padding_rows"] = _number(padding)
        extra["padding_share"] = _number(padding if isinstance(padding, NotComputable) else padding / processed)
    waits = [counter_delta(before, after, f"{TFS}queuing_latency_{part}") for part in ("sum", "count")]
    if all(isinstance(part, float) for part in waits) and waits[1]:
        total, count = waits
        assert isinstance(total, float)
        assert isinstance(count, float)
        extra["queue_mean_ms"] = total / count / 1000.0
    return entries, extra


def batching(records: ArmRecords | None, texts: tuple[str, str] | None) -> Json:
    """Everything about one arm's batches and queue."""
    scraped, extra = from_scrapes(texts)
    entries = [*from_replies(records), *scraped]
    queue: Json = jsonable.missing(NOT_TOLD)
    if records is not None and "queue_ns" in records.times:
        queue = {"source": "told with each answer", **records.times["queue_ns"]}
    elif "queue_mean_ms" in extra:
        queue = {"source": COUNTERS, "mean": extra.pop("queue_mean_ms")}
    distributions: list[Json] | Json = entries or jsonable.missing(str(extra.pop("note", NOT_TOLD)))
    return {"distributions": distributions, "queue_ms": queue, **extra}
