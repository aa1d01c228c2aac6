"""What a batching server did, from what it told; the words and fragments that the searches print."""

import math

import click
import numpy as np
import pytest
import yaml

from backends.embedded.config_files import read_batching_parameters
from gateway.cli_lab import Pace
from gateway.cli_searches import a_share
from gateway.cli_searches_show import fragments, interval, slo_verdict
from gateway.reports.prometheus_text import parse
from gateway.stats.result import Estimate, Interval, NotComputable
from loadtest.lab import batch_shape as shape
from loadtest.lab.batching import UNBATCHED, Setting
from loadtest.lab.slo_results import cost, over_starts, told
from loadtest.lab.spec import Resources

TFS = ":tensorflow:serving:batching_session:"


def scrape(name, buckets, total):
    """A scrape with one histogram: upper bound -> observations below it (cumulative)."""
    lines = [f'{TFS}{name}_bucket{{le="{bound}"}} {count}' for bound, count in buckets.items()]
    return parse("\n".join([*lines, f"{TFS}{name}_sum{{}} {total}", f"{TFS}{name}_count{{}} {buckets['+Inf']}"]))


def test_sizes_told_by_answers_weigh_as_batches():
    """Eight answers of one full batch, six of three pairs, two alone: six batches."""
    found = shape.from_answers(np.array([8] * 8 + [2] * 6 + [1] * 2 + [-1], np.int32), 8)
    assert found["buckets"] == {"5-8": 1, "2": 3, "1": 2}
    assert (found["mean"], found["full"], found["timeout"]) == (pytest.approx(16 / 6), 1 / 6, 5 / 6)
    assert found["fill"] == pytest.approx(16 / 6 / 8)
    assert "missing" in shape.from_answers(np.array([-1, -1], np.int32), 8)


def test_sizes_of_the_histogram_exclude_their_upper_bound():
    """TensorFlow counts a batch of exactly 8 rows under le=16."""
    after = scrape("processed_batch_size", {"1": 0, "2": 10, "4": 20, "8": 20, "16": 50, "+Inf": 50}, 10 + 30 + 240)
    found = shape.from_rows((parse(""), after), 8)
    assert found["buckets"] == {"1": 10, "2-3": 10, "8": 30}
    assert (found["full"], found["mean"], found["unit"]) == (0.6, 5.6, "rows")
    assert "missing" in shape.from_rows((parse(""), after), 6)["full"], "no bucket begins at 6"
    assert "missing" in shape.from_rows(None, 8)
    assert "missing" in shape.from_rows((after, after), 8), "nothing in between"


def test_waits():
    told_ns = np.concatenate([np.arange(1, 1001) * 1_000_000, [-1]])
    exact = shape.queue_answers(told_ns)
    assert exact["p50"] == {"low": 500.0, "high": 500.0}
    assert exact["p99"] == {"low": 990.0, "high": 990.0}
    assert "missing" in shape.queue_answers(told_ns[:100])["p99"]
    after = scrape("queuing_latency", {"100": 0, "120": 400, "144": 900, "+Inf": 1000}, 130_000)
    found = shape.queue_rows((parse(""), after))
    assert found["p50"] == {"low": 0.12, "high": 0.144}
    assert found["p99"] == {"low": 0.144, "high": None}
    assert found["mean_ms"] == pytest.approx(0.13)


def test_padding():
    text = f"{TFS}padding_size_sum{{}} 25\n{TFS}processed_batch_size_sum{{}} 100\n"
    assert shape.padding((parse(""), parse(text)))["share"] == 0.25
    assert "missing" in shape.padding((parse(""), parse("")))


@pytest.mark.parametrize("setting", [UNBATCHED, Setting(16, 2.0), Setting(8, 0.0)])
@pytest.mark.parametrize("kind", ["torchserve", "tensorflow_serving"])
def test_fragments_are_what_the_servers_read(kind, setting, tmp_path):
    arm = type("Arm", (), {"name": "one", "kind": kind, "resources": Resources(threads=1, workers=2)})
    found = fragments(arm, setting)
    section = yaml.safe_load(found["abgate"])["backends"]["one"]["batching"]
    assert section == {"max_batch_size": setting.max_batch, "max_wait_ms": setting.wait_ms}
    if kind == "torchserve":
        read = yaml.safe_load(found["server"])
        assert (read["batchSize"], read["maxBatchDelay"]) == (setting.max_batch, max(1, setting.wait_ms))
        assert found["file"] == "model-config.yaml"
    elif setting is UNBATCHED:
        assert "without --enable_batching" in found["server"]
    else:
        file = tmp_path / "batching.config"
        file.write_text(found["server"])
        read = read_batching_parameters(file)
        assert read.batch_timeout_micros == 1000 * setting.wait_ms


@pytest.mark.parametrize(
    ("price", "core", "found"),
    [
        (None, Estimate(100.0, 5, Interval(80.0, 125.0)), None),
        (0.036, Estimate(100.0, 5, Interval(80.0, 125.0)), {"value": 0.1, "low": 0.08, "high": 0.125}),
        (0.036, NotComputable("why"), {"missing": "why"}),
    ],
)
def test_cost(price, core, found):
    assert cost(core, price) == (found if found is None or "missing" in found else pytest.approx(found))


def test_over_starts():
    class Start:
        def __init__(self, value):
            self.estimate = Estimate(value, 1, NotComputable(""))

    found = over_starts([Start(math.exp(x)) for x in (1, 2, 3)])
    assert found.value == pytest.approx(math.exp(2))
    assert math.log(found.interval.high) == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3)
    assert over_starts([Start(2.0), NotComputable("too few")]).reason == "start 2: too few"
    assert told(Estimate(1.0, 1, NotComputable("w"))) == {"value": 1.0, "low": None, "high": None, "reason": "w"}


@pytest.mark.parametrize(("text", "value"), [("0.1%", 0.001), ("0.05", 0.05), (" 5 %", 0.05)])
def test_a_share(text, value):
    assert a_share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", "1", "100%", "-1%", "a", "1.2.3", ""])
def test_no_share(text):
    with pytest.raises(click.BadParameter, match=r"0\.1% or 0\.001"):
        a_share(text)


@pytest.mark.parametrize(("first", "later", "left"), [(0.0, 0.25, 150.0), (0.5, 0.75, 50.0), (0.5, 0.5, None)])
def test_the_time_left_goes_by_the_pace_of_this_part_of_the_run(first, later, left):
    pace = Pace(began=100.0)
    assert pace.left(first, 105.0) is None
    assert pace.left(later, 150.0) == left


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ({"missing": "why"}, "missing: why"),
        ({"value": 1.23456, "low": 1.0, "high": 2.0}, "1.235 (1 to 2)"),
        ({"value": 1.0, "low": None, "high": None, "reason": "why"}, "1 (no interval: why)"),
    ],
)
def test_interval_in_words(value, text):
    assert interval(value) == text


@pytest.mark.parametrize(("verdict", "code"), [("A better", 1), ("B better", 0), ("no difference beyond the margin", 0),
                                               ("cannot tell", 2), ("no verdict: stand-in", 0)])  # fmt: skip
def test_exit_codes_of_slo(verdict, code):
    arm = {"per_core": {"value": 1.0, "low": 0.5, "high": 2.0}, "reasons": []}
    results = {
        "arms": {"a": arm, "b": arm},
        "bracket": {"a": {"low": 1, "high": 2, "note": ""}},
        "ratio": {"verdict": verdict},
    }
    assert slo_verdict(results)["code"] == code
