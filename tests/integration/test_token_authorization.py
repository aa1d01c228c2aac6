"""The real TorchServe with token authorisation on: asked directly, then, as somebody else's, by a gateway with a token_file."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from gateway_process import GatewayProcess, gateway, ready, until
from tiny_torchserve import SIGNATURE, write_tiny

from backends.free_ports import free_ports
from backends.launch import Supervisor
from backends.spec import BackendSpec, ServedModel
from backends.torchserve import plan
from gateway.protocol import tfserving_grpc as codec
from gateway.protocol.tensors import InferRequest, Tensor

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]


@dataclass
class Guarded:
    """A TorchServe that asks for tokens, and the file it wrote them to."""

    spec: BackendSpec
    key_file: Path
    pid: int

    def key(self, purpose: str) -> str:
        """The key for `inference` or `management`."""
        return str(json.loads(self.key_file.read_text())[purpose]["key"])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """TorchServe with the model tiny in version 3, two workers and token authorisation, ready and speaking gRPC."""
    place = tmp_path_factory.mktemp("guarded")
    rest_, grpc_, management = (f"127.0.0.1:{port}" for port in free_ports(3))
    models = (ServedModel("tiny", str(write_tiny(place / "tiny")), "3"),)
    run, logs = str(place / "run"), str(place / "logs")
    spec = BackendSpec(
        "torchserve", "torchserve", rest_, grpc_, management, None, models, workers=2, run_dir=run, log_dir=logs
    )
    planner = partial(plan, token_authorization=True)
    supervisor = Supervisor([spec], info_file=place / "info.json", on_event=lambda event: None, planner=planner)
    supervisor.start()
    try:
        supervisor.wait_ready(90)
        # java's first gRPC connection can take longer than the gateway waits for one
        with grpc.insecure_channel(grpc_) as channel:
            grpc.channel_ready_future(channel).result(60)
        pid = supervisor.status()["backends"]["torchserve"]["pid"]
        yield Guarded(spec, place / "run" / "torchserve" / "key_file.json", pid)
    finally:
        supervisor.stop()


def configuration(guarded: Guarded) -> dict[str, Any]:
    spec = guarded.spec
    places = {"http": spec.http, "grpc": spec.grpc, "management": spec.management}
    return {
        "listen": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"},
        "logging": {"format": "json"},
        "backends": {"ts": {"kind": "torchserve", "start": "none", "token_file": "keys"} | places},
        "models": {"tiny": {"signature": "tiny.json", "arms": {"only": {"backend": "ts"}}}},
    }


def rest(running: GatewayProcess, **headers: str) -> tuple[int, Any]:
    """Status and body of one prediction over REST."""
    reply = running.send("POST", "/v1/models/tiny:predict", {"instances": [[1.0, 2.0, 3.0]]}, **headers)
    return reply.status, reply.body


def over_grpc(channel: grpc.Channel, *metadata: tuple[str, str]) -> list[float] | grpc.RpcError:
    """The values of one prediction over gRPC, or its error."""
    rows = Tensor("x", "FP32", np.array([[1, 2, 3]], "<f4"))
    try:
        answer = channel.unary_unary(codec.PREDICT)(
            codec.encode_request(InferRequest("tiny", (rows,)), typed=True), metadata=metadata, timeout=10
        )
    except grpc.RpcError as error:
        return error
    return list(codec.parse_response(answer).outputs["y"].float_val)


def refused(running: GatewayProcess, channel: grpc.Channel, *metadata: tuple[str, str]) -> None:
    """Both protocols answer that the arm has failed, by its name."""
    status, body = rest(running, **dict(metadata))
    assert status == 502
    assert body["error"].startswith("arm 'only' answered 400: Token Authorization failed")
    error = over_grpc(channel, *metadata)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith("arm 'only' answered PERMISSION_DENIED: Token Authorization failed")


def reason(running: GatewayProcess) -> str:
    """What readyz says about the arm, "" when it is ready."""
    reply = running.send("GET", "/readyz")
    return "" if reply.status == 200 else str(reply.body["arms"]["tiny/only"])


def asked(address: str, method: str, path: str, body: bytes = b"", key: str = "") -> int:
    """The status TorchServe itself answers."""
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"content-type": "application/octet-stream", "x-abgate-format": "tfs-json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_with_a_token_it_becomes_ready_and_answers_nobody_without(guarded: Guarded) -> None:
    assert len(psutil.Process(guarded.pid).children()) == 2
    predict, management = (
        (guarded.spec.http, "POST", "/predictions/tiny/3", b'{"instances": [[1, 2, 3]]}'),
        guarded.spec.management,
    )
    assert management is not None
    assert asked(*predict) == 400
    assert asked(*predict, guarded.key("inference")) == 200
    assert asked(management, "GET", "/models") == 400
    assert asked(management, "POST", "/models?url=tiny", key=guarded.key("management")) == 405


def test_a_torchserve_with_tokens_is_reached_with_its_key_file_and_follows_its_changes(
    guarded: Guarded, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(SIGNATURE))
    keys = tmp_path / "keys"
    inference = guarded.key("inference")
    with gateway(tmp_path, configuration(guarded)) as running, grpc.insecure_channel(running.grpc) as channel:
        until("told", lambda: reason(running) == f"its token file {keys} cannot be read: No such file or directory")
        refused(running, channel, ("authorization", f"Bearer {inference}"))  # a client's own goes no further

        shutil.copyfile(guarded.key_file, keys)
        ready(running)
        for metadata in ((), (("authorization", "Bearer the-clients-own"),)):
            assert rest(running, **dict(metadata)) == (200, {"predictions": [[6.0, 2.0]]})
            assert over_grpc(channel, *metadata) == [6.0, 2.0]

        keys.write_text("wrong")
        until("not ready", lambda: "does not take the key (any more) that was in its token file" in reason(running))
        refused(running, channel)

        shutil.copyfile(guarded.key_file, keys)
        ready(running)
        assert over_grpc(channel) == [6.0, 2.0]
        log = json.dumps(running.events)
        assert str(keys) in log
        assert inference not in log
