"""How each server's versions are changed from outside, step by step, with the wall clock of each step.

Acts on a running server by its own means and waits until the server says that a step is done; nothing here sends load.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP_S = 120.0
"""A step that takes longer has failed."""
REST_S = 1.0
ROUNDS = 3
"""A round is about 5 s, 500 requests; that at most 0.1% fail, among all claims, needs over 6,000 of them in six starts."""


class ChangeFailed(RuntimeError):
    """A step did not come to its end in time: nothing is known about the server's ability."""


class ChangeRefused(RuntimeError):
    """The server said no; the text says to what, and its words."""


@dataclass
class Clock:
    """Steps as they happened: name -> (begun, done) in wall nanoseconds; from the second round on the name bears its number.

    both: two versions answered side by side, in every round.
    refused: what the server said no to; missing: why the steps were not gone through, for another reason.
    """

    steps: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: str = ""
    missing: str = ""
    both: bool | None = None

    @contextmanager
    def step(self, name: str, turn: int) -> Any:
        """Mark a step's beginning and its end, of a round from 1; one that fails has none."""
        begun = time.time_ns()
        yield
        self.steps[name if turn == 1 else f"{name} {turn}"] = (begun, time.time_ns())


@dataclass(frozen=True)
class TensorFlowChanges:
    """By folders below the base path, as the server's documentation says: the newest version is the default at once."""

    http: str
    model: str
    base: Path
    clock: Clock

    def run(self) -> None:
        """Add version 2 beside 1, which goes as 2 is available; then take 2 away, so that 1 comes back. ROUNDS times."""
        for turn in range(1, ROUNDS + 1):
            with self.clock.step("add", turn):
                (self.base / "2").symlink_to((self.base / "1").resolve())
                _until("version 2 available, 1 unloaded", lambda: self._states() == {1: "END", 2: "AVAILABLE"})
            time.sleep(REST_S)
            with self.clock.step("remove", turn):
                (self.base / "2").unlink()
                _until("version 1 available, 2 unloaded", lambda: self._states() == {1: "AVAILABLE", 2: "END"})
            time.sleep(REST_S)

    def _states(self) -> dict[int, str]:
        answer = json.loads(_call("GET", f"http://{self.http}/v1/models/{self.model}"))
        return {int(one["version"]): str(one["state"]) for one in answer.get("model_version_status", [])}


@dataclass(frozen=True)
class TorchServeChanges:
    """By the management API: register beside the first, ask both, set the default, unregister the first.

    folders: of the version that is served, and of one with another number.
    """

    management: str
    http: str
    model: str
    folders: tuple[Path, Path]
    body: bytes
    clock: Clock

    def run(self) -> None:
        """Add the other version, ask both, make it the default, remove the one before. ROUNDS times, forth and back."""
        versions = [_version(folder) for folder in self.folders]
        for turn in range(1, ROUNDS + 1):
            old, new = versions if turn % 2 else versions[::-1]
            self._round(turn, old, new, self.folders[turn % 2])

    def _round(self, turn: int, old: str, new: str, folder: Path) -> None:
        base = f"http://{self.management}/models"
        query = {
            "url": str(folder.absolute()),
            "model_name": self.model,
            "initial_workers": "1",
            "synchronous": "false",  # else the server's one event loop waits for the worker, and all requests with it
            "batch_size": "1",
            "max_batch_delay": "1",
        }
        with self.clock.step("add", turn):
            _call("POST", f"{base}?{urllib.parse.urlencode(query)}")
            _until(f"a ready worker of version {new}", lambda: self._ready(new))
        self.clock.both = all(self._answers(version) for version in (old, new)) and self.clock.both is not False
        with self.clock.step("default", turn):
            _call("PUT", f"{base}/{self.model}/{new}/set-default")
        time.sleep(REST_S)
        with self.clock.step("remove", turn):
            _call("DELETE", f"{base}/{self.model}/{old}")
        time.sleep(REST_S)

    def _ready(self, version: str) -> bool:
        told = json.loads(_call("GET", f"http://{self.management}/models/{self.model}/{version}"))[0]
        return any(worker["status"] == "READY" for worker in told["workers"])

    def _answers(self, version: str) -> bool:
        headers = {"content-type": "application/octet-stream", "x-abgate-format": "tfs-json"}
        try:
            answer = _call("POST", f"http://{self.http}/predictions/{self.model}/{version}", self.body, headers)
        except ChangeRefused:
            return False
        return "predictions" in json.loads(answer)


def _version(folder: Path) -> str:
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text("utf-8"))
    return str(manifest["model"]["modelVersion"])


def _until(what: str, true: Callable[[], bool]) -> None:
    end = time.monotonic() + STEP_S
    while not true():
        if time.monotonic() > end:
            raise ChangeFailed(f"waited {STEP_S:g} s for {what}")
        time.sleep(0.1)


def _call(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=STEP_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise ChangeRefused(f"{method} {url}: {error.code} {error.read()[:300].decode(errors='replace')}") from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise ChangeFailed(f"{method} {url}: {error}") from error
