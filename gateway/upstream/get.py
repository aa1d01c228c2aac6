"""One GET on a connection of its own, for probes and imports; inference never comes this way.

Small on purpose: no redirects, no reuse, a limit on the answer, one deadline over everything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httptools

from gateway.config_units import Address
from gateway.errors import UpstreamError

_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, the headers (names in lower case) and the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Reader:
    """Collects what httptools finds in an answer."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


async def get(address: Address, path: str, *, timeout_s: float = 1.0, authorization: str = "") -> Answer:
    """GET a path, with an Authorization header where one is given.

    Raises UpstreamError: upstream_refused, upstream_timeout, upstream_reset, upstream_invalid.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(address, path, authorization)
    except TimeoutError:
        raise UpstreamError("upstream_timeout", f"{address} gave no answer within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        raise UpstreamError("upstream_refused", f"{address} refuses connections") from None
    except OSError as error:
        raise UpstreamError("upstream_reset", f"{address}: {error.strerror or error}") from error


async def _get(address: Address, path: str, authorization: str) -> Answer:
    stream, writer = await asyncio.open_connection(address.host, address.port)
    try:
        extra = f"authorization: {authorization}\r\n" if authorization else ""
        head = f"GET {path} HTTP/1.1\r\nhost: {address.authority}\r\n{extra}connection: close\r\n\r\n"
        writer.write(head.encode("latin-1"))
        reader = _Reader()
        parser = httptools.HttpResponseParser(reader)
        while not reader.complete:
            data = await stream.read(65536)
            if not data:
                if "content-length" in reader.headers or not reader.headers:
                    raise UpstreamError("upstream_reset", f"{address} ended the connection before its answer")
                break
            parser.feed_data(data)
            if len(reader.body) > _LIMIT:
                raise UpstreamError("upstream_invalid", f"{address}{path} answers more than {_LIMIT} bytes")
        return Answer(parser.get_status_code(), reader.headers, bytes(reader.body))
    except httptools.HttpParserError as error:
        raise UpstreamError("upstream_invalid", f"{address} does not answer HTTP: {error}") from error
    finally:
        writer.close()
