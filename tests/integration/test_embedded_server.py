"""The stand-in as a process on free ports: REST and gRPC answers, TF Serving's errors, versions, batching, drain.

Two processes for the whole file: one with odd models (`served`), one that batches (`batching`).
"""

import contextlib
import functools
import gzip
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import embedded_models as models

pytestmark = pytest.mark.servers

CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def eventually(check, seconds=120.0):
    """Return check()'s first true answer; fail when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = check()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"still not true after {seconds} s")


class Server:
    """One process of the stand-in."""

    def __init__(self, folder, *flags):
        self.log = folder / "server.log"
        argv = [sys.executable, "-m", "backends.embedded", "--port=-1", "--rest_api_port=-1", *flags]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        self.grpc_port = self._port("gRPC")
        self.rest_port = self._port("REST")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=CHANNEL)

    def _port(self, name):
        def logged():
            assert self.process.poll() is None, self.log.read_text()
            return re.search(rf"{name} at 127\.0\.0\.1:(\d+)", self.log.read_text())

        return int(eventually(logged)[1])

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.headers["server"].startswith("abgate-embedded/2.")
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()

    def predict(self, name, body, where=""):
        return self.call("POST", f"/v1/models/{name}{where}:predict", json.dumps(body))

    def states(self, name):
        status, answer = self.call("GET", f"/v1/models/{name}")
        if status != 200:
            return {}
        return {int(v["version"]): v["state"] for v in answer["model_version_status"]}

    def wait_for(self, *names):
        for name in names:
            eventually(lambda name=name: "AVAILABLE" in self.states(name).values())

    def stop(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """SavedModels of every kind; TensorFlow is imported here once."""
    root = tmp_path_factory.mktemp("models")
    models.save_line(root / "line" / "1", 0.5, 2.0)
    models.save_line(root / "line" / "2", 0.5, 3.0)
    models.save_line(root / "rows" / "1", 2.0, 0.0, columns=4)
    models.save_line(root / "threes" / "1", 3.0, 0.0, columns=4)
    models.save_convolution(root / "conv" / "1")
    models.save_many(root / "many" / "1")
    models.save_reference_variable(root / "reference" / "1", 5.0)
    shutil.copytree(root / "line" / "1", root / "moving" / "1")
    shutil.copytree(root / "line" / "1", root / "warm" / "1")
    models.save_warm_up(root / "warm" / "1", [np.float32([1]), np.float32([1, 2]), np.float32([3])])
    shutil.copytree(root / "line" / "1", root / "cold" / "1")
    models.save_warm_up(root / "cold" / "1", [np.int32([1])])
    return root


def config(root, *names, **extra):
    """A model_config_list; `extra` adds fields to a model's entry."""
    entries = (f'config {{ name: "{n}" base_path: "{root / n}" {extra.get(n, "")} }}' for n in names)
    return "model_config_list { " + " ".join(entries) + " }"


@pytest.fixture(scope="module")
def served(saved, tmp_path_factory):
    """The unbatched process, all its models available."""
    folder = tmp_path_factory.mktemp("served")
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "missing" value: 9 }'
    names = ("line", "conv", "many", "reference", "moving", "warm")
    (folder / "models").write_text(config(saved, *names, "cold", line="model_version_policy { all {} } " + labels))
    (folder / "monitoring").write_text("prometheus_config { enable: true }")
    server = Server(
        folder,
        f"--model_config_file={folder / 'models'}",
        f"--monitoring_config_file={folder / 'monitoring'}",
        "--file_system_poll_wait_seconds=0.1",
        "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=2",
        "--drain_seconds=25",
    )
    try:
        server.wait_for(*names)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def batching(saved, tmp_path_factory):
    """The batching process: two models of the same shape and name of signature, batches of up to 8."""
    folder = tmp_path_factory.mktemp("batching")
    (folder / "models").write_text(config(saved, "rows", "threes", "reference", "conv"))
    (folder / "monitoring").write_text("prometheus_config { enable: true }")
    (folder / "batching").write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 5000 } num_batch_threads { value: 2 }"
        " max_enqueued_batches { value: 100 } allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    )
    server = Server(
        folder,
        f"--model_config_file={folder / 'models'}",
        f"--monitoring_config_file={folder / 'monitoring'}",
        "--enable_batching",
        f"--batching_parameters_file={folder / 'batching'}",
        "--grpc_max_threads=64",
        "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=5",
    )
    try:
        server.wait_for("rows", "threes", "reference", "conv")
        yield server
    finally:
        server.stop()


# REST answers


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/models/line:predict", {"instances": [1, 2, 5]}, {"predictions": [3.5, 4.0, 5.5]}),
        ("/v1/models/line:predict", {"inputs": [1, 2]}, {"outputs": [3.5, 4.0]}),
        ("/v1/models/line:predict", {"inputs": {"x": [[1], [2]]}}, {"outputs": [[3.5], [4.0]]}),
        ("/V1/Models/line/Versions/1:predict", {"instances": [1]}, {"predictions": [2.5]}),
        ("/v1/models/line/labels/stable:predict", {"instances": [1]}, {"predictions": [2.5]}),
        ("/v1/models/l%69ne/labels/st%61ble:predict", {"instances": [{"x": 1}]}, {"predictions": [2.5]}),
        ("/v1/models/line:predict?query=ignored", {"instances": [1]}, {"predictions": [3.5]}),
        ("/v1/models/reference:predict", {"instances": [3]}, {"predictions": [15.0]}),
        (
            "/v1/models/many:predict",
            {"instances": [{"a": [1, 2], "b": 3}, {"b": 4, "a": [5, 6]}]},
            {"predictions": [{"sum": [4.0, 5.0], "next": 4}, {"sum": [9.0, 10.0], "next": 5}]},
        ),
        (
            "/v1/models/many:predict",
            {"inputs": {"a": [[1, 2]], "b": [3]}},
            {"outputs": {"sum": [[4.0, 5.0]], "next": [4]}},
        ),
        ("/v1/models/many:predict", {"signature_name": "total", "inputs": [1, 2]}, {"outputs": 3.0}),
        (
            "/v1/models/many:predict",
            {"signature_name": "words", "instances": ["é", {"b64": "AAE="}]},
            {
                "predictions": [
                    {"text": "é", "raw_bytes": {"b64": "w6k="}},
                    {"text": "\x00\x01", "raw_bytes": {"b64": "AAE="}},
                ]
            },
        ),
    ],
)
def test_predict_over_rest(served, path, body, answer):
    assert served.call("POST", path, json.dumps(body)) == (200, answer)


def test_nan_and_infinity_go_both_ways(served):
    status, answer = served.call("POST", "/v1/models/line:predict", b'{"instances": [NaN, Infinity, -Infinity, 1e39]}')
    assert status == 200
    np.testing.assert_array_equal(answer["predictions"], [np.nan, np.inf, -np.inf, np.inf])


def test_gzip_bodies_are_accepted(served):
    path, body = "/v1/models/line:predict", b'{"instances": [1]}'
    packed = {"content-encoding": "gzip"}
    assert served.call("POST", path, gzip.compress(body), packed) == (200, {"predictions": [3.5]})
    assert served.call("POST", path, gzip.compress(body)[:-4], packed)[0] == 400
    assert served.call("POST", path, body, packed)[0] == 400
    assert served.call("POST", path, body, {"content-encoding": "br"})[0] == 400


def test_status_lists_versions_newest_first(served):
    ok = {"error_code": "OK", "error_message": ""}
    newest = {"version": "2", "state": "AVAILABLE", "status": ok}
    oldest = {"version": "1", "state": "AVAILABLE", "status": ok}
    assert served.call("GET", "/v1/models/line") == (200, {"model_version_status": [newest, oldest]})
    assert served.call("GET", "/v1/models/line/versions/1") == (200, {"model_version_status": [oldest]})
    assert served.call("GET", "/v1/models/line/labels/stable") == (200, {"model_version_status": [oldest]})


def test_metadata_names_tensors_types_and_shapes(served):
    status, answer = served.call("GET", "/v1/models/conv/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "conv", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    sizes = [{"size": size, "name": ""} for size in ("-1", "8", "8", "1")]
    pixels = signature["inputs"]["pixels"]
    assert (pixels["dtype"], pixels["tensor_shape"]) == ("DT_FLOAT", {"dim": sizes, "unknown_rank": False})
    assert signature["outputs"]["output_0"]["tensor_shape"]["dim"][1]["size"] == "10"
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert served.call("GET", "/v1/models/line/versions/1/metadata")[1]["model_spec"]["version"] == "1"


MALFORMED = "Malformed request: "
NO_X = (
    "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named"
)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/models/foo:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(foo)"),
        (
            "POST",
            "/v1/models/line/versions/50:predict",
            '{"instances": [1]}',
            404,
            "Servable not found for request: Specific(line, 50)",
        ),
        (
            "POST",
            "/v1/models/line/labels/X:predict",
            '{"instances": [1]}',
            400,
            "Unrecognized servable version label: X",
        ),
        (
            "POST",
            "/v1/models/line/labels/missing:predict",
            '{"instances": [1]}',
            400,
            "Unrecognized servable version label: missing",
        ),
        (
            "POST",
            "/v1/models/line/versions/18446744073709551615:predict",
            "{}",
            400,
            "Failed to convert version: 18446744073709551615 to numeric.",
        ),
        ("POST", "/v1/foo", "{}", 400, MALFORMED + "POST /v1/foo"),
        ("POST", "/v1/models/line:PREDICT", "{}", 400, MALFORMED + "POST /v1/models/line:PREDICT"),
        ("GET", "/v1/models/line:predict", None, 400, MALFORMED + "GET /v1/models/line:predict"),
        ("DELETE", "/v1/models/line", None, 400, MALFORMED + "DELETE /v1/models/line"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/foo", None, 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/line/versions/7", None, 404, "Could not find version 7 of model line"),
        ("GET", "/v1/models/foo/metadata", None, 404, "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/line:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", "/v1/models/foo:predict", "this is not json", 400, "JSON Parse error: Invalid value. at offset: 0"),
        (
            "POST",
            "/v1/models/line:predict",
            '{"signature_name": "nope", "instances": [1]}',
            400,
            'Serving signature name: "nope" not found in signature def',
        ),
        ("POST", "/v1/models/line:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "/v1/models/line:predict", '{"instances": [{"y": 1}]}', 400, NO_X + " input: y"),
        (
            "POST",
            "/v1/models/many:predict",
            '{"signature_name": "half", "inputs": [1]}',
            501,
            "Conversion of JSON Value: 1 to type: half",
        ),
        (
            "POST",
            "/v1/models/many:predict",
            '{"signature_name": "total", "instances": [1]}',
            400,
            "Tensor name: y has no shape information ",
        ),
        (
            "POST",
            "/v1/models/line:classify",
            "{}",
            400,
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        ("POST", "/v1/models/line:regress", '{"examples": [{}]}', 501, "the stand-in serves predict only, not regress"),
    ],
)
def test_refusals_over_rest(served, method, path, body, status, message):
    assert served.call(method, path, body) == (status, {"error": message})


def test_other_paths_are_404_and_not_json(served):
    assert served.call("GET", "/metrics") == (404, "Not Found\n")


@pytest.mark.parametrize("shape", [(2, 8, 8), (64,), (), (1, 2, 8, 8, 1)])
def test_a_wrong_rank_is_an_error_and_not_the_end(served, batching, shape):
    for server in (served, batching):
        status, answer = server.predict("conv", {"inputs": np.full(shape, 0.5).tolist()})
        assert (status, bool(answer["error"])) == (400, True)
        status, answer = server.predict("conv", {"instances": np.full((2, 8, 8, 1), 0.5).tolist()})
        assert status == 200
        assert np.allclose(np.sum(answer["predictions"], axis=1), 1.0)
        assert server.process.poll() is None


# HTTP framing


def raw(server, *pieces):
    """Send pieces, close the sending side, return everything received."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as stream:
        for piece in pieces:
            stream.sendall(piece)
        stream.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := stream.recv(65536):
            received += chunk
    return received


POST = b"POST /v1/models/line:predict HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ((POST + b'Content-Length: 18\r\n\r\n{"instances": [1]}',), [b"200"]),
        ((POST + b"Content-Length: 18\r\n\r\n", b'{"instances"', b": [1]}"), [b"200"]),
        ((POST + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"in\r\ne\r\nstances": [1]}\r\n0\r\n\r\n',), [b"200"]),
        ((2 * (POST + b'Content-Length: 18\r\n\r\n{"instances": [1]}'),), [b"200", b"200"]),
        ((POST + b'Expect: 100-continue\r\nContent-Length: 18\r\n\r\n{"instances": [1]}',), [b"100", b"200"]),
        ((b"GET /v1/models/line HTTP/1.0\r\n\r\n",), [b"200"]),
        ((b"GET /v1/models/line HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",), [b"200"]),
        ((b"nonsense\r\n\r\n",), [b"400"]),
        ((POST + b"Content-Length: 9999999999999\r\n\r\n",), [b"413"]),
        ((POST + b"X: " + b"a" * 70_000,), [b"431"]),
        ((POST + b"Content-Length: 18\r\n\r\nhalf",), []),
    ],
)
def test_http_framing(served, pieces, answers):
    received = raw(served, *pieces)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == answers


# gRPC


@functools.cache
def stock():
    """The stock client's messages and stubs (the import brings TensorFlow, which `saved` has imported quietly)."""
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    class Stock:
        PredictRequest = predict_pb2.PredictRequest
        MetadataRequest = get_model_metadata_pb2.GetModelMetadataRequest
        SignatureDefMap = get_model_metadata_pb2.SignatureDefMap
        StatusRequest = get_model_status_pb2.GetModelStatusRequest
        Prediction = prediction_service_pb2_grpc.PredictionServiceStub
        Models = model_service_pb2_grpc.ModelServiceStub

    return Stock


def request(name, filter_=(), version=None, label=None, signature="", **tensors):
    """A PredictRequest as the stock client builds it."""
    made = stock().PredictRequest(output_filter=filter_)
    made.model_spec.name = name
    made.model_spec.signature_name = signature
    if version is not None:
        made.model_spec.version.value = version
    if label is not None:
        made.model_spec.version_label = label
    for alias, value in tensors.items():
        made.inputs[alias].CopyFrom(models.tensorflow().make_tensor_proto(value))
    return made


def test_predict_over_grpc_answers_typed_values(served):
    stub = stock().Prediction(served.channel)
    answer = stub.Predict(request("line", x=np.array([1, 2, 5], np.float32)))
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("line", 2, "serving_default")
    assert list(answer.outputs["y"].float_val) == [3.5, 4.0, 5.5]
    assert answer.outputs["y"].tensor_content == b""
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [3]
    for chosen in ({"version": 1}, {"label": "stable"}):
        answer = stub.Predict(request("line", x=np.float32([1]), **chosen))
        assert (list(answer.outputs["y"].float_val), answer.model_spec.version.value) == ([2.5], 1)


def test_tensors_with_fewer_values_repeat_the_last(served):
    made = request("line")
    tensor = made.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 4
    tensor.float_val.extend([2, 4])
    assert list(stock().Prediction(served.channel).Predict(made).outputs["y"].float_val) == [4, 5, 5, 5]


def test_every_element_type_of_the_many_model(served):
    stub = stock().Prediction(served.channel)
    pair = {"a": np.float32([[1, 2]]), "b": np.int32([3])}
    answer = stub.Predict(request("many", **pair))
    assert (list(answer.outputs["sum"].float_val), list(answer.outputs["next"].int_val)) == ([4, 5], [4])
    assert list(stub.Predict(request("many", filter_=["next"], **pair)).outputs) == ["next"]
    half = stub.Predict(request("many", signature="half", x=np.float16([1.5]))).outputs["y"]
    assert np.array(half.half_val, np.uint16).view(np.float16).tolist() == [3.0]
    words = stub.Predict(request("many", signature="words", s=[b"\x00\xff"])).outputs
    assert list(words["text"].string_val) == [b"\x00\xff"]


def test_a_large_message_goes_both_ways(served):
    values = np.random.default_rng(0).standard_normal(2_000_000, dtype=np.float32)
    answer = stock().Prediction(served.channel).Predict(request("line", x=values))
    np.testing.assert_array_equal(
        np.array(answer.outputs["y"].float_val, np.float32), np.float32(0.5) * values + np.float32(3)
    )


BAD = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"name": ""}, BAD, "ModelSpec has no name specified."),
        ({"name": "x"}, MISSING, "Servable not found for request: Latest(x)"),
        ({"name": "line", "version": 7}, MISSING, "Servable not found for request: Specific(line, 7)"),
        ({"name": "line", "label": "X"}, BAD, "Unrecognized servable version label: X"),
        (
            {"name": "line", "signature": "nope"},
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            {"name": "line"},
            BAD,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            {"name": "line", "y": np.float32([1])},
            BAD,
            "input tensor alias not found in signature: y. Inputs expected to be in the set {x}.",
        ),
        (
            {"name": "line", "filter_": ["y2"], "x": np.float32([1])},
            BAD,
            "output tensor alias not found in signature: y2 Outputs expected to be in the set {y}.",
        ),
        (
            {"name": "line", "filter_": ["y", "y"], "x": np.float32([1])},
            BAD,
            "duplicate output tensor alias: y",
        ),
        (
            {"name": "line", "x": np.int32([1])},
            BAD,
            "Type mismatch for input x: actual int32 vs. expect float",
        ),
    ],
)
def test_refusals_over_grpc(served, arguments, code, message):
    with pytest.raises(grpc.RpcError) as error:
        stock().Prediction(served.channel).Predict(request(**arguments))
    assert (error.value.code(), error.value.details()) == (code, message)


def test_broken_tensors_and_wrong_ranks_over_grpc(served):
    stub = stock().Prediction(served.channel)
    made = request("line", x=np.float32([1, 2]))
    made.inputs["x"].tensor_shape.dim[0].size = 3
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(made)
    assert (error.value.code(), error.value.details()) == (BAD, "tensor parsing error: x")
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request("conv", pixels=np.zeros((2, 8, 8), np.float32)))
    assert error.value.code() is BAD
    assert served.process.poll() is None


def test_metadata_and_status_over_grpc(served):
    prediction, status = stock().Prediction(served.channel), stock().Models(served.channel)
    made = stock().MetadataRequest()
    made.model_spec.name = "line"
    with pytest.raises(grpc.RpcError, match="must specify at least one metadata_field"):
        prediction.GetModelMetadata(made)
    made.metadata_field.append("signature_def")
    answer = prediction.GetModelMetadata(made)
    signatures = stock().SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert list(signatures.signature_def["serving_default"].inputs) == ["x"]
    made.metadata_field.append("foo")
    with pytest.raises(grpc.RpcError, match="Metadata field foo is not supported"):
        prediction.GetModelMetadata(made)
    with pytest.raises(grpc.RpcError, match="Missing ModelSpec"):
        status.GetModelStatus(stock().StatusRequest())
    asked = stock().StatusRequest()
    asked.model_spec.name = "line"
    assert [(s.version, s.state) for s in status.GetModelStatus(asked).model_version_status] == [(2, 30), (1, 30)]
    asked.model_spec.version.value = 5
    with pytest.raises(grpc.RpcError, match="Could not find version 5 of model line"):
        status.GetModelStatus(asked)


# versions


def test_versions_appear_and_disappear(served, saved):
    base = saved / "moving"
    assert served.predict("moving", {"instances": [1]}) == (200, {"predictions": [2.5]})
    shutil.copytree(saved / "line" / "2", saved / "staging")
    os.rename(saved / "staging", base / "2")
    answers = set()

    def newer():
        status, answer = served.predict("moving", {"instances": [1]})
        answers.add((status, str(answer)))
        return answer == {"predictions": [3.5]}

    eventually(newer)
    assert {status for status, _ in answers} == {200}, "a request failed while the version changed"
    eventually(lambda: served.states("moving") == {2: "AVAILABLE", 1: "END"})
    shutil.rmtree(base / "2")
    eventually(lambda: served.states("moving") == {2: "END", 1: "AVAILABLE"})
    assert served.predict("moving", {"instances": [1]}) == (200, {"predictions": [2.5]})
    (base / "3").mkdir()
    eventually(lambda: served.states("moving").get(3) == "END")
    answer = served.call("GET", "/v1/models/moving/versions/3")[1]
    assert answer["model_version_status"][0]["status"]["error_code"] != "OK"
    assert served.predict("moving", {"instances": [1]}) == (200, {"predictions": [2.5]})


# metrics and batching


def samples(server):
    """Scrape the metrics: {"name{labels}": value}."""
    status, text = server.call("GET", "/monitoring/prometheus/metrics")
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_requests_are_counted_by_status(served):
    before = samples(served)
    served.predict("line", {"instances": [1]})
    served.predict("line", {"instances": ["x"]})
    served.predict("no%20such%20model", {"instances": [1]})
    after = samples(served)
    count = ':tensorflow:serving:request_count{{model_name="{}",status="{}"}}'.format
    for name in (count("line", "OK"), count("line", "INVALID_ARGUMENT")):
        assert after[name] == before.get(name, 0) + 1
    assert not any("no such model" in name for name in after)
    latency = ':tensorflow:serving:request_latency_count{model_name="line",API="Predict",entrypoint="REST"}'
    assert after[latency] == before[latency] + 1


def test_recorded_warm_up_requests_run_before_a_version_is_available(served):
    assert (
        samples(served)[':tensorflow:serving:runtime_latency_count{model_name="warm",API="Predict",runtime="TF1"}'] == 3
    )
    eventually(lambda: served.states("cold") == {1: "END"})
    status = served.call("GET", "/v1/models/cold")[1]["model_version_status"][0]["status"]
    assert (status["error_code"], "actual int32 vs. expect float" in status["error_message"]) == (
        "INVALID_ARGUMENT",
        True,
    )


def batched_call(server, client, model, factor):
    """20 requests of 1 to 3 rows, over REST or gRPC; return the number of rows and of wrong rows."""
    random = np.random.default_rng(client)
    stub = stock().Prediction(server.channel)
    sent = wrong = 0
    for _ in range(20):
        rows = random.integers(1, 4)
        x = random.integers(-1000, 1000, (rows, 4)).astype(np.float32)
        if client % 4 < 2:
            status, answer = server.predict(model, {"instances": x.tolist()})
            assert status == 200, answer
            y = np.array(answer["predictions"])
        else:
            y = np.array(stub.Predict(request(model, x=x)).outputs["y"].float_val).reshape(-1, 4)
        sent += rows
        wrong += int((y != factor * x).any(axis=1).sum())
    return sent, wrong


def test_two_models_batch_32_clients_and_stay_apart(batching):
    before = samples(batching)
    with ThreadPoolExecutor(32) as pool:
        jobs = [
            pool.submit(batched_call, batching, client, *(("rows", 2) if client % 2 else ("threes", 3)))
            for client in range(32)
        ]
        results = [job.result() for job in jobs]
    sent, wrong = (sum(column) for column in zip(*results, strict=True))
    assert wrong == 0
    after = samples(batching)

    def delta(name):
        return sum(value - before.get(key, 0) for key, value in after.items() if key.startswith(prefix + name))

    prefix = ":tensorflow:serving:batching_session:"
    batches, run = delta("processed_batch_size_count"), delta("processed_batch_size_sum")
    assert delta("input_batch_size_count") == delta("queuing_latency_count") == 32 * 20
    assert delta("input_batch_size_sum") == sent
    assert delta("wrapped_run_count") == batches == delta("padding_size_count")
    assert run - delta("padding_size_sum") == sent, "rows run without padding are the rows sent"
    assert set(padded_sizes(after)) <= {"4", "8"}
    assert sent / batches > 1.5, "requests were not batched together"


def padded_sizes(scraped):
    return re.findall(r'padding_size_count\{execution_batch_size="(\d+)"', "\n".join(scraped))


def test_the_thread_flags_size_tensorflows_pools(batching):
    names = [path.read_text().strip() for path in Path(f"/proc/{batching.process.pid}/task").glob("*/comm")]
    # one pool of 5, one of 1, and up to two threads TensorFlow keeps for itself; unset, both would have a thread per core
    assert 5 <= names.count("tf_Compute") <= 8


def test_old_reference_variables_are_batched_too(batching):
    assert batching.predict("reference", {"instances": [1, 2]}) == (200, {"predictions": [5.0, 10.0]})


def test_too_many_rows_for_a_batch_are_refused(batching):
    status, answer = batching.predict("rows", {"instances": [[1, 2, 3, 4]] * 9})
    assert status == 400
    assert "Task size 9 is larger than maximum input batch size 8" in answer["error"]
    assert batching.predict("rows", {"inputs": []}) == (200, {"outputs": []})
    assert batching.predict("rows", {"instances": [[1, 2, 3, 4]] * 8})[0] == 200


# start and stop


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--port=0", "--rest_api_port={rest}"], 1, "Address already in use"),
        (["--port={grpc}"], 1, "Address already in use"),
        (
            ["--port=-1", "--enable_batching", "--batching_parameters_file=/nonexistent"],
            3,
            "/nonexistent: cannot be read",
        ),
        (["--port=-1", "--batching_parameters_file=x"], 3, "without --enable_batching"),
    ],
)
def test_a_start_that_cannot_work_is_refused_before_tensorflow_is_loaded(served, saved, flags, code, message):
    filled = [flag.format(rest=served.rest_port, grpc=served.grpc_port) for flag in flags]
    argv = [sys.executable, "-m", "backends.embedded", f"--model_base_path={saved / 'line'}", *filled]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, message in ended.stderr) == (code, True), ended.stderr


def test_sigterm_answers_what_is_in_flight_and_exits_0(served):
    """The last test of the `served` process: it ends it."""
    turns = 1500
    work = json.dumps({"signature_name": "work", "inputs": [turns]})
    idle = http.client.HTTPConnection("127.0.0.1", served.rest_port, timeout=20)
    busy = http.client.HTTPConnection("127.0.0.1", served.rest_port, timeout=60)
    with contextlib.closing(idle), contextlib.closing(busy):
        busy.request("POST", "/v1/models/many:predict", work)
        stub = stock().Prediction(served.channel)
        call = stub.Predict.future(request("many", signature="work", turns=np.int32([turns])))
        # answered after the two above were taken: the server takes connections, and calls of one channel, in order
        idle.request("GET", "/v1/models/many")
        idle.getresponse().read()
        asked = stock().StatusRequest()
        asked.model_spec.name = "many"
        stock().Models(served.channel).GetModelStatus(asked)
        assert not call.done()
        served.process.send_signal(signal.SIGTERM)
        response = busy.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"outputs": [turns]})
        assert list(call.result(30).outputs["y"].int_val) == [turns]
        assert served.process.wait(30) == 0
        assert idle.sock.recv(1) == b"", "the idle connection was not closed"
    with pytest.raises(ConnectionRefusedError):
        served.predict("line", {"instances": [1]})
