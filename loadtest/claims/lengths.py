"""Requests of one length and of mixed lengths, as captures that are replayed in a closed loop.

For a model of sequences whose signature leaves the length free. Both captures have the same mean length, so that a server which
pays nothing for change answers them equally fast but for what is not linear in the length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature
from gateway.protocol.signature_file import load as load_signature
from gateway.telemetry.capture_format import Captured, Start, frame, opening, segment_name
from loadtest import payloads

REQUESTS = 256
_PATH = "/tensorflow.serving.PredictionService/Predict"


def lengths(longest: int, how: Literal["even", "mixed"], seed: int) -> list[int]:
    """Lengths of REQUESTS requests: all the mean, or seeded evenly between an eighth of the longest and the longest. PURE."""
    least = max(1, longest // 8)
    if how == "even":
        return [round((least + longest) / 2)] * REQUESTS
    spread = np.linspace(least, longest, REQUESTS).round().astype(int)
    return [int(n) for n in np.random.default_rng(seed).permutation(spread)]


def capture(model: str, inputs: Path, signature_file: Path, how: Literal["even", "mixed"], into: Path) -> Path:
    """Write the capture's folder; raises ConfigError for a model whose signature does not leave the length free."""
    signature = load_signature(signature_file)
    check(model, signature)
    dataset = payloads.load_dataset(inputs, "all", signature)
    longest = next(iter(dataset.inputs.values())).shape[1]
    into.mkdir(parents=True, exist_ok=True)
    start = Start(f"{model}-{how}", 0, 1, 1.0, 1, [model], "")
    frames = [opening(start)]
    for number, length in enumerate(lengths(longest, how, 1)):
        row = {name: np.ascontiguousarray(a[number % len(a)][None, :length]) for name, a in dataset.inputs.items()}
        one = payloads.Dataset(row, None, {})
        body = payloads.predict_request(model, "serving_default", one, [0])
        head = Captured(1, number * 1_000_000, "tfs-grpc", model, "", "", _PATH, {}, 1, 0, f"{number:04x}")
        frames.append(frame(head._asdict(), body))
    (into / segment_name(0)).write_bytes(b"".join(frames))
    return into


def check(model: str, signature: Signature) -> None:
    """Raises ConfigError unless every input is [rows, free length]."""
    shapes = {spec.name: spec.shape for spec in signature.inputs}
    if any(len(shape) != 2 or shape[1] != -1 for shape in shapes.values()):
        raise ConfigError([f"{model}: mixed lengths need inputs [rows, any length], its signature says {shapes}"])
