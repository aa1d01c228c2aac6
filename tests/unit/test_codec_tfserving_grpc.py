"""PredictRequest and PredictResponse: the guard's verdicts with TF Serving's texts, forwarding, and the round trips."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RequestError, UpstreamError
from gateway.protocol import tfserving_grpc as codec
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor
from gateway.protocol.versions import version_number

LIMITS = codec.Limits(rows=8, bytes=1 << 20)
ONE = Signature(
    "m",
    "serving_default",
    (TensorSpec("x", "FP32", (-1, 2)),),
    (TensorSpec("y", "FP32", (-1, 1)), TensorSpec("z", "INT64", (-1,))),
)
TWO = Signature(
    "m",
    "serving_default",
    (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "BOOL", (-1, 3)), TensorSpec("t", "FP32", ())),
    (TensorSpec("y", "FP32", (-1, 1)),),
)


def request(inputs: dict[str, tuple[int, list[int], dict[str, Any]]], **spec: Any) -> Any:
    """A PredictRequest as a client's stub would parse it: input name -> (dtype, shape, value fields)."""
    message = message_class("tensorflow.serving.PredictRequest")()
    message.model_spec.name = "m"
    for key, value in spec.items():
        setattr(message.model_spec, key, value)
    for name, (dtype, shape, fields) in inputs.items():
        proto = message_class("tensorflow.TensorProto")(dtype=dtype, **fields)
        proto.tensor_shape.SetInParent()
        for size in shape:
            proto.tensor_shape.dim.add().size = size
        message.inputs[name].CopyFrom(proto)
    return message


def floats(shape: list[int], **fields: Any) -> tuple[int, list[int], dict[str, Any]]:
    return 1, shape, fields or {"float_val": [0.5]}


GOOD_TWO: dict[str, tuple[int, list[int], dict[str, Any]]] = {
    "ids": (9, [2, 5], {"int64_val": [1]}),
    "mask": (10, [2, 3], {"bool_val": [True]}),
    "t": (1, [], {"float_val": [1.0]}),
}


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [({"x": floats([1, 2])}, 1), ({"x": floats([8, 2])}, 8), ({"x": (1, [3, 2], {"tensor_content": bytes(24)})}, 3)],
)
def test_a_good_request_has_its_rows(inputs: Any, rows: int) -> None:
    assert codec.check(request(inputs), ONE, LIMITS) == rows
    assert codec.check(request(inputs, signature_name="serving_default"), ONE, LIMITS) == rows


def test_several_inputs() -> None:
    assert codec.check(request(GOOD_TWO), TWO, LIMITS) == 2
    uneven = {**GOOD_TWO, "mask": (10, [3, 3], {"bool_val": [True]})}
    with pytest.raises(RequestError, match=r"same number of rows, got \[2, 3\]"):
        codec.check(request(uneven), TWO, LIMITS)


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            request({}),
            "invalid_argument",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request({"x": floats([1, 2]), "b": floats([1]), "a": floats([1])}),
            "invalid_argument",
            "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). Sent extra: {a,b}. Missing but required: {}.",
        ),
        (request({"q": floats([1, 2])}), "invalid_argument", "Sent extra: {q}. Missing but required: {x}."),
        (
            request({"x": floats([1, 2])}, signature_name="nope"),
            "failed_precondition",
            'Serving signature key "nope" not found.',
        ),
        (
            request({"x": floats([1, 2])}, signature_name="__saved_model_init_op"),
            "failed_precondition",
            'Serving signature key "__saved_model_init_op" not found.',
        ),
        (
            request({"x": (3, [1, 2], {"int_val": [1]})}),
            "invalid_argument",
            "must be FP32 (DT_FLOAT), not INT32 (DT_INT32)",
        ),
        (request({"x": (20, [1, 2], {})}), "invalid_argument", "DT_RESOURCE"),
        (request({"x": floats([2])}), "invalid_argument", "must have rank 2, shape [-1, 2]; got rank 1, shape [2]"),
        (request({"x": floats([])}), "invalid_argument", "got rank 0, shape []"),
        (request({"x": floats([1, 2, 1])}), "invalid_argument", "got rank 3"),
        (request({"x": floats([1, 3])}), "invalid_argument", "must have shape [-1, 2] (-1 is any size); got [1, 3]"),
        (request({"x": floats([-1, 2])}), "invalid_argument", "negative dimension"),
        (request({"x": (1, [0, 2], {})}), "invalid_argument", "the batch is empty"),
        (request({"x": floats([9, 2])}), "too_large", "9 rows, at most 8"),
    ],
)
def test_what_the_guard_refuses(message: Any, kind: str, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        codec.check(message, ONE, LIMITS)
    assert caught.value.kind == kind
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["q"], "output tensor alias not found in signature: q Outputs expected to be in the set {y,z}."),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_output_filter(names: list[str], text: str) -> None:
    message = request({"x": floats([1, 2])})
    message.output_filter.extend(names)
    with pytest.raises(RequestError, match=text):
        codec.check(message, ONE, LIMITS)


def test_weaker_guards() -> None:
    odd = request({"x": floats([1, 3])})
    assert codec.check(odd, ONE, LIMITS, "types") == 1
    with pytest.raises(RequestError, match="must be FP32"):
        codec.check(request({"x": (2, [1, 3], {"double_val": [1]})}), ONE, LIMITS, "types")
    unknown = request({"q": (2, [4], {"double_val": [1]})}, signature_name="other")
    assert codec.check(unknown, ONE, LIMITS, "off") == 4
    assert codec.check(unknown, None, LIMITS) == 4
    with pytest.raises(RequestError, match="takes its values from"):
        codec.check(request({"q": (2, [1], {"float_val": [1]})}), ONE, LIMITS, "off")


def test_all_inputs_together_are_bounded() -> None:
    half = (1, [160, 1024], {"float_val": [1.0]})
    with pytest.raises(RequestError, match="more than the"):
        codec.check(request({"a": half, "b": half}), None, codec.Limits(1024, 1 << 20))


def test_model_and_version() -> None:
    with pytest.raises(RequestError, match="ModelSpec has no name specified"):
        codec.model_name(message_class("tensorflow.serving.PredictRequest")())
    message = request({})
    assert codec.version_and_label(message) == ("", "")
    message.model_spec.version.value = 12
    assert codec.version_and_label(message) == ("12", "")
    message.model_spec.version_label = "stable"
    assert codec.version_and_label(message) == ("", "stable")
    message.model_spec.version.value = -1
    with pytest.raises(RequestError, match="negative"):
        codec.version_and_label(message)


def test_forward_writes_the_arms_name_and_resolves_the_label() -> None:
    message = request({"x": floats([1, 2])}, version_label="stable")
    payload = codec.forward(message, "arm-model", "3")
    sent = codec.parse_request(payload)
    assert (sent.model_spec.name, sent.model_spec.version.value, sent.model_spec.version_label) == ("arm-model", 3, "")
    assert list(sent.inputs["x"].float_val) == [0.5]
    with pytest.raises(RequestError, match=r"Specific\(m, 1.0\)") as caught:
        codec.forward(message, "m", "1.0")
    assert caught.value.kind == "not_found"


def test_forward_never_sends_bytes_that_read_two_ways() -> None:
    """An input sent twice, its shape in pieces: the arm gets only the reading that was judged."""
    good = request({"x": floats([1, 2])}).SerializeToString()
    bad = request({"x": floats([64])}).SerializeToString()
    message = codec.parse_request(bad + good)
    assert codec.check(message, ONE, LIMITS) == 1
    sent = codec.parse_request(codec.forward(message, "m", ""))
    assert codec.forward(message, "m", "").count(b"\x0a\x01x") == 1
    assert [dim.size for dim in sent.inputs["x"].tensor_shape.dim] == [1, 2]


def test_clean_bytes_are_forwarded_as_they_came() -> None:
    payload = request({"x": floats([1, 2])}, signature_name="serving_default").SerializeToString()
    assert codec.forward(codec.parse_request(payload), "m", "") == payload


def test_a_request_survives_both_encodings() -> None:
    tensors = (Tensor("a", "FP32", np.array([[1, 2]], "<f4")), Tensor("s", "BYTES", np.array([b"q"], object)))
    for typed in (False, True):
        wanted = InferRequest("m", tensors, version="7", signature_name="sig", outputs=("y",))
        message = codec.parse_request(codec.encode_request(wanted, typed=typed))
        again = codec.decode_request(message, LIMITS)
        assert (again.model, again.version, again.label, again.signature_name) == ("m", "7", None, "sig")
        assert again.outputs == ("y",)
        assert [(t.name, t.datatype, t.data.tolist()) for t in again.inputs] == [
            ("a", "FP32", [[1, 2]]),
            ("s", "BYTES", [b"q"]),
        ]


def test_answers_carry_typed_lists() -> None:
    answer = InferResponse(
        "m", (Tensor("y", "FP32", np.array([[1.5], [2.5]], "<f4")), Tensor("z", "INT64", np.array([3]))), "2.0"
    )
    message = codec.parse_response(codec.encode_response(answer, "serving_default"))
    assert list(message.outputs["y"].float_val) == [1.5, 2.5]
    assert list(message.outputs["z"].int64_val) == [3]
    assert not message.outputs["y"].tensor_content
    assert (message.model_spec.name, message.model_spec.version.value) == ("m", 2)
    assert message.model_spec.signature_name == "serving_default"
    only = codec.parse_response(codec.encode_response(answer, "serving_default", ["z"]))
    assert sorted(only.outputs) == ["z"]
    with pytest.raises(UpstreamError, match="no output 'w'") as caught:
        codec.encode_response(answer, "serving_default", ["w"])
    assert caught.value.kind == "upstream_invalid"


@pytest.mark.parametrize(
    ("version", "number"),
    [("1", 1), ("1.0", 1), ("12.0.0", 12), ("1.5", None), ("v1", None), ("", None), ("-1", None), (str(2**63), None)],
)
def test_versions_as_numbers(version: str, number: int | None) -> None:
    assert version_number(version) == number


def test_answers_under_the_clients_name() -> None:
    payload = codec.encode_response(InferResponse("arm", ()), "s")
    assert codec.rename_response(payload, "arm") is payload
    assert codec.parse_response(codec.rename_response(payload, "m")).model_spec.name == "m"
    with pytest.raises(UpstreamError, match="is no tensorflow") as caught:
        codec.rename_response(b"\xff\xff", "m")
    assert caught.value.kind == "upstream_invalid"


def test_an_unsound_answer_is_the_arms_fault() -> None:
    message = message_class("tensorflow.serving.PredictResponse")()
    message.outputs["y"].dtype = 1
    message.outputs["y"].float_val.extend([1, 2])
    with pytest.raises(UpstreamError, match="2 values") as caught:
        codec.decode_response(message.SerializeToString())
    assert caught.value.kind == "upstream_invalid"


@given(st.data())
def test_only_our_errors_leave_a_damaged_request(data: st.DataObject) -> None:
    """Every refusal is a RequestError, and what passes is forwarded as a request that passes again."""
    payload = bytearray(request({**GOOD_TWO, "s": (7, [1], {"string_val": [b"abc"]})}).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    with suppress(RequestError):
        message = codec.parse_request(cut)
        codec.model_name(message)
        rows = codec.check(message, None, LIMITS)
        codec.decode_request(message, LIMITS)
        assert codec.check(codec.parse_request(codec.forward(message, "m", "")), None, LIMITS) == rows
