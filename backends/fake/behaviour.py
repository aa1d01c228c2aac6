"""How the fake behaves now, and what it has seen: the state its listeners share and its control endpoint changes.

Lives here: the modes, the waiting they ask for, the memory of requests. No sockets and no wire formats.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

MODES = {
    "ok": "answer at once",
    "slow": "answer after delay_ms",
    "reset": "reset the connection when the request is read (gRPC: UNAVAILABLE)",
    "half": "close the connection in the middle of the answer (gRPC: UNAVAILABLE)",
    "garbage": "answer 200 with a body that is no prediction (gRPC: bytes that are no message)",
    "noise": "answer bytes that are no HTTP (gRPC: as garbage)",
    "500": "answer 500 (gRPC: INTERNAL)",
    "503": "answer 503 (gRPC: UNAVAILABLE)",
    "hang": "never answer, until the mode changes",
    "close-idle": "answer, promise to keep the connection, and close it after delay_ms",
}
KEPT = 50


@dataclass(frozen=True)
class Seen:
    """One inference request as it came: `protocol` is http or grpc, `path` with its method for gRPC."""

    protocol: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Shape:
    """What an answer looks like: each row of output `output` is [s, s+1, ...], `width` wide, s = sum of the input's row."""

    models: tuple[str, ...] = ()
    output: str = "output_0"
    width: int = 1
    version: str = "1"


class Behaviour:
    """Shared by the fake's threads."""

    def __init__(self, shape: Shape, mode: str = "ok", delay_ms: float = 0.0) -> None:
        """Start in `mode`; an empty `shape.models` serves any model name."""
        self.shape = shape
        self.count = {"http": 0, "grpc": 0}
        self.last: deque[Seen] = deque(maxlen=KEPT)
        self._condition = threading.Condition()
        self._times: int | None = None
        self._generation = 0
        self.mode, self.delay_ms = "ok", 0.0
        self.set(mode, delay_ms)

    def set(self, mode: str, delay_ms: float = 0.0, times: int | None = None) -> None:
        """Change the mode, for the next `times` requests or until the next change; wakes what hangs."""
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        with self._condition:
            self.mode, self.delay_ms, self._times = mode, delay_ms, times
            self._generation += 1
            self._condition.notify_all()

    def receive(self, seen: Seen) -> tuple[str, float]:
        """Remember a request, wait as the mode says, and return (mode, delay in seconds) for this request."""
        with self._condition:
            self.count[seen.protocol] += 1
            self.last.append(seen)
            mode, delay = self.mode, self.delay_ms / 1000
            if self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self.mode, self.delay_ms, self._times = "ok", 0.0, None
            generation = self._generation
            if mode == "hang":
                self._condition.wait_for(lambda: self._generation != generation)
        if mode == "slow":
            time.sleep(delay)
        return mode, delay

    def knows(self, model: str) -> bool:
        """Whether the fake serves a model of this name."""
        return not self.shape.models or model in self.shape.models

    def report(self) -> dict[str, Any]:
        """What GET /__fake answers; bodies are latin-1 text, so that every byte survives."""
        with self._condition:
            return {
                "seen": sum(self.count.values()),
                **self.count,
                "mode": self.mode,
                "delay_ms": self.delay_ms,
                "paths": [one.path for one in self.last],
                "bodies": [one.body.decode("latin-1") for one in self.last],
                "headers": [one.headers for one in self.last],
            }

    def forget(self) -> None:
        """Forget all requests seen."""
        with self._condition:
            self.count = {"http": 0, "grpc": 0}
            self.last.clear()
