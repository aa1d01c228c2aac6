"""The servers a proxy's cost is measured with: backends that answer at once, and nginx, HAProxy and Envoy in front of them.

Here live their configurations and their start and end; what is measured, and how, is proxy_cost's. Every port is a free one, every
file in a temporary folder, and each process ends with its `with` block.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.free_ports import free_ports

HTTP_REPLY = '{"predictions":[[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0]]}'
HTTP_STATUS = (
    '{"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}'
)
PREDICT = "/v1/models/m:predict"
GRPC_PREDICT = "tensorflow.serving.PredictionService/Predict"
GRPC_STATUS = "tensorflow.serving.ModelService/GetModelStatus"


@dataclass(frozen=True)
class Proxy:
    """One thing to measure: where it listens and which processes it consists of."""

    name: str
    url: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Backends:
    """Addresses of the servers behind the proxies, and the folder of their files."""

    http: int
    grpc: int
    work: Path


# Requests and replies, encoded by hand: no TensorFlow needed


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _tensor(values: int) -> bytes:
    content = struct.pack(f"<{values}f", *[0.5] * values)
    shape = _field(2, b"\x08\x01") + _field(2, b"\x08" + _varint(values))
    return b"\x08\x01" + _field(2, shape) + _field(4, content)


def _frame(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def predict_request() -> bytes:
    """A framed PredictRequest: model "m", input "x", FP32 [1, 64]."""
    return _frame(_field(1, _field(1, b"m")) + _field(2, _field(1, b"x") + _field(2, _tensor(64))))


def predict_response() -> bytes:
    """A framed PredictResponse: output "y", FP32 [1, 10]."""
    return _frame(_field(1, _field(1, b"y") + _field(2, _tensor(10))))


# Processes


@contextmanager
def running(cpu: int, *command: str, port: int | None = None, env: dict[str, str] | None = None) -> Iterator[int]:
    """A process pinned to a CPU until the block ends; waits until its port answers. Gives its pid."""
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=None if env is None else os.environ | env,
    )
    try:
        if port is not None:
            await_port(port, process)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Wait until something accepts on the port; RuntimeError when the process ends first or the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


# The peers

_NGINX = """worker_processes 1; daemon off; pid {work}/{name}.pid; error_log {work}/{name}.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; http2_max_concurrent_streams 1024;
client_body_temp_path {work}/cb_{name}; proxy_temp_path {work}/pt_{name};
open_file_cache max=10; open_file_cache_valid 600s;
{body} }}
"""
_BACKEND = """server {{ listen 127.0.0.1:{http}; default_type application/json;
location ~ ^/v1/models/[^/:]+$ {{ return 200 '{status}'; }} location / {{ return 200 '{reply}'; }} }}
server {{ listen 127.0.0.1:{grpc} http2; root {work}/www; default_type application/grpc;
add_trailer grpc-status 0 always; location / {{ error_page 405 =200 $uri; }} }}"""
_PROXY = """upstream a {{ server 127.0.0.1:{http}; keepalive 128; keepalive_requests 10000000; }}
upstream b {{ server 127.0.0.1:{http}; keepalive 128; keepalive_requests 10000000; }}
upstream g {{ server 127.0.0.1:{grpc}; keepalive 128; keepalive_requests 10000000; }}
split_clients "$http_x_user_id" $arm {{ 50% a; * b; }}
server {{ listen 127.0.0.1:{own}; location / {{ proxy_http_version 1.1; proxy_set_header Connection "";
proxy_pass http://$arm; }} }}
server {{ listen 127.0.0.1:{own_grpc} http2; location / {{ grpc_pass grpc://g; }} }}"""
_HAPROXY = """global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
frontend h1
  bind 127.0.0.1:{own}
  default_backend b1
backend b1
  balance random
  server a 127.0.0.1:{http} weight 50
  server b 127.0.0.1:{http} weight 50
frontend h2
  bind 127.0.0.1:{own_grpc} proto h2
  default_backend b2
backend b2
  server g 127.0.0.1:{grpc} proto h2
"""


def _envoy(backends: Backends, own: int) -> dict[str, Any]:
    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def cluster(name: str, port: int, h2: bool) -> dict[str, Any]:
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
        out: dict[str, Any] = {
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }
        if h2:
            options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            out["typed_extension_protocol_options"] = {
                options: {
                    "@type": f"type.googleapis.com/{options}",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            }
        return out

    def split(*names: str) -> dict[str, Any]:
        return {"weighted_clusters": {"clusters": [{"name": name, "weight": 50} for name in names]}}

    filters = "type.googleapis.com/envoy.extensions.filters"
    routes = [
        {"match": {"prefix": "/tensorflow.serving"}, "route": split("ga", "gb")},
        {"match": {"prefix": "/"}, "route": split("a", "b")},
    ]
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "p",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    clusters = [cluster(name, backends.http, False) for name in ("a", "b")]
    clusters += [cluster(name, backends.grpc, True) for name in ("ga", "gb")]
    return {
        "static_resources": {
            "listeners": [{"name": "l", "address": address(own), "filter_chains": [chain]}],
            "clusters": clusters,
        }
    }


@contextmanager
def backends() -> Iterator[Backends]:
    """The answering nginx, HTTP and gRPC; `hold` it while proxies are measured."""
    http, grpc = free_ports(2)
    work = Path(tempfile.mkdtemp(prefix="abgate_bench_"))
    work.chmod(0o755)
    try:
        for path, message in (
            (GRPC_PREDICT, predict_response()),
            (GRPC_STATUS, _frame(_field(1, b"\x08\x01\x10\x1e\x1a\x00"))),
        ):
            file = work / "www" / path
            file.parent.mkdir(parents=True)
            file.write_bytes(message)
        body = _BACKEND.format(http=http, grpc=grpc, work=work, status=HTTP_STATUS, reply=HTTP_REPLY)
        config = work / "backend.conf"
        config.write_text(_NGINX.format(work=work, name="backend", body=body))
        with running(1, "nginx", "-c", str(config), port=http):
            yield Backends(http, grpc, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def peer(name: str, backend: Backends, envoy: str | None = None) -> Iterator[tuple[Proxy, Proxy]]:
    """One peer (nginx, haproxy, envoy) in front of the backends: its HTTP side and its gRPC side."""
    own, own_grpc = free_ports(2)
    ports = {"http": backend.http, "grpc": backend.grpc, "own": own, "own_grpc": own_grpc}
    config = backend.work / f"{name}.conf"
    if name == "nginx":
        config.write_text(_NGINX.format(work=backend.work, name=name, body=_PROXY.format(**ports)))
        command = ["nginx", "-c", str(config)]
    elif name == "haproxy":
        config.write_text(_HAPROXY.format(**ports))
        command = ["haproxy", "-f", str(config)]
    else:
        own_grpc = own
        config = config.with_suffix(".json")
        config.write_text(json.dumps(_envoy(backend, own)))
        command = [envoy or "envoy", "-c", str(config), "--concurrency", "1", "--log-level", "off"]
    with running(0, *command, port=own) as pid:
        yield (
            Proxy(name, f"http://127.0.0.1:{own}{PREDICT}", (pid,)),
            Proxy(name, f"http://127.0.0.1:{own_grpc}/{GRPC_PREDICT}", (pid,)),
        )
