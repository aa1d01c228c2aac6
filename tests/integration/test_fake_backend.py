"""The fake backend answers rightly when told to, misbehaves as told, and remembers what it saw."""

from __future__ import annotations

import http.client
import json
import struct
import subprocess
import sys

import grpc
import numpy as np
import pytest

from backends.fake import FakeBackend
from backends.fake.behaviour import Shape
from backends.fake.messages import message
from backends.fake.rpc import PREDICT, PREDICTIONS


def post(
    address: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("POST", path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"instances": [[1, 2], [3, 4]]}', {"predictions": [[3.0, 4.0], [7.0, 8.0]]}),
        ('{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', {"predictions": [[3.0, 4.0], [7.0, 8.0]]}),
        ('{"inputs": [[1, 2], [3, 4]]}', {"outputs": [[3.0, 4.0], [7.0, 8.0]]}),
        ('{"inputs": {"x": [[1, 2]]}}', {"outputs": [[3.0, 4.0]]}),
    ],
)
def test_rest_predict_answers_follow_from_the_request(body: str, expected: dict) -> None:
    with FakeBackend(shape=Shape(width=2)) as fake:
        status, answer, _ = post(fake.http, "/v1/models/m:predict", body.encode())
    assert (status, json.loads(answer)) == (200, expected)
    assert [(seen.path, seen.body.decode()) for seen in fake.behaviour.last] == [("/v1/models/m:predict", body)]


def test_torchserve_binary_answers_tell_batch_and_queue() -> None:
    rows = np.array([[1, 2], [3, 4]], "<f4")
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = struct.pack("<I", len(head)) + head + rows.tobytes()
    with FakeBackend() as fake:
        headers = {"x-abgate-format": "oip-binary", "x-abgate-sent-ns": "1"}
        status, answer, told = post(fake.http, "/predictions/m", body, headers)
        with grpc.insecure_channel(fake.grpc) as channel:
            request = message("PredictionsRequest")(model_name="m", input={"oip-binary": body})
            reply = channel.unary_unary(PREDICTIONS)(request.SerializeToString(), timeout=5)
    prediction = message("PredictionResponse").FromString(reply).prediction
    assert (status, told["x-abgate-batch-size"]) == (200, "1")
    assert int(told["x-abgate-queue-ns"]) > 0
    assert np.frombuffer(answer[-8:], "<f4").tolist() == [3.0, 7.0]
    assert prediction[:4] == b"ABG1"
    assert prediction.endswith(answer[-8:])
    assert fake.behaviour.report()["seen"] == 2


def test_grpc_predict_reads_loose_values_and_contents() -> None:
    request = message("PredictRequest")()
    request.model_spec.name = "m"
    tensor = request.inputs["x"]
    tensor.dtype = 1
    for size in (2, 2):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend([1, 2, 3, 4])
    with FakeBackend() as fake, grpc.insecure_channel(fake.grpc) as channel:
        call = channel.unary_unary(PREDICT)
        loose = message("PredictResponse").FromString(call(request.SerializeToString(), timeout=5))
        tensor.tensor_content = np.array([1, 2, 3, 5], "<f4").tobytes()
        contents = message("PredictResponse").FromString(call(request.SerializeToString(), timeout=5))
    assert list(loose.outputs["output_0"].float_val) == [3.0, 7.0]
    assert list(contents.outputs["output_0"].float_val) == [3.0, 8.0]


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("reset", ConnectionResetError),
        ("half", http.client.IncompleteRead),
        ("noise", http.client.BadStatusLine),
    ],
)
def test_broken_connections(mode: str, fault: type[Exception]) -> None:
    with FakeBackend(mode=mode) as fake, pytest.raises(fault):
        post(fake.http, "/v1/models/m:predict", b'{"instances": [[1, 2, 3, 4, 5, 6]]}')


def test_modes_change_while_running_and_for_a_number_of_requests() -> None:
    with FakeBackend() as fake:
        assert post(fake.http, "/__fake", b'{"mode": "503", "times": 1}')[0] == 200
        answers = [post(fake.http, "/v1/models/m:predict", b'{"instances": [[1]]}')[0] for _ in range(2)]
        assert answers == [503, 200]
        assert post(fake.http, "/__fake", b'{"mode": "odd"}')[0] == 400
        fake.behaviour.set("500")
        with grpc.insecure_channel(fake.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(PREDICT)(b"", timeout=5)
        assert caught.value.code() == grpc.StatusCode.INTERNAL


def test_an_idle_connection_is_closed_after_its_promise() -> None:
    with FakeBackend(mode="close-idle", delay_ms=1) as fake:
        host, port = fake.http.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        connection.request("POST", "/v1/models/m:predict", b'{"instances": [[1]]}')
        assert connection.getresponse().read() == b'{"predictions": [[1.0]]}'
        assert connection.sock.recv(1) == b""
        connection.close()


def test_a_hanging_request_is_let_go_when_the_mode_changes() -> None:
    with FakeBackend(mode="hang") as fake, grpc.insecure_channel(fake.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(PREDICT)(b"", timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        fake.behaviour.set("ok")
        assert post(fake.http, "/v1/models/m:predict", b'{"instances": [[1]]}')[0] == 200


def test_as_a_process() -> None:
    script = json.dumps({"models": ["m"], "width": 2, "mode": "slow", "delay_ms": 1})
    argv = [sys.executable, "-m", "backends.fake", "--script", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            addresses = json.loads(process.stdout.readline())
            answer = post(addresses["http"], "/v1/models/m:predict", b'{"instances": [[1]]}')
            unknown = post(addresses["http"], "/v1/models/other:predict", b'{"instances": [[1]]}')
        finally:
            process.terminate()
        assert process.wait(10) == 0
    assert (answer[:2], unknown[0]) == ((200, b'{"predictions": [[1.0, 2.0]]}'), 404)
