"""A stand and a measurement that are scripted: servers are formulas, a block is drawn from them at once."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loadtest.lab.cut import validity
from loadtest.lab.session import Bench, Book, Taken, arms_before
from loadtest.lab.spec import ArmSpec, RunningArm
from loadtest.points.spec import Requests
from loadtest.targets import Target

KINDS = {"ts": "torchserve", "ts-aa": "torchserve", "tf": "tensorflow_serving"}


def arm(name):
    return ArmSpec(name, KINDS[name], "toy", "v", Path("/nowhere"))


def requests(due_s, latency_ms, error=None):
    """Requests of these due times and latencies (inf: never answered), sent when due."""
    n = len(due_s)
    due = (np.asarray(due_s) * 1e9).astype(np.int64)
    latency = np.asarray(latency_ms, dtype=np.float64)
    done = np.where(np.isfinite(latency), due + np.where(np.isfinite(latency), latency, 0) * 1e6, -1).astype(np.int64)
    none = np.full(n, -1, np.int64)
    told = error if error is not None else np.where(done < 0, "timeout", "").astype(object)
    return Requests(due, due.copy(), done, np.full(n, 200, np.int16), told, np.ones(n, np.int32), np.full(n, -1, np.int8),
                    none, none, none, none.astype(np.int32), none)  # fmt: skip


def quantiles(latency):
    told = {"n": len(latency), "mean": float(np.mean(latency)), "sd": 0.0, "max": float(np.max(latency))}
    for name, q, floor in (
        ("p50", 0.5, 11),
        ("p90", 0.9, 64),
        ("p95", 0.95, 130),
        ("p99", 0.99, 662),
        ("p999", 0.999, 6636),
    ):
        enough = len(latency) >= floor
        told[name] = (
            {"value": float(np.quantile(latency, q)), "low": None, "high": None} if enough else {"missing": "few"}
        )
    return told


@dataclass
class Script:
    """The stand and the measurement. capacity: arm, rule -> the server's requests per second."""

    capacity: Callable
    stand_in: bool = False
    starts: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    up_now: int = 0
    fails_at: int = -1
    gateway_cores: float = 0.3
    late: Callable = lambda ask: 0
    others_cores: float = 0.0

    @contextmanager
    def up(self, arms, folder):
        self.starts.append([(one.name, one.batch.max_batch, one.batch.wait_ms) for one in arms])
        self.up_now += 1
        try:
            yield Up(self, {one.name: one for one in arms})
        finally:
            self.up_now -= 1

    def measure(self, running, ask, folder):
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(ask.id)
        rng = np.random.default_rng(len(self.asked))
        spec, load = running.specs[ask.arm], ask.load
        mu = self.capacity(spec.name, spec.batch)
        if load.concurrency:
            rate = mu * load.concurrency / (load.concurrency + 2)
            n = max(1, int(rate * load.duration))
            due, latency = np.arange(n) / rate, rng.gamma(9.0, 1e3 * load.concurrency / rate / 9.0, n)
        else:
            rate = load.course[0].from_rate
            n = max(1, int(rate * load.duration))
            due = np.sort(rng.uniform(0, load.duration, n))
            slack = mu - rate
            waits = rng.exponential(1e3 / slack, n) if slack > 0 else 1e3 * due * (1 - mu / rate) + 50
            latency = 1e3 / mu + waits + spec.batch.wait_ms
        asked, good = n / load.duration, min(n / load.duration, mu)
        late = self.late(ask)
        cpu = {f"arm {ask.arm}": {"cores": min(1.0, asked / mu)}, "gateway": {"cores": self.gateway_cores},
               "generator": {"cores": 0.1}}  # fmt: skip
        counts = {"n": n, "errors": 0, "late": late, "dropped": 0}
        block = {
            "id": ask.id, "replicate": ask.replicate, "order": ask.order, "arm": ask.arm, "path": "gateway",
            "protocol": "tfs-rest", "mode": "closed loop" if load.concurrency else "open loop",
            "load": {"concurrency": load.concurrency, "rate": None if load.concurrency else rate},
            **counts, "others_cores": self.others_cores, "offered": asked, "achieved": good, "goodput": good,
            "service_ms": quantiles(latency), "intended_ms": quantiles(latency),
            "cpu": cpu, "folder": f"blocks/{ask.id}", **validity((), counts, cpu, "gateway", self.others_cores),
        }  # fmt: skip
        return Taken(block, requests(due, latency))

    def bench(self, folder, kind, names=("ts", "tf"), book=None):
        arms = tuple(arm(name) for name in names)
        book = book or Book.new(folder, {"kind": kind, "arms": arms_before(arms)})
        return Bench(self, self.measure, arms, book, 1)


class Up:
    def __init__(self, script, specs):
        self.specs = specs
        self.wire = {}
        where = Target("gateway", "h:1", "h:2")
        self.arms = {
            name: RunningArm(spec, 1, f"a {name}", script.stand_in and name == "tf", where, None, None)
            for name, spec in specs.items()
        }
