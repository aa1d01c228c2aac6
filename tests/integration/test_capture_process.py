"""A capture end to end: begun and ended at run time, and what it kept sent again brings the same answers."""

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from gateway_process import BODY, GatewayProcess, configuration, gateway, ready, two_fakes, until

from gateway.cli import run
from gateway.protocol import tfserving_grpc
from gateway.protocol.tensors import InferRequest, Tensor
from gateway.telemetry.unit_hash import load_key, unit_hash
from loadtest.replay import Options, Recorded, Replay

WHY = {"who": "tester", "why": "test"}
PREDICT = tfserving_grpc.encode_request(
    InferRequest("m", (Tensor("x", "FP32", np.asarray([[1.0, 2.0]], dtype=np.float32)),))
)
OIP = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}


def call(running: GatewayProcess, payload: bytes, path: str = tfserving_grpc.PREDICT) -> bytes:
    with grpc.insecure_channel(running.grpc) as channel:
        answer: bytes = channel.unary_unary(path)(payload, metadata=(("x-user-id", "bob"),), timeout=10)
        return answer


def traffic(running: GatewayProcess) -> list[Any]:
    """One request of each kind."""
    return [
        running.predict(x_user_id="alice", authorization="Bearer of-a-client").body,
        running.send("POST", "/v2/models/m/infer", OIP, x_user_id="alice").body["outputs"],
        call(running, PREDICT),
        running.send("POST", "/v1/models/m:predict", {"instances": [[1.0]]}).status,
    ]


def again(running: GatewayProcess, found: Recorded) -> Any:
    """Send what was captured."""
    if found.protocol.endswith("-grpc"):
        return call(running, found.body, found.path)
    reply = running.send(
        found.method, found.path, json.loads(found.body), **{"content_type": found.headers["content-type"]}
    )
    if reply.status != 200:
        return reply.status
    return reply.body["outputs"] if found.protocol == "oip-rest" else reply.body


def test_a_capture_is_begun_ended_and_sent_again(tmp_path: Path, capsys: Any) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        traffic(running)
        off = running.send("GET", "/admin/v1/capture").body
        assert (off["active"], off["seen"], off["folder"]) == (False, 0, "")
        assert not (tmp_path / ".abgate" / "capture").exists()

        at = ["--config", str(tmp_path / "abgate.yaml"), "--url", f"http://{running.http}"]
        assert run(["capture", "start", *at, "--share", "1", "--size", "1MiB"]) == 0
        assert "capturing 1 of the requests of all models" in capsys.readouterr().out
        assert running.send("POST", "/admin/v1/capture/start", WHY | {"share": 1}).status == 409
        told = traffic(running)
        assert run(["capture", "stop", *at, "--why", "enough"]) == 0
        assert "4 requests" in capsys.readouterr().out
        stopped = running.send("GET", "/admin/v1/capture").body
        assert (stopped["active"], stopped["seen"], stopped["written"]) == (False, 4, 4)
        traffic(running)
        assert running.send("GET", "/admin/v1/capture").body["seen"] == 4

        assert Replay.load(Path(stopped["folder"])).protocol == ["tfs-rest", "oip-rest", "tfs-grpc"]
        replay = Replay.load(Path(stopped["folder"]), Options(refused=True))
        assert replay.protocol == ["tfs-rest", "oip-rest", "tfs-grpc", "tfs-rest"]
        assert np.all(np.diff(replay.due_ns) > 0)
        found = [replay.payload(index) for index in range(len(replay))]
        assert [item.rows for item in found] == [1, 1, 1, 0]
        key = load_key(tmp_path / ".abgate" / "unit.key")
        assert [item.unit_hash for item in found] == [unit_hash(unit, key) for unit in ("alice", "alice", "bob", "")]
        assert json.loads(found[0].body) == BODY
        assert [again(running, item) for item in found] == told
        stored = b"".join(path.read_bytes() for path in Path(stopped["folder"]).iterdir())
        for secret in (b"alice", b"bob", b"of-a-client"):
            assert secret not in stored
        audited = (tmp_path / ".abgate" / "audit.jsonl").read_text().splitlines()
        assert [json.loads(line)["what"] for line in audited] == ["capture.start", "capture.stop"]
        metrics = running.send("GET", "/metrics").body
        assert "\nabgate_capture_written_total 4.0" in metrics
        assert "\nabgate_capture_active 0.0" in metrics
        assert running.stop() == 0


def test_a_configured_capture_begins_with_the_gateway_and_ends_at_its_size(tmp_path: Path, capsys: Any) -> None:
    section = {"share": 1.0, "size": "64KiB", "body": "64KiB", "models": ["m"]}
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes, capture=section)) as running:
        ready(running)
        big = {"instances": [[1.0, 2.0]] * 800}
        for _ in range(12):
            assert running.send("POST", "/v1/models/m:predict", big).status == 200
        status = until("the end", lambda: _ended(running))
        assert status["stopped"] == "the size that is allowed is used up"
        folder = Path(status["folder"])
        assert status["bytes"] == sum(path.stat().st_size for path in folder.iterdir()) <= 64 << 10
        assert len(Replay.load(tmp_path / ".abgate" / "capture", Options(models=["m"]))) == status["written"] > 2
        refused = running.send("POST", "/admin/v1/capture/start", WHY | {"share": 0.5, "size": status["bytes"]})
        assert refused.status == 400
        assert "move them away or allow more" in refused.body["error"]
        at = ["--config", str(tmp_path / "abgate.yaml"), "--url", f"http://{running.http}"]
        assert run(["capture", "status", *at]) == 0
        assert "warning: the size that is allowed is used up" in capsys.readouterr().err
        assert run(["capture", "start", *at, "--share", "0.5", "--size", "1TiB"]) == 1
        assert "over the configuration's" in capsys.readouterr().err
        assert running.predict().status == 200
        assert running.stop() == 0


def _ended(running: GatewayProcess) -> dict[str, Any] | None:
    status = running.send("GET", "/admin/v1/capture").body
    return status if status["stopped"] and not status["active"] else None
