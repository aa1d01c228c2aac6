"""What a TorchServe start writes: the private model copy with the start's settings, and the configuration around it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from backends.logs import RotatingLog
from backends.spec import BackendSpec, Batching, ServedModel
from backends.torchserve import handler_files, handler_path, model_config, plan
from backends.torchserve.folder import assemble, settings
from backends.torchserve.java import find_java, java_version
from backends.torchserve.plan import LONGEST_TMPDIR, properties

OWN = settings(Batching(8, 5), threads=1, workers=2)


def model_folder(
    folder: Path, config: str | None = "minWorkers: 9\nhandler: {threads: 9, mine: 1}\nstartupTimeout: 7\n"
) -> Path:
    (folder / "MAR-INF").mkdir(parents=True)
    described = {"modelName": "old", "modelVersion": "1.0", "handler": "handler.py"}
    if config is not None:
        described["configFile"] = "theirs.yaml"
        (folder / "theirs.yaml").write_text(config)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": described}))
    shutil.copyfile(handler_path(), folder / "handler.py")
    (folder / "model.pt").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(
    ("batching", "size", "delay"),
    [(Batching(), 1, 1), (Batching(16, 0), 16, 1), (Batching(16, 2.5), 16, 3), (Batching(4, 20), 4, 20)],
)
def test_model_config(batching: Batching, size: int, delay: int) -> None:
    found = yaml.safe_load(model_config(batching, threads=2, workers=3))
    assert (found["batchSize"], found["maxBatchDelay"]) == (size, delay)
    assert (found["minWorkers"], found["maxWorkers"], found["handler"]) == (3, 3, {"threads": 2})


@pytest.mark.parametrize("packed", [False, True])
def test_the_starts_settings_win_and_the_models_others_stay(tmp_path: Path, packed: bool) -> None:
    source = model_folder(tmp_path / "source")
    if packed:
        with zipfile.ZipFile(tmp_path / "m.mar", "w") as mar:
            for file in source.rglob("*"):
                mar.write(file, file.relative_to(source))
        source = tmp_path / "m.mar"
    into = tmp_path / "store" / "m"
    assemble(ServedModel("m", str(source), "2"), into, OWN)
    config = yaml.safe_load((into / "model-config.yaml").read_text())
    assert config == OWN | {"startupTimeout": 7, "handler": {"threads": 1, "mine": 1}}
    described = json.loads((into / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    assert (described["modelName"], described["modelVersion"], described["configFile"]) == (
        "m",
        "2",
        "model-config.yaml",
    )
    assert (into / "model.pt").read_bytes() == b"weights"
    assert (into / "handler_wire.py").read_bytes() == handler_files()[1].read_bytes()


def test_a_folder_of_ones_own_is_left_as_it_was(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", config=None)
    before = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    assemble(ServedModel("m", str(source)), tmp_path / "store" / "m", OWN)
    assert {file: file.read_bytes() for file in source.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("m", "absent", "neither a model folder nor a .mar file"),
        ("m", "empty", "has no MAR-INF/MANIFEST.json"),
        ("a/b", "empty", "letters, digits"),
        ("..", "empty", "letters, digits"),
    ],
)
def test_models_that_cannot_be_served(tmp_path: Path, name: str, path: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        assemble(ServedModel(name, str(tmp_path / path)), tmp_path / "store" / "m", OWN)


def backend(tmp_path: Path, http: str = "127.0.0.1:8085", **given) -> BackendSpec:
    model = ServedModel("m", str(model_folder(tmp_path / "source")))
    run = str(tmp_path / "run")
    base = {"management": "127.0.0.1:8086", "metrics": "127.0.0.1:8087", "run_dir": run, "models": (model,)}
    return BackendSpec("ts", "torchserve", http, "127.0.0.1:7070", **(base | given))


def read(config: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in config.read_text().splitlines())


@pytest.mark.parametrize(
    ("http", "asked", "token", "api"),
    [
        ("127.0.0.1:8085", None, "true", "true"),
        ("0.0.0.0:8085", None, "false", "false"),
        ("0.0.0.0:8085", False, "true", "false"),
        ("127.0.0.1:8085", True, "false", "false"),
    ],
)
def test_outside_loopback_a_token_is_needed_and_the_model_api_closed(
    tmp_path: Path, http: str, asked: bool | None, token: str, api: str
) -> None:
    command = plan(backend(tmp_path, http), token_authorization=asked)
    found = read(Path(command.cwd or "") / "config.properties")
    assert (found["disable_token_authorization"], found["enable_model_api"]) == (token, api)


def test_a_plan_starts_java_itself_inside_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "elsewhere")
    command = plan(backend(tmp_path))
    again = plan(backend(tmp_path / "second", run_dir=str(tmp_path / "run")))  # the same place, made anew
    folder = tmp_path / "run" / "ts"
    assert command.argv == again.argv
    assert (command.cwd, command.stand_in) == (str(folder), False)
    assert command.implementation.startswith("TorchServe 0.12")
    assert command.argv[command.argv.index("org.pytorch.serve.ModelServer") - 1].endswith(
        "ts/frontend/model-server.jar"
    )
    assert command.env["TMPDIR"] == command.env["TEMP"]
    assert "TS_CONFIG_FILE" not in command.env
    assert f"-Djava.io.tmpdir={command.env['TEMP']}" in command.argv
    found = read(folder / "config.properties")
    assert (found["inference_address"], found["grpc_inference_port"]) == ("http://127.0.0.1:8085", "7070")
    assert (found["metrics_mode"], found["disable_system_metrics"], found["load_models"]) == ("prometheus", "true", "m")
    assert Path(found["metrics_config"]).is_file()


def test_a_deep_folder_gets_a_short_temporary_one(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deep" * 10] * 3)
    command = plan(backend(tmp_path, run_dir=str(deep)))
    try:
        assert len(os.fsencode(command.env["TMPDIR"])) <= LONGEST_TMPDIR
        assert Path(command.env["TMPDIR"]).stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(command.env["TMPDIR"])


@pytest.mark.parametrize(
    ("given", "words"), [({"management": None}, "needs a management address"), ({"models": ()}, "no model to serve")]
)
def test_specs_torchserve_cannot_serve(tmp_path: Path, given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(backend(tmp_path, **given))


def test_the_containers_command_line() -> None:
    from backends.torchserve.__main__ import parse

    line = "--http 0.0.0.0:8085 --grpc 0.0.0.0:7070 --management 0.0.0.0:8086 --model a=/m/a --model b=/m/b.mar"
    spec, private = parse([*line.split(), "--threads", "2", "--max-batch-size", "8", "--open-inside-private-network"])
    assert private
    assert spec.models == (ServedModel("a", "/m/a"), ServedModel("b", "/m/b.mar"))
    assert (spec.threads, spec.workers, spec.batching, spec.metrics) == (2, 1, Batching(8, 0.0), None)


def test_metrics_have_a_port_of_their_own_when_none_is_given(tmp_path: Path) -> None:
    properties_text = properties(backend(tmp_path, metrics=None), tmp_path, token=False, model_api=True)
    found = dict(line.split("=", 1) for line in properties_text.splitlines())
    assert found["metrics_address"].startswith("http://127.0.0.1:")
    assert found["metrics_address"] not in (found["inference_address"], found["management_address"])


def fake_java(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025' >&2\n")
    path.chmod(0o755)
    return path


def test_which_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = fake_java(tmp_path / "old/bin/java", "1.8.0_301"), fake_java(tmp_path / "new/bin/java", "17.0.15")
    assert (java_version(str(old)), java_version(str(new)), java_version(str(tmp_path))) == (8, 17, None)
    assert find_java(str(new)) == str(new)
    with pytest.raises(FileNotFoundError, match="not a Java 17"):
        find_java(str(old))
    monkeypatch.setenv("PATH", f"{new.parent}:/usr/bin:/bin")
    monkeypatch.setenv("JAVA_HOME", str(old.parent.parent))
    assert find_java(None) == str(new)  # the one of JAVA_HOME is too old
    monkeypatch.setenv("PATH", "/usr/bin-that-is-not")
    assert find_java(None).endswith("java-runtime/bin/java")  # the packaged one
    monkeypatch.setenv("JAVA_HOME", str(new.parent.parent))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_java(None) == str(new)


def test_a_log_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "logs" / "b.log", limit=100, keep=2)
    for number in range(60):
        log.write(b"%09d\n" % number)
    log.write(b"x" * 500)
    log.close()
    log.write(b"late")
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "logs").iterdir()}
    assert sizes == {"b.log": 100, "b.log.1": 100, "b.log.2": 100}
    assert (tmp_path / "logs" / "b.log.1").read_text().endswith("000000059\n")
    assert log.tail(1) == "x" * 100
