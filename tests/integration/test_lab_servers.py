"""The lab on real servers: one start of three arms through the whole comparison, and a server that dies under load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gateway.cli_lab import DEFAULT_ARMS, arm_specs
from gateway.cli_stand import LocalStand, arm_problems, document
from gateway.config import parse
from loadtest.lab import comparison, plan
from loadtest.lab.blocks import Block, measure
from loadtest.lab.document import new_run, read
from loadtest.lab.plan import LoadPlan, Timing
from loadtest.lab.spec import ArmSpec, Running, StandError

ARTIFACTS = Path(__file__).resolve().parents[2] / "model_store" / "artifacts"


@dataclass
class Tapped:
    """A stand that, before it goes down, kills a server in the middle of one more block."""

    seen: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def up(self, arms: Sequence[ArmSpec], folder: Path) -> Iterator[Running]:
        with LocalStand().up(arms, folder) as running:
            yield running
            self.seen["pids"] = [pid for pids in running.roots().values() for pid in pids]
            self.seen["killed"] = self._killed(running, folder)
            self.seen["after"] = measure(running, "tfserving", self.seen["plan"], folder / "after")

    def _killed(self, running: Running, folder: Path) -> Block:
        victim = psutil.Process(running.arms["tfserving"].pid)

        def kill(_: object) -> None:
            with suppress(psutil.NoSuchProcess):  # told of progress again after the first time
                victim.kill()

        return measure(running, "tfserving", self.seen["plan"], folder / "killed", kill)


@pytest.mark.servers
def test_a_comparison_of_real_servers_is_whole_honest_and_leaves_nothing_running(tmp_path: Path) -> None:
    arms = arm_specs("digits", {"arms": DEFAULT_ARMS, "artifacts": ARTIFACTS})
    made = replace(
        comparison.plan_of(plan.load("servers"), "servers", arms, ARTIFACTS / "digits", full=False, direct=False),
        loads={"one at a time": LoadPlan(closed=1)},
        replicates=1,
        timing=Timing(duration=0.6, warmup=0.1, slack=0.1, prime=3),  # a round of first requests
    )
    stand = Tapped({"plan": made.block("one at a time", "tfs-rest", None)})
    run_dir = new_run(tmp_path, "comparison")
    told: list[float] = []
    comparison.run(stand, made, run_dir, lambda _, share: told.append(share))
    found = read(run_dir)

    blocks = found["blocks"]
    assert sorted(block["arm"] for block in blocks) == ["tfserving", "torchserve", "torchserve-aa"]
    assert [block["order"] for block in blocks] == [0, 1, 2]
    for block in blocks:
        assert (block["valid"], block["errors"]) == (True, 0), block  # a label may be missed by any model
        assert block["n"] > 0
        assert block["start_seconds"] > 0
        assert {f"arm {arm.name}" for arm in made.arms} <= block["cpu"].keys()  # the idle ones, too
        assert (run_dir / block["folder"] / "requests.parquet").is_file()
    assert {block["discarded_s"] for block in blocks} == {blocks[0]["discarded_s"]}
    assert {name: arm["role"] for name, arm in found["arms"].items()} == {
        "torchserve": "baseline", "tfserving": "arm", "torchserve-aa": "A/A",
    }  # fmt: skip
    (primed,) = found["primed"].values()
    assert {name: one["failed"] for name, one in primed.items()} == dict.fromkeys(
        ("torchserve", "tfserving", "torchserve-aa")
    )
    assert primed["torchserve"]["compiling_cores"][0] > 0.1  # a Java that has just started compiles
    assert primed["torchserve"]["settled"] is False
    assert primed["tfserving"]["compiling_cores"] == []
    assert primed["tfserving"]["cost_ms"][0] > 0
    primary = next(one for one in found["comparisons"] if one["primary"])
    assert primary["missing"] == "1 pairs of starts, at least 6 are needed"
    assert (found["complete"], found["verdict"]["code"]) == (True, 2)
    assert told == sorted(told)

    killed, after = stand.seen["killed"].document, stand.seen["after"].document
    for block in (killed, after):
        assert not block["valid"]
        assert "arm tfserving: the process that was started" in " ".join(block["reasons"])
    assert after["n"] == 0  # a server that was started again is another replicate: nothing is sent to it
    left = [pid for pid in stand.seen["pids"] if psutil.pid_exists(pid)]
    assert not [pid for pid in left if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]

    again = comparison.resume(LocalStand(), run_dir, lambda *_: None)  # nothing is missing: nothing starts
    assert again["blocks"] == blocks


def arm(name: str, path: Path, **given: Any) -> ArmSpec:
    return ArmSpec(name, "tensorflow_serving", "m", "savedmodel", path, **given)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ([], "at least one arm"),
        (["a", "a"], "is there twice"),
        (["gateway"], "the gateway is called so"),
    ],
)
def test_arms_that_cannot_stand_side_by_side_are_refused(tmp_path: Path, arms: list[str], words: str) -> None:
    specs = [arm(name, tmp_path) for name in arms]
    with pytest.raises(StandError, match=words), LocalStand().up(specs, tmp_path):
        pass


def test_unknown_options_and_missing_files_are_told_together(tmp_path: Path) -> None:
    found = arm_problems([arm("a", tmp_path / "gone", options={"speed": 9}), replace(arm("b", tmp_path), model="n")])
    assert len(found) == 3
    assert "speed" in " ".join(found)


def test_the_stands_configuration_is_a_valid_one_with_every_model_where_it_is_served(tmp_path: Path) -> None:
    (tmp_path / "signature.json").write_text("{}")
    model = tmp_path / "savedmodel"
    model.mkdir()
    arms = [arm("a", model, others=(("other", model),)), arm("b", model, transport="grpc")]
    text = yaml.safe_dump(document(arms))
    models = parse(text, tmp_path / "abgate.yaml").document.models
    assert {name: list(section.arms) for name, section in models.items()} == {"m": ["a", "b"], "other": ["a"]}
    assert models["m"].signature == tmp_path / "signature.json"
    assert models["m"].arms["b"].transport == "grpc"
    assert models["m"].experiment is not None
    assert models["m"].experiment.allow_forced_arm
    assert models["other"].experiment is None  # one arm is plain routing
