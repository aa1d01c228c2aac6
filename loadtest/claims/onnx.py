"""Which ways an .onnx file was taken between the two frameworks, from the proof that the variants' build recorded. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.stats.result import NotComputable
from loadtest.claims.answer import Judged
from loadtest.claims.evaluate import Found

NOT_GONE = {
    ("PyTorch", "TensorFlow"): (
        "not tried here: onnx2tf, which writes a SavedModel, pins other versions of numpy, protobuf and TensorFlow and needs an "
        "environment of its own; it also turns the inputs' order of dimensions"
    ),
    ("TensorFlow", "PyTorch"): (
        "not tried here: tf2onnx names support up to TensorFlow 2.15, older than the one in use, and PyTorch reads no .onnx"
    ),
}


def directions(parity: Mapping[str, Any] | None, skipped: str | None) -> list[dict[str, Any]]:
    """figures["onnx-portable"]["directions"]: each way, whether it was gone, and with which proof."""
    done = bool(parity and parity.get("ok"))
    reason = "" if done else skipped or ("answers differ" if parity else "its parity was never proved")
    first = {"from": "PyTorch", "to": "ONNX Runtime", "done": done, "parity": parity, "reason": reason}
    return [
        first,
        *({"from": a, "to": b, "done": False, "parity": None, "reason": why} for (a, b), why in NOT_GONE.items()),
    ]


def found(ways: list[dict[str, Any]]) -> list[Found]:
    """A part for each way; those between the two frameworks are missing, so that the claim cannot hold by the first alone."""
    parts = []
    for way in ways:
        label = f"{way['from']} to {way['to']}"
        if way["to"] == "ONNX Runtime" and (way["done"] or way["parity"] is not None):
            judged = Judged(0.0, 1.0) if way["done"] else Judged(1.0, 0.0)
            effect = NotComputable("equal answers were proved" if way["done"] else way["reason"])
            parts.append(Found(label, "share", effect, judged, reason=effect.reason, certain=way["done"]))
        else:
            parts.append(Found(label, "share", (why := NotComputable(way["reason"])), why, reason=way["reason"]))
    return parts
