"""The gateway as a process: it starts, tells its readiness, drains, reloads, and keeps what was changed."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
from gateway_process import BODY, configuration, gateway, ready, two_fakes, until, write

from gateway.protocol.tfserving_grpc import PREDICT


def _run(command: str, path: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "gateway", command, "-c", str(path)]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=30)


def test_it_splits_by_unit_and_ends_with_code_0(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        arms: Counter[str] = Counter()
        for number in range(60):
            reply = running.predict(x_user_id=f"u{number}")
            assert reply.status == 200
            assert reply.body["predictions"] == [[3.0]] or reply.body["predictions"] == [3.0]
            assert reply.headers["x-abgate-assignment"] == "sticky"
            again = running.predict(x_user_id=f"u{number}")
            assert again.headers["x-abgate-arm"] == reply.headers["x-abgate-arm"]
            arms[reply.headers["x-abgate-arm"]] += 1
        assert set(arms) == {"a", "b"}
        assert min(arms.values()) > 12
        assert running.stop() == 0


def test_readyz_names_the_arm_that_is_not_ready_and_follows_it(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        assert running.send("GET", "/healthz").body == {"status": "ok"}
        fakes["ts"].stop()
        reply = until("not ready", lambda: (r := running.send("GET", "/readyz")).status == 503 and r)
        assert reply.body["arms"]["m/b"] == "ready"
        assert "refuses connections" in reply.body["arms"]["m/a"]
        assert reply.body["draining"] is False


def test_an_arm_without_weight_does_not_count_for_readiness(tmp_path: Path) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        fakes["ts"].stop()
        until("not ready", lambda: running.send("GET", "/readyz").status == 503)
        body = {"to": "b", "who": "t", "why": "a is down"}
        assert running.send("POST", "/admin/v1/experiments/m/kill", body).status == 200
        assert running.send("GET", "/readyz").status == 200


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_sigterm_lets_requests_under_way_finish_and_refuses_new_ones(tmp_path: Path, protocol: str) -> None:
    with two_fakes() as fakes, gateway(tmp_path, configuration(fakes)) as running:
        ready(running)
        fakes["tf"].behaviour.set("slow", 1500)
        results: list[object] = []

        def call() -> None:
            if protocol == "rest":
                results.append(running.predict(x_abgate_arm="b").status)
                return
            with grpc.insecure_channel(running.grpc) as channel:
                reply = channel.unary_unary(PREDICT)(_predict_message(), metadata=[("x-abgate-arm", "b")], timeout=10)
                results.append(200 if reply else 0)

        host, port = running.http.split(":")
        kept = http.client.HTTPConnection(
            host, int(port), timeout=10
        )  # opened before: a draining server takes no new ones
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        thread = threading.Thread(target=call)
        thread.start()
        until("under way", lambda: fakes["tf"].behaviour.last)
        running.process.send_signal(signal.SIGTERM)
        until("draining", lambda: any(event.get("event") == "gateway.draining" for event in running.events))
        kept.request("GET", "/readyz")
        answer = kept.getresponse()
        body = json.loads(answer.read())
        assert (answer.status, body["ready"], body["draining"]) == (503, False, True)
        kept.request("POST", "/v1/models/m:predict", json.dumps(BODY))
        refused = kept.getresponse()
        assert refused.status == 503
        assert "shutting down" in json.loads(refused.read())["error"]
        thread.join(10)
        assert results == [200]
        assert running.process.wait(10) == 0
        kept.close()
        assert running.events[-1]["cut_off"] == 0


def _predict_message() -> bytes:
    from gateway.protocol.descriptors import message_class

    message = message_class("tensorflow.serving.PredictRequest")()
    message.model_spec.name = "m"
    message.inputs["x"].dtype = 1
    for size in (1, 2):
        message.inputs["x"].tensor_shape.dim.add().size = size
    message.inputs["x"].float_val.extend([1.0, 2.0])
    serialized: bytes = message.SerializeToString()
    return serialized


def test_a_drain_ends_at_its_limit_with_work_still_under_way(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes, limits={"drain": "300ms"})
        with gateway(tmp_path, document) as running:
            ready(running)
            fakes["tf"].behaviour.set("hang")
            host, port = running.http.split(":")
            body = json.dumps(BODY).encode()
            head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\nx-abgate-arm: b\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection((host, int(port))) as client:
                client.sendall(head.encode() + body)
                until("under way", lambda: fakes["tf"].behaviour.last)
                assert running.stop() == 0
            fakes["tf"].behaviour.set("ok")
            assert running.events[-1]["event"] == "gateway.stopped"
            assert running.events[-1]["cut_off"] == 1


def test_both_listeners_speak_tls_where_it_is_configured(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):  # made for these tests: self-signed for 127.0.0.1, of no use elsewhere
        (tmp_path / name).write_bytes((Path(__file__).parent / "tls" / name).read_bytes())
    with two_fakes() as fakes:
        listen = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "tls": {"cert": "cert.pem", "key": "key.pem"}}
        with gateway(tmp_path, configuration(fakes, listen=listen)) as running:
            ready(running)
            assert running.predict().status == 200
            credentials = grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
            with grpc.secure_channel(running.grpc, credentials) as channel:
                assert channel.unary_unary(PREDICT)(_predict_message(), timeout=10)
            with grpc.insecure_channel(running.grpc) as channel, pytest.raises(grpc.RpcError):
                channel.unary_unary(PREDICT)(_predict_message(), timeout=2)
            host, port = running.http.split(":")
            plain = http.client.HTTPConnection(host, int(port), timeout=5)
            plain.request("GET", "/healthz")
            with pytest.raises((http.client.HTTPException, OSError)):
                plain.getresponse()
            plain.close()
            assert running.stop() == 0
        (tmp_path / "key.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
        ended = _run("check", tmp_path / "abgate.yaml")
        assert ended.returncode == 3
        assert "listen.tls: " in ended.stderr


def test_changes_survive_a_restart_and_the_yaml_wins_when_its_weights_change(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes)
        with gateway(tmp_path, document) as running:
            body = {"weights": {"a": 0, "b": 7}, "revision": 1, "who": "t", "why": "test"}
            assert running.send("PUT", "/admin/v1/experiments/m/weights", body).status == 200
            assert running.stop() == 0
        with gateway(tmp_path, document) as running:
            found = running.send("GET", "/admin/v1/experiments").body
            assert found["revision"] == 2
            assert found["experiments"]["m"]["source"] == "state"
            assert found["experiments"]["m"]["arms"]["b"]["weight"] == 7
            check = _run("check", tmp_path / "abgate.yaml")
            assert check.returncode == 0
            assert "a 0, b 7 (from " in check.stdout
            assert "abgate.yaml says: a 50, b 50" in check.stdout
            ready(running)
            assert {running.predict().headers["x-abgate-arm"] for _ in range(20)} == {"b"}
            assert running.stop() == 0
        document["models"]["m"]["arms"]["a"]["weight"] = 100
        with gateway(tmp_path, document) as running:
            found = running.send("GET", "/admin/v1/experiments").body
            assert found["experiments"]["m"]["source"] == "config"
            assert found["experiments"]["m"]["arms"]["a"]["weight"] == 100
            assert found["revision"] == 3


def test_reload_changes_models_only_and_says_why_not(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes)
        with gateway(tmp_path, document) as running:
            ready(running)
            document["models"]["m"]["arms"]["a"]["weight"] = 0
            document["models"]["n"] = {"signature": "signature.json", "arms": {"only": {"backend": "tf", "model": "m"}}}
            write(tmp_path, document)
            author = {"who": "t", "why": "test"}
            reply = running.send("POST", "/admin/v1/reload", author)
            assert reply.status == 200
            assert set(reply.body["experiments"]) == {"m", "n"}
            assert {running.predict().headers["x-abgate-arm"] for _ in range(10)} == {"b"}
            assert running.send("POST", "/v1/models/n:predict", BODY).headers["x-abgate-arm"] == "only"
            document["limits"] = {"rows": 5}
            write(tmp_path, document)
            refused = running.send("POST", "/admin/v1/reload", author)
            assert refused.status == 400
            assert "limits: a reload changes models only" in refused.body["error"]
            (tmp_path / "abgate.yaml").write_text("models: 7")
            assert running.send("POST", "/admin/v1/reload", author).status == 400
            del document["limits"]
            del document["models"]["n"]
            write(tmp_path, document)
            running.process.send_signal(signal.SIGHUP)
            until("reloaded", lambda: set(running.send("GET", "/admin/v1/experiments").body["experiments"]) == {"m"})
            assert running.send("POST", "/v1/models/n:predict", BODY).status == 404
            assert running.stop() == 0


def test_a_signature_is_imported_from_a_server_that_comes_later(tmp_path: Path) -> None:
    served, importing = tmp_path / "served", tmp_path / "importing"
    served.mkdir()
    importing.mkdir()
    with two_fakes() as fakes, socket.create_server(("127.0.0.1", 0)) as placeholder:
        later = f"127.0.0.1:{placeholder.getsockname()[1]}"  # another gateway speaks TF Serving's API: it is the server
        document = configuration(fakes)
        document["backends"] = {"tf": {"kind": "tensorflow_serving", "http": later, "grpc": fakes["tf"].grpc}}
        document["models"] = {"mine": {"signature": "import", "arms": {"b": {"backend": "tf", "model": "m"}}}}
        with gateway(importing, document) as running:
            assert running.send("POST", "/v1/models/mine:predict", BODY).status == 404
            reasons = running.send("GET", "/readyz").body["arms"]
            assert reasons["mine"] == "its signature has not been imported yet"
            placeholder.close()
            with gateway(served, configuration(fakes, listen={"http": later, "grpc": "127.0.0.1:0"})) as server:
                ready(server)
                ready(running)
                assert running.send("POST", "/v1/models/mine:predict", BODY).status == 200
                refused = running.send("POST", "/v1/models/mine:predict", {"instances": [[1.0]]})
                assert refused.status == 400
                assert "size: 2 but got: 1" in refused.body["error"]


def test_the_kill_switch_works_while_the_state_cannot_be_written(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes, admin={"state_file": "kept/state.json", "audit_file": "kept/audit.jsonl"})
        with gateway(tmp_path, document) as running:
            ready(running)
            shutil.rmtree(tmp_path / "kept")
            (tmp_path / "kept").write_text("a file where the folder should be: no write can succeed")
            reply = running.send("POST", "/admin/v1/experiments/m/kill", {"to": "b", "who": "t", "why": "now"})
            assert reply.status == 200
            assert (reply.body["changed"], reply.body["persisted"]) == (True, False)
            assert "would not survive a restart" in reply.body["problem"]
            assert {running.predict().headers["x-abgate-arm"] for _ in range(20)} == {"b"}
            weights = {"weights": {"a": 1, "b": 1}, "revision": 2, "who": "t", "why": "later"}
            refused = running.send("PUT", "/admin/v1/experiments/m/weights", weights)
            assert refused.status == 500
            assert refused.body["error"].startswith("nothing was changed")
            (tmp_path / "kept").unlink()
            again = running.send("POST", "/admin/v1/experiments/m/kill", {"to": "b", "who": "t", "why": "again"})
            assert (again.body["changed"], again.body["persisted"]) == (False, True)
            assert json.loads((tmp_path / "kept" / "state.json").read_text())["models"]["m"]["killed"] == "b"


def test_a_taken_port_is_told_with_its_owner_and_exit_code_1(tmp_path: Path) -> None:
    with two_fakes() as fakes, socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = write(tmp_path, configuration(fakes, listen={"http": address, "grpc": "127.0.0.1:0"}))
        ended = _run("serve", path)
        assert ended.returncode == 1
        assert f"listen.http: {address} cannot be listened on" in ended.stderr
        assert f"pid {os.getpid()}" in ended.stderr


def test_a_bad_configuration_is_exit_code_3_and_opens_nothing(tmp_path: Path) -> None:
    with two_fakes() as fakes:
        document = configuration(fakes)
        document["models"]["m"]["signature"] = "gone.json"
        document["admin"] = {"token_file": "no-token"}
        path = write(tmp_path, document)
        for command in ("check", "serve"):
            ended = _run(command, path)
            assert ended.returncode == 3
            assert "models.m.signature: there is no file" in ended.stderr
            assert "admin.token_file: " in ended.stderr
        assert not (tmp_path / ".abgate").exists()
