"""The command line: what it knows, what it costs to ask, and which code it ends with."""

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from gateway import cli
from gateway.cli_infer import difference
from gateway.errors import AbgateError, ConfigError


def test_help_names_every_command_and_imports_no_part() -> None:
    program = """
import sys
from gateway.cli import run
code = run(["--help"])
parts = [name for name in ("fastapi", "grpc", "numpy", "rich", "pydantic", "torch", "locust", "uvicorn", "backends",
                           "model_store", "loadtest", "yaml") if name in sys.modules]
assert not parts, parts
sys.exit(code)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name in (
        "init",
        "check",
        "serve",
        "up",
        "demo",
        "models",
        "infer",
        "loadtest",
        "report",
        "compare",
        "experiment",
    ):
        assert f"  {name} " in ended.stdout


@pytest.mark.parametrize("name", [*cli._COMMANDS, *(f"loadtest {name}" for name in cli.EXPERIMENTS), "loadtest smoke"])
def test_every_command_loads_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*name.split(), "--help"]) == 0
    assert "Usage: abgate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("loadtest smoke -c gone.yaml", "gone.yaml: there is no such file"),
        ("loadtest -c gone.yaml smoke", "gone.yaml: there is no such file"),  # options may come before the profile
        ("loadtest compare", "name a model"),
        ("loadtest compare digits --arm x=torchserve:savedmodel", "is served by tensorflow_serving, not 'torchserve'"),
        ("loadtest compare digits --arm x=none", "'none' is not one of"),
        ("loadtest compare digits --cores one", "is no list of cores"),
        ("loadtest aa --resume gone", "there is no such run"),
    ],
)
def test_load_tests_take_a_profile_or_an_experiment(
    line: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Path(__file__).resolve().parents[2] / "model_store" / "artifacts"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_store").mkdir()
    (tmp_path / "model_store" / "artifacts").symlink_to(artifacts)
    assert cli.run(line.split()) == 3
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError(["a: wrong", "b: wrong too"]), 3, "a: wrong\nb: wrong too\n"),
        (click.UsageError("no such thing"), 3, "no such thing"),
        (AbgateError("it failed"), 1, "abgate: it failed"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (ZeroDivisionError("oops"), 99, "ZeroDivisionError: oops"),
        (click.exceptions.Exit(2), 2, ""),
    ],
)
def test_how_a_command_ends_decides_the_exit_code(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    assert cli.run(["serve"]) == code
    assert words in capsys.readouterr().err


def test_a_commands_own_code_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.cli, "main", lambda *_, **__: 2)
    assert cli.run(["report"]) == 2


def test_init_writes_once_and_check_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "abgate.yaml"
    assert cli.run(["init", "-c", str(path)]) == 0
    assert cli.run(["init", "-c", str(path)]) == 3
    assert "is there already" in capsys.readouterr().err
    assert cli.run(["check", "-c", str(path)]) == 3
    told = capsys.readouterr().err
    assert "models.digits.signature: there is no file" in told
    assert "models.mlp.signature: there is no file" in told
    for model in ("digits", "mlp"):
        folder = tmp_path / "model_store" / "artifacts" / model
        folder.mkdir(parents=True)
        tensor = '[{"name": "x", "datatype": "FP32", "shape": [-1]}]'
        text = f'{{"format": 1, "model": "{model}", "inputs": {tensor}, "outputs": {tensor}}}'
        (folder / "signature.json").write_text(text)
    assert cli.run(["check", "-c", str(path)]) == 0
    told = capsys.readouterr().out
    assert "digits: torchserve 50, tfserving 50 (from abgate.yaml, phase 1)" in told
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["abgate.yaml", "model_store"]


def test_an_unknown_command_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["nope"]) == 3
    assert "No such command 'nope'" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", "latest", "-c", str(tmp_path / "abgate.yaml")]) == 3
    assert "there is no such run" in capsys.readouterr().err


NAN = float("nan")
DIFFERENCES = [
    ([[1.0, 2.0]], [[1.0, 2.5]], "max |difference| 0.5 at [0, 1]; same argmax in 1 of 1 rows"),
    ([[1.0, 2.0]], [[3.0, 2.0]], "max |difference| 2 at [0, 0]; same argmax in 0 of 1 rows"),
    ([1.0, NAN], [1.0, NAN], "max |difference| 0 at [0]"),
    ([1.0, NAN], [1.0, 2.0], "max |difference| nan at [1]"),
    ([float("inf")], [float("inf")], "max |difference| 0 at [0]"),
    ([[1.0]], [1.0], "shapes differ: [1, 1] and [1]"),
    ([], [], "both are empty"),
    ([b"a", b"b"], [b"a", b"c"], "1 of 2 elements differ"),
]


@pytest.mark.parametrize(("one", "other", "words"), DIFFERENCES)
def test_the_difference_of_two_answers_in_words(one: list[object], other: list[object], words: str) -> None:
    assert difference(np.array(one), np.array(other)) == words
