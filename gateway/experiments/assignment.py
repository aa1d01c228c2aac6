"""Which arm a unit belongs to: integers only, the same in every process and for ever.

PURE: takes the salt, the unit and the weights; reads no clock, no configuration, no random source.
h = first 8 bytes of SHA-256("{salt}.{unit}") as a big-endian integer; the arm is the first, in configuration order, with
h * sum(weights) < cumulative * 2**64. (A float h / 2**64 can be exactly 1.0 and then belongs to nobody.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

# CPython's own SHA-256: OpenSSL's behind hashlib sets up more than it hashes for a text of 20 bytes (1.6 us of a request's 36)
try:
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # before Python 3.12
    except ImportError:
        from hashlib import sha256

SPACE = 1 << 64


def position(salt: str, unit: str) -> int:
    """Where a unit stands in [0, 2**64)."""
    return int.from_bytes(sha256(f"{salt}.{unit}".encode("utf-8", "surrogateescape")).digest()[:8], "big")


def edges(weights: Sequence[int]) -> tuple[int, ...]:
    """Upper edge of every arm's range: arm i owns positions with edges[i-1] <= h < edges[i]; an arm of weight 0 owns none.

    h * total < cumulative * 2**64  <=>  h < ceil(cumulative * 2**64 / total), so one comparison of integers decides.
    Raises ValueError when a weight is negative or all are 0.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"weights must be integers >= 0 with a sum above 0, not {list(weights)}")
    return tuple(-(-cumulative * SPACE // total) for cumulative in accumulate(weights))


def choose(h: int, arm_edges: Sequence[int]) -> int:
    """Index of the arm that owns position h, 0 <= h < 2**64."""
    for index, edge in enumerate(arm_edges):
        if h < edge:
            return index
    raise ValueError(f"position {h} is outside [0, 2**64)")


def owner(salt: str, unit: str, arm_edges: Sequence[int]) -> int:
    """choose(position(salt, unit), arm_edges) in one call, for the way of a request: the first edge above h."""
    digest = sha256(f"{salt}.{unit}".encode("utf-8", "surrogateescape")).digest()
    return bisect_right(arm_edges, int.from_bytes(digest[:8], "big"))
