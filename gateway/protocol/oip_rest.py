"""The Open Inference Protocol over REST: infer requests and responses, JSON with or without the binary tensor extension.

PURE. A body is a JSON head; with the extension (header inference-header-content-length: bytes of the head) raw tensors
follow it, and "binary_data_size" stands in a tensor's parameters in place of its data. Answers carry binary tensors
exactly where the request asked for them (binary_data, binary_data_output). Tensors themselves are `oip_tensors`' business.

A request goes to an arm of this wire byte for byte, unless its head holds a key twice (two parsers may take either), its
inputs come in another order than the model's (some servers go by it), or it has or asks for binary tensors and the arm's
server (MLServer) has none. An answer comes back byte for byte where it names what the client named: model, version, id and
outputs, in the client's order and form. MLServer puts an id of its own into every answer to a request without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.errors import RequestError, UpstreamError
from gateway.protocol import oip_answers
from gateway.protocol.forms import ArmTerms, ArmWire, ClientWire, Message
from gateway.protocol.json_strict import parse_lenient
from gateway.protocol.oip_json import bad
from gateway.protocol.oip_tensors import described, parameters_of, read_json, read_tensors, write_tensors
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import UNTOLD, BatchInfo, InferRequest, InferResponse, Tensor

HEAD_LENGTH = "inference-header-content-length"
JSON_FORM = "oip-json"
BINARY_FORM = "oip-binary"
_HEAD_LIMIT = (
    1 << 16
)  # a longer head, texts most likely, costs less to write anew than to look for keys that are twice there
_JSON = {"content-type": "application/json"}
_BINARY = {"content-type": "application/octet-stream"}
_OF_THE_WIRE = ("binary_data_output", "binary_data")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request's head once read: what its answer must look like, and its tensors."""

    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    binary: frozenset[str]  # outputs wanted as binary data, by name
    all_binary: bool  # what holds for outputs that are not named
    parameters: dict[str, Any]
    names: tuple[str, ...]  # of the inputs, as they came
    head: bytes  # without its long lists; b"" where it is long all the same

    def is_binary(self, output: str) -> bool:
        """Is an output wanted as binary data?"""
        return self.all_binary or output in self.binary


class InferAsked:
    """A client's POST .../infer: body as sent, header_length as the header says it (None without one).

    Nothing is read before `request`; version "" where the path names none.
    """

    __slots__ = ("_body", "_header_length", "_read", "model", "version")
    wire: ClientWire = "oip-rest"
    label = ""

    def __init__(self, body: bytes, header_length: int | None, model: str, version: str) -> None:
        self._body = body
        self._header_length = header_length
        self._read: _Asked | None = None
        self.model = model
        self.version = version

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, not judged yet; the protocol describes every tensor itself, the signature is not needed.

        Raises RequestError: invalid_argument, unimplemented (shared memory, sequences, classification).
        """
        asked = self._asked()
        return InferRequest(
            self.model,
            asked.inputs,
            self.version or None,
            id=asked.id,
            outputs=asked.outputs,
            parameters=asked.parameters,
        )

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The answer: the outputs asked for in the order asked for, binary exactly where asked.

        Raises RequestError("failed_precondition") where JSON was asked for and cannot hold an output, and
        UpstreamError("upstream_invalid") where the answer lacks one.
        """
        asked = self._asked()
        head: dict[str, Any] = {
            "model_name": self.model,
            "model_version": oip_answers.told_version(self.version, response.version),
        }
        if asked.id:
            head["id"] = asked.id
        outputs = oip_answers.chosen(response.outputs, asked.outputs)
        binary = {tensor.name for tensor in outputs if asked.is_binary(tensor.name)}
        return _message(head, "outputs", outputs, binary)

    def passes(self, terms: ArmTerms) -> bool:
        """See the head of this module."""
        asked = self._asked()
        signature = terms.signature
        if signature is not None and asked.names != tuple([spec.name for spec in signature.inputs]):
            return False
        needs_binary = self._header_length is not None or asked.all_binary or bool(asked.binary)
        if (needs_binary and terms.form != BINARY_FORM) or not asked.head:
            return False
        try:
            parse_lenient(asked.head)
        except RequestError:  # read it is; so a key is there twice
            return False
        return True

    def passing(self, terms: ArmTerms) -> Message:
        """The body as it came; model and version stand in the path."""
        if self._header_length is None:
            return Message(self._body, _JSON)
        return Message(self._body, {**_BINARY, HEAD_LENGTH: str(self._header_length)})

    def passed(self, message: Message, terms: ArmTerms) -> tuple[Message, BatchInfo] | None:
        """The answer as it came, where it is the one this client must get."""
        asked = self._asked()
        try:
            head, end = _head_of(message)
            told = oip_answers.told_version(self.version, _text(head, "model_version"))
            ours = (self.model, told, asked.id)
            named = tuple(_text(head, key) for key in ("model_name", "model_version", "id")) == ours
            if not (named and _outputs_are(head["outputs"], asked, terms, len(message.body) - end)):
                return None
        except RequestError:
            return None
        kept = {key: value for key, value in message.headers.items() if key == HEAD_LENGTH}
        return Message(message.body, {**(_BINARY if kept else _JSON), **kept}), UNTOLD

    def resume(self, sent: InferAsked) -> None:
        """Take back what was sent, where it was read elsewhere."""
        self._body, self._header_length = sent._body, sent._header_length

    @property
    def text_bytes(self) -> int:
        """How much JSON there is to read."""
        return len(self._body) if self._header_length is None else self._header_length

    def answerer(self) -> InferAsked:
        """The same, once read, for `answer` alone."""
        kept = InferAsked(b"", None, self.model, self.version)
        kept._read = replace(self._asked(), inputs=())
        return kept

    def _asked(self) -> _Asked:
        if self._read is None:
            self._read = _read_request(self._body, self._header_length)
        return self._read


class _Arm:
    """The REST side of an open_inference arm; terms.form says whether it takes and gives binary tensors."""

    wire: ArmWire = "oip-rest"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """The body and headers of POST .../infer; RequestError("failed_precondition") for BF16 or raw BYTES in JSON."""
        binary = terms.form == BINARY_FORM
        outputs = terms.outputs or request.outputs
        head: dict[str, Any] = {"id": request.id} if request.id else {}
        parameters = dict(request.parameters)
        if outputs:
            wants = {"parameters": {"binary_data": True}} if binary else {}
            head["outputs"] = [{"name": name, **wants} for name in outputs]
        elif binary:
            parameters["binary_data_output"] = True
        if parameters:
            head["parameters"] = parameters
        return _message(head, "inputs", request.inputs, {tensor.name for tensor in request.inputs} if binary else ())

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The 200 answer, binary or JSON as its header says; raises UpstreamError("upstream_invalid")."""
        try:
            stated = message.headers.get(HEAD_LENGTH)
            _, head, tensors = _read(message.body, None if stated is None else head_length(stated), "outputs")
            name, version, request_id = (_text(head, key) for key in ("model_name", "model_version", "id"))
        except RequestError as error:
            raise UpstreamError("upstream_invalid", f"the answer is no infer response: {error.message}") from error
        return InferResponse(name or terms.model, oip_answers.checked(tensors, terms), version, request_id)


ARM = _Arm()


def head_length(value: str) -> int:
    """The number in an inference-header-content-length header; RequestError("invalid_argument") where it is none."""
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise bad(f"{HEAD_LENGTH} must be a whole number, not {value[:64]!r}")
    return int(value)


def _head_of(message: Message) -> tuple[dict[str, Any], int]:
    """An answer's head, marks in place of long lists, and where it ends."""
    stated = message.headers.get(HEAD_LENGTH)
    end = len(message.body) if stated is None else head_length(stated)
    return read_json(message.body[:end], "outputs")[0], end


def _outputs_are(outputs: list[Any], asked: _Asked, terms: ArmTerms, raw: int) -> bool:
    """Are an answer's outputs those that must be answered, in this order, each in the form asked for?"""
    specs = () if terms.signature is None else terms.signature.outputs
    kinds = {spec.name: spec.datatype for spec in specs}
    names = asked.outputs or tuple(kinds) or tuple([str(item.get("name")) for item in outputs if type(item) is dict])
    if len(outputs) != len(names):
        return False
    for item, name in zip(outputs, names, strict=True):
        form = described(item, "an output")
        size = form.binary_size
        if form.name != name or form.datatype != kinds.get(name, form.datatype):
            return False
        if (size is not None) != asked.is_binary(name) or (size is None and "data" not in item):
            return False
        raw -= size or 0
    return raw == 0


def _message(head: dict[str, Any], key: str, tensors: Sequence[Tensor], binary: Sequence[str] | set[str]) -> Message:
    """head with the list of tensors, those named in binary behind it."""
    listed, chunks = write_tensors(tensors, binary)
    try:
        text = orjson.dumps({**head, key: listed})
    except orjson.JSONEncodeError as error:
        raise bad(f"the {key} cannot be written as JSON: {error}") from error
    if not binary:
        return Message(text, _JSON)
    return Message(b"".join((text, *chunks)), {**_BINARY, HEAD_LENGTH: str(len(text))})


def _read_request(body: bytes, header_length: int | None) -> _Asked:
    text, head, inputs = _read(body, header_length, "inputs")
    parameters = parameters_of(head, "the request")
    outputs = head.get("outputs") or []
    if not isinstance(outputs, list):
        raise bad("'outputs' must be a list of objects with a 'name'")
    all_binary = _flag(parameters, "binary_data_output", False, "the request")
    names: list[str] = []
    binary: set[str] = set()
    for index, output in enumerate(outputs):
        where = f"outputs[{index}]"
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise bad(f"{where} must be an object with a 'name'")
        name = output["name"]
        if name in names:
            raise bad(f"{where}: {name!r} is there twice")
        names.append(name)
        if _flag(parameters_of(output, where), "binary_data", all_binary, where):
            binary.add(name)
    kept = {key: value for key, value in parameters.items() if key not in _OF_THE_WIRE and value is not None}
    for key, value in kept.items():
        if type(value) not in (bool, int, float, str):
            raise bad(f"parameter {key!r} of the request must be a text, a number or a boolean")
    given = tuple([tensor.name for tensor in inputs])
    text = text if len(text) <= _HEAD_LIMIT else b""
    return _Asked(
        _text(head, "id"), inputs, tuple(names), frozenset(binary), all_binary and not names, kept, given, text
    )


def _read(body: bytes, header_length: int | None, key: str) -> tuple[bytes, dict[str, Any], tuple[Tensor, ...]]:
    """The head's text without its long lists, the head and its tensors, of a request or a response."""
    end = len(body) if header_length is None else header_length
    if end > len(body):
        raise bad(f"{HEAD_LENGTH} is {end}, the body has {len(body)} bytes")
    head, lists, text = read_json(body if end == len(body) else body[:end], key)
    return text, head, read_tensors(head[key], key, body, end, lists)


def _flag(parameters: dict[str, Any], key: str, default: bool, where: str) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise bad(f"{key} of {where} must be true or false, not {str(value)[:64]!r}")
    return value


def _text(head: dict[str, Any], key: str) -> str:
    value = head.get(key)
    if value is not None and not isinstance(value, str):
        raise bad(f"{key!r} must be a text")
    return value or ""
