"""TF Serving's REST predict bodies: row ("instances" -> "predictions") and column ("inputs" -> "outputs") JSON.

PURE. Bytes <-> tensors, by the model's signature. NaN, Infinity and -Infinity are tokens both ways, float32 text keeps every
bit, BYTES travel as {"b64": ...}. Source of the format: tensorflow_serving/util/json_tensor.cc. No URL, header or status here.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from gateway.errors import RequestError, UpstreamError
from gateway.protocol import datatypes, json_plain
from gateway.protocol.forms import ArmTerms, ArmWire, ClientWire, Message
from gateway.protocol.json_strict import parse_lenient
from gateway.protocol.oip_answers import checked as checked_outputs
from gateway.protocol.oip_json import number_text
from gateway.protocol.signature import Checked, Guard
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor

_ANY_ROWS = 1 << 31
_LARGE = 16 * 1024  # a body from here on is worth a second parser
_JSON = {"content-type": "application/json"}


class PredictAsked:
    """A client's POST ...:predict: the body as sent; version and label "" where the path names none. Read by `request` only."""

    __slots__ = ("_body", "_column", "label", "model", "version")
    wire: ClientWire = "tfs-rest"

    def __init__(self, body: bytes, model: str, version: str, label: str) -> None:
        self._body = body
        self._column = False
        self.model = model
        self.version = version
        self.label = label

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, in the model's own element types, not judged yet.

        Raises RequestError: invalid_argument; failed_precondition without a signature, since JSON names no element types.
        """
        self._column, inputs = _read(self._body, _signed(signature, self.model))
        assert signature is not None
        return InferRequest(
            self.model,
            inputs,
            self.version or None,
            self.label or None,
            signature_name=signature.signature_name,
        )

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The answer in the format of the request; UpstreamError where the row format cannot say it."""
        return Message(encode_response(response, self._column), _JSON)

    @property
    def text_bytes(self) -> int:
        """How much JSON there is to read."""
        return len(self._body)

    def answerer(self) -> PredictAsked:
        """The same, once read, for `answer` alone."""
        kept = PredictAsked(b"", self.model, self.version, self.label)
        kept._column = self._column
        return kept


class _Arm:
    """The REST side of a tensorflow_serving arm."""

    wire: ArmWire = "tfs-rest"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """The body of POST ...:predict, in column format: it says every tensor whatever its rows.

        Raises RequestError("failed_precondition") for a datatype the server reads from no JSON.
        """
        datatypes.check(self.wire, terms.form, request.inputs)
        return Message(encode_request(request), _JSON)

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """The 200 answer; raises UpstreamError("upstream_invalid"), and RequestError("failed_precondition") without a signature."""
        tensors = decode_response(message.body, _signed(terms.signature, terms.model))
        return InferResponse(terms.model, checked_outputs(tensors, terms))


ARM = _Arm()


def _signed(signature: Signature | None, model: str) -> Signature:
    if signature is None:
        raise RequestError("failed_precondition", f"model {model!r} has no signature to translate by")
    return signature


@lru_cache(maxsize=64)
def _reader(signature: Signature) -> Guard:
    return Guard(signature, "types", _ANY_ROWS)


def decode_request(body: bytes, signature: Signature) -> InferRequest:
    """A predict body as tensors, shapes as sent (the guard judges them), element types exactly the signature's.

    Raises RequestError("invalid_argument") as the guard does, for ragged lists and wrong names or element types as well.
    """
    _, inputs = _read(body, signature)
    return InferRequest(signature.model, inputs, signature_name=signature.signature_name)


def _read(body: bytes, signature: Signature) -> tuple[bool, tuple[Tensor, ...]]:
    """Is it in column format, and its inputs."""
    if len(body) >= _LARGE:
        plain = json_plain.read(body, signature.inputs, ("instances", "inputs"), signature.signature_name)
        if plain is not None:
            return plain.key == "inputs", _plain_tensors(plain, signature.inputs)
    read: Checked = _reader(signature).parse(body)
    return read.column, tuple(
        Tensor(spec.name, spec.datatype, _array(read.blocks[spec.name], spec.datatype)) for spec in signature.inputs
    )


def encode_request(request: InferRequest, column: bool = True) -> bytes:
    """The request in column format, every input named; BYTES as {"b64": ...}.

    column False asks for the row format ("instances"); inputs that do not share their rows have the column format alone.
    """
    head = {"signature_name": request.signature_name} if request.signature_name else {}
    rows = {tensor.shape[:1] for tensor in request.inputs}
    column = column or len(rows) != 1 or () in rows
    by_row = not column and len(request.inputs) > 1
    values = {tensor.name: _values(tensor, b64=True, rows=by_row) for tensor in request.inputs}
    if column:
        return _dumps({**head, "inputs": values})
    if len(values) == 1:
        return _dumps({**head, "instances": next(iter(values.values()))})
    return _dumps({**head, "instances": _rows(list(values), list(values.values()))})


def decode_response(body: bytes, signature: Signature) -> tuple[Tensor, ...]:
    """The output tensors of an answer in either format, in the signature's order.

    Raises UpstreamError("upstream_invalid") when it is not JSON, lacks an output or does not fit the signature's element types.
    """
    plain = json_plain.read(body, signature.outputs, ("predictions", "outputs"), "") if len(body) >= _LARGE else None
    if plain is not None:
        return _plain_tensors(plain, signature.outputs)
    try:
        doc = _loads(body)
        if type(doc) is not dict or ("predictions" in doc) == ("outputs" in doc):
            raise ValueError("neither 'predictions' nor 'outputs'")
        value = doc["predictions"] if "predictions" in doc else doc["outputs"]
        named = _by_name(value, signature.outputs, row="predictions" in doc)
        return tuple(
            Tensor(spec.name, spec.datatype, _array(named[spec.name], spec.datatype)) for spec in signature.outputs
        )
    except (RequestError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UpstreamError("upstream_invalid", f"the answer is no TF Serving predict response: {error}") from error


def encode_response(response: InferResponse, column: bool) -> bytes:
    """The answer in the format of its request. Outputs whose name ends in "_bytes" are {"b64": ...}, as TF Serving writes them."""
    tensors = response.outputs
    by_row = not column and len(tensors) > 1
    values = [
        _values(tensor, b64=tensor.name.endswith("_bytes"), rows=by_row and tensor.shape != ()) for tensor in tensors
    ]
    if column:
        if len(tensors) == 1:
            return _dumps({"outputs": values[0]})
        return _dumps({"outputs": {tensor.name: value for tensor, value in zip(tensors, values, strict=True)}})
    for tensor in tensors:
        if not tensor.shape:
            raise UpstreamError("upstream_invalid", f"Tensor name: {tensor.name} has no shape information")
    if len(tensors) == 1:
        return _dumps({"predictions": values[0]})
    if len({tensor.shape[0] for tensor in tensors}) > 1:
        raise UpstreamError("upstream_invalid", "outputs differ in rows: ask for the column format ('inputs')")
    return _dumps({"predictions": _rows([tensor.name for tensor in tensors], values)})


def _rows(names: list[str], values: list[Any]) -> list[dict[str, Any]]:
    """Whole tensors as one object a row."""
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _by_name(value: Any, outputs: tuple[TensorSpec, ...], *, row: bool) -> dict[str, Any]:
    """Either format's answer as one nested list per output."""
    single = outputs[0] if len(outputs) == 1 else None
    if row:
        if type(value) is not list or not value:
            raise ValueError("'predictions' is not a list of rows")
        if type(value[0]) is not dict or (single is not None and set(value[0]) == {"b64"}):
            if single is None:
                raise ValueError(f"'predictions' rows must be objects with {[spec.name for spec in outputs]}")
            return {single.name: value}
        return {spec.name: [entry[spec.name] for entry in value] for spec in outputs}
    if type(value) is not dict or (single is not None and set(value) == {"b64"}):
        if single is None:
            raise ValueError(f"'outputs' must be an object with {[spec.name for spec in outputs]}")
        return {single.name: value}
    return value


def _array(block: Any, datatype: str) -> npt.NDArray[Any]:
    """Nested lists of checked elements -> array. Integers for float types become floats; nothing else is converted."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return _bytes_array(block)
    if datatype == "BF16" or datatype.startswith("FP"):
        return _floats(np.asarray(block, dtype=np.float64), datatype)
    found = np.asarray(block)
    if found.dtype.kind not in ("b" if datatype == "BOOL" else "iu") and found.size:
        found = np.asarray(block, dtype=object)
        if any(type(value) is not (bool if datatype == "BOOL" else int) for value in found.flat):
            raise ValueError(f"an element is no {datatype}")
    return found.astype(dtype)


def _plain_tensors(plain: json_plain.Plain, specs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(spec.name, spec.datatype, _floats(array, spec.datatype) if array.dtype.kind == "f" else array)
        for spec, array in ((spec, plain.arrays[spec.name]) for spec in specs)
    )


def _floats(wide: npt.NDArray[np.float64], datatype: str) -> npt.NDArray[Any]:
    """Doubles, as JSON numbers are read, in a float type."""
    with np.errstate(over="ignore"):  # TF Serving, too, lets a value beyond the type become infinite
        if datatype != "BF16":
            return wide.astype(DTYPES[datatype], copy=False)
        bits = wide.astype(np.float32).view(np.uint32)
    # round to nearest, ties to even; NaN stays NaN
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(bits.view(np.float32)), 0x7FC0, rounded).astype(DTYPES[datatype])


def _bytes_array(block: Any) -> npt.NDArray[Any]:
    shape: list[int] = []
    level = [block]
    while level and type(level[0]) is list:
        shape.append(len(level[0]))
        if any(type(part) is not list or len(part) != shape[-1] for part in level):
            raise ValueError("ragged lists of BYTES")
        level = [part for parts in level for part in parts]
    array = np.empty(len(level), dtype=object)
    array[:] = [_element_bytes(value) for value in level]
    return array.reshape(shape)


def _element_bytes(value: Any) -> bytes:
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _values(tensor: Tensor, *, b64: bool, rows: bool = False) -> Any:
    """What orjson can write: an array where every value is finite, else its text (rows: a list of its rows'); BYTES as lists."""
    data = tensor.data
    if tensor.datatype == "BYTES":
        flat = np.empty(data.size, dtype=object)
        flat[:] = [_bytes_element(value, b64) for value in data.reshape(-1)]
        return flat.reshape(data.shape).tolist()
    if tensor.datatype == "BF16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    elif tensor.datatype == "FP16":
        data = data.astype(np.float32)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return [_text(row) for row in data] if rows else _text(data)
    return np.ascontiguousarray(data) if data.shape else data.item()


def _bytes_element(value: bytes | str, b64: bool) -> Any:
    raw = value.encode() if isinstance(value, str) else value
    if not b64:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass  # JSON text cannot hold it
    return {"b64": base64.b64encode(raw).decode("ascii")}


def _text(data: npt.NDArray[Any]) -> orjson.Fragment:
    text = number_text(data)
    return orjson.Fragment(text if data.shape else text[1:-1])  # a scalar was written as a list of one


def _dumps(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_lenient(body)
