"""Generated `results` of lab documents, for make_lab.py: claims, capacities, grids. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def batching_cells(plan: Any, cell: Callable[..., Any], load: dict[str, Any]) -> list[Any]:
    """The blocks of a batching search: a 3 x 3 grid for both servers, two starts each."""
    found, at = [], 0.0
    for start in range(2):
        for size in (4, 8, 16):
            for wait in (1.0, 2.0, 5.0):
                for order, arm in enumerate(("torchserve", "tfserving")):
                    name = f"{start:02d}-{arm}-b{size}-w{wait:g}"
                    found.append(
                        cell(start, order, arm, "tfs-grpc", load, level=0.6, batch=size, wait_ms=wait, at_s=at, name=name)
                    )  # fmt: skip
                    at += plan.seconds + 4.0
    return found


def results(plan: Any, blocks: list[dict[str, Any]], compared: list[dict[str, Any]]) -> dict[str, Any]:
    """What the kind needs beside blocks and comparisons."""
    return claims(blocks, compared) if plan.kind == "claims" else {}


def claims(blocks: list[dict[str, Any]], compared: list[dict[str, Any]]) -> dict[str, Any]:
    """Four claims, one for each answer, with parts taken from the comparisons."""
    parts = [
        {"label": f"{c['protocol']}, {c['load']}", "unit": "ratio", "value": c.get("value"), "low": c.get("low"),
         "high": c.get("high"), "p": c.get("p"), "adjusted_p": c.get("p"), "n": c.get("n", 0), "answer": "inconclusive",
         "reason": c.get("reason") or c.get("missing"), "pairs": c.get("pairs", []), "blocks": [b["id"] for b in blocks[:4]]}
        for c in compared[:3]
    ]  # fmt: skip
    told = (
        ("inference-tie", "The two are equally fast at inference.", "holds here", "ratio", (1.01, 0.98, 1.04)),
        ("tf-low-latency", "TensorFlow Serving ensures low latency.", "contradicted here", "ratio", (1.18, 1.11, 1.25)),
        ("pt-memory", "PyTorch may use more memory.", "inconclusive here", "difference in MiB", (120.0, -40.0, 280.0)),
        ("compile-speed", "torch.compile brings 1.8 to 2 times on transformers.", "the source speaks of something else",
         "ratio", (None, None, None)),
    )  # fmt: skip
    found = [
        {"id": key, "claim": text, "source": {"title": "A comparison", "author": "Somebody", "year": 2024, "url": "",
         "kind": "blog"}, "scope": ["inference", "GPU"], "question": f"In CPU serving: {text.lower()}",
         "estimand": "geometric mean of the ratio of p50 over pairs of starts", "margin": "5 %", "scenario": "closed loop",
         "answer": answer, "reason": "generated", "value": value, "low": low, "high": high, "unit": unit, "confidence": 0.95,
         "p": 0.04 if value else None, "adjusted_p": 0.12 if value else None, "n": 6 if value else 0,
         "blocks": [b["id"] for b in blocks[:2]], "parts": parts if value else []}
        for key, text, answer, unit, (value, low, high) in told
    ]  # fmt: skip
    return {
        "claims": found,
        "counts": {claim["answer"]: 1 for claim in found},
        "family": {"method": "Holm", "alpha": 0.05, "size": 3, "members": [c["id"] for c in found[:3]]},
        "groups": [{"id": "digits-r3", "model": "digits", "arms": {"torchserve": "torchserve:torchscript"},
                    "loads": ["closed loop, 1 at a time"], "starts": 6, "wanted": 6, "minutes": 11.0, "aa": []}],
        "stand_in": False, "figures": {},
    }  # fmt: skip
