"""How a child process talks to the command that started it, and dies with it.

TensorFlow and PyTorch each work in a process of their own; what such a child imports from here must stay cheap and must not
import a framework. Lines on standard output that begin with the mark are messages, everything else is log.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

MARK = "@abgate "


def tell(step: str, fraction: float) -> None:
    """Report what is being done and which share of it (0..1) is done."""
    _send({"step": step, "fraction": fraction})


def main(actions: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Run the action the first argument names with the keyword arguments the second one holds as JSON; send its result."""
    _die_with_parent()
    action, arguments = sys.argv[1], json.loads(sys.argv[2])
    _send({"result": actions[action](**arguments)})


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(MARK + json.dumps(message) + "\n")
    sys.stdout.flush()


def _die_with_parent() -> None:
    """End this process when the parent's end of standard input closes, however the parent ended."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
