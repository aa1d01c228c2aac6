"""/admin/v1/capture: see, start and stop the capture of real requests. Bodies and routes only; what they do is given.

A start writes clients' request bodies to this machine's disk: it is audited, bounded by the configuration, and cannot name a
folder of its own.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from gateway import config_units as units

Size = Annotated[int, BeforeValidator(units.size)]


class CaptureControl(Protocol):
    """The gateway's captures, as the admin API sees them; terms are the configuration's where None is given."""

    def status(self) -> dict[str, Any]: ...
    def terms(
        self,
        share: float | None = None,
        size: int | None = None,
        body: int | None = None,
        models: Collection[str] | None = None,
        seed: int | None = None,
    ) -> Any: ...
    async def start(self, terms: Any, author: Mapping[str, str]) -> dict[str, Any]: ...
    async def stop(self, author: Mapping[str, str]) -> dict[str, Any]: ...


class AuthorBody(BaseModel):
    """What every change is asked with."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(min_length=1, max_length=200, description="who changes it, for the audit")]
    why: Annotated[str, Field(min_length=1, max_length=2000, description="the reason, for the audit")]


class StartBody(AuthorBody):
    """What to capture; what is left out is the configuration's. Sizes are bytes or texts such as 64MiB."""

    share: Annotated[float, Field(gt=0, le=1, description="of the requests")]
    size: Annotated[Size | None, Field(description="of all captures; at most the configuration's")] = None
    body: Annotated[Size | None, Field(description="larger bodies are left out; at most the configuration's")] = None
    models: Annotated[list[str] | None, Field(description="only these; [] for all")] = None
    seed: Annotated[StrictInt | None, Field(ge=0, description="of the draws")] = None


class StopBody(AuthorBody):
    """End the capture under way."""


def add_capture(
    router: APIRouter,
    capture: CaptureControl,
    errors: Callable[..., dict[int | str, dict[str, Any]]],
) -> None:
    """Put the three routes on the admin's router."""

    @router.get("/capture", summary="Whether requests are captured, and the latest capture's counts")
    async def status() -> dict[str, Any]:
        return capture.status()

    running: dict[int | str, dict[str, Any]] = {409: errors(409)[409] | {"description": "A capture is under way"}}

    @router.post(
        "/capture/start",
        summary="Capture a share of the requests, body and time",
        responses={**errors(400, 404, 500), **running},
    )
    async def start(body: StartBody, request: Request) -> dict[str, Any]:
        terms = capture.terms(body.share, body.size, body.body, body.models, body.seed)
        return await capture.start(terms, _author(body, request))

    @router.post("/capture/stop", summary="End the capture; what was taken is on the disk then", responses=errors(400))
    async def stop(body: StopBody, request: Request) -> dict[str, Any]:
        return await capture.stop(_author(body, request))


def _author(body: AuthorBody, request: Request) -> dict[str, str]:
    return {"who": body.who, "why": body.why, "remote": remote(request)}


def remote(request: Request) -> str:
    """Where a request came from, for the audit; "" where the transport does not tell."""
    client = request.client
    return f"{client.host}:{client.port}" if client else ""
