"""Renders report.json's dictionary as one self-contained page: no script, no external address, opens offline.

Only presentation: which cells stand where and how numbers are written. Every number comes from the dictionary.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from gateway.reports import words
from gateway.reports.jsonable import Json, told
from gateway.reports.page import environment, style_sheet
from gateway.reports.plots import arm_index, figures
from gateway.reports.side_by_side import side_by_side


def render(report: Json) -> str:
    """The page of a report."""
    templates = environment("gateway.reports")
    templates.filters.update(
        ms=words.milliseconds,
        percent=words.percent,
        count=words.count,
        size=words.size,
        significant=words.significant,
        show=show,
        moment=moment,
        estimate_ms=estimate_ms,
    )
    return templates.get_template("report.html.j2").render(
        r=report,
        css=style_sheet(),
        figures=[(figure, Markup(figure.wide), Markup(figure.narrow)) for figure in figures(report)],
        index=arm_index(report),
        sections=side_by_side(report),
    )


def show(value: Any, nothing: str = "not told") -> str:
    """Any value of run.json in a table cell; what is missing says so."""
    if value is None:
        return nothing
    if isinstance(value, dict):
        if "not_computable" in value:
            return f"n/a ({value['not_computable']})"
        return ", ".join(f"{key.replace('_', ' ')} {show(item, 'none')}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(show(item, "none") for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)


def moment(ns: int) -> str:
    """Wall-clock nanoseconds as UTC, to the second."""
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def estimate_ms(found: Json) -> Markup:
    """An estimate in ms with its interval below it, or n/a with the reason."""
    value = told(found)
    if value is None:
        return Markup("n/a<small>{}</small>").format(found["not_computable"])
    if "low" in found:
        below = words.span(found["low"], found["high"], words.milliseconds)
    else:
        below = found.get("interval_not_computable", "")
    return Markup("{}<small>{}</small>").format(words.milliseconds(value), escape(below))
