"""TorchServe: InferRequest -> the payload a handler takes, and its answer -> InferResponse, over HTTP and gRPC.

Two forms. "oip-binary" is our own handler's: the header (over gRPC the input's key) names the form, answers tell batch
size and queue time, and over gRPC come in an envelope with a status, because TorchServe ignores a handler's status there:
b"ABG1" | u32 little-endian length | JSON head | payload. "tfs-json" is a user's own handler that takes TF Serving's JSON in
row format ("instances"): plain bodies, key "body", no envelope. Which path and which connection is the client's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from gateway.clock import wall_ns
from gateway.errors import ErrorKind, RequestError, UpstreamError
from gateway.protocol import datatypes, oip_binary, tfserving_rest
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, ArmWire, Message
from gateway.protocol.proto_wire import field, joined
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import UNTOLD, BatchInfo, InferRequest, InferResponse

OIP_BINARY = "oip-binary"
TFS_JSON = "tfs-json"
PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
MAGIC = b"ABG1"
_INPUT = 3  # the number of PredictionsRequest.input, a map: entries of a key 1 and a value 2
_U32 = Struct("<I")


class _HttpArm:
    """The HTTP side of a torchserve arm; terms.form is the form its handler takes."""

    wire: ArmWire = "torchserve-http"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """The body and headers of POST /predictions/...; RequestError("failed_precondition") without a signature."""
        _signed(terms)  # its answer could not be read
        headers = {key.decode(): value.decode() for key, value in http_headers(terms.form, wall_ns())}
        return Message(encode_payload(request, terms.form), headers)

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The 200 answer and what its headers tell of the batch; raises UpstreamError("upstream_invalid")."""
        batch = batch_info(message.headers)
        return decode_payload(message.body, terms.form, _signed(terms), terms.outputs, batch)


class _GrpcArm:
    """The gRPC side of a torchserve arm."""

    wire: ArmWire = "torchserve-grpc"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """A PredictionsRequest; RequestError("failed_precondition") without a signature."""
        _signed(terms)
        body = encode_payload(request, terms.form)
        return Message(encode_predictions(terms.model, terms.version, body, terms.form, wall_ns()))

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The OK answer, out of its envelope; raises UpstreamError as `decode_predictions` and `decode_payload` do."""
        body, batch = decode_predictions(message.body, terms.form)
        return decode_payload(body, terms.form, _signed(terms), terms.outputs, batch)


HTTP_ARM = _HttpArm()
GRPC_ARM = _GrpcArm()


def _signed(terms: ArmTerms) -> Signature:
    if terms.signature is None:
        raise RequestError("failed_precondition", f"model {terms.model!r} has no signature to translate by")
    return terms.signature


def encode_payload(request: InferRequest, form: str) -> bytes:
    """The body (HTTP) or input value (gRPC) for a handler that takes `form`.

    Raises RequestError("failed_precondition") for a datatype it cannot carry.
    """
    datatypes.check("torchserve-http", form, request.inputs)
    if form == OIP_BINARY:
        return oip_binary.encode_request(request)
    return tfserving_rest.encode_request(request, column=False)


def decode_payload(
    payload: bytes, form: str, signature: Signature, outputs: Sequence[str] = (), batch: BatchInfo = UNTOLD
) -> InferResponse:
    """The answer in a handler's payload: the signature's outputs in its order, or those that were asked for.

    Outputs the signature does not know are left out. Raises UpstreamError("upstream_invalid") when the payload is no
    answer, or when an output is missing or of another datatype than the signature's.
    """
    try:
        if form == OIP_BINARY:
            answer = oip_binary.decode_response(payload)
            tensors, version = answer.outputs, answer.version
        else:
            tensors, version = tfserving_rest.decode_response(payload, signature), ""
    except UpstreamError:
        raise
    except RequestError as error:
        raise UpstreamError("upstream_invalid", f"the answer is not in the form {form}: {error.message}") from error
    given = {tensor.name: tensor for tensor in tensors}
    wanted = [spec for spec in signature.outputs if not outputs or spec.name in outputs]
    for spec in wanted:
        tensor = given.get(spec.name)
        if tensor is None or tensor.datatype != spec.datatype:
            found = "is missing" if tensor is None else f"is {tensor.datatype}"
            raise UpstreamError(
                "upstream_invalid", f"the answer's output {spec.name!r} {found}; the signature has {spec.datatype}"
            )
    return InferResponse(signature.model, tuple(given[spec.name] for spec in wanted), version, batch=batch)


def http_headers(form: str, sent_ns: int) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of POST /predictions/...; sent_ns is wall-clock time.time_ns(), the start of the queue time."""
    if form == TFS_JSON:
        return ((b"content-type", b"application/json"),)
    return (
        (b"content-type", b"application/octet-stream"),
        (b"x-abgate-format", form.encode()),
        (b"x-abgate-sent-ns", b"%d" % sent_ns),
    )


def batch_info(headers: Mapping[str, str]) -> BatchInfo:
    """What an HTTP answer's headers (lower-case names) tell of its batch; what is no number counts as not told."""
    return BatchInfo(
        _count(headers.get("x-abgate-batch-size")),
        _count(headers.get("x-abgate-batch-rows")),
        _count(headers.get("x-abgate-queue-ns")),
    )


def encode_predictions(model: str, version: str, payload: bytes, form: str, sent_ns: int) -> bytes:
    """A PredictionsRequest; version "" is the server's default. sent_ns as in `http_headers`."""
    return _predictions(
        model, version, "body" if form == TFS_JSON else form, payload, None if form == TFS_JSON else sent_ns
    )


def _predictions(model: str, version: str, key: str, payload: bytes, sent_ns: int | None) -> bytes:
    message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")()
    message.model_name = model
    if version:
        message.model_version = version
    if sent_ns is not None:
        message.input["x-abgate-sent-ns"] = b"%d" % sent_ns
    return joined((message.SerializeToString(), *field(_INPUT, *field(1, key.encode()), *field(2, payload))))


def json_headers(form: str, sent_ns: int) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of POST /predictions/... for TF Serving's JSON as a client wrote it, to a handler that takes `form`.

    Opaque bytes to our own handler: TorchServe would parse JSON, and drop what it cannot.
    """
    given = http_headers(form, sent_ns)
    return given if form == TFS_JSON else (given[0], (b"x-abgate-format", TFS_JSON.encode()), *given[2:])


def encode_json_predictions(model: str, version: str, payload: bytes, form: str, sent_ns: int) -> bytes:
    """A PredictionsRequest with TF Serving's JSON as a client wrote it, to a handler that takes `form`."""
    if form == TFS_JSON:
        return encode_predictions(model, version, payload, form, sent_ns)
    return _predictions(model, version, TFS_JSON, payload, sent_ns)


def takes_json(form: str, column: bool) -> bool:
    """Does a handler that takes `form` take TF Serving's JSON? Our own in either format, a user's in rows alone."""
    return form == OIP_BINARY or (form == TFS_JSON and not column)


def address_predictions(payload: bytes, model: str, version: str) -> bytes:
    """A PredictionsRequest under other names for model and version, its inputs untouched.

    Raises RequestError: invalid_argument (no such message), unimplemented (a sequence: its requests need one worker).
    """
    try:
        message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(payload)
    except DecodeError as error:
        raise RequestError(
            "invalid_argument", f"the {len(payload)} bytes are no TorchServe PredictionsRequest"
        ) from error
    if message.sequence_id:
        raise RequestError("unimplemented", "sequence_id: sequences need every request of one at the same server")
    message.model_name = model
    message.model_version = version
    serialized: bytes = message.SerializeToString()
    return serialized


def decode_predictions(payload: bytes, form: str) -> tuple[bytes, BatchInfo]:
    """The handler's payload in a PredictionResponse, out of its envelope, and what it told of its batch.

    Raises UpstreamError: upstream_invalid (no PredictionResponse, no envelope), upstream_rejected or upstream_error by
    the status inside the envelope, with the handler's own text.
    """
    try:
        message = message_class("org.pytorch.serve.grpc.inference.PredictionResponse").FromString(payload)
    except DecodeError as error:
        raise UpstreamError(
            "upstream_invalid", f"the answer of {len(payload)} bytes is no TorchServe PredictionResponse"
        ) from error
    prediction: bytes = message.prediction
    if form == TFS_JSON:
        return prediction, UNTOLD
    head, body = _open(prediction)
    status = head.get("status")
    if status != 200:
        kind: ErrorKind = "upstream_rejected" if isinstance(status, int) and 400 <= status < 500 else "upstream_error"
        raise UpstreamError(kind, str(head.get("error") or f"the handler answered status {status}"))
    return body, BatchInfo(_count(head.get("batch_size")), _count(head.get("batch_rows")), _count(head.get("queue_ns")))


def envelope(head: Mapping[str, Any], payload: bytes) -> bytes:
    """The envelope our handler puts around an answer over gRPC."""
    text = orjson.dumps(dict(head))
    return b"".join((MAGIC, _U32.pack(len(text)), text, payload))


def _open(prediction: bytes) -> tuple[dict[str, Any], bytes]:
    if prediction[:4] != MAGIC or len(prediction) < 8:
        raise UpstreamError(
            "upstream_invalid",
            f"the answer does not begin with {MAGIC.decode()}: the handler is not ours; configure the arm's format",
        )
    end = 8 + _U32.unpack_from(prediction, 4)[0]
    if end > len(prediction):
        raise UpstreamError("upstream_invalid", f"the envelope's head ends at byte {end} of {len(prediction)}")
    try:
        head = orjson.loads(memoryview(prediction)[8:end])
    except orjson.JSONDecodeError as error:
        raise UpstreamError("upstream_invalid", f"the envelope's head is no JSON: {error}") from error
    if not isinstance(head, dict):
        raise UpstreamError("upstream_invalid", "the envelope's head is no JSON object")
    return head, prediction[end:]


def _count(value: Any) -> int:
    """A count as told in a header or a head; -1 where it is not a whole number from 0 to 2**63 - 1."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and 0 <= value < 1 << 63 else -1
