"""Captures of the running gateway: one at a time, begun and ended by the configuration or over the admin API.

Assembly: puts a capture (telemetry) into the data plane's way and takes it out again; each start and stop is audited. The
configuration's size and body are the most that may be asked for at run time. All captures below the path count against the size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from gateway.clock import monotonic_ns, wall_ns
from gateway.config_schema import CaptureSection
from gateway.dataplane import DataPlane
from gateway.errors import RequestError
from gateway.storage import AuditFile
from gateway.telemetry.capture import Capture, Counts, Terms
from gateway.telemetry.capture_format import SUFFIX, Start
from gateway.telemetry.capture_writer import CaptureWriter
from gateway.telemetry.metrics import CaptureView

_LEAST = 4096  # bytes a capture needs to begin


class Capturing:
    """The gateway's captures; used on the event loop."""

    def __init__(
        self, plane: DataPlane, section: CaptureSection, *, unit_key: bytes, audit: AuditFile, version: str
    ) -> None:
        self._plane = plane
        self._section = section
        self._key = unit_key
        self._audit = audit
        self._version = version
        self.counts = Counts()  # of all captures of this process
        self._before = Counts()  # the counts when the latest one began
        self._capture: Capture | None = None
        self._writer: CaptureWriter | None = None
        self._reason = ""
        self._changing = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("abgate.capture")

    async def begin(self) -> None:
        """Start what the configuration asks for; a full disk or folder is told in the log and leaves the gateway serving."""
        if self._section.share == 0:
            return
        try:
            await self._start(self.terms())
        except RequestError as error:
            self._reason = error.message
            self._log.error("capture.not_started", reason=error.message)

    async def start(self, terms: Terms, author: Mapping[str, str]) -> dict[str, Any]:
        """Begin a capture and answer its status. Raises RequestError: conflict where one runs, invalid_argument for terms
        beyond the configuration's, failed_precondition where the size is used up, internal where the disk says no."""
        self._check(terms)
        async with self._changing:
            await self._start(terms)
        told = {"share": terms.share, "size": terms.size, "body": terms.body, "models": sorted(terms.models)}
        return self.status() | {"problem": await self._audited("capture.start", author, told)}

    async def stop(self, author: Mapping[str, str]) -> dict[str, Any]:
        """End the capture under way, once what was taken is written; answers its status, also where there is none."""
        async with self._changing:
            changed = self._capture is not None
            await self._stop()
        problem = await self._audited("capture.stop", author, {}) if changed else ""
        return self.status() | {"problem": problem}

    async def close(self) -> None:
        """The gateway ends."""
        async with self._changing:
            await self._stop()

    def terms(
        self,
        share: float | None = None,
        size: int | None = None,
        body: int | None = None,
        models: Collection[str] | None = None,
        seed: int | None = None,
    ) -> Terms:
        """The configuration's terms, with others where they are given."""
        section = self._section
        return Terms(
            section.share if share is None else share,
            section.size if size is None else size,
            section.body if body is None else body,
            section.models if models is None else models,
            section.seed if seed is None else seed,
        )

    @property
    def active(self) -> bool:
        """Is a capture under way?"""
        return self._capture is not None

    def status(self) -> dict[str, Any]:
        """What GET /admin/v1/capture answers; stopped is "" or why the last one ended by itself or did not begin;
        the counts are the latest capture's."""
        counts = self.counts.since(self._before)
        terms = self._capture.terms if self._capture is not None else self.terms()
        return {
            "active": self.active,
            "stopped": self._reason,
            "folder": str(self._writer.folder.absolute()) if self._writer is not None else "",
            "share": terms.share if self.active else 0,
            "models": sorted(terms.models),
            "size": terms.size,
            "body": terms.body,
            "seed": terms.seed,
            "seen": counts.seen,
            "written": counts.written,
            "bytes": counts.bytes,
            "dropped_queue_full": counts.queue,
            "dropped_body": counts.body,
            "dropped_ended": counts.ended + counts.late,
        }

    def view(self) -> CaptureView:
        """What a scrape shows."""
        counts = self.counts
        lost = {"queue": counts.queue, "body": counts.body, "ended": counts.ended + counts.late}
        return CaptureView(self.active, counts.written, counts.bytes, lost)

    # ---- one capture ----

    def _check(self, terms: Terms) -> None:
        section = self._section
        if not 0 < terms.share <= 1:
            raise RequestError("invalid_argument", f"share: must be above 0 and at most 1, not {terms.share:g}")
        for key in ("size", "body"):
            asked, most = getattr(terms, key), getattr(section, key)
            if asked > most:
                raise RequestError("invalid_argument", f"{key}: {asked} bytes is over the configuration's {most}")
        unknown = sorted(set(terms.models) - set(self._plane.routes))
        if unknown:
            raise RequestError("not_found", f"models: there is no {', '.join(unknown)}")

    async def _start(self, terms: Terms) -> None:
        if self._capture is not None:
            raise RequestError("conflict", "a capture is under way; stop it first")
        root = self._section.path
        used = await asyncio.to_thread(_used, root)
        if used + _LEAST > terms.size:
            raise RequestError(
                "failed_precondition",
                f"{root} holds captures of {used} bytes and {terms.size} are allowed; move them away or allow more",
            )
        began = wall_ns()
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(began // 10**9))}-{began % 10**9:09d}-{os.getpid()}"
        head = Start(name, 0, began, terms.share, terms.seed, sorted(terms.models), self._version)
        before = replace(self.counts)
        capture = Capture(terms, self.counts, monotonic_ns())
        loop = asyncio.get_running_loop()

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway ends
                loop.call_soon_threadsafe(self._ended, capture)

        try:
            writer = CaptureWriter(capture, root / name, head, room=terms.size - used, unit_key=self._key, ended=ended)
            writer.start()
        except OSError as error:
            raise RequestError("internal", f"the capture cannot be written: {error}") from error
        self._reason = ""
        self._before = before
        self._capture, self._writer = capture, writer
        self._plane.tap = capture
        self._log.info("capture.started", folder=str(writer.folder), share=terms.share, size=terms.size)

    def _ended(self, capture: Capture) -> None:
        """The writer has stopped by itself: requests go on without it."""
        if capture is self._capture and self._writer is not None:
            self._plane.tap = None
            self._reason = self._writer.reason
            self._log.warning("capture.ended", reason=self._reason, folder=str(self._writer.folder))
            self._ending = asyncio.get_running_loop().create_task(self.close())

    async def _stop(self) -> None:
        capture, writer = self._capture, self._writer
        if capture is None or writer is None:
            return
        self._plane.tap = None
        capture.stopped = True
        await asyncio.to_thread(writer.close)
        self._capture = None
        self._log.info("capture.stopped", folder=str(writer.folder), written=writer.written)

    async def _audited(self, what: str, author: Mapping[str, str], told: dict[str, Any]) -> str:
        """Write the audit line; what went wrong with it, or ""."""
        try:
            await asyncio.to_thread(self._audit.append, {"time_ns": wall_ns(), "what": what, **author, **told})
        except OSError as error:
            return f"the audit line could not be written: {error}"
        return ""


def _used(root: Path) -> int:
    """Bytes of every capture below a folder."""
    return sum(path.stat().st_size for path in root.glob(f"*/*{SUFFIX}"))
