"""From figures to answers, in tables of literals: every rule in both directions, several parts, Holm, stand-ins, A/A."""

from typing import Any

import pytest

from gateway.stats.effects import Effect, Scale
from gateway.stats.holm import Adjusted, holm
from gateway.stats.result import NotComputable
from loadtest.claims import evaluate, onnx, phases, table, worker
from loadtest.claims.answer import Circumstances, Judged, alone, answer, combine, judge
from loadtest.claims.plan import block_id, plan, turns

MISSING = NotComputable("arm gone")


def effect(low: float, high: float, scale: Scale = Scale.RATIO) -> Effect:
    """An effect of 6 pairs whose 95% interval is [low, high]."""
    a, b = scale.inner(low), scale.inner(high)
    return Effect((a + b) / 2, (b - a) / 2 / 2.570582, 5, 6, scale)


@pytest.mark.parametrize(
    ("rule", "bound", "low", "high", "told"),
    [
        ("tie", 0.10, 0.95, 1.05, "holds"),
        ("tie", 0.10, 0.91, 1.099, "holds"),
        ("tie", 0.10, 0.90, 1.05, "inconclusive"),
        ("tie", 0.10, 1.12, 1.30, "contradicted"),
        ("tie", 0.10, 0.50, 0.90, "contradicted"),
        ("tie", 0.10, 1.05, 1.30, "inconclusive"),
        ("at least", 1.8, 1.85, 2.1, "holds"),
        ("at least", 1.8, 1.2, 1.75, "contradicted"),
        ("at least", 1.8, 1.7, 1.9, "inconclusive"),
        ("at least", 0.95, 0.96, 1.01, "holds"),
        ("at most", 2.0, 1.1, 1.9, "holds"),
        ("at most", 2.0, 2.1, 9.0, "contradicted"),
        ("at most", 2.0, 1.1, 2.2, "inconclusive"),
    ],
)
def test_alone_an_answer_is_where_the_interval_lies(
    rule: Any, bound: float, low: float, high: float, told: str
) -> None:
    assert alone(judge(effect(low, high), rule, bound)) == told


def test_a_share_is_judged_on_its_own_scale() -> None:
    assert alone(judge(effect(0.2, 0.4, Scale.DIFFERENCE), "at least", 0.1)) == "holds"
    assert alone(judge(effect(0.01, 0.03, Scale.DIFFERENCE), "at least", 0.1)) == "contradicted"


HOLDS, CONTRADICTED, OPEN = Judged(0.001, 0.999), Judged(0.999, 0.001), Judged(0.4, 0.6)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([HOLDS], "holds"),
        ([HOLDS, HOLDS], "holds"),
        ([HOLDS, OPEN], "inconclusive"),
        ([HOLDS, CONTRADICTED], "contradicted"),
        ([OPEN, CONTRADICTED], "contradicted"),
        ([OPEN] * 30 + [CONTRADICTED], "inconclusive"),  # one of many by chance
        ([HOLDS, MISSING], "inconclusive"),
        ([CONTRADICTED, MISSING], "contradicted"),
    ],
)
def test_a_claim_holds_where_all_parts_do_and_falls_with_one(parts: list[Any], told: str) -> None:
    assert alone(combine(parts)) == told


def test_without_any_figure_there_is_no_p() -> None:
    assert combine([MISSING, MISSING]) == NotComputable("arm gone")
    assert isinstance(combine([]), NotComputable)


def test_a_claim_that_lacks_a_part_says_so_instead_of_asking_for_more_starts() -> None:
    combined = combine([Judged(0.0, 1.0), MISSING])
    assert isinstance(combined, Judged)
    said = answer(Circumstances(), combined, Adjusted(combined.p, combined.p, False))
    assert (said.answer, said.reason.rpartition(": ")[2]) == ("inconclusive here", "arm gone")
    assert "cannot hold" in said.reason


SHOWN, NOT_SHOWN = Adjusted(0.01, 0.002, True), Adjusted(0.2, 0.02, False)


@pytest.mark.parametrize(
    ("around", "judged", "adjusted", "told", "why"),
    [
        (Circumstances(), HOLDS, SHOWN, "holds here", "on the claim's side"),
        (Circumstances(), CONTRADICTED, SHOWN, "contradicted here", "on the other side"),
        (Circumstances(), HOLDS, NOT_SHOWN, "inconclusive here", "alone it would be holds"),
        (Circumstances(), OPEN, NOT_SHOWN, "inconclusive here", "more starts"),
        (Circumstances(), MISSING, MISSING, "inconclusive here", "arm gone"),
        (Circumstances(stand_in=True), HOLDS, None, "inconclusive here", "stand-in"),
        (Circumstances(stand_in=True), CONTRADICTED, None, "inconclusive here", "stand-in"),
        (Circumstances(invalid="A/A of digits"), HOLDS, SHOWN, "inconclusive here", "A/A of digits"),
        (Circumstances(transfers=False, scope=("training",)), HOLDS, None, "the source speaks of something else", "training"),
        (Circumstances(transfers=False, stand_in=True, scope=("GPU",)), MISSING, None,
         "the source speaks of something else", "GPU"),
    ],
)  # fmt: skip
def test_circumstances_come_before_figures(around: Any, judged: Any, adjusted: Any, told: str, why: str) -> None:
    given = answer(around, judged, adjusted)
    assert (given.answer, why in given.reason) == (told, True), given


def blocks(planned: Any, factor: Any, twin: float = 1.0) -> dict[str, dict[str, Any]]:
    """Blocks of a plan: speed 100 x factor(model, arm, load), with a fixed small spread between starts."""
    found = {}
    for group in planned.groups:
        for replicate in range(group.starts):
            noise = (1.0, 1.01, 0.99, 1.005, 0.995, 1.002)[replicate]
            for stand in turns(group, replicate, planned.seed):
                for turn in stand:
                    name = block_id(group.model, replicate, turn.arm.name, turn.load)
                    speed = 100 * factor(group.model, str(turn.arm.key), turn.load) * (twin if turn.arm.twin else 1.0)
                    speed *= noise ** (0.3 * (1 + group.arms.index(turn.arm)))  # no two arms spread alike
                    found[name] = {
                        "id": name, "model": group.model, "replicate": replicate, "order": turn.order,
                        "arm": turn.arm.name, "valid": True, "reasons": [], "goodput": speed, "service_ms": None,
                        "capacity": {"valid": True, "reasons": []},
                        "upstream_ms": {"p50": {"value": 1000 / speed}, "p99": {"missing": "too few"}},
                        "cpu": {f"arm {turn.arm.name}": {"rss_bytes": 5e8}}, "rest_rss_bytes": 4e8,
                    }  # fmt: skip
    return found


def asked(*ids: str) -> Any:
    shipped = table.load()
    return plan(shipped, shipped.chosen(ids), seed=1)


def told(planned: Any, measured: evaluate.Measured) -> dict[str, dict[str, Any]]:
    return {claim["id"]: claim for claim in evaluate.results(planned, measured)["claims"]}


def test_claims_are_answered_from_blocks_and_corrected_together() -> None:
    planned = asked("compile-resnet50", "xla-resnet50", "static-graphs", "speed-tie-digits", "cpu-par")
    speeds = {"torchserve:compile": 1.5, "torchserve:torchscript": 1.2}
    made = blocks(planned, lambda model, arm, load: speeds.get(arm, 1.0))
    found = told(planned, evaluate.Measured(made, stand_in=True))
    assert {name: claim["answer"] for name, claim in found.items()} == {
        "speed-tie-digits": "inconclusive here",
        "cpu-par": "the source speaks of something else",
        "compile-resnet50": "holds here",
        "xla-resnet50": "contradicted here",
        "static-graphs": "holds here",
    }
    assert found["compile-resnet50"]["value"] == pytest.approx(1.5, rel=0.02)
    assert found["compile-resnet50"]["n"] == 6
    assert found["speed-tie-digits"]["adjusted_p"] is None
    raw = {name: found[name]["p"] for name in ("compile-resnet50", "xla-resnet50", "static-graphs")}
    for name, adjusted in holm(raw).items():
        assert isinstance(adjusted, Adjusted)
        assert found[name]["adjusted_p"] == pytest.approx(adjusted.p_value)
    real = told(planned, evaluate.Measured(made, stand_in=False))
    assert real["speed-tie-digits"]["answer"] == "contradicted here"
    assert real["cpu-par"]["answer"] == "the source speaks of something else"


def test_a_missing_block_or_arm_is_the_reason_and_stays_in_the_family() -> None:
    planned = asked("compile-resnet50", "xla-resnet50")
    made = blocks(planned, lambda *_: 1.0)
    del made[block_id("resnet50", 4, "tfs-xla", "one")]
    measured = evaluate.Measured(made, skipped={"resnet50/torchserve:compile": "did not start: no g++"})
    found = evaluate.results(planned, measured)
    reasons = {claim["id"]: claim["reason"] for claim in found["claims"]}
    assert reasons["compile-resnet50"] == "torchserve:compile: did not start: no g++"
    assert "pair 5, arm B: the block was not measured" in reasons["xla-resnet50"]
    assert found["family"]["size"] == 2


def test_a_biased_twin_makes_its_models_claims_inconclusive() -> None:
    planned = asked("static-graphs", "compile-transformers")
    speeds = {"torchserve:torchscript": 1.5}
    made = blocks(planned, lambda model, arm, load: speeds.get(arm, 1.0), twin=1.2)
    found = told(planned, evaluate.Measured(made))
    assert found["static-graphs"]["answer"] == "inconclusive here"
    assert "A/A of digits" in found["static-graphs"]["reason"]


def test_an_interaction_is_the_product_of_its_cells() -> None:
    planned = asked("size-of-model")
    speeds = {("resnet50", "tensorflow_serving:savedmodel"): 3.0, ("digits", "tensorflow_serving:savedmodel"): 2.0}
    made = blocks(planned, lambda model, arm, load: speeds.get((model, arm), 1.0))
    found = told(planned, evaluate.Measured(made, stand_in=False))["size-of-model"]
    assert found["value"] == pytest.approx(1.5, rel=0.03)
    assert found["answer"] == "holds here"


COUNTERS = """# TYPE ts_inference_requests_total counter
ts_inference_requests_total{{model_name="digits",model_version="default",hostname="h",}} {n}
ts_inference_latency_microseconds{{model_name="digits",model_version="default",hostname="h",}} {all}
ts_queue_latency_microseconds{{model_name="digits",model_version="default",hostname="h",}} {queue}
"""


def test_the_workers_share_comes_from_counters_and_the_forward() -> None:
    before, after = COUNTERS.format(n=10, all=5000.0, queue=100.0), COUNTERS.format(n=110, all=1.05e5, queue=1.01e4)
    found = worker.counters(before, after)
    assert isinstance(found, dict)
    assert (found["n"], found["queue_ms"], found["worker_ms"]) == pytest.approx((100, 0.1, 0.9))
    assert worker.share({**found, "whole_ms": 1.6, "forward_ms": 0.1}) == pytest.approx(0.5)
    assert isinstance(worker.counters(after, after), NotComputable)
    claim = table.load().chosen(("ts-worker-digits",))[0]
    starts = [{"whole_ms": 1.6, "worker_ms": 0.9 + d, "forward_ms": 0.1} for d in (0.0, 0.01, -0.01, 0.02, 0.0, -0.02)]
    part = worker.found(claim, starts, [])
    assert alone(part.judged) == "holds"
    assert evaluate.part_document(part)["value"] == pytest.approx(0.5, rel=0.01)
    assert worker.unlike(190.0, 202.0) == ""
    assert "268 ms, the worker with it 190 ms" in worker.unlike(190.0, 268.0)
    one_gone = worker.found(claim, starts[:5], [], ["start 6: out of memory"])
    assert one_gone.effect == NotComputable("1 of 6 starts have no figure; start 6: out of memory")
    assert worker.found(claim, [], []).effect == NotComputable(
        "0 starts with all figures, at least 3 that differ are needed"
    )


def test_what_limits_a_block_takes_its_throughput_and_not_its_speed() -> None:
    quantiles = {"p50": {"value": 2.0}, "p99": {"missing": "1000 samples weigh as 645", "point": 8.0}}
    block = {"id": "b", "valid": True, "reasons": [], "goodput": 400.0, "upstream_ms": quantiles}
    free = block | {"capacity": {"valid": True, "reasons": []}}
    busy = block | {"capacity": {"valid": False, "reasons": ["the gateway used 0.90 of a core"]}}
    assert [evaluate.value(free, metric) for metric in ("throughput", "speed", "tail")] == [400.0, 500.0, 125.0]
    assert evaluate.value(busy, "throughput") == NotComputable("block b: the gateway used 0.90 of a core")
    assert evaluate.value(busy, "speed") == 500.0
    few = free | {"upstream_ms": {"p99": {"missing": "423 samples"}}}
    assert evaluate.value(few, "tail") == NotComputable("block b: 423 samples")


def test_onnx_does_not_hold_by_one_way_alone() -> None:
    good = onnx.found(onnx.directions({"ok": True}, None))
    assert [evaluate.part_document(part)["answer"] for part in good] == ["holds", "inconclusive", "inconclusive"]
    assert alone(combine([part.judged for part in good])) == "inconclusive"
    unequal = onnx.found(onnx.directions({"ok": False}, None))
    assert alone(combine([part.judged for part in unequal])) == "contradicted"
    assert onnx.directions(None, "is not built")[0]["reason"] == "is not built"


def point(
    before: float, changes: float, errors: int = 0, refused: str = "", missing: str = "", both: bool = True
) -> dict[str, Any]:
    cut = {"before": before, "changes": changes}
    made = [
        {"phase": name, "p99_ms": p99, "n": 1000, "errors": errors if name == "changes" else 0}
        for name, p99 in cut.items()
    ]
    return {"models": 1, "block": "b", "refused": refused, "missing": missing, "phases": made, "both_answered": both}


SPREAD = (1.0, 1.1, 0.9, 1.05, 0.95, 1.02)


@pytest.mark.parametrize(
    ("identity", "points", "told"),
    [
        ("tfs-hot-swap", [point(5, 6 * s) for s in SPREAD], "inconclusive"),
        ("tfs-hot-swap", [point(5, 50 * s) for s in SPREAD], "contradicted"),
        ("tfs-hot-swap", [point(5, 6 * s, errors=round(100 * s)) for s in SPREAD], "contradicted"),
        ("tfs-hot-swap", [point(5, 9 + 4 * s) for s in (0, 1, 0, 1, 0, 1)], "inconclusive"),
        ("tfs-hot-swap", [point(5, 6 * s) for s in SPREAD[:3]], "inconclusive"),
        ("ts-versions", [point(5, 50 * s) for s in SPREAD], "inconclusive"),  # none failed, in 18 rounds of changes
        ("ts-versions", [point(5, 5, errors=round(100 * s)) for s in SPREAD], "contradicted"),
        ("ts-versions", [point(5, 5, both=False) for _ in SPREAD], "contradicted"),
        ("ts-versions", [point(5, 5, refused="POST: 500") for _ in SPREAD], "contradicted"),
        ("ts-versions", [point(5, 5, missing="no gateway") for _ in SPREAD], "inconclusive"),
    ],
)
def test_a_change_of_versions_is_judged_by_tail_and_failures(identity: str, points: list[Any], told: str) -> None:
    claim = table.load().chosen((identity,), quick=True)[0]
    assert alone(combine([part.judged for part in phases.found(claim, points)])) == told
