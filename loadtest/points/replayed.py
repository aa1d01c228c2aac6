"""What a point sends when it replays a capture: the captured bytes, in their order, at their times.

The capture's own time runs from its first request, whatever its protocol, so that two points with the two halves of a
capture keep its order. Nothing here knows sockets.
"""

from __future__ import annotations

import hashlib
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from loadtest.points.spec import PointSpec
from loadtest.points.traffic import Traffic
from loadtest.replay import Options, Recorded, Replay


def prepare(spec: PointSpec, salt: str) -> Traffic:
    """Read the capture; raises ConfigError. An open load gets `due`, a closed one the capture in a circle."""
    if spec.replay is None:
        raise ConfigError(["replay: names no capture"])
    if spec.check != "off":
        raise ConfigError(["check: a captured request has no right answer; use off"])
    models = {spec.model} if spec.model else None
    replay = Replay.load(spec.replay, Options(speed=spec.replay_speed, models=models))
    grpc = spec.protocol == "tfs-grpc"
    mine = np.array([is_grpc(protocol) == grpc for protocol in replay.protocol])
    chosen = np.flatnonzero(mine)
    if not chosen.size:
        raise ConfigError([f"{spec.replay}: holds no request over {'gRPC' if grpc else 'HTTP'}"])
    due: NDArray[np.int64] | None = None
    if spec.load.kind == "open":
        due = np.asarray(replay.due_ns, dtype=np.int64)[chosen]
        inside = due < round((spec.load.warmup + spec.load.duration) * 1e9)
        chosen, due = chosen[inside], due[inside]
    recorded = [replay.payload(int(index)) for index in chosen]
    units = [item.unit_hash or f"u{spec.seed}-{number:06d}" for number, item in enumerate(recorded)]
    order = range(len(recorded))
    return Traffic(
        bodies=tuple(item.body for item in recorded),
        payloads=(),
        rows=np.array([item.rows for item in recorded], dtype=np.int32),
        draws=iter(zip(order, order, strict=True)) if due is not None else cycle(zip(order, order, strict=True)),
        units=units,
        judge=None,
        output=None,
        name=hashlib.sha256(f"{salt} {spec.seed} {spec.stream}".encode()).hexdigest()[:12],
        heads=None if grpc else tuple(_head(spec, item) for item in recorded),
        methods=tuple(item.path for item in recorded) if grpc else None,
        due=due,
    )


def is_grpc(protocol: str) -> bool:
    """Whether a captured protocol is one over gRPC."""
    return protocol.endswith("grpc")


def _head(spec: PointSpec, item: Recorded) -> bytes:
    """Everything up to the value of content-length, as `targets.request_head`."""
    lines = [f"{item.method} {item.path} HTTP/1.1", *(f"{name}: {value}" for name, value in item.headers.items())]
    if spec.target.kind == "gateway":
        lines.append(f"x-request-timeout: {spec.timeout:g}")
    host = spec.target.http.removeprefix("http://").rstrip("/")
    lines += [f"host: {host}", "user-agent: abgate-loadtest", "accept: */*", "content-length: "]
    return "\r\n".join(lines).encode("latin-1")
