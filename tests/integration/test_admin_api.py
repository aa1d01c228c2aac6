"""The admin API over a real control plane with its files; no socket: the app is called as an ASGI application."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from gateway.controlplane import Author, ControlPlane, Outcome
from gateway.dataplane import Arm, Route
from gateway.errors import ConfigError
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec, Snapshot
from gateway.experiments.state import State, merge
from gateway.servers.admin import AdminParts, Readiness, create_app
from gateway.storage import AuditFile, StateFile

SPEC = ModelSpec(
    "m",
    (ArmSpec("a", "ts", 50, "m"), ArmSpec("b", "tf", 50, "m")),
    Experiment("e", "s", "x-user-id", True),
)
WHO = {"who": "tester", "why": "test"}


class Captures:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def status(self) -> dict[str, Any]:
        return {"active": bool(self.asked)}

    def terms(self, *terms: Any) -> Any:
        return terms

    async def start(self, terms: Any, author: Mapping[str, str]) -> dict[str, Any]:
        self.asked.append((terms, author["who"], author["why"]))
        return {"asked": self.asked}

    async def stop(self, author: Mapping[str, str]) -> dict[str, Any]:
        self.asked.clear()
        return self.status()


@dataclass
class World:
    """What the app acts on."""

    folder: Path
    token: str | None = None
    readiness: Readiness = field(default_factory=lambda: Readiness(True, False, {"m/a": "ready"}))
    applied: list[Snapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        snapshot, state = merge({"m": SPEC}, State())
        self.store = StateFile(self.folder / "state.json")
        self.audit = AuditFile(self.folder / "audit.jsonl")
        self.control = ControlPlane(snapshot, state, apply=self.applied.append, store=self.store, audit=self.audit)
        kinds = {"ts": "torchserve", "tf": "tensorflow_serving"}
        self.arms = tuple(
            Arm(arm.name, arm.backend, kinds[arm.backend], model="m", version=None, limit=9) for arm in SPEC.arms
        )
        parts = AdminParts(
            control=self.control,
            routes=self.routes,
            registry=CollectorRegistry(),
            records=self,
            capture=Captures(),
            readiness=lambda: self.readiness,
            status=lambda: {"pids": [1]},
            reload=self.reload,
            token=self.token,
            version="0",
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(parts)), base_url="http://gateway")

    def routes(self) -> Mapping[str, Route]:
        return {"m": Route(self.control.snapshot.models["m"], self.arms, None)}

    def flush(self) -> list[Path]:
        return [self.folder / "records-1-1.parquet"]

    def stats(self) -> dict[str, Any]:
        return {"written": 3}

    async def reload(self, author: Author) -> Outcome:
        raise ConfigError(["a: wrong", f"b: {author.who}"])

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.path.read_text().splitlines()]

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        reply = await self.client.request(method, path, json=body, headers=headers)
        return reply.status_code, reply.json()


async def test_weights_are_changed_on_the_revision_they_were_decided_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    body = {"weights": {"a": 90, "b": 10}, "revision": 1, **WHO}
    status, found = await world.call("PUT", "/admin/v1/experiments/m/weights", body)
    assert status == 200
    assert (found["revision"], found["changed"], found["persisted"], found["problem"]) == (2, True, True, "")
    model = found["experiments"]["m"]
    assert {name: arm["weight"] for name, arm in model["arms"].items()} == {"a": 90, "b": 10}
    assert (model["phase"], model["source"], model["killed"]) == (2, "state", None)
    assert model["arms"]["a"]["wire"] == {
        "tfs-rest": "torchserve-http tfs-json",
        "tfs-grpc": "torchserve-grpc oip-binary",
        "oip-rest": "torchserve-http oip-binary",
        "oip-grpc": "torchserve-grpc oip-binary",
        "torchserve-http": "torchserve-http oip-binary",
        "torchserve-grpc": "torchserve-grpc oip-binary",
    }
    assert [arm.weight for arm in world.applied[-1].models["m"].arms] == [90, 10]
    assert world.store.load() == world.control.state
    status, found = await world.call("PUT", "/admin/v1/experiments/m/weights", body)
    assert status == 409
    assert "revision 1 is not the one in force, 2" in found["error"]
    assert len(world.applied) == 1
    (entry,) = world.audited()
    assert entry.pop("time_ns") > 0
    assert entry.pop("remote").startswith("127.0.0.1:")
    assert entry == {
        "what": "weights",
        "model": "m",
        **WHO,
        "from": {"m": {"a": 50, "b": 50}},
        "to": {"m": {"a": 90, "b": 10}},
        "revision": 2,
        "persisted": True,
    }


BAD_BODIES: list[tuple[str, dict[str, Any], int, str]] = [
    ("no who", {"weights": {"a": 1, "b": 1}, "revision": 1, "why": "x"}, 400, "who"),
    ("empty why", {"weights": {"a": 1, "b": 1}, "revision": 1, "who": "x", "why": ""}, 400, "why"),
    ("unknown key", {"weights": {"a": 1, "b": 1}, "revision": 1, "x": 1, **WHO}, 400, "x: Extra"),
    ("text weight", {"weights": {"a": "1", "b": 1}, "revision": 1, **WHO}, 400, "weights.a"),
    ("bool weight", {"weights": {"a": True, "b": 1}, "revision": 1, **WHO}, 400, "weights.a"),
    ("negative", {"weights": {"a": -1, "b": 1}, "revision": 1, **WHO}, 400, "weights.a"),
    ("an arm left out", {"weights": {"a": 1}, "revision": 1, **WHO}, 400, "must name every arm"),
    ("all zero", {"weights": {"a": 0, "b": 0}, "revision": 1, **WHO}, 400, "sum above 0"),
    ("no revision", {"weights": {"a": 1, "b": 1}, **WHO}, 400, "revision"),
]


@pytest.mark.parametrize(("body", "status", "words"), [case[1:] for case in BAD_BODIES], ids=[c[0] for c in BAD_BODIES])
async def test_a_bad_change_is_refused_and_changes_nothing(
    tmp_path: Path, body: dict[str, Any], status: int, words: str
) -> None:
    world = World(tmp_path)
    got, found = await world.call("PUT", "/admin/v1/experiments/m/weights", body)
    assert got == status
    assert set(found) == {"error"}
    assert words in found["error"]
    assert world.applied == []
    assert not world.audit.path.exists()


async def test_the_kill_switch_needs_no_revision_and_is_idempotent(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = "/admin/v1/experiments/m/kill"
    status, found = await world.call("POST", path, {"to": "b", **WHO})
    assert (status, found["revision"], found["experiments"]["m"]["killed"]) == (200, 2, "b")
    status, found = await world.call("POST", path, {"to": "b", **WHO})
    assert (status, found["revision"], found["changed"]) == (200, 2, False)
    status, found = await world.call("POST", path, {"to": "a", **WHO})
    assert (status, found["revision"], found["experiments"]["m"]["killed"]) == (200, 3, "a")
    assert (await world.call("POST", path, {"to": "z", **WHO}))[0] == 404
    assert (await world.call("POST", path, {"to": "b", "revision": 1, **WHO}))[0] == 409
    assert (await world.call("POST", "/admin/v1/experiments/x/kill", {"to": "b", **WHO}))[0] == 404
    assert [entry["what"] for entry in world.audited()] == ["kill", "kill"]


async def test_a_kill_that_comes_while_weights_are_being_kept_wins(tmp_path: Path) -> None:
    world = World(tmp_path)
    entered, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = world.store.save

    def slow(state: State) -> None:
        if state.models["m"].killed is None:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(10)
        real(state)

    world.store.save = slow  # type: ignore[method-assign]
    body = {"weights": {"a": 90, "b": 10}, "revision": 1, **WHO}
    weights = asyncio.create_task(world.call("PUT", "/admin/v1/experiments/m/weights", body))
    await entered.wait()
    kill = asyncio.create_task(world.call("POST", "/admin/v1/experiments/m/kill", {"to": "b", **WHO}))
    while not world.applied:  # noqa: ASYNC110 - in force before anything of it is written
        await asyncio.sleep(0)
    assert world.applied[-1].models["m"].killed == "b"
    leave.set()
    assert (await weights)[0] == 409
    assert (await kill)[0] == 200
    assert world.control.snapshot.models["m"].killed == "b"
    assert world.store.load().models["m"].killed == "b"


async def test_the_token_is_asked_for_on_the_admin_api_only(tmp_path: Path) -> None:
    world = World(tmp_path, token="secret")
    for header in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
    ):
        status, found = await world.call("GET", "/admin/v1/experiments", None, **header)
        assert status == 401
        assert "Bearer" in found["error"]
        body = {"to": "b", **WHO}
        assert (await world.call("POST", "/admin/v1/experiments/m/kill", body, **header))[0] == 401
    assert world.applied == []
    assert (await world.call("GET", "/admin/v1/experiments", None, authorization="Bearer secret"))[0] == 200
    assert (await world.call("GET", "/healthz"))[0] == 200
    assert (await world.call("GET", "/readyz"))[0] == 200


async def test_readiness_is_told_arm_by_arm(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.readiness = Readiness(False, True, {"m/a": "ready", "m/b": "refuses connections"})
    assert await world.call("GET", "/readyz") == (
        503,
        {"ready": False, "draining": True, "arms": {"m/a": "ready", "m/b": "refuses connections"}},
    )


async def test_records_status_and_a_refused_reload(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert await world.call("GET", "/admin/v1/records") == (200, {"written": 3})
    flushed = await world.call("POST", "/admin/v1/records/flush")
    assert flushed == (200, {"segments": [str(tmp_path / "records-1-1.parquet")]})
    assert await world.call("GET", "/admin/v1/status") == (200, {"pids": [1]})
    status, found = await world.call("POST", "/admin/v1/reload", WHO)
    assert (status, found["problems"]) == (400, ["a: wrong", "b: tester"])


async def test_it_is_documented_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    status, document = await world.call("GET", "/openapi.json")
    assert status == 200
    assert {path for path in document["paths"] if path.startswith("/admin/v1")} == {
        "/admin/v1/capture",
        "/admin/v1/capture/start",
        "/admin/v1/capture/stop",
        "/admin/v1/experiments",
        "/admin/v1/experiments/{model}/weights",
        "/admin/v1/experiments/{model}/kill",
        "/admin/v1/reload",
        "/admin/v1/records",
        "/admin/v1/records/flush",
        "/admin/v1/status",
    }
    weights = document["paths"]["/admin/v1/experiments/{model}/weights"]["put"]["responses"]
    assert set(weights) == {"200", "400", "401", "404", "409", "500"}  # what it does answer, so no 422
    for path in ("/docs", "/redoc", "/nope"):
        status, found = await world.call("GET", path)
        assert (status, found) == (404, {"error": f"no such path: {path}"})
    assert (await world.call("DELETE", "/healthz"))[0] == 405


async def test_a_capture_is_started_with_sizes_as_people_write_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    body = {**WHO, "share": 0.5, "size": "2MiB", "models": ["m"]}
    status, found = await world.call("POST", "/admin/v1/capture/start", body)
    assert (status, found["asked"]) == (200, [[[0.5, 2 << 20, None, ["m"], None], "tester", "test"]])
    assert await world.call("GET", "/admin/v1/capture") == (200, {"active": True})
    assert await world.call("POST", "/admin/v1/capture/stop", WHO) == (200, {"active": False})


@pytest.mark.parametrize(
    "change", [{"share": 0}, {"share": 1.1}, {"size": "much"}, {"who": ""}, {"path": "/tmp"}, {"seed": -1}]
)
async def test_a_capture_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    status, found = await World(tmp_path).call("POST", "/admin/v1/capture/start", {**WHO, "share": 0.5, **change})
    assert status == 400
    assert next(iter(change)) in found["error"]
