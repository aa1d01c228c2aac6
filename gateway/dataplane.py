"""The one use case: assign -> admit -> (guard, translate, send: the caller's) -> record.

No HTTP and no gRPC here: a front end opens a Call, asks `assign` and `admit`, has its bytes guarded, translated and sent,
and ends every call with exactly one `finish`. Everything is synchronous and runs on the event loop; nothing blocks.
Routes and arms are built by app.py; a change of weights swaps `routes` and never touches a call under way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.clock import monotonic_ns, wall_ns
from gateway.errors import RequestError
from gateway.experiments.assignment import choose, edges, owner
from gateway.experiments.model import ModelSpec
from gateway.protocol.arm_names import Names
from gateway.protocol.opaque import Codec
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import UNTOLD, BatchInfo
from gateway.protocol.versions import arm_version, version_number


class Meter(Protocol):
    """Counts one finished request of one (model, arm, protocol); bound when the routes are built."""

    def observe(self, status: int, error_kind: str, total_ns: int, gateway_ns: int) -> None: ...
    def refuse(self, status: int) -> None: ...


class Sink(Protocol):
    """Takes finished records; never blocks, counts what it drops."""

    def put(self, row: tuple[Any, ...]) -> None: ...


class Kept(Protocol):
    """What a capture holds of a request under way; told once how it ended."""

    def end(self, call: Call, status: int) -> None: ...


class Tap(Protocol):
    """Samples requests that have come whole; puts what it keeps into the call. headers: bytes, names in lower case."""

    def take(self, call: Call, method: bytes, path: str, headers: Mapping[bytes, bytes], body: bytes) -> None: ...


class Arm:
    """An arm at run time: its specification, its way to the server and its load.

    http and grpc are the upstream clients' objects for this arm, None where its server has no such address. transport is
    the configured one of the two, "" where the client's decides; format is the form of its bodies, "" where `binary`, what
    the probe has seen an open_inference server take, decides; names are its own for the model's tensors. plain: TF
    Serving's JSON goes to `http` as it came; direct: its Predict is sent to `grpc` by the gRPC front end's own short way.
    Both are false where the arm is asked by the other transport alone, by names of its own, or by its handler's own bytes.
    in_flight counts work the server has been given and has not been seen to end, abandoned or not.
    """

    __slots__ = (
        "backend",
        "binary",
        "direct",
        "format",
        "grpc",
        "http",
        "implementation",
        "in_flight",
        "kind",
        "limit",
        "meters",
        "model",
        "name",
        "names",
        "plain",
        "ready",
        "stand_in",
        "streams",
        "transport",
        "version",
        "versions",
    )

    def __init__(self, name: str, backend: str, kind: str, *, model: str, version: str | None, limit: int) -> None:
        self.name = name
        self.backend = backend
        self.kind = kind
        self.model = model
        self.version = version
        self.limit = limit
        self.format = "oip-binary"
        self.binary = self.streams = False
        self.transport = ""
        self.names = Names()
        self.plain = self.direct = kind in ("torchserve", "tensorflow_serving")
        self.implementation = ""
        self.stand_in = False
        self.in_flight = 0
        self.ready = False
        self.versions: frozenset[str] | None = None
        self.meters: Mapping[str, Meter] = {}
        self.http: Any = None
        self.grpc: Any = None

    def body_form(self) -> str:
        """The form of its bodies: the configured one, else what an open_inference server says that it takes."""
        return self.format or ("oip-binary" if self.binary else "oip-json")

    def transport_to(self, client: str) -> str:
        """Over which of http and grpc a client of one of them is served: the configured, else its own, else the one there is."""
        wanted = self.transport or client
        if wanted == "http":
            return "grpc" if self.http is None and self.grpc is not None else "http"
        return "http" if self.grpc is None and self.http is not None else "grpc"

    def settle(self, transport: str, names: Names, opaque: bool = False) -> None:
        """Take over what is configured, once http and grpc are there; opaque: the model's handlers take bytes of their own."""
        self.transport = transport
        self.names = names
        own = self.kind == "tensorflow_serving" or (self.kind == "torchserve" and not opaque)
        own = own and not names
        self.plain = own and self.http is not None and transport != "grpc"
        self.direct = own and self.grpc is not None and transport != "http"


class Route:
    """A model at run time: the arms with their edges, the signature and how units are found."""

    __slots__ = (
        "arms",
        "by_name",
        "codec",
        "edges",
        "experiment",
        "guard",
        "labels",
        "model",
        "opaque",
        "phase",
        "signature",
        "spec",
        "unit_header",
        "unit_key",
    )

    def __init__(self, spec: ModelSpec, arms: tuple[Arm, ...], signature: Signature | None) -> None:
        self.spec = spec
        self.model = spec.name
        self.arms = arms
        self.by_name = {arm.name: arm for arm in arms}
        self.edges = edges([arm.weight for arm in spec.arms])
        self.experiment = spec.experiment
        self.phase = spec.phase
        self.signature = signature
        self.guard = spec.guard
        self.opaque = spec.opaque
        self.codec: Codec | None = None  # what spec.opaque names, once loaded
        self.labels = dict(spec.labels)
        self.unit_header = spec.experiment.unit_header if spec.experiment else None
        self.unit_key = self.unit_header.encode("ascii") if self.unit_header else None

    def known_versions(self) -> dict[int, bool]:
        """Version numbers of the arms, newest first -> whether an arm that has it is ready; never empty.

        A client cannot tell which arm it would get, so it is shown what TF Serving would show. Where no arm tells a version
        that is a number, the model's one version is shown as 0.
        """
        versions: dict[int, bool] = {}
        for arm in self.arms:
            for name in arm.versions or ((arm.version,) if arm.version else ()):
                number = version_number(name)
                if number is not None:
                    versions[number] = versions.get(number, False) or arm.ready
        return dict(sorted(versions.items(), reverse=True)) or {0: any(arm.ready for arm in self.arms)}


class Call:
    """One request on its way. Times are monotonic nanoseconds but for wall_ns."""

    # defaults of the class, not of each instance: a request sets a few of them
    wall_ns: int
    route: Route | None = None
    arm: Arm | None = None
    assigned_arm = ""
    assignment = "default"
    protocol_out = ""
    model = ""
    version = ""
    unit = ""
    rows = 0
    codec_ns = 0
    sent_ns = 0
    received_ns = 0
    upstream_ns = 0
    kept: Kept | None = None

    def __init__(self, protocol_in: str, request_id: str, bytes_in: int, start_ns: int) -> None:
        self.protocol_in = protocol_in
        self.request_id = request_id
        self.bytes_in = bytes_in
        self.start_ns = start_ns
        self.wall_ns = wall_ns()


class DataPlane:
    """All requests pass here; owns no socket, no task, no file."""

    def __init__(self, sink: Sink, *, rng: random.Random, id_prefix: str, limit: int = 1024) -> None:
        self.routes: dict[str, Route] = {}
        self.draining = False
        self.in_flight = 0
        self.limit = limit
        self.loop_lag_ns = 0
        self.refused = 0
        self._sink = sink
        self._random = rng.getrandbits
        self._prefix = id_prefix
        self._count = 0
        self.on_idle: Callable[[], None] | None = None
        self.tap: Tap | None = None  # front ends offer it every inference request; None: nothing is captured

    def begin(self, protocol_in: str, request_id: str, bytes_in: int, start_ns: int) -> Call:
        """Open a call; request_id "" makes one. Every call that was opened ends in `finish`."""
        if not request_id:
            self._count += 1
            request_id = f"{self._prefix}{self._count:012x}"
        self.in_flight += 1
        return Call(protocol_in, request_id, bytes_in, start_ns)

    def assign(self, call: Call, model: str, unit: str, forced: str, block: bool = False) -> Route:
        """Find the model's route and the arm for this request.

        unit "" means that the request carries none (random per request); forced names an arm or is "".
        Raises RequestError: not_found, permission_denied (forcing not allowed), invalid_argument (no such arm).
        """
        call.model = model
        route = self.routes.get(model)
        if route is None:
            raise RequestError("not_found", f"Servable not found for request: Latest({model})")
        call.route = route
        experiment = route.experiment
        if experiment is None:
            arm = route.arms[0]
        elif unit:
            call.unit = unit
            call.assignment = "sticky"
            arm = route.arms[owner(experiment.salt, unit, route.edges)]
        else:
            call.assignment = "random"
            arm = route.arms[choose(self._random(64), route.edges)]
        call.assigned_arm = arm.name
        if forced:
            arm = self._force(call, route, forced, block)
        call.arm = arm
        return route

    def _force(self, call: Call, route: Route, forced: str, block: bool) -> Arm:
        if route.experiment is not None and not route.experiment.allow_forced_arm:
            raise RequestError("permission_denied", f"x-abgate-arm: model {route.model!r} does not allow a forced arm")
        arm = route.by_name.get(forced)
        if arm is None:
            raise RequestError(
                "invalid_argument", f"x-abgate-arm: no arm {forced!r}; {route.model!r} has: {', '.join(route.by_name)}"
            )
        call.assignment = "block" if block else "forced"
        return arm

    def version(self, call: Call, version: str, label: str) -> str:
        """The version to ask the arm for, "" for its own choice; labels are resolved here, so that every arm knows them.

        Raises RequestError: invalid_argument for an unknown label, not_found for a version the arm is known not to have.
        """
        route, arm = call.route, call.arm
        assert route is not None
        assert arm is not None
        if not (version or label or arm.version):
            return ""
        if label:
            known = route.labels.get(label)
            if known is None:
                raise RequestError("invalid_argument", f"Unrecognized servable version label: {label}")
            version = known
        call.version = version = arm_version(version or arm.version or "", arm.versions)
        if version and arm.versions is not None and version not in arm.versions:
            raise RequestError("not_found", f"Servable not found for request: Specific({route.model}, {version})")
        return version

    def admit(self, call: Call) -> Arm:
        """Take a place on the call's arm. `release` gives it back when the server has ended the work.

        Raises RequestError: draining, overloaded (retry_after in seconds).
        """
        arm = call.arm
        assert arm is not None
        if self.draining:
            raise RequestError(
                "draining", "the gateway is shutting down; send the request to another replica", retry_after=1
            )
        if arm.in_flight >= arm.limit:
            raise RequestError(
                "overloaded", f"arm {arm.name!r} has {arm.in_flight} requests under way, its limit", retry_after=1
            )
        if self.in_flight > self.limit:
            raise RequestError(
                "overloaded", f"the gateway has {self.limit} requests under way, its limit", retry_after=1
            )
        arm.in_flight += 1
        return arm

    @staticmethod
    def release(arm: Arm) -> None:
        """The server has ended (or never got) one request of this arm."""
        arm.in_flight -= 1

    def finish(self, call: Call, status: int, error_kind: str, bytes_out: int, batch: BatchInfo = UNTOLD) -> None:
        """Record a call's end: status is the code the client saw (HTTP or gRPC number), error_kind "" when all is well."""
        now = monotonic_ns()
        total = now - call.start_ns
        gateway_ns = total - call.upstream_ns - call.codec_ns
        arm, route = call.arm, call.route
        experiment = route.experiment if route is not None else None
        self.in_flight -= 1
        served = arm is not None and call.sent_ns != 0
        version = call.version
        if served and not version and arm is not None and arm.versions is not None and len(arm.versions) == 1:
            (version,) = arm.versions  # the client named none: it was the only one there is
        if arm is not None:
            meter = arm.meters.get(call.protocol_in)
            if meter is None:
                pass
            elif served:
                meter.observe(status, error_kind, total, gateway_ns)
            else:  # its time says nothing about the arm
                meter.refuse(status)
        else:
            self.refused += 1
        self._sink.put(
            (
                call.wall_ns,
                call.request_id,
                experiment.id if experiment is not None else "",
                route.phase if route is not None else 0,
                call.assigned_arm,
                arm.name if served and arm is not None else "",
                call.assignment,
                call.unit,
                call.protocol_in,
                call.protocol_out,
                call.model,
                version,
                arm.implementation if arm is not None else "",
                status,
                error_kind,
                call.rows,
                call.bytes_in,
                bytes_out,
                gateway_ns,
                call.codec_ns,
                call.upstream_ns,
                self.loop_lag_ns,
                batch.batch_size,
                batch.batch_rows,
                batch.queue_ns,
            )
        )
        if call.kept is not None:
            call.kept.end(call, status)
        if self.in_flight == 0 and self.on_idle is not None:
            self.on_idle()
