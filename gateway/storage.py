"""Small files that must survive: written whole or not at all, and an audit that only grows.

IO only: what the values mean is decided in experiments/state and controlplane. Every write is on the disk when it returns.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.experiments.state import State, from_dict


def write_atomically(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Replace a file's content in one step, on the disk before it returns; raises OSError and leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class StateFile:
    """The state file of one gateway."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> State:
        """The kept state, the empty one where there is no file; ConfigError when the file cannot be read as one."""
        try:
            document = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValueError) as error:
            raise ConfigError(
                [f"{self.path}: cannot be read: {error}; repair it, or remove it to go back to abgate.yaml's weights"]
            ) from error
        return from_dict(document, str(self.path))

    def save(self, state: State) -> None:
        """Write the state; raises OSError."""
        write_atomically(self.path, (json.dumps(state.to_dict(), indent=2) + "\n").encode())


class AuditFile:
    """One JSON line for every change, appended and on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line; raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
