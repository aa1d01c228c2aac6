"""COMPOSITION ROOT: Config -> running gateway. Only here are things built that own sockets, tasks or files.

Phases: check (preflight) -> build -> start -> serve -> drain -> close; what was opened is closed in reverse. One process, one
event loop for HTTP and gRPC, with signal handlers of our own: uvicorn's re-raise SIGTERM and would cut gRPC calls in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import random
import secrets
import socket
from collections.abc import Coroutine, Iterator, Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from gateway.capturing import Capturing
from gateway.clock import monotonic, wall_ns
from gateway.config import Config, load
from gateway.config_units import Address
from gateway.controlplane import Author, ControlPlane, Outcome
from gateway.dataplane import Arm, DataPlane
from gateway.errors import ConfigError
from gateway.listeners import bind, bound
from gateway.preflight import Prepared, prepare
from gateway.routing import Routing
from gateway.servers.admin import AdminParts, Readiness, create_app
from gateway.servers.grpc import GrpcServer, GrpcSettings
from gateway.servers.http import HttpSettings, make_protocol_class
from gateway.storage import AuditFile, StateFile
from gateway.telemetry.loop_lag import LoopLag
from gateway.telemetry.metrics import GatewayView, Metrics
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.unit_hash import load_key
from gateway.upstream.grpc_client import GrpcArm
from gateway.upstream.http_client import HttpArm
from gateway.upstream.import_signature import wait_for_signature
from gateway.upstream.metadata import warn_once_ready
from gateway.upstream.probe import Place, Probe
from gateway.upstream.token_file import TokenFile


class Gateway:
    """A gateway from its configuration to its end: build it inside the running loop, then start, and stop once."""

    def __init__(self, prepared: Prepared, info_file: Path | None = None) -> None:
        self.config = prepared.config
        document = self.config.document
        self._prepared = prepared
        self._started = monotonic()
        self._version = package_version("abgate")
        self._log = structlog.get_logger("abgate")
        self._seed = random.Random(secrets.randbits(64))
        key = load_key(
            document.admin.state_file.with_name("unit.key")
        )  # beside the state: the one place known to be kept
        records = document.records
        self.recorder = Recorder(records.path, records.retention, key, records.queue)
        self.plane = DataPlane(
            self.recorder, rng=self._seed, id_prefix=secrets.token_hex(4), limit=document.limits.concurrency
        )
        audit = AuditFile(document.admin.audit_file)
        self.capturing = Capturing(self.plane, document.capture, unit_key=key, audit=audit, version=self._version)
        self.metrics = Metrics(self._version, self._view)
        self.routing = Routing(self.plane, self.metrics, connect=self._connect, retire=self._retire)
        self.control = ControlPlane(
            prepared.snapshot,
            prepared.state,
            apply=self.routing.apply,
            store=StateFile(document.admin.state_file),
            audit=audit,
        )
        self._places = places(self.config)
        self.probe = Probe(self.routing.arms, self._places, info_file=info_file, rng=self._seed)
        self.lag = LoopLag(self._lagged)
        self.http: Address | None = None
        self.grpc: Address | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._importing: set[str] = set()

    # ---- build and start ----

    async def start(self) -> None:
        """Bind, build and serve; StartError when a port is taken. After it `http` and `grpc` say where it listens."""
        listener = bind("listen.http", self.config.document.listen.http)
        try:
            self.http = bound(listener)
            self.routing.configure(self.config, self._prepared.signatures)
            self.routing.apply(self.control.snapshot)
            self.grpc = await self._start_grpc()
            outcome = await self.control.start()
            if outcome.problem:
                self._log.error("state.not_kept", problem=outcome.problem)
            self.recorder.start()
            await self.capturing.begin()
            self.lag.start()
            self.probe.start()
            self._import_signatures()
            self._spawn(warn_once_ready(self.control.snapshot.models.keys(), lambda: self.plane.routes, self._places))
            await self._start_http(listener)
        except BaseException:
            listener.close()
            raise
        self._grpc_server.set_serving(True)
        gc.collect()
        gc.freeze()  # a full collection over what the imports made (76,000 objects) stopped every request for 50 ms
        self._log.info("gateway.serving", http=str(self.http), grpc=str(self.grpc or ""), pid=os.getpid())

    def _import_signatures(self) -> None:
        """Ask an arm whose server tells signatures, of each model with `signature: import`, until it answers."""
        backends = self.config.document.backends
        for (model, _), arm in self.routing.named().items():
            if arm.kind == "torchserve" or model in self.routing.signatures or model in self._importing:
                continue
            if self.config.imports(model):
                self._importing.add(model)
                self._spawn(self._import(model, arm, backends[arm.backend].http))

    async def _import(self, model: str, arm: Arm, address: Address | None) -> None:
        signature = await wait_for_signature(arm, address, model)
        self._importing.discard(model)
        if model in self.control.snapshot.models:  # a reload may have removed it
            self.routing.signatures[model] = signature
            self.routing.apply(self.control.snapshot)
            self._log.info("signature.imported", model=model, server=str(address or arm.grpc.address))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_grpc(self) -> Address:
        document, tls = self.config.document, self._prepared.tls
        limits, address = document.limits, document.listen.grpc
        settings = GrpcSettings(
            body_limit=limits.body,
            rows_limit=limits.rows,
            timeout_s=limits.timeout,
            forward_headers=tuple(document.forward_headers),
            tls=tls,
        )
        self._grpc_server = GrpcServer(self.plane, settings)
        return Address(address.host, await self._grpc_server.start(str(address)))

    async def _start_http(self, listener: socket.socket) -> None:
        parts = AdminParts(
            control=self.control,
            routes=lambda: self.plane.routes,
            registry=self.metrics.registry(),
            records=self.recorder,
            capture=self.capturing,
            readiness=self.readiness,
            status=self.status,
            reload=self.reload,
            token=self._prepared.token,
            version=self._version,
        )
        document = self.config.document
        limits, tls = document.limits, document.listen.tls
        settings = HttpSettings(
            body_limit=limits.body,
            header_limit=limits.headers,
            rows_limit=limits.rows,
            timeout_s=limits.timeout,
            forward_headers=tuple(document.forward_headers),
        )
        self._protocol = make_protocol_class(self.plane, settings)
        config = uvicorn.Config(
            create_app(parts),
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=round(limits.keep_alive),
            timeout_graceful_shutdown=1,
            ssl_certfile=tls.cert if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        self._server = _Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listener]), name="http")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.002)

    def _connect(self, arm: Arm) -> None:
        """Give an arm its clients."""
        backend = self.config.document.backends[arm.backend]
        loop = asyncio.get_running_loop()
        if backend.http is not None:
            arm.http = HttpArm.create(
                str(backend.http), arm.kind, arm.model, arm.version, pool_size=arm.limit, loop=loop, form=arm.format
            )
        if backend.grpc is not None:
            arm.grpc = GrpcArm(str(backend.grpc), arm.kind, arm.model, arm.version, arm.format)
        token = self._places[arm.backend].token
        if token is not None:
            token.present(arm)

    def _retire(self, arm: Arm) -> None:
        """Close an arm's clients when its last request has ended."""
        self._spawn(self._close_arm(arm))

    async def _close_arm(self, arm: Arm) -> None:
        while arm.in_flight > 0:  # noqa: ASYNC110 - once per reload; an event would cost every request
            await asyncio.sleep(0.1)
        await disconnect(arm)

    # ---- what the control app shows ----

    def _lagged(self, nanoseconds: int) -> None:
        self.plane.loop_lag_ns = nanoseconds

    def _view(self) -> GatewayView:
        snapshot = self.control.snapshot
        return GatewayView(
            revision=snapshot.revision,
            loop_lag_ns=self.plane.loop_lag_ns,
            refused=self.plane.refused,
            written=self.recorder.written,
            dropped=self.recorder.dropped,
            arms=self.routing.views(snapshot),
            capture=self.capturing.view(),
            phases={name: spec.phase for name, spec in snapshot.models.items()},
            assignments=self.recorder.assignments,
        )

    def readiness(self) -> Readiness:
        """Ready when every arm with weight is and nothing drains."""
        named = self.routing.named()
        arms: dict[str, str] = {}
        for model, spec in self.control.snapshot.models.items():
            if model not in self.plane.routes:
                arms[model] = "its signature has not been imported yet"
            for part in spec.arms:
                arm = named.get((model, part.name))
                if part.weight > 0 and arm is not None:
                    arms[f"{model}/{part.name}"] = self.probe.reasons.get(arm, "not asked yet")
        ready = not self.plane.draining and all(reason == "ready" for reason in arms.values())
        return Readiness(ready, self.plane.draining, arms)

    def status(self) -> dict[str, Any]:
        """What GET /admin/v1/status answers; times in seconds but for the lag."""
        return {
            "versions": {"abgate": self._version, "python": platform.python_version()},
            "pids": [os.getpid()],
            "uptime_seconds": round(monotonic() - self._started, 3),
            "time_ns": wall_ns(),
            "http": str(self.http or ""),
            "grpc": str(self.grpc or ""),
            "draining": self.plane.draining,
            "in_flight": self.plane.in_flight,
            "loop_lag_ns": self.plane.loop_lag_ns,
            "revision": self.control.snapshot.revision,
            "config": {"path": str(self.config.path.absolute()), "sha256": self.config.sha256},
            "records": self.recorder.stats(),
        }

    async def reload(self, author: Author) -> Outcome:
        """Read the file again and put its models in force; ConfigError where it is wrong or changes more than models."""
        config = load(self.config.path)
        changes = fixed_changes(self.config, config)
        if changes:
            raise ConfigError([f"{key}: a reload changes models only; restart the gateway for this" for key in changes])
        prepared = prepare(config, self.control.state)

        def put() -> None:
            kept = {name: found for name, found in self.routing.signatures.items() if config.imports(name)}
            self.routing.configure(config, {**kept, **prepared.signatures})

        outcome = await self.control.reload(config.specs(), author, put)
        self.config = config
        self._import_signatures()
        self._log.info("config.reloaded", revision=outcome.revision, who=author.who, sha256=config.sha256)
        return outcome

    # ---- drain and close ----

    async def stop(self) -> None:
        """Drain (readyz says 503 at once, requests under way end within limits.drain), then close in reverse order."""
        self.plane.draining = True
        self._log.info("gateway.draining", in_flight=self.plane.in_flight)
        self._grpc_server.set_serving(False)
        idle = asyncio.Event()
        self.plane.on_idle = idle.set
        if self.plane.in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(idle.wait(), self.config.document.limits.drain)
        left = self.plane.in_flight
        self._server.should_exit = True
        await asyncio.gather(self._serving, self._grpc_server.stop(0.5))
        await self.probe.close()
        self.lag.close()
        for task in list(self._tasks):
            task.cancel()
        self._protocol.frontend.close()
        for arm in self.routing.arms():
            await disconnect(arm)
        await self.capturing.close()
        await asyncio.to_thread(self.recorder.close)
        self._log.info("gateway.stopped", cut_off=left)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def disconnect(arm: Arm) -> None:
    """Close an arm's clients."""
    if arm.http is not None:
        arm.http.close()
    if arm.grpc is not None:
        await arm.grpc.close()


def places(config: Config) -> Mapping[str, Place]:
    """Where the probe asks each backend."""
    backends = config.document.backends
    return {
        name: Place(
            backend.http,
            backend.management,
            TokenFile(backend.token_file) if backend.token_file else None,
            backend.grpc,
        )
        for name, backend in backends.items()
    }


def fixed_changes(old: Config, new: Config) -> list[str]:
    """The sections that differ and cannot change without a restart."""
    before, after = old.document, new.document
    return [key for key in type(before).model_fields if key != "models" and getattr(before, key) != getattr(after, key)]
