"""Renders a lab report's dictionary and pictures as one self-contained page: no script, no external address, opens offline.

Only presentation: which cells stand where and how numbers are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gateway.reports import words as plain
from gateway.reports.charts import Picture, cell
from gateway.reports.html import show
from gateway.reports.jsonable import Json
from gateway.reports.lab import words
from gateway.reports.lab.pictures_latency import DRAWN
from gateway.reports.lab.pictures_search import best_rows
from gateway.reports.lab.shape import Doc, items, number, part
from gateway.reports.page import environment, style_sheet
from gateway.reports.words import count, milliseconds, percent, significant, size

SHOWN = 200
"""Rows of a figure's table in the page; its CSV has all."""

Cell = tuple[str, str]


def render(report: Json, sections: Mapping[str, Sequence[Picture]]) -> str:
    """The page."""
    templates = environment("gateway.reports.lab")
    templates.filters.update(
        cell=cell, count=count, show=show, significant=plain.significant, answer_class=_answer_class
    )
    results = part(report, "results")
    return templates.get_template("lab.html.j2").render(
        r=report,
        css=style_sheet(),
        shown=SHOWN,
        sections={
            name: [(p, Markup(p.wide), Markup(p.narrow)) for p in pictures] for name, pictures in sections.items()
        },
        comparisons=[
            _comparison(one) for one in sorted(items(report, "comparisons"), key=lambda c: not c.get("primary"))
        ],
        load=_rows(report, _load),
        quantiles=_quantiles(report),
        cpu=_rows(report, _cpu),
        blocks=words.blocks_of(report),
        block_header=words.BLOCK_HEADER,
        undrawn=[one["name"] for one in report["conditions"][DRAWN:]],
        claims=[_claim(one) for one in items(results, "claims")],
        counts=part(results, "counts"),
        family=part(results, "family"),
        best=[_best(one) for one in best_rows(results)],
        fragments=[_fragment(one) for one in best_rows(results) if one["fragment"].get("server")],
        capacities=_capacities(results),
        ratios=_ratios(results),
        manifest=_manifest(report),
    )


def _manifest(report: Json) -> str:
    found = part(report, "model").get("manifest")
    return json.dumps(found, indent=1, ensure_ascii=False)[:20_000] if found else ""


def _answer_class(answer: str) -> str:
    return {"holds here": "ok", "contradicted here": "failed"}.get(answer, "inconclusive")


def _rows(report: Json, write: Any) -> list[list[Any]]:
    return [
        [_head(arm, one["name"]), *write(found, arm)]
        for one in report["conditions"]
        for arm, found in one["arms"].items()
    ]


def _head(arm: str, name: str) -> Markup:
    return Markup("{}<small>{}</small>").format(arm, name)


def _rate(value: float | None) -> str:
    return "n/a" if value is None else significant(value, 4)


def _load(found: Json, arm: str) -> list[Any]:
    n = found["n"]

    def of(key: str) -> Cell:
        return count(found[key]), percent(found[key] / n) if n and found[key] else ""

    judged = (f"{count(found['wrong'])} of {count(found['judged'])}", "") if found["judged"] else ("n/a", "none judged")
    discarded = "n/a" if found["discarded_s"] is None else f"{significant(found['discarded_s'])} s"
    return [
        str(found["starts"]),
        count(n),
        of("errors"),
        of("late"),
        of("dropped"),
        judged,
        *(_rate(found[key]) for key in ("offered", "achieved", "goodput")),
        discarded,
    ]


def _quantiles(report: Json) -> list[list[Any]]:
    rows = []
    for one in report["conditions"]:
        for arm, found in one["arms"].items():
            kinds = (
                (("intended", "intended_ms"), ("service", "service_ms"))
                if one["open"]
                else (("service", "service_ms"),)
            )
            for label, key in kinds:
                told = found[key]
                rows.append(
                    [
                        _head(arm, f"{one['name']}{', ' + label if one['open'] else ''}"),
                        count(told["n"]),
                        *(_estimate(told[q], found["starts"]) for q in ("p50", "p90", "p95", "p99", "p999")),
                        *("n/a" if told[k] is None else milliseconds(told[k]) for k in ("mean", "sd", "max")),
                    ]
                )
    return rows


def _estimate(found: Json, starts: int) -> Cell:
    value, below = words.estimate(found)
    return value, below if value == "n/a" or starts > 1 else "one start"


def _cpu(found: Json, arm: str) -> list[Any]:
    cpu = found["cpu"]
    loaded = next((role for role in (f"arm {arm}", f"arm {arm.rpartition('/')[2]}") if role in cpu), "")
    idle = {role: told for role, told in cpu.items() if role.startswith("arm ") and role != loaded}

    def of(role: str) -> Cell:
        told = cpu.get(role)
        if told is None:
            return "n/a", "not told"
        memory = told["rss_bytes"]
        cores = "n/a" if told["cores"] is None else f"{told['cores']:.2f} cores"
        return cores, f"{size(memory)} at most" if memory else ""

    together = sum(told["cores"] or 0.0 for told in idle.values())
    names = ", ".join(role.removeprefix("arm ") for role in idle)
    price = found["generator_us"]
    return [
        of(loaded),
        (f"{together:.3f} cores", names) if idle else ("none", ""),
        of("gateway"),
        of("generator"),
        "n/a" if price is None else f"{significant(price)} \N{MICRO SIGN}s CPU",
    ]


def _comparison(one: Doc) -> list[Any]:
    head = Markup("{}{}: {} to {}<small>{} · {}{}</small>").format(
        "primary: " if one.get("primary") else "",
        *(str(one.get(key)) for key in ("metric", "arm", "baseline", "protocol", "load")),
        " · past the gateway" if one.get("path") == "direct" else "",
    )
    value = number(one.get("value"))
    if value is None:
        return [head, ("n/a", str(one.get("missing", "not told"))), "n/a", "n/a", "n/a", "n/a", "none"]
    aa, order = part(one, "aa"), part(one, "order_effect")
    twin = ("n/a", str(aa.get("missing", "not told")))
    if number(aa.get("value")) is not None:
        state = "holds no effect" if aa.get("unbiased") else "BIASED"
        twin = (words.ratio(float(aa["value"])), f"{words.interval(aa)}; {state}")
    placed = ("n/a", "too few of an order")
    if number(order.get("value")) is not None:
        placed = (words.ratio(float(order["value"])), words.interval(order))
    margin = number(one.get("margin"))
    held = "" if margin is None else f"margin {margin:.0%}" if one.get("unit") == "ratio" else f"margin {margin:g}"
    return [
        head,
        (words.ratio(value), f"{words.interval(one)}; {words.changed(one)}"),
        (_p(one.get("p")), f"Holm {_p(one['p_holm'])}" if number(one.get("p_holm")) is not None else ""),
        str(one.get("n", "n/a")),
        twin,
        placed,
        Markup("<b>{}</b><small>{} ({})</small>").format(one.get("verdict"), one.get("reason", ""), held),
    ]


def _p(value: Any) -> str:
    found = number(value)
    return "n/a" if found is None else "<\N{NO-BREAK SPACE}0.001" if found < 0.001 else f"{found:.3f}"


def _figure(one: Doc) -> str:
    value = number(one.get("value"))
    if value is None:
        return ""
    unit = str(one.get("unit") or "")
    write = words.ratio if unit == "ratio" else lambda v: significant(v) if v else "0"
    told = f"{write(value)} ({words.interval(one, write)})"
    return told if unit == "ratio" else f"{told} {unit.removeprefix('difference in ')}"


def _claim(one: Doc) -> Json:
    source = part(one, "source")
    year = f", {source['year']}" if source.get("year") else ""
    parts = [
        [
            str(p.get("label", "")),
            (_figure(p) or "n/a", ""),
            f"{_p(p.get('p'))} ({_p(p.get('adjusted_p'))})",
            str(p.get("n", "n/a")),
            f"{p.get('answer', '')}: {p.get('reason', '')}",
        ]
        for p in items(one, "parts")
    ]
    figure = _figure(one)
    pairs = f", {one['n']} pairs" if one.get("n") else ""
    return {
        **{
            k: str(one.get(k, ""))
            for k in ("id", "claim", "answer", "reason", "question", "estimand", "margin", "scenario")
        },
        "source": f"{source.get('title', 'not told')} ({source.get('author', '')}{year}; {source.get('kind', '')})",
        "scope": ", ".join(map(str, one.get("scope") or [])) or "not told",
        "figure": f"{figure}{pairs}" if figure else "",
        "parts": parts,
    }


def _best(one: Json) -> list[Any]:
    told = one["told"]
    head = Markup("{}<small>{}</small>").format(one["arm"], one["objective"])
    if "missing" in told:
        return [head, "n/a", "n/a", "n/a", str(told["missing"])]
    throughput, p99 = number(told.get("throughput")), number(told.get("p99_ms"))
    low, high = (number(part(told, "bounds").get(end)) for end in ("low", "high"))
    fast: Any = f"{_rate(throughput)} /s"
    if low is not None and high is not None:
        fast = Markup("{}<small>{} to {}</small>").format(fast, _rate(low), _rate(high))
    return [
        head,
        f"{told.get('max_batch')} x {number(told.get('wait_ms')) or 0:g} ms",
        fast,
        "n/a" if p99 is None else milliseconds(p99),
        str(told.get("why", "")),
    ]


def _fragment(one: Json) -> Json:
    fragment = one["fragment"]
    title = f"{one['arm']}, {one['objective']}: {fragment.get('file', 'configuration')}"
    return {"title": title, "server": str(fragment["server"]), "abgate": str(fragment.get("abgate") or "")}


def _capacities(results: Doc) -> list[list[Any]]:
    rows = []
    for arm, told in part(results, "arms").items():
        cores = part(told, "cores")
        state = "valid" if told.get("valid", True) else "; ".join(map(str, told.get("reasons") or ["not valid"]))
        used = number(cores.get("value"))
        rows.append(
            [
                arm,
                words.estimate(told.get("capacity"), lambda v: f"{significant(v, 4)} /s"),
                ("n/a", "") if used is None else (f"{used:.2f}", str(cores.get("basis", ""))),
                words.estimate(told.get("per_core"), lambda v: f"{significant(v, 4)} /s"),
                words.estimate(told.get("cost_per_million"), significant)
                if told.get("cost_per_million")
                else ("n/a", "no price given"),
                state,
            ]
        )
    return rows


def _ratios(results: Doc) -> list[list[Any]]:
    rows = []
    for key, label in (("ratio", "capacity"), ("ratio_per_core", "capacity per core")):
        one = part(results, key)
        if one:
            head = f"{label}: {one['arm']} to {one.get('baseline', '')}" if "arm" in one else label
            rows.append(
                [
                    head,
                    words.estimate(one, words.ratio),
                    _p(one.get("p")),
                    str(one.get("method", "n/a")),
                    str(one.get("verdict", "none")),
                ]
            )
    if aa := part(results, "aa"):
        state = "BIASED" if aa.get("unbiased") is False else "holds no effect" if aa.get("unbiased") else "not told"
        head = f"A/A: {aa.get('arm', '')} to {aa.get('baseline', '')}"
        rows.append([head, words.estimate(aa, words.ratio), _p(aa.get("p")), str(aa.get("method", "n/a")), state])
    return rows
