"""A model's signature, read from a TensorFlow Serving arm's metadata: `signature: import` in abgate.yaml.

Asks until the server answers: servers and gateway are started in any order. Until then the model has no route.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import structlog

from gateway.config_units import Address
from gateway.errors import UpstreamError
from gateway.protocol.served_signature import from_metadata
from gateway.protocol.signature_file import DEFAULT_SIGNATURE_NAME, Signature
from gateway.upstream.get import get

_RETRY_S = 0.5


async def read_signature(address: Address, served: str, model: str) -> Signature:
    """The default signature of the model that the server calls `served`, under our name `model`.

    Raises UpstreamError: what `get` raises, upstream_invalid for an answer that holds no signature that can be guarded.
    """
    answer = await get(address, f"/v1/models/{quote(served, safe='')}/metadata", timeout_s=5.0)
    if answer.status != 200:
        raise UpstreamError("upstream_unavailable", f"{address}: metadata of {served!r}: status {answer.status}")
    try:
        return from_metadata(json.loads(answer.body), model, DEFAULT_SIGNATURE_NAME)
    except ValueError as error:
        raise UpstreamError("upstream_invalid", f"{address}: metadata of {served!r}: {error}") from error


async def wait_for_signature(address: Address, served: str, model: str) -> Signature:
    """Ask until there is an answer; says once per new reason why there is none yet."""
    log = structlog.get_logger("abgate.signature")
    reason = ""
    while True:
        try:
            return await read_signature(address, served, model)
        except UpstreamError as error:
            if error.message != reason:
                reason = error.message
                log.warning("signature.not_imported", model=model, reason=reason)
        await asyncio.sleep(_RETRY_S)
