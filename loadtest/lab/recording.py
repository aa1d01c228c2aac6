"""What happens around one point of load: the arm is loaded, everything that runs is watched, the servers are asked.

Acts and keeps; cuts nothing and judges nothing. Raw data go into the block's folder beside the point's own: resources.parquet,
before.prom and after.prom (the loaded arm's metrics around the whole recording, warm-up included).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import psutil

from loadtest.admin import AdminError, fetch
from loadtest.lab.spec import ArmSpec, Running, RunningArm
from loadtest.lab.threads import Threads, compilers, processes, spent
from loadtest.points.files import load_requests
from loadtest.points.run import Progress, run_point
from loadtest.points.spec import Load, PointResult, PointSpec, Protocol, Requests, Segment
from loadtest.resources import Sampler, write_resources

SAMPLE_SECONDS = 0.25
GENERATOR = "generator"
LAB = "lab"  # this process, which watches
Told = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """One block as planned. load.duration is what is kept, load.warmup the least discard, slack what more may be discarded.

    Times in seconds. path direct: past the gateway, in the wire format the server itself speaks. id: names the block and its
    folder, and goes into x-abgate-block. name: the load's, in a user's words. A load whose rate changes has no slack.
    """

    load: Load
    payloads: Path
    signature: Path | None = None
    protocol: Protocol = "tfs-rest"
    path: Literal["gateway", "direct"] = "gateway"
    id: str = "block"
    replicate: int = 0
    order: int = 0
    name: str = ""
    slack: float = 1.0
    model: str = ""  # another model of the same servers; "": the arm's own
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    seed: int = 1
    timeout: float = 10.0
    check: Literal["off", "label", "reference"] = "off"
    output: str | None = None
    signature_name: str = "serving_default"
    every: int = 8
    replay: Path | None = None

    @property
    def recorded(self) -> Load:
        """The load as it is sent: what is kept and the slack, after the least warm-up."""
        load, slack = self.load, self.room
        if slack == 0.0:
            return load
        course = load.course
        if course:
            only = course[0]
            course = (Segment(only.seconds + slack, only.from_rate, only.to_rate),)
        return replace(load, duration=load.duration + slack, course=course)

    def judging(self, arm: ArmSpec) -> BlockPlan:
        """The plan for an arm: one whose proof allows outputs that are only near the reference's is not judged by them."""
        return replace(self, check="off") if arm.near and self.check == "reference" else self

    @property
    def room(self) -> float:
        """Seconds that may be discarded beyond load.warmup."""
        steady = all(part.from_rate == part.to_rate for part in self.load.course) and len(self.load.course) <= 1
        return self.slack if steady else 0.0


@dataclass(frozen=True)
class Recording:
    """Everything of a block before it is cut. requests, result: None where no generator came to its end.

    resources: (time_ns, role, cores, rss_bytes) rows. scrapes: the arm's metrics before and after, None where it tells none.
    wire: what the arm's server was spoken to in. compiling: mean cores of the server's just-in-time compilers, None where
    none are known.
    faults: what makes the block invalid whatever is cut (a process died, the generator failed).
    """

    plan: BlockPlan
    arm: RunningArm
    folder: Path
    result: PointResult | None
    requests: Requests | None
    resources: Sequence[tuple[int, str, float, int]]
    scrapes: tuple[str, str] | None
    started_seconds: float | None
    wire: str = ""
    faults: tuple[str, ...] = field(default=())
    compiling: float | None = None


def point_spec(running: Running, arm: str, plan: BlockPlan) -> PointSpec:
    """The point of a block: the gateway with the arm forced, or the arm's own server."""
    found = running.arms[arm]
    through = plan.path == "gateway"
    model = plan.model or found.spec.model
    return PointSpec(
        target=running.gateway if through else found.direct,
        protocol=plan.protocol,
        model=model,
        load=plan.recorded,
        payloads=plan.payloads,
        signature=plan.signature,
        signature_name=plan.signature_name,
        rows=plan.rows,
        arm=arm if through else "",
        block=plan.id if through else "",
        seed=plan.seed,
        timeout=plan.timeout,
        check=plan.check,
        output=plan.output,
        every=plan.every,
        replay=plan.replay,
    )


def record(running: Running, arm: str, plan: BlockPlan, folder: Path, on_progress: Told | None = None) -> Recording:
    """Load one arm, the others idle; write the raw data into folder. Only what stops the whole lab is raised."""
    folder.mkdir(parents=True, exist_ok=True)
    found = running.arms[arm]
    plan = plan.judging(found.spec)
    faults = dead(running, arm)
    before = scrape(found)
    generator = _Generator(running)
    sampler = Sampler(generator.roots, SAMPLE_SECONDS, machine=True)
    sampler.start()
    result = requests = None
    compiled, began = compilers(arm_processes(running, arm)), time.monotonic()
    try:
        if not faults:
            result = run_point(point_spec(running, arm, plan), folder, on_progress)
            requests = load_requests(folder)
    except (RuntimeError, OSError, ValueError) as error:
        faults += (f"the generator failed: {error}",)
    finally:
        sampler.stop()
    compiling = _compiling(compiled, compilers(arm_processes(running, arm)), time.monotonic() - began)
    after = scrape(found) if before is not None else None
    write_resources(folder / "resources.parquet", sampler.rows())
    for name, text in (("before", before), ("after", after)):
        if text is not None:
            (folder / f"{name}.prom").write_text(text, "utf-8")
    return Recording(
        plan=plan,
        arm=found,
        folder=folder,
        result=result,
        requests=requests,
        resources=sampler.rows(),
        scrapes=(before, after) if before is not None and after is not None else None,
        started_seconds=running.started_seconds.get(arm),
        wire=spoken(running, arm, plan),
        faults=tuple(dict.fromkeys((*faults, *dead(running, arm)))),
        compiling=compiling,
    )


def _compiling(before: Threads, after: Threads, seconds: float) -> float | None:
    return spent(before, after) / seconds if before else None


def arm_processes(running: Running, arm: str) -> list[int]:
    """The processes of an arm's server."""
    return processes(running.roots().get(f"arm {arm}", ()))


def spoken(running: Running, arm: str, plan: BlockPlan) -> str:
    """The wire format that the arm's server sees."""
    if plan.path == "direct":
        return running.arms[arm].direct.protocol(plan.protocol)
    return running.wire.get(arm, {}).get(plan.protocol, "")


def dead(running: Running, arm: str) -> tuple[str, ...]:
    """What no longer runs as it was started: a restarted server is another replicate, whatever it answers."""
    wanted = {f"arm {arm}": running.arms[arm].pid, "gateway": running.gateway_pid}
    now = running.roots()
    return tuple(
        f"{role}: the process that was started (pid {pid}) ended"
        for role, pid in wanted.items()
        if pid not in now.get(role, ()) or not _alive(pid)
    )


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def scrape(arm: RunningArm) -> str | None:
    """The arm's metrics as text, None where it has none or does not answer."""
    if arm.metrics is None:
        return None
    try:
        return fetch(f"http://{arm.metrics}").decode("utf-8", "replace")
    except AdminError:
        return None


class _Generator:
    """Finds the generator among this process's children: the ones that were not there before it was started."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._before = self._children()

    @staticmethod
    def _children() -> set[int]:
        try:
            return {child.pid for child in psutil.Process(os.getpid()).children()}
        except psutil.Error:
            return set()

    def roots(self) -> Mapping[str, Sequence[int]]:
        """The stand's roles and the generator's."""
        known = dict(self._running.roots())
        taken = self._before.union(*known.values())
        return known | {GENERATOR: sorted(self._children() - taken), LAB: [os.getpid()]}
