"""TorchServe's payloads: headers, the gRPC message, the envelope, and answers judged by the signature."""

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.protocol import oip_binary
from gateway.protocol import torchserve as codec
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import UNTOLD, BatchInfo, InferRequest, InferResponse, Tensor

SIGNATURE = Signature(
    "m",
    "serving_default",
    (TensorSpec("x", "FP32", (-1, 2)),),
    (TensorSpec("y", "FP32", (-1, 1)), TensorSpec("z", "INT64", (-1,))),
)
Y = Tensor("y", "FP32", np.array([[0.5]], "<f4"))
Z = Tensor("z", "INT64", np.array([4], "<i8"))
REQUEST = InferRequest("m", (Tensor("x", "FP32", np.array([[1, 2]], "<f4")),))


def answer(prediction: bytes) -> bytes:
    message = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=prediction)
    serialized: bytes = message.SerializeToString()
    return serialized


def sealed(head: bytes, payload: bytes = b"") -> bytes:
    return answer(b"ABG1" + struct.pack("<I", len(head)) + head + payload)


def test_http_headers() -> None:
    assert codec.http_headers("oip-binary", 17) == (
        (b"content-type", b"application/octet-stream"),
        (b"x-abgate-format", b"oip-binary"),
        (b"x-abgate-sent-ns", b"17"),
    )
    assert codec.http_headers("tfs-json", 17) == ((b"content-type", b"application/json"),)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"x-abgate-batch-size": "4", "x-abgate-batch-rows": "9", "x-abgate-queue-ns": "123456"},
            BatchInfo(4, 9, 123456),
        ),
        ({}, UNTOLD),
        ({"x-abgate-batch-size": "-4", "x-abgate-batch-rows": "x", "x-abgate-queue-ns": "9" * 20}, UNTOLD),
        ({"x-abgate-batch-size": "²"}, UNTOLD),
    ],
)
def test_what_headers_tell_of_the_batch(headers: dict[str, str], expected: BatchInfo) -> None:
    assert codec.batch_info(headers) == expected


def test_the_form_is_the_inputs_key() -> None:
    message_type = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")
    ours = message_type.FromString(codec.encode_predictions("m", "1.0", b"pay", "oip-binary", 17))
    assert (ours.model_name, ours.model_version) == ("m", "1.0")
    assert dict(ours.input) == {"oip-binary": b"pay", "x-abgate-sent-ns": b"17"}
    theirs = message_type.FromString(codec.encode_predictions("m", "", b"{}", "tfs-json", 17))
    assert (theirs.model_version, dict(theirs.input)) == ("", {"body": b"{}"})


def test_payloads() -> None:
    binary = codec.encode_payload(REQUEST, "oip-binary")
    assert oip_binary.decode_request(binary, "m").inputs[0].data.tolist() == [[1.0, 2.0]]
    assert codec.encode_payload(REQUEST, "tfs-json") == b'{"instances":[[1.0,2.0]]}'
    flags = Tensor("flag", "BOOL", np.array([True]))
    two = InferRequest("m", (*REQUEST.inputs, flags))
    assert codec.encode_payload(two, "tfs-json") == b'{"instances":[{"x":[1.0,2.0],"flag":true}]}'
    uneven = InferRequest("m", (*REQUEST.inputs, Tensor("t", "FP32", np.array(0.5, "<f4"))))
    assert codec.encode_payload(uneven, "tfs-json") == b'{"inputs":{"x":[[1.0,2.0]],"t":0.5}}'


def test_an_answer_in_its_envelope() -> None:
    payload = oip_binary.encode_response(InferResponse("m", (Z, Y, Tensor("extra", "FP32", Y.data)), "1.0"))
    head = {"status": 200, "batch_size": 4, "batch_rows": 9, "queue_ns": 1234}
    body, batch = codec.decode_predictions(answer(codec.envelope(head, payload)), "oip-binary")
    assert (body, batch) == (payload, BatchInfo(4, 9, 1234))
    response = codec.decode_payload(body, "oip-binary", SIGNATURE, batch=batch)
    assert (response.model, response.version, response.batch) == ("m", "1.0", batch)
    assert [(t.name, t.data.tolist()) for t in response.outputs] == [("y", [[0.5]]), ("z", [4])]
    only = codec.decode_payload(body, "oip-binary", SIGNATURE, ["z"])
    assert [t.name for t in only.outputs] == ["z"]


def test_a_users_own_handler_answers_plainly() -> None:
    body, batch = codec.decode_predictions(answer(b'{"predictions":[{"y":[0.5],"z":4}]}'), "tfs-json")
    assert batch == UNTOLD
    response = codec.decode_payload(body, "tfs-json", SIGNATURE)
    assert [(t.name, t.data.tolist()) for t in response.outputs] == [("y", [[0.5]]), ("z", [4])]


@pytest.mark.parametrize(
    ("payload", "kind", "text"),
    [
        (sealed(b'{"status":400,"error":"x must have rank 2"}'), "upstream_rejected", "x must have rank 2"),
        (sealed(b'{"status":500}'), "upstream_error", "status 500"),
        (sealed(b"{}"), "upstream_error", "status None"),
        (b"\xff", "upstream_invalid", "no TorchServe PredictionResponse"),
        (answer(b'{"predictions":[]}'), "upstream_invalid", "does not begin with ABG1"),
        (answer(b"ABG1\x01"), "upstream_invalid", "does not begin with"),
        (answer(b"ABG1\xff\xff\xff\xff{}"), "upstream_invalid", "ends at byte"),
        (sealed(b"{"), "upstream_invalid", "no JSON"),
        (sealed(b"[]"), "upstream_invalid", "no JSON object"),
    ],
)
def test_an_answer_that_is_none(payload: bytes, kind: str, text: str) -> None:
    with pytest.raises(UpstreamError, match=text) as caught:
        codec.decode_predictions(payload, "oip-binary")
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ((Y,), "'z' is missing; the signature has INT64"),
        ((Tensor("y", "FP64", np.array([[0.5]])), Z), "'y' is FP64; the signature has FP32"),
    ],
)
def test_an_answer_that_does_not_fit_the_signature(outputs: Any, text: str) -> None:
    payload = oip_binary.encode_response(InferResponse("m", outputs))
    with pytest.raises(UpstreamError, match=text) as caught:
        codec.decode_payload(payload, "oip-binary", SIGNATURE)
    assert caught.value.kind == "upstream_invalid"


@given(st.binary(max_size=60), st.sampled_from(["oip-binary", "tfs-json"]))
def test_only_upstream_errors_leave(noise: bytes, form: str) -> None:
    for payload in (noise, answer(noise), answer(b"ABG1" + noise), sealed(b'{"status":200}', noise)):
        with suppress(UpstreamError):
            body, batch = codec.decode_predictions(payload, form)
            codec.decode_payload(body, form, SIGNATURE, batch=batch)
