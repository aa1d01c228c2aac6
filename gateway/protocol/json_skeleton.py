"""What is left of a JSON text of numbers without the numbers: brackets, commas and the key, fixed by the shape to the last byte.

PURE. A skeleton proves the shape of a body without a look at its elements: lists of the right lengths and depth, one key, no
string, true, false or null. What it does not prove is that the text is JSON: that is for a parser to say (`json_lists`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

SPACE = b" \n\r\t"
NUMBERS = b"0123456789+-.eE" + SPACE  # every character of numbers and white space in JSON
_ROW_LIMIT = 1 << 20  # elements a row: no table of brackets beyond reason
_KNOWN = 64  # skeletons kept, each of at most so many bytes
_KNOWN_BYTES = 16 * 1024


def _row(dimensions: tuple[int, ...]) -> Iterator[bytes]:
    """The brackets and commas of one row, b"[,,,]" for (4,); a scalar row has none."""
    if dimensions:
        yield b"["
        yield b",".join([b"".join(_row(dimensions[1:]))] * dimensions[0])
        yield b"]"


class Skeleton:
    """The skeletons of {"<key>": [row, ...]} for rows of one shape, under one of a few keys; of [row, ...] for the key ""."""

    __slots__ = ("_heads", "_known", "_may_hide_empty", "_row", "_rows_limit", "_stride", "inner")

    def __init__(self, inner: tuple[int, ...], keys: tuple[str, ...], rows_limit: int) -> None:
        """inner: the dimensions of a row, each known and above 0; see `fits`."""
        self.inner = inner
        self._row = b"".join(_row(inner))
        self._stride = len(self._row) + 1
        self._rows_limit = rows_limit
        self._heads = tuple(
            (key, b'{"%b":[' % key.encode().translate(None, NUMBERS), b"]}") if key else (key, b"[", b"]")
            for key in keys
        )
        self._known: dict[bytes, tuple[str, int]] = {}
        # a list of one number and an empty list have the same skeleton; of more numbers, the commas give it away
        self._may_hide_empty = inner[-1:] in ((), (1,))

    @staticmethod
    def fits(inner: tuple[int, ...]) -> bool:
        """Can rows of these dimensions have a skeleton?"""
        return min(inner, default=1) > 0 and prod(inner) <= _ROW_LIMIT

    def find(self, body: bytes) -> tuple[str, int] | None:
        """The key and the number of rows, 1 to the limit, that a body has if it is JSON; None: it may be of any form."""
        skeleton = body.translate(None, NUMBERS)
        found = self._known.get(skeleton) or self._counted(skeleton)
        if found is not None and self._may_hide_empty and b"[]" in body.translate(None, SPACE):
            return None
        return found

    def _counted(self, skeleton: bytes) -> tuple[str, int] | None:
        for key, head, tail in self._heads:
            if not skeleton.startswith(head):
                continue
            rows, odd = divmod(len(skeleton) - len(head) - len(tail) + 1, self._stride)
            if odd or not 0 < rows <= self._rows_limit:
                return None
            if skeleton != b"%b%b%b" % (head, b",".join([self._row] * rows), tail):
                return None
            if len(skeleton) <= _KNOWN_BYTES and len(self._known) < _KNOWN:
                self._known[skeleton] = (key, rows)
            return key, rows
        return None
