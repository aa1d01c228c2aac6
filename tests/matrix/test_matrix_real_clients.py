"""Real clients, each in its own environment, against the gateway: every model on every arm, health, metadata, refusals.

All of it is marked `matrix`: the environments take minutes to make the first time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.matrix import real_clients
from tests.matrix.stack import ARMS, MODELS, TOLERANCE, VENVS, Matrix, compare, sample

pytestmark = [pytest.mark.servers, pytest.mark.matrix]
ANY = {(model, "") for model in MODELS}
EVERY = {(model, arm) for model in MODELS for arm in ARMS}
PAIR = {("pair", arm) for arm in ARMS}
# script -> (environment, what is asked how: every model on every arm where the client can choose one)
CLIENTS: dict[str, tuple[str, dict[str, set[tuple[str, str]]]]] = {
    "triton_client": (
        "triton",
        dict.fromkeys(("http binary", "http json", "grpc", "aio http", "aio grpc"), EVERY),
    ),
    "kserve_client": ("kserve", dict.fromkeys(("v1", "v2 json", "v2 binary", "grpc"), EVERY)),
    "ovms_client": ("ovms", dict.fromkeys(("http", "grpc"), ANY)),
    "tfserving_client": (real_clients.OWN, dict.fromkeys(("content", "typed"), EVERY)),
    "torchserve_client": (real_clients.OWN, {"predictions": EVERY, "own open inference": PAIR}),
}
OIP = "inference.GRPCInferenceService"
TORCHSERVE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
TORCHSERVE_OIP = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"


def facts(script: str) -> dict[str, Any]:
    """What a client must be told: a value, or a pattern that is found in its text."""
    unknown = re.compile("none")
    if script == "triton_client":
        both = {f"{label} {fact}": True for label in ("http", "grpc") for fact in ("live", "ready", "model ready")}
        refusals = {f"{label} wrong rank": re.compile("pixels.*rank") for label in ("http", "grpc")}
        return both | refusals | {
            "http no such model ready": False,
            "http metadata": re.compile("'a'.*'b'.*'sum'.*'scaled'"),
            "grpc metadata": re.compile("'a'.*'b'.*'sum'.*'scaled'"),
            "http config": re.compile("TYPE_FP32"),
            "grpc config": re.compile("TYPE_FP32"),
            "http one output": ["scaled"],
            "grpc one output": ["scaled"],
            "http no such model": unknown,
            "grpc no such model": unknown,
        }  # fmt: skip
    if script == "kserve_client":
        told = (
            "v2 live",
            "v2 ready",
            "v1 model ready",
            "v2 model ready",
            "grpc live",
            "grpc ready",
            "grpc model ready",
        )
        return dict.fromkeys(told, True) | {
            "v2 no such model": re.compile("none.*404"),
            "v2 one input missing": re.compile("b.*400"),
        }
    if script == "ovms_client":
        ready = {"1": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
        refusals = {f"{label} no such model": re.compile("ModelNotFoundError") for label in ("http", "grpc")}
        return refusals | {"http status": ready, "grpc status": ready, "grpc metadata": re.compile("DT_FLOAT")}
    if script == "tfserving_client":
        return {
            "status": 30,
            "metadata": ["ids", "text"],
            "wrong rank": re.compile("INVALID_ARGUMENT"),
            "no such model": re.compile("NOT_FOUND"),
        }
    return {
        "ping": "Healthy",
        "stream": re.compile("FAILED_PRECONDITION"),
        "no such model": re.compile("NOT_FOUND"),
    }


def check(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise AssertionError unless every wanted fact was told."""
    wrong = {
        name: found.get(name)
        for name, want in wanted.items()
        if (not want.search(str(found.get(name))) if isinstance(want, re.Pattern) else found.get(name) != want)
    }
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize("script", CLIENTS)
def test_a_real_client_gets_the_models_numbers(matrix: Matrix, tmp_path: Path, script: str) -> None:
    environment, wanted = CLIENTS[script]
    cases = real_clients.write_cases(tmp_path, list(ARMS))
    found = real_clients.run(script, environment, matrix.http, matrix.grpc, cases)
    assert not real_clients.problems(found), "\n".join(real_clients.problems(found))
    calls = {(how, *place) for how, places in wanted.items() for place in places}
    assert real_clients.asked(found) == calls
    check(found["facts"], facts(script))


def test_health_and_reflection_tell_of_every_service(matrix: Matrix, tmp_path: Path) -> None:
    cases = real_clients.write_cases(tmp_path, [])
    told = real_clients.run("health_client", real_clients.OWN, matrix.http, matrix.grpc, cases)["facts"]
    check(told, {"health": "SERVING", "watch": "SERVING", "health of none": re.compile("NOT_FOUND")})
    services = {OIP, TORCHSERVE, TORCHSERVE_OIP, "tensorflow.serving.PredictionService"}
    assert services <= set(told["services"])
    assert {"ServerLive", "ModelMetadata", "ModelConfig", "ModelInfer"} <= set(told[f"methods {OIP}"])
    assert {"Ping", "Predictions"} <= set(told[f"methods {TORCHSERVE}"])
    assert "ModelInfer" in told[f"methods {TORCHSERVE_OIP}"]


@pytest.mark.parametrize("arm", ARMS)
def test_mlserver_infer(matrix: Matrix, tmp_path: Path, arm: str) -> None:
    inputs, wanted = sample("pair", 40, 4)
    tensors = [
        {"name": name, "shape": array.shape, "datatype": "FP32", "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]
    given, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(json.dumps({"inputs": tensors}) + "\n")
    program = real_clients.python("mlserver").with_name("mlserver")
    subprocess.run(
        [program, "infer", "-u", matrix.http, "-m", "pair", "-i", given, "-o", answers, "-H", f"x-abgate-arm:{arm}"],
        check=True, capture_output=True, timeout=real_clients.SECONDS, cwd=tmp_path,
    )  # fmt: skip
    outputs = json.loads(answers.read_text())["outputs"]
    found = {tensor["name"]: np.array(tensor["data"], np.float32).reshape(tensor["shape"]) for tensor in outputs}
    compare(found, wanted, TOLERANCE["pair"])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer_runs(matrix: Matrix, tmp_path: Path, protocol: str) -> None:
    """Triton's C++ client: it asks for the model's configuration, and over HTTP for binary tensors."""
    folder = real_clients.python("perf").parent
    paths = [str(path.parent) for path in folder.parent.rglob("libcudart.so.12")] + [str(b64_library())]
    done = subprocess.run(
        [folder / "perf_analyzer", "-m", "pair", "-i", protocol, "-u", getattr(matrix, protocol), "--input-data", "zero",
         "--measurement-mode", "count_windows", "--measurement-request-count", "60", "-s", "99", "-r", "3"],
        capture_output=True, text=True, timeout=real_clients.SECONDS, check=False, cwd=tmp_path,
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(paths)},
    )  # fmt: skip
    count = re.search(r"Request count: (\d+)", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert count is not None, done.stdout
    assert int(count[1]) >= 60


def b64_library() -> Path:
    """The folder of libb64.so.0d, from Debian's package, unpacked beside the environments where the machine lacks it."""
    place = VENVS / "libb64"
    found = [*place.rglob("libb64.so.0d"), *Path("/usr/lib").rglob("libb64.so.0d")]
    if found:
        return found[0].parent
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(
            "perf_analyzer needs libb64.so.0d, which this machine lacks, and there is no apt-get to fetch it with"
        )
    place.mkdir(parents=True, exist_ok=True)
    got = subprocess.run(["apt-get", "download", "libb64-0d"], cwd=place, capture_output=True, text=True, check=False)
    packages = sorted(place.glob("*.deb"))
    if got.returncode or not packages:
        pytest.skip(f"perf_analyzer needs libb64.so.0d, and apt-get cannot fetch it: {got.stderr.strip()[-300:]}")
    subprocess.run(["dpkg-deb", "-x", packages[0], place], check=True)
    return next(place.rglob("libb64.so.0d")).parent
