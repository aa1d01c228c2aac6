"""JSON read a second time, where orjson will not do: NaN and Infinity, numbers beyond a double, duplicate keys.

PURE. TF Serving reads NaN, Infinity and -Infinity as numbers and lets 1e400 become infinite; orjson refuses all of them.
Everything else (UTF-8, no trailing bytes, no duplicate keys) is as strict here as there.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.errors import RequestError

_EXACT_DIGITS = 20  # longer integers fit no 64-bit type: they are read as floats, as orjson does


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _EXACT_DIGITS else float(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RequestError(
                    "invalid_argument", f"JSON Parse error: the key {key!r} is there twice in one object"
                )
            seen.add(key)
    return found


def parse_lenient(body: bytes) -> Any:
    """Parse JSON with NaN, Infinity, -Infinity and over-range numbers; no duplicate keys.

    Raises RequestError("invalid_argument") with TF Serving's wording and the offset of the fault.
    """
    if not body:
        raise RequestError("invalid_argument", "JSON Parse error: The document is empty")
    try:
        text = bytes(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            "invalid_argument", f"JSON Parse error: Invalid encoding in string: not UTF-8. at offset: {error.start}"
        ) from error
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise RequestError("invalid_argument", "JSON Parse error: The document is empty") from error
        raise RequestError(
            "invalid_argument", f"JSON Parse error: Invalid value. at offset: {error.pos} ({error.msg})"
        ) from error
    except RecursionError as error:
        raise RequestError("invalid_argument", "JSON Parse error: nested too deep") from error


def find_duplicate(body: bytes) -> None:
    """Raise RequestError when any object of a JSON text holds one key twice."""
    parse_lenient(body)
