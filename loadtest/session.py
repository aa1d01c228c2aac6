"""One generator process's share of a run: its payloads, its users' draws, its journal and the common window.

Made once per process by the locustfile and handed to every user through Locust's environment. Knows neither HTTP nor
gRPC; everything random comes from the profile's seed, the process's number and the user's number in it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

from gateway.protocol.signature_file import load as load_signature
from loadtest.answers import Judge
from loadtest.arrivals import Window, choice_draws, generator, unit_draws, unit_names, zipf_cumulative
from loadtest.job import Job
from loadtest.ledger import Journal
from loadtest.payloads import Payload, Wire, build, load_dataset


class Session:
    """Everything the users of one process share; only the main greenlet changes it after construction."""

    def __init__(self, job: Job, worker: int) -> None:
        profile = job.profile
        self.job = job
        self.worker = worker
        self.plan = profile.plan
        # without a run there is no ledger: a journal that holds nothing
        limit = {"limit": 0} if job.standalone else {}
        self.journal = Journal(job.journal_file(str(worker), os.getpid()), **limit)
        self.window: Window | None = None
        signature = load_signature(job.signature) if job.signature else None
        dataset = load_dataset(job.payloads, profile.split, signature)
        wire = Wire(
            model=profile.model,
            signature_name=job.signature_name,
            json="tfs-rest" in profile.protocols,
            proto="tfs-grpc" in profile.protocols,
            torchserve=job.target.kind == "torchserve",
        )
        self.groups = build(dataset, profile, wire)
        self.judge = Judge(profile.check, dataset, job.output) if profile.check.kind != "off" else None
        self._units = unit_names(profile.seed, profile.units.population)
        zipf = profile.units.draw == "zipf"
        self._cumulative = zipf_cumulative(len(self._units), profile.units.exponent) if zipf else None
        self._users = 0
        self._run = hashlib.sha256(str(job.work).encode()).hexdigest()[:12]

    def open_window(self) -> None:
        """Let the run begin: called once, by the process that leads it; standalone by every process at every start."""
        now = Window.planned(self.plan, time.time_ns(), time.perf_counter_ns())
        if self.job.standalone:
            self.window = Window(now.warmup_start_ns, now.start_ns, 2**63 - 1, now.offset_ns)
        elif self.job.load_window() is None:
            self.job.save_window(now)

    def enlist(self) -> tuple[str, float, Iterator[tuple[str, Payload]]]:
        """A new user: the beginning of its request ids, its place in its first interval, its draws of (unit, payload).

        The place is in [0, 1), the draws are endless. Request ids differ between runs, so that the gateway's records
        can be joined with the ledger even where no answer came.
        """
        self._users += 1
        rng = generator(self.job.profile.seed, 2, self.worker, self._users)
        return f"{self._run}-{self.worker:x}-{self._users:x}-", float(rng.random()), self._draw(rng)

    def _draw(self, rng: Any) -> Iterator[tuple[str, Payload]]:
        units = unit_draws(rng, len(self._units), self._cumulative)
        sizes = [len(group.payloads) for group in self.groups]
        choices = choice_draws(rng, sizes, [group.weight for group in self.groups])
        names, groups = self._units, [group.payloads for group in self.groups]
        for unit, (group, member) in zip(units, choices, strict=True):
            yield names[unit], groups[group][member]
