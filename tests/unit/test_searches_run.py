"""The searches from end to end on servers that are formulas: what is asked, what is written down, what comes out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from searches_double import Script, requests

from gateway.cli_searches_show import batching_verdict, slo_verdict, sweep_verdict
from gateway.errors import ConfigError
from loadtest.lab.batching import Levels
from loadtest.lab.batching_run import BatchingPlan, BatchingRun
from loadtest.lab.session import Book
from loadtest.lab.slo import Objective, Search
from loadtest.lab.slo_results import Outcomes, Terms
from loadtest.lab.slo_run import SloRun, Times
from loadtest.lab.sweep_run import SweepPlan, SweepRun


def slo_run(script, folder, starts=1, book=None, **changes):
    terms = Terms(
        Objective(20.0, 0.01), ("ts", "tf"), starts, 1, "gateway", "tfs-rest", price=0.04, replicates=200, **changes
    )
    run = SloRun(script.bench(folder, "slo", book=book), terms, Search(), Times(0.5, 3.0, 0.0, 5))
    return run.run()


def mm1_capacity(mu, ms=20.0):
    """The rate at which 1% of an M/M/1-like double's requests take longer than ms: exp(-(mu - r)(ms/1000 - 1/mu)) = 0.01."""
    return mu - 4.605 / (ms / 1e3 - 1 / mu)


def test_slo_finds_both_capacities_their_ratio_and_cost(tmp_path):
    script = Script(lambda name, batch: {"ts": 800.0, "tf": 1600.0}[name])
    results = slo_run(script, tmp_path)
    for name, mu in (("ts", 800.0), ("tf", 1600.0)):
        found, core = results["arms"][name]["capacity"], results["arms"][name]["per_core"]
        assert found["low"] <= mm1_capacity(mu) <= found["high"], name
        assert found["value"] == pytest.approx(mm1_capacity(mu), rel=0.08)
        # the double's cores grow with the rate, so that a core carries mu
        assert core["value"] == pytest.approx(mu, rel=0.05)
        assert results["arms"][name]["cost_per_million"]["value"] == pytest.approx(0.04e6 / (3600 * core["value"]))
        assert results["arms"][name]["cores"]["basis"] == "used"
    ratio = results["ratio"]
    assert ratio["low"] < mm1_capacity(1600.0) / mm1_capacity(800.0) < ratio["high"]
    assert ratio["verdict"] == "cannot tell", "starts differ, and one was measured"
    assert slo_verdict(results)["code"] == 2
    assert slo_verdict(results)["reasons"] == ["1 start was measured, and starts differ; a verdict needs --starts 6"]
    grids = {name: [p["rate"] for p in results["arms"][name]["curve"]] for name in ("ts", "tf")}
    assert grids["ts"] == grids["tf"] == results["grid"]
    written = json.loads((tmp_path / "lab.json").read_text())
    assert written["results"] == results
    assert len(written["blocks"]) == len(script.asked)
    assert script.up_now == 0


def test_a_rate_that_the_generator_sent_late_is_offered_again_and_what_stays_late_is_no_capacity(tmp_path):
    servers = {"ts": 800.0, "tf": 1600.0}
    once = Script(lambda name, batch: servers[name], late=lambda ask: 0 if "again" in ask.id else 10_000)
    results = slo_run(once, tmp_path / "once")
    assert {block for point in results["points"] if "again1" not in (block := point["block"])} == set()
    assert all(arm["valid"] for arm in results["arms"].values())
    grid = [id for id in once.asked if id.startswith("s0-") and "idle" not in id]
    first = [id for id in grid if "again" not in id]
    assert grid[: len(first)] == first, (
        "offered again when the others have been: what disturbed one may last longer than it"
    )
    always = Script(lambda name, batch: servers[name], late=lambda ask: 10_000 if ask.id.startswith("s0-") else 0)
    results = slo_run(always, tmp_path / "always")
    assert {point["block"][-6:] for point in results["points"]} == {"again2"}
    assert not any(arm["valid"] for arm in results["arms"].values())
    assert slo_verdict(results)["text"].startswith("INVALID")


def test_a_wrong_class_is_the_models_mistake_and_an_output_unlike_the_reference_the_servers():
    got = requests([0.0, 0.1, 0.2, 0.3], [1.0, 2.0, float("inf"), 3.0])
    got = replace(got, correct=np.array([1, 0, -1, -1], np.int8))
    assert Outcomes.of(got, "label").answered.tolist() == [True, True, False, True]
    assert Outcomes.of(got, "reference").answered.tolist() == [True, False, False, True]
    assert Outcomes.of(got, "reference").latency_ms.tolist() == [1.0, float("inf"), float("inf"), 3.0]


def test_no_verdict_beside_a_stand_in(tmp_path):
    results = slo_run(Script(lambda name, batch: {"ts": 800.0, "tf": 1600.0}[name], stand_in=True), tmp_path)
    verdict = slo_verdict(results)
    assert results["ratio"]["verdict"] == "no verdict: stand-in"
    assert verdict["code"] == 0
    assert "measured on the stand-in" in verdict["text"]


def test_a_busy_gateway_makes_no_capacity(tmp_path):
    results = slo_run(Script(lambda name, batch: 800.0, gateway_cores=0.8), tmp_path)
    verdict = slo_verdict(results)
    assert verdict["code"] == 2
    assert verdict["text"].startswith("INVALID")
    assert "--direct" in verdict["reasons"][0]
    assert results["ratio"]["verdict"] == "INVALID"


def test_other_processes_make_no_capacity(tmp_path):
    results = slo_run(Script(lambda name, batch: 800.0, others_cores=0.9), tmp_path)
    assert slo_verdict(results)["text"].startswith("INVALID")
    assert "other processes of this machine used 0.90 cores" in slo_verdict(results)["reasons"][0]


def test_another_rate_meets_other_arrivals_and_another_arm_the_same(tmp_path):
    seeds = {}

    class Seeds(Script):
        def measure(self, running, ask, folder):
            if ask.id.startswith("s0-") and not ask.load.concurrency:
                seeds.setdefault(ask.load.course[0].from_rate, set()).add(ask.seed)
            return super().measure(running, ask, folder)

    slo_run(Seeds(lambda name, batch: 800.0), tmp_path)
    assert {len(found) for found in seeds.values()} == {1}
    assert len({seed for found in seeds.values() for seed in found}) == len(seeds) > 4


def test_six_starts_are_compared_in_pairs(tmp_path):
    speeds = iter([1.0, 1.1, 0.9, 1.05, 0.95, 1.02] * 100)
    factor = {}

    def capacity(name, batch):
        return factor.setdefault(len(script.starts), next(speeds)) * {"ts": 800.0, "tf": 1600.0}[name]

    script = Script(capacity)
    results = slo_run(script, tmp_path, starts=6)
    assert results["primary"] == "starts"
    assert len(results["arms"]["ts"]["per_start"]) == 6 == len(script.starts)
    assert "paired t" in results["ratio"]["method"]
    assert results["ratio"]["low"] < mm1_capacity(1600.0) / mm1_capacity(800.0) < results["ratio"]["high"]
    assert results["ratio"]["verdict"] == "B better"
    assert slo_verdict(results)["code"] == 0


@pytest.mark.parametrize(("twin", "unbiased", "verdict"), [(800.0, True, "cannot tell"), (1000.0, False, "INVALID")])
def test_twins_of_the_baseline_that_differ_void_the_ratio(tmp_path, twin, unbiased, verdict):
    servers = {"ts": 800.0, "tf": 1600.0, "ts-aa": twin}
    script = Script(lambda name, batch: servers[name])
    terms = Terms(Objective(20.0, 0.01), ("ts", "tf", "ts-aa"), 1, 1, "gateway", "tfs-rest", replicates=200, aa="ts-aa")
    bench = script.bench(tmp_path, "slo", names=("ts", "tf", "ts-aa"))
    results = SloRun(bench, terms, Search(), Times(0.5, 3.0, 0.0, 5)).run()
    assert results["aa"]["unbiased"] is unbiased
    assert (results["aa"]["baseline"], results["aa"]["arm"]) == ("ts", "ts-aa")
    assert [results[key]["verdict"] for key in ("ratio", "ratio_per_core")] == [verdict] * 2
    assert ("two instances of ts differ" in results["ratio"]["reason"]) is not unbiased
    assert not [id for id in script.asked if id.startswith("probe-ts-aa")], "the baseline's bracket is the twin's"


def test_an_slo_that_nothing_meets(tmp_path):
    results = slo_run(Script(lambda name, batch: {"ts": 30.0, "tf": 30.0}[name]), tmp_path)
    verdict = slo_verdict(results)
    assert verdict["code"] == 1
    assert "missed at every rate" in verdict["text"]
    assert results["grid"] == []


def test_sweep_stops_where_nothing_is_gained(tmp_path):
    script = Script(lambda name, batch: {"ts": 500.0, "tf": 1000.0}[name])
    plan = SweepPlan("gateway", "tfs-rest", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), point=0.5, warmup=0.0)
    results = SweepRun(script.bench(tmp_path, "sweep"), plan).run()
    closed = [curve for curve in results["curves"] if curve["mode"] == "closed loop"]
    offered = [curve for curve in results["curves"] if curve["mode"] == "open loop"]
    assert len(closed) == len(offered) == 2
    assert all("1024 and more not measured" in curve["stopped"] for curve in closed)
    assert all(curve["peak"]["at"] >= 64 for curve in closed)
    rates = [[point["rate"] for point in curve["points"]] for curve in offered]
    shorter, longer = sorted(rates, key=len)
    assert longer[: len(shorter)] == shorter
    assert sweep_verdict(results)["code"] == 0


def batched(name, batch):
    return {"ts": 300.0, "tf": 350.0}[name] * batch.max_batch**0.5


PLAN = BatchingPlan("direct", "tfs-rest", Levels(most=12, zero=frozenset({"tf"})), point=3.0, warmup=0.0)


def paste(arm, setting):
    return {"file": "f", "server": f"{setting.max_batch}\n", "abgate": "a\n"}


def test_batching_starts_servers_for_every_setting_and_finds_the_front(tmp_path):
    script = Script(batched)
    results = BatchingRun(script.bench(tmp_path, "batching"), PLAN, paste).run()
    assert script.starts[0] == [("ts", 1, 0.0), ("tf", 1, 0.0)]
    assert {(batch, wait) for start in script.starts for _, batch, wait in start} == {
        (cell["max_batch"], cell["wait_ms"]) for cell in results["cells"]
    }
    assert results["open_rate"] == pytest.approx(0.6 * 300 * 8 / 10, rel=0.05)
    assert {cell["open"]["rate"] for cell in results["cells"]} == {results["open_rate"]}
    for name in ("ts", "tf"):
        assert results["best"][name]["throughput"]["max_batch"] == 64
        assert results["best"][name]["latency"]["wait_ms"] <= 1.0
        assert results["fragments"][name]["throughput"]["server"] == "64\n"
    assert batching_verdict(results)["code"] == 0
    assert script.up_now == 0


@pytest.mark.parametrize("cut", [3, 6])
def test_batching_goes_on_after_an_interrupt(tmp_path, cut):
    whole = Script(batched)
    expected = BatchingRun(whole.bench(tmp_path / "whole", "batching"), PLAN, paste).run()
    first = Script(batched, fails_at=cut)
    with pytest.raises(KeyboardInterrupt):
        BatchingRun(first.bench(tmp_path / "cut", "batching"), PLAN, paste).run()
    assert first.up_now == 0
    second = Script(batched)
    book = Book.resumed(tmp_path / "cut", "batching")
    measured = len(book.document["results"].get("cells", []))
    found = BatchingRun(second.bench(tmp_path / "cut", "batching", book=book), PLAN, paste).run()
    cells = [[(c["arm"], c["max_batch"], c["wait_ms"]) for c in one["cells"]] for one in (expected, found)]
    assert sorted(cells[0][: 2 * 10]) == sorted(cells[1][: 2 * 10]), "the part that does not depend on figures"
    assert len(second.asked) == 2 * (len(found["cells"]) - measured)
    ids = [block["id"] for block in book.blocks]
    assert len(ids) == len(set(ids)), "a block that was measured again takes the place of the first"


def test_a_run_of_another_kind_cannot_go_on(tmp_path):
    Script(batched).bench(tmp_path, "sweep")
    with pytest.raises(ConfigError, match="a run of kind 'sweep', not 'batching'"):
        Book.resumed(tmp_path, "batching")


@pytest.mark.parametrize("cut", [2, 30, 45])
def test_slo_goes_on_with_its_brackets_and_whole_starts(tmp_path, cut):
    servers = {"ts": 800.0, "tf": 1600.0}
    first = Script(lambda name, batch: servers[name], fails_at=cut)
    with pytest.raises(KeyboardInterrupt):
        slo_run(first, tmp_path, starts=2)
    before = json.loads((tmp_path / "lab.json").read_text())["results"]
    kept = [point["block"] for point in before.get("points", []) if point["replicate"] in before["whole"]]
    second = Script(lambda name, batch: servers[name])
    found = slo_run(second, tmp_path, starts=2, book=Book.resumed(tmp_path, "slo"))
    assert set(before.get("bracket", {})) <= set(found["bracket"])
    assert len(second.starts) == 2 - len(before.get("whole", []))
    assert not set(kept) & set(second.asked), "a start that was whole was measured again"
    assert bool(before.get("grid")) != any(id.startswith("probe-ts") for id in second.asked)
    assert sorted({(p["arm"], p["rate"], p["replicate"]) for p in found["points"]}) == sorted(
        (arm, rate, start) for arm in servers for rate in found["grid"] for start in (0, 1)
    )
    assert len(found["points"]) == 2 * 2 * len(found["grid"])
    for name, mu in servers.items():
        assert found["arms"][name]["capacity"]["value"] == pytest.approx(mm1_capacity(mu), rel=0.08)


def test_slo_that_was_whole_still_knows_the_stand_in(tmp_path):
    servers = {"ts": 800.0, "tf": 1600.0}
    slo_run(Script(lambda name, batch: servers[name], stand_in=True), tmp_path)
    again = Script(lambda name, batch: servers[name], stand_in=True)
    results = slo_run(again, tmp_path, book=Book.resumed(tmp_path, "slo"))
    assert again.starts == []
    assert results["ratio"]["verdict"] == "no verdict: stand-in"


@pytest.mark.parametrize("cut", [0, 5, 17])
def test_sweep_goes_on_with_the_curves_that_were_whole(tmp_path, cut):
    plan = SweepPlan("gateway", "tfs-rest", (1, 2, 4, 8), rates=(50, 100, 200), point=0.5, warmup=0.0, starts=2)
    first = Script(lambda name, batch: {"ts": 500.0, "tf": 1000.0}[name], fails_at=cut)
    with pytest.raises(KeyboardInterrupt):
        SweepRun(first.bench(tmp_path, "sweep"), plan).run()
    second = Script(lambda name, batch: {"ts": 500.0, "tf": 1000.0}[name])
    found = SweepRun(second.bench(tmp_path, "sweep", book=Book.resumed(tmp_path, "sweep")), plan).run()
    curves = [(one["replicate"], one["arm"], one["mode"]) for one in found["curves"]]
    assert sorted(curves) == sorted(
        (start, arm, mode) for start in (0, 1) for arm in ("ts", "tf") for mode in ("closed loop", "open loop")
    )
    assert all(one["whole"] for one in found["curves"])
    # what was whole: 14 blocks are a start, 4 of each closed curve and 3 of each open one
    assert len(second.asked) == 28 - {0: 0, 5: 4, 17: 14}[cut]
