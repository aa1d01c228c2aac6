"""What kind of run it is and what it does not show, in words; cells of the lab report's tables. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.reports.jsonable import Json
from gateway.reports.lab.shape import Condition, Doc, items, number, part, reason_of
from gateway.reports.words import listing, milliseconds, significant, span

KINDS = {
    "comparison": "Comparison of arms. One arm is loaded at a time while the others idle; every replicate is a fresh start of the "
    "server's process; pairs of starts run in random order.",
    "aa": "A/A run. Equal arms through the same code: how far apart do they come out, when there is nothing to find?",
    "slo": "Capacity run. One arm is loaded at a time, at one fixed grid of rates for all arms; the answer is requests per second "
    "that keep a latency objective, not a latency at everyday load.",
    "sweep": "Throughput-latency sweep. One arm is loaded at a time, at growing concurrency or rate; it shows where each server "
    "bends, and it decides nothing between arms.",
    "batching": "Batching search. Batch size and wait are set on both servers in equal terms, one server loaded at a time.",
    "claims": "Table of published claims, each made a question about CPU serving and answered by comparisons of arms, loaded one "
    "at a time.",
}
CLOSED = (
    "Closed loop: so many requests are always under way, and the next is sent when one comes back. A slow server is asked less "
    "often, so this tells throughput and latency at a concurrency, not what users who keep coming would see."
)
OPEN = (
    "Open loop: arrivals follow a schedule fixed before the run. Intended latency counts from the scheduled time, so that a stall "
    "costs every request behind it; service latency counts from the actual send."
)
NOT_LIVE = "Not a live split: no traffic was shared between arms at the same time. Don't compare its figures with a live split's."


def kinds(document: Doc, found: Sequence[Condition]) -> list[str]:
    """What kind of run it is, most general first."""
    told = [KINDS.get(str(document.get("kind")), f"Kind of run: {document.get('kind', 'not told')}.")]
    modes = {block.get("mode") for one in found for block in one.blocks}
    told += [CLOSED] * ("closed loop" in modes) + [OPEN] * ("open loop" in modes)
    return [*told, NOT_LIVE]


def caveats(document: Doc) -> list[str]:
    """What every reader must know before generalising."""
    lines = ["CPU only: nothing ran on an accelerator, and the ranking may reverse on a GPU."]
    for name, arm in part(document, "arms").items():
        if isinstance(arm, dict) and arm.get("stand_in"):
            lines.append(f"{name} is a stand-in: {arm.get('implementation')} answered in place of the real server.")
    machine = part(document, "machine")
    if machine.get("cores"):
        lines.append(
            f"One machine with {machine['cores']} cores, shared by generator, gateway and servers; another may rank them otherwise."
        )
    lines.append(
        "Intervals over starts cover fresh starts on this machine, with these versions; not another day or build."
    )
    return lines


def missing_parts(document: Doc) -> list[str]:
    """Parts of lab.json that are not there."""
    wanted = {
        "plan": "what was written down before the run",
        "machine": "the hardware",
        "versions": "the versions",
        "arms": "the arms",
        "blocks": "the blocks",
    }
    return [f"lab.json {key}: {what}, not told" for key, what in wanted.items() if not document.get(key)]


def estimate(found: Any, write: Any = milliseconds) -> tuple[str, str]:
    """A cell for a figure over starts, or for one with its interval: the value, and below it bounds or why there are none."""
    value = number(found)
    if value is None:
        return "n/a", reason_of(found)
    low, high = number(found.get("low")), number(found.get("high"))
    if low is not None and high is not None:
        return write(value), span(low, high, write)
    return write(value), str(found.get("reason") or found.get("missing") or "no interval")


def ratio(value: float) -> str:
    """A ratio with three decimals."""
    return f"{value:.3f}"


def interval(found: Doc, write: Any = ratio) -> str:
    """low to high, or n/a."""
    low, high = number(found.get("low")), number(found.get("high"))
    return "n/a" if low is None or high is None else f"{write(low)} to {write(high)}"


def unit_of(metric: str) -> str:
    """The unit of a comparison's values by its metric's name, "" where it cannot be told."""
    text = metric.lower()
    for words, unit in (
        (("memory",), "bytes"),
        (("error", "share"), "share"),
        (("throughput", "goodput", "capacity"), "/s"),
        (("cpu",), "\N{MICRO SIGN}s"),
        (("latency", "service", "intended", "upstream", "p50", "p95", "p99"), "ms"),
    ):
        if any(word in text for word in words):
            return unit
    return ""


def changed(comparison: Doc) -> str:
    """A comparison's effect in words, e.g. "4.2% lower"."""
    value = number(comparison.get("value"))
    if value is None:
        return "n/a"
    if comparison.get("unit") == "ratio":
        return f"{abs(value - 1):.1%} {'higher' if value >= 1 else 'lower'}"
    return f"{significant(abs(value))} {'higher' if value >= 0 else 'lower'}"


def block_row(block: Doc) -> list[str]:
    """One block in the table of all blocks."""
    name = "intended_ms" if block.get("mode") == "open loop" else "service_ms"
    quantiles: Json = dict(part(block, name))

    def rate(key: str) -> str:
        value = number(block.get(key))
        return "n/a" if value is None else significant(value, 4)

    told = [estimate(quantiles.get(q)) for q in ("p50", "p95", "p99")]
    cpu = part(block, "cpu")
    cores = number(part(cpu, f"arm {block.get('arm')}").get("cores"))
    notes = [*map(str, block.get("reasons") or []), *([f"drift: {block['drift']}"] if block.get("drift") else [])]
    return [
        str(block.get("id")),
        f"{block.get('replicate')}.{block.get('order')}",
        str(block.get("arm")),
        *(str(block.get(key, "n/a")) for key in ("n", "errors", "late", "dropped")),
        *(rate(key) for key in ("offered", "achieved", "goodput")),
        *(f"{value} ({below})" if value != "n/a" else f"n/a: {below}" for value, below in told),
        "n/a" if cores is None else f"{cores:.2f}",
        "valid" if block.get("valid", True) and not notes else listing(notes) or "not valid",
    ]


BLOCK_HEADER = (
    "block",
    "start.order",
    "arm",
    "n",
    "errors",
    "late",
    "dropped",
    "offered /s",
    "achieved /s",
    "goodput /s",
    "p50",
    "p95",
    "p99",
    "server cores",
    "state",
)


def blocks_of(document: Doc) -> list[list[str]]:
    """Every block as a row."""
    return [block_row(block) for block in items(document, "blocks")]
