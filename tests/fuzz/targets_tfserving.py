"""TensorFlow Serving's decoders: REST bodies and answers, the guard that judges them, messages and their tensors."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np

from gateway.errors import RequestError
from gateway.protocol import json_lists, json_plain, tensor_proto, tfserving_grpc, tfserving_info, tfserving_rest
from gateway.protocol.descriptors import message_class
from gateway.protocol.json_strict import parse_lenient
from gateway.protocol.signature import Guard
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import DTYPES, InferRequest, InferResponse, Tensor
from tests.fuzz.target import Target

LIMITS = tfserving_grpc.Limits(64, 1 << 20)
SHAPES = {"FP32": (-1, 2), "INT64": (-1,), "BYTES": (-1, 1), "BOOL": (-1, 2), "UINT8": (-1,), "FP16": (-1, 2)}
SPECS = tuple(TensorSpec(name.lower(), name, shape) for name, shape in SHAPES.items())
SIGNATURE = Signature("m", "serving_default", SPECS, SPECS)
LONG = Signature("m", "serving_default", (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))), SPECS)
ONE = Signature("m", "serving_default", SPECS[:1], SPECS[:1])


def _tensors() -> tuple[Tensor, ...]:
    texts = np.empty((2, 1), object)
    texts[:, 0] = [b"ab", b"\xff"]
    return tuple(
        Tensor(spec.name, spec.datatype, texts)
        if spec.datatype == "BYTES"
        else Tensor(spec.name, spec.datatype, np.ones((2, *spec.shape[1:]), DTYPES[spec.datatype]))
        for spec in SPECS
    )


def _alike(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> None:
    for one, other in zip(before, after, strict=True):
        assert (one.name, one.datatype, one.shape) == (other.name, other.datatype, other.shape)
        assert one.data.dtype == other.data.dtype == DTYPES[one.datatype]
        if one.datatype == "BYTES":
            assert one.data.tolist() == other.data.tolist()
        else:
            assert np.array_equal(one.data, other.data, equal_nan=one.data.dtype.kind == "f")


def _rest(signature: Signature) -> Any:
    def call(data: bytes) -> None:
        request = tfserving_rest.decode_request(data, signature)
        if all(
            0 not in tensor.shape for tensor in request.inputs
        ):  # JSON lists lose what stands behind an empty dimension
            written = tfserving_rest.encode_request(request)
            _alike(request.inputs, tfserving_rest.decode_request(written, signature).inputs)

    return call


def _guard(signature: Signature) -> Any:
    judged = {mode: Guard(signature, mode, 64) for mode in ("strict", "types")}

    def call(data: bytes) -> None:
        """What the guard's fast way takes, its slow way takes with the same rows."""
        with suppress(RequestError):
            judged["types"].check(data)
        rows = judged["strict"].check(data)
        assert rows == judged["strict"].parse(data).rows

    return call


def _plain(data: bytes) -> None:
    """What is read flat, the slow way reads as well, and to the same numbers."""
    found = json_plain.read(data, LONG.inputs, ("instances", "inputs"), LONG.signature_name)
    if found is None:
        tfserving_rest.decode_request(data, LONG)
        return
    try:
        slow = Guard(LONG, "types", 1 << 31).parse(data)
    except RequestError as error:
        raise AssertionError(f"read flat, refused by the guard: {error.message}") from error
    assert slow.column == (found.key == "inputs")
    for spec in LONG.inputs:
        dtype = found.arrays[spec.name].dtype
        assert np.array_equal(found.arrays[spec.name], np.array(slow.blocks[spec.name], dtype))


def _outline(data: bytes) -> None:
    """What an outline tells is told by the whole body as well: the same keys, and lists where it has strings instead."""
    whole = parse_lenient(data)  # refuses what is no JSON
    told = parse_lenient(json_lists.outline(data, ("instances", "inputs", "data", "x", "n")))
    assert _alike_but_for_lists(whole, told)


def _alike_but_for_lists(whole: Any, told: Any) -> bool:
    if type(whole) is dict and type(told) is dict:
        return list(whole) == list(told) and all(_alike_but_for_lists(whole[key], told[key]) for key in whole)
    if type(whole) is list and type(told) is list:
        return len(whole) == len(told) and all(map(_alike_but_for_lists, whole, told))
    return type(told) is (str if type(whole) is list else type(whole))


def _grpc(data: bytes) -> None:
    message = tfserving_grpc.parse_request(data)
    tfserving_grpc.model_name(message)
    tfserving_grpc.version_and_label(message)
    with suppress(RequestError):
        tfserving_grpc.check(message, SIGNATURE, LIMITS)
    with suppress(RequestError):
        tfserving_grpc.forward(message, "m", "1")
    request = tfserving_grpc.decode_request(message, LIMITS)
    for typed in (False, True):
        written = tfserving_grpc.parse_request(tfserving_grpc.encode_request(request, typed=typed))
        _alike(request.inputs, tfserving_grpc.decode_request(written, LIMITS).inputs)


def _grpc_answer(data: bytes) -> None:
    answer = tfserving_grpc.decode_response(data, 1 << 20)
    tfserving_grpc.rename_response(data, "n")
    written = tfserving_grpc.encode_response(answer, "s")
    _alike(answer.outputs, tfserving_grpc.decode_response(written, 1 << 20).outputs)


def _tensor_proto(data: bytes) -> None:
    message = message_class("tensorflow.TensorProto")()
    with suppress(Exception):  # protobuf's own parser is not what is judged here
        message.ParseFromString(data)
    tensor_proto.decode(message, "x", 1 << 20)


def _info(data: bytes) -> None:
    with suppress(RequestError):
        tfserving_info.parse_status_request(data)
    with suppress(RequestError):
        tfserving_info.parse_metadata_request(data)
    tfserving_info.available_versions(data)


def _long() -> tuple[bytes, ...]:
    """Bodies whose lists are long enough to be lifted out."""
    inputs = {"x": [[0.5, -1e3]] * 500, "n": [(1 << 62) + 1] * 500}
    documents = ({"inputs": inputs}, {"signature_name": "serving_default", "inputs": inputs})
    return tuple(json.dumps(document).encode() for document in documents)


def targets() -> list[Target]:
    """Requests of both wires, answers of both, the guard, TensorProto, status and metadata."""
    tensors = _tensors()
    request = InferRequest("m", tensors, signature_name="serving_default")
    bodies = (tfserving_rest.encode_request(request), tfserving_rest.encode_request(request, column=False))
    rows = (b'{"instances": [[1, 2.5], [3e1, -4]]}', b'{"inputs": [[1.0, 2.0]]}', b'{"instances":[{"fp32":[1.0,2.0]}]}')
    answers = (
        tfserving_rest.encode_response(InferResponse("m", tensors), column=True),
        tfserving_rest.encode_response(InferResponse("m", tensors), column=False),
    )
    answer = InferResponse("m", tensors, "1")
    status = message_class("tensorflow.serving.GetModelStatusRequest")()
    status.model_spec.name = "m"
    protos = [
        tensor_proto.new(tensor, typed=typed).SerializeToString() for tensor in tensors for typed in (True, False)
    ]
    return [
        Target("tfs-rest", _rest(SIGNATURE), bodies),
        Target("tfs-rest-one", _rest(ONE), rows),
        Target("tfs-rest-long", _plain, _long()),
        Target("json-outline", _outline, _long()),
        Target("tfs-rest-guard", _guard(SIGNATURE), bodies),
        Target("tfs-rest-guard-one", _guard(ONE), rows),
        Target("tfs-rest-answer", lambda data: tfserving_rest.decode_response(data, SIGNATURE), answers),
        Target(
            "tfs-grpc", _grpc, tuple(tfserving_grpc.encode_request(request, typed=typed) for typed in (False, True))
        ),
        Target("tfs-grpc-answer", _grpc_answer, (tfserving_grpc.encode_response(answer, "s"),)),
        # a tensor may say in a few bytes that its last value repeats: it is bounded by the limit, not by its bytes
        Target("tensor-proto", _tensor_proto, tuple(protos), memory_factor=1 << 10),
        Target(
            "tfs-messages", _info, (status.SerializeToString(), tfserving_info.status_response({1: True, 2: False}))
        ),
        Target("json", parse_lenient, (*bodies, json.dumps({"a": [1, 2.5, None, "\u00e9"]}).encode(), b"[NaN, 1e39]")),
    ]
