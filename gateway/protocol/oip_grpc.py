"""The Open Inference Protocol over gRPC: ModelInferRequest and ModelInferResponse <-> the canonical tensors.

PURE. Wire: Triton's grpc_service.proto, package inference; the messages of org.pytorch.serve.grpc.openinference are the same
bytes. Contents are taken raw or typed, never both; they are written raw, BYTES too: the stock client reads nothing else.
Counts are held against shapes before anything is allocated. No sockets, no grpc runtime here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from gateway.errors import RequestError, UpstreamError
from gateway.protocol import oip_answers
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, ArmWire, ClientWire, Message
from gateway.protocol.oip_json import bad
from gateway.protocol.oip_tensors import check_form, from_raw, raw_contents, refuse_parameters
from gateway.protocol.proto_wire import Piece, field, joined, varint
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import DTYPES, UNTOLD, BatchInfo, InferRequest, InferResponse, Tensor
from gateway.protocol.tfserving_grpc import ANSWER_BYTES, Limits

INFER = "/inference.GRPCInferenceService/ModelInfer"
TORCHSERVE_INFER = "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer"
_INT64 = 1 << 63
# datatype -> the typed list that holds it; FP16 and BF16 have none
_LISTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# the numpy type of a list that holds narrower datatypes than its own
_LISTED = {**dict.fromkeys(("INT8", "INT16"), "<i4"), **dict.fromkeys(("UINT8", "UINT16"), "<u4")}
_RAW_INPUTS, _RAW_OUTPUTS = 7, 6  # the numbers of raw_input_contents and raw_output_contents


class InferAsked:
    """A client's ModelInfer, parsed but for its tensors.

    Raises RequestError("invalid_argument") for a payload that is no ModelInferRequest.
    """

    __slots__ = ("_limits", "_message", "model", "version")
    wire: ClientWire = "oip-grpc"
    label = ""

    def __init__(self, payload: bytes, limits: Limits) -> None:
        try:
            self._message: Any = message_class("inference.ModelInferRequest").FromString(payload)
        except DecodeError as error:
            raise bad(f"the payload of {len(payload)} bytes is no inference.ModelInferRequest") from error
        self._limits = limits
        self.model: str = self._message.model_name
        self.version: str = self._message.model_version
        if not self.model:
            raise bad("the request names no model (model_name is empty)")

    def request(self, signature: Signature | None) -> InferRequest:
        """The canonical form, not judged yet; the protocol describes every tensor itself, the signature is not needed.

        Raises RequestError: invalid_argument, unimplemented (shared memory, sequences, classification).
        """
        message = self._message
        inputs = _tensors(message.inputs, message.raw_input_contents, self._limits.bytes, "raw_input_contents")
        outputs = tuple([output.name for output in message.outputs])
        if len(set(outputs)) != len(outputs):
            raise bad("an output is asked for twice")
        for output in message.outputs:
            refuse_parameters(_parameters(output.parameters))
        parameters = _parameters(message.parameters)
        refuse_parameters(parameters)
        return InferRequest(
            self.model, inputs, self.version or None, id=message.id, outputs=outputs, parameters=parameters
        )

    def answer(self, response: InferResponse, signature: Signature | None) -> Message:
        """The ModelInferResponse: the outputs asked for in the order asked for, contents raw.

        Raises UpstreamError("upstream_invalid") where the answer lacks one.
        """
        asked = self._message
        outputs = oip_answers.chosen(response.outputs, [output.name for output in asked.outputs])
        message = message_class("inference.ModelInferResponse")()
        message.model_name = self.model
        message.model_version = oip_answers.told_version(self.version, response.version)
        message.id = asked.id
        return Message(_written(message, message.outputs, outputs, _RAW_OUTPUTS))

    def passes(self, terms: ArmTerms) -> bool:
        """Always: it says everything in forms that every server of the protocol takes."""
        return True

    def passing(self, terms: ArmTerms) -> Message:
        """The message as it was judged, tensors and parameters as sent, under the arm's names for model and version.

        Serialized again: of bytes that two parsers might read differently, only one reading passes.
        """
        message = self._message
        message.model_name = terms.model
        message.model_version = terms.version
        return Message(message.SerializeToString())

    def passed(self, message: Message, terms: ArmTerms) -> tuple[Message, BatchInfo]:
        """The arm's ModelInferResponse under the client's names; an id the client did not give is the server's own."""
        answer = _response(message.body)
        told = oip_answers.told_version(self.version, answer.model_version)
        if (answer.model_name, answer.model_version, answer.id) == (self.model, told, self._message.id):
            return message, UNTOLD
        answer.model_name, answer.model_version, answer.id = self.model, told, self._message.id
        return Message(answer.SerializeToString()), UNTOLD


class _Arm:
    """The gRPC side of an open_inference arm."""

    wire: ArmWire = "oip-grpc"

    def encode(self, request: InferRequest, terms: ArmTerms) -> Message:
        """A ModelInferRequest with raw contents, by the arm's own names for model and version."""
        message = message_class("inference.ModelInferRequest")()
        message.model_name = terms.model
        message.model_version = terms.version
        message.id = request.id
        _fill_parameters(message.parameters, request.parameters)
        for name in terms.outputs or request.outputs:
            message.outputs.add().name = name
        return Message(_written(message, message.inputs, request.inputs, _RAW_INPUTS))

    def decode(self, message: Message, terms: ArmTerms) -> InferResponse:
        """A ModelInferResponse with raw or typed contents; raises UpstreamError("upstream_invalid")."""
        answer = _response(message.body)
        try:
            tensors = _tensors(answer.outputs, answer.raw_output_contents, ANSWER_BYTES, "raw_output_contents")
        except RequestError as error:
            raise UpstreamError("upstream_invalid", f"the answer is no infer response: {error.message}") from error
        outputs = oip_answers.checked(tensors, terms)
        return InferResponse(answer.model_name or terms.model, outputs, answer.model_version, answer.id)


ARM = _Arm()


def _response(payload: bytes) -> Any:
    try:
        return message_class("inference.ModelInferResponse").FromString(payload)
    except DecodeError as error:
        raise UpstreamError(
            "upstream_invalid", f"the answer of {len(payload)} bytes is no inference.ModelInferResponse"
        ) from error


def _written(message: Any, listed: Any, tensors: Sequence[Tensor], number: int) -> bytes:
    """message with its tensors, their raw contents appended as they stand in memory: the last field of either message."""
    pieces: list[Piece] = [b""]
    for tensor in tensors:
        entry = listed.add()
        entry.name = tensor.name
        entry.datatype = tensor.datatype
        entry.shape.extend(tensor.shape)
        pieces += field(number, raw_contents(tensor))
    pieces[0] = message.SerializeToString()
    return joined(pieces)


def _tensors(protos: Any, raw: Any, max_bytes: int, raw_name: str) -> tuple[Tensor, ...]:
    """Every tensor of a request or response; max_bytes bounds all of them together."""
    contents = list(raw)
    if contents and len(contents) != len(protos):
        raise bad(f"{raw_name} has {len(contents)} entries, the message has {len(protos)} tensors")
    tensors: dict[str, Tensor] = {}
    left = max_bytes
    for index, proto in enumerate(protos):
        name = proto.name
        if name in tensors:
            raise bad(f"{name!r} is there twice")
        shape = tuple(proto.shape)
        count = check_form(name, proto.datatype, shape)
        left -= count * DTYPES[proto.datatype].itemsize
        if left < 0:
            raise bad(
                f"{name!r}: shape {list(shape)} of {proto.datatype} is more than the {max_bytes} bytes that are taken"
            )
        refuse_parameters(_parameters(proto.parameters))
        if not contents:
            data = _typed(proto, shape, count)
        elif proto.HasField("contents") and proto.contents.ListFields():
            raise bad(f"{name!r} has typed contents, and the message {raw_name}: only one of them can be meant")
        else:
            data = from_raw(contents[index], 0, len(contents[index]), proto.datatype, shape, name)
        tensors[name] = Tensor(name, proto.datatype, data)
    return tuple(tensors.values())


def _typed(proto: Any, shape: tuple[int, ...], count: int) -> npt.NDArray[Any]:
    """The array in a tensor's typed list, which must be the one of its datatype and hold what its shape does."""
    name, datatype, contents = proto.name, proto.datatype, proto.contents
    field = _LISTS.get(datatype)
    for found, _ in contents.ListFields():
        if found.name != field:
            takes = f"takes {field}" if field else "has no typed contents: send it raw"
            raise bad(f"{name!r} has {found.name}, {datatype} {takes}")
    values = getattr(contents, field) if field else ()
    if len(values) != count:
        raise bad(f"{name!r} has {len(values)} values in {field or 'contents'}, its shape {list(shape)} holds {count}")
    dtype = DTYPES[datatype]
    if not count:
        return np.empty(shape, dtype)
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = list(values)
        return array.reshape(shape)
    if datatype in ("FP32", "FP64", "BOOL"):
        return _packed(contents, count, dtype).reshape(shape)
    listed = np.array(values, _LISTED.get(datatype, dtype))
    if listed.dtype != dtype:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        wrong = listed[(listed < low) | (listed > high)]
        if wrong.size:
            raise bad(f"{name!r} has the value {wrong[0]} in {field}, {datatype} is {low} to {high}")
    return listed.astype(dtype, copy=False).reshape(shape)


def _packed(contents: Any, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A list of fixed width (or booleans) as it stands in the message written: one tag byte, a length, the elements."""
    written = contents.SerializeToString()
    size = count * dtype.itemsize
    return np.frombuffer(written, dtype, count, 1 + len(varint(size)))


def _parameters(protos: Any) -> dict[str, bool | int | float | str]:
    if not protos:
        return {}
    found: dict[str, bool | int | float | str] = {}
    for key, value in protos.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            found[key] = getattr(value, choice)
    return found


def _fill_parameters(protos: Any, parameters: Mapping[str, bool | int | float | str]) -> None:
    for key, value in parameters.items():
        target = protos[key]
        if isinstance(value, bool):
            target.bool_param = value
        elif isinstance(value, int):
            if -_INT64 <= value < _INT64:
                target.int64_param = value
            elif 0 <= value < 2 * _INT64:
                target.uint64_param = value
            else:
                raise bad(f"parameter {key!r} is {value}, which fits no 64 bits")
        elif isinstance(value, float):
            target.double_param = value
        else:
            try:
                target.string_param = value
            except (UnicodeEncodeError, ValueError) as error:
                raise bad(f"parameter {key!r} holds a text that is no UTF-8") from error
