"""The gRPC services on a thread pool: PredictionService and ModelService.

Lives here: servicers, server options, error -> status. Must not live here: what is answered. A thread pool and not asyncio
because the handlers block in TensorFlow (measured 1.3 to 1.4 times faster); its size also caps a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from backends.embedded.errors import Code, ServingError
from backends.embedded.service import Service

# Off, or a second server on the same port would silently take part of the traffic.
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def create_server(service: Service, address: str, threads: int) -> tuple[grpc.Server, int]:
    """Build a server bound to `address` ("host:port"), not started; return it with its port. Raises RuntimeError on a used port."""
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
        def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
            return _answer(context, lambda: service.predict_proto(request))

        def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
            return _answer(context, lambda: service.metadata_proto(request))

    class Models(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
        def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
            return _answer(context, lambda: service.status_proto(request))

    server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    port: int = server.add_insecure_port(address)
    return server, port


def _answer(context: grpc.ServicerContext, answer: Callable[[], T]) -> T:
    try:
        return answer()
    except ServingError as error:
        code, message = error.code, error.grpc_message
    except Exception as error:  # the client gets INTERNAL with the reason, and the log the trace
        logger.exception("a gRPC call failed")
        code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
    context.abort(_STATUS[code], message)
    raise AssertionError("abort always raises")


_STATUS: dict[Code, grpc.StatusCode] = {Code(status.value[0]): status for status in grpc.StatusCode}
