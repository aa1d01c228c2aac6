"""Starts the framework processes and reads their messages.

Here live the child's environment, its progress and its errors; what the children do lives in `tensorflow_process` and
`torch_process`. Nothing here imports a framework.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.errors import AbgateError
from model_store.child import MARK

# (model, what is being done, share of it done 0..1)
Progress = Callable[[str, str, float], None]

TENSORFLOW = "model_store.tensorflow_process"
TORCH = "model_store.torch_process"
TORCH_VARIANTS = "model_store.variants_torch"
TENSORFLOW_VARIANTS = "model_store.variants_tensorflow"
_TAIL = 12
_ENVIRONMENT = {
    # oneDNN aborts the whole process on a wrong rank; without it TensorFlow answers with an error
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONUNBUFFERED": "1",
}


class ProcessError(AbgateError):
    """A framework process failed; the message holds the end of what it wrote."""


def silent(model: str, step: str, fraction: float) -> None:
    """The Progress that shows nothing."""


def run(module: str, action: str, label: str, progress: Progress, /, **arguments: Any) -> dict[str, Any]:
    """Run one action in a new Python process and give its result; raises ProcessError when it fails.

    label is the model's name, for progress and errors; arguments go to the action as they are.
    """
    command = [sys.executable, "-m", module, action, json.dumps(arguments)]
    environment = {**os.environ, **_ENVIRONMENT}
    # the child finds this package from any working directory
    parts = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in parts if part)
    result: dict[str, Any] | None = None
    log: deque[str] = deque(maxlen=_TAIL)
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            for line in child.stdout:
                if not line.startswith(MARK):
                    log.append(line.rstrip())
                    continue
                message = json.loads(line.removeprefix(MARK))
                if "result" in message:
                    result = message["result"]
                else:
                    progress(label, message["step"], message["fraction"])
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            child.stdin.close()
            child.stdout.close()
        if code != 0 or result is None:
            errors.seek(0)
            log.extend(line.rstrip() for line in errors)
            raise ProcessError(_failure(module, action, label, code, list(log)))
    return result


def _failure(module: str, action: str, model: str, code: int, log: list[str]) -> str:
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    framework = {
        TENSORFLOW: "TensorFlow",
        TORCH: "PyTorch",
        TENSORFLOW_VARIANTS: "TensorFlow",
        TORCH_VARIANTS: "PyTorch",
    }.get(module, module)
    return f"{model}: the {framework} process ({action}) {ended}:\n" + "\n".join(f"  {line}" for line in log)
