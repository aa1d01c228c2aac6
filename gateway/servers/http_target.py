"""TF Serving's URL grammar: a request target -> what is asked for.

PURE. Source: tensorflow_serving/model_servers/http_rest_api_util.cc: the whole path matches, letters in either case, names
and labels are percent-decoded. Everything under /v1/ is ours to answer; any other path is not (None).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httptools

_SPEC = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i)/v1/models/(?P<model>[^/:]+){_SPEC}:(?P<verb>classify|regress|predict)", re.ASCII)
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<model>[^/:]+))?{_SPEC}(?P<metadata>/metadata)?", re.ASCII)
_OURS = re.compile(r"(?i)/v1/")
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. verb: predict, classify, regress, or "" (no inference path); problem: why it names nothing."""

    path: str
    model: str = ""
    version: str = ""
    label: str = ""
    verb: str = ""
    readable: bool = False
    metadata: bool = False
    problem: str = ""


def parse_target(url: bytes) -> Target | None:
    """The target of a request line; None when the path is not under /v1/."""
    try:
        raw = httptools.parse_url(url).path
    except httptools.HttpParserInvalidURLError:
        return None
    path = raw.decode("ascii", "replace") if raw else ""
    if not _OURS.match(path + "/"):
        return None
    found = _POST.fullmatch(path)
    readable = _GET.fullmatch(path)
    groups = (found or readable).groupdict() if found or readable else {}  # type: ignore[union-attr]
    version = groups.get("version") or ""
    problem = ""
    if version and int(version) >= _INT64:
        problem = f"Failed to convert version: {version} to numeric."
    verb = groups.get("verb") or ""
    return Target(
        path=path,
        model=_decoded(groups.get("model")),
        version=version,
        label=_decoded(groups.get("label")),
        verb=verb if verb == verb.lower() else "",  # the grammar lets :PREDICT pass, the dispatcher behind it does not
        readable=readable is not None,
        metadata=bool(groups.get("metadata")),
        problem=problem,
    )


def _decoded(text: str | None) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace") if text else ""
