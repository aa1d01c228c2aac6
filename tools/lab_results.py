"""Generated `results` of lab documents, for make_lab.py: claims, capacities, grids. Nothing here is measured."""

from __future__ import annotations

import math
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
                        cell(
                            start, order, arm, "tfs-grpc", load, level=0.6, batch=size, wait_ms=wait, at_s=at, name=name
                        )
                    )
                    at += plan.seconds + 4.0
    return found


def results(plan: Any, blocks: list[dict[str, Any]], compared: list[dict[str, Any]]) -> dict[str, Any]:
    """What the kind needs beside blocks and comparisons."""
    if plan.scenario == "cut":
        return {}
    made = {
        "claims": lambda: claims(blocks, compared),
        "slo": lambda: slo(blocks),
        "batching": lambda: batching(blocks),
    }
    return made[plan.kind]() if plan.kind in made else {}


def slo(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Capacities of both arms at 1% over 20 ms."""
    arms = {}
    for arm, bend in (("torchserve", 560.0), ("tfserving", 640.0)):
        rates = sorted({b["load"]["rate"] for b in blocks if b["load"]["rate"]})
        curve = []
        for rate in rates:
            mine = [b for b in blocks if b["arm"] == arm and b["load"]["rate"] == rate]
            over = 1 / (1 + math.exp(-(rate - bend) / 40)) * 0.4 + 0.0015
            curve.append(
                {
                    "rate": rate,
                    "n": sum(b["n"] for b in mine),
                    "over": over * (0.9 + 0.2 * (rate % 3) / 3),
                    "failed": 0.0005,
                    "fitted": over,
                    "p50_ms": 2.4 + rate / 300,
                    "p99_ms": 6.0 + 40 * over,
                    "server_cores": rate / 800,
                    "gateway_cores": 0.2,
                    "generator_cores": 0.15,
                    "blocks": [b["id"] for b in mine],
                }
            )
        value = bend - 40 * math.log(0.4 / 0.0085 - 1)
        estimate = {"value": value, "low": 0.94 * value, "high": 1.05 * value}
        per_core = {key: number / 0.85 for key, number in estimate.items()}
        cost = {"value": 0.0421, "low": 0.04, "high": 0.045}
        arms[arm] = {
            "curve": curve,
            "capacity": estimate,
            "cores": {"basis": "used", "value": 0.85},
            "per_core": per_core,
            "cost_per_million": cost,
            "valid": arm == "torchserve",
            "reasons": [] if arm == "torchserve" else ["the gateway used 0.74 of a core near the capacity"],
            "per_start": [estimate],
        }
    ratio = {
        "baseline": "torchserve",
        "arm": "tfserving",
        "metric": "capacity",
        "value": 1.19,
        "low": 1.08,
        "high": 1.31,
        "p": 0.002,
        "method": "block bootstrap of both arms",
        "verdict": "B better",
    }
    return {
        "slo": {"percentile": 99.0, "threshold_ms": 20.0, "over": 0.01, "errors": None},
        "path": "gateway",
        "protocol": "tfs-grpc",
        "confidence": 0.95,
        "starts": 6,
        "primary": "starts",
        "probes": {},
        "bracket": {},
        "grid": [100, 200],
        "arms": arms,
        "ratio": ratio,
        "ratio_per_core": {"missing": "no cores were given"},
        "price_per_core_hour": 0.04,
    }


def batching(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """A 3 x 3 grid and the unbatched cell of each arm, with front, best settings and fragments."""
    cells = []
    for arm, scale in (("torchserve", 1.0), ("tfserving", 1.25)):
        for size, wait in [(1, 0.0), *((s, w) for s in (4, 8, 16) for w in (1.0, 2.0, 5.0))]:
            top = scale * 420 * size**0.42 * (1 - 0.02 * wait)
            tail = (6.0 + 0.9 * wait + 0.25 * size) / scale
            told = {
                "source": "told with each answer",
                "unit": "requests",
                "mean": size * 0.8,
                "fill": 0.8 if size > 1 else None,
                "buckets": {"1": 40, "2": 60, "3-4": 200} if size > 1 else {"1": 500},
                "full": 0.55,
                "timeout": 0.45,
                "closed_source": "generated",
            }
            side = {
                "block": next((b["id"] for b in blocks if b["id"].endswith(f"{arm}-b{size}-w{wait:g}")), ""),
                "concurrency": 2 * size,
                "rate": None,
                "throughput": top,
                "errors": 0.0,
                "p50": {"value": 1e3 * size / top, "low": 1.0, "high": 2.0},
                "p99": {"value": 2e3 * size / top, "low": 1.0, "high": 2.0},
                "valid": True,
                "reasons": [],
                "batches": told,
                "padding": {"missing": "not told by the server"},
                "queue": {
                    "source": "told with each answer",
                    "p50": {"low": 0.4 * wait, "high": 0.4 * wait},
                    "p99": {"low": wait, "high": None},
                    "mean_ms": None,
                },
                "server_cores": 0.9,
                "gateway_cores": 0.4,
                "generator_cores": 0.3,
            }
            opened = {
                **side,
                "concurrency": None,
                "rate": 200.0,
                "throughput": 200.0,
                "p50": {"value": tail / 3, "low": None, "high": None},
                "p99": {"value": tail, "low": tail * 0.95, "high": tail * 1.06},
            }
            cells.append(
                {
                    "max_batch": size,
                    "wait_ms": wait,
                    "stage": "unbatched" if size == 1 else "grid",
                    "arm": arm,
                    "saturated": side,
                    "open": opened,
                }
            )
    arms = ("torchserve", "tfserving")
    best = {
        "max_batch": 16,
        "wait_ms": 1.0,
        "throughput": 1330.0,
        "p99_ms": 10.9,
        "why": "the most requests per second of all settings",
    }
    fragment = {
        "file": "batching.config",
        "server": "max_batch_size { value: 16 }\nbatch_timeout_micros { value: 1000 }\n",
        "abgate": "batch: {max_batch: 16, wait_ms: 1}",
    }
    return {
        "path": "gateway",
        "protocol": "tfs-grpc",
        "open_rate": 200.0,
        "levels": {"max_batch": [1, 4, 8, 16], "wait_ms": [0, 1, 2, 5]},
        "cells": cells,
        "front": {
            arm: [{"max_batch": s, "wait_ms": w} for s, w in ((16, 1.0), (8, 1.0), (4, 1.0), (1, 0.0))] for arm in arms
        },
        "best": {
            arm: {
                "throughput": best,
                "latency": {**best, "max_batch": 1, "wait_ms": 0.0},
                "balanced": {"missing": "generated"},
            }
            for arm in arms
        },
        "fragments": {arm: {"throughput": fragment} for arm in arms},
        "stopped": "the front did not move in the last round",
    }


def _changes(starts: int = 3, seconds: int = 14) -> list[dict[str, Any]]:
    """Versions that change under load in each start: p99 steps up with every step."""
    points = []
    for start in range(starts):
        steps = {"added": 5.0 + start / 10, "made default": 7.5, "removed": 9.5}
        phases = [{"phase": name, "start_s": begun, "end_s": begun + 0.5} for name, begun in steps.items()]
        told = [
            {
                "s": s,
                "n": 100,
                "errors": int(s == 9 and start == 1),
                "p50_ms": 2.0,
                "p99_ms": 34.0 if s in (5, 7, 9) else 4.0,
            }
            for s in range(seconds)
        ]
        before = {"phase": "before", "start_s": 0.0, "end_s": 5.0}
        points.append({"models": 1, "replicate": start, "phases": [before, *phases], "seconds": told})
    return points


def _worker(starts: int = 6) -> list[dict[str, Any]]:
    """Where a request's time goes, by start."""
    return [
        {"replicate": i, "whole_ms": 2.4 + i / 50, "queue_ms": 0.1, "worker_ms": 1.5 + i / 60, "forward_ms": 0.4}
        for i in range(starts)
    ]


def claims(blocks: list[dict[str, Any]], compared: list[dict[str, Any]]) -> dict[str, Any]:
    """Four claims, one for each answer, with parts taken from the comparisons."""
    parts = [
        {
            "label": f"{c['protocol']}, {c['load']}",
            "unit": "ratio",
            "value": c.get("value"),
            "low": c.get("low"),
            "high": c.get("high"),
            "p": c.get("p"),
            "adjusted_p": c.get("p"),
            "n": c.get("n", 0),
            "answer": "inconclusive",
            "reason": c.get("reason") or c.get("missing"),
            "pairs": c.get("pairs", []),
            "blocks": [b["id"] for b in blocks[:4]],
        }
        for c in compared[:3]
    ]
    told = (
        ("inference-tie", "The two are equally fast at inference.", "holds here", "ratio", (1.01, 0.98, 1.04)),
        ("tf-low-latency", "TensorFlow Serving ensures low latency.", "contradicted here", "ratio", (1.18, 1.11, 1.25)),
        ("pt-memory", "PyTorch may use more memory.", "inconclusive here", "difference in MiB", (120.0, -40.0, 280.0)),
        (
            "compile-speed",
            "torch.compile brings 1.8 to 2 times on transformers.",
            "the source speaks of something else",
            "ratio",
            (None, None, None),
        ),
    )
    found = [
        {
            "id": key,
            "claim": text,
            "source": {"title": "A comparison", "author": "Somebody", "year": 2024, "url": "", "kind": "blog"},
            "scope": ["inference", "GPU"],
            "question": f"In CPU serving: {text.lower()}",
            "estimand": "geometric mean of the ratio of p50 over pairs of starts",
            "margin": "5 %",
            "scenario": "closed loop",
            "answer": answer,
            "reason": "generated",
            "value": value,
            "low": low,
            "high": high,
            "unit": unit,
            "confidence": 0.95,
            "p": 0.04 if value else None,
            "adjusted_p": 0.12 if value else None,
            "n": 6 if value else 0,
            "blocks": [b["id"] for b in blocks[:2]],
            "parts": parts if value else [],
        }
        for key, text, answer, unit, (value, low, high) in told
    ]
    return {
        "claims": found,
        "figures": {"hot-swap": {"points": _changes()}, "worker-overhead": {"starts": _worker()}},
        "counts": {claim["answer"]: 1 for claim in found},
        "family": {"method": "Holm", "alpha": 0.05, "size": 3, "members": [c["id"] for c in found[:3]]},
        "groups": [
            {
                "id": "digits-r3",
                "model": "digits",
                "arms": {"torchserve": "torchserve:torchscript"},
                "loads": ["closed loop, 1 at a time"],
                "starts": 6,
                "wanted": 6,
                "minutes": 11.0,
                "aa": [],
            }
        ],
        "stand_in": False,
    }
