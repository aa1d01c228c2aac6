"""A TorchServe handler's own bytes, made comparable: a user's codec between them and the model's tensors.

PURE but for the codec, which is its author's. A codec is what an entry point of the group `abgate.codecs` names: an object (or
a module) with the two functions of `Codec`. A torchserve arm still gets the bytes as they came; any other arm gets tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from gateway.errors import RequestError
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ClientWire, Message
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor

GROUP = "abgate.codecs"
Arrays = Mapping[str, npt.NDArray[Any]]


class Codec(Protocol):
    """What a user registers. Arrays go by the signature's names and have its element types, rows first."""

    def decode(self, body: bytes, content_type: str) -> Arrays:
        """A request's bytes ("" where the client named no Content-Type) -> the inputs; ValueError where they are not right."""

    def encode(self, outputs: Arrays) -> tuple[bytes, str]:
        """The outputs -> the answer's bytes and their Content-Type."""


class OpaqueAsked:
    """A client's POST or PUT /predictions/M[/V] in a form that only the codec knows; read once, by `request`."""

    __slots__ = ("_body", "_codec", "_content_type", "_read", "model", "version")
    wire: ClientWire = "torchserve-http"
    label = ""

    def __init__(self, body: bytes, content_type: str, model: str, version: str, codec: Codec) -> None:
        self._body = body
        self._content_type = content_type
        self._codec = codec
        self._read: InferRequest | None = None
        self.model = model
        self.version = version

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, not judged yet.

        Raises RequestError: invalid_argument with the codec's words, failed_precondition without a signature. TypeError
        where the codec's arrays are not the signature's: its fault, not the client's.
        """
        if self._read is None:
            self._read = self._request(signature)
        return self._read

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The codec's answer."""
        body, content_type = self._codec.encode({tensor.name: tensor.data for tensor in response.outputs})
        return Message(body, {"content-type": content_type})

    def _request(self, signature: Signature | None) -> InferRequest:
        if signature is None:
            raise RequestError("failed_precondition", f"model {self.model!r} has no signature to read a request by")
        try:
            arrays = self._codec.decode(self._body, self._content_type)
        except ValueError as error:
            raise RequestError("invalid_argument", f"the body is not what the model takes: {error}") from error
        specs = {spec.name: spec for spec in signature.inputs}
        if arrays.keys() != specs.keys():
            raise TypeError(f"the codec gives {sorted(arrays)}; the inputs of {self.model!r} are {sorted(specs)}")
        tensors = []
        for name, spec in specs.items():
            data = arrays[name]
            if data.dtype != DTYPES[spec.datatype]:
                raise TypeError(f"the codec gives {data.dtype} for input {name!r}; the model takes {spec.datatype}")
            tensors.append(Tensor(name, spec.datatype, data))
        return InferRequest(self.model, tuple(tensors), self.version or None)


class OpaqueGrpcAsked(OpaqueAsked):
    """The same, sent to Predictions: the bytes are the value of a PredictionsRequest, and answered in a PredictionResponse."""

    __slots__ = ()
    wire: ClientWire = "torchserve-grpc"

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The codec's answer; gRPC has no place for its Content-Type."""
        body = super().answer(response, signature).body
        message = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=body)
        return Message(message.SerializeToString())
