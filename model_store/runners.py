"""Runs inputs through one artefact and gives its decoded outputs, each artefact in a process of its own.

A SavedModel runs in a TensorFlow process, a TorchScript file in a PyTorch process; a TorchServe folder with somebody's own
handler runs in a TorchServe that the caller starts; servers already running are called by `remote`.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature
from model_store import arrays, process, remote
from model_store.layout import Layout
from model_store.process import Progress
from model_store.record import Artifact

Arrays = Mapping[str, NDArray[Any]]
# given TorchServe's folder of a model: a running TorchServe that serves it under the folder's name, as "host:port"
StartTorchServe = Callable[[Path], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What an artefact answered: one array per output, the versions that ran it, and how long all of it took."""

    outputs: Arrays
    versions: dict[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the artefacts of one model on one set of inputs."""

    layout: Layout
    signature: Signature
    inputs: Arrays
    progress: Progress
    torchserve: StartTorchServe | None = None
    served_signature: Path | None = None  # where it is not the layout's own

    def run(self, artifact: Artifact) -> Answers:
        """Run one artefact on all inputs.

        Raises ProcessError or RemoteError when it fails, ConfigError when it needs a TorchServe and none can be started.
        """
        started = time.perf_counter()
        match artifact.kind:
            case "savedmodel":
                extra: dict[str, Any] = {"savedmodel": str(self.layout.folder / artifact.path)}
                extra["signature_name"] = self.signature.signature_name
                outputs, versions = self._in_process(process.TENSORFLOW, artifact, extra)
            case "torchscript" | "python":
                extra = {"script": str(self.layout.folder / artifact.path), "signature": str(self.layout.signature)}
                outputs, versions = self._in_process(process.TORCH, artifact, extra)
            case "torchserve-variant":
                outputs, versions = self._in_process(process.TORCH_VARIANTS, artifact, self._folder(artifact))
            case "litert":
                extra = {"version": str(self.layout.folder / artifact.path), "signature": str(self._signature_file())}
                outputs, versions = self._in_process(process.TENSORFLOW_VARIANTS, artifact, extra)
            case "torchserve-folder":
                outputs, versions = self._in_torchserve(artifact)
            case "tensorflow-server":
                outputs, versions = self._remote(remote.TENSORFLOW, artifact.address, artifact.served_as), {}
            case "torchserve-server":
                outputs, versions = self._remote(remote.TORCHSERVE, artifact.address, artifact.served_as), {}
        return Answers(outputs, versions, time.perf_counter() - started)

    def _in_process(self, module: str, artifact: Artifact, extra: Mapping[str, Any]) -> tuple[Arrays, dict[str, str]]:
        with tempfile.TemporaryDirectory(prefix="abgate-parity-") as folder:
            given, answer = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
            arrays.save(given, {spec.name: self.inputs[spec.name] for spec in self.signature.inputs})
            versions = process.run(
                module, "predict", self.layout.model, self.progress, inputs=str(given), output=str(answer), **extra
            )
            return arrays.load(answer), versions

    def _signature_file(self) -> Path:
        return self.served_signature or self.layout.signature

    def _folder(self, artifact: Artifact) -> dict[str, Any]:
        """A model folder with our handler, as its own files say that it is loaded."""
        folder = self.layout.folder / artifact.path
        described = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
        config = yaml.safe_load((folder / described["configFile"]).read_text())["handler"]
        config["file"] = described["serializedFile"]
        return {"folder": str(folder), "signature": str(self._signature_file()), "config": config}

    def _in_torchserve(self, artifact: Artifact) -> tuple[Arrays, dict[str, str]]:
        if self.torchserve is None:
            raise ConfigError(
                [f"{self.layout.model}: {artifact.path} brings its own handler and needs a TorchServe to run; give one"]
            )
        self.progress(self.layout.model, "starting TorchServe", 0.0)
        with self.torchserve(self.layout.folder / artifact.path) as address:
            return self._remote(remote.TORCHSERVE, address, self.layout.model), {}

    def _remote(self, kind: remote.Kind, address: str, served_as: str) -> Arrays:
        server = remote.Server(kind, address, served_as or self.layout.model)
        return remote.predict(
            server, self.signature, self.inputs, lambda step, share: self.progress(self.layout.model, step, share)
        )
