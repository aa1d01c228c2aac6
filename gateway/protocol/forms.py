"""What every wire format offers, so that any client's meets any arm's: the shapes of both sides, without a codec.

PURE. A client's format gives an `Asked`, read only as far as is needed; an arm's gives an `ArmForm`. Between the two stands
the canonical InferRequest / InferResponse of `tensors`. What is sent where, and when, is the exchange's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import BatchInfo, InferRequest, InferResponse

ClientWire = Literal["tfs-rest", "tfs-grpc", "oip-rest", "oip-grpc", "torchserve-http", "torchserve-grpc"]
ArmWire = Literal["tfs-rest", "tfs-grpc", "oip-rest", "oip-grpc", "torchserve-http", "torchserve-grpc"]
CLIENT_WIRES: tuple[ClientWire, ...] = (
    "tfs-rest",
    "tfs-grpc",
    "oip-rest",
    "oip-grpc",
    "torchserve-http",
    "torchserve-grpc",
)


@dataclass(frozen=True, slots=True)
class Message:
    """A body with what stands around it. headers: lower-case names of HTTP headers that belong to the body's form; over
    gRPC there are none."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Asked(Protocol):
    """A client's inference request in its own form. model, version and label ("" where there is none) are known at once."""

    @property
    def wire(self) -> ClientWire: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def label(self) -> str: ...

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, read by the model's signature; it has not been judged yet.

        Raises RequestError: invalid_argument, failed_precondition (the model cannot be asked this way), unimplemented.
        """

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The arm's answer as this client takes it. Raises RequestError where its form cannot say it."""


@runtime_checkable
class Portable(Asked, Protocol):
    """An Asked that may be read in another process, where its text is big: it can be pickled."""

    @property
    def text_bytes(self) -> int:
        """How much JSON `request` has to read."""

    def answerer(self) -> Asked:
        """After `request`: the same for `answer` alone, without what was only there to be read."""


@runtime_checkable
class Resuming(Portable, Protocol):
    """An answerer that may need what was sent after all, because it passes it on."""

    def resume(self, sent: Any) -> None:
        """Take back the body of the one it was made of."""


@dataclass(frozen=True, slots=True)
class ArmTerms:
    """How one arm is asked: its own names for model and version ("" is its choice), the payload form of a TorchServe arm
    (oip-binary, tfs-json), the signature its answer is read by, and the outputs wanted (empty: all)."""

    model: str
    version: str
    form: str
    signature: Signature | None
    outputs: tuple[str, ...] = ()


class Passing(Asked, Protocol):
    """An Asked that may go to an arm of its own wire without being written anew from tensors."""

    def passes(self, terms: ArmTerms) -> bool:
        """Once read and judged: does the arm take the message as the client wrote it?"""

    def passing(self, terms: ArmTerms) -> Message:
        """The client's message under the arm's names for model and version."""

    def passed(self, message: Message, terms: ArmTerms) -> tuple[Message, BatchInfo] | None:
        """The arm's answer to it under the client's, and what it tells of its batch.

        None where the client must not get it as it is: it is to be read and written anew. Raises
        UpstreamError("upstream_invalid") where it is none.
        """


class ArmForm(Protocol):
    """One arm wire format: canonical request -> message, message -> canonical answer."""

    wire: ArmWire

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """The message for this arm; the HTTP path and gRPC method are the upstream client's business.

        Raises RequestError("failed_precondition") where the form cannot carry a datatype of the request.
        """

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The arm's 200 / OK answer, checked against the terms' signature.

        Raises UpstreamError: upstream_invalid (no answer in this form), upstream_rejected, upstream_error.
        """
