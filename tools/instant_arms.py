"""One nginx that answers at once as every kind of arm does, over HTTP and gRPC: the arms of tools/translation_cost.py.

Here live the fixed answers (y FP32 [1, 10] of model m) and nginx's configuration; the answers are written by the gateway's own
codecs. gRPC answers are static files of framed messages, as in proxy_peers.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from proxy_peers import running

from backends.free_ports import free_ports
from gateway.protocol import oip_binary, oip_grpc, oip_rest, tfserving_grpc, torchserve
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, Message
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor

X = Tensor("x", "FP32", np.linspace(0, 1, 64, dtype="<f4").reshape(1, 64))
Y = Tensor("y", "FP32", np.linspace(0, 1, 10, dtype="<f4").reshape(1, 10))
REQUEST = InferRequest("m", (X,))
RESPONSE = InferResponse("m", (Y,), "1")
_STATUS = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]}
_METADATA = {
    "name": "m",
    "versions": ["1"],
    "platform": "none",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
}
_PREDICTIONS, _PING = (
    f"org.pytorch.serve.grpc.inference.InferenceAPIsService/{name}" for name in ("Predictions", "Ping")
)
_CONFIG = """worker_processes 1; daemon off; pid {work}/arms.pid; error_log {work}/arms.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; http2_max_concurrent_streams 1024;
client_body_temp_path {work}/body; open_file_cache max=50; open_file_cache_valid 600s;
map $http_x_abgate_format $torch {{ default /torch.bin; tfs-json /tfs.json; }}
server {{ listen 127.0.0.1:{http}; root {work}/http; default_type application/json;
location = /v1/models/m:predict {{ error_page 404 405 =200 /tfs.json; }}
location = /v1/models/m {{ try_files /status.json =404; }}
location = /ping {{ return 200 '{{"status": "Healthy"}}'; }}
location = /predictions/m {{ error_page 404 405 =200 $torch; }}
location = /torch.bin {{ add_header x-abgate-batch-size 1; add_header x-abgate-batch-rows 1; }}
location = /v2 {{ try_files /triton.json =404; }}
location /v2/ {{ try_files /model.json =404; }}
location = /v2/models/m/infer {{ error_page 404 405 =200 /oip.bin; }}
location = /oip.bin {{ add_header inference-header-content-length {head}; default_type application/octet-stream; }} }}
server {{ listen 127.0.0.1:{json}; root {work}/http; default_type application/json;
location = /v2 {{ try_files /mlserver.json =404; }}
location /v2/ {{ try_files /model.json =404; }}
location = /v2/models/m/infer {{ error_page 404 405 =200 /oip.json; }} }}
server {{ listen 127.0.0.1:{grpc} http2; root {work}/grpc; default_type application/grpc;
add_trailer grpc-status 0 always; location / {{ error_page 405 =200 $uri; }} }}
server {{ listen 127.0.0.1:{grpc_json} http2; root {work}/grpc_json; default_type application/grpc;
add_trailer grpc-status 0 always; location / {{ error_page 405 =200 $uri; }} }} }}
"""


@dataclass(frozen=True)
class Arms:
    """The ports: http of every kind (OIP with binary tensors), json (OIP without), grpc of every kind, grpc_json: a TorchServe
    that was asked in TF Serving's JSON, which over gRPC no header tells."""

    http: int
    json: int
    grpc: int
    grpc_json: int


def framed(message: bytes) -> bytes:
    """A message as gRPC puts it on the wire."""
    return b"\0" + struct.pack(">I", len(message)) + message


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _oip(binary: bool) -> Message:
    """An answer of an Open Inference server over REST."""
    asked = {"inputs": [], "parameters": {"binary_data_output": binary}}
    return oip_rest.InferAsked(json.dumps(asked).encode(), None, "m", "").answer(RESPONSE, None)


def _predicted(payload: bytes) -> bytes:
    """What our handler's answer becomes over TorchServe's gRPC."""
    envelope = torchserve.envelope({"status": 200, "batch_size": 1, "batch_rows": 1}, payload)
    made: bytes = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(
        prediction=envelope
    ).SerializeToString()
    return made


@contextmanager
def arms() -> Iterator[Arms]:
    """The answering nginx, on CPU 1."""
    http, json_port, grpc, grpc_json = free_ports(4)
    work = Path(tempfile.mkdtemp(prefix="abgate_bench_arms_"))
    work.chmod(0o755)
    oip = _oip(binary=True)
    binary = oip_binary.encode_response(RESPONSE)
    listed = json.dumps({"predictions": Y.data.tolist()}).encode()
    inferred = oip_grpc.InferAsked(oip_grpc.ARM.encode(REQUEST, _terms()).body, tfserving_grpc.Limits(1024, 1 << 28))
    ready = message_class("inference.ModelReadyResponse")(ready=True)
    status = message_class("tensorflow.serving.GetModelStatusResponse")()
    status.model_version_status.add(version=1, state=30)
    try:
        _write(
            work / "http",
            {
                "tfs.json": listed,
                "status.json": json.dumps(_STATUS).encode(),
                "torch.bin": binary,
                "triton.json": b'{"name":"triton","version":"2","extensions":["binary_tensor_data"]}',
                "mlserver.json": b'{"name":"mlserver","version":"1","extensions":[]}',
                "model.json": json.dumps(_METADATA).encode(),
                "oip.bin": oip.body,
                "oip.json": _oip(binary=False).body,
            },
        )
        messages = {
            "tensorflow.serving.PredictionService/Predict": tfserving_grpc.encode_response(RESPONSE, "serving_default"),
            "tensorflow.serving.ModelService/GetModelStatus": status.SerializeToString(),
            _PREDICTIONS: _predicted(binary),
            _PING: b"",
            "inference.GRPCInferenceService/ModelInfer": inferred.answer(RESPONSE, None).body,
            "inference.GRPCInferenceService/ModelReady": ready.SerializeToString(),
        }
        _write(work / "grpc", {path: framed(message) for path, message in messages.items()})
        _write(work / "grpc_json", {_PREDICTIONS: framed(_predicted(listed)), _PING: framed(b"")})
        head = oip.headers[oip_rest.HEAD_LENGTH]
        config = work / "arms.conf"
        config.write_text(
            _CONFIG.format(work=work, http=http, json=json_port, grpc=grpc, grpc_json=grpc_json, head=head)
        )
        with running(1, "nginx", "-c", str(config), port=http):
            yield Arms(http, json_port, grpc, grpc_json)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _terms() -> ArmTerms:
    return ArmTerms("m", "", "oip-binary", None)
