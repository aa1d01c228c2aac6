"""Every server at once: TorchServe and the TensorFlow side from `abgate up`, a real MLServer beside them, one gateway before all.

Each model has six arms, one for each server and transport; a client picks one with x-abgate-arm.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.free_ports import free_ports
from backends.mlserver import server as mlserver
from gateway.protocol import signature_file
from model_store import arrays
from tests.contract import stack as contract
from tests.matrix.wires import Arrays, Place, Spec

MODELS = ("digits", "pair", "tokens")
# arm -> (backend, transport)
ARMS = {
    "torchserve-http": ("torchserve", "http"),
    "torchserve-grpc": ("torchserve", "grpc"),
    "tensorflow-http": ("tfserving", "http"),
    "tensorflow-grpc": ("tfserving", "grpc"),
    "open_inference-http": ("mlserver", "http"),
    "open_inference-grpc": ("mlserver", "grpc"),
}
SECONDS_TO_START = 600.0  # of each part, on a machine that is busy with other things; 20 where it is not
VENVS = contract.ROOT / ".abgate" / "venvs"
# rows of one request; each test takes other rows of the evaluation inputs
TOLERANCE = {"digits": 1e-4, "pair": 1e-5, "tokens": 0.0}


@dataclass(frozen=True)
class Matrix:
    """The gateway's addresses, and the MLServer's own for clients that ask it directly."""

    http: str
    grpc: str
    mlserver: mlserver.Running
    gateway: contract.Stack

    def place(self, model: str, arm: str, **headers: str) -> Place:
        """Where to ask for a model on an arm."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Place(self.http, self.grpc, model, outputs(model), {"x-abgate-arm": arm} | named)


def outputs(model: str) -> Mapping[str, Spec]:
    """The outputs the model's signature names."""
    signature = signature_file.load(contract.ARTIFACTS / model / "signature.json")
    return {spec.name: Spec(spec.datatype, spec.shape) for spec in signature.outputs}


def sample(model: str, first: int, rows: int) -> tuple[Arrays, Arrays]:
    """Rows of the evaluation inputs, and the right answers: those of the model's TensorFlow definition before export."""
    folder = contract.ARTIFACTS / model
    evaluation = arrays.load(folder / "inputs.npz")
    signature = signature_file.load(folder / "signature.json")
    part = slice(first, first + rows)
    inputs = {spec.name: evaluation[spec.name][part] for spec in signature.inputs}
    if model == "digits":
        reference = arrays.load(folder / "reference.npz")
    else:
        reference = {spec.name: evaluation[f"out:{spec.name}"] for spec in signature.outputs}
    return inputs, {name: array[part] for name, array in reference.items()}


def compare(found: Arrays, wanted: Arrays, tolerance: float) -> None:
    """Raise AssertionError unless names, types, shapes and numbers are those wanted."""
    assert {name: (array.dtype, array.shape) for name, array in found.items()} == {
        name: (array.dtype, array.shape) for name, array in wanted.items()
    }
    for name, array in wanted.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


@contextmanager
def start(folder: Path) -> Iterator[Matrix]:
    """The whole stack, ready; everything is ended with it."""
    artifacts = {model: contract.ARTIFACTS / model for model in MODELS}
    with mlserver.running(mlserver.python(VENVS), folder / "mlserver", artifacts, SECONDS_TO_START) as oip:
        stack = _up(folder, oip)
        try:
            stack.wait_ready(SECONDS_TO_START)
            yield Matrix(stack.http, stack.grpc, oip, stack)
        finally:
            stack.stop()


def _up(folder: Path, oip: mlserver.Running) -> contract.Stack:
    ports = iter(f"127.0.0.1:{port}" for port in free_ports(8))
    http, rpc = next(ports), next(ports)
    document = f"""
listen: {{http: {http}, grpc: {rpc}}}
limits: {{body: 16MiB, rows: 64, timeout: 30s}}
backends:
  torchserve: {{kind: torchserve, http: {next(ports)}, grpc: {next(ports)}, management: {next(ports)}, metrics: {next(ports)},
               start: local}}
  tfserving: {{kind: tensorflow_serving, http: {next(ports)}, grpc: {next(ports)}, start: local}}
  mlserver: {{kind: open_inference, http: {oip.http}, grpc: {oip.grpc}}}
models:
"""
    for model in MODELS:
        artifacts = contract.ARTIFACTS / model
        places = {"torchserve": f"{artifacts}/torchserve/{model}", "tfserving": f"{artifacts}/savedmodel"}
        document += f"  {model}:\n    signature: {artifacts}/signature.json\n    arms:\n"
        for arm, (backend, transport) in ARMS.items():
            artifact = f", artifact: {places[backend]}" if backend in places else ""
            document += f"      {arm}: {{backend: {backend}, transport: {transport}, weight: 1{artifact}}}\n"
        document += f'    experiment: {{id: {model}-servers, salt: "7f3a", allow_forced_arm: true}}\n'
    (folder / "abgate.yaml").write_text(document)
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "up", "--config", str(folder / "abgate.yaml"),
             "--wait", str(SECONDS_TO_START)],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
    return contract.Stack(folder, http, rpc, process)
