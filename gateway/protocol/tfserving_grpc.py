"""TensorFlow Serving's gRPC Predict: bytes <-> InferRequest and InferResponse, and the guard on its message.

Here lives the form of PredictRequest and PredictResponse (tensorflow_serving/apis/predict.proto). What the guard has
judged is what an arm gets: `forward` serializes the parsed message again, so that bytes two parsers might read
differently (a tensor sent twice, shapes in two pieces) never pass. Errors carry TF Serving's own texts where it has one.
No sockets, no grpc runtime here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from gateway.errors import RequestError, UpstreamError
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, ArmWire, ClientWire, Message
from gateway.protocol.oip_answers import checked
from gateway.protocol.proto_wire import Piece, field, joined
from gateway.protocol.signature_file import DEFAULT_SIGNATURE_NAME, Signature, TensorSpec
from gateway.protocol.tensor_proto import BY_DATATYPE, Form, fill, inspect, read, written
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor
from gateway.protocol.versions import version_number

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_INPUTS = 2  # the number of PredictRequest.inputs, a map: entries of a key 1 and a value 2
ANSWER_BYTES = 1 << 30  # what an arm's answer may hold once its repeated values are written out


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold: rows (size of the batch dimension), and bytes of all its tensors once expanded."""

    rows: int
    bytes: int


class PredictAsked:
    """A client's Predict, parsed but for its tensors. Raises RequestError("invalid_argument") for a payload that is none."""

    __slots__ = ("_limits", "_message", "label", "model", "version")
    wire: ClientWire = "tfs-grpc"

    def __init__(self, payload: bytes, limits: Limits) -> None:
        self._message = parse_request(payload)
        self._limits = limits
        self.model = model_name(self._message)
        self.version, self.label = version_and_label(self._message)

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, its names and rows not judged yet; RequestError as `decode_request`, and for an unknown signature."""
        wanted = self._message.model_spec.signature_name or DEFAULT_SIGNATURE_NAME
        if signature is not None and wanted != signature.signature_name:
            raise RequestError("failed_precondition", f'Serving signature key "{wanted}" not found.')
        return decode_request(self._message, self._limits)

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """A PredictResponse with typed lists; UpstreamError where it lacks an output that was asked for."""
        name = signature.signature_name if signature is not None else self._message.model_spec.signature_name
        return Message(encode_response(response, name, tuple(self._message.output_filter)))


class _Arm:
    """The gRPC side of a tensorflow_serving arm."""

    wire: ArmWire = "tfs-grpc"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """A PredictRequest by the arm's own names; RequestError("not_found") for a version that is no number."""
        asked = replace(request, model=terms.model, version=terms.version or None, label=None, outputs=terms.outputs)
        return Message(encode_request(asked))

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The OK answer; raises UpstreamError("upstream_invalid")."""
        answer = decode_response(message.body)
        return replace(answer, outputs=checked(answer.outputs, terms))


ARM = _Arm()


def parse_request(payload: bytes) -> Any:
    """The PredictRequest in a payload; RequestError("invalid_argument") when it is none."""
    try:
        return message_class("tensorflow.serving.PredictRequest").FromString(payload)
    except DecodeError as error:
        raise RequestError(
            "invalid_argument", f"the payload of {len(payload)} bytes is no tensorflow.serving.PredictRequest"
        ) from error


def version_and_label(message: Any) -> tuple[str, str]:
    """The version and label a request's (or status request's) model_spec asks for, "" where it names none.

    Raises RequestError("invalid_argument") for a negative version.
    """
    spec = message.model_spec
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        return "", spec.version_label
    if choice is None:
        return "", ""
    number = spec.version.value
    if number < 0:
        raise RequestError("invalid_argument", f"model_spec.version {number} is negative")
    return str(number), ""


def model_name(message: Any) -> str:
    """The model a request names; RequestError("invalid_argument") when it names none."""
    name: str = message.model_spec.name
    if not name:
        raise RequestError("invalid_argument", "ModelSpec has no name specified.")
    return name


def check(message: Any, signature: Signature | None, limits: Limits, guard: str = "strict") -> int:
    """Judge a PredictRequest and return its rows.

    guard "strict" checks names, datatypes, rank and fixed dimensions, "types" names and datatypes, "off" (or no
    signature) neither; the tensors themselves must be sound and within limits in any case.
    Raises RequestError: invalid_argument, failed_precondition (unknown signature), too_large (rows).
    """
    inputs = message.inputs
    if signature is None or guard == "off":
        forms = _forms(inputs, limits.bytes).values()
        return _rows([form.shape[0] for form in forms if form.shape], limits, strict=False)
    wanted = message.model_spec.signature_name or DEFAULT_SIGNATURE_NAME
    if wanted != signature.signature_name:
        raise RequestError("failed_precondition", f'Serving signature key "{wanted}" not found.')
    specs = signature.inputs
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        raise _wrong_names(set(inputs), {spec.name for spec in specs})
    if message.output_filter:
        _check_filter(message.output_filter, signature.outputs)
    strict = guard == "strict"
    left = limits.bytes
    sizes = []
    for spec in specs:
        form = inspect(inputs[spec.name], spec.name, left)
        left -= form.elements * DTYPES[form.layout.datatype].itemsize
        if form.layout.datatype != spec.datatype:
            raise _wrong_datatype(spec, form)
        if strict:
            _check_shape(spec, form.shape)
        if spec.shape and spec.shape[0] == -1 and form.shape:
            sizes.append(form.shape[0])
    return _rows(sizes, limits, strict=strict)


def forward(message: Any, model: str, version: str) -> bytes:
    """A judged PredictRequest as an arm gets it: with the arm's name for the model, and its version ("" for the default).

    Raises RequestError("not_found") for a version that is no number: TF Serving has no other.
    """
    _write_spec(message.model_spec, model, version)
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def decode_request(message: Any, limits: Limits) -> InferRequest:
    """The canonical form of a PredictRequest message; raises RequestError("invalid_argument") for an unsound tensor."""
    version, label = version_and_label(message)
    return InferRequest(
        model=message.model_spec.name,
        inputs=_tensors(message.inputs, limits.bytes),
        version=version or None,
        label=label or None,
        signature_name=message.model_spec.signature_name,
        outputs=tuple(message.output_filter),
    )


def encode_request(request: InferRequest, *, typed: bool = False) -> bytes:
    """A PredictRequest for a TF Serving arm; typed writes values into typed lists instead of raw bytes.

    Raises RequestError: not_found for a version that is no number, too_large for more than a message can hold.
    """
    message = message_class("tensorflow.serving.PredictRequest")()
    _write_spec(message.model_spec, request.model, request.version or "")
    if request.label:
        message.model_spec.version_label = request.label
    message.model_spec.signature_name = request.signature_name
    if typed:
        for tensor in request.inputs:
            fill(message.inputs[tensor.name], tensor, typed=True)
        message.output_filter.extend(request.outputs)
        return _serialized(message)
    pieces: list[Piece] = [message.SerializeToString()]
    for tensor in sorted(request.inputs, key=lambda tensor: tensor.name):
        pieces += field(_INPUTS, *field(1, tensor.name.encode()), *field(2, *written(tensor)))
    message.Clear()
    message.output_filter.extend(request.outputs)
    return joined((*pieces, message.SerializeToString()))


def parse_response(payload: bytes) -> Any:
    """The PredictResponse in an arm's answer; UpstreamError("upstream_invalid") when it is none."""
    try:
        return message_class("tensorflow.serving.PredictResponse").FromString(payload)
    except DecodeError as error:
        raise UpstreamError(
            "upstream_invalid", f"the answer of {len(payload)} bytes is no tensorflow.serving.PredictResponse"
        ) from error


def decode_response(payload: bytes, max_bytes: int = ANSWER_BYTES) -> InferResponse:
    """The canonical form of a PredictResponse; raises UpstreamError("upstream_invalid")."""
    message = parse_response(payload)
    try:
        outputs = _tensors(message.outputs, max_bytes)
    except RequestError as error:
        raise UpstreamError("upstream_invalid", f"the answer's {error.message}") from error
    spec = message.model_spec
    version = str(spec.version.value) if spec.HasField("version") else ""
    return InferResponse(model=spec.name, outputs=outputs, version=version)


def encode_response(response: InferResponse, signature_name: str, outputs: Sequence[str] = ()) -> bytes:
    """A PredictResponse with typed lists, as TF Serving answers (its clients read float_val, not tensor_content).

    outputs: the request's output_filter; empty means all. A version such as "1.0" is told as the number 1, one that is
    no number is left out. Raises UpstreamError("upstream_invalid") when the answer lacks an output that was asked for.
    """
    message = message_class("tensorflow.serving.PredictResponse")()
    spec = message.model_spec
    spec.name = response.model
    spec.signature_name = signature_name
    number = version_number(response.version)
    if number is not None:
        spec.version.value = number
    given = {tensor.name: tensor for tensor in response.outputs}
    missing = [name for name in outputs if name not in given]
    if missing:
        raise UpstreamError("upstream_invalid", f"the answer has no output {missing[0]!r}; it has: {', '.join(given)}")
    for name in outputs or given:
        fill(message.outputs[name], given[name], typed=True)
    return _serialized(message)


def rename_response(payload: bytes, model: str) -> bytes:
    """An arm's PredictResponse under the client's name for the model; the same bytes when the name is right already.

    Raises UpstreamError("upstream_invalid") when the payload is no PredictResponse.
    """
    message = parse_response(payload)
    if message.model_spec.name in ("", model):
        return payload
    message.model_spec.name = model
    renamed: bytes = message.SerializeToString(deterministic=True)
    return renamed


def _write_spec(spec: Any, model: str, version: str) -> None:
    spec.name = model
    if spec.WhichOneof("version_choice") is not None:
        spec.ClearField("version_choice")
    if version:
        if not (version.isascii() and version.isdigit() and len(version) < 20 and int(version) < 1 << 63):
            raise RequestError("not_found", f"Servable not found for request: Specific({model}, {version})")
        spec.version.value = int(version)


def _tensors(protos: Any, max_bytes: int) -> tuple[Tensor, ...]:
    forms = _forms(protos, max_bytes)
    return tuple(read(protos[name], name, forms[name]) for name in sorted(forms))


def _forms(protos: Any, max_bytes: int) -> dict[str, Form]:
    """Every tensor inspected; max_bytes bounds all of them together."""
    forms: dict[str, Form] = {}
    left = max_bytes
    for name, proto in protos.items():
        form = forms[name] = inspect(proto, name, left)
        left -= form.elements * DTYPES[form.layout.datatype].itemsize
    return forms


def _wrong_names(sent: set[str], wanted: set[str]) -> RequestError:
    """predict_util.cc: VerifyRequestInputsSize; the same sentence when only the names differ."""
    return RequestError(
        "invalid_argument",
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({_braces(sent)}) != "
        f"len({_braces(wanted)}). Sent extra: {_braces(sent - wanted)}. "
        f"Missing but required: {_braces(wanted - sent)}.",
    )


def _wrong_datatype(spec: TensorSpec, form: Form) -> RequestError:
    expected, got = BY_DATATYPE[spec.datatype], form.layout
    return RequestError(
        "invalid_argument",
        f"input {spec.name!r} must be {spec.datatype} ({expected.enum_name}), not {got.datatype} ({got.enum_name})",
    )


def _check_filter(names: Sequence[str], outputs: Sequence[TensorSpec]) -> None:
    """predict_util.cc: the two texts about output_filter."""
    known = {spec.name for spec in outputs}
    seen: set[str] = set()
    for name in names:
        if name not in known:
            raise RequestError(
                "invalid_argument",
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_braces(known)}.",
            )
        if name in seen:
            raise RequestError("invalid_argument", f"duplicate output tensor alias: {name}")
        seen.add(name)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    if len(shape) != len(spec.shape):
        raise RequestError(
            "invalid_argument",
            f"input {spec.name!r} must have rank {len(spec.shape)}, shape {list(spec.shape)}; "
            f"got rank {len(shape)}, shape {list(shape)}",
        )
    for want, got in zip(spec.shape, shape, strict=True):
        if want not in (-1, got):
            raise RequestError(
                "invalid_argument",
                f"input {spec.name!r} must have shape {list(spec.shape)} (-1 is any size); got {list(shape)}",
            )


def _rows(sizes: Sequence[int], limits: Limits, *, strict: bool) -> int:
    """Rows of a request from the batch dimensions of its inputs: 1 where none is batched."""
    if not sizes:
        return 1
    rows = max(sizes)
    if strict:
        if rows == 0:
            raise RequestError("invalid_argument", "the batch is empty: the first dimension must be at least 1")
        if min(sizes) != rows:
            raise RequestError("invalid_argument", f"all inputs must have the same number of rows, got {sorted(sizes)}")
    if rows > limits.rows:
        raise RequestError("too_large", f"the request has {rows} rows, at most {limits.rows} are taken")
    return rows


def _braces(names: Iterable[str]) -> str:
    """A set of names as TF Serving prints it; a client's long ones are cut."""
    shown = [name if len(name) <= 64 else name[:61] + "..." for name in sorted(names)]
    return "{" + ",".join(shown if len(shown) <= 16 else [*shown[:16], "..."]) + "}"


def _serialized(message: Any) -> bytes:
    try:
        serialized: bytes = message.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise RequestError("too_large", f"the message cannot be written: {error}") from error
    return serialized
