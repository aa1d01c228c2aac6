"""Counters and histograms under TF Serving's names, printed in its Prometheus text (util/prometheus_exporter.cc, 2.19.1).

Lives here: recording and printing. Must not live here: when something is recorded. TensorFlow's own C++ registry cannot
be read from Python, so the stand-in counts for itself. Every character a name may not hold is printed as ':'.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence

LATENCY_BOUNDS = tuple(10 * 1.8**i for i in range(33))  # microseconds
QUEUE_BOUNDS = tuple(100 * 1.2**i for i in range(52))  # microseconds
SIZE_BOUNDS = tuple(float(2**i) for i in range(14))  # rows

CONTENT_TYPE = "text/plain"


class Counter:
    """A family of counters, one per tuple of label values."""

    kind = "counter"

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + 1

    def lines(self) -> list[str]:
        """Print the samples."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{_labels(self._labels, labels)} {value}" for labels, value in values]


class Histogram:
    """A family of histograms with fixed upper bounds; a value equal to a bound falls above it.

    That is TensorFlow's rule (std::upper_bound in lib/histogram), printed under `le` though Prometheus means "at most": a batch
    of exactly 8 rows is counted under le="16", on the real server as here.
    """

    kind = "histogram"

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._bounds = list(bounds)
        self._texts = [f"{bound:.10g}" for bound in bounds] + ["+Inf"]
        self._lock = threading.Lock()
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def record(self, value: float, *labels: str) -> None:
        """Count one value."""
        index = bisect_right(self._bounds, value)
        with self._lock:
            cell = self._cells.get(labels)
            if cell is None:
                cell = self._cells[labels] = ([0] * len(self._texts), [0.0])
            cell[0][index] += 1
            cell[1][0] += value

    def lines(self) -> list[str]:
        """Print the cumulative buckets, the sum and the count of each label set."""
        with self._lock:
            cells = [(labels, list(cell[0]), cell[1][0]) for labels, cell in sorted(self._cells.items())]
        printed = []
        for labels, counts, total in cells:
            running = 0
            for text, count in zip(self._texts, counts, strict=True):
                running += count
                printed.append(f"{self.name}_bucket{_labels((*self._labels, 'le'), (*labels, text))} {running}")
            own = _labels(self._labels, labels)
            printed += [f"{self.name}_sum{own} {total:.17g}", f"{self.name}_count{own} {running}"]
        return printed


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class ServingMetrics:
    """Every metric of the stand-in; the batching ones have no model label, as in TF Serving."""

    def __init__(self) -> None:
        root = ":tensorflow:serving:"
        batching = root + "batching_session:"
        by_model = ("model_name", "API")
        self.requests = Counter(root + "request_count", ("model_name", "status"))
        self.latency = Histogram(root + "request_latency", (*by_model, "entrypoint"), LATENCY_BOUNDS)
        self.runtime = Histogram(root + "runtime_latency", (*by_model, "runtime"), LATENCY_BOUNDS)
        self.queuing = Histogram(batching + "queuing_latency", ("thread_pool_name",), QUEUE_BOUNDS)
        self.runs = Counter(batching + "wrapped_run_count", ())
        self.batch_rows = Histogram(batching + "processed_batch_size", (), SIZE_BOUNDS)
        self.request_rows = Histogram(batching + "input_batch_size", (), SIZE_BOUNDS)
        self.padding_rows = Histogram(batching + "padding_size", ("execution_batch_size",), SIZE_BOUNDS)

    def text(self) -> str:
        """Return the exposition."""
        families: tuple[Counter | Histogram, ...] = (
            self.requests,
            self.latency,
            self.runtime,
            self.queuing,
            self.runs,
            self.batch_rows,
            self.request_rows,
            self.padding_rows,
        )
        printed: list[str] = []
        for family in families:
            printed.append(f"# TYPE {family.name} {family.kind}")
            printed += family.lines()
        return "\n".join(printed) + "\n"
