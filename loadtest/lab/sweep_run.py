"""Throughput-latency curves, the doing: fresh servers, one arm after the other, loads from low to high."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.stats.paired import pair_orders
from loadtest.lab import sweep
from loadtest.lab.session import START_SECONDS, Ask, Bench, Step, planned
from loadtest.lab.spec import Running
from loadtest.points.spec import Load

Json = dict[str, Any]
CLOSED, OPEN = "closed loop", "open loop"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Loads: concurrency and whether its stop rule applies, rates in requests per second (empty: shares of the peaks).

    Seconds of a point and of the warm-up before it; fresh starts.
    """

    path: str
    protocol: str
    concurrency: tuple[float, ...] = ()
    stop: bool = True
    rates: tuple[float, ...] = ()
    open_loop: bool = True
    point: float = 8.0
    warmup: float = 1.0
    starts: int = 1


@dataclass
class SweepRun:
    """One run; `curves` grows and is written with every point. A run that goes on keeps the curves that were whole: each
    comes from one start of the servers."""

    bench: Bench
    plan: SweepPlan
    curves: list[Json] = field(default_factory=list)
    done: float = 0.0

    def __post_init__(self) -> None:
        """Take up what an earlier part of this run measured."""
        earlier = (self.bench.book.document.get("results") or {}).get("curves") or []
        self.curves = [curve for curve in earlier if curve.get("whole")]

    def run(self) -> Json:
        """All starts; returns and writes "results". Raises StandError, SearchError."""
        names = [arm.name for arm in self.bench.arms]
        orders = pair_orders(self.plan.starts, self.bench.seed)
        for replicate, order in enumerate(orders):
            if all(self._has(replicate, name, mode) for name in names for mode in self._modes()):
                continue
            self._tell(f"start {replicate + 1} of {self.plan.starts}: fresh servers")
            with self.bench.stand.up(self.bench.arms, self.bench.start_folder(f"start-{replicate}")) as running:
                self.bench.warm(running, f"start {replicate}")
                self.done += START_SECONDS
                arms = names if order == "AB" else names[::-1]
                if self.plan.concurrency:
                    for arm in arms:
                        if not self._has(replicate, arm, CLOSED):
                            self._closed(running, replicate, arm)
                            self._whole()
                if self.plan.open_loop:
                    rates = self.plan.rates or sweep.rates_from(self._peaks(replicate))
                    for arm in arms:
                        if not self._has(replicate, arm, OPEN):
                            self._open(running, replicate, arm, rates)
                            self._whole()
        return self._write()

    def _modes(self) -> list[str]:
        return [*([CLOSED] if self.plan.concurrency else []), *([OPEN] if self.plan.open_loop else [])]

    def _has(self, replicate: int, arm: str, mode: str) -> bool:
        return any((one["replicate"], one["arm"], one["mode"]) == (replicate, arm, mode) for one in self.curves)

    def _whole(self) -> None:
        self.curves[-1]["whole"] = True
        self._write()

    def _closed(self, running: Running, replicate: int, arm: str) -> None:
        blocks: list[Json] = []
        for i, level in enumerate(self.plan.concurrency):
            load = Load.closed(int(level), self.plan.point, self.plan.warmup)
            blocks.append(self._take(running, Ask(f"s{replicate}-{arm}-c{level:g}", arm, load, replicate, i)))
            left = [one for one in self.plan.concurrency if one > level]
            told = None
            if self.plan.stop and left and sweep.flat([block["goodput"] for block in blocks]):
                told = (
                    f"the last {sweep.LOOK_BACK} throughputs gained less than {100 * sweep.GAIN:g}%; "
                    f"{left[0]:g} and more not measured"
                )
            self._keep(sweep.curve(blocks, told), first=i == 0)
            if told:
                return

    def _open(self, running: Running, replicate: int, arm: str, rates: tuple[float, ...]) -> None:
        blocks: list[Json] = []
        for i, rate in enumerate(rates):
            load = Load.open(rate, self.plan.point, self.plan.warmup)
            blocks.append(self._take(running, Ask(f"s{replicate}-{arm}-r{rate:g}", arm, load, replicate, i)))
            # arms have one list of rates; far beyond an arm's capacity there is nothing to see but a full queue
            left = [one for one in rates if one > rate]
            told = None
            if left and not self.plan.rates and blocks[-1]["goodput"] < 0.5 * rate:
                told = f"at {rate:g}/s less than half was answered; {left[0]:g}/s and more not measured"
            self._keep(sweep.curve(blocks, told), first=i == 0)
            if told:
                return

    def _take(self, running: Running, ask: Ask) -> Json:
        load = ask.load
        what = f"{load.concurrency} in flight" if load.concurrency else f"{load.course[0].from_rate:g}/s"
        self._tell(f"{ask.arm}: {what}")
        block = self.bench.take(running, ask).block
        self.done += planned(ask.load)
        return block

    def _keep(self, curve: Json, first: bool) -> None:
        if not first:
            self.curves.pop()
        self.curves.append(curve)
        self._write()

    def _peaks(self, replicate: int) -> list[float]:
        return [
            curve["peak"]["goodput"]
            for curve in self.curves
            if curve["replicate"] == replicate and curve["mode"] == CLOSED and curve["peak"]
        ]

    def _tell(self, text: str) -> None:
        plan = self.plan
        rates = len(plan.rates) or (len(sweep.FRACTIONS) if plan.open_loop else 0)
        points = (len(plan.concurrency) + rates) * len(self.bench.arms) * plan.starts
        total = plan.starts * START_SECONDS + points * planned(Load.closed(1, plan.point, plan.warmup))
        self.bench.tell(Step(self.done, max(self.done, total), text))

    def _write(self) -> Json:
        told = {"path": self.plan.path, "protocol": self.plan.protocol, "curves": self.curves}
        self.bench.book.change(results=told)
        return told
