"""Long lists of numbers in JSON, read without one Python object each.

PURE. `lift` takes the long lists that stand under one key out of a body, so that the rest is small; `numbers` turns such a
list into an array. simdjson takes a string, true or null for no number, but flattens: depth is judged here. Where either
finds anything out of the plain, the answer is None and the caller reads as ever; errors are told there, never here.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

try:
    import simdjson
except ImportError:  # the extra `fast` is not installed: the caller reads as ever
    simdjson = None  # type: ignore[assignment]

LONG = 1 << 12  # bytes; below, reading twice costs more than it saves
_KEPT = 4 << 20  # the longest text for which a parser is kept: it holds on to some 13 times its bytes
_SPACE = b" \t\r\n"
_IN_NUMBERS = b"0123456789+-.eE" + _SPACE
_BUFFERS: dict[str, Literal["d", "i", "u"]] = {"f": "d", "i": "i", "u": "u"}
_WIDE = {"f": np.dtype("f8"), "i": np.dtype("i8"), "u": np.dtype("u8")}


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body whose long lists were taken out: in their places stand strings that no other string equals."""

    rest: bytes
    lists: dict[str, bytes]


def lift(body: bytes, key: bytes) -> Lifted | None:
    """The body without its long lists under the quoted key (b'"data"'), and these; None where there are none.

    What was taken out reaches to the last bracket before the next quote or brace and is not read yet. A key whose own
    name ends in the quoted one loses its list as well: the caller looks for the strings only where it wants lists.
    """
    if len(body) < LONG:
        return None
    mark = secrets.token_hex(16)
    pieces: list[bytes] = []
    lists: dict[str, bytes] = {}
    done = at = 0
    while (found := body.find(key, at)) >= 0:
        at = found + len(key)
        start = _behind(body, _behind(body, at, b":"), b"[") - 1
        if start < 0:
            continue
        quote = body.find(b'"', start) % (len(body) + 1)  # -1 is the end
        brace = body.find(b"}", start, quote)
        text = body[start : quote if brace < 0 else brace].rstrip(_SPACE + b",")
        if len(text) < LONG or not text.endswith(b"]"):
            continue
        name = f"{mark}{len(lists)}"
        lists[name] = text
        pieces += (body[done:start], b'"%b"' % name.encode())
        done = at = start + len(text)
    return Lifted(b"".join((*pieces, body[done:])), lists) if lists else None


def _behind(body: bytes, at: int, sign: bytes) -> int:
    """The place behind a sign that must come next but for white space; 0 where it does not."""
    if at == 0:
        return 0
    while body[at : at + 1] in (b" ", b"\n", b"\r", b"\t"):
        at += 1
    return at + 1 if body[at : at + 1] == sign else 0


def outline(body: bytes, keys: Iterable[str]) -> bytes:
    """The body with strings in place of its long lists under any of the keys: enough to tell its form by."""
    for key in keys:
        lifted = lift(body, b'"%b"' % key.encode())
        body = body if lifted is None else lifted.rest
    return body


def numbers(text: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """The array in a JSON list of numbers, flat or nested as the shape is; None where this way cannot read it."""
    count = math.prod(shape)
    if dtype.kind not in _BUFFERS or not shape or count < 1 or count * 2 > len(text) or not _fits(text, shape):
        return None
    return judged_numbers(text, shape, dtype)


def judged_numbers(text: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """The array in a list whose brackets and commas were judged already; None where this way cannot read it.

    Floats are read as doubles and converted; integers must be whole and within dtype. What is no JSON is None as well, and
    so are NaN, Infinity and numbers beyond a double.
    """
    if simdjson is None:
        return None
    kind = dtype.kind
    parser = _parser(threading.get_ident()) if len(text) <= _KEPT else simdjson.Parser()
    try:
        parsed = parser.parse(text)
        if not isinstance(parsed, simdjson.Array):
            return None
        found = np.frombuffer(parsed.as_buffer(of_type=_BUFFERS[kind]), _WIDE[kind])
    except (ValueError, TypeError, RuntimeError):
        return None
    if found.size != math.prod(shape):
        return None
    if kind != "f":
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            return None
    with np.errstate(over="ignore"):
        return found.astype(dtype, copy=False).reshape(shape)


@lru_cache(maxsize=8)
def _parser(_thread: int) -> Any:
    """A thread's own parser: what a fresh one allocates is given back to the system after every text, and faulted in anew."""
    return simdjson.Parser()


def _fits(text: bytes, shape: tuple[int, ...]) -> bool:
    """Whether a list is flat, or its brackets and commas are those of the shape."""
    if text.find(b"[", 1) < 0:
        return True
    row = b""
    for size in reversed(shape):
        if len(row) * size > len(text):
            return False
        row = b"[%b]" % b",".join([row] * size)
    return text.translate(None, _IN_NUMBERS) == row
