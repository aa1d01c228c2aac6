"""Forms of a model on the real servers: the handler's in TorchServe, a LiteRT file and a compiled signature in the stand-in."""

from __future__ import annotations

import json
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedded_models
import embedded_process
import numpy as np
import pytest
from test_torchserve_server import free_addresses
from tiny_torchserve import write_tiny

from backends.launch import Supervisor
from backends.spec import BackendSpec, ServedModel
from backends.torchserve import handler_models, handler_wire

MODULE = """
import torch


class Tiny(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.shift = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return torch.stack((x.sum(1), self.factor * x[:, 0]), 1) + self.shift


def module(factor):
    return Tiny(factor)
"""
X = np.array([[1, 2, 3], [4, 5, 6], [0, 0, 1]], np.float32)
Y = [[6.0, 2.0], [15.0, 8.0], [1.0, 0.0]]


def write_form(folder: Path, form: str) -> Path:
    """The tiny model in another form; the handler's section of the yaml says what its manifest's suffix does not."""
    import torch

    write_tiny(folder)
    (folder / "model.pt").unlink()
    (folder / "module.py").write_text(MODULE)
    module = handler_models.import_file(str(folder / "module.py")).module(2)
    file, handler = "weights.pth", {"form": form, "arguments": {"factor": 2}}
    if form in ("eager", "compile"):
        torch.save(module.state_dict(), folder / file)
        np.savez(folder / "example.npz", x=X[:1])
    else:
        file, handler = {"exported": "model.pt2", "onnx": "model.onnx"}[form], {}
        shapes: Any = ({0: torch.export.Dim.AUTO},)
        given = (torch.from_numpy(X[:2].copy()),)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if form == "onnx":
                torch.onnx.export(
                    module, given, str(folder / file), input_names=["x"], output_names=["y"], dynamo=True,
                    dynamic_shapes=shapes, external_data=False, verbose=False,
                )  # fmt: skip
            else:
                torch.export.save(torch.export.export(module.eval(), given, dynamic_shapes=shapes), folder / file)
    manifest = folder / "MAR-INF" / "MANIFEST.json"
    document = json.loads(manifest.read_text())
    document["model"]["serializedFile"] = file
    manifest.write_text(json.dumps(document))
    config = folder / "model-config.yaml"
    config.write_text(
        config.read_text().replace("handler:\n", "handler: " + json.dumps({"threads": 1} | handler) + "\n#")
    )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in the forms that are made in a second each."""
    root = tmp_path_factory.mktemp("forms")
    return {form: write_form(root / form, form) for form in ("eager", "exported", "onnx")}


FORMS = ["eager", "exported", "onnx", pytest.param("compile", marks=pytest.mark.matrix)]  # g++ takes half a minute


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_form_answers_like_the_model_for_one_row_and_for_several(
    folders: dict[str, Path], tmp_path: Path, form: str
) -> None:
    folder = folders.get(form) or write_form(tmp_path / form, form)
    file = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]["serializedFile"]
    config = {"threads": 1, "form": form, "arguments": {"factor": 2}}
    model = handler_models.load(str(folder), file, config, handler_wire.load_signature(str(folder / "signature.json")))
    assert model.form == form
    assert model.must_warm is (form == "compile")
    for rows in (1, 2, 3):
        model.warm([X[:rows].copy()])
        (answer,) = model.run([X[:rows].copy()])
        assert answer.tolist() == Y[:rows]


def test_a_form_nobody_knows_is_refused() -> None:
    with pytest.raises(
        ValueError, match="form 'tensorrt' is none of torchscript, exported, onnx, python, eager, compile"
    ):
        handler_models.load("", "model.bin", {"form": "tensorrt"}, None)


@pytest.mark.servers
def test_torchserve_serves_two_forms_of_one_model_side_by_side(folders: dict[str, Path], tmp_path: Path) -> None:
    http, grpc, management, metrics = free_addresses(4)
    spec = BackendSpec(
        name="torchserve",
        kind="torchserve",
        http=http,
        grpc=grpc,
        management=management,
        metrics=metrics,
        models=tuple(ServedModel(f"tiny-{form}", str(folders[form])) for form in ("eager", "onnx")),
        run_dir=str(tmp_path / "run"),
        log_dir=str(tmp_path / "logs"),
    )
    supervisor = Supervisor([spec], info_file=tmp_path / "backends.json", on_event=lambda _: None)
    supervisor.start()
    try:
        supervisor.wait_ready(120)
        for form in ("eager", "onnx"):
            url, body = f"http://{http}/predictions/tiny-{form}", json.dumps({"instances": X.tolist()}).encode()
            headers = {"content-type": "application/json", "x-abgate-format": "tfs-json"}
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
                assert json.load(answer)["predictions"] == Y
    finally:
        supervisor.stop()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded_process.Server]:
    """The stand-in with batches of up to 4, serving x -> 2 x + 1 as a LiteRT file and as a function that XLA compiles."""
    tf = embedded_models.tensorflow()
    root = tmp_path_factory.mktemp("forms")
    specs = [tf.TensorSpec([None, 3], tf.float32, name="x")]
    module = tf.Module()
    inner = tf.function(lambda x: {"y": 2.0 * x + 1.0}, jit_compile=True)
    plain = tf.function(lambda x: {"y": 2.0 * x + 1.0}, input_signature=specs)
    compiled = tf.function(lambda x: {"y": inner(x)["y"]}, input_signature=specs)
    tf.saved_model.save(module, str(root / "plain" / "1"), signatures=plain)
    tf.saved_model.save(module, str(root / "xla" / "1"), signatures=compiled)
    embedded_models.save_warm_up(root / "xla" / "1", [X[:1]])
    (root / "xla" / "batch_sizes.json").write_text("[1, 2, 4]")
    (root / "litert" / "1").mkdir(parents=True)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(root / "plain" / "1"))
    (root / "litert" / "1" / "model.tflite").write_bytes(converter.convert())
    (root / "models").write_text(embedded_process.config(root, "xla", "litert"))
    (root / "batching").write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 1 }"
        " allowed_batch_sizes: 1 allowed_batch_sizes: 2 allowed_batch_sizes: 4"
    )
    flags = ["--enable_batching", f"--batching_parameters_file={root / 'batching'}"]
    server = embedded_process.Server(root, f"--model_config_file={root / 'models'}", *flags)
    try:
        server.wait_for("xla", "litert")
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["xla", "litert"])
def test_the_stand_in_batches_a_compiled_and_a_converted_model(stand_in: embedded_process.Server, name: str) -> None:
    for rows in (1, 2, 3):
        status, answer = stand_in.predict(name, {"instances": X[:rows].tolist()})
        assert (status, answer) == (200, {"predictions": (2 * X[:rows] + 1).tolist()})
    metadata = stand_in.call("GET", f"/v1/models/{name}/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    described = metadata["serving_default"]["inputs"]["x"]
    assert (described["dtype"], [dim["size"] for dim in described["tensor_shape"]["dim"]]) == ("DT_FLOAT", ["-1", "3"])


def test_a_compiled_model_is_warm_for_every_size_before_it_is_available(stand_in: embedded_process.Server) -> None:
    assert "xla version 1 warmed up with 3 calls" in stand_in.log.read_text()  # one recorded, two more sizes


def test_a_shape_that_litert_cannot_take_is_the_clients_fault(stand_in: embedded_process.Server) -> None:
    status, answer = stand_in.predict("litert", {"instances": [[1.0, 2.0]]})
    assert status == 400
    assert "input x has shape [1, 2], LiteRT takes [-1, 3]" in answer["error"]
