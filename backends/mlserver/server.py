"""One MLServer process over models of this repository: its files, its start, its end.

Here live the settings files and the wait until every model is loaded; the environment is made by backends.venvs.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backends import venvs
from backends.free_ports import free_ports

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
MESSAGE_BYTES = 64 << 20
_START = "import sys; from mlserver.cli import main; sys.argv[0] = 'mlserver'; main()"


class MLServerError(RuntimeError):
    """MLServer did not come up; the text ends with its log's last lines."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started MLServer: its addresses, its process id and its log."""

    http: str
    grpc: str
    pid: int
    log: Path


def python(root: Path) -> Path:
    """The python of MLServer's environment below `root`, made where it is not there yet. Raises venvs.VenvError."""
    return venvs.ensure(REQUIREMENTS, root)


def write(folder: Path, models: Mapping[str, Path], http_port: int, grpc_port: int) -> None:
    """Write settings.json, the runtime's files and one folder per model; `models`: each model's artefact folder by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("runtime.py", "functions.py"):
        shutil.copyfile(HERE / name, folder / name)
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "grpc_max_message_length": MESSAGE_BYTES,
        "metrics_endpoint": None,
        "parallel_workers": 0,  # in its own process: one worker more would be two more processes
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, artifacts in models.items():
        signature = json.loads((artifacts / "signature.json").read_bytes())
        place = folder / name
        place.mkdir(exist_ok=True)
        document = {
            "name": name,
            "implementation": "runtime.ArrayModel",
            "platform": "numpy",
            "versions": ["1"],
            "inputs": signature["inputs"],
            "outputs": signature["outputs"],
            "parameters": {
                "version": "1",
                "uri": str((artifacts / "weights.npz").absolute()),
                "extra": {"signature": str((artifacts / "signature.json").absolute())},
            },
        }
        (place / "model-settings.json").write_text(json.dumps(document))


@contextmanager
def running(interpreter: Path, folder: Path, models: Mapping[str, Path], seconds: float = 60.0) -> Iterator[Running]:
    """A started MLServer with every model ready, on free ports of 127.0.0.1; it is stopped at the end.

    Raises MLServerError when it ends early or is not ready in time.
    """
    http_port, grpc_port = free_ports(2)
    write(folder, models, http_port, grpc_port)
    log = folder / "mlserver.log"
    with log.open("wb") as output:
        # child.py ties it to this process: it dies with whoever started it
        guard = [sys.executable, "-I", "-S", str(HERE.parent / "child.py"), str(os.getpid()), "-"]
        process = subprocess.Popen(
            [*guard, str(interpreter), "-c", _START, "start", str(folder)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, http_port, models, log, seconds)
        yield Running(f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", process.pid, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, models: Mapping[str, Path], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    # not /v2/health/ready: it is 200 before the first model is known
    while not all(_status(port, f"/v2/models/{name}/ready") == 200 for name in models):
        late = time.monotonic() > deadline
        if late or process.poll() is not None:
            why = f"not ready within {seconds:g} s" if late else f"ended with {process.returncode}"
            raise MLServerError(f"MLServer: {why}: {log.read_text()[-3000:]}")
        time.sleep(0.05)


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
