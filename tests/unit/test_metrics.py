"""Metrics: what a few increments become at a scrape, read back with Prometheus' own parser."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import REQUEST_BUCKETS_S, ArmView, GatewayView, Metrics

VIEW = GatewayView(
    revision=7,
    loop_lag_ns=1_500_000,
    refused=3,
    written=100,
    dropped=4,
    arms=(ArmView("m", "e", "a", 90, True, 2), ArmView("m", "e", "b", 10, False, 0)),
    phases={"m": 5},
    assignments={("m", "e", "a", "sticky"): 11},
)
LABELS = {"model": "m", "experiment": "e", "arm": "a", "protocol": "tfs-rest"}


def scrape(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(metrics.registry()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_a_meters_requests_are_counted_by_code_and_put_into_buckets_that_hold_their_edge() -> None:
    metrics = Metrics("1.2.3", lambda: VIEW)
    meter = metrics.meter(**LABELS)
    for status, total_ns in ((200, 500_000), (200, 500_001), (503, 2_000_000_000), (200, 60_000_000_000)):
        meter.observe(status, "", total_ns, 20_000)
    found = scrape(metrics)
    assert value(found, "abgate_requests_total", code="200", **LABELS) == 3
    assert value(found, "abgate_requests_total", code="503", **LABELS) == 1
    assert value(found, "abgate_request_seconds_count", **LABELS) == 4
    assert value(found, "abgate_request_seconds_sum", **LABELS) == 62.001000001
    cumulative = [value(found, "abgate_request_seconds_bucket", le=str(edge), **LABELS) for edge in REQUEST_BUCKETS_S]
    assert cumulative == sorted(cumulative)
    expected = {"0.0005": 1.0, "0.001": 2.0, "1.0": 2.0, "2.5": 3.0, "30.0": 3.0, "+Inf": 4.0}
    assert {le: value(found, "abgate_request_seconds_bucket", le=le, **LABELS) for le in expected} == expected
    assert value(found, "abgate_gateway_seconds_bucket", le="2e-05", **LABELS) == 4
    assert value(found, "abgate_gateway_seconds_sum", **LABELS) == 80e-6


def test_a_request_the_arm_was_never_given_is_counted_and_leaves_the_arms_times_alone() -> None:
    metrics = Metrics("1.2.3", lambda: VIEW)
    meter = metrics.meter(**LABELS)
    meter.observe(200, "", 5_000_000, 20_000)
    meter.refuse(400)
    meter.refuse(429)
    found = scrape(metrics)
    assert [value(found, "abgate_requests_total", code=code, **LABELS) for code in ("200", "400", "429")] == [1, 1, 1]
    assert value(found, "abgate_request_seconds_count", **LABELS) == 1
    assert value(found, "abgate_request_seconds_sum", **LABELS) == 0.005
    assert value(found, "abgate_gateway_seconds_count", **LABELS) == 1


def test_the_gateways_state_is_read_at_the_scrape() -> None:
    found = scrape(Metrics("1.2.3", lambda: VIEW))
    assert value(found, "abgate_records_written_total") == 100
    assert value(found, "abgate_records_dropped_total") == 4
    assert value(found, "abgate_refused_total") == 3
    assert value(found, "abgate_loop_lag_seconds") == 0.0015
    assert value(found, "abgate_revision") == 7
    assert value(found, "abgate_build_info", version="1.2.3") == 1
    assert value(found, "abgate_experiment_phase", model="m") == 5
    arm = {"model": "m", "experiment": "e", "arm": "a"}
    assert value(found, "abgate_assignments_total", assignment="sticky", **arm) == 11
    assert value(found, "abgate_arm_ready", **arm) == 1
    assert value(found, "abgate_arm_in_flight", **arm) == 2
    assert value(found, "abgate_arm_weight", **arm) == 90
    assert value(found, "abgate_arm_ready", **{**arm, "arm": "b"}) == 0


def test_a_meter_is_kept_over_a_reload_so_that_counters_never_go_back() -> None:
    metrics = Metrics("1", lambda: VIEW)
    assert metrics.meter("m", "e", "a", "tfs-rest") is metrics.meter("m", "e", "a", "tfs-rest")
    assert metrics.meter("m", "e", "a", "tfs-grpc") is not metrics.meter("m", "e", "a", "tfs-rest")


def test_no_metric_can_carry_a_unit() -> None:
    metrics = Metrics("1", lambda: VIEW)
    metrics.meter(**LABELS).observe(200, "", 1, 1)
    names = {name for _, labels in scrape(metrics) for name, _ in labels}
    assert names == {"model", "experiment", "arm", "protocol", "code", "le", "version", "assignment"}


def test_two_gateways_in_one_process_share_nothing() -> None:
    one, two = Metrics("1", lambda: VIEW), Metrics("2", lambda: VIEW)
    one.meter(**LABELS).observe(200, "", 1, 1)
    assert ("abgate_requests_total", tuple(sorted({**LABELS, "code": "200"}.items()))) not in scrape(two)
