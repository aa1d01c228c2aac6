"""Throughput-latency curves: which loads, when to stop, what a point tells. PURE.

Closed loop over concurrency and open loop over rate answer different questions (how much work fits, how long it takes at a
given demand) and are different curves. One arm is loaded at a time.

lab.json's "results" of kind sweep: {path, protocol, curves: [CURVE]}
CURVE = {arm, mode: "closed loop"|"open loop", replicate, stopped: str|null, points: [POINT],
  peak: {achieved, goodput, p99, at, block, limits} | null}              # most goodput among valid points; limits: what
                                                                        # makes it something else than the server's most
POINT = {concurrency, rate, block, limits, n, offered, achieved, goodput, error_share, late_share, p50, p90, p99 (Q of lab/spec.py;
  closed loop: service time, open loop: from the intended time), mean_ms, server_cores, gateway_cores, generator_cores, valid,
  reasons}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from loadtest.lab.session import cores
from loadtest.lab.slo import significant

Json = dict[str, Any]

LOOK_BACK = 4
GAIN = 0.05
"""Stop when the best of the last 4 throughputs is less than 5% above the first of those 4 (Model Analyzer's rule)."""

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Rates of an open loop whose range nobody gave, as shares of the closed loop's peak; 1.0 shows the knee."""


def levels(text: str, whole: bool = True) -> tuple[tuple[float, ...], bool]:
    """Loads from "1:64" (powers of two times the first, up to the second) or "1,4,9"; True where the stop rule applies.

    Raises ValueError saying what would be right.
    """
    kind = "whole numbers" if whole else "numbers"
    try:
        if ":" in text:
            low, high = (float(part) for part in text.split(":"))
            if not 0.0 < low <= high:
                raise ValueError
            found = [low]
            while found[-1] * 2 <= high * (1 + 1e-9):
                found.append(found[-1] * 2)
        else:
            found = sorted({float(part) for part in re.split(r"\s*,\s*", text.strip())})
        if not found or min(found) <= 0.0 or (whole and any(value != int(value) for value in found)):
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r}: write a range such as 1:64 or a list such as 1,4,16, of {kind} above 0") from None
    return tuple(found), ":" in text


def flat(throughputs: Sequence[float]) -> bool:
    """More load brings no more throughput."""
    last = throughputs[-LOOK_BACK:]
    return len(last) == LOOK_BACK and max(last) < (1.0 + GAIN) * last[0]


def rates_from(peaks: Sequence[float]) -> tuple[float, ...]:
    """One list of rates for all arms from their closed-loop peaks: shares of each; nearer than 8% counts as one."""
    kept: list[float] = []
    for rate in sorted(peak * share for peak in peaks if peak > 0.0 for share in FRACTIONS):
        if not kept or rate > 1.08 * kept[-1]:
            kept.append(significant(rate))
    return tuple(kept)


def point(block: Json) -> Json:
    """POINT of a BLOCK."""
    times = block["service_ms"] if block["mode"] == "closed loop" else block["intended_ms"]
    due = block["n"] or 0
    return {
        "concurrency": block["load"].get("concurrency"),
        "rate": block["load"].get("rate"),
        "block": block["id"],
        **{key: block[key] for key in ("n", "offered", "achieved", "goodput")},
        "error_share": block["errors"] / due if due else 0.0,
        "late_share": (block["late"] + block["dropped"]) / due if due else 0.0,
        **{key: (times or {}).get(key, {"missing": "no answers"}) for key in ("p50", "p90", "p99")},
        "mean_ms": (times or {}).get("mean"),
        "server_cores": cores(block, f"arm {block['arm']}"),
        "gateway_cores": cores(block, "gateway") if block["path"] == "gateway" else None,
        "generator_cores": cores(block, "generator"),
        "valid": block["valid"],
        "reasons": block["reasons"],
        "limits": [text for text in block["capacity"]["reasons"] if text not in block["reasons"]],
    }


def curve(blocks: Sequence[Json], stopped: str | None = None) -> Json:
    """CURVE of the blocks of one arm, mode and start."""
    points = sorted((point(block) for block in blocks), key=lambda p: p["concurrency"] or p["rate"])
    best = max((p for p in points if p["valid"]), key=lambda p: p["goodput"], default=None)
    first = blocks[0]
    peak = best and {
        "achieved": best["achieved"],
        "goodput": best["goodput"],
        "p99": best["p99"],
        "at": best["concurrency"] or best["rate"],
        "limits": best["limits"],
        "block": best["block"],
    }
    return {"arm": first["arm"], "mode": first["mode"], "replicate": first["replicate"], "stopped": stopped,
            "points": points, "peak": peak}  # fmt: skip
