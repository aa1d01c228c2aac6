"""A version is added, made the default and removed while a constant load goes on: what clients feel of it.

Acts: it prepares two versions of one artefact, starts a fresh server for each measurement, loads it in an open loop past the
gateway and changes versions by the server's own means: TF Serving by folders below its base path, TorchServe by its management
API. What the requests say is cut by phases; judging is swap_found's.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from gateway.errors import AbgateError
from loadtest.claims.changes import STEP_S, ChangeFailed, ChangeRefused, Clock, TensorFlowChanges, TorchServeChanges
from loadtest.claims.measure import Bench, State, grouped, up
from loadtest.claims.phases import phases, seconds
from loadtest.claims.plan import Swap
from loadtest.lab import document as lab
from loadtest.lab.blocks import BlockPlan, common
from loadtest.lab.priming import primed
from loadtest.lab.recording import Recording, point_spec
from loadtest.lab.spec import ArmSpec, Kind, Running, RunningArm
from loadtest.points.files import load_requests
from loadtest.points.run import LEAD_NS, PointError, PointProcess
from loadtest.points.spec import Load

RATE = 100.0
WARM_S, BEFORE_S, AFTER_S = 2.0, 4.0, 2.0
LONGEST_S = 200.0
"""The load ends with the changes; on a machine that is too busy for them it ends here."""
_VARIANT = {"torchserve": "torchscript", "tensorflow_serving": "savedmodel"}


Changes = TensorFlowChanges | TorchServeChanges


@dataclass
class SwapRun:
    """One measurement: a fresh server, one load, some rounds of changes."""

    bench: Bench
    swap: Swap
    state: State
    seed: int
    marks: Clock = field(default_factory=Clock)

    def __call__(self, replicate: int) -> dict[str, Any]:
        """A POINT of figures["..."]["points"]; raises StandError where the server does not come up."""
        swap, name = self.swap, f"{self.swap.server}-x{self.swap.served}"
        identity = f"swap-{name}-r{replicate}"
        folder = self.state.run_dir / "starts" / identity
        shutil.rmtree(folder, ignore_errors=True)
        self.state.tell(f"{name}, change {replicate + 1} of {swap.starts}: starting {swap.served} model(s)")
        spec = self._spec(folder)
        with up(self.bench.stand, [spec], folder / "stand") as running:
            arm = running.arms[spec.name]
            plan = self._plan(identity, replicate)
            # else a cold server's p99 hides what a change costs
            primed(running, plan, self.state.run_dir, self.state.document, identity)
            self.state.tell(f"{name}, change {replicate + 1} of {swap.starts}: versions change under load")
            changes = self._changes(arm, folder)
            recording = self._record(running, plan, changes)
            block = common([recording])[0].document
            entry = lab.arms_entry([spec], running, {})[spec.name]
        self.state.document["arms"][f"{name}/{spec.name}"] = {**entry, "served": swap.served}
        more = {"model": swap.model, "load_name": "constant", "stand_in": arm.stand_in}
        self.state.put(grouped(block, name) | more)
        requests = recording.requests
        told = {
            "models": swap.served,
            "rate": RATE,
            "replicate": replicate,
            "block": identity,
            "stand_in": arm.stand_in,
        }
        told |= {"steps": self.marks.steps, "refused": self.marks.refused, "both_answered": self.marks.both}
        if requests is None or recording.result is None:
            return told | {
                "phases": [],
                "seconds": [],
                "missing": "; ".join(recording.faults) or "nothing was recorded",
            }
        cut = recording.result.start_ns
        last = max((done for _, done in self.marks.steps.values()), default=0)
        late = last > int(requests.due_ns.max())
        told["missing"] = self.marks.missing or ("the changes took longer than the load" if late else "")
        return told | {"phases": phases(requests, cut, self.marks), "seconds": seconds(requests, cut)}

    def _record(self, running: Running, plan: BlockPlan, changes: Changes) -> Recording:
        """Load until the changes are done and AFTER_S more, at most LONGEST_S; no metrics are read meanwhile."""
        folder, name = self.state.run_dir / "blocks" / plan.id, "swapped"
        due = threading.Event()
        thread = threading.Thread(target=self._run_changes, args=(changes, due), name="changes", daemon=True)
        thread.start()
        result = requests = None
        faults: tuple[str, ...] = ()
        try:
            with PointProcess(point_spec(running, name, plan), folder) as process:
                if process.ready():
                    process.begin(time.time_ns() + LEAD_NS)
                self._follow(process, due, thread)
                result = process.result()
            requests = load_requests(folder)
        except (PointError, OSError, ValueError) as error:
            faults = (f"the generator failed: {error}",)
        finally:
            due.set()
        thread.join(STEP_S)
        if result is not None:  # it was ended early: what was kept is what was planned
            kept = max(1.0, int((result.end_ns - result.start_ns) / 1e8) / 10)
            plan = replace(plan, load=Load.open(RATE, kept, WARM_S, "constant"))
        started = running.started_seconds.get(name)
        arm = running.arms[name]
        return Recording(plan, arm, folder, result, requests, (), None, started, faults=faults)

    @staticmethod
    def _follow(process: PointProcess, due: threading.Event, thread: threading.Thread) -> None:
        done_at = None
        for progress in process.progress():
            if progress.elapsed >= WARM_S + BEFORE_S:
                due.set()
            if not thread.is_alive() and done_at is None:
                done_at = progress.elapsed
            if done_at is not None and progress.elapsed >= done_at + AFTER_S:
                process.stop()

    def _plan(self, identity: str, replicate: int) -> BlockPlan:
        model = self.swap.model
        return BlockPlan(
            Load.open(RATE, LONGEST_S, WARM_S, "constant"),
            self.bench.payloads(model),
            self.bench.signature(model),
            protocol="tfs-rest",
            path="direct",
            id=identity,
            replicate=replicate,
            name=f"constant {RATE:g}/s while versions change",
            slack=0.0,
            seed=self.seed * 1_000_003 + replicate,
        )

    def _spec(self, folder: Path) -> ArmSpec:
        swap = self.swap
        files = self.bench.files(swap.model, _VARIANT[swap.server])
        if files.skipped is not None:
            raise AbgateError(f"{swap.model}: {files.skipped}")
        path = files.path.absolute()
        names = [swap.model, *(f"{swap.model}-{number}" for number in range(2, swap.served + 1))]
        if swap.server == "tensorflow_serving":
            places = [base_path(folder / "bases" / name, path) for name in names]
            shutil.copyfile(self.bench.signature(swap.model), folder / "signature.json")
        else:
            places = [path] * len(names)
            second_version(path, folder / "second")
        kind = cast(Kind, swap.server)
        others = tuple(zip(names[1:], places[1:], strict=True))
        return ArmSpec("swapped", kind, swap.model, _VARIANT[swap.server], places[0], others=others)

    def _changes(self, arm: RunningArm, folder: Path) -> Changes:
        if self.swap.server == "tensorflow_serving":
            return TensorFlowChanges(arm.direct.http, self.swap.model, folder / "bases" / self.swap.model, self.marks)
        body = one_request(self.bench, self.swap.model)
        return TorchServeChanges(
            arm.management or "", arm.direct.http, self.swap.model, (arm.spec.path, folder / "second"), body, self.marks
        )

    def _run_changes(self, changes: Changes, due: threading.Event) -> None:
        due.wait()
        try:
            changes.run()
        except ChangeRefused as error:
            self.marks.refused = str(error)
        except (ChangeFailed, OSError, ValueError, KeyError) as error:
            self.marks.missing = f"{type(error).__name__}: {error}"


def base_path(base: Path, artefact: Path) -> Path:
    """A base path of its own whose version 1 is the artefact's newest."""
    versions = sorted((entry for entry in artefact.iterdir() if entry.name.isdigit()), key=lambda e: int(e.name))
    base.mkdir(parents=True)
    (base / "1").symlink_to(versions[-1].absolute())
    return base


def second_version(artefact: Path, into: Path) -> Path:
    """A TorchServe folder that serves the same files as version 2.0."""
    (into / "MAR-INF").mkdir(parents=True)
    for entry in artefact.iterdir():
        if entry.name != "MAR-INF":
            (into / entry.name).symlink_to(entry.absolute())
    manifest = json.loads((artefact / "MAR-INF" / "MANIFEST.json").read_text("utf-8"))
    manifest["model"]["modelVersion"] = "2.0"
    (into / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest), "utf-8")
    return into


def one_request(bench: Bench, model: str) -> bytes:
    """A request of the model's first row, as TF Serving's JSON."""
    from gateway.protocol.signature_file import load as load_signature
    from loadtest import payloads

    dataset = payloads.load_dataset(bench.payloads(model), "all", load_signature(bench.signature(model)))
    return payloads.json_body(dataset, [0])
