"""The fake's HTTP/1.1 side on bare sockets, because half an answer or a reset is what no HTTP library sends.

TF Serving's predict and status, TorchServe's /predictions and worker status, and the control endpoint /__fake. One thread a
connection. The reader is as strict as a test needs: Content-Length and chunked bodies, keep-alive.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from typing import IO

from backends.fake.answers import answer
from backends.fake.behaviour import Behaviour, Seen

PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/(?:versions|labels)/[^/:]+)?:predict")
STATUS = re.compile(r"/v1/models/([^/:]+)(?:/versions/\d+)?")
PREDICTIONS = re.compile(r"/predictions/([^/]+)(?:/[^/]+)?")
DESCRIBE = re.compile(r"/models/([^/]+)(?:/[^/]+)?")
Headers = dict[str, str]


class Closing(Exception):
    """The connection is to be closed."""


def serve_connection(connection: socket.socket, behaviour: Behaviour) -> None:
    """Answer requests on one connection until it ends or the mode ends it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as reader:
        try:
            while (request := read_request(reader)) is not None:
                answer_one(connection, behaviour, *request)
        except (Closing, OSError, ValueError):
            return


def read_request(reader: IO[bytes]) -> tuple[str, str, Headers, bytes] | None:
    """Read (method, path, lower-case headers, body); None at the end of the stream."""
    line = reader.readline().decode("latin-1").strip()
    if not line:
        return None
    method, path, _ = line.split(" ", 2)
    headers: Headers = {}
    while field := reader.readline().decode("latin-1").strip():
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    if "chunked" not in headers.get("transfer-encoding", ""):
        return method, path, headers, reader.read(int(headers.get("content-length", 0)))
    body = b""
    while size := int(reader.readline().split(b";")[0], 16):
        body += reader.read(size)
        reader.readline()
    while reader.readline().strip():
        pass
    return method, path, headers, body


def answer_one(
    connection: socket.socket, behaviour: Behaviour, method: str, path: str, headers: Headers, body: bytes
) -> None:
    """Answer one request: control and status always rightly, inference as the mode says."""
    path = path.partition("?")[0]
    if path == "/__fake":
        send(connection, *control(behaviour, method, body))
        return
    started = time.time_ns()
    predict, predictions = PREDICT.fullmatch(path), PREDICTIONS.fullmatch(path)
    matched = predict or predictions
    if method != "POST" or matched is None:
        send(connection, *status(behaviour, path))
        return
    mode, delay = behaviour.receive(Seen("http", path, headers, body))
    if mode in ("reset", "hang"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
        raise Closing
    if mode == "noise":
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        raise Closing
    if mode in ("500", "503"):
        send(connection, int(mode), json.dumps({"error": f"fake: {mode}"}).encode())
        return
    reply, extra = infer(behaviour, matched[1], headers, body, started, torchserve=predictions is not None)
    if mode == "garbage":
        reply = (200, b"\x00\xff this is no prediction")
    if mode == "half":
        whole = rendered(*reply, extra)
        connection.sendall(whole[: len(whole) - max(1, len(reply[1]) // 2)])
        raise Closing
    connection.sendall(rendered(*reply, extra))
    if mode == "close-idle":
        time.sleep(delay)
        raise Closing


def infer(
    behaviour: Behaviour, model: str, headers: Headers, body: bytes, started: int, *, torchserve: bool
) -> tuple[tuple[int, bytes], Headers]:
    """The right answer: (status, body) and the headers beside it."""
    if not behaviour.knows(model):
        return (404, json.dumps({"error": f"Servable not found for request: Latest({model})"}).encode()), {}
    form = headers.get("x-abgate-format", "tfs-json") if torchserve else "tfs-json"
    extra = {"content-type": "application/octet-stream" if form == "oip-binary" else "application/json"}
    if torchserve:
        extra |= {"x-abgate-batch-size": "1", "x-abgate-batch-rows": "1"}
        if "x-abgate-sent-ns" in headers:
            extra["x-abgate-queue-ns"] = str(max(0, started - int(headers["x-abgate-sent-ns"])))
    try:
        return (200, answer(form, body, behaviour.shape, model)), extra
    except ValueError as fault:
        return (400, json.dumps({"error": str(fault)}).encode()), {"content-type": "application/json"}


def status(behaviour: Behaviour, path: str) -> tuple[int, bytes]:
    """What a probe asks: TF Serving's model status, TorchServe's description of a model and its ping."""
    served, described = STATUS.fullmatch(path), DESCRIBE.fullmatch(path)
    if path == "/ping":
        return 200, b'{"status": "Healthy"}'
    if served is not None and behaviour.knows(served[1]):
        state = {
            "version": behaviour.shape.version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return 200, json.dumps({"model_version_status": [state]}).encode()
    if described is not None and behaviour.knows(described[1]):
        version = {"modelName": described[1], "modelVersion": behaviour.shape.version, "workers": [{"status": "READY"}]}
        return 200, json.dumps([version]).encode()
    return 404, json.dumps({"error": f"fake: nothing at {path}"}).encode()


def control(behaviour: Behaviour, method: str, body: bytes) -> tuple[int, bytes]:
    """GET: the report. DELETE: forget what was seen. POST {"mode", "delay_ms"?, "times"?}: change the behaviour."""
    if method == "DELETE":
        behaviour.forget()
    elif method == "POST":
        try:
            wanted = json.loads(body)
            behaviour.set(wanted["mode"], float(wanted.get("delay_ms", 0)), wanted.get("times"))
        except (ValueError, KeyError, TypeError) as fault:
            return 400, json.dumps({"error": str(fault)}).encode()
    return 200, json.dumps(behaviour.report()).encode()


def send(connection: socket.socket, code: int, body: bytes) -> None:
    """Send a JSON answer."""
    connection.sendall(rendered(code, body, {"content-type": "application/json"}))


def rendered(code: int, body: bytes, headers: Headers) -> bytes:
    """The bytes of a whole answer."""
    lines = [
        f"HTTP/1.1 {code} fake",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
