"""Protobuf's wire format as far as big bytes need it: fields written in pieces, so that a tensor is copied once, not thrice.

PURE. A field is tag, length, contents; contents are pieces that are joined at the end. Everything small is left to protobuf itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import RequestError

Piece = bytes | memoryview
_MOST = (1 << 31) - 1  # no protobuf message may be longer


def varint(value: int) -> bytes:
    """A number of at least 0 in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, *pieces: Piece) -> list[Piece]:
    """A length-delimited field: bytes, a text, a message or a packed list."""
    return [varint(number << 3 | 2) + varint(sum(map(len, pieces))), *pieces]


def joined(pieces: Iterable[Piece]) -> bytes:
    """The message; RequestError("too_large") where protobuf could not hold it."""
    message = b"".join(pieces)
    if len(message) > _MOST:
        raise RequestError("too_large", f"the message of {len(message)} bytes cannot be written: {_MOST} are the most")
    return message
