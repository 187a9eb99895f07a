"""Loads exported days into tables: `load(settings, spec)`.

1. What each day should be is in the ledger, and what a destination has is in its own record. Only days where the two
   differ are loaded. So a load that was killed is resumed by starting it again, and a second load does nothing.
2. The ledger is only read, and a run may go on meanwhile. One load at a time uses a load directory.
3. A day or a destination that fails does not stop the others. A full disk ends the load; a file or folder of a day
   that cannot be used fails that day only, unless several days in a row have one.
4. How a load ended is in its summary. A load raises only bugs, and what is wrong with the settings.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, Range, When, moment_of
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.summary import Summary, Tally
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.load_events import LoadEvent, LoadListener
from asyncexport.core.warehouse.load_tally import LoadTally
from asyncexport.core.warehouse.to_load import whole_days
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ConfigError, ExportError
from asyncexport.run.beside_log import BesideLog
from asyncexport.run.load_exports import check_load_settings
from asyncexport.run.load_sinks import chosen_sinks
from asyncexport.run.load_workers import check_scheduler
from asyncexport.run.open_load import OpenLoad, open_load
from asyncexport.run.stopping import unless_stopped


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to load.

    Attributes:
        exports: The names of the exports; all of the settings if empty.
        start: The start of the range. A day that is only partly in the range is loaded as a whole.
        end: The end of the range, exclusive. None: no end.
        to: The destinations; those of the settings if empty.
        again: Whether to load days that the destinations have already.
        command: The command, for the summary.
        scheduler: The address of a Dask scheduler whose workers make the days; None for processes on this machine.
    """

    exports: tuple[str, ...] = ()
    start: When = 0
    end: When | None = None
    to: tuple[str, ...] = ()
    again: bool = False
    command: str = "load"
    scheduler: str | None = None

    def span(self, now: float) -> Range:
        """Return the range, in whole days, at a time in seconds since 1970."""
        start = moment_of(self.start, now=now) if self.start else ALL_TIME.start
        end = ALL_TIME.end if self.end is None else moment_of(self.end, now=now)
        return ALL_TIME if (start, end) == (ALL_TIME.start, ALL_TIME.end) else whole_days(Range(start, end))


def _ignore(_event: LoadEvent) -> None:
    """Do nothing."""


def _ignore_total(_days: int) -> None:
    """Do nothing."""


async def load(
    settings: Settings,
    spec: LoadSpec,
    *,
    now: float,
    stop: Stop | None = None,
    on_event: LoadListener = _ignore,
    on_total: Callable[[int], None] = _ignore_total,
) -> Summary:
    """Load days and return the summary, which says how that ended.

    Args:
        settings: The settings.
        spec: What to load.
        now: The time at the service, in seconds since 1970, for relative dates.
        stop: Stops the load when its `ask` is called: days that are being made are given up, and those that are being
            replaced are waited for, until it is called again; then the process has to end. None: it is not stopped.
        on_event: Called with each day that was loaded or failed.
        on_total: Called once with the number of days to load.

    Raises:
        ConfigError: the settings or the names in `spec` cannot be used.
    """
    began, stop = time.monotonic(), stop or Stop()
    check_load_settings(settings)
    sinks = chosen_sinks(settings, spec.to)
    check_scheduler(spec.scheduler)
    tally, record = LoadTally.of([one.value for one in sinks]), _record(settings, spec)
    error: ExportError | None = None
    is_done = False

    try:
        opening = open_load(settings, spec.exports, sinks, report=tally.notes.append, scheduler=spec.scheduler)
        async with opening as one:
            await asyncio.to_thread(record.begin)
            tally.notes += one.notes
            work = _load_days(one, spec.span(now), tally, again=spec.again, on_event=on_event, on_total=on_total)
            is_done = await unless_stopped(work, stop, at_once=one.leave_alone)
            tally.is_stopped = not is_done
    except ConfigError:
        raise
    except ExportError as failure:
        error = failure
    tally.seconds = time.monotonic() - began
    reason = None if is_done else stop.reason
    return await asyncio.to_thread(_recorded, record, _summary(settings, spec, tally, error, reason), tally, stop)


async def _load_days(
    one: OpenLoad,
    span: Range,
    tally: LoadTally,
    *,
    again: bool,
    on_event: LoadListener,
    on_total: Callable[[int], None],
) -> None:
    """Load the days of a range, and bring the destinations up to date."""

    def on_day(event: LoadEvent) -> None:
        tally.record(event)
        on_event(event)

    tasks = await one.tasks(span, tally, again=again)
    on_total(len(tasks))
    await one.run(tasks, on_day)
    await one.finish(tally)


def _record(settings: Settings, spec: LoadSpec) -> BesideLog:
    """Return the record of a load, which writes nothing for a load of a part."""
    leaves_out = set(settings.load.to).difference(map(SinkName, spec.to)) if spec.to else ()
    is_part = spec.start or spec.end is not None or leaves_out
    names = () if is_part else spec.exports or [one.name for one in settings.exports]
    return BesideLog.of_load(settings, names, command=spec.command, is_run=False)


def _recorded(record: BesideLog, summary: Summary, tally: LoadTally, stop: Stop) -> Summary:
    """Record how a load ended, if it got as far as to hold the load directory; return its summary."""
    if record.has_begun:
        is_stopped = summary.error is not None or stop.asked.is_set()
        record.end_load(tally, summary.exit_code, is_stopped=is_stopped, error=summary.error)
    return summary


def _summary(
    settings: Settings, spec: LoadSpec, tally: LoadTally, error: ExportError | None, stopped: Exit | None
) -> Summary:
    """Return the summary; `stopped`: why the load was stopped before it was done."""
    code = tally.exit_code()
    if error is not None:
        code = exit_of(error)
    elif stopped is not None:
        code = stopped
    return Summary(
        command=spec.command,
        exit_code=code,
        seconds=tally.seconds,
        tally=Tally(),
        requests=dict.fromkeys(("create", "poll", "list", "results", "other"), 0),
        refused=0,
        directory=str(settings.output.directory),
        error=error,
        load=tally,
    )
