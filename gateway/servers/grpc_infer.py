"""Every gRPC inference method but Predict: the client's message as its protocol reads it, then the exchange.

Here lives which class reads which method, and the way of messages that nobody reads: a TorchServe handler's own bytes. What
the call's life is, is grpc_calls'; what happens between client and arm, the exchange's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gateway.clock import monotonic_ns
from gateway.dataplane import Call, DataPlane
from gateway.errors import RequestError
from gateway.experiments.model import Opaque
from gateway.protocol import oip_grpc, tfserving_examples, torchserve, torchserve_predictions
from gateway.protocol.forms import Asked, ClientWire, Message
from gateway.protocol.opaque import OpaqueGrpcAsked
from gateway.protocol.tensors import UNTOLD, BatchInfo
from gateway.protocol.tfserving_grpc import Limits
from gateway.servers.exchange import Exchange, Way, aside
from gateway.servers.grpc_calls import GrpcCalls, GrpcSettings, Incoming, Method

Reader = Callable[[bytes, Limits], Asked]
Handler = Callable[[bytes, Any], Coroutine[Any, Any, bytes]]
# method -> its protocol, and what reads its message
METHODS: dict[str, tuple[ClientWire, Reader]] = {
    oip_grpc.INFER: ("oip-grpc", oip_grpc.InferAsked),
    oip_grpc.TORCHSERVE_INFER: ("oip-grpc", oip_grpc.InferAsked),
    tfserving_examples.CLASSIFY: ("tfs-grpc", partial(tfserving_examples.GrpcAsked, "classify")),
    tfserving_examples.REGRESS: ("tfs-grpc", partial(tfserving_examples.GrpcAsked, "regress")),
    torchserve.PREDICTIONS: ("torchserve-grpc", lambda payload, _: torchserve_predictions.GrpcAsked(payload)),
}
_NO_TYPE = "application/octet-stream"  # what a handler's own bytes are taken for where nothing says what they are


class Infer:
    """Makes the handlers."""

    def __init__(self, plane: DataPlane, settings: GrpcSettings, calls: GrpcCalls, exchange: Exchange) -> None:
        self._plane = plane
        self._calls = calls
        self._exchange = exchange
        self._offload = settings.offload_bytes
        self._limits = Limits(settings.rows_limit, settings.body_limit)

    def handlers(self) -> dict[str, Handler]:
        """A handler for grpc.aio (bytes in, bytes out) for each method."""
        return {path: self._handler(Method(wire, path), reader) for path, (wire, reader) in METHODS.items()}

    def _handler(self, method: Method, reader: Reader) -> Handler:
        async def work(incoming: Incoming) -> tuple[bytes, BatchInfo]:
            parts = (incoming.payload, self._limits)
            asked = await aside(reader, *parts) if len(incoming.payload) >= self._offload else reader(*parts)
            way = Way("grpc", self._calls.wait_s(incoming), incoming.metadata)
            if isinstance(asked, torchserve_predictions.GrpcAsked) and self._opaque(asked.model):
                return await self._pass(incoming.call, asked, way, incoming.payload)
            message, batch = await self._exchange.run(incoming.call, asked, way)
            return message.body, batch

        async def serve(payload: bytes, context: Any) -> bytes:
            return await self._calls.serve(method, payload, context, work)

        return serve

    def _opaque(self, model: str) -> bool:
        route = self._plane.routes.get(model)
        return route is not None and (route.opaque is not None or route.signature is None)

    async def _pass(
        self, call: Call, asked: torchserve_predictions.GrpcAsked, way: Way, payload: bytes
    ) -> tuple[bytes, BatchInfo]:
        """A handler's own bytes, unread, to the handler, under the arm's name for the model; to any other arm by the codec."""
        route = self._exchange.assign(call, asked, way.headers)
        arm, terms = call.arm, route.opaque
        assert arm is not None
        if arm.kind != "torchserve" and route.codec is not None:
            check_opaque(terms, len(payload))
            read = OpaqueGrpcAsked(asked.whole(), "", asked.model, asked.version, route.codec)
            begun = monotonic_ns()
            try:
                await aside(read.request, route.signature)  # the codec may take its time
            finally:
                call.codec_ns += monotonic_ns() - begun
            answer, batch = await self._exchange.run(call, read, way)
            return answer.body, batch
        if arm.kind != "torchserve" or arm.grpc is None:
            raise RequestError(
                "failed_precondition",
                f"arm {arm.name!r} is no TorchServe with a gRPC address: a handler's own bytes cannot be sent to it",
            )
        check_opaque(terms, len(payload))
        message = Message(torchserve.address_predictions(payload, arm.model, call.version))
        return (await self._exchange.pass_on(call, message, way)).body, UNTOLD


def check_opaque(terms: Opaque | None, size: int) -> None:
    """The guard of bytes that nobody reads: their kind and their size. Raises RequestError."""
    if terms is None:
        return
    if terms.media_types and not {_NO_TYPE, "application/*"} & set(terms.media_types):
        raise RequestError(
            "invalid_argument",
            f"this model takes {' or '.join(terms.media_types)}; gRPC cannot say what a message is, so that it counts as "
            f"{_NO_TYPE}: use REST",
        )
    if terms.body_limit is not None and size > terms.body_limit:
        raise RequestError("too_large", f"the message has {size} bytes; this model takes at most {terms.body_limit}")
