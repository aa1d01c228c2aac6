"""A run of claims: the plan on disk first, then groups, forwards and changes of versions, then answers. Goes on where it ended.

The one place that knows the order of things. Ctrl-C ends it with what there is: every block is on disk as soon as it is measured.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import AbgateError, ConfigError
from loadtest.claims import evaluate, forward, lengths, onnx, phases, table, words, worker
from loadtest.claims.answer import ANSWERS, INCONCLUSIVE, counts
from loadtest.claims.measure import Bench, Series, State
from loadtest.claims.plan import STARTS, Plan, Swap, block_id, plan
from loadtest.claims.swap import SwapRun
from loadtest.lab import document as lab
from loadtest.lab.spec import StandError

KIND = "claims"
Tell = Callable[[str, float], None]
Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What was asked for: ids (none: the whole table), quick or not, the seed, starts."""

    ids: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 1
    starts: int = STARTS

    def plan(self, path: Path = table.PATH) -> tuple[table.Table, Plan]:
        """The table and what is to be measured; raises ConfigError."""
        read = table.load(path)
        return read, plan(read, read.chosen(self.ids, self.quick), self.seed, self.starts)


def begin(asked: Asked, run_dir: Path) -> Json:
    """A document that holds the whole plan, written before anything starts."""
    _, planned = asked.plan()
    models = dict.fromkeys([group.model for group in planned.groups] + [swap.model for swap in planned.swaps])
    question = (
        f"Which of {len(planned.claims)} published claims about TorchServe and TensorFlow Serving hold on this machine?"
    )
    document = lab.begin(run_dir, KIND, question, _plan_document(asked, planned), ", ".join(models))
    load = os.getloadavg()[0]
    document["results"]["load_average_before"] = round(load, 1)
    document["not_tested"] += ["training: every claim is asked of serving", "one worker and one thread a server"]
    lab.write(run_dir, document)
    return document


def _plan_document(asked: Asked, planned: Plan) -> Json:
    return {
        "ids": list(asked.ids),
        "quick": asked.quick,
        "seed": asked.seed,
        "starts": asked.starts,
        "minutes": round(planned.seconds / 60, 1),
        "table_sha256": _digest(),
        "alpha": 0.05,
        "family": "Holm over the claims that can be answered here at all",
        "claims": {claim.id: claim.margin for claim in planned.claims},
        "groups": {group.model: [arm.name for arm in group.arms] for group in planned.groups},
    }


def _digest() -> str:
    return hashlib.sha256(table.PATH.read_bytes()).hexdigest()


def asked_of(document: Json) -> Asked:
    """What a run was begun with; raises ConfigError where the table has changed since."""
    if document.get("kind") != KIND:
        raise ConfigError([f"a run of kind {document.get('kind')!r}, not {KIND!r}"])
    told = document["plan"]
    if told["table_sha256"] != _digest():
        raise ConfigError(
            [f"{table.PATH.name} has changed since the run began: its margins were written before it; start anew"]
        )
    return Asked(tuple(told["ids"]), told["quick"], told["seed"], told["starts"])


@dataclass
class Claims:
    """One run. tell: what is being done now, and the share of the estimated time that is behind."""

    bench: Bench
    asked: Asked
    run_dir: Path
    document: Json
    tell: Tell = field(default=lambda what, share: None)
    _behind: float = 0.0

    def __post_init__(self) -> None:
        self._table, self._plan = self.asked.plan()
        self._before, self._since = float(self.document["seconds"]), time.monotonic()
        self._state = State(self.run_dir, self.document, self._keep, lambda what: self.tell(what, self._share()))

    def run(self) -> Json:
        """Measure what is missing and answer; what was measured is on disk whatever happens. Raises ConfigError."""
        self.document["results"].pop("interrupted", None)
        self._state.try_again()
        try:
            self._measure()
            self.document["complete"] = True
        except KeyboardInterrupt:
            self.document["results"]["interrupted"] = True
        finally:
            with suppress(KeyboardInterrupt):
                self._answer()
                self._keep()
                (self.run_dir / "claims.md").write_text(words.markdown(self.document), "utf-8")
        return self.document

    def _share(self) -> float:
        return min(1.0, self._behind / max(1.0, self._plan.seconds))

    def _keep(self) -> None:
        self.document["seconds"] = round(self._before + time.monotonic() - self._since, 1)
        lab.write(self.run_dir, self.document)

    def _measure(self) -> None:
        self._captures()
        for group in self._plan.groups:
            series = Series(self.bench, group, self._table.loads, self.asked.seed, self._state)
            for replicate in range(group.starts):
                series.start(replicate)
                if group.model in self._plan.workers:
                    self._forward(group.model, replicate)
                self._behind += group.seconds / group.starts
            self._answer()
        for swap in self._plan.swaps:
            for replicate in range(swap.starts):
                self._swap(swap, replicate)
                self._behind += swap.seconds / swap.starts

    def _captures(self) -> None:
        for group in self._plan.groups:
            for how in ("even", "mixed"):
                if any(self._table.loads[load].lengths == how for arm in group.arms for load in arm.loads):
                    into = self.run_dir / "captures" / f"{group.model}-{how}"
                    files = self.bench.payloads(group.model), self.bench.signature(group.model)
                    self._state.captures[group.model, how] = lengths.capture(group.model, *files, how, into)

    def _forward(self, model: str, replicate: int) -> None:
        done = self.document["results"].setdefault("forwards", {}).setdefault(model, {})
        files = self.bench.files(model, "torchscript")
        if str(replicate) in done or files.skipped is not None:
            return
        faults = self.document["results"].setdefault("forward_faults", {}).setdefault(model, {})
        self.tell(f"{model}, start {replicate + 1}: the model's own forward", self._share())
        try:
            done[str(replicate)] = forward.measure(files.path, self.bench.payloads(model))
            faults.pop(str(replicate), None)
        except RuntimeError as error:
            faults[str(replicate)] = str(error)

    def _swap(self, swap: Swap, replicate: int) -> None:
        done: list[Json] = self.document["results"].setdefault("swaps", {}).setdefault(swap.server, [])
        mine = [point for point in done if point["models"] == swap.served and point["replicate"] == replicate]
        if mine and not mine[0]["missing"]:
            return
        done[:] = [point for point in done if point not in mine]
        try:
            done.append(SwapRun(self.bench, swap, self._state, self.asked.seed)(replicate))
        except (StandError, AbgateError) as error:
            told = {"models": swap.served, "replicate": replicate, "missing": str(error), "phases": [], "seconds": []}
            done.append({**told, "refused": "", "block": "", "both_answered": None, "steps": {}, "rate": 0.0})
        self._keep()

    def _answer(self) -> None:
        results = self.document["results"]
        special, figures = self._special()
        stand_in = any(
            arm["stand_in"] for arm in self.document["arms"].values() if arm["kind"] == "tensorflow_serving"
        ) or any(point.get("stand_in") for point in results.get("swaps", {}).get("tensorflow_serving", []))
        measured = evaluate.Measured(self._state.blocks, special, self._state.skipped, stand_in)
        results |= evaluate.results(self._plan, measured)
        results |= {"figures": figures, "counts": counts([claim["answer"] for claim in results["claims"]])}
        self.document["verdict"] = verdict(results, bool(self.document["complete"]))

    def _special(self) -> tuple[dict[str, list[evaluate.Found]], Json]:
        special: dict[str, list[evaluate.Found]] = {}
        figures: Json = {}
        for claim in self._plan.claims:
            if claim.scenario == "worker":
                starts, blocks, gone = self._worker_starts(claim.model)
                special[claim.id] = [worker.found(claim, starts, blocks, gone)]
                figures[claim.id] = {"starts": starts, "sources": worker.SOURCES}
            elif claim.scenario == "onnx":
                files = self.bench.files(claim.model, "onnx")
                figures[claim.id] = {"directions": onnx.directions(files.parity, files.skipped)}
                special[claim.id] = onnx.found(figures[claim.id]["directions"])
            elif claim.scenario == "swap":
                points = self.document["results"].get("swaps", {}).get(claim.server, [])
                special[claim.id] = phases.found(claim, points) if points else []
                figures[claim.id] = {"points": points}
        return special, figures

    def _worker_starts(self, model: str) -> tuple[list[Json], list[str], list[str]]:
        """Starts with all their figures, their blocks, and why the others have none."""
        group = next(one for one in self._plan.groups if one.model == model)
        forwards = self.document["results"].get("forwards", {}).get(model, {})
        faults = self.document["results"].get("forward_faults", {}).get(model, {})
        blocks, starts, used, gone = self._state.blocks, [], [], []
        for replicate in range(group.starts):
            name = block_id(model, replicate, group.baseline, "one")
            block, timed = blocks.get(name), forwards.get(str(replicate))
            scrapes = [self.run_dir / "blocks" / name / f"{when}.prom" for when in ("before", "after")]
            why = ""
            if block is None:
                why = "its block was not measured"
            elif not block["valid"]:
                why = "; ".join(block["reasons"])
            elif timed is None:
                why = faults.get(str(replicate), "the model's own forward was not timed")
            elif not all(path.is_file() for path in scrapes):
                why = "TorchServe's counters were not read"
            else:
                told = worker.counters(*(path.read_text("utf-8") for path in scrapes))
                if not isinstance(told, dict):
                    why = told.reason
                elif not (why := worker.unlike(told["worker_ms"], timed["median_ms"])):
                    whole = float(block["service_ms"]["mean"])
                    starts.append({"replicate": replicate, "whole_ms": whole, **told, "forward_ms": timed["median_ms"]})
                    used.append(name)
            if why:
                gone.append(f"start {replicate + 1}: {why}")
        return starts, used, gone


def verdict(results: Json, complete: bool) -> Json:
    """The document's verdict: how many claims got which answer. code 2 where none was answered, or the run was cut short."""
    told = results["counts"]
    answered = sum(told.values()) - told[INCONCLUSIVE]
    text = "; ".join(f"{told[name]} {name}" for name in ANSWERS if told[name])
    reasons = [] if complete else ["it is not complete"]
    load = results.get("load_average_before", 0.0)
    if load > (os.cpu_count() or 1) / 2:
        reasons.append(
            f"the machine was busy with other work before the run (load average {load:g}): repeat it on an idle one"
        )
    if results["stand_in"]:
        reasons.append("TensorFlow Serving was a stand-in: claims about its speed and memory are not answered")
    return {"text": text, "code": 0 if complete and answered else 2, "valid": complete, "reasons": reasons}
