"""What every page of a report is made with: the templates' rules and the style sheet."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def environment(package: str) -> Environment:
    """Templates that lie in a package: escaped, and a name that is not there is an error."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style_sheet() -> Markup:
    """The one style sheet of all pages."""
    return Markup(resources.files("gateway.reports").joinpath("report.css").read_text(encoding="utf-8"))
