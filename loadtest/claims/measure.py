"""The starts of a group: fresh servers, each arm loaded alone, a BLOCK for every cell. Acts and keeps; judges nothing.

A block that is there is not measured again, so that a run goes on where it ended. An arm that twice does not come up, also
alone, is skipped with its reason: the claims that need it say so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from loadtest.claims.plan import Group, PlannedArm, Turn, block_id, turns
from loadtest.claims.table import LoadRule
from loadtest.lab import document as lab
from loadtest.lab.blocks import BlockPlan, Recording, common, record
from loadtest.lab.comparison import check_of
from loadtest.lab.priming import primed
from loadtest.lab.spec import ArmSpec, BatchRule, Running, Stand, StandError
from loadtest.points.spec import Load
from loadtest.resources import Sampler

PROTOCOL: Literal["tfs-grpc"] = "tfs-grpc"
# each server in the way it answers fastest: TorchServe's gRPC costs more than its HTTP, and tells no times
TRANSPORT: Mapping[str, Literal["http", "grpc"]] = {"torchserve": "http", "tensorflow_serving": "grpc"}
SLACK_S = 0.5
DID_NOT_START = "did not start"


@dataclass(frozen=True)
class Files:
    """What a variant's arm serves: path, or in `skipped` why there is none. parity: its proof as recorded, None without.
    near: see ArmSpec."""

    path: Path
    skipped: str | None = None
    digest: str = ""
    parity: Mapping[str, Any] | None = None
    near: bool = False


@dataclass(frozen=True)
class Bench:
    """What the claims are measured on. files(model, variant); artifacts: the models' folders with their inputs."""

    stand: Stand
    artifacts: Path
    files: Callable[[str, str], Files]

    def payloads(self, model: str) -> Path:
        """The model's evaluation inputs."""
        return (self.artifacts / model / "inputs.npz").absolute()

    def signature(self, model: str) -> Path:
        """The model's signature file."""
        return (self.artifacts / model / "signature.json").absolute()


@dataclass
class State:
    """What a run has so far, kept on disk by `keep` after every block. tell(what): what is being done now."""

    run_dir: Path
    document: dict[str, Any]
    keep: Callable[[], None]
    tell: Callable[[str], None] = field(default=lambda what: None)
    captures: dict[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def blocks(self) -> dict[str, dict[str, Any]]:
        """Blocks by id."""
        return {block["id"]: block for block in self.document["blocks"]}

    @property
    def skipped(self) -> dict[str, str]:
        """ "model/arm" -> why it could not be measured."""
        found: dict[str, str] = self.document["results"].setdefault("skipped", {})
        return found

    def try_again(self) -> None:
        """Forget what did not come about, so that a run that goes on measures it: arms that did not start, empty blocks."""
        for where in [where for where, reason in self.skipped.items() if reason.startswith(DID_NOT_START)]:
            del self.skipped[where]
        self.document["blocks"] = [block for block in self.document["blocks"] if block["n"] or block["valid"]]

    def put(self, block: Mapping[str, Any]) -> None:
        """Keep a block, in the place of one of its id."""
        kept = [one for one in self.document["blocks"] if one["id"] != block["id"]]
        self.document["blocks"] = [*kept, dict(block)]
        self.keep()


@dataclass(frozen=True)
class Series:
    """One group on its bench. seed: of orders, payloads and units."""

    bench: Bench
    group: Group
    loads: Mapping[str, LoadRule]
    seed: int
    state: State

    def start(self, replicate: int) -> None:
        """Everything of one start that is missing; an arm that does not come up is skipped, not raised."""
        recordings: dict[str, list[Recording]] = {}
        for stand in turns(self.group, replicate, self.seed):
            todo = [turn for turn in stand if not self._done(replicate, turn)]
            if todo:
                self._stand(replicate, todo, recordings)
        for together in recordings.values():  # what is compared is cut alike: the longest warm-up is discarded from all
            for block in common(together):
                known = self.state.blocks[block.document["id"]]
                self.state.put({**known, **grouped(block.document, self.group.model)})

    def _done(self, replicate: int, turn: Turn) -> bool:
        if f"{self.group.model}/{turn.arm.key}" in self.state.skipped:
            return True
        return block_id(self.group.model, replicate, turn.arm.name, turn.load) in self.state.blocks

    def _stand(self, replicate: int, todo: Sequence[Turn], into: dict[str, list[Recording]]) -> None:
        arms = {turn.arm.name: turn.arm for turn in todo}
        specs = self._specs(arms.values())
        todo = [turn for turn in todo if turn.arm.name in {spec.name for spec in specs}]
        if not specs:
            return
        try:
            self._measure(replicate, specs, todo, into)
        except StandError as error:
            self.state.document["results"].setdefault("failed_starts", []).append(
                f"{self.group.model}, start {replicate + 1}, {', '.join(arms)}: {error}"
            )
            for spec in specs:  # one of them may have kept the others from coming up
                mine = [turn for turn in todo if turn.arm.name == spec.name and not self._done(replicate, turn)]
                try:
                    if mine:
                        self._measure(replicate, [spec], mine, into)
                except StandError as alone:
                    key = arms[spec.name].key
                    self.state.skipped[f"{self.group.model}/{key}"] = f"{DID_NOT_START}: {last_line(str(alone))}"
            self.state.keep()

    def _specs(self, arms: Iterable[PlannedArm]) -> list[ArmSpec]:
        found = []
        for arm in arms:
            files = self.bench.files(self.group.model, arm.key.variant)
            if files.skipped is not None:
                self.state.skipped[f"{self.group.model}/{arm.key}"] = files.skipped
                continue
            batch = BatchRule(arm.key.max_batch, arm.key.wait_ms)
            transport = TRANSPORT[arm.key.kind]
            found.append(
                ArmSpec(
                    arm.name,
                    arm.key.kind,
                    self.group.model,
                    arm.key.variant,
                    files.path,
                    batch=batch,
                    transport=transport,
                    near=files.near,
                )
            )
        return found

    def _measure(
        self, replicate: int, specs: Sequence[ArmSpec], todo: Sequence[Turn], into: dict[str, list[Recording]]
    ) -> None:
        model, state = self.group.model, self.state
        where = f"{model}, start {replicate + 1} of {self.group.starts}"
        state.tell(f"{where}: starting {', '.join(spec.name for spec in specs)}")
        with up(self.bench.stand, specs, state.run_dir / "starts" / f"{model}-{replicate}-{specs[0].name}") as running:
            rest = resident(running)
            self._tell_arms(specs, running)
            start = f"{model}, start {replicate}, {specs[0].name}"
            primed(running, self._base(), state.run_dir, state.document, start)
            for turn in todo:
                state.tell(f"{where}: {turn.arm.name}, {self.loads[turn.load].text}")
                plan = self._plan(replicate, turn)
                recording = record(running, turn.arm.name, plan, state.run_dir / "blocks" / plan.id)
                into.setdefault(turn.load, []).append(recording)
                extra = {
                    "model": model,
                    "load_name": turn.load,
                    "rest_rss_bytes": rest.get(f"arm {turn.arm.name}"),
                    "stand_in": running.arms[turn.arm.name].stand_in,
                }
                state.put(grouped(common([recording])[0].document, model) | extra)

    def _base(self) -> BlockPlan:
        model = self.group.model
        return BlockPlan(
            Load.closed(1, self.group.window),
            self.bench.payloads(model),
            self.bench.signature(model),
            protocol=PROTOCOL,
            timeout=30.0,
            check=check_of(self.bench.payloads(model)),
            every=16,
        )

    def _plan(self, replicate: int, turn: Turn) -> BlockPlan:
        rule, base = self.loads[turn.load], self._base()
        if rule.lengths:  # captured requests have no right answer
            base = replace(base, replay=self.state.captures[self.group.model, rule.lengths], check="off")
        return replace(
            base,
            load=Load.closed(rule.concurrency, self.group.lasts(turn.load), self.group.warmup),
            id=block_id(self.group.model, replicate, turn.arm.name, turn.load),
            replicate=replicate,
            order=turn.order,
            name=rule.text,
            slack=SLACK_S,
            seed=self.seed * 1_000_003 + replicate,
        )

    def _tell_arms(self, specs: Sequence[ArmSpec], running: Running) -> None:
        roles = {self.group.baseline: "baseline"} | {arm.name: "A/A" for arm in self.group.arms if arm.twin}
        entries = lab.arms_entry(specs, running, roles)
        for name, entry in entries.items():
            digest = self.bench.files(self.group.model, entry["variant"]).digest
            self.state.document["arms"][f"{self.group.model}/{name}"] = {**entry, "digest": digest}


def grouped(block: Mapping[str, Any], group: str) -> dict[str, Any]:
    """A BLOCK whose arm, and its role, bear the group's name in front: arms of several groups stand in one document."""
    cpu = {f"arm {group}/{role[4:]}" if role.startswith("arm ") else role: used for role, used in block["cpu"].items()}
    return {**block, "arm": f"{group}/{block['arm']}", "cpu": cpu}


@contextmanager
def up(stand: Stand, specs: Sequence[ArmSpec], folder: Path) -> Iterator[Running]:
    """A stand whose folder is made anew and kept for its logs."""
    shutil.rmtree(folder, ignore_errors=True)
    with stand.up(specs, folder) as running:
        yield running


def resident(running: Running) -> dict[str, int]:
    """role -> resident bytes of its whole process tree, now."""
    sampler = Sampler(running.roots)
    sampler.sample()
    return {role: rss for _, role, _, rss in sampler.rows()}


def last_line(text: str) -> str:
    """What a log says last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was told"
