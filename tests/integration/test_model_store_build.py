"""The digits model built from nothing, once, by the real frameworks; every test here looks at that build."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.free_ports import free_ports
from backends.launch import Supervisor
from backends.spec import BackendSpec, ServedModel
from gateway.errors import ConfigError
from gateway.protocol import signature_file
from model_store import arrays, digits, manifest, process
from model_store.add import AddRequest, add
from model_store.build import build
from model_store.layout import Layout, sha256_file
from model_store.parity import verify

HANDLER = Path(__file__).parents[2] / "backends" / "torchserve" / "handler.py"
STEPS = ("tensorflow", "torch", "folder")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The digits model, built and verified; tests that change something copy it."""
    root = tmp_path_factory.mktemp("artifacts")
    (result,) = build(["digits"], root, HANDLER)
    assert result.steps_run == STEPS
    (parity,) = verify(["digits"], root)
    assert parity.failures == ()
    return Layout(root, "digits")


def copied(built: Layout, to: Path) -> Layout:
    shutil.copytree(built.folder, to / built.model)
    return Layout(to, built.model)


def test_everything_the_other_parts_read_is_there(built: Layout) -> None:
    assert signature_file.load(built.signature) == digits.SIGNATURE
    assert (built.savedmodel / "1" / "saved_model.pb").is_file()
    folder = built.torchserve
    for name in ("model.pt", "handler.py", "handler_wire.py", "model-config.yaml", "MAR-INF/MANIFEST.json"):
        assert (folder / name).is_file(), name
    assert (folder / "signature.json").read_bytes() == built.signature.read_bytes()
    assert (folder / "handler.py").read_bytes() == HANDLER.read_bytes()
    served = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    assert (served["modelName"], served["serializedFile"]) == ("digits", "model.pt")


def test_the_inputs_are_all_real_digits_and_say_which_were_not_trained_on(built: Layout) -> None:
    evaluation = arrays.load(built.inputs)
    assert evaluation["pixels"].shape == (1797, 8, 8, 1)
    assert evaluation["pixels"].dtype == np.float32
    assert (evaluation["pixels"].min(), evaluation["pixels"].max()) == (0.0, 1.0)
    assert np.bincount(evaluation["split"]).tolist() == [1347, 450]
    assert set(evaluation["label"]) == set(range(10))


def test_both_artefacts_are_the_same_model_and_know_their_digits(built: Layout) -> None:
    document = json.loads(built.manifest.read_text())
    assert document["ok"] is True
    assert document["inputs"]["rows"] == 1797
    assert set(document["artifacts"]) == {"savedmodel", "torchserve"}
    for item in document["artifacts"].values():
        assert item["accuracy"] > 0.97
        assert item["max_abs_diff"] <= digits.TOLERANCE.atol
        assert item["argmax_agreement"] == 1.0
    assert "tensorflow" in document["artifacts"]["savedmodel"]["versions"]
    assert "torch" in document["artifacts"]["torchserve"]["versions"]


def test_the_manifest_holds_the_digest_of_every_artefact_file(built: Layout) -> None:
    kept = json.loads(built.manifest.read_text())["files"]
    files = [path for path in built.folder.rglob("*") if path.is_file()]
    artefacts = {path.relative_to(built.folder).as_posix(): sha256_file(path) for path in files}
    assert {**artefacts, **kept} == artefacts
    assert set(artefacts) - set(kept) == {"build.json", "manifest.json"}
    assert manifest.problems(built) == []


def test_a_second_build_does_nothing_and_imports_no_framework(built: Layout) -> None:
    def stamps() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in built.folder.rglob("*")}

    before = stamps()
    code = f"""
import sys
from pathlib import Path
from model_store.add import AddRequest, add
from model_store.build import build
(result,) = build(["digits"], Path({str(built.root)!r}), Path({str(HANDLER)!r}))
assert result.steps_run == (), result
assert not {{"tensorflow", "torch", "keras", "sklearn"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert stamps() == before


@pytest.mark.parametrize(
    ("change", "steps"), [("handler", ("folder",)), ("model.pt", ("torch", "folder")), ("nothing", ())]
)
def test_only_what_a_change_touches_is_built_again(
    built: Layout, tmp_path: Path, change: str, steps: tuple[str, ...]
) -> None:
    layout, handler = copied(built, tmp_path), HANDLER
    weights = sha256_file(layout.weights)
    if change == "handler":
        handler = tmp_path / "handler.py"
        handler.write_bytes(HANDLER.read_bytes() + b"\n# changed\n")
    elif change == "model.pt":
        os.truncate(layout.torchserve / "model.pt", 1000)
    (result,) = build(["digits"], tmp_path, handler)
    assert result.steps_run == steps
    assert sha256_file(layout.weights) == weights
    assert (layout.torchserve / "handler.py").read_bytes() == handler.read_bytes()
    # a proof of what was there before is no proof
    assert layout.manifest.exists() is (steps == ())


def test_a_build_that_fails_leaves_the_model_as_it_was(built: Layout, tmp_path: Path, monkeypatch: Any) -> None:
    layout = copied(built, tmp_path)
    os.truncate(layout.torchserve / "model.pt", 1000)
    monkeypatch.setattr(process, "TORCH", "model_store.no_such_process")
    with pytest.raises(process.ProcessError, match="No module named"):
        build(["digits"], tmp_path, HANDLER)
    assert manifest.problems(layout) == ["digits: torchserve/digits/model.pt changed since its parity was proved"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["digits"]


def test_other_weights_in_one_artefact_are_found_and_placed(built: Layout, tmp_path: Path) -> None:
    layout = copied(built, tmp_path)
    weights = arrays.load(layout.weights)
    weights["logits/bias"][3] += 0.01
    arrays.save(tmp_path / "other.npz", weights)
    process.run(
        process.TORCH,
        "build",
        "digits",
        process.silent,
        model="digits",
        weights=str(tmp_path / "other.npz"),
        inputs=str(layout.inputs),
        output=str(layout.torchserve / "model.pt"),
    )
    (result,) = verify(["digits"], tmp_path)
    assert not result.ok
    savedmodel, torchserve = result.artifacts
    assert savedmodel.ok
    (difference,) = torchserve.differences
    assert difference.output == "output_0"
    assert difference.max_abs_diff == pytest.approx(0.01, rel=0.01)
    assert difference.worst is not None
    assert difference.worst.index == (3,)
    (failure,) = result.failures
    assert f"torchserve: output 'output_0' of input {difference.worst.row} at [3] is " in failure
    assert manifest.problems(layout) == [failure]


def test_an_artefact_that_cannot_be_run_is_a_failure_in_the_framework_s_words(built: Layout, tmp_path: Path) -> None:
    layout = copied(built, tmp_path)
    (values,) = (layout.savedmodel / "1" / "variables").glob("*.data-*")
    broken = bytearray(values.read_bytes())
    broken[len(broken) // 2] ^= 1
    values.write_bytes(broken)
    (result,) = verify(["digits"], tmp_path)
    assert [item.ok for item in result.artifacts] == [False, True]
    assert "savedmodel" in result.failures[0]
    assert "Checksum does not match" in result.failures[0]


def test_a_model_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'digits' is not there"):
        verify(["digits"], tmp_path)
    with pytest.raises(ConfigError, match="there is no model"):
        verify(None, tmp_path)
    with pytest.raises(ConfigError, match="'resnet' is not a model of this repository; it has digits, mlp"):
        build(["resnet"], tmp_path, HANDLER)
    with pytest.raises(ConfigError, match="there is no such file"):
        build(None, tmp_path, tmp_path / "handler.py")


def free_addresses(count: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


@contextmanager
def running(work: Path, kind: str, model: str, path: Path) -> Iterator[str]:
    """A real server of one model, started as `abgate up` starts it; yields its HTTP address."""
    http, grpc, management, metrics = free_addresses(4)
    torchserve = kind == "torchserve"
    spec = BackendSpec(
        name=kind,
        kind=kind,
        http=http,
        grpc=grpc,
        management=management if torchserve else None,
        metrics=metrics if torchserve else None,
        models=(ServedModel(model, str(path)),),
        run_dir=str(work / "run"),
        log_dir=str(work / "logs"),
    )
    supervisor = Supervisor([spec], info_file=work / "backends.json", on_event=lambda event: None)
    supervisor.start()
    try:
        supervisor.wait_ready(60)
        yield http
    finally:
        supervisor.stop()


@pytest.mark.servers
def test_an_archive_and_a_pair_of_real_servers_are_taken_in(built: Layout, tmp_path: Path) -> None:
    """The archive is run by a real TorchServe, which then is one of the pair."""
    mar = tmp_path / "theirs.mar"
    with zipfile.ZipFile(mar, "w") as file:
        for path in sorted(built.torchserve.rglob("*")):
            file.write(path, path.relative_to(built.torchserve))
    pair = []

    @contextmanager
    def torchserve(folder: Path) -> Iterator[str]:
        with running(tmp_path / "ts", "torchserve", folder.name, folder) as address:
            yield address
            with running(tmp_path / "tf", "tensorflow_serving", "digits", built.savedmodel) as tensorflow:
                request = AddRequest(
                    "ours",
                    built.inputs,
                    tensorflow_address=tensorflow,
                    tensorflow_model="digits",
                    torchserve_address=address,
                    torchserve_model=folder.name,
                )
                pair.append(add(request, tmp_path / "pair"))

    archive = add(AddRequest("ours", built.inputs, savedmodel=built.savedmodel, mar=mar), tmp_path / "root", torchserve)
    for result in (archive, *pair):
        assert result.failures == ()
        assert result.rows == 1797
    assert len(pair) == 1
    assert all(item.accuracy is not None and item.accuracy > 0.97 for item in pair[0].artifacts)
    imported = signature_file.load(Layout(tmp_path / "pair", "ours").signature)
    assert (imported.inputs, imported.outputs) == (digits.SIGNATURE.inputs, digits.SIGNATURE.outputs)
