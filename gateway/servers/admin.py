"""The control app (FastAPI): health, readiness, metrics and /admin/v1; never on an inference request's way.

Lives here: routes, bodies, status codes and the token. What a change means is the control plane's. Errors are {"error": text}
everywhere. The documentation pages of FastAPI load scripts from elsewhere and are off; /openapi.json has the same.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field, StrictInt
from starlette.exceptions import HTTPException

from gateway.controlplane import Author, ControlPlane, Outcome, describe
from gateway.dataplane import Route
from gateway.errors import ConfigError, RequestError
from gateway.protocol.status import http_status
from gateway.servers.admin_capture import AuthorBody, CaptureControl, add_capture, remote


class Records(Protocol):
    """The recorder, as the admin API sees it."""

    def flush(self) -> list[Path]: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the gateway may be sent traffic; arms maps "model/arm" to "ready" or why it is not."""

    ready: bool
    draining: bool
    arms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AdminParts:
    """What the control app acts on, given by app.py; reload raises ConfigError, status is GET /admin/v1/status's answer."""

    control: ControlPlane
    routes: Callable[[], Mapping[str, Route]]
    registry: CollectorRegistry
    records: Records
    capture: CaptureControl
    readiness: Callable[[], Readiness]
    status: Callable[[], dict[str, Any]]
    reload: Callable[[Author], Awaitable[Outcome]]
    token: str | None
    version: str


class WeightsBody(AuthorBody):
    """New weights for every arm of a model; revision is the one they were decided on."""

    weights: dict[str, Annotated[StrictInt, Field(ge=0, le=1_000_000)]]
    revision: StrictInt


class KillBody(AuthorBody):
    """The arm that gets everything; revision is optional on purpose: a kill switch must not fail on a race."""

    to: str
    revision: StrictInt | None = None


class Problem(BaseModel):
    """Every error's body; `problems` one by one where a configuration is wrong."""

    error: str
    problems: list[str] | None = None


_WHY = {
    400: "The body or the change it asks for is not valid",
    401: "A token is configured, and this is not it",
    404: "There is no such model or arm",
    409: "The revision is not the one in force: read it again and decide anew",
    500: "Nothing was changed, or a file could not be written",
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Error answers for the documentation."""
    return {code: {"model": Problem, "description": _WHY[code]} for code in codes}


class ReloadBody(AuthorBody):
    """Read abgate.yaml again."""


def create_app(parts: AdminParts, *more: APIRouter) -> FastAPI:
    """The control app; `more` are routers of the front ends (model status and metadata)."""
    app = FastAPI(title="abgate", version=parts.version, docs_url=None, redoc_url=None)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    app.include_router(_health(parts))
    admin = _admin(parts)
    add_capture(admin, parts.capture, _errors)
    app.include_router(admin)
    for router in more:
        app.include_router(router)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(ConfigError, _config_error)
    app.add_exception_handler(RequestValidationError, _body_error)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document without the 422 FastAPI writes into it: a body that does not fit is answered with 400 here."""
    document = FastAPI.openapi(app)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    return document


def _health(parts: AdminParts) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="200 while the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="200 when every arm with weight is ready; 503 otherwise and while draining",
        responses={503: {"description": "An arm with weight is not ready, or a drain has begun"}},
    )
    async def readyz() -> JSONResponse:
        found = parts.readiness()
        body = {"ready": found.ready, "draining": found.draining, "arms": dict(found.arms)}
        return JSONResponse(body, 200 if found.ready else 503)

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(parts.registry), headers={"content-type": content_type})

    return router


def _admin(parts: AdminParts) -> APIRouter:
    bearer = HTTPBearer(auto_error=False, description="the token of admin.token_file, where one is configured")

    async def authorised(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if parts.token is None:
            return
        text = given.credentials if given is not None else ""
        if not secrets.compare_digest(text.encode("utf-8", "replace"), parts.token.encode()):
            raise RequestError("unauthenticated", "the admin API needs the header: Authorization: Bearer <token>")

    router = APIRouter(prefix="/admin/v1", tags=["admin"], dependencies=[Depends(authorised)], responses=_errors(401))

    def state(outcome: Outcome) -> dict[str, Any]:
        return describe(parts.control, parts.routes()) | _told(outcome)

    @router.get("/experiments", summary="Experiments, weights in force and arms")
    async def experiments() -> dict[str, Any]:
        return describe(parts.control, parts.routes())

    @router.put(
        "/experiments/{model}/weights",
        summary="Change weights, if the revision is the one in force",
        responses=_errors(400, 404, 409, 500),
    )
    async def weights(model: str, body: WeightsBody, request: Request) -> dict[str, Any]:
        author = _author(body, request)
        return state(await parts.control.set_weights(model, body.weights, revision=body.revision, author=author))

    @router.post(
        "/experiments/{model}/kill",
        summary="Send all traffic to one arm, from the next request on",
        responses=_errors(400, 404, 409),
    )
    async def kill(model: str, body: KillBody, request: Request) -> dict[str, Any]:
        author = _author(body, request)
        return state(await parts.control.kill(model, body.to, author=author, revision=body.revision))

    @router.post(
        "/reload", summary="Read the configuration file again and put its models in force", responses=_errors(400)
    )
    async def reload(body: ReloadBody, request: Request) -> dict[str, Any]:
        return state(await parts.reload(_author(body, request)))

    @router.get("/records", summary="The recorder's counts")
    async def records() -> dict[str, Any]:
        return parts.records.stats()

    @router.post("/records/flush", summary="Bring all records into segments and name the files", responses=_errors(500))
    async def flush() -> dict[str, Any]:
        try:
            segments = await asyncio.to_thread(parts.records.flush)
        except TimeoutError as error:
            raise RequestError("internal", str(error)) from error
        return {"segments": [str(path) for path in segments]}

    @router.get("/status", summary="The process: pids, versions, loop lag, configuration")
    async def status() -> dict[str, Any]:
        return parts.status()

    return router


def _told(outcome: Outcome) -> dict[str, Any]:
    return {"changed": outcome.changed, "persisted": outcome.persisted, "problem": outcome.problem}


def _author(body: AuthorBody, request: Request) -> Author:
    return Author(body.who, body.why, remote(request))


async def _request_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    headers = {"www-authenticate": "Bearer"} if error.kind == "unauthenticated" else None
    return JSONResponse({"error": error.message}, http_status(error.kind), headers)


async def _config_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ConfigError)
    return JSONResponse({"error": "; ".join(error.problems), "problems": list(error.problems)}, 400)


async def _body_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    texts = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return JSONResponse({"error": "; ".join(texts)}, 400)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    text = {404: f"no such path: {request.url.path}", 405: f"{request.method} is not allowed on {request.url.path}"}
    return JSONResponse({"error": text.get(error.status_code, str(error.detail))}, error.status_code, error.headers)
