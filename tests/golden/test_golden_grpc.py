"""Bytes of the stock tensorflow-serving-api stubs and tf.make_tensor_proto (TensorFlow 2.21), read and written by our codec.

They share no code with it; the bytes were captured once and are literals here.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.protocol import tfserving_grpc as codec
from gateway.protocol import tfserving_info
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec

LIMITS = codec.Limits(8, 1 << 20)
REQUESTS: dict[str, str] = {
    "content": (
        "0a1d0a06646967697473120208031a0f73657276696e675f64656661756c7412230a0178121e08011208120208021202"
        "080222100000803f0000004000004040000080401a0179"
    ),
    "scalar_list": (
        "0a190a066469676974731a0f73657276696e675f64656661756c74121b0a017812160801120812020801120208022208"
        "0000c03f000000c0"
    ),
    "repeat": (
        "0a190a066469676974731a0f73657276696e675f64656661756c7412170a017812120801120812020802120208022a040000003f"
    ),
    "half": "0a190a066469676974731a0f73657276696e675f64656661756c7412130a0178120e08131204120208022204003c00c0",
    "strings": ("0a190a066469676974731a0f73657276696e675f64656661756c7412140a0173120f0807120412020802420261624201ff"),
    "ints": (
        "0a190a066469676974731a0f73657276696e675f64656661756c7412110a0162120c080a1204120208025a0201001223"
        "0a0169121e08091208120208011202080222100100000000000000ffffffffffffffff"
    ),
    "u8": "0a190a066469676974731a0f73657276696e675f64656661756c7412110a0169120c0804120412020802220200ff",
    "bf16": "0a190a066469676974731a0f73657276696e675f64656661756c7412130a0169120e080e1204120208022204803f00c0",
}
ANSWER = bytes.fromhex(
    "0a220a086f75747075745f3012160801120812020801120208022a080000803e0000403f121d0a066469676974731202"
    "08011a0f73657276696e675f64656661756c74"
)
STATUS = bytes.fromhex("0a060802101e1a000a06080110281a00")
METADATA_REQUEST = bytes.fromhex("0a080a06646967697473120d7369676e61747572655f646566")
METADATA = bytes.fromhex(
    "0a0c0a066469676974731202080412b7010a0d7369676e61747572655f64656612a5010a36747970652e676f6f676c65"
    "617069732e636f6d2f74656e736f72666c6f772e73657276696e672e5369676e61747572654465664d6170126b0a690a"
    "0f73657276696e675f64656661756c7412560a1d0a017812180a017810011a11120b08ffffffffffffffffff01120208"
    "0212190a017912140a017910091a0d120b08ffffffffffffffffff011a1a74656e736f72666c6f772f73657276696e67"
    "2f70726564696374"
)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("content", [("x", "FP32", [[1.0, 2.0], [3.0, 4.0]])]),
        ("scalar_list", [("x", "FP32", [[1.5, -2.0]])]),
        ("repeat", [("x", "FP32", [[0.5, 0.5], [0.5, 0.5]])]),
        ("half", [("x", "FP16", [1.0, -2.0])]),
        ("strings", [("s", "BYTES", [b"ab", b"\xff"])]),
        ("ints", [("b", "BOOL", [True, False]), ("i", "INT64", [[1, -1]])]),
        ("u8", [("i", "UINT8", [0, 255])]),
        ("bf16", [("i", "BF16", [0x3F80, 0xC000])]),
    ],
)
def test_a_stock_request(name: str, inputs: list[tuple[str, str, Any]]) -> None:
    payload = bytes.fromhex(REQUESTS[name])
    message = codec.parse_request(payload)
    request = codec.decode_request(message, LIMITS)
    assert [(t.name, t.datatype, t.data.tolist()) for t in request.inputs] == inputs
    assert (request.model, request.signature_name) == ("digits", "serving_default")
    if len(inputs) == 1:  # with several, a map's order on the wire is the writer's own
        assert codec.forward(message, "digits", request.version or "") == payload


def test_a_stock_request_is_written_back_as_it_was() -> None:
    payload = bytes.fromhex(REQUESTS["content"])
    request = codec.decode_request(codec.parse_request(payload), LIMITS)
    assert (request.version, request.outputs) == ("3", ("y",))
    assert codec.encode_request(request) == payload


def test_an_answer_as_tf_serving_writes_it() -> None:
    answer = codec.decode_response(ANSWER)
    assert (answer.model, answer.version) == ("digits", "1")
    assert [(t.name, t.datatype, t.data.tolist()) for t in answer.outputs] == [("output_0", "FP32", [[0.25, 0.75]])]
    assert codec.encode_response(answer, "serving_default") == ANSWER


def test_status() -> None:
    assert tfserving_info.available_versions(STATUS) == {"2"}
    written = message_class("tensorflow.serving.GetModelStatusResponse").FromString(STATUS)
    written.model_version_status[1].state = 30
    assert tfserving_info.status_response({1: True, 2: True}) == written.SerializeToString()


def test_metadata() -> None:
    asked = tfserving_info.parse_metadata_request(METADATA_REQUEST)
    assert (asked.model_spec.name, list(asked.metadata_field)) == ("digits", ["signature_def"])
    signature = Signature(
        "m", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "INT64", (-1,)),)
    )
    assert tfserving_info.metadata_response(signature, "digits", 4) == METADATA
