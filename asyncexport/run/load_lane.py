"""Loads days during a run that exports them (`backfill --load`, `nightly --load`).

1. A day is loaded as soon as all of it is stored, for the first time. The others are loaded when the run has ended:
   days with gaps, refreshed days, and days that earlier loads did not get to. The day that is being loaded when the run
   ends is finished first: what it brings, such as lines that are no rows, has to be counted.
2. Nothing here harms the run: what goes wrong with a load is in its tally, and the archives are stored all the same.
3. If the run is stopped, by a signal or by its maximum duration, the load stops as well. The next one continues.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, DAY
from asyncexport.core.events import BundleStored, Event
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.core.warehouse.load_events import DayFailed, LoadEvent, LoadListener
from asyncexport.core.warehouse.load_tally import LoadTally, exit_with_load
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError, LedgerLockedError
from asyncexport.run.beside_log import BesideLog
from asyncexport.run.load_sinks import chosen_sinks
from asyncexport.run.open_load import OpenLoad, open_load
from asyncexport.run.stopping import ended, unless_stopped

log = logging.getLogger(__name__)

ENDS_A_LOAD = frozenset({Exit.UNEXPECTED, Exit.USAGE, Exit.LOCKED, Exit.LEDGER, Exit.DISK})
"""If a run ends with one of these, nothing more is loaded."""


def _ignore(_event: LoadEvent) -> None:
    """Do nothing."""


def _ignore_total(_days: int) -> None:
    """Do nothing."""


class LoadLane:
    """The load beside a run.

    Args:
        settings: The settings, which `check_load_settings` has accepted.
        names: The names of the exports.
        on_event: Called with each day that was loaded or failed.
        on_total: Called once with the number of days that are left to load when the run has ended.
    """

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, ...],
        *,
        on_event: LoadListener = _ignore,
        on_total: Callable[[int], None] = _ignore_total,
    ) -> None:
        self._settings = settings
        self._names = names
        self._on_event = on_event
        self._on_total = on_total
        self._stored: asyncio.Queue[tuple[str, int] | None] = asyncio.Queue()
        self._has_ended = False
        self._seen: dict[tuple[str, str], LoadEvent] = {}
        self._sinks = chosen_sinks(settings, ())
        self._tally = LoadTally.of([one.value for one in self._sinks])
        self._open: OpenLoad | None = None

    def on_event(self, event: Event) -> None:
        """Note the day of a bundle that was stored for the first time."""
        if isinstance(event, BundleStored) and event.replaced is None:
            self._stored.put_nowait((event.bundle.export, event.bundle.range.start // DAY * DAY))

    async def beside(self, work: Awaitable[Summary], stop: Stop) -> Summary:
        """Carry out a run with a load beside it; return the run's summary, with the load's tally."""
        async with AsyncExitStack() as stack:
            loading = asyncio.create_task(self._guarded(self._during, stack))
            try:
                summary = await work
                began = time.monotonic()
                goes_on = not stop.asked.is_set() and summary.exit_code not in ENDS_A_LOAD
                if goes_on:
                    finishing = self._finished(loading)
                    goes_on = await unless_stopped(finishing, stop, at_once=self._leave_alone)
            finally:
                await ended(loading, stop=stop, at_once=self._leave_alone)
            is_done = False
            if goes_on:
                is_done = await self._recorded(stack, stop, command=summary.command)
            else:
                self._tally.is_stopped = True
                self._count_seen()
            self._tally.seconds = time.monotonic() - began
        code = exit_with_load(summary.exit_code, self._tally, stopped_by=None if is_done else stop.reason)
        return replace(summary, load=self._tally, exit_code=code)

    async def _during(self, stack: AsyncExitStack) -> None:
        """Load each day that has become complete, until the run has ended."""
        while (stored := await self._stored.get()) is not None and not self._has_ended:
            export, start = stored
            one = await self._opened(stack)
            task = await one.complete_day(export, start)
            if task is not None:
                await one.run([task], self._note)

    async def _finished(self, loading: asyncio.Task[None]) -> None:
        """Let the task finish the day that it is loading, and no other."""
        self._has_ended = True
        self._stored.put_nowait(None)
        await loading

    async def _recorded(self, stack: AsyncExitStack, stop: Stop, *, command: str) -> bool:
        """Load what is left, and record how that went; return whether it was done before the run was asked to stop.

        If another load has the directory, nothing is recorded: it has a record too.
        """
        record = BesideLog.of_load(self._settings, self._names, command=command, is_run=True)
        work = self._guarded(partial(self._after, record), stack)
        is_done = await unless_stopped(work, stop, at_once=self._leave_alone)
        self._tally.is_stopped = not is_done
        if not isinstance(self._tally.error, LedgerLockedError):
            code = self._tally.exit_code() if is_done or stop.reason is None else stop.reason
            await asyncio.to_thread(record.end_load, self._tally, code, is_stopped=not is_done)
        return is_done

    async def _after(self, record: BesideLog, stack: AsyncExitStack) -> None:
        """Load what is left."""
        one = await self._opened(stack)
        await asyncio.to_thread(record.begin)
        tasks = await one.tasks(ALL_TIME, self._tally, again=False)
        for tables, task in tasks:
            # It is loaded again; what an earlier try did does not count.
            self._seen.pop((tables.export, task.source.date), None)
        self._tally.already -= len(self._seen)
        for event in self._seen.values():
            self._tally.record(event)
        self._seen.clear()
        self._on_total(len(tasks))
        await one.run(tasks, self._record)
        await one.finish(self._tally)

    def _leave_alone(self) -> None:
        if self._open is not None:
            self._open.leave_alone()

    async def _opened(self, stack: AsyncExitStack) -> OpenLoad:
        if self._open is None:
            opening = open_load(self._settings, self._names, self._sinks, report=self._tally.notes.append)
            self._open = await stack.enter_async_context(opening)
            self._tally.notes += self._open.notes
        return self._open

    def _note(self, event: LoadEvent) -> None:
        """Keep the newest event of a day; those of days that are not loaded again are counted at the end."""
        self._seen[event.counts.export, event.counts.date] = event
        if not isinstance(event, DayFailed):
            self._on_event(event)

    def _record(self, event: LoadEvent) -> None:
        self._tally.record(event)
        self._on_event(event)

    def _count_seen(self) -> None:
        self._tally.days += len(self._seen)
        for event in self._seen.values():
            self._tally.record(event)

    async def _guarded(self, part: Callable[[AsyncExitStack], Awaitable[None]], stack: AsyncExitStack) -> None:
        """Do a part of the load; note the error that ends it (rule 2)."""
        if self._tally.error is not None:
            return
        try:
            await part(stack)
        except ExportError as error:
            self._tally.error = error
        except Exception as error:
            # A bug in the load does not end the run.
            log.debug("traceback of the bug", exc_info=error)
            self._tally.error = ExportError(f"unexpected {type(error).__name__} in the load")
