"""One block: one arm loaded in one way for a fixed time, recorded whole, cut afterwards, told as a BLOCK of lab/spec.py.

Lives here: the block's plan and the two steps of measuring, recording (acts) and cutting (pure, can be done again with the
other arm's discard). What a block means is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtest.lab.cut import Cut, block_document, own_discard
from loadtest.lab.recording import BlockPlan, Recording, record
from loadtest.lab.spec import Running
from loadtest.points.run import Progress

__all__ = ["Block", "BlockPlan", "Recording", "common", "measure", "record"]

Told = Callable[[Progress], None]


@dataclass(frozen=True)
class Block:
    """A measured block: the recording it was cut from, how it was cut, and the BLOCK dictionary for lab.json."""

    recording: Recording
    cut: Cut
    document: dict[str, Any]


def measure(running: Running, arm: str, plan: BlockPlan, folder: Path, on_progress: Told | None = None) -> Block:
    """Load one arm, the others idle, and cut by its own warm-up. folder: the block's raw data; made here.

    A server, a gateway or a generator that dies leaves a block with valid false and the reason; nothing is raised for it.
    """
    recording = record(running, arm, plan, folder, on_progress)
    return cut(recording, own_discard(recording))


def cut(recording: Recording, chosen: Cut) -> Block:
    """The block of a recording for a discard. Pure, and slow (intervals): a tenth of a second for thousands of requests."""
    return Block(recording, chosen, block_document(recording, chosen))


def common(recordings: Sequence[Recording]) -> list[Block]:
    """Blocks that are compared with each other: the longest warm-up is discarded from all, the same duration kept of all."""
    cuts = [own_discard(recording) for recording in recordings]
    longest = max((one.seconds for one in cuts), default=0.0)
    return [cut(recording, replace(one, seconds=longest)) for recording, one in zip(recordings, cuts, strict=True)]
