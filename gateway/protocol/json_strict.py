"""JSON read a second time, where orjson will not do: NaN and Infinity, duplicate keys, and what is wrong in TF Serving's words.

PURE. TF Serving reads NaN, Infinity and -Infinity as numbers; orjson refuses them. Both refuse 1e400, which no double holds
(RapidJSON, reader.h: kParseErrorNumberTooBig); 1e39 is a double, and infinite only as a float32. Everything else (UTF-8, no
trailing bytes, no duplicate keys) is as strict here as there.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gateway.errors import RequestError

_EXACT_DIGITS = 20  # longer integers fit no 64-bit type: they are read as floats, as orjson does


_MAY_BE_BIG = re.compile(r"[eE]\+?[0-9]{3}|(?<![0-9])[0-9]{200}")  # by far the most bodies hold nothing like it


class _TooBig(ValueError):
    """A number that no double holds; its text is the argument."""


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _EXACT_DIGITS else _float(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _TooBig(text)
    return value


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
    """Parse JSON with NaN, Infinity and -Infinity; no numbers beyond a double, no duplicate keys.

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
        floats = _float if _MAY_BE_BIG.search(text) else None  # a call for each number costs as much again
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_float=floats)
    except _TooBig as error:
        offset = len(text[: text.find(error.args[0])].encode())
        raise RequestError(
            "invalid_argument", f"JSON Parse error: Number too big to be stored in double. at offset: {offset}"
        ) from error
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
