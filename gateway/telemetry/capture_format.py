"""The file of a capture: sampled requests with their times, written by the gateway, read by the load test.

PURE: bytes in, records out, and back. A capture is a folder of segments `000000.abgcap`, `000001.abgcap`, ... A segment is
MAGIC and then frames. A frame is three little-endian uint32 (bytes of head, bytes of body, CRC-32 of both) and the two: the
head is a JSON object, the body what the client sent, untouched. The first frame's head is the segment's Start, with an empty
body; every other one is a Captured. Records stand in the order in which requests ended: sort by offset_ns. A segment
may end in the middle of its last frame (the process died): that frame counts as never written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from gateway.errors import AbgateError

MAGIC = b"ABGCAP1\n"
SUFFIX = ".abgcap"
KEPT_HEADERS = ("content-type", "content-encoding", "inference-header-content-length")
_FRAME = struct.Struct("<III")


class CaptureError(AbgateError):
    """A file that is no segment of a capture, or a damaged one."""


class Start(NamedTuple):
    """What a segment says of its capture: when it began (wall nanoseconds), what was sampled (models: empty is all)."""

    capture: str
    segment: int
    began_ns: int
    share: float
    seed: int
    models: list[str]
    abgate: str


class Captured(NamedTuple):
    """One request. time_ns: wall clock at its last byte; offset_ns: monotonic, since the capture began.

    method: POST or PUT, "" over gRPC; path: of the URL, or the gRPC method's; headers: of KEPT_HEADERS those it had; rows: 0
    where the gateway did not read it so far; status: what the client saw; unit_hash: keyed, never the unit.
    """

    time_ns: int
    offset_ns: int
    protocol: str
    model: str
    version: str
    method: str
    path: str
    headers: Mapping[str, str]
    rows: int
    status: int
    unit_hash: str


class Place(NamedTuple):
    """Where in its segment a body lies."""

    offset: int
    size: int


def segment_name(number: int) -> str:
    """The file name of a capture's segment."""
    return f"{number:06d}{SUFFIX}"


def opening(start: Start) -> bytes:
    """The beginning of a segment."""
    return MAGIC + frame(start._asdict(), b"")


def frame(head: Mapping[str, Any], body: bytes) -> bytes:
    """One frame; head: what `Captured._asdict` gives. TypeError for a head that is no JSON (a text that is no Unicode)."""
    text = orjson.dumps(head)
    return b"".join((_FRAME.pack(len(text), len(body), crc32(body, crc32(text))), text, body))


def read(data: Any) -> tuple[Start, Iterator[tuple[Captured, Place]]]:
    """A segment's start and its requests as they lie there; data: bytes, memoryview or mmap.

    Raises CaptureError for what is no segment, and, while it is read, for a damaged frame that others follow.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise CaptureError(f"is no segment of a capture: it does not begin with {MAGIC!r}")
    frames = _frames(data, len(MAGIC))
    head = next(frames, None)
    if head is None:
        raise CaptureError("ends before it says what was captured")
    return _made(Start, head[0], len(MAGIC)), ((_made(Captured, found, place.offset), place) for found, place in frames)


def _frames(data: Any, offset: int) -> Iterator[tuple[Any, Place]]:
    end = len(data)
    while offset + _FRAME.size <= end:
        head_size, body_size, told = _FRAME.unpack(data[offset : offset + _FRAME.size])
        begin = offset + _FRAME.size
        after = begin + head_size + body_size
        if after > end:
            return
        # whole frames are checked as one: copying a head out and its body again would cost twice
        if crc32(data[begin:after]) != told:
            if after == end:
                return  # its length reached the disk, its bytes did not
            raise CaptureError(f"is damaged: the frame at byte {offset} does not fit its checksum")
        yield orjson.loads(data[begin : begin + head_size]), Place(begin + head_size, body_size)
        offset = after


def _made(kind: Any, head: Any, offset: int) -> Any:
    try:
        return kind(**{name: head[name] for name in kind._fields})  # a later format may say more
    except (TypeError, KeyError) as error:
        raise CaptureError(f"has no {kind.__name__} at byte {offset}: {error} is missing") from error
