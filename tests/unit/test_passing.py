"""What goes to an arm of the client's own wire byte for byte, and what of its answer comes back so."""

import json

import numpy as np
import pytest

from gateway.errors import UpstreamError
from gateway.protocol import oip_rest, torchserve
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, Message
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import BatchInfo, InferResponse, Tensor
from gateway.protocol.torchserve_predictions import GrpcAsked, HttpAsked

A, B = TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1,))
Y, Z = TensorSpec("y", "FP32", (-1, 1)), TensorSpec("z", "FP32", (-1, 1))
SIGNATURE = Signature("m", "serving_default", (A, B), (Y, Z))
JSON, BINARY = (ArmTerms("theirs", "", form, SIGNATURE) for form in (oip_rest.JSON_FORM, oip_rest.BINARY_FORM))
IN_A = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.50]]}
IN_B = {"name": "b", "datatype": "FP32", "shape": [1], "data": [3]}
BOTH = {"inputs": [IN_A, IN_B]}
HEAD = oip_rest.HEAD_LENGTH


def asked(document: object, length: int | None = None, raw: bytes = b"", version: str = "") -> oip_rest.InferAsked:
    text = document if isinstance(document, bytes) else json.dumps(document, indent=1).encode()
    read = oip_rest.InferAsked(text + raw, len(text) if length == -1 else length, "m", version)
    read.request(SIGNATURE)
    return read


@pytest.mark.parametrize(
    ("document", "to_json", "to_binary"),
    [
        (BOTH, True, True),
        ({**BOTH, "id": "7", "parameters": {"priority": 1}, "outputs": [{"name": "z"}]}, True, True),
        ({"inputs": [IN_B, IN_A]}, False, False),  # some servers go by the order
        ({**BOTH, "parameters": {"binary_data_output": True}}, False, True),
        ({**BOTH, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}, False, True),
        (json.dumps(BOTH).encode()[:-1] + b',"id":"1","id":"2"}', False, False),
        (json.dumps(BOTH).encode().replace(b'"shape": [1]', b'"shape": [9], "shape": [1]'), False, False),
        ({**BOTH, "parameters": {"long": "x" * (1 << 16)}}, False, False),
    ],
)
def test_which_open_inference_bodies_pass(document: object, to_json: bool, to_binary: bool) -> None:
    read = asked(document)
    assert (read.passes(JSON), read.passes(BINARY)) == (to_json, to_binary)
    if to_binary:
        text = json.dumps(document, indent=1).encode()
        assert read.passing(BINARY) == Message(text, {"content-type": "application/json"})


def test_a_binary_body_passes_with_the_length_of_its_head() -> None:
    document = {"inputs": [{**IN_A, "parameters": {"binary_data_size": 8}}, IN_B]}
    del document["inputs"][0]["data"]
    read = asked(document, -1, np.float32([1, 2]).tobytes())
    assert not read.passes(JSON)
    assert read.passes(BINARY)
    message = read.passing(BINARY)
    assert message.headers["content-type"] == "application/octet-stream"
    again = oip_rest.InferAsked(message.body, int(message.headers[HEAD]), "m", "")
    assert np.array_equal(again.request(SIGNATURE).inputs[0].data, np.float32([[1, 2]]))


def test_a_long_body_that_was_read_elsewhere_passes_too() -> None:
    rows = 3000
    long = {**IN_A, "shape": [rows, 2], "data": [[0.1, 0.2]] * rows}
    sent = asked({"id": "7", "inputs": [long, {**IN_B, "shape": [rows], "data": [1] * rows}]})
    kept = sent.answerer()
    assert kept.passes(JSON)
    kept.resume(sent)
    assert kept.passing(JSON) == sent.passing(JSON)


OUT_Y = {"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}
OUT_Z = {"name": "z", "datatype": "FP32", "shape": [1, 1], "data": [1e2]}
ANSWER = {"model_name": "m", "model_version": "1", "outputs": [OUT_Y, OUT_Z]}
RAW_Y, RAW_Z = ({**out, "parameters": {"binary_data_size": 4}} for out in (OUT_Y, OUT_Z))
for out in (RAW_Y, RAW_Z):
    del out["data"]
RAW = {"model_name": "m", "model_version": "1", "outputs": [RAW_Y, RAW_Z]}


@pytest.mark.parametrize(
    ("more", "version", "answer", "passes"),
    [
        ({}, "", ANSWER, True),
        ({}, "1", {**ANSWER, "parameters": {"x": 1}}, True),
        ({"id": "7"}, "", {**ANSWER, "id": "7"}, True),
        ({"id": "7"}, "", ANSWER, False),
        ({}, "", {**ANSWER, "id": "the server's"}, False),
        ({}, "", {**ANSWER, "model_name": "theirs"}, False),
        ({}, "", {**ANSWER, "model_version": "1.0"}, False),
        ({}, "", {**ANSWER, "outputs": [OUT_Z, OUT_Y]}, False),
        ({}, "", {**ANSWER, "outputs": [OUT_Y]}, False),
        ({}, "", {**ANSWER, "outputs": [OUT_Y, {**OUT_Z, "datatype": "FP64"}]}, False),
        ({"outputs": [{"name": "z"}]}, "", {**ANSWER, "outputs": [OUT_Z]}, True),
        ({"outputs": [{"name": "z"}]}, "", ANSWER, False),
        ({"parameters": {"binary_data_output": True}}, "", ANSWER, False),
        ({}, "", {**ANSWER, "outputs": 3}, False),
        ({}, "", {**ANSWER, "outputs": [OUT_Y, {"name": "z", "datatype": "FP32", "shape": [1, 1]}]}, False),
    ],
)
def test_which_open_inference_answers_pass(more: dict, version: str, answer: dict, passes: bool) -> None:
    read = asked({**BOTH, **more}, version=version)
    body = json.dumps(answer, indent=2).encode()
    found = read.passed(Message(body, {"content-type": "application/json", "x": "y"}), BINARY)
    assert (found is not None) == passes
    if found is not None:
        assert found[0] == Message(body, {"content-type": "application/json"})


@pytest.mark.parametrize(
    ("wanted", "raw", "passes"), [(True, 8, True), (True, 9, False), (True, 7, False), (False, 8, False)]
)
def test_which_binary_answers_pass(wanted: bool, raw: int, passes: bool) -> None:
    read = asked({**BOTH, "parameters": {"binary_data_output": wanted}})
    text = json.dumps(RAW).encode()
    found = read.passed(Message(text + bytes(raw), {HEAD: str(len(text)), "server": "x"}), BINARY)
    assert (found is not None) == passes
    if found is not None:
        assert found[0].headers == {"content-type": "application/octet-stream", HEAD: str(len(text))}


ONE = Signature("m", "serving_default", (A,), (Y,))
OURS, USERS = (ArmTerms("theirs", "", form, ONE) for form in (torchserve.OIP_BINARY, torchserve.TFS_JSON))


@pytest.mark.parametrize(
    ("body", "ours", "users", "answer"),
    [
        (b' {"instances": [[1, 2]]}', True, True, b'{"predictions": [[0.5]]}'),
        (b'{"signature_name": "", "inputs": {"a": [[1, 2]]}}', True, False, b'{ "outputs":[[0.5]]}'),
        (b"[[1, 2]]", False, False, b""),
        (b'{"data": [[1, 2]]}', False, False, b""),
        (b'{"a": [[1, 2]]}', False, False, b""),
        (json.dumps({"inputs": [IN_A]}).encode(), False, False, b""),
    ],
)
def test_which_of_torchserves_bodies_pass(body: bytes, ours: bool, users: bool, answer: bytes) -> None:
    response = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")
    request = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")
    http = HttpAsked(body, "application/json", "m", "")
    grpc = GrpcAsked(request(model_name="m", input={"data": body}).SerializeToString())
    for read in (http, grpc):
        read.request(ONE)
        assert (read.passes(OURS), read.passes(USERS)) == (ours, users)
    if not ours:
        return
    sent = http.passing(OURS)
    assert (sent.body, sent.headers["x-abgate-format"]) == (body, "tfs-json")
    assert sent.headers["x-abgate-sent-ns"].isdigit()
    told = {"x-abgate-batch-size": "3", "content-type": "application/json"}
    back = (Message(answer, {"content-type": "application/json"}), BatchInfo(3, -1, -1))
    assert http.passed(Message(answer, told), OURS) == back
    assert http.passed(Message(b"[0.5]", told), OURS) is None

    message = request.FromString(grpc.passing(OURS).body)
    assert message.model_name == "theirs"
    assert message.input["tfs-json"] == body
    assert message.input["x-abgate-sent-ns"].isdigit()
    enveloped = response(prediction=torchserve.envelope({"status": 200, "batch_size": 3}, answer)).SerializeToString()
    found = grpc.passed(Message(enveloped), OURS)
    assert found == (Message(response(prediction=answer).SerializeToString()), BatchInfo(3, -1, -1))
    refused = response(prediction=torchserve.envelope({"status": 400, "error": "rank"}, b"")).SerializeToString()
    with pytest.raises(UpstreamError, match="rank"):
        grpc.passed(Message(refused), OURS)
    if users:
        assert http.passing(USERS) == Message(body, {"content-type": "application/json"})
        assert dict(request.FromString(grpc.passing(USERS).body).input) == {"body": body}
        plain = response(prediction=answer).SerializeToString()
        found = grpc.passed(Message(plain), USERS)
        assert found is not None
        assert found[0].body == plain


def test_raw_bytes_and_forms_of_fields_are_written_anew() -> None:
    raw = HttpAsked(np.float32([1, 2]).tobytes(), "application/octet-stream", "m", "")
    field = b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"instances": [[1, 2]]}\r\n--x--\r\n'
    form = HttpAsked(field, "multipart/form-data; boundary=x", "m", "")
    for read in (raw, form):
        read.request(ONE)
        assert not read.passes(OURS)
    answer = form.answer(InferResponse("m", (Tensor("y", "FP32", np.float32([[0.5]])),)), ONE)
    assert answer.body == b'{"predictions":[[0.5]]}'
