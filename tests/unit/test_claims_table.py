"""The table of claims: the shipped one is whole, broken ones are refused with their place; groups, orders and durations."""

import itertools
import re
from pathlib import Path

import pytest

from gateway import cli
from gateway.errors import ConfigError
from loadtest.claims import table
from loadtest.claims.plan import STARTS, TOGETHER, block_id, plan, share, turns
from loadtest.claims.table import ArmKey, Cell

IN_THE_ISSUE = {
    "speed-tie-digits", "speed-tie-mlp", "speed-tie-encoder-small", "speed-tie-resnet50", "tfs-fast", "size-of-model",
    "compile-transformers", "compile-resnet50", "xla-resnet50", "xla-throughput", "cpu-par", "pt-memory",
    "batching-torchserve", "batching-tfserving", "static-graphs", "torchscript-production", "onnx-portable",
    "dynamic-shapes", "ts-worker-digits", "ts-worker-resnet50", "ts-versions", "tfs-hot-swap",
}  # fmt: skip


def test_the_shipped_table_has_every_claim_with_its_source() -> None:
    shipped = table.load()
    assert {claim.id for claim in shipped.claim if not claim.optional} == IN_THE_ISSUE
    for claim in shipped.claim:
        assert claim.question.endswith(("?", ".")), claim.id
        assert claim.claim, claim.id
        assert claim.estimand, claim.id
        assert claim.scope, claim.id
        assert not claim.source.same, claim.id
        assert claim.source.note, claim.id
        if claim.source.kind == "commonly said":
            assert "found" in claim.source.note or "no measurement" in claim.source.note, claim.id
        else:
            assert claim.source.author, claim.id
            assert claim.source.url.startswith("https://"), claim.id


def test_claims_of_two_servers_are_about_servers() -> None:
    """A comparison of a TorchServe arm with one of TF Serving under one load measures TF Serving itself."""
    for claim in table.load().claim:
        for part in claim.parts:
            loads_by_kind = {
                cell.arm.kind: {c.load for c in part.cells if c.arm.kind == cell.arm.kind} for cell in part.cells
            }
            within = all(len(loads) > 1 for loads in loads_by_kind.values())  # each kind against itself
            if len(loads_by_kind) == 2 and not within:
                assert claim.about == "servers", claim.id


BROKEN = [
    ('id = "pt-memory"', 'id = "tfs-fast"', "claim tfs-fast: is there twice"),
    ("bound = 1.8", "bound = -1.8", r"claim compile-transformers\.bound"),
    ('rule = "tie"', 'rule = "better"', r"claim speed-tie-digits\.rule"),
    ("digits/torchserve:torchscript/one", "digits/torchserve/one", "is no cell; write model/kind:variant/load"),
    ("encoder-small/torchserve:compile/one", "vgg/torchserve:compile/one", r"models\.vgg is missing"),
    ("encoder-small/torchserve:compile/one", "encoder-small/torchserve:compile/lots", r"loads\.lots is missing"),
    ('url = "https://pytorch.org/serve/performance_guide.html"', 'url = ""', "needs an author and an https url"),
    ('same = "xla-resnet50"', 'same = "xla-throughput"', "is no claim with a source of its own"),
    ('scenario = "onnx"', 'scenario = "guess"', r"claim onnx-portable\.scenario"),
    ("models_served = [1, 10]", "models_served = []", "a swap, and nothing else"),
]


@pytest.mark.parametrize(("old", "new", "told"), BROKEN)
def test_a_broken_table_is_refused_with_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(table.PATH.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        table.load(path)
    assert any(re.search(told, problem) for problem in caught.value.problems), caught.value.problems


def test_names_of_arms_and_cells_go_there_and_back() -> None:
    for text in ("torchserve:torchscript", "tensorflow_serving:savedmodel:16x2"):
        assert str(ArmKey.parse(text)) == text
    assert ArmKey.parse("tensorflow_serving:savedmodel:16x2").name == "tfs-savedmodel-16x2"
    assert str(Cell.parse("digits/torchserve:eager/one")) == "digits/torchserve:eager/one"
    with pytest.raises(ValueError, match="is no arm"):
        ArmKey.parse("triton:model")


def test_claims_of_one_model_share_one_series_with_a_twin_of_the_baseline() -> None:
    shipped = table.load()
    made = plan(shipped, shipped.chosen(("compile-resnet50", "static-graphs", "xla-resnet50")), seed=1)
    groups = {group.model: {arm.name: arm.loads for arm in group.arms} for group in made.groups}
    assert groups["resnet50"] == {
        "ts-compile": ("one",),
        "ts-eager": ("one",),
        "tfs-xla": ("one",),
        "tfs-savedmodel": ("one",),
        "ts-torchscript": ("one",),
        "ts-torchscript-twin": ("one",),
    }
    assert groups["digits"] == {"ts-torchscript": ("one",), "ts-eager": ("one",), "ts-torchscript-twin": ("one",)}
    assert made.swaps == ()
    assert [group.blocks for group in made.groups] == [18, 18, 36]


def test_the_worker_brings_its_baseline_and_a_swap_its_servers() -> None:
    shipped = table.load()
    made = plan(shipped, shipped.chosen(("ts-worker-resnet50", "ts-versions")), seed=1)
    assert [group.model for group in made.groups] == ["resnet50"]
    assert made.workers == ("resnet50",)
    assert [(swap.server, swap.served, swap.starts) for swap in made.swaps] == [
        ("torchserve", 1, 6),
        ("torchserve", 10, 6),
    ]


def test_a_load_whose_p99_is_asked_for_lasts_long_enough_for_one() -> None:
    shipped = table.load()
    groups = {group.model: group for group in plan(shipped, shipped.chosen(), seed=1).groups}
    lasts = {(name, load): group.lasts(load) for name, group in groups.items() for load in ("one", "many")}
    assert lasts["digits", "one"] == lasts["encoder-small", "one"] == 10.0
    assert lasts["digits", "many"] == lasts["mlp", "one"] == 3.0
    assert lasts["resnet50", "one"] == 4.0


def test_quick_asks_less_and_unknown_ids_are_refused() -> None:
    shipped = table.load()
    quick = shipped.chosen(quick=True)
    assert {cell.model for claim in quick for part in claim.parts for cell in part.cells} == {"digits"}
    assert all(claim.models_served in ((), (1,)) for claim in quick)
    assert plan(shipped, quick, 1).seconds < plan(shipped, shipped.chosen(), 1).seconds / 4
    assert 30 * 60 < plan(shipped, shipped.chosen(), 1).seconds < 180 * 60
    with pytest.raises(ConfigError, match="'speed' is none of"):
        shipped.chosen(("speed",))


def test_the_order_is_random_the_same_for_a_seed_and_loads_every_cell_once() -> None:
    shipped = table.load()
    group = plan(shipped, shipped.chosen(), 1).groups[2]
    orders = [turns(group, replicate, 1) for replicate in range(STARTS)]
    assert orders == [turns(group, replicate, 1) for replicate in range(STARTS)]
    assert orders[0] != turns(group, 0, 2)
    for stands in orders:
        flat = [turn for stand in stands for turn in stand]
        assert sorted((turn.arm.name, turn.load) for turn in flat) == sorted(
            (a.name, n) for a in group.arms for n in a.loads
        )
        assert [turn.order for turn in flat] == list(range(len(flat)))
        assert all(len({turn.arm.name for turn in stand}) <= TOGETHER for stand in stands)
    places = [{turn.arm.name: turn.order for stand in stands for turn in stand} for stands in orders]
    for a, b in itertools.combinations(places[0], 2):
        assert sum(place[a] < place[b] for place in places) == STARTS / 2, (
            f"{a} is not before {b} in half of the starts"
        )
    assert share(plan(shipped, shipped.chosen(), 1), shipped.claim[0]) > 0
    assert block_id("digits", 3, "ts-eager", "one") == "digits-r3-ts-eager-one"


def test_the_list_starts_nothing_and_an_unknown_claim_is_a_bad_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["claims", "--list", "compile-resnet50", "ts-versions"]) == 0
    told = capsys.readouterr().out
    assert "compile-resnet50" in told
    assert "resnet50: 6 starts of 3 servers (ts-compile, ts-eager, ts-eager-twin)" in told
    assert "torchserve, 10 model(s): versions change 6 times under load" in told
    assert cli.run(["claims", "--list", "nothing"]) == 3
    assert cli.run(["claims", "--resume", "nowhere"]) == 3
