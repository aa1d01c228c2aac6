"""What is written down while requests fly: one flat array a column, a slot a request, no object a request.

Times are this machine's monotonic nanoseconds until `table` turns them into wall clock. Nothing here sends or judges.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.points.spec import Requests

_CHUNK = 16_384
_BODIES = 128 << 20  # bytes of answers kept for the judge
_TIMING = re.compile(rb"gateway;dur=([\d.]+), codec;dur=([\d.]+), upstream;dur=([\d.]+)")
_TYPES = {"due": "q", "sent": "q", "done": "q", "upstream": "q", "gateway": "q", "codec": "q", "queue": "q"} | {
    "batch": "i",
    "status": "h",
    "error": "h",
    "payload": "i",
    "unit": "i",
    "arm": "h",
    "assignment": "h",
    "ended": "q",
    "correct": "b",
}
_FROM_ZERO = ("status", "error", "arm", "assignment")


class Recorder:
    """Columns by slot; -1 is "not told" everywhere but in status and error. `size` slots are in use."""

    def __init__(self, every: int, slots: int = 0) -> None:
        """every: one answer in so many is kept for the judge, 0 keeps none; slots: how many are surely needed."""
        self.size = 0
        self.names: dict[str, int] = {"": 0}
        self.bodies: list[tuple[int, bytes]] = []
        self.unkept = 0  # answers that should have been kept and had no room
        self._every = every
        self._room = _BODIES
        self._columns = {name: array(kind) for name, kind in _TYPES.items()}
        self.due, self.sent, self.done = (self._columns[name] for name in ("due", "sent", "done"))
        self.status, self.error = self._columns["status"], self._columns["error"]
        self.batch, self.queue, self.payload = (self._columns[name] for name in ("batch", "queue", "payload"))
        self.correct, self.unit = self._columns["correct"], self._columns["unit"]
        self._arm, self._assignment = self._columns["arm"], self._columns["assignment"]
        self._ended = self._columns["ended"]
        self._labels: dict[bytes, int] = {b"": 0}
        self._upstream, self._gateway = self._columns["upstream"], self._columns["gateway"]
        self._codec = self._columns["codec"]
        self._limit = 0
        self._grow(max(slots, _CHUNK))

    def _grow(self, slots: int) -> None:
        for name, column in self._columns.items():
            column.extend(array(column.typecode, [0 if name in _FROM_ZERO else -1]) * slots)
        self._limit += slots

    def begin(self, due: int, payload: int, unit: int = 0) -> int:
        """A new slot for a request that is due; it is unsent until somebody sets `sent`."""
        slot = self.size
        if slot == self._limit:
            self._grow(_CHUNK)
        self.size = slot + 1
        self.due[slot] = due
        self.payload[slot] = payload
        self.unit[slot] = unit
        return slot

    def fail(self, slot: int, error: str, status: int = 0) -> None:
        """The request went wrong in a way that has a name."""
        self.status[slot] = status
        self.error[slot] = self.names.setdefault(error, len(self.names))
        if self.sent[slot] >= 0 and self.done[slot] < 0:
            self._ended[slot] = monotonic_ns()

    def named(self, slot: int, arm: bytes, assignment: bytes) -> None:
        """Keep who answered, and how that was chosen."""
        labels = self._labels
        self._arm[slot] = labels.setdefault(arm, len(labels))
        self._assignment[slot] = labels.setdefault(assignment, len(labels))

    def timing(self, slot: int, told: bytes) -> None:
        """Keep the gateway's server-timing: milliseconds with three digits."""
        found = _TIMING.match(told)
        if found:
            gateway, codec, upstream = found.groups()
            self._gateway[slot] = round(float(gateway) * 1e6)
            self._codec[slot] = round(float(codec) * 1e6)
            self._upstream[slot] = round(float(upstream) * 1e6)

    def wants(self, slot: int) -> bool:
        """Is this request's answer one that the judge gets?"""
        return self._every > 0 and slot % self._every == 0

    def keep(self, slot: int, body: bytes) -> None:
        """Keep a good answer for the judge, where there is room."""
        self._room -= len(body)
        if self._room >= 0:
            self.bodies.append((slot, body))
        else:
            self.unkept += 1

    def table(self, offset_ns: int, payload_rows: NDArray[np.int32]) -> Requests:
        """All slots in order of due time, as wall clock; payload_rows: rows of each payload, shape [payloads]."""
        columns = self._arrays()
        names = np.array(list(self.names), dtype=object)
        order = np.argsort(columns["due"], kind="stable")

        def wall(name: str) -> NDArray[np.int64]:
            times = columns[name][order].astype(np.int64)
            return np.where(times < 0, -1, times + offset_ns)

        def plain(name: str) -> NDArray[np.int64]:
            return columns[name][order].astype(np.int64)

        return Requests(
            due_ns=wall("due"),
            sent_ns=wall("sent"),
            done_ns=wall("done"),
            status=columns["status"][order].astype(np.int16),
            error=names[columns["error"][order]],
            rows=payload_rows[columns["payload"][order]].astype(np.int32),
            correct=columns["correct"][order].astype(np.int8),
            upstream_ns=plain("upstream"),
            gateway_ns=plain("gateway"),
            codec_ns=plain("codec"),
            batch_size=columns["batch"][order].astype(np.int32),
            queue_ns=plain("queue"),
        )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.frombuffer(column, column.typecode)[: self.size] for name, column in self._columns.items()}

    def names_table(self, offset_ns: int, units: Sequence[str], name: str) -> dict[str, NDArray[Any]]:
        """The columns of NAMED in the order of `table`; units: names by index; name: what request ids begin with."""
        columns = self._arrays()
        order = np.argsort(columns["due"], kind="stable")
        labels = np.array([label.decode("latin-1") for label in self._labels], dtype=object)
        ended = np.where(columns["done"] >= 0, columns["done"], columns["ended"])[order]
        return {
            "unit": np.array([units[index] for index in columns["unit"][order]], dtype=object),
            "arm": labels[columns["arm"][order]],
            "assignment": labels[columns["assignment"][order]],
            "request_id": np.array([f"{name}-{slot:x}" for slot in order.tolist()], dtype=object),
            "ended_ns": np.where(ended < 0, -1, ended + offset_ns),
        }
