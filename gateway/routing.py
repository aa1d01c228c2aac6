"""Builds what a request reads: a Route for every model, with Arms that outlive the routes.

Lives here: specification in force -> Route, and which Arm object stands for which arm. An arm keeps its object (and so its
connections and its count of work under way) over every change of weights, and over a reload unless its own keys changed.
Decides nothing about traffic; opens nothing itself: `connect` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.config import Config
from gateway.dataplane import Arm, DataPlane, Route
from gateway.experiments.model import ArmSpec, ModelSpec, Snapshot
from gateway.preflight import load_codec
from gateway.protocol.arm_names import Names
from gateway.protocol.forms import CLIENT_WIRES
from gateway.protocol.opaque import Codec
from gateway.protocol.signature_file import Signature
from gateway.telemetry.metrics import ArmView, Metrics


@dataclass(frozen=True)
class _Made:
    """An arm and the specification it was made from, its weight left out."""

    spec: ArmSpec
    kind: str
    limit: int
    opaque: bool
    arm: Arm


class Routing:
    """The arms of a configuration and the routes over them; used on the event loop only."""

    def __init__(
        self, plane: DataPlane, metrics: Metrics, *, connect: Callable[[Arm], None], retire: Callable[[Arm], None]
    ) -> None:
        self.signatures: dict[str, Signature] = {}
        self._plane = plane
        self._metrics = metrics
        self._connect = connect
        self._retire = retire
        self._made: dict[tuple[str, str], _Made] = {}
        self._codecs: dict[str, Codec] = {}

    def configure(self, config: Config, signatures: Mapping[str, Signature]) -> None:
        """Make the arms of a configuration, keep those that are as they were, retire those that are gone."""
        document = config.document
        made: dict[tuple[str, str], _Made] = {}
        for model, spec in config.specs().items():
            for arm in spec.arms:
                bare = replace(arm, weight=0)
                kind = document.backends[arm.backend].kind
                limit = arm.concurrency or document.limits.concurrency
                opaque = spec.opaque is not None
                old = self._made.get((model, arm.name))
                if old is not None and (old.spec, old.kind, old.limit, old.opaque) == (bare, kind, limit, opaque):
                    made[model, arm.name] = old
                else:
                    made[model, arm.name] = _Made(bare, kind, limit, opaque, self._make(bare, kind, limit, opaque))
        kept = {entry.arm for entry in made.values()}
        for entry in self._made.values():
            if entry.arm not in kept:
                self._retire(entry.arm)
        self._made = made
        self.signatures = dict(signatures)
        codecs = {name: spec.opaque.codec for name, spec in config.specs().items() if spec.opaque is not None}
        self._codecs = {name: load_codec(codec) for name, codec in codecs.items() if codec}

    def _make(self, spec: ArmSpec, kind: str, limit: int, opaque: bool) -> Arm:
        arm = Arm(spec.name, spec.backend, kind, model=spec.model, version=spec.version, limit=limit)
        arm.format = spec.format
        self._connect(arm)
        arm.settle(spec.transport, Names(spec.inputs, spec.outputs), opaque)
        arm.streams = spec.streams
        return arm

    def apply(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force: one swap of the data plane's routes. Models without a signature yet get no route."""
        self._plane.routes = {
            name: self._route(spec)
            for name, spec in snapshot.models.items()
            if name in self.signatures or spec.guard == "off"
        }

    def _route(self, spec: ModelSpec) -> Route:
        arms = tuple(self._made[spec.name, arm.name].arm for arm in spec.arms)
        experiment = spec.experiment.id if spec.experiment else ""
        for arm in arms:
            arm.meters = {p: self._metrics.meter(spec.name, experiment, arm.name, p) for p in CLIENT_WIRES}
        route = Route(spec, arms, self.signatures.get(spec.name))
        route.codec = self._codecs.get(spec.name)
        return route

    def arms(self) -> Iterable[Arm]:
        """Every arm there is."""
        return [entry.arm for entry in self._made.values()]

    def named(self) -> dict[tuple[str, str], Arm]:
        """Every arm by (model, arm)."""
        return {key: entry.arm for key, entry in self._made.items()}

    def views(self, snapshot: Snapshot) -> tuple[ArmView, ...]:
        """The arms as a scrape shows them."""
        found = []
        for model, spec in snapshot.models.items():
            experiment = spec.experiment.id if spec.experiment else ""
            for part in spec.arms:
                entry = self._made.get((model, part.name))
                if entry is not None:
                    arm = entry.arm
                    found.append(ArmView(model, experiment, part.name, part.weight, arm.ready, arm.in_flight))
        return tuple(found)
