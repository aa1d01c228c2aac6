"""Commands that talk to a running gateway: infer over every protocol, experiment show, weights and kill."""

from collections.abc import Iterator

import numpy as np
import pytest
from gateway_process import GatewayProcess, configuration, gateway, ready, two_fakes

from backends.free_ports import free_ports
from gateway.cli import run
from gateway.cli_infer_wires import WIRES


def free() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One gateway for the module, on ports its configuration names, with a token."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "token").write_text("hush")
    inputs = folder / "model_store" / "artifacts" / "m" / "inputs.npz"
    inputs.parent.mkdir(parents=True)
    np.savez(inputs, x=np.arange(6, dtype="f4").reshape(3, 2))
    with two_fakes() as fakes:
        listen = {"http": free(), "grpc": free()}
        document = configuration(fakes, listen=listen, admin={"token_file": "token"})
        with gateway(folder, document) as found:
            ready(found)
            yield found


def call(running: GatewayProcess, *arguments: str) -> int:
    return run([*arguments, "-c", str(running.folder / "abgate.yaml")])


@pytest.mark.parametrize("protocol", ["rest", "grpc", *WIRES])
def test_infer_prints_tensors_arm_and_timings(
    running: GatewayProcess, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    assert call(running, "infer", "m", "--input", "[[1, 2], [3, 4]]", "--protocol", protocol, "--arm", "b") == 0
    told = capsys.readouterr().out
    assert "x-abgate-arm: b" in told
    assert "x-abgate-assignment: forced" in told
    assert "server-timing: gateway;dur=" in told
    assert "output_0 FP32 [2, 1]" in told
    assert "[[3.]\n [7.]]" in told


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_infer_lays_all_arms_side_by_side(
    running: GatewayProcess, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    assert call(running, "infer", "m", "--index", "2", "--protocol", protocol, "--all-arms") == 0
    told = capsys.readouterr().out
    assert "a and b: max |difference| 0 at [0, 0]" in told
    assert told.count("9") >= 2


def test_infer_is_sticky_with_a_unit(running: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(running, "infer", "m", "--index", "0", "--unit", "u1") == 0
    assert "x-abgate-assignment: sticky" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nope", "--index", "0"], 3, "there is no such model; there are: m"),
        (["m"], 3, "--input or --index"),
        (["m", "--index", "3"], 3, "has 3 rows, the last one is 2"),
        (["m", "--input", "no-such-file"], 3, "is no JSON and no file"),
        (["m", "--input", "[[1, "], 1, "400: JSON Parse error"),
        (["m", "--input", "[[1, ", "--protocol", "grpc"], 1, "JSON Parse error"),
        (["m", "--index", "0", "--arm", "z"], 1, "no arm 'z'; 'm' has: a, b"),
        (["m", "--index", "0", "--arm", "z", "--protocol", "grpc"], 1, "no arm 'z'; 'm' has: a, b"),
        (["m", "--input", "[[1, 2, 3]]", "--protocol", "rest"], 1, "400: "),
        (["m", "--input", "[[1, 2, 3]]", "--protocol", "grpc"], 1, "INVALID_ARGUMENT: "),
    ],
)
def test_infer_says_what_was_wrong(
    running: GatewayProcess, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert call(running, "infer", *arguments) == code
    assert words in capsys.readouterr().err


def test_experiments_are_shown_changed_and_killed(running: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(running, "experiment", "show") == 0
    assert "revision 1\nm: e (phase 1, from the config)\n  a                weight 50" in capsys.readouterr().out
    assert call(running, "experiment", "weights", "m", "a=1", "b=3", "--why", "test") == 0
    assert "b                weight 3" in capsys.readouterr().out
    assert call(running, "experiment", "weights", "m", "a=1", "b=1", "--why", "late", "--revision", "1") == 1
    assert "409: revision 1 is not the one in force" in capsys.readouterr().err
    assert call(running, "experiment", "weights", "m", "a=1", "b=x", "--why", "bad") == 3
    assert call(running, "experiment", "kill", "m", "--to", "a") == 0
    assert "kill switch: everything to a" in capsys.readouterr().out
    assert {running.predict().headers["x-abgate-arm"] for _ in range(10)} == {"a"}


def test_a_gateway_that_is_not_there_or_wants_a_token_says_so(
    running: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["experiment", "show", "--url", f"http://{free()}"]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert run(["experiment", "show", "--url", f"http://{running.http}"]) == 1
    assert "401: the admin API needs the header" in capsys.readouterr().err
