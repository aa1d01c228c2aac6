"""The gRPC user: PredictionService.Predict with bytes in and bytes out, on grpc's gevent loop.

`grpc.experimental.gevent.init_gevent()` must have run in the process (the locustfile does it). Arm, assignment and
request id are read from the trailing metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from loadtest.answers import Judge, array_of_proto, rows_of_json, unwrap_torchserve
from loadtest.payloads import Payload
from loadtest.session import Session
from loadtest.targets import grpc_method, split_address
from loadtest.users import Exchange, LoadUser

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # one connection a user, as separate clients have
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # gRPC takes it for the time a connection may take to come up
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcUser(LoadUser):
    """Calls Predict with PredictRequests, or TorchServe's Predictions in a direct run."""

    abstract = True
    wanted = "tfs-grpc"

    def open(self, session: Session) -> None:
        """Open a channel of its own."""
        job = session.job
        host, port = split_address(job.target.grpc, "grpc target")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if job.target.tls_ca:
            credentials = grpc.ssl_channel_credentials(Path(job.target.tls_ca).read_bytes())
            self._channel = grpc.secure_channel(address, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._call = self._channel.unary_unary(grpc_method(job.target))
        self._timeout = job.profile.timeout
        self._unit_header = job.unit_header
        self._output = job.output
        self._torchserve = job.target.kind == "torchserve"

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def exchange(self, unit: str, request_id: str, payload: Payload) -> Exchange:
        """One call; a failed one's error is its code's name."""
        metadata = ((self._unit_header, unit), ("x-request-id", request_id))
        try:
            body, call = self._call.with_call(payload.proto, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()
            return _exchange(error.trailing_metadata(), code.value[0], code.name.lower(), b"")
        if not self._torchserve:
            return _exchange(call.trailing_metadata(), 0, "", body)
        try:
            status, answer, _ = unwrap_torchserve(body)
        except ValueError as error:
            return Exchange(0, f"bad answer: {error}")
        return Exchange(status, "" if status == 200 else f"http {status}", body=answer)

    def judge(self, judge: Judge, body: bytes, payload: Payload) -> bool:
        """Compare the output tensor."""
        if self._torchserve:
            return judge.rows(rows_of_json(body, self._output), payload.indices)
        return judge.array(array_of_proto(body, self._output), payload.indices)


def _exchange(metadata: Any, status: int, error: str, body: bytes) -> Exchange:
    found = dict(metadata or ())
    return Exchange(
        status,
        error,
        found.get("x-abgate-arm", ""),
        found.get("x-abgate-assignment", ""),
        found.get("x-request-id", ""),
        body,
    )
