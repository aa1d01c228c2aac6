"""Runs one target for a while: mutates, calls, and judges every call by its exception, its memory and its time."""

from __future__ import annotations

import hashlib
import random
import re
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import RequestError
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

MEASURED = 16  # every so-maniest call has its memory measured: that is several times slower
MEMORY_ALLOWANCE = 4 << 20
SECONDS_A_CALL = 2.0  # of CPU, for at most 64 KiB
CORPUS = 512
_VARIES = re.compile(r"\d+|'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Finding:
    """An input and what was wrong with what it did."""

    data: bytes
    problem: str

    @property
    def name(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(slots=True)
class Outcome:
    """What a run saw; kinds: how many different answers and refusals the inputs led to; minutes of processor time."""

    calls: int = 0
    taken: int = 0
    kinds: int = 0
    minutes: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def run(
    target: Target,
    seconds: float,
    seed: int = 0,
    most_findings: int = 10,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Fuzz for so many seconds of processor time, the same inputs for the same seed as far as it gets.

    Not of the clock: on a busy machine ten minutes may hold ten seconds' work. Inputs that led to something new join the
    corpus. Ends early when stopped says so, and after so many different findings.
    """
    started = time.process_time()
    rng = random.Random(f"{target.name}:{seed}")
    corpus = list(target.seeds)
    outcome = Outcome()
    seen: set[str] = set()
    for data in target.seeds:
        problem, kind = judge(target, data, measure=True)
        seen.add(kind)
        if problem is None and kind != "taken":
            problem = f"the seed is refused: {_text(target, data)}"
        if problem is not None:
            outcome.findings.append(Finding(data, problem))
    found = {_VARIES.sub("", finding.problem[-400:]) for finding in outcome.findings}
    end = time.process_time() + seconds
    while time.process_time() < end and len(outcome.findings) < most_findings and not stopped():
        data = mutated(rng, corpus)
        problem, kind = judge(target, data, measure=outcome.calls % MEASURED == 0)
        outcome.calls += 1
        outcome.taken += kind == "taken"
        if kind not in seen:
            seen.add(kind)
            if len(corpus) < CORPUS:
                corpus.append(data)
        if problem is not None and _VARIES.sub("", problem[-400:]) not in found:
            found.add(_VARIES.sub("", problem[-400:]))
            outcome.findings.append(Finding(data, problem))
    outcome.kinds = len(seen)
    outcome.minutes = (time.process_time() - started) / 60
    return outcome


def judge(target: Target, data: bytes, *, measure: bool) -> tuple[str | None, str]:
    """What is wrong with one call, if anything, and which kind of answer or refusal it was: by where it was raised."""
    kind = "taken"
    problem = None
    spent = 0.0
    if measure:
        tracemalloc.start()
    started = time.thread_time()
    try:
        target.call(data)
    except RequestError as error:
        spent = time.thread_time() - started
        kind = f"{error.kind}: {_way(error)}"
    except Exception as error:
        kind = f"finding: {type(error).__name__}"
        problem = "".join(traceback.format_exception(error)[-8:])
    else:
        spent = time.thread_time() - started
    if measure:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        allowed = MEMORY_ALLOWANCE + target.memory_factor * len(data)
        if problem is None and peak > allowed:
            problem = f"held {peak} bytes for an input of {len(data)}, at most {allowed} are right"
    elif problem is None and spent > SECONDS_A_CALL:
        problem = f"took {spent:.1f} s of CPU for an input of {len(data)} bytes"
    return problem, kind


def _way(error: BaseException) -> str:
    """The last lines a refusal came through; texts hold what was sent and would make each a kind of its own."""
    frames = [f"{frame.f_code.co_name}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return " ".join(frames[-3:])


def _text(target: Target, data: bytes) -> str:
    try:
        target.call(data)
    except RequestError as error:
        return error.message
    return "not the second time"
