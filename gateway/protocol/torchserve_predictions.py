"""TorchServe as a client's protocol: what its users post to /predictions and send to Predictions, as canonical tensors.

PURE. TorchServe itself leaves the body to the handler, so these are the forms its users' handlers take, told apart by content:

| sent | read as | answered with |
|---|---|---|
| JSON {"instances": ...} or {"inputs": ...} | TF Serving's row or column format | {"predictions": ...} or {"outputs": ...} |
| JSON {"inputs": [{"name", "datatype", ...}]} | Open Inference Protocol | the same protocol |
| JSON [row, ...] or {"data": [row, ...]} | rows of the one input; objects by input name where there are several | [row, ...] |
| JSON {"<input>": [...], ...} with every input | one tensor each | {"<output>": [...], ...} |
| octet-stream | the one input, raw little-endian rows; the whole body is one element of a BYTES input | the one output, raw |
| multipart, a field `data` or `body`, or one per input | the field's own form by its media type | as that form, or by output name |

JSON is what says so, or form-urlencoded, text/plain or no Content-Type at all (curl -d). Over gRPC there is no Content-Type:
a value that begins like JSON and is JSON is read as JSON, anything else as raw.

TF Serving's JSON goes to a handler that takes it byte for byte once it was judged, and so does the answer: our own handler
takes both formats, a user's (format tfs-json) rows. The other forms are what a handler may make of its bytes, and no arm's
handler is known to take them; the Open Inference form's answer names the server's own model and version. Those are written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from gateway.clock import wall_ns
from gateway.errors import RequestError
from gateway.protocol import json_lists, multipart, oip_rest, tfserving_rest, torchserve
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, ClientWire, Message, Portable
from gateway.protocol.json_strict import find_duplicate, parse_lenient
from gateway.protocol.oip_tensors import from_raw, raw_contents
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import DTYPES, BatchInfo, InferRequest, InferResponse, Tensor

STREAM = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"
NO_STREAM = "this model's handler does not stream: such a call would end a worker of TorchServe; use Predictions"
_JSON = {"content-type": "application/json"}
_RAW = {"content-type": "application/octet-stream"}
_JSON_TYPES = frozenset({"", "application/json", "text/plain", "text/json", "application/x-www-form-urlencoded"})
_WHOLE = ("data", "body")
_SPACE = b" \n\r\t"
_ANSWERS = (re.compile(rb'\s*\{\s*"predictions"\s*:'), re.compile(rb'\s*\{\s*"outputs"\s*:'))  # in rows, in columns
Answerer = Callable[[InferResponse, Signature], Message]


class HttpAsked:
    """A client's POST or PUT /predictions/M[/V]: body and Content-Type as sent ("" without one). Read by `request` only."""

    __slots__ = ("_answer", "_body", "_column", "_content_type", "model", "version")
    wire: ClientWire = "torchserve-http"
    label = ""

    def __init__(self, body: bytes, content_type: str, model: str, version: str) -> None:
        self._body = body
        self._content_type = content_type
        self._answer: Answerer | None = None
        self._column: bool | None = None
        self.model = model
        self.version = version

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, not judged yet. Raises RequestError: invalid_argument; failed_precondition without a signature."""
        media_type = self._content_type.partition(";")[0].strip().lower()
        reader = _Reader(signature, self.model, self.version)
        if media_type == "multipart/form-data":
            request = reader.fields(multipart.fields(self._body, self._content_type))
        elif media_type in _JSON_TYPES:
            request = reader.json(self._body)
        elif media_type == "application/octet-stream":
            request = reader.raw(self._body)
        else:
            raise _bad(
                f"Content-Type {media_type[:80]!r} is not read here; send JSON, octet-stream or multipart/form-data"
            )
        self._answer = reader.answer
        if media_type in _JSON_TYPES:
            self._column = reader.column
        return request

    def passes(self, terms: ArmTerms) -> bool:
        """See the head of this module."""
        return self._column is not None and torchserve.takes_json(terms.form, self._column)

    def passing(self, terms: ArmTerms) -> Message:
        """The body as it came."""
        headers = torchserve.json_headers(terms.form, wall_ns())
        return Message(self._body, {key.decode(): value.decode() for key, value in headers})

    def passed(self, message: Message, terms: ArmTerms) -> tuple[Message, BatchInfo] | None:
        """The handler's answer as it came, where it is in the format of the request."""
        if not _answers(message.body, self._column):
            return None
        return Message(message.body, _JSON), torchserve.batch_info(message.headers)

    def resume(self, sent: HttpAsked) -> None:
        """Take back what was sent, where it was read elsewhere."""
        self._body = sent._body

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The answer in the form of the request, as the table above has it."""
        assert self._answer is not None
        assert signature is not None
        return self._answer(response, signature)

    @property
    def text_bytes(self) -> int:
        """How much there is that may be JSON."""
        return 0 if self._content_type.startswith("application/octet-stream") else len(self._body)

    def answerer(self) -> HttpAsked:
        """The same, once read, for `answer` alone."""
        kept = HttpAsked(b"", self._content_type, self.model, self.version)
        kept._answer, kept._column = self._answer, self._column
        return kept


class GrpcAsked:
    """A client's Predictions, parsed but for its values. Raises RequestError("invalid_argument") for a payload that is none."""

    __slots__ = ("_answer", "_column", "_input", "model", "version")
    wire: ClientWire = "torchserve-grpc"
    label = ""

    def __init__(self, payload: bytes) -> None:
        try:
            message: Any = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(payload)
        except DecodeError as error:
            raise _bad(f"the payload of {len(payload)} bytes is no TorchServe PredictionsRequest") from error
        self.model: str = message.model_name
        self.version: str = message.model_version
        self._input: Mapping[str, bytes] = dict(message.input)
        self._answer: Answerer | None = None
        self._column: bool | None = None
        if not self.model:
            raise _bad("the PredictionsRequest names no model")

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, not judged yet. Raises RequestError: invalid_argument; failed_precondition without a signature."""
        reader = _Reader(signature, self.model, self.version)
        found = {name: multipart.Field(value, _kind(value)) for name, value in self._input.items()}
        request = reader.fields(found)
        self._answer = reader.answer
        self._column = reader.column
        return request

    def whole(self) -> bytes:
        """A handler's own bytes; RequestError("invalid_argument") unless they are the only value, under data or body."""
        if len(self._input) != 1 or not set(self._input) <= set(_WHOLE):
            raise _bad(f"a handler's own bytes must be one value under {' or '.join(_WHOLE)}")
        return next(iter(self._input.values()))

    def passes(self, terms: ArmTerms) -> bool:
        """See the head of this module."""
        return self._column is not None and torchserve.takes_json(terms.form, self._column)

    def passing(self, terms: ArmTerms) -> Message:
        """The value as it came, under the key that the handler looks for."""
        (value,) = self._input.values()
        return Message(torchserve.encode_json_predictions(terms.model, terms.version, value, terms.form, wall_ns()))

    def passed(self, message: Message, terms: ArmTerms) -> tuple[Message, BatchInfo] | None:
        """The handler's answer as it came, out of its envelope, where it is in the format of the request."""
        body, batch = torchserve.decode_predictions(message.body, terms.form)
        return (_response(body), batch) if _answers(body, self._column) else None

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """A PredictionResponse whose bytes are in the form of the request."""
        assert self._answer is not None
        assert signature is not None
        return _response(self._answer(response, signature).body)


def _response(body: bytes) -> Message:
    """A PredictionResponse."""
    message = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=body)
    return Message(message.SerializeToString())


def _answers(body: bytes, column: bool | None) -> bool:
    """Does an answer look like TF Serving's, in the format of its request?"""
    return _ANSWERS[bool(column)].match(body) is not None


class _Reader:
    """Reads one request; keeps in `answer` how it is answered, and in `column` which of TF Serving's formats it is, if any."""

    def __init__(self, signature: Signature | None, model: str, version: str) -> None:
        if signature is None:
            raise RequestError("failed_precondition", f"model {model!r} has no signature to read a request by")
        self.signature = signature
        self.model = model
        self.version = version
        self.answer: Answerer = _by_name
        self.column: bool | None = None

    def json(self, body: bytes) -> InferRequest:
        """A JSON body; which form it has is told by its keys, without a look into its long lists."""
        if b'"' not in body and body.lstrip(_SPACE)[:1] == b"[":
            return self._bare(body)
        outline = json_lists.outline(body, ("instances", "inputs", "data", *self._names()))
        document = _document(outline, body)
        if type(document) is list:
            return self._bare(body)
        if type(document) is not dict:
            raise _bad("a JSON body must be a list of rows or an object")
        inputs = document.get("inputs")
        if type(inputs) is list and inputs and all(type(item) is dict and "datatype" in item for item in inputs):
            return self._as(oip_rest.InferAsked(body, None, self.model, self.version))
        if "instances" in document or "inputs" in document:
            self.column = "inputs" in document
            return self._as(tfserving_rest.PredictAsked(body, self.model, self.version, ""))
        if list(document) == ["data"] and "data" not in self._names():
            find_duplicate(outline)  # of two, the first would be taken
            return self._bare(_inside(body))
        self._check_names(set(document), "keys")
        request = tfserving_rest.PredictAsked(b'{"inputs":' + body + b"}", self.model, self.version, "")
        self.answer = _by_name
        return request.request(self.signature)

    def raw(self, body: bytes) -> InferRequest:
        """The raw rows of the only input."""
        if len(self.signature.inputs) != 1:
            raise _bad(f"raw bytes are for models of one input; this one has {', '.join(self._names())}: name each")
        tensor = _raw_tensor(self.signature.inputs[0], body)
        if len(self.signature.outputs) == 1:
            self.answer = _raw_answer
        return InferRequest(self.model, (tensor,), self.version or None)

    def fields(self, found: Mapping[str, multipart.Field]) -> InferRequest:
        """One field with the whole request, or one for each input."""
        if len(found) == 1 and not set(found) <= set(self._names()):
            ((name, field),) = found.items()
            if name not in _WHOLE:
                raise _bad(
                    f"the field {name!r} is neither {' nor '.join(_WHOLE)} nor an input ({', '.join(self._names())})"
                )
            return self.json(field.content) if field.media_type in _JSON_TYPES else self.raw(field.content)
        self._check_names(set(found), "fields")
        tensors: list[Tensor] = []
        for spec in self.signature.inputs:
            field = found[spec.name]
            if field.media_type in _JSON_TYPES:
                _loads(field.content)  # is it a value by itself?
                asked = tfserving_rest.PredictAsked(b'{"inputs":' + field.content + b"}", self.model, "", "")
                tensors.extend(asked.request(replace(self.signature, inputs=(spec,))).inputs)
            else:
                tensors.append(_raw_tensor(spec, field.content))
        return InferRequest(self.model, tuple(tensors), self.version or None)

    def _bare(self, body: bytes) -> InferRequest:
        asked = tfserving_rest.PredictAsked(b'{"instances":' + body + b"}", self.model, self.version, "")
        self.answer = _in_rows
        return asked.request(self.signature)

    def _as(self, asked: Portable) -> InferRequest:
        request = asked.request(self.signature)
        self.answer = asked.answerer().answer
        return request

    def _names(self) -> list[str]:
        return [spec.name for spec in self.signature.inputs]

    def _check_names(self, given: set[str], what: str) -> None:
        names = self._names()
        if given != set(names):
            shown = ", ".join(sorted(given))[:200]
            raise _bad(f"the {what} are {shown}; expected instances, inputs, data, or every input: {', '.join(names)}")


def _kind(value: bytes) -> str:
    """The media type of a value that came without one."""
    if value.lstrip()[:1] in (b"{", b"["):
        try:
            _loads(value)
        except RequestError:
            return "application/octet-stream"
        return "application/json"
    return "application/octet-stream"


def _raw_tensor(spec: TensorSpec, body: bytes) -> Tensor:
    """Raw rows of one input: as many as the bytes hold. RequestError where they are no whole number of rows."""
    if spec.datatype == "BYTES":
        if any(size not in (-1, 1) for size in spec.shape):
            raise _bad(f"input {spec.name!r} has several elements a row: raw bytes can be one element only")
        data = np.empty((1,) * len(spec.shape), dtype=object)
        data.reshape(-1)[0] = body
        return Tensor(spec.name, spec.datatype, data)
    free = [place for place, size in enumerate(spec.shape) if size < 0]
    if len(free) > 1:
        raise _bad(f"input {spec.name!r} has several free dimensions: raw bytes do not tell its shape, send JSON")
    row = prod(size for size in spec.shape if size >= 0) * DTYPES[spec.datatype].itemsize
    rows, left = divmod(len(body), row) if row else (0, len(body))
    if left or not rows or (not free and rows != 1):
        raise _bad(
            f"input {spec.name!r} of {len(body)} bytes: not a whole number of rows of {row} bytes ({spec.datatype})"
        )
    shape = tuple(rows if size < 0 else size for size in spec.shape)
    return Tensor(spec.name, spec.datatype, from_raw(body, 0, len(body), spec.datatype, shape, spec.name))


def _raw_answer(response: InferResponse, signature: Signature) -> Message:
    (tensor,) = response.outputs
    if tensor.datatype == "BYTES" and tensor.data.size == 1:
        element: bytes = tensor.data.reshape(-1)[0]
        return Message(element, _RAW)
    return Message(bytes(raw_contents(tensor)), _RAW)


def _by_name(response: InferResponse, signature: Signature) -> Message:
    return Message(_unwrapped(response, column=True, named=True), _JSON)


def _in_rows(response: InferResponse, signature: Signature) -> Message:
    return Message(_unwrapped(response, column=False), _JSON)


def _unwrapped(response: InferResponse, *, column: bool, named: bool = False) -> bytes:
    """TF Serving's answer without the object around it."""
    text = tfserving_rest.encode_response(response, column)
    inner = text[text.index(b":") + 1 : -1]
    if named and len(response.outputs) == 1:
        return b"{%b:%b}" % (orjson.dumps(response.outputs[0].name), inner)
    return inner


def _inside(body: bytes) -> bytes:
    """The value of the only key of an object."""
    return body[body.index(b":") + 1 : body.rindex(b"}")]


def _document(outline: bytes, body: bytes) -> Any:
    """What an outline tells of its body; the body itself, and its own faults, where that is no JSON."""
    if outline is not body:
        try:
            return orjson.loads(outline)
        except orjson.JSONDecodeError:
            pass
    return _loads(body)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_lenient(body)


def _bad(problem: str) -> RequestError:
    return RequestError("invalid_argument", problem)
