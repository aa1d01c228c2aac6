"""What two scrapes of a server tell about the time between them. PURE: text in, numbers or `NotComputable` out.

Reads the Prometheus text format 0.0.4 as far as counters and histograms need it (TF Serving's names hold colons and its
empty label sets are printed as {}). No HTTP here: scrapes are files of the run directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.stats.result import NotComputable

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, slots=True)
class HistogramDelta:
    """Observations between two scrapes: upper bounds (the last may be inf), counts per bucket, their number and sum."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float
    count: float


def parse(text: str) -> Samples:
    """Samples by name and sorted labels; lines that are no sample are skipped, as scrapes may be cut short."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.fullmatch(line.strip())
        if match is None:
            continue
        labels = tuple(sorted((m[1], m[2]) for m in _LABEL.finditer(match[2] or "")))
        try:
            samples[match[1], labels] = float(match[3])
        except ValueError:
            continue
    return samples


def counter_delta(before: Samples, after: Samples, name: str) -> float | NotComputable:
    """Increase of a counter summed over its label sets; one that is absent before started at 0."""
    series = [key for key in after if key[0] == name]
    if not series:
        return NotComputable("not told by the server")
    deltas = [after[key] - before.get(key, 0.0) for key in series]
    if min(deltas) < 0:
        return NotComputable("the server's counters went back: it restarted between the scrapes")
    return sum(deltas)


def histogram_delta(before: Samples, after: Samples, name: str) -> HistogramDelta | NotComputable:
    """Observations of a histogram between two scrapes, summed over its other labels. Works for real histograms and for
    counters that carry cumulative buckets under the same names.
    """
    below: dict[float, float] = {}
    for key in after:
        if key[0] == f"{name}_bucket":
            bound = float(dict(key[1]).get("le", "inf"))
            delta = after[key] - before.get(key, 0.0)
            below[bound] = below.get(bound, 0.0) + delta
    total, count = (counter_delta(before, after, f"{name}_{part}") for part in ("sum", "count"))
    for part in (total, count):
        if isinstance(part, NotComputable):
            return part
    if not below:
        return NotComputable("not told by the server")
    assert isinstance(total, float)
    assert isinstance(count, float)
    bounds = tuple(sorted(below))
    cumulative = [below[bound] for bound in bounds]
    counts = tuple(high - low for low, high in zip([0.0, *cumulative[:-1]], cumulative, strict=True))
    if min(counts) < 0:
        return NotComputable("the server's counters went back: it restarted between the scrapes")
    return HistogramDelta(bounds, counts, total, count)


def batch_buckets(histogram: HistogramDelta) -> dict[str, float]:
    """Batches per range of sizes, e.g. {"1": 12, "2": 3, "3-4": 5}, from buckets whose bounds are whole numbers.

    Prometheus buckets include their upper bound; TensorFlow's samplers exclude it (std::upper_bound in its histogram), so
    that a batch of 1 is counted under le="2". The sum tells which: the reading under which the known sum is possible is
    taken, Prometheus's own where both are.
    """
    inclusive = _ranges(histogram, exclusive=False)
    chosen = inclusive if _possible(inclusive, histogram.total) else _ranges(histogram, exclusive=True)
    if not _possible(chosen, histogram.total):
        chosen = inclusive
    named: dict[str, float] = {}
    for low, high, count in chosen:
        if count > 0:
            name = f"{low}" if low == high else f"{low}-{high}" if high is not None else f"{low}+"
            named[name] = named.get(name, 0.0) + count
    return named


def _ranges(histogram: HistogramDelta, exclusive: bool) -> list[tuple[int, int | None, float]]:
    ranges: list[tuple[int, int | None, float]] = []
    low = 0 if exclusive else 1
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        if bound == float("inf"):
            ranges.append((low, None, count))
            continue
        high = int(bound) - 1 if exclusive else int(bound)
        ranges.append((low, max(low, high), count))
        low = high + 1
    return ranges


def _possible(ranges: list[tuple[int, int | None, float]], total: float) -> bool:
    least = sum(low * count for low, _, count in ranges)
    most = sum((float("inf") if high is None else high) * count for _, high, count in ranges if count > 0)
    return least - 0.5 <= total <= most + 0.5
