"""One point from its spec to its files, in this process: prepare, load, judge, count, write.

Judging waits until the load is over. Who starts this process and watches over it is run's business.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import ConfigError
from gateway.stats.result import NotComputable
from gateway.stats.schedule import schedule_check
from loadtest.answers import BadAnswer, array_of_proto, rows_of_json, unwrap_torchserve
from loadtest.points import replayed, schedule
from loadtest.points.engine import Clocked, Course, Engine
from loadtest.points.files import in_window, save_requests, save_result
from loadtest.points.recorder import Recorder
from loadtest.points.spec import PointResult, PointSpec, Requests
from loadtest.points.traffic import Traffic, prepare

_READY = 16  # connections an open loop has before its first arrival


class Parent:
    """What the process hears from its parent, on another thread, and tells it."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], begin_ns: int | None = None) -> None:
        """begin_ns: the wall clock time to begin where no parent will say one."""
        self._tell = tell
        self._begin: Future[int] = Future()
        self._stop: Callable[[], None] | None = None
        self._stopped = False
        if begin_ns is not None:
            self._begin.set_result(begin_ns)

    def began(self, begin_ns: int) -> None:
        """The parent said when to begin."""
        if not self._begin.done():
            self._begin.set_result(begin_ns)

    def stopped(self) -> None:
        """The parent wants an early end; one before the beginning begins at once and ends."""
        self._stopped = True
        self.began(time.time_ns())
        if self._stop is not None:
            self._stop()

    async def begin(self, engine: Engine) -> int:
        """Say that all is ready and wait for the word; returns the wall clock time to begin."""
        loop = asyncio.get_running_loop()
        self._stop = lambda: (loop.call_soon_threadsafe(engine.stop), None)[1]
        self._tell({"ready": True})
        begin_ns = await asyncio.wrap_future(self._begin)
        if self._stopped:
            engine.stop()
        return begin_ns

    def progress(self, elapsed: float, begun: int, under_way: int) -> None:
        """Tell how far it is."""
        self._tell({"elapsed": elapsed, "begun": begun, "under_way": under_way})


def perform(spec: PointSpec, folder: Path, parent: Parent, notes: tuple[str, ...] = ()) -> PointResult:
    """Run the point and write its files; raises ConfigError and SignatureError for a spec that cannot be run.

    notes: told with the result, behind what was found wrong.
    """
    import uvloop

    if found := schedule.problems(spec.load, replay=spec.replay is not None):
        raise ConfigError(found)
    make = prepare if spec.replay is None else replayed.prepare
    traffic = make(spec, str(folder.absolute()))
    offsets = traffic.due
    if offsets is None and spec.load.kind == "open":
        offsets = schedule.arrivals(spec.load, spec.seed, spec.stream)
    recorder = Recorder(spec.every if traffic.judge else 0, 0 if offsets is None else offsets.size)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        clocked, offset = runner.run(_load(spec, traffic, recorder, offsets, parent))
    judge(spec, traffic, recorder)
    requests = recorder.table(offset, traffic.rows)
    result = _result(spec, folder, requests, clocked, offset)
    if recorder.unkept:
        note = f"{recorder.unkept} answers were not judged: no room to keep them; raise `every`"
        result = replace(result, notes=(*result.notes, note))
    result = replace(result, notes=(*result.notes, *notes))
    save_requests(requests, folder, recorder.names_table(offset, traffic.units, traffic.name) if spec.named else None)
    save_result(result)
    return result


async def _load(
    spec: PointSpec, traffic: Traffic, recorder: Recorder, offsets: schedule.Times | None, parent: Parent
) -> tuple[Clocked, int]:
    """The load itself, without garbage collection; returns the window and what turns its times into wall clock."""
    load = spec.load
    grace = 0 if spec.protocol == "tfs-rest" else 2  # a call has its own deadline; ours is for one that forgets it
    course = Course(round(load.warmup * 1e9), round(load.duration * 1e9), round((spec.timeout + grace) * 1e9))
    engine = Engine(recorder, traffic.draws, course, parent.progress)
    if spec.protocol == "tfs-rest":
        from loadtest.points.http import HttpSender

        engine.sender = HttpSender(spec, traffic, recorder, engine.ended)
    else:
        from loadtest.points.grpc import GrpcSender

        engine.sender = GrpcSender(spec, traffic, recorder, engine.ended)
    places = load.concurrency or 1 if load.kind == "closed" else load.outstanding
    try:
        await engine.sender.open(places if offsets is None else min(places, _READY))
        gc.collect()
        gc.freeze()
        gc.disable()
        begin_ns = await parent.begin(engine)
        offset = time.time_ns() - time.monotonic_ns()
        if offsets is None:
            return await engine.closed(begin_ns - offset, places), offset
        return await engine.open(begin_ns - offset, offsets, places), offset
    finally:
        gc.enable()
        gc.unfreeze()
        await engine.sender.close()


def judge(spec: PointSpec, traffic: Traffic, recorder: Recorder) -> None:
    """Judge the kept answers; one that is none becomes an error, as it does in a Locust run."""
    if traffic.judge is None:
        return
    torchserve, rest = spec.target.kind == "torchserve", spec.protocol == "tfs-rest"
    for slot, body in recorder.bodies:
        payload = traffic.payloads[recorder.payload[slot]]
        try:
            if rest:
                right = traffic.judge.rows(rows_of_json(body, traffic.output), payload.indices)
            elif torchserve:
                answer = unwrap_torchserve(body)[1]
                right = traffic.judge.rows(rows_of_json(answer, traffic.output), payload.indices)
            else:
                right = traffic.judge.array(array_of_proto(body, traffic.output), payload.indices)
        except BadAnswer as problem:
            recorder.fail(slot, f"bad answer: {problem}", recorder.status[slot])
            right = False
        recorder.correct[slot] = right
    recorder.bodies.clear()


def _result(spec: PointSpec, folder: Path, requests: Requests, clocked: Clocked, offset: int) -> PointResult:
    start, end = clocked.start + offset, clocked.end + offset
    inside = in_window(requests, start, end)
    sent = inside.sent_ns >= 0
    good = sent & (inside.error == "")
    answers = (requests.done_ns >= start) & (requests.done_ns < end)
    late, notes = 0, []
    if spec.load.kind == "open":
        check = schedule_check(inside.due_ns, inside.sent_ns)
        if isinstance(check, NotComputable):
            notes.append(check.reason)
        else:
            late = check.late
            if not check.valid:
                notes.append(check.reason)
    seconds = max((end - start) / 1e9, 1e-9)
    return PointResult(
        folder=folder,
        spec=spec,
        warmup_start_ns=clocked.warmup_start + offset,
        start_ns=start,
        end_ns=end,
        generator_pid=os.getpid(),
        generator_cpu_seconds=clocked.cpu_seconds,
        generator_seconds=clocked.seconds,
        due=int(inside.due_ns.size),
        sent=int(sent.sum()),
        late=late,
        dropped=int((~sent).sum()),
        good=int(good.sum()),
        failed=int((sent & ~good).sum()),
        offered=inside.due_ns.size / seconds,
        achieved=int(np.count_nonzero(answers)) / seconds,
        notes=tuple(notes),
    )
