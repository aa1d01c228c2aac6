"""One point from its spec to its files, in this process: prepare, load, judge, count, write.

Judging waits until the load is over. Who starts this process and watches over it is run's business.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gateway.errors import ConfigError
from gateway.stats.result import NotComputable
from gateway.stats.schedule import schedule_check
from loadtest.answers import BadAnswer, array_of_proto, rows_of_json, unwrap_torchserve
from loadtest.points import schedule
from loadtest.points.engine import Clocked, Course, Engine
from loadtest.points.files import in_window, save_requests, save_result
from loadtest.points.recorder import Recorder
from loadtest.points.spec import PointResult, PointSpec, Requests
from loadtest.points.traffic import Traffic, prepare

Tell = Callable[[float, int, int], None]
_READY = 16  # connections an open loop has before its first arrival


def perform(spec: PointSpec, folder: Path, tell: Tell) -> PointResult:
    """Run the point and write its files; raises ConfigError and SignatureError for a spec that cannot be run."""
    import uvloop

    if found := schedule.problems(spec.load):
        raise ConfigError(found)
    traffic = prepare(spec, str(folder.absolute()))
    recorder = Recorder(
        spec.every if traffic.judge else 0, int(schedule.expected(spec.load)) if spec.load.course else 0
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        clocked, offset = runner.run(_load(spec, traffic, recorder, tell))
    judge(spec, traffic, recorder)
    requests = recorder.table(offset, traffic.rows)
    result = _result(spec, folder, requests, clocked, offset)
    if recorder.unkept:
        note = f"{recorder.unkept} answers were not judged: no room to keep them; raise `every`"
        result = replace(result, notes=(*result.notes, note))
    save_requests(requests, folder)
    save_result(result)
    return result


async def _load(spec: PointSpec, traffic: Traffic, recorder: Recorder, tell: Tell) -> tuple[Clocked, int]:
    """The load itself; returns the window and what turns its times into wall clock."""
    load = spec.load
    grace = 0 if spec.protocol == "tfs-rest" else 2  # a call has its own deadline; ours is for one that forgets it
    course = Course(round(load.warmup * 1e9), round(load.duration * 1e9), round((spec.timeout + grace) * 1e9))
    engine = Engine(recorder, traffic.draws, course, tell)
    if spec.protocol == "tfs-rest":
        from loadtest.points.http import HttpSender

        engine.sender = HttpSender(spec, traffic, recorder, engine.ended)
    else:
        from loadtest.points.grpc import GrpcSender

        engine.sender = GrpcSender(spec, traffic, recorder, engine.ended)
    offset = time.time_ns() - time.monotonic_ns()
    try:
        if load.kind == "closed":
            places = load.concurrency or 1
            await engine.sender.open(places)
            return await engine.closed(places), offset
        offsets = schedule.arrivals(load, spec.seed)
        await engine.sender.open(min(load.outstanding, _READY))
        return await engine.open(offsets, load.outstanding), offset
    finally:
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
    seconds = (end - start) / 1e9
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
