"""Servers that answer at once, for measuring the generator alone: `python -m loadtest.points.instant` until stdin closes.

HTTP/1.1 on a bare protocol and gRPC on grpc.aio; every request gets the same bytes with the gateway's server-timing. The
first line on standard output is JSON with both addresses. Nothing is parsed but where a request ends.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import grpc
import httptools

_TIMING = "gateway;dur=0.100, codec;dur=0.010, upstream;dur=1.000"
_BODY = json.dumps({"predictions": [[index / 10 for index in range(10)]]}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver-timing: %b\r\ncontent-length: %d\r\n\r\n%b" % (
    _TIMING.encode(),
    len(_BODY),
    _BODY,
)


class _Http(asyncio.Protocol):
    """Answers every complete request."""

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)


class _Grpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every method with no bytes, which are an empty message."""

    def __init__(self) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(_answer)

    def service(self, handler_call_details: Any) -> Any:
        """The one handler."""
        return self._handler


async def _answer(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("server-timing", _TIMING),))
    return b""


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(_Http, "127.0.0.1", 0, backlog=1024)
    server = grpc.aio.server(handlers=(_Grpc(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    http = listener.sockets[0].getsockname()[1]
    print(json.dumps({"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{port}"}), flush=True)
    await loop.run_in_executor(None, os.read, 0, 1)
    await server.stop(0)
    listener.close()


def main() -> None:
    """Serve until standard input ends."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
