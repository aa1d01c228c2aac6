"""What one arm did, as numbers: counts, errors, latency quantiles, right answers, the curves of the plots. PURE.

Rows come in as arrays, statistics from gateway.stats; no words for readers and no verdicts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gateway.reports import jsonable
from gateway.reports.jsonable import Json
from gateway.reports.ledger import Requests
from gateway.stats.clusters import unit_hits, unit_sizes
from gateway.stats.proportions import Rate, wilson
from gateway.stats.quantiles import Sample, quantile, sample_floor
from gateway.stats.result import Estimate, NotComputable

QUANTILES = (0.5, 0.9, 0.95, 0.99)
SERIES_POINTS = 120
CURVE_POINTS = 140


def quantile_name(q: float) -> str:
    """p50, p99, p99.9."""
    return f"p{100 * q:g}"


@dataclass(frozen=True)
class ArmRows:
    """The compared rows of one arm: requests whose arm was drawn by the weights, in the measurement window."""

    name: str
    requests: Requests
    mask: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Requests, failed ones included."""
        return int(self.mask.sum())

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each of the arm's requests failed, shape [n]."""
        return np.not_equal(self.requests.error[self.mask], 0)

    @cached_property
    def latency_ms(self) -> NDArray[np.float64]:
        """Milliseconds of each request, shape [n], whether it failed or not."""
        return self.requests.latency_ms[self.mask]

    @cached_property
    def units(self) -> NDArray[np.uint64]:
        """Unit labels, shape [n]; a request without a unit is a unit of its own."""
        labels = self.requests.unit[self.mask].copy()
        without = np.flatnonzero(labels == 0)
        labels[without] = without.astype(np.uint64)  # hashes fill 64 bits: a clash with a small number is no concern
        return labels

    @cached_property
    def answered(self) -> Sample:
        """Latencies of answered requests."""
        return Sample.of(self.latency_ms[~self.failed], self.units[~self.failed])

    @cached_property
    def everything(self) -> Sample:
        """Latencies of all requests, a failed one being slower than every answer."""
        if not self.failed.any():
            return self.answered
        return Sample.of(np.where(self.failed, np.inf, self.latency_ms), self.units)

    def quantiles(self, sample: Sample) -> dict[str, Estimate | NotComputable]:
        """p50 to p99 of one of the two samples above."""
        return {quantile_name(q): quantile(sample, q) for q in QUANTILES}

    def rate(self, indicator: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> Rate | NotComputable:
        """Share of the arm's requests (those `among`) for which the indicator holds, clustered by unit."""
        chosen = np.ones(self.n, dtype=bool) if among is None else among
        if not chosen.any():
            return NotComputable("no observations")
        codes = np.unique(self.units[chosen], return_inverse=True)[1].astype(np.int64)
        sizes = unit_sizes(codes)
        return Rate.clustered(unit_hits(codes, indicator[chosen], sizes.size), sizes)

    @property
    def error_rate(self) -> Rate | NotComputable:
        """Failed among all."""
        return self.rate(self.failed)

    @property
    def right_rate(self) -> Rate | NotComputable:
        """Right among the answers that were judged."""
        correct = self.requests.correct[self.mask]
        return self.rate(correct == 1, correct >= 0)


def rows_of(requests: Requests) -> list[ArmRows]:
    """The compared rows of every arm. Forced and block requests are left out unless there is nothing else."""
    drawn = ~requests.forced
    if not (drawn & (requests.arm >= 0)).any():
        drawn = np.ones(requests.n, dtype=bool)
    return [ArmRows(name, requests, drawn & (requests.arm == i)) for i, name in enumerate(requests.arms)]


def wilson_of(rate: Rate | NotComputable, hits: int, n: int) -> Json:
    """A rate as JSON; where units are too few for an interval the plain share stays."""
    if isinstance(rate, NotComputable):
        if n == 0:
            return jsonable.missing(rate.reason)
        return {"value": hits / n, "n": n, "design_effect": 1.0, "interval_not_computable": rate.reason}
    return jsonable.estimate(wilson(rate))


def measure(rows: ArmRows, seconds: float) -> Json:
    """Everything of one arm that comes from the ledger. seconds: length of the window."""
    requests, mask = rows.requests, rows.mask
    failed = int(rows.failed.sum())
    correct = requests.correct[mask]
    judged, right = int((correct >= 0).sum()), int((correct == 1).sum())
    kinds = np.bincount(requests.error[mask], minlength=len(requests.errors))
    answered = rows.latency_ms[~rows.failed]
    return {
        "requests": rows.n,
        "units": int(np.unique(requests.unit[mask & (requests.unit != 0)]).size),
        "rows": int(requests.rows[mask].sum()),
        "throughput_rps": rows.n / seconds,
        "answered_rps": (rows.n - failed) / seconds,
        "errors": {
            "count": failed,
            "rate": wilson_of(rows.error_rate, failed, rows.n),
            "by_kind": [{"kind": requests.errors[i], "count": int(kinds[i])} for i in range(1, len(kinds)) if kinds[i]],
        },
        "accuracy": {"judged": judged, "right": right, "rate": wilson_of(rows.right_rate, right, judged)},
        "latency_ms": {
            "answered": {k: jsonable.estimate(v) for k, v in rows.quantiles(rows.answered).items()},
            "all": {k: jsonable.estimate(v) for k, v in rows.quantiles(rows.everything).items()},
            "mean": float(answered.mean()) if answered.size else jsonable.missing("no answers"),
            "max": float(answered.max()) if answered.size else jsonable.missing("no answers"),
        },
        **({} if requests.service_ms is None else {"service_ms": _service(rows, requests.service_ms[mask])}),
        "by_protocol": _by_protocol(rows),
    }


def _service(rows: ArmRows, service_ms: NDArray[np.float64]) -> Json:
    """Quantiles of answered requests' service time, from the actual send, in ms; for an open loop."""
    sample = Sample.of(service_ms[~rows.failed], rows.units[~rows.failed])
    return {name: jsonable.estimate(value) for name, value in rows.quantiles(sample).items()}


def _by_protocol(rows: ArmRows) -> list[Json]:
    tables = []
    for code, protocol in enumerate(rows.requests.protocols):
        part = ArmRows(rows.name, rows.requests, rows.mask & (rows.requests.protocol == code))
        if part.n:
            quantiles = {k: jsonable.estimate(v) for k, v in part.quantiles(part.answered).items()}
            tables.append(
                {"protocol": protocol, "requests": part.n, "errors": int(part.failed.sum()), "latency_ms": quantiles}
            )
    return tables


def series(arms: Sequence[ArmRows], seconds: float) -> Json:
    """Requests, errors and quantiles over time in equal bins, per arm; null where a bin is below the sample floor.

    Bins are whole seconds, wide enough for a p95 in most bins of the rarest arm and for at most SERIES_POINTS bins.
    """
    rates = [rows.n / seconds for rows in arms if rows.n]
    width = max(1.0, np.ceil(seconds / SERIES_POINTS), np.ceil(1.5 * sample_floor(0.95) / min(rates)) if rates else 1.0)
    width = float(min(width, max(1.0, np.ceil(seconds / 4))))
    bins = max(1, int(np.ceil(seconds / width)))
    edges = [i * width for i in range(bins)]
    spans = np.minimum(width, seconds - np.array(edges))
    result: Json = {"bin_seconds": width, "start_s": edges, "arms": {}}
    for rows in arms:
        index = np.clip((rows.requests.offset_s[rows.mask] / width).astype(np.int64), 0, bins - 1)
        total = np.bincount(index, minlength=bins)
        ok = ~rows.failed
        order = np.lexsort((rows.latency_ms[ok], index[ok]))
        values = rows.latency_ms[ok][order]
        counts = np.bincount(index[ok], minlength=bins)
        starts = np.r_[0, np.cumsum(counts)[:-1]]
        lines: Json = {
            "requests": total.tolist(),
            "requests_per_s": (total / spans).tolist(),
            "errors": (total - counts).tolist(),
        }
        for q in (0.5, 0.95, 0.99):
            floor = sample_floor(q)
            ranks = np.ceil(q * counts).astype(np.int64) - 1
            lines[quantile_name(q) + "_ms"] = [
                float(values[start + rank]) if count >= floor else None
                for start, rank, count in zip(starts, ranks, counts, strict=True)
            ]
        result["arms"][rows.name] = lines
    return result


def curve(rows: ArmRows) -> Json:
    """The percentile curve of answered requests: share answered within so many ms, up to the sample floor."""
    values = rows.answered.values
    floor_weight = sample_floor(0.999) * 0.001
    if values.size <= floor_weight * 2:
        return {"share": [], "latency_ms": []}
    tail = np.linspace(0.0, np.log10(values.size / floor_weight), CURVE_POINTS)
    shares = 1.0 - 10.0**-tail
    ranks = np.clip(np.ceil(shares * values.size).astype(np.int64) - 1, 0, values.size - 1)
    return {"share": shares.tolist(), "latency_ms": values[ranks].tolist()}
