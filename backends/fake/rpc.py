"""The fake's gRPC side: PredictionService.Predict, ModelService.GetModelStatus, TorchServe's Predictions and Ping.

Generic handlers on bytes; what a request is answered is in answers.py, how it is answered in behaviour.py.
"""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import grpc
import numpy as np

from backends.fake.answers import answer, row_sums, spread
from backends.fake.behaviour import Behaviour, Seen
from backends.fake.messages import message

PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
FORMS = ("oip-binary", "tfs-json", "oip-json")
# TensorFlow's DataType numbers -> (numpy type of tensor_content, the field that holds loose values)
DTYPES = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
}
FAULTS = {
    "reset": (grpc.StatusCode.UNAVAILABLE, "fake: reset"),
    "half": (grpc.StatusCode.UNAVAILABLE, "fake: half an answer"),
    "500": (grpc.StatusCode.INTERNAL, "fake: internal error"),
    "503": (grpc.StatusCode.UNAVAILABLE, "fake: unavailable"),
    "hang": (grpc.StatusCode.CANCELLED, "fake: hung"),
}


class FakeRpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers by method path; every other method is UNIMPLEMENTED."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._methods = {PREDICT: self._predict, STATUS: self._status, PREDICTIONS: self._predictions, PING: self._ping}

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, bytes in and bytes out; None is UNIMPLEMENTED."""
        method = self._methods.get(handler_call_details.method)
        return None if method is None else grpc.unary_unary_rpc_method_handler(method)

    def _received(self, path: str, body: bytes, context: Any) -> bytes | None:
        """Do what the mode says; returns the garbage to send in its place, or None to go on."""
        metadata = {
            key: value if isinstance(value, str) else value.hex() for key, value in context.invocation_metadata()
        }
        mode, _ = self._behaviour.receive(Seen("grpc", path, metadata, body))
        if mode in FAULTS:
            context.abort(*FAULTS[mode])
        return b"\xff\xff garbage" if mode in ("garbage", "noise") else None

    def _predict(self, body: bytes, context: Any) -> bytes:
        garbage = self._received(PREDICT, body, context)
        if garbage is not None:
            return garbage
        request = message("PredictRequest").FromString(body)
        self._refuse_unknown(request.model_spec.name, context)
        output = spread(
            row_sums([array(tensor) for _, tensor in sorted(request.inputs.items())]), self._behaviour.shape
        )
        response = message("PredictResponse")()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = int(self._behaviour.shape.version)
        response.model_spec.signature_name = request.model_spec.signature_name or "serving_default"
        tensor = response.outputs[self._behaviour.shape.output]
        tensor.dtype = 1
        for size in output.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend(output.ravel().tolist())
        serialized: bytes = response.SerializeToString()
        return serialized

    def _refuse_unknown(self, model: str, context: Any) -> None:
        if not self._behaviour.knows(model):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({model})")

    def _status(self, body: bytes, context: Any) -> bytes:
        self._refuse_unknown(message("GetModelStatusRequest").FromString(body).model_spec.name, context)
        response = message("GetModelStatusResponse")()
        response.model_version_status.add(version=int(self._behaviour.shape.version), state=30)  # AVAILABLE
        serialized: bytes = response.SerializeToString()
        return serialized

    def _predictions(self, body: bytes, context: Any) -> bytes:
        started = time.time_ns()
        garbage = self._received(PREDICTIONS, body, context)
        if garbage is not None:
            return garbage
        request = message("PredictionsRequest").FromString(body)
        form = next((form for form in FORMS if form in request.input), "")
        head: dict[str, Any] = {"status": 200, "batch_size": 1, "batch_rows": 1}
        if "x-abgate-sent-ns" in request.input:
            head["queue_ns"] = max(0, started - int(request.input["x-abgate-sent-ns"]))
        try:
            payload = answer(
                form or "tfs-json", request.input[form or "body"], self._behaviour.shape, request.model_name
            )
        except ValueError as fault:
            head |= {"status": 400, "error": str(fault)}
            payload = b""
        text = json.dumps(head).encode()
        prediction = b"ABG1" + struct.pack("<I", len(text)) + text + payload if form else payload
        serialized: bytes = message("PredictionResponse")(prediction=prediction).SerializeToString()
        return serialized

    def _ping(self, body: bytes, context: Any) -> bytes:
        serialized: bytes = message("TorchServeHealthResponse")(health='{"status": "Healthy"}').SerializeToString()
        return serialized


def array(tensor: Any) -> np.ndarray:
    """A TensorProto as an array; a single loose value fills the shape, as TensorFlow has it."""
    kind, field = DTYPES[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, kind).reshape(shape)
    values = np.array(getattr(tensor, field), kind)
    return np.resize(values, shape) if values.size else np.zeros(shape, kind)
