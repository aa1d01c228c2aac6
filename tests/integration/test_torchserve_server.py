"""The real TorchServe, started by the supervisor: every format over HTTP and gRPC, batches, faults, metrics, deaths."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tiny_torchserve import pack, write_pair, write_tiny

from backends.free_ports import free_ports
from backends.launch import Supervisor
from backends.readiness import get
from backends.spec import BackendSpec, Batching, ServedModel
from backends.unit import Event
from gateway.errors import UpstreamError
from gateway.protocol import oip_binary, torchserve
from gateway.protocol.tensors import InferRequest, Tensor

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]
READY_SECONDS = 90


@dataclass
class Running:
    """TorchServe under its supervisor, and what was told about it."""

    supervisor: Supervisor
    spec: BackendSpec
    events: list[Event]
    info: Path

    def wait_for(self, *whats: str) -> None:
        """Wait until these events came, in this order, from now on."""
        start, deadline = len(self.events), time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            told = iter([event.what for event in self.events[start:]])
            if all(what in told for what in whats):
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"expected {whats}, got {self.events[start:]}")

    def java(self) -> psutil.Process:
        return psutil.Process(self.supervisor.status()["backends"]["torchserve"]["pid"])


def free_addresses(count: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """TorchServe with the models tiny (a folder) and pair (a .mar), batches of up to 16 within 20 ms."""
    place = tmp_path_factory.mktemp("torchserve")
    pack(write_pair(place / "pair"), place / "pair.mar")
    models = (ServedModel("tiny", str(write_tiny(place / "tiny"))), ServedModel("pair", str(place / "pair.mar")))
    http_, grpc_, management, metrics = free_addresses(4)
    spec = BackendSpec(
        "torchserve",
        "torchserve",
        http_,
        grpc_,
        management,
        metrics,
        models,
        batching=Batching(16, 20),
        run_dir=str(place / "run"),
        log_dir=str(place / "logs"),
    )
    events: list[Event] = []
    supervisor = Supervisor([spec], info_file=place / "backends.json", on_event=events.append)
    supervisor.start()
    try:
        supervisor.wait_ready(READY_SECONDS)
        yield Running(supervisor, spec, events, place / "backends.json")
    finally:
        supervisor.stop()


def post(address: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def tagged(form: str) -> dict[str, str]:
    """The headers that tell our handler the body's form and when it was sent."""
    told = {"x-abgate-format": form, "x-abgate-sent-ns": str(time.time_ns())}
    return {"content-type": "application/octet-stream", **told}


def request_of(rows: list[list[float]]) -> InferRequest:
    return InferRequest("tiny", (Tensor("x", "FP32", np.array(rows, "<f4")),))


def test_the_specs_settings_are_in_force_for_folder_and_archive(running: Running) -> None:
    for model in ("tiny", "pair"):
        _, body = get(running.spec.management or "", f"/models/{model}")
        (version,) = json.loads(body)
        assert (version["batchSize"], version["maxBatchDelay"], version["minWorkers"]) == (16, 20, 1)
        assert [worker["status"] for worker in version["workers"]] == ["READY"]


@pytest.mark.parametrize(
    ("model", "form", "body", "expected"),
    [
        ("tiny", "tfs-json", '{"instances": [[1, 2, 3]]}', '{"predictions":[[6.0,2.0]]}'),
        ("tiny", "tfs-json", '{"inputs": {"x": [[0.1, 0, 0]]}}', '{"outputs":[[0.1,0.2]]}'),
        ("tiny", "tfs-json", '{"instances": [[NaN, 0, 0], [Infinity, 0, 0]]}', "NaN,Infinity"),
        ("tiny/1.0", "tfs-json", '{"instances": [[1, 2, 3]]}', '{"predictions":[[6.0,2.0]]}'),
        ("pair", "tfs-json", '{"instances": [{"a": [1, 2], "k": 3}]}', '{"predictions":[{"sum":[4.0,5.0],"next":4}]}'),
        (
            "tiny",
            "oip-json",
            '{"id": "9", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}',
            '{"id":"9","model_name":"tiny","model_version":"1.0","outputs":'
            '[{"name":"y","datatype":"FP32","shape":[1,2],"data":[6.0,2.0]}]}',
        ),
    ],
)
def test_json_over_http(running: Running, model: str, form: str, body: str, expected: str) -> None:
    status, headers, answer = post(running.spec.http, f"/predictions/{model}", body.encode(), tagged(form))
    assert status == 200
    if expected == "NaN,Infinity":
        found = json.loads(answer)["predictions"]
        assert np.array_equal(found, [[np.nan, np.nan], [np.inf, np.inf]], equal_nan=True)
    else:
        assert answer.decode() == expected
    assert headers["content-type"] == "application/json"
    assert torchserve.batch_info(headers).batch_size == 1


def test_binary_over_http_and_grpc_through_the_gateways_codec(running: Running) -> None:
    request = request_of([[1, 2, 3], [4, 5, 6]])
    payload = oip_binary.encode_request(request)
    status, headers, answer = post(running.spec.http, "/predictions/tiny", payload, tagged("oip-binary"))
    assert status == 200
    assert oip_binary.decode_response(answer).outputs[0].data.tolist() == [[6, 2], [15, 8]]
    told = torchserve.batch_info(headers)
    assert (told.batch_size, told.batch_rows) == (1, 2)
    assert 0 < told.queue_ns < 10**10
    with grpc.insecure_channel(running.spec.grpc) as channel:
        body, told = predictions(channel, payload, "oip-binary", version="1.0")
    assert oip_binary.decode_response(body).outputs[0].data.tolist() == [[6, 2], [15, 8]]
    assert (told.batch_size, told.batch_rows) == (1, 2)
    assert 0 < told.queue_ns < 10**10


def predictions(channel: grpc.Channel, payload: bytes, form: str, version: str = "") -> tuple[bytes, Any]:
    """One unary Predictions call, unwrapped; raises UpstreamError for an error in the envelope."""
    message = torchserve.encode_predictions("tiny", version, payload, "oip-binary", time.time_ns())
    if form != "oip-binary":  # the gateway itself sends only the binary form
        from gateway.protocol.descriptors import message_class

        parsed = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(message)
        parsed.input[form] = parsed.input.pop("oip-binary")
        message = parsed.SerializeToString()
    reply = channel.unary_unary(torchserve.PREDICTIONS)(message, timeout=30)
    return torchserve.decode_predictions(reply, "oip-binary")


@pytest.mark.parametrize(
    ("form", "body", "expected"),
    [
        ("tfs-json", b'{"instances": [[1, 2, 3]]}', {"predictions": [[6.0, 2.0]]}),
        (
            "oip-json",
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}',
            {
                "id": "",
                "model_name": "tiny",
                "model_version": "1.0",
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [6.0, 2.0]}],
            },
        ),
    ],
)
def test_json_over_grpc(running: Running, form: str, body: bytes, expected: dict) -> None:
    with grpc.insecure_channel(running.spec.grpc) as channel:
        answer, told = predictions(channel, body, form)
        with pytest.raises(UpstreamError, match="expected") as caught:
            predictions(channel, b'{"inputs": {"z": []}}', form)
    assert json.loads(answer) == expected
    assert told.batch_size == 1
    assert caught.value.kind == "upstream_rejected"


def test_sixteen_at_once_are_batched_and_the_bad_one_is_alone(running: Running) -> None:
    gate = threading.Barrier(16)

    def one(number: int) -> tuple[int, dict[str, str], bytes]:
        body = {"instances": [[number, 1, 1]] * (1 + number % 3)} if number != 5 else {"instances": [["five", 1, 1]]}
        gate.wait()
        return post(running.spec.http, "/predictions/tiny", json.dumps(body).encode(), tagged("tfs-json"))

    largest = 0
    for _ in range(3):  # a busy machine may spread the first try over several batches
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(16)))
        for number, (status, headers, body) in enumerate(answers):
            if number == 5:
                assert (status, json.loads(body)["error"]) == (400, "input 'x': element of type str, expected FP32")
            else:
                rows = [[number + 2.0, number * 2.0]] * (1 + number % 3)
                assert (status, json.loads(body)) == (200, {"predictions": rows})
            largest = max(largest, int(headers["x-abgate-batch-size"]))
    assert largest > 1


def test_curl_needs_no_header_and_bad_bodies_do_no_harm(running: Running) -> None:
    json_type = {"content-type": "application/json"}
    assert post(running.spec.http, "/predictions/tiny", b'{"instances":[[1,2,3]]}', json_type)[0] == 200
    for body, headers in ((b"{", json_type), (b'{"inputs": 5}', json_type), (b"a=b", {}), (b"", json_type)):
        status, _, answer = post(running.spec.http, "/predictions/tiny", body, headers)
        assert (status, bool(json.loads(answer)["error"])) == (400, True)


def oip_messages(place: Path) -> Any:
    """The class of a message of TorchServe's own OIP service, compiled from the proto inside its jar."""
    package = find_spec("ts")
    assert package is not None
    with zipfile.ZipFile(Path(package.origin or "").parent / "frontend" / "model-server.jar") as jar:
        jar.extract("proto/open_inference_grpc.proto", place)
    out, folder = place / "oip.fds", place / "proto"
    # a process of its own: beside TensorFlow's and torch's protobuf the compiler was seen to crash
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={out}"]
    subprocess.run([*protoc, str(folder / "open_inference_grpc.proto")], check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    package_name = "org.pytorch.serve.grpc.openinference"
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package_name}.{name}"))


def test_an_odd_call_on_torchserves_own_oip_service_does_not_kill_the_worker(running: Running, tmp_path: Path) -> None:
    message = oip_messages(tmp_path)
    request = message("ModelInferRequest")(model_name="tiny", model_version="1.0")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([1, 2, 3])
    (worker,) = {child.pid for child in running.java().children() if "9000" in " ".join(child.cmdline())}
    with grpc.insecure_channel(running.spec.grpc) as channel:
        call = channel.unary_unary(
            "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        good = call(request, timeout=30)
        tensor.name = "z"
        bad = call(request, timeout=30)
    assert list(good.outputs[0].contents.fp32_contents) == [6.0, 2.0]
    assert len(bad.outputs) == 0
    assert psutil.pid_exists(worker)


def test_batch_sizes_and_queue_time_are_exported(running: Running) -> None:
    def scraped() -> dict[str, float]:
        _, body = get(running.spec.metrics or "", "/metrics")
        lines = [
            line for line in body.decode().splitlines() if line.startswith("abgate_") and 'ModelName="pair"' in line
        ]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    def total(found: dict[str, float], name: str, label: str = "") -> float:
        return sum(value for key, value in found.items() if key.startswith(name + "{") and label in key)

    before = scraped()
    body = b'{"instances": [{"a": [1, 2], "k": 3}, {"a": [1, 2], "k": 3}]}'
    for _ in range(2):
        assert post(running.spec.http, "/predictions/pair", body, tagged("tfs-json"))[0] == 200
    wanted = {
        ("abgate_batch_size_bucket", 'le="1"'): 2,
        ("abgate_batch_size_sum", ""): 2,
        ("abgate_batch_size_count", ""): 2,
        ("abgate_batch_rows_sum", ""): 4,
        ("abgate_queue_ns_count", ""): 2,
    }

    def grown() -> dict[tuple[str, str], float]:
        after = scraped()
        return {key: total(after, *key) - total(before, *key) for key in wanted}

    deadline = time.monotonic() + 20
    while grown() != wanted and time.monotonic() < deadline:  # TorchServe reads them one by one from the worker's log
        threading.Event().wait(0.05)
    assert grown() == wanted
    after = scraped()
    assert total(after, "abgate_batch_size_bucket", 'le="+Inf"') == total(after, "abgate_batch_size_count")
    assert total(after, "abgate_queue_ns_sum") > total(before, "abgate_queue_ns_sum")


def test_a_killed_worker_and_a_killed_server_come_back_and_stop_leaves_nothing(running: Running) -> None:
    java = running.java()
    worker = java.children()[0]
    waiting = ThreadPoolExecutor(1).submit(running.wait_for, "unready", "ready")
    worker.kill()
    waiting.result()
    assert running.java().pid == java.pid
    waiting = ThreadPoolExecutor(1).submit(running.wait_for, "died", "restarting", "starting", "ready")
    java.kill()
    waiting.result()
    assert running.supervisor.status()["backends"]["torchserve"]["restarts"] == 1
    assert post(running.spec.http, "/predictions/tiny", b'{"instances":[[1,2,3]]}', tagged("tfs-json"))[0] == 200
    family = [running.java(), *running.java().children(recursive=True)]
    assert len(family) == 3
    started = time.monotonic()
    running.supervisor.stop()
    assert time.monotonic() - started < 10
    assert not [process for process in family if process.is_running()]
    assert running.events[-1].what == "stopped"
    told = json.loads(running.info.read_text())["backends"]["torchserve"]
    assert (told["state"], told["pid"]) == ("stopped", None)
