"""The least a Python gRPC proxy can do: bytes in, bytes out over grpc.aio on uvloop. The yardstick for the gateway's own cost.

python tools/bare_grpc_proxy.py UPSTREAM_HOST:PORT      prints the port it listens on
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop

PATH = "/tensorflow.serving.PredictionService/Predict"


async def main(upstream: str) -> None:
    """Forward every Predict until killed."""
    channel = grpc.aio.insecure_channel(upstream, options=[("grpc.enable_http_proxy", 0)])
    forward = channel.unary_unary(PATH)

    async def predict(payload: bytes, context: Any) -> Any:
        return await forward(payload, timeout=30)

    class Paths(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, handler_call_details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(predict) if handler_call_details.method == PATH else None

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Paths(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
