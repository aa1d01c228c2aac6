"""Metrics: plain integers on the way of a request, Prometheus' words only when somebody looks.

A Meter is bound to (model, experiment, arm, protocol) when routes are built and costs a request a few increments; Metrics is
the collector that turns all of them into samples at a scrape, on an injected registry. Seconds, `_total`, never a unit id.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

REQUEST_BUCKETS_S = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
    30.0,
)
GATEWAY_BUCKETS_S = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0)
_REQUEST_NS = tuple(round(edge * 1e9) for edge in REQUEST_BUCKETS_S)
_GATEWAY_NS = tuple(round(edge * 1e9) for edge in GATEWAY_BUCKETS_S)


class Meter:
    """Counts the finished requests of one (model, experiment, arm, protocol); used by one thread, read by any."""

    __slots__ = ("codes", "gateway", "gateway_ns", "labels", "requests", "total_ns")

    def __init__(self, model: str, experiment: str, arm: str, protocol: str) -> None:
        self.labels = (model, experiment, arm, protocol)
        self.codes: dict[int, int] = {}
        self.requests = [0] * (len(_REQUEST_NS) + 1)
        self.gateway = [0] * (len(_GATEWAY_NS) + 1)
        self.total_ns = 0
        self.gateway_ns = 0

    def refuse(self, status: int) -> None:
        """Count one request that the arm was never given: by its code only, as its time would make the arm look fast."""
        self.codes[status] = self.codes.get(status, 0) + 1

    def observe(self, status: int, error_kind: str, total_ns: int, gateway_ns: int) -> None:
        """Count one request the arm was given: status as the client saw it, times in nanoseconds."""
        codes = self.codes
        codes[status] = codes.get(status, 0) + 1
        self.requests[bisect_left(_REQUEST_NS, total_ns)] += 1
        self.gateway[bisect_left(_GATEWAY_NS, gateway_ns)] += 1
        self.total_ns += total_ns
        self.gateway_ns += gateway_ns


@dataclass(frozen=True, slots=True)
class ArmView:
    """What a scrape shows of one arm."""

    model: str
    experiment: str
    arm: str
    weight: int
    ready: bool
    in_flight: int


@dataclass(frozen=True, slots=True)
class CaptureView:
    """What a scrape shows of captures; lost by reason."""

    active: bool = False
    written: int = 0
    bytes: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewayView:
    """What a scrape shows of the gateway as a whole; lag in nanoseconds."""

    revision: int
    loop_lag_ns: int
    refused: int
    written: int
    dropped: int
    arms: tuple[ArmView, ...] = ()
    phases: Mapping[str, int] = field(default_factory=dict)
    capture: CaptureView = CaptureView()
    assignments: Mapping[tuple[str, str, str, str], int] = field(default_factory=dict)


class View(Protocol):
    """Reads the gateway's state at a scrape."""

    def __call__(self) -> GatewayView: ...


class Metrics(Collector):
    """All meters of the process; one of each label set, kept over reloads so that counters never go back."""

    def __init__(self, version: str, view: View) -> None:
        self._version = version
        self._view = view
        self._meters: dict[tuple[str, str, str, str], Meter] = {}

    def meter(self, model: str, experiment: str, arm: str, protocol: str) -> Meter:
        """The meter of those labels."""
        return self._meters.setdefault((model, experiment, arm, protocol), Meter(model, experiment, arm, protocol))

    def registry(self) -> CollectorRegistry:
        """A registry of its own with this collector on it."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: the view may not be there yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric, read now."""
        view = self._view()
        meters = list(self._meters.values())
        yield from _requests(meters)
        yield from _gateway(view, self._version)
        yield from _capture(view.capture)
        yield from _arms(view)


def _requests(meters: list[Meter]) -> Iterator[Metric]:
    labels = ["model", "experiment", "arm", "protocol"]
    total = CounterMetricFamily(
        "abgate_requests", "Requests ended, by the code the client saw", labels=[*labels, "code"]
    )
    whole = HistogramMetricFamily(
        "abgate_request_seconds", "Requests an arm was given, from their last byte's arrival to the end", labels=labels
    )
    own = HistogramMetricFamily(
        "abgate_gateway_seconds", "The gateway's share, without codec and server", labels=labels
    )
    for meter in meters:
        for code, count in list(meter.codes.items()):
            total.add_metric([*meter.labels, str(code)], count)
        if meter.codes:
            whole.add_metric(meter.labels, _buckets(REQUEST_BUCKETS_S, meter.requests), meter.total_ns / 1e9)
            own.add_metric(meter.labels, _buckets(GATEWAY_BUCKETS_S, meter.gateway), meter.gateway_ns / 1e9)
    yield from (total, whole, own)


def _buckets(edges: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts up to and with every edge, as Prometheus wants them."""
    running, found = 0, []
    for edge, count in zip([*map(str, edges), "+Inf"], counts, strict=True):
        running += count
        found.append((edge, float(running)))
    return found


def _gateway(view: GatewayView, version: str) -> Iterator[Metric]:
    yield CounterMetricFamily("abgate_records_written", "Records written to the journal", view.written)
    yield CounterMetricFamily("abgate_records_dropped", "Records lost: queue or disk was full", view.dropped)
    yield CounterMetricFamily("abgate_refused", "Requests that ended before an arm was found", view.refused)
    yield GaugeMetricFamily(
        "abgate_loop_lag_seconds", "How late the event loop's last timer was", view.loop_lag_ns / 1e9
    )
    yield GaugeMetricFamily("abgate_revision", "Revision of the weights in force", view.revision)
    build = GaugeMetricFamily("abgate_build_info", "The gateway's version", labels=["version"])
    build.add_metric([version], 1)
    yield build
    phase = GaugeMetricFamily(
        "abgate_experiment_phase", "Revision at which the model's weights began", labels=["model"]
    )
    for model, revision in view.phases.items():
        phase.add_metric([model], revision)
    yield phase
    names = ["model", "experiment", "arm", "assignment"]
    assigned = CounterMetricFamily(
        "abgate_assignments", "Requests a server was given, by how their arm was found", labels=names
    )
    for labels, count in list(view.assignments.items()):
        assigned.add_metric(labels, count)
    yield assigned


def _capture(view: CaptureView) -> Iterator[Metric]:
    yield GaugeMetricFamily("abgate_capture_active", "1 while requests are captured", int(view.active))
    yield CounterMetricFamily("abgate_capture_written", "Requests written to captures", view.written)
    yield CounterMetricFamily("abgate_capture_bytes", "Bytes written to captures", view.bytes)
    lost = CounterMetricFamily(
        "abgate_capture_dropped", "Requests drawn for a capture and not written", labels=["reason"]
    )
    for reason, count in view.lost.items():
        lost.add_metric([reason], count)
    yield lost


def _arms(view: GatewayView) -> Iterator[Metric]:
    labels = ["model", "experiment", "arm"]
    flight = GaugeMetricFamily("abgate_arm_in_flight", "Requests the arm's server has and has not ended", labels=labels)
    ready = GaugeMetricFamily("abgate_arm_ready", "1 while the arm's server serves its model", labels=labels)
    weight = GaugeMetricFamily("abgate_arm_weight", "The arm's weight in force", labels=labels)
    for arm in view.arms:
        names = [arm.model, arm.experiment, arm.arm]
        flight.add_metric(names, arm.in_flight)
        ready.add_metric(names, int(arm.ready))
        weight.add_metric(names, arm.weight)
    yield from (flight, ready, weight)
