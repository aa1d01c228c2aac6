"""A gateway's HTTP side on a free port, in front of fake servers, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from gateway.dataplane import Arm, DataPlane, Route
from gateway.experiments.model import ArmSpec, Experiment, Guard, ModelSpec, Opaque
from gateway.protocol.arm_names import Names
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.servers.http import HttpSettings, InferenceProtocol, make_protocol_class
from gateway.telemetry.events import Record
from gateway.upstream.http_client import HttpArm

DEADLINE_S = 10.0
SIGNATURE = Signature("m", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))
BODY = b'{"instances": [[1.0, 2.0]]}'
PREDICT = "/v1/models/m:predict"


class Rows:
    """Keeps every record."""

    def __init__(self) -> None:
        self.rows: list[Record] = []

    def put(self, row: tuple[Any, ...]) -> None:
        self.rows.append(Record(*row))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def request(body: bytes = BODY, path: str = PREDICT, method: str = "POST", **headers: str) -> bytes:
    """The bytes of a request; keyword `x_user_id="u"` is the header x-user-id; host and content-length are added."""
    given = {"host": "test", "content_length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1"] + [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """Read one answer."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(first.split(" ")[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Gate:
    """The gateway under test."""

    def __init__(self, plane: DataPlane, rows: Rows, server: uvicorn.Server, port: int) -> None:
        self.plane = plane
        self.records = rows.rows
        self.server = server
        self.port = port
        self.clients: list[Client] = []

    @property
    def arms(self) -> dict[str, Arm]:
        return dict(self.plane.routes["m"].by_name)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        try:
            return await client.ask(data)
        finally:
            await client.close()

    async def recorded(self, count: int) -> list[Record]:
        """Wait until that many requests have been recorded."""
        await until(lambda: len(self.records) >= count)
        return self.records


async def until(condition: Any) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.005)


def make_plane(
    addresses: Mapping[str, str],
    rows: Rows,
    *,
    kinds: Mapping[str, str] | None = None,
    guard: Guard = "strict",
    limit: int = 64,
    arm_format: str = "oip-binary",
    opaque: Opaque | None = None,
    signature: Signature | None = SIGNATURE,
) -> DataPlane:
    """A data plane with the model "m" on the given servers, evenly split, forcing allowed."""
    loop = asyncio.get_running_loop()
    names = list(addresses)
    experiment = Experiment("exp", "salt", "x-user-id", True) if len(names) > 1 else None
    spec = ModelSpec(
        "m", tuple(ArmSpec(name, name, 50, "m") for name in names), experiment, guard, {"live": "1"}, opaque
    )
    plane = DataPlane(rows, rng=random.Random(7), id_prefix="test-")
    arms = []
    for name in names:
        kind = (kinds or {}).get(name, "tensorflow_serving")
        arm = Arm(name, name, kind, model="m", version=None, limit=limit)
        arm.ready = True
        arm.format = arm_format
        arm.http = HttpArm.create(addresses[name], kind, "m", None, pool_size=limit, loop=loop, form=arm_format)
        arm.settle("", Names(), opaque is not None)
        arms.append(arm)
    plane.routes = {"m": Route(spec, tuple(arms), signature)}
    return plane


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    return app


@asynccontextmanager
async def gateway(
    addresses: Mapping[str, str],
    *,
    settings: HttpSettings | None = None,
    keep_alive: float = 75,
    **options: Any,
) -> AsyncIterator[Gate]:
    """Serve until the block ends; then everything it opened is closed."""
    rows = Rows()
    plane = make_plane(addresses, rows, **options)
    protocol: type[InferenceProtocol] = make_protocol_class(plane, settings or HttpSettings(timeout_s=5))
    config = uvicorn.Config(
        application(),
        host="127.0.0.1",
        port=0,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
    await until(lambda: server.started)
    gate = Gate(plane, rows, server, server.servers[0].sockets[0].getsockname()[1])
    try:
        yield gate
    finally:
        for client in gate.clients:
            await client.close()
        server.should_exit = True
        await task
        protocol.frontend.close()
        for route in plane.routes.values():
            for arm in route.arms:
                arm.http.close()
        await asyncio.sleep(0)
