"""Viewers show progress: as a live view on a terminal, as a status line once a minute elsewhere, as JSON on request.

RunViewer        shows a run
ProgressCounter  shows a long check of many files
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncexport.core.events import BundleStored, Event, Joining
from asyncexport.core.summary import Snapshot
from asyncexport.display.event_records import event_record, progress_record
from asyncexport.display.formatting import show_count
from asyncexport.display.lines import MessageLines, ResultLines
from asyncexport.display.progress_text import sentence

if TYPE_CHECKING:
    from asyncexport.display.live_view import LiveView

FRAME_SECONDS = 0.25

STATUS_SECONDS = 60.0


class RunViewer:
    """Shows a run: `on_event` receives its events, and `watch` shows its progress.

    Args:
        lines: The writer of messages to stderr.
        heading: The description of the run.
        events: The writer of events as JSON. None: events are not written.
        view: The live view. None: status lines take its place.
        silent: Whether to show neither the live view nor status lines.
        also: Called with the text of each status line, whether status lines are shown or not.
        status_seconds: Seconds between two status lines, and between two `progress` objects.

    Attributes:
        example: The path of the last stored archive with rows, relative to the output directory; "" if there is none.
        is_joining: Whether the run has not begun because it waits for another run.
    """

    def __init__(
        self,
        lines: MessageLines,
        heading: str,
        *,
        events: ResultLines | None = None,
        view: "LiveView | None" = None,
        silent: bool = False,
        also: Callable[[str], None] | None = None,
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        self._lines = lines
        self._heading = heading
        self._also = also
        self._events = events
        self._view = view
        self._silent = silent
        self._status_seconds = status_seconds
        self._snapshot: Callable[[], Snapshot] | None = None
        self.example = ""
        self.is_joining = False
        self._joins = False

    @property
    def downloading(self) -> int:
        """The number of downloads in flight."""
        return self._snapshot().downloading if self._snapshot else 0

    async def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Show the progress until cancelled."""
        if self.is_joining and not self._silent:
            begins = "continues in its place" if self._joins else "begins"
            self._lines.report("joining", f"the other run has ended; this run {begins}")
        self.is_joining = False
        self._snapshot = snapshot
        try:
            async with asyncio.TaskGroup() as group:
                if self._events is not None:
                    group.create_task(self._record(snapshot, self._events))
                if self._view is not None:
                    group.create_task(self._draw(snapshot, self._view))
                if self._also is not None or (self._view is None and not self._silent):
                    group.create_task(self._write_status(snapshot))
                await asyncio.Event().wait()
        finally:
            self._snapshot = None

    def on_event(self, event: Event) -> None:
        """Write an event as JSON, if that is requested; show what the run waits for."""
        if isinstance(event, BundleStored) and (event.archive.rows or not self.example):
            self.example = event.archive.path
        if isinstance(event, Joining):
            self.is_joining, self._joins = True, event.has_share
            if self._also is not None:
                self._also(event.text)
            if not self._silent:
                self._lines.report("joining", event.text)
        record = event_record(event)
        if self._events is not None and record is not None:
            self._events.record(record)

    async def _draw(self, snapshot: Callable[[], Snapshot], view: "LiveView") -> None:
        from asyncexport.display.progress_view import COARSE, FINE, Rates, draw  # noqa: PLC0415 - rich is slow to import

        rates = Rates()
        self._lines.above = view.above
        try:
            while True:
                now = snapshot()
                lines = draw(
                    now,
                    self._heading,
                    width=view.width,
                    now=time.time(),
                    rates=rates.take(now),
                    marks=FINE if view.has(FINE) else COARSE,
                )
                view.draw(lines)
                await asyncio.sleep(FRAME_SECONDS)
        finally:
            view.clear()
            self._lines.above = None

    async def _write_status(self, snapshot: Callable[[], Snapshot]) -> None:
        while True:
            await asyncio.sleep(self._status_seconds)
            text = sentence(snapshot(), now=time.time())
            if self._also is not None:
                self._also(text)
            if self._view is None and not self._silent:
                self._lines.report("status", text)

    async def _record(self, snapshot: Callable[[], Snapshot], events: ResultLines) -> None:
        """Write `progress` objects, independently of what stderr shows."""
        while True:
            await asyncio.sleep(self._status_seconds)
            events.progress(progress_record(snapshot(), now=time.time()))


class ProgressCounter:
    """Shows the progress of a long check; a context manager that yields a function to call after each step.

    Args:
        lines: The writer of messages to stderr.
        heading: The description of the check.
        total: The number of steps. None: unknown.
        of: The noun for what is counted.
        view: The live view. None: status lines take its place.
        silent: Whether to show neither.
        status_seconds: Seconds between two status lines.
    """

    def __init__(
        self,
        lines: MessageLines,
        heading: str,
        *,
        total: int | None,
        of: str,
        view: "LiveView | None" = None,
        silent: bool = False,
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        self._lines = lines
        self._heading = heading
        self._total = total
        self._of = of
        self._view = view
        self._silent = silent
        self._every = FRAME_SECONDS if view is not None else status_seconds
        self._shown_at = time.monotonic()
        self._count = 0

    def __enter__(self) -> Callable[[], None]:
        if self._view is not None:
            self._lines.above = self._view.above
        return self._step

    def __exit__(self, *_: object) -> None:
        if self._view is not None:
            self._view.clear()
            self._lines.above = None

    def expect(self, total: int) -> None:
        """Set the number of steps, once it is known."""
        self._total = total

    def _step(self) -> None:
        self._count += 1
        now = time.monotonic()
        if self._silent or now - self._shown_at < self._every:
            return
        self._shown_at = now
        total = "" if self._total is None else f" of {show_count(self._total)}"
        text = f"{show_count(self._count)}{total} {self._of}"
        if self._view is None:
            self._lines.report("status", text)
        else:
            self._view.draw_plain([f"{self._heading}: {text}"])
