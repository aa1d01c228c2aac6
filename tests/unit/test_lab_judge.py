"""From blocks to verdicts: orders, pairs, the A/A check, stand-ins, invalid blocks, and the count of real A/A alarms."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from loadtest.lab import aa, plan
from loadtest.lab.comparison import analyse, plan_of
from loadtest.lab.judge import STAND_IN
from loadtest.lab.order import turns
from loadtest.lab.plan import ComparisonPlan, from_json, to_json
from loadtest.lab.starts import idle_cores
from tests.unit.lab_values import arm, block

SAME_KIND = {name: {"kind": "torchserve", "stand_in": False} for name in ("a", "b", "a-aa")}


@pytest.mark.parametrize(("arms", "starts"), [("ab", 6), ("abc", 6), ("abcd", 8), ("ab", 7), ("abc", 1)])
def test_every_pair_of_arms_runs_in_both_orders_equally_often(arms: str, starts: int) -> None:
    found = turns(list(arms), starts, seed=3)
    assert len(found) == starts
    assert all(sorted(order) == list(arms) for order in found)
    for one, other in combinations(arms, 2):
        first = sum(order.index(one) < order.index(other) for order in found)
        assert abs(2 * first - starts) == starts % 2
    assert found == turns(list(arms), starts, seed=3)
    assert starts == 1 or found != turns(list(arms), starts, seed=4) or found != turns(list(arms), starts, seed=5)


def made(tmp_path: Path, **given: Any) -> ComparisonPlan:
    import numpy as np

    np.savez(tmp_path / "inputs.npz", x=np.zeros((2, 1)), label=np.zeros(2))
    experiment = plan.Experiment.model_validate(
        {
            "question": "which, for {model}?",
            "loads": {"c1": {"closed": 1}},
            "primary": {"metric": "service p50", "load": "c1"},
            **{name: {"duration": 1, "warmup": 0, "slack": 0, "prime": 0} for name in ("quick", "full")},
            **given,
        }
    )
    return plan_of(experiment, "test", [arm("a"), arm("b")], tmp_path, full=False, direct=False)


def document(a: Any, b: Any, twin: Any, **changed: Any) -> dict[str, Any]:
    """Six (or as many as a has) starts of three arms; which one comes first alternates."""
    blocks = []
    for start, values in enumerate(zip(a, b, twin, strict=True)):
        names = ("a", "b", "a-aa")
        for place, name in enumerate(names if start % 2 else names[::-1]):
            blocks.append(block(name, start, place, values[names.index(name)], others_cores=0.0))
    base = {"arms": SAME_KIND, "blocks": blocks, "complete": True, "results": {}, "plan": {}}
    return base | changed


A = (10.0, 10.1, 9.9, 10.05, 9.95, 10.0)
B_FAST = tuple(0.8 * value for value in (10.0, 10.05, 10.0, 9.95, 10.0, 10.1))
TWIN = (10.02, 10.05, 9.96, 10.0, 9.97, 10.01)
BIASED = tuple(1.1 * value for value in TWIN)


@pytest.mark.parametrize(
    ("b", "twin", "verdict", "code", "valid"),
    [
        (B_FAST, TWIN, "B better", 0, True),
        (tuple(1.3 * value for value in A[::-1]), TWIN, "A better", 1, True),
        (TWIN[::-1], TWIN, "no difference beyond the margin", 0, True),
        (tuple(1.05 * value for value in TWIN[::-1]), TWIN, "cannot tell", 2, True),
        (B_FAST, BIASED, "INVALID", 2, False),
    ],
)
def test_the_primary_comparison_decides(
    tmp_path: Path, b: Any, twin: Any, verdict: str, code: int, valid: bool
) -> None:
    found = document(A, b, twin)
    analyse(made(tmp_path), found)
    primary = [one for one in found["comparisons"] if one["primary"]]
    assert [one["verdict"] for one in primary] == [verdict]
    assert (found["verdict"]["code"], found["verdict"]["valid"]) == (code, valid)
    assert found["verdict"]["text"].startswith(f"{verdict}: b (B) against a (A), service p50")
    assert primary[0]["n"] == 6
    assert {pair[2] for pair in primary[0]["pairs"]} == {"AB", "BA"}


def test_five_starts_are_too_few_and_nothing_is_guessed(tmp_path: Path) -> None:
    found = document(A[:5], B_FAST[:5], TWIN[:5])
    analyse(made(tmp_path), found)
    primary = next(one for one in found["comparisons"] if one["primary"])
    assert primary["missing"] == "5 pairs of starts, at least 6 are needed"
    assert "verdict" not in primary
    assert found["verdict"]["code"] == 2


def test_an_unfinished_run_has_no_valid_verdict(tmp_path: Path) -> None:
    found = document(A, B_FAST, TWIN, complete=False)
    analyse(made(tmp_path), found)
    assert (found["verdict"]["code"], found["verdict"]["valid"]) == (2, False)
    assert "--resume" in found["verdict"]["reasons"][-1]


@pytest.mark.parametrize(
    ("kind", "stand_in", "verdict"),
    [
        ("tensorflow_serving", True, STAND_IN),
        ("tensorflow_serving", False, "B better"),
        ("torchserve", False, "B better"),
    ],
)
def test_a_stand_in_is_not_judged_against_another_kind_of_server(
    tmp_path: Path, kind: str, stand_in: bool, verdict: str
) -> None:
    arms = SAME_KIND | {"b": {"kind": kind, "stand_in": stand_in}}
    found = document(A, B_FAST, TWIN, arms=arms)
    analyse(made(tmp_path), found)
    primary = next(one for one in found["comparisons"] if one["primary"])
    assert primary["verdict"] == verdict
    assert primary["value"] == pytest.approx(0.8, rel=0.01)  # the figure stands, the judgement does not
    assert found["verdict"]["code"] == (2 if verdict == STAND_IN else 0)


def test_variants_on_the_stand_in_are_judged(tmp_path: Path) -> None:
    arms = {name: {"kind": "tensorflow_serving", "stand_in": True} for name in SAME_KIND}
    found = document(A, B_FAST, TWIN, arms=arms)
    analyse(made(tmp_path), found)
    assert next(one for one in found["comparisons"] if one["primary"])["verdict"] == "B better"


def test_a_bad_block_makes_its_comparisons_invalid_and_a_busy_gateway_only_capacities(tmp_path: Path) -> None:
    found = document(A, B_FAST, TWIN)
    for one in found["blocks"]:
        if one["arm"] == "b":
            one["capacity"] = {"valid": False, "reasons": ["the gateway used 0.90 of a core"]}
    analyse(made(tmp_path), found)
    verdicts = {one["metric"]: one.get("verdict") for one in found["comparisons"]}
    assert (verdicts["throughput"], verdicts["service p50"]) == ("INVALID", "B better")
    found["blocks"][0] |= {"valid": False, "reasons": ["arm b: the process ended"]}
    analyse(made(tmp_path), found)
    assert found["verdict"]["valid"] is False
    assert "the process ended" in found["verdict"]["reasons"][0]


def test_secondary_metrics_carry_holms_p_and_errors_a_difference(tmp_path: Path) -> None:
    found = document(A, B_FAST, TWIN)
    analyse(made(tmp_path), found)
    by_metric = {one["metric"]: one for one in found["comparisons"]}
    assert by_metric["service p50"]["p_holm"] is None
    assert by_metric["service p95"]["p_holm"] >= by_metric["service p95"]["p"]
    assert by_metric["errors"]["missing"] == "none in any block of either arm"
    assert by_metric["errors"]["unit"] == "difference"
    assert "intended p50" not in by_metric  # a closed loop has no intended times


def test_other_processes_on_the_machine_are_told(tmp_path: Path) -> None:
    found = document(A, B_FAST, TWIN)
    found["blocks"][0]["others_cores"] = 1.3
    analyse(made(tmp_path), found)
    assert "in 1 of 18 blocks other processes" in found["verdict"]["reasons"][-1]


def test_the_idle_arms_use_is_told() -> None:
    blocks = [block("a", 0, 0, 1.0), block("b", 0, 1, 1.0)]
    blocks[0]["cpu"]["arm b"] = {"cores": 0.02, "rss_bytes": 1}
    assert idle_cores(blocks) == {"b": 0.02}


def test_a_plan_comes_back_from_its_json(tmp_path: Path) -> None:
    one = made(tmp_path, loads={"c1": {"closed": 1}, "half": {"share": 0.5}})
    assert from_json(to_json(one)) == one
    assert one.pilot_load == 1
    assert one.rates(100.0) == {"half": 50.0}
    assert one.arms[-1].name == one.aa == "a-aa"
    assert one.check == "label"


@pytest.mark.parametrize("name", plan.shipped())
def test_shipped_experiments_are_whole(name: str) -> None:
    assert plan.load(name).replicates >= 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loads: {c1: {closed: 1, rate: 2}}", "needs exactly one of closed, rate and share"),
        ("loads: {c2: {closed: 1}}", "there is no load 'c1'"),
        ("loads: {c1: {rate: 1}}\nprimary: {metric: throughput, load: c1}", "is that rate"),
        ("loads: {c1: {closed: 1}}\nprimary: {metric: intended p99, load: c1}", "no intended times"),
        ("loads: {c1: {closed: 1}}\nmargin: 0", "margin"),
        ("loads: {c1: {closed: 1}}\nsurprise: 1", "surprise"),
    ],
)
def test_an_experiment_that_contradicts_itself_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "e.yaml"
    timing = "{duration: 1s, warmup: 0s, slack: 0s, prime: 0s}"
    head = "" if "primary" in text else "primary: {metric: service p50, load: c1}\n"
    path.write_text(f"question: q\n{head}quick: {timing}\nfull: {timing}\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        plan.load(str(path))


@pytest.mark.parametrize(("analyses", "bound"), [(20, 3), (400, 29), (2, 1)])
def test_how_many_alarms_an_error_rate_explains(analyses: int, bound: int) -> None:
    assert aa.bound(analyses, 0.05) == bound


@pytest.mark.parametrize(("twin", "alarms", "code"), [(TWIN, 0, 0), (BIASED, 2, 1)])
def test_real_aa_analyses_are_counted_set_by_set(tmp_path: Path, twin: Any, alarms: int, code: int) -> None:
    one = made(tmp_path)
    both = aa.plan_of(
        plan.load("aa").model_copy(update={"loads": one.loads, "primary": one.primary}),
        "aa",
        [arm("a")],
        tmp_path,
        analyses=2,
    )
    assert (both.replicates, [item.name for item in both.arms]) == (12, ["a", "a-aa"])
    blocks = []
    for start in range(12):
        for place, (name, values) in enumerate((("a", A), ("a-aa", twin))[:: 1 if start % 2 else -1]):
            blocks.append(block(name, start, place, values[start % 6]))
    found: dict[str, Any] = {
        "blocks": blocks,
        "complete": True,
        "results": {},
        "plan": {"analyses": 2, "starts_each": 6},
    }
    aa.analyse(both, found)
    assert (found["results"]["done"], found["results"]["alarms"]) == (2, alarms)
    assert found["verdict"]["code"] == code
    found["complete"], found["blocks"] = False, blocks[:12]
    aa.analyse(both, found)
    assert (found["results"]["done"], found["verdict"]["code"]) == (1, 2)
