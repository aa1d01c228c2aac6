"""Addresses, files and the split, as the run finds them around itself."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet

from gateway.errors import ConfigError
from loadtest.arrivals import Window
from loadtest.gather import lasting_weights, silent_workers
from loadtest.job import from_environment
from loadtest.ledger import Segment
from loadtest.options import RunOptions
from loadtest.profiles import Profile, parse
from loadtest.runfile import arms_of, copy_records, direct_arm
from loadtest.surroundings import (
    Backend,
    Config,
    choose_target,
    gateway_pid,
    model_files,
    reachable,
    read_backends,
    read_config,
    read_info,
)
from loadtest.targets import Target, request_head, split_address, unit_line
from loadtest.watch import Watch, describe, metrics_url

CONFIG = Config(
    "text",
    Path("/somewhere"),
    {"ts": {"kind": "torchserve", "http": "127.0.0.1:1", "grpc": "127.0.0.1:2", "start": "local", "threads": 1}},
    {},
)
INFO: dict[str, Any] = {
    "backends": {
        "ts": {"kind": "torchserve", "http": "127.0.0.1:9", "pid": 77, "implementation": "TorchServe 0.12.0"},
        "tf": {"kind": "tensorflow_serving", "http": "127.0.0.1:3", "stand_in": True, "state": "ready", "new": 1},
    },
    "gateway": {"pid": 5},
}


def profile(**changes: Any) -> Profile:
    return parse({"model": "m", "users": 2, "duration": 1, "mix": {"tfs-rest": 1, "tfs-grpc": 1}, **changes}, "p")


def test_the_supervisor_completes_what_the_configuration_says() -> None:
    backends = read_backends(INFO, CONFIG)
    assert (backends["ts"].http, backends["ts"].grpc, backends["ts"].pid) == ("127.0.0.1:9", "127.0.0.1:2", 77)
    assert (backends["tf"].stand_in, backends["tf"].threads) == (True, None)
    assert gateway_pid(INFO) == 5
    assert read_backends(None, CONFIG)["ts"].http == "127.0.0.1:1"
    assert gateway_pid(None) is None


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("*:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        (":80", "127.0.0.1:80"),
        ("10.1.2.3:80", "10.1.2.3:80"),
    ],
)
def test_a_listener_on_all_interfaces_is_reached_over_loopback(address: str, reached: str) -> None:
    assert reachable(address, "x") == reached


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("http://a:1/", ("a", 1)), ("[::1]:8", ("::1", 8))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address, "x") == parts


@pytest.mark.parametrize("address", ["", "host", "host:", "host:http", "host:0", "host:70000", ":80"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        split_address(address, "x")


def test_the_target_is_the_gateway_or_one_server() -> None:
    options = RunOptions("p", http="0.0.0.0:1", grpc="0.0.0.0:2")
    assert choose_target(options, profile(), {}) == Target("gateway", "127.0.0.1:1", "127.0.0.1:2")
    named = profile(targets={"http": "10.0.0.1:1", "grpc": "10.0.0.1:2"})
    assert choose_target(options, named, {}) == Target("gateway", "10.0.0.1:1", "10.0.0.1:2")
    direct = choose_target(RunOptions("p", direct="ts"), profile(), read_backends(INFO, CONFIG))
    assert direct == Target("torchserve", "127.0.0.1:9", "127.0.0.1:2", arm="ts")
    assert (direct.protocol("tfs-rest"), direct.protocol("tfs-grpc")) == ("torchserve-http", "torchserve-grpc")


@pytest.mark.parametrize(
    ("direct", "problem"),
    [("no", "no such backend; there are ts, tf, x"), ("tf", "no address for tfs-grpc"), ("x", "kind 'fake' cannot")],
)
def test_a_server_that_cannot_be_loaded(direct: str, problem: str) -> None:
    backends = {**read_backends(INFO, CONFIG), "x": Backend("x", "fake", "127.0.0.1:1", "127.0.0.1:2")}
    with pytest.raises(ConfigError, match=problem):
        choose_target(RunOptions("p", direct=direct), profile(), backends)


def test_the_head_of_a_request() -> None:
    gateway = request_head(Target("gateway", "h:1", "g:1"), "m", 2.5) + b"2" + unit_line("x-user-id") + b"u"
    assert gateway.startswith(
        b"POST /v1/models/m:predict HTTP/1.1\r\ncontent-type: application/json\r\nx-request-timeout: 2.5\r\nhost: h:1\r\n"
    )
    assert gateway.endswith(b"\r\ncontent-length: 2\r\nx-user-id: u")
    torchserve = request_head(Target("torchserve", "h:1", "g:1"), "m", 2.5)
    assert torchserve.startswith(b"POST /predictions/m HTTP/1.1\r\ncontent-type: application/octet-stream\r\n")
    assert b"\r\nx-abgate-format: tfs-json\r\n" in torchserve


def artefacts(folder: Path, ok: bool) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "inputs.npz", x=np.zeros((1, 1)))
    (folder / "signature.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "ok": ok, "failures": ["y differs at row 3"]}))


def test_a_models_files_are_found_by_its_signature_or_its_name(tmp_path: Path) -> None:
    artefacts(tmp_path / "art" / "m", ok=True)
    options = RunOptions("p", artifacts=tmp_path / "art")
    by_name = model_files(options, profile(), Config(), tmp_path / "p.yaml")
    named = Config("", tmp_path, {}, {"m": {"signature": "art/m/signature.json"}})
    by_signature = model_files(RunOptions("p", artifacts=tmp_path), profile(), named, tmp_path / "p.yaml")
    assert by_name == by_signature
    assert by_name.manifest is not None
    np.savez(tmp_path / "own.npz", x=np.zeros((1, 1)))
    own = model_files(options, profile(payloads="own.npz"), Config(), tmp_path / "p.yaml")
    assert own.payloads == tmp_path / "own.npz"


def test_missing_inputs_and_a_failed_parity_are_refused(tmp_path: Path) -> None:
    options = RunOptions("p", artifacts=tmp_path)
    with pytest.raises(ConfigError, match="build the model with `abgate models build m`"):
        model_files(options, profile(), Config(), tmp_path / "p.yaml")
    artefacts(tmp_path / "m", ok=False)
    with pytest.raises(ConfigError, match=r"parity failed .y differs at row 3."):
        model_files(options, profile(), Config(), tmp_path / "p.yaml")


@pytest.mark.parametrize("text", ["[", "- a", "backends: 3"])
def test_a_configuration_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError):
        read_config(RunOptions("p", config_text=text))


def test_arms_carry_their_servers_resources() -> None:
    told = {"backend": "ts", "kind": "torchserve", "implementation": "i", "weight": 30, "wire": {}, "ready": True}
    (arm,) = arms_of({"arms": {"a": told}}, {"ts": Backend("ts", "torchserve", threads=2, workers=1)}).values()
    assert (arm["weight"], arm["threads"], arm["workers"], arm["cores"], arm["stand_in"]) == (30, 2, 1, None, False)
    (only,) = direct_arm(Backend("ts", "torchserve"), ["tfs-rest"], ["torchserve-http"]).values()
    assert (only["weight"], only["wire"]) == (100, {"tfs-rest": "torchserve-http"})


def test_metrics_addresses_and_progress_lines() -> None:
    assert metrics_url("h:1") == "http://h:1/metrics"
    assert metrics_url("http://h:1/a/b") == "http://h:1/a/b"
    entry = {"arm": "a", "rps": 10.4, "failures": 2}
    assert describe({"users": 3, "entries": [entry, {**entry, "arm": "b"}]}) == "3 users  a 10/s b 10/s  4 failed"
    assert describe({}) == "0 users"


def test_a_file_left_behind_by_a_supervisor_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "backends.json"
    for pid, believed in ((os.getpid(), True), (2**22 + 1, False)):
        path.write_text(json.dumps({"pid": pid, "backends": {}}))
        assert (read_info(path) is not None) is believed
    assert read_info(tmp_path / "none.json") is None


def test_the_phases_of_a_split(tmp_path: Path) -> None:
    job = from_environment({"ABGATE_PROFILE_NAME": "demo", "ABGATE_ARTIFACTS": str(tmp_path)})
    assert job is not None
    watch = Watch(job, tmp_path, None, dict)

    def told(revision: int, phase: int, killed: str | None, **weights: int) -> dict[str, Any]:
        arms = {arm: {"weight": weight} for arm, weight in weights.items()}
        return {"revision": revision, "experiments": {"digits": {"phase": phase, "killed": killed, "arms": arms}}}

    for document in (told(1, 1, None, a=50, b=50), told(1, 1, None, a=50, b=50), told(2, 2, "b", a=50, b=50)):
        watch.see_experiments(document)
    assert [(phase["phase"], phase["weights"], phase["killed"]) for phase in watch.observed.phases] == [
        (1, {"a": 50, "b": 50}, None),
        (2, {"a": 50, "b": 50}, "b"),
    ]
    assert watch.observed.revision == 2
    assert [event["what"] for event in watch.observed.events] == ["the split changed to all traffic to b (phase 2)"]
    assert lasting_weights({"a": {"weight": 50}, "b": {"weight": 50}}, watch.observed.phases) == {"a": 0, "b": 50}
    watch.close()


def test_a_worker_without_a_request_is_noted() -> None:
    segments = [Segment(Path(f"ledger/ledger-{name}.parquet"), 5) for name in ("1-0000", "1-0001", "10-0000", "2-0000")]
    assert silent_workers(segments, 0) == []
    assert silent_workers(segments, 2) == []
    assert silent_workers(segments, 3) == ["worker 3 of 3 sent no request: the load was fewer users than the profile's"]


def test_only_records_of_the_runs_time_are_copied(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    names = []
    for name, times in {"before": [1, 9], "across": [5, 15], "within": [12], "after": [30], "empty": []}.items():
        names.append(str(tmp_path / f"{name}.parquet"))
        write_parquet(Table({"time_ns": Array(times, DataType.int64())}), names[-1])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    names.append(str(tmp_path / "broken.parquet"))
    copied, problems = copy_records(names, tmp_path / "out", Window(10, 15, 30, 0))
    assert copied == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["across.parquet", "within.parquet"]
    assert len(problems) == 1
    assert "broken.parquet" in problems[0]


def test_locust_by_itself_takes_its_job_from_the_environment(tmp_path: Path) -> None:
    given = {"ABGATE_PROFILE_NAME": "smoke", "ABGATE_HTTP": "gateway:8080", "ABGATE_ARTIFACTS": str(tmp_path)}
    job = from_environment(given)
    assert job is not None
    assert job.standalone
    assert (job.profile.name, job.target.http, job.target.grpc) == ("smoke", "gateway:8080", "127.0.0.1:8081")
    assert job.payloads == tmp_path / "digits" / "inputs.npz"
    assert from_environment({}) is None


def test_locust_by_itself_takes_no_open_loop() -> None:
    with pytest.raises(ConfigError, match="Locust has users, no arrivals"):
        from_environment({"ABGATE_PROFILE_NAME": "open-spike"})
