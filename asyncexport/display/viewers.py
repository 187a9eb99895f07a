"""How what goes on is shown: a picture on a terminal, a line a minute elsewhere, JSON if asked for.

RunViewer  shows a run
Counter    shows a long look at many things, such as a check of all archives
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncexport.core.events import BundleStored, Event
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
    """Shows a run as it goes: `on_event` is told what happens, `watch` shows how far it has come.

    Args:
        lines: stderr.
        heading: What runs.
        events: Where events go as JSON; None: nowhere.
        pane: Where the picture is drawn; None: a line a minute takes its place.
        silent: Neither picture nor line on stderr.
        status_seconds: Between two such lines, and between two `progress` objects among the events.

    Attributes:
        example: The path of the last archive stored that has rows, relative to the output directory; "" before.
    """

    def __init__(
        self,
        lines: MessageLines,
        heading: str,
        *,
        events: ResultLines | None = None,
        pane: "LiveView | None" = None,
        silent: bool = False,
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        self._lines = lines
        self._heading = heading
        self._events = events
        self._pane = pane
        self._silent = silent
        self._status_seconds = status_seconds
        self._snapshot: Callable[[], Snapshot] | None = None
        self.example = ""

    @property
    def downloading(self) -> int:
        """How many downloads are under way."""
        return self._snapshot().downloading if self._snapshot else 0

    async def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Show it as it goes, until cancelled."""
        self._snapshot = snapshot
        try:
            async with asyncio.TaskGroup() as group:
                if self._events is not None:
                    group.create_task(self._record(snapshot, self._events))
                if self._pane is not None:
                    group.create_task(self._draw(snapshot, self._pane))
                elif not self._silent:
                    group.create_task(self._say(snapshot))
                await asyncio.Event().wait()
        finally:
            self._snapshot = None

    def on_event(self, event: Event) -> None:
        """Write an event down as JSON, if that is asked for."""
        if isinstance(event, BundleStored) and (event.archive.rows or not self.example):
            self.example = event.archive.path
        record = event_record(event)
        if self._events is not None and record is not None:
            self._events.record(record)

    async def _draw(self, snapshot: Callable[[], Snapshot], pane: "LiveView") -> None:
        from asyncexport.display.progress_view import COARSE, FINE, Rates, draw  # noqa: PLC0415 - rich is slow to import

        rates = Rates()
        self._lines.above = pane.above
        try:
            while True:
                now = snapshot()
                lines = draw(
                    now,
                    self._heading,
                    width=pane.width,
                    now=time.time(),
                    rates=rates.take(now),
                    marks=FINE if pane.has(FINE) else COARSE,
                )
                pane.draw(lines)
                await asyncio.sleep(FRAME_SECONDS)
        finally:
            pane.clear()
            self._lines.above = None

    async def _say(self, snapshot: Callable[[], Snapshot]) -> None:
        while True:
            await asyncio.sleep(self._status_seconds)
            self._lines.tell("status", sentence(snapshot(), now=time.time()))

    async def _record(self, snapshot: Callable[[], Snapshot], events: ResultLines) -> None:
        """Whatever stderr shows: who reads `--json` sees how far the run is."""
        while True:
            await asyncio.sleep(self._status_seconds)
            events.progress(progress_record(snapshot(), now=time.time()))


class Counter:
    """Shows how far a long look has come; a context manager that gives what is to be called at each step.

    Args:
        lines: stderr.
        heading: What is done.
        total: How many steps there will be; None where nobody knows.
        of: What is counted.
        pane: Where it is drawn; None: a line a minute takes its place.
        silent: Neither.
        status_seconds: Between two such lines.
    """

    def __init__(
        self,
        lines: MessageLines,
        heading: str,
        *,
        total: int | None,
        of: str,
        pane: "LiveView | None" = None,
        silent: bool = False,
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        self._lines = lines
        self._heading = heading
        self._total = total
        self._of = of
        self._pane = pane
        self._silent = silent
        self._every = FRAME_SECONDS if pane is not None else status_seconds
        self._shown_at = time.monotonic()
        self._count = 0

    def __enter__(self) -> Callable[[], None]:
        if self._pane is not None:
            self._lines.above = self._pane.above
        return self._step

    def __exit__(self, *_: object) -> None:
        if self._pane is not None:
            self._pane.clear()
            self._lines.above = None

    def _step(self) -> None:
        self._count += 1
        now = time.monotonic()
        if self._silent or now - self._shown_at < self._every:
            return
        self._shown_at = now
        total = "" if self._total is None else f" of {show_count(self._total)}"
        told = f"{show_count(self._count)}{total} {self._of}"
        if self._pane is None:
            self._lines.tell("status", told)
        else:
            self._pane.draw_plain([f"{self._heading}: {told}"])
