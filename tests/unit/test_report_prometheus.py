"""Literal scrapes: TF Serving's and our handler's, cut short, restarted, and with bounds read either way."""

from __future__ import annotations

import pytest

from gateway.reports.batches import batching, range_name
from gateway.reports.prometheus_text import HistogramDelta, batch_buckets, counter_delta, histogram_delta, parse
from gateway.reports.records import ArmRecords
from gateway.stats.result import NotComputable

INF = float("inf")
TFS = ":tensorflow:serving:batching_session:processed_batch_size"
BEFORE = f"""# TYPE {TFS} histogram
{TFS}_bucket{{le="1"}} 5
{TFS}_bucket{{le="2"}} 5
{TFS}_bucket{{le="4"}} 5
{TFS}_bucket{{le="+Inf"}} 5
{TFS}_sum{{}} 5
{TFS}_count{{}} 5
"""
AFTER = f"""# TYPE {TFS} histogram
{TFS}_bucket{{le="1"}} 15
{TFS}_bucket{{le="2"}} 18
{TFS}_bucket{{le="4"}} 20
{TFS}_bucket{{le="+Inf"}} 20
{TFS}_sum{{}} 29
{TFS}_count{{}} 20
:tensorflow:serving:batching_session:padding_size_sum{{execution_batch_size="4"}} 2
:tensorflow:serving:batching_session:queuing_latency_sum{{thread_pool_name="a"}} 3000
:tensorflow:serving:batching_session:queuing_latency_count{{thread_pool_name="a"}} 10
"""
HANDLER = """abgate_batch_size_bucket{ModelName="digits",ModelVersion="1.0",le="1",} 4.0
abgate_batch_size_bucket{ModelName="digits",ModelVersion="1.0",le="2",} 6.0
abgate_batch_size_bucket{ModelName="digits",ModelVersion="1.0",le="+Inf",} 6.0
abgate_batch_size_sum{ModelName="digits",ModelVersion="1.0",} 8.0
abgate_batch_size_count{ModelName="digits",ModelVersion="1.0",} 6.0
"""


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('a_total{x="1"} 2', ("a_total", (("x", "1"),)), 2.0),
        ("a_total 2.5e3", ("a_total", ()), 2500.0),
        (":tf:a{} 3", (":tf:a", ()), 3.0),
        ('a{y="2",x="1",} 1 1700000000000', ("a", (("x", "1"), ("y", "2"))), 1.0),
        ('a{x="q\\"}, \\\\ "} 1', ("a", (("x", 'q\\"}, \\\\ '),)), 1.0),
    ],
)
def test_a_sample_line(line: str, key: object, value: float) -> None:
    assert parse(line) == {key: value}


@pytest.mark.parametrize("line", ["", "# HELP a b", "# TYPE a counter", "a", 'a{x="1"} x', 'a{x="1', "{} 3"])
def test_what_is_no_sample_is_skipped(line: str) -> None:
    assert parse(line) == {}


def test_counter_deltas_add_over_labels_and_start_at_zero() -> None:
    before, after = parse('a{x="1"} 5'), parse('a{x="1"} 7\na{x="2"} 4')
    assert counter_delta(before, after, "a") == 6.0
    assert counter_delta(before, after, "b") == NotComputable("not told by the server")
    restarted = counter_delta(after, before, "a")
    assert isinstance(restarted, NotComputable)
    assert "restarted" in restarted.reason


def test_histogram_between_two_scrapes() -> None:
    assert histogram_delta(parse(BEFORE), parse(AFTER), TFS) == HistogramDelta((1, 2, 4, INF), (10, 3, 2, 0), 24, 15)
    assert isinstance(histogram_delta(parse(AFTER), parse(BEFORE), TFS), NotComputable)
    assert isinstance(histogram_delta({}, {}, TFS), NotComputable)
    assert isinstance(histogram_delta({}, parse(f"{TFS}_sum 1\n{TFS}_count 1"), TFS), NotComputable)


@pytest.mark.parametrize(
    ("bounds", "counts", "total", "expected"),
    [
        # Prometheus's reading: the bound belongs to the bucket
        ((1, 2, 4, INF), (10, 3, 2, 0), 24, {"1": 10, "2": 3, "3-4": 2}),
        # TensorFlow's sampler: a batch of 1 is counted under le="2", one of 2 or 3 under le="4"
        ((1, 2, 4, 8, INF), (0, 10, 3, 0, 0), 17, {"1": 10, "2-3": 3}),
        ((1, 2, INF), (1, 0, 2), 40, {"1": 1, "3+": 2}),
    ],
)
def test_the_sum_tells_how_bounds_are_meant(
    bounds: tuple[float, ...], counts: tuple[float, ...], total: float, expected: dict[str, float]
) -> None:
    assert batch_buckets(HistogramDelta(bounds, counts, total, sum(counts))) == expected


def test_the_tensorflow_side_tells_rows_padding_and_waiting() -> None:
    told = batching(None, (BEFORE, AFTER))
    assert told["distributions"] == [
        {
            "what": "rows per batch, padding included",
            "source": "server's counters over the window",
            "batches": 15.0,
            "mean": 24 / 15,
            "buckets": [
                {"size": "1", "batches": 10.0, "share": 10 / 15},
                {"size": "2", "batches": 3.0, "share": 3 / 15},
                {"size": "3-4", "batches": 2.0, "share": 2 / 15},
            ],
        }
    ]
    assert told["padding_rows"] == 2.0
    assert told["padding_share"] == 2 / 24
    assert told["queue_ms"] == {"source": "server's counters over the window", "mean": 0.3}


def test_our_handlers_counters_are_a_histogram() -> None:
    (entry,) = batching(None, ("", HANDLER))["distributions"]
    assert (entry["what"], entry["batches"], entry["mean"]) == ("requests per batch", 6.0, 8 / 6)


def test_replies_are_counted_as_batches() -> None:
    records = ArmRecords(
        count=14, times={"queue_ns": {"n": 14, "mean": 1, "p50": 1, "p95": 2, "p99": 2, "max": 3}}, error_kinds={},
        batches={1: 2.0, 4: 3.0}, batch_rows={1: 2.0, 8: 3.0}, batch_told=14, protocols_out={}, implementations={},
        versions={}, bytes_in=0, bytes_out=0,
    )  # fmt: skip
    requests, rows = batching(records, None)["distributions"]
    assert (requests["what"], requests["mean"]) == ("requests per batch", 14 / 5)
    assert (rows["what"], rows["mean"]) == ("rows per batch", 26 / 5)
    assert batching(records, None)["queue_ms"]["source"] == "told with each answer"


@pytest.mark.parametrize("texts", [None, ("", ""), ("", "other 1\n"), (BEFORE, BEFORE)])
def test_a_silent_server_is_not_zero(texts: tuple[str, str] | None) -> None:
    told = batching(None, texts)
    assert told["distributions"] == {"not_computable": "not told by the server"}
    assert told["queue_ms"] == {"not_computable": "not told by the server"}


def test_a_restart_between_the_scrapes_is_said() -> None:
    told = batching(None, (AFTER, BEFORE))
    assert "restarted" in told["distributions"]["not_computable"]


@pytest.mark.parametrize(
    ("size", "name"), [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (64, "33-64"), (1024, "513-1024"), (5000, "1025+")]
)
def test_ranges(size: int, name: str) -> None:
    assert range_name(size) == name
