"""Where requests go and how they look there: the gateway, a TF Serving server, or a TorchServe server.

PURE: addresses, paths and header bytes as values. Opening connections belongs to the users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.errors import ConfigError
from gateway.protocol.descriptors import method_path

Kind = Literal["gateway", "tensorflow_serving", "torchserve"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a run sends to. arm names a direct run's only server; "" where the gateway's answer names the arm.

    tls_ca: file of the certificates to trust when the listeners speak TLS, None when they do not.
    """

    kind: Kind
    http: str
    grpc: str
    arm: str = ""
    tls_ca: str | None = None

    def protocol(self, wanted: str) -> str:
        """What the ledger calls the protocol: the client's for TF Serving's, TorchServe's own where it is spoken."""
        if self.kind != "torchserve":
            return wanted
        return "torchserve-http" if wanted == "tfs-rest" else "torchserve-grpc"


def split_address(address: str, where: str) -> tuple[str, int]:
    """host and port of "host:port" ([v6]:port too, an http:// in front is ignored); raises ConfigError."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError([f"{where}: {address!r} is no address; write host:port, such as 127.0.0.1:8080"])
    return host.strip("[]"), int(port)


def request_head(target: Target, model: str, timeout: float) -> bytes:
    """Everything of an HTTP request up to the value of content-length, which is followed by unit_line and the body."""
    if target.kind == "torchserve":
        lines = [
            f"POST /predictions/{model} HTTP/1.1",
            "content-type: application/octet-stream",  # or TorchServe decodes the body itself
            "x-abgate-format: tfs-json",
        ]
    else:
        lines = [
            f"POST /v1/models/{model}:predict HTTP/1.1",
            "content-type: application/json",
            f"x-request-timeout: {timeout:g}",  # the deadline a gRPC call carries by itself
        ]
    lines += [f"host: {target.http.removeprefix('http://').rstrip('/')}", "user-agent: abgate-loadtest", "accept: */*"]
    return ("\r\n".join(lines) + "\r\ncontent-length: ").encode("ascii")


def unit_line(unit_header: str) -> bytes:
    """The end of the content-length line and the beginning of the unit header's."""
    return f"\r\n{unit_header}: ".encode("ascii")


def grpc_method(target: Target) -> str:
    """The gRPC method path of a prediction."""
    if target.kind == "torchserve":
        return method_path("org.pytorch.serve.grpc.inference.InferenceAPIsService", "Predictions")
    return method_path("tensorflow.serving.PredictionService", "Predict")
