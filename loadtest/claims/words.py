"""Claims for people: the plan before a run, the table after it, and claims.md for a README. PURE apart from rich's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from loadtest.claims.plan import Plan, share

_COLOURS = {"holds here": "green", "contradicted here": "red", "inconclusive here": "yellow"}


def listing(plan: Plan) -> Table:
    """id, question, scenario and estimated minutes of each claim; what claims share is counted for each."""
    found = Table(
        "id", "question", "what is measured", "rule", "min", title=f"{len(plan.claims)} claims", show_lines=True
    )
    for claim in plan.claims:
        cells = [str(cell) for part in claim.parts for cell in part.cells]
        scenario = ", ".join(dict.fromkeys(cells)) if cells else f"{claim.scenario} ({claim.model})"
        minutes = f"{share(plan, claim):.0f}" if claim.scenario != "onnx" else "0"
        found.add_row(*map(escape, (claim.id, claim.question, scenario, claim.margin, minutes)))
    return found


def summary(plan: Plan) -> list[str]:
    """The plan in lines: groups, changes of versions, the whole time."""
    lines = [
        f"{group.model}: {group.starts} starts of {len(group.arms)} servers "
        f"({', '.join(arm.name for arm in group.arms)}), {group.blocks} blocks, {group.seconds / 60:.0f} min"
        for group in plan.groups
    ]
    lines += [
        f"{swap.server}, {swap.served} model(s): versions change {swap.starts} times under load, {swap.seconds / 60:.0f} min"
        for swap in plan.swaps
    ]
    return [*lines, f"about {plan.seconds / 60:.0f} minutes in all, on two cores; twice that on a busy machine"]


def answers(document: Mapping[str, Any]) -> Table:
    """The table of a run."""
    found = Table("claim", "margin", "value (95%)", "p (Holm)", "n", "answer", "why", show_lines=True)
    for claim in document["results"].get("claims", []):
        colour = _COLOURS.get(claim["answer"], "blue")
        row = [claim["id"], claim["margin"], interval(claim), p_value(claim), str(claim["n"])]
        found.add_row(*map(escape, row), f"[{colour}]{claim['answer']}[/]", escape(claim["reason"]))
    return found


def interval(one: Mapping[str, Any]) -> str:
    """A value with its interval in its unit, or a dash."""
    if one["value"] is None:
        return "-"
    scale, sign = (100.0, " %") if one["unit"] == "share" else (1.0, "")
    if one["low"] is None or one["high"] is None:
        return f"{one['value'] * scale:.3g}{sign}"
    value, low, high = (f"{one[name] * scale:.3g}" for name in ("value", "low", "high"))
    return f"{value}{sign} ({low} to {high}{sign})"


def p_value(one: Mapping[str, Any]) -> str:
    """The corrected p, or a dash."""
    p = one["adjusted_p"]
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def source(told: Mapping[str, Any]) -> str:
    """A claim's source in Markdown."""
    if told["kind"] == "commonly said":
        return f"commonly said. {told['note']}"
    year = f", {told['year']}" if told["year"] else ""
    return f"{told['author']}: [{told['title']}]({told['url']}) ({told['kind']}{year}). {told['note']}"


def markdown(document: Mapping[str, Any]) -> str:
    """claims.md: what was asked where, a row for each claim, its comparisons and sources below."""
    machine, results = document["machine"], document["results"]
    claims: Sequence[Mapping[str, Any]] = results.get("claims", [])
    state = "" if document["complete"] else " The run was cut short: what is missing says so."
    servers = sorted({arm["implementation"] for arm in document["arms"].values()})
    lines = [
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['os']}, {document['started'][:10]}, in {document['seconds'] / 60:.0f} minutes, with "
        f"{', '.join(servers) or 'no server'}; one worker and one thread a server, gRPC through the gateway, time in the "
        f"server; CPU only.{state}",
        "",
        "Intervals are 95% over fresh starts of the server (n pairs); answers follow from p values corrected by Holm over "
        f"{results.get('family', {}).get('size', 0)} claims. Where a claim has several comparisons, the figures are those "
        "of the one that decides.",
        "",
        "| Claim (and what it was said of) | Asked here | Needs | Figures (95%) | p | n | Answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in claims:
        said = f"{one['claim']} ({', '.join(one['scope'])})"
        figures = [interval(one), p_value(one), str(one["n"])]
        answer = f"**{one['answer']}**: {one['reason']}"
        lines.append("| " + " | ".join(map(_cell, (said, one["question"], one["margin"], *figures, answer))) + " |")
    lines += [
        "",
        "Every comparison:",
        "",
        "| Claim | Comparison | Figures (95%) | n | Alone |",
        "|---|---|---|---|---|",
    ]
    for one in claims:
        for part in one["parts"]:
            told = part["answer"] + (f" ({part['reason']})" if part["reason"] else "")
            row = (one["id"], part["label"], interval(part), str(part["n"]), told)
            lines.append("| " + " | ".join(map(_cell, row)) + " |")
    lines += ["", "Sources:", ""]
    lines += [f"- {one['id']}: {source(one['source'])}" for one in claims]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
