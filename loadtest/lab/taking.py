"""The lab's own way to measure a block, for the searches: blocks.measure, and the window's requests beside the BLOCK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadtest.lab.blocks import BlockPlan, measure
from loadtest.lab.cut import recorded_from, select
from loadtest.lab.priming import primed
from loadtest.lab.session import Ask, Json, Taken
from loadtest.lab.spec import Running
from loadtest.points.spec import Load, Protocol


@dataclass(frozen=True, slots=True)
class Taking:
    """What all blocks of a search share; a `session.Measure`. check and every: how answers are judged."""

    payloads: Path
    signature: Path | None
    protocol: Protocol
    path: Literal["gateway", "direct"]
    check: Literal["off", "label", "reference"] = "off"
    every: int = 16
    slack: float = 1.0

    def prime(self, running: Running, run_dir: Path, document: Json, start: str) -> None:
        """First requests to all arms; a `session.Prime`."""
        plan = BlockPlan(Load.closed(1, 1.0), self.payloads, self.signature, self.protocol, self.path, seed=0)
        primed(running, plan, run_dir, document, start)

    def __call__(self, running: Running, ask: Ask, folder: Path) -> Taken:
        """Load one arm; a server or generator that fails is told in `faults`."""
        plan = BlockPlan(
            load=ask.load,
            payloads=self.payloads,
            signature=self.signature,
            protocol=self.protocol,
            path=self.path,
            id=ask.id,
            replicate=ask.replicate,
            order=ask.order,
            slack=self.slack,
            seed=ask.seed,
            check=self.check,
            every=self.every,
        )
        block = measure(running, ask.arm, plan, folder)
        recording = block.recording
        requests, inside = recording.requests, None
        if requests is not None and recording.result is not None:
            start = recorded_from(recording) + round(block.cut.seconds * 1e9)
            end = start + round(ask.load.duration * 1e9)
            inside = select(requests, (requests.due_ns >= start) & (requests.due_ns < end))
        abandoned = 0 if requests is None else int(((requests.sent_ns >= 0) & (requests.done_ns < 0)).sum())
        return Taken(block.document, inside, recording.scrapes, abandoned, recording.faults, recording.plan.check)
