"""A run that waits until the output directory is free, instead of ending with an error.

1. Unlike a nightly run that joins another one (`run.joining`), it needs the lock in any case, so it only waits.
2. Any number of runs may wait. They try the lock less often than a joining run does, so that run goes first.
3. A signal ends the wait immediately, since there is nothing to save.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from asyncexport.client.clock import HostClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.events import Joining, Listener
from asyncexport.core.join_progress import JoinedRun
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import LedgerLockedError
from asyncexport.ledger import holder
from asyncexport.run.counters import RunCounters
from asyncexport.run.listeners import EventListeners
from asyncexport.run.run import Watch, export, watch_nothing
from asyncexport.run.spec import RunSpec

TICK_SECONDS = 5.0
"""Seconds between two attempts to take the lock."""

REPORT_SECONDS = 60.0
"""Seconds between two reports that the run still waits."""


async def export_when_free(
    settings: Settings,
    spec: RunSpec,
    *,
    key: ApiKey,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
    host_clock: HostClock | None = None,
    tick_seconds: float = TICK_SECONDS,
) -> Summary:
    """Carry out a run as soon as no other run holds the output directory.

    Args:
        settings: The settings.
        spec: What to do.
        key: The API key.
        stop: Stops the run, or ends the wait.
        listeners: Called with each event of the wait (`Joining`) and of the run. One that raises is not called again.
        watch: Shows the progress of the run, once it has begun.
        host_clock: The clocks of this host. None: the real ones.
        tick_seconds: Seconds between two attempts.
    """
    stop, counters, lock = stop or Stop(), RunCounters(), asyncio.Event()
    emit, joined, reported_at = EventListeners(counters, listeners).emit, None, -REPORT_SECONDS
    while True:
        summary = await export(
            settings,
            spec,
            key=key,
            stop=stop,
            listeners=listeners,
            watch=watch,
            host_clock=host_clock,
            on_locked=lock.set,
        )
        if lock.is_set() or not isinstance(summary.error, LedgerLockedError):
            return replace(summary, seconds=counters.seconds, joined=joined)
        joined = await _find_holder(settings) or joined
        if counters.seconds >= reported_at + REPORT_SECONDS:
            reported_at = counters.seconds
            emit(Joining(joined, None, counters.seconds, has_share=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(tick_seconds):
                await stop.asked.wait()
        if stop.reason is not None:
            return replace(summary, exit_code=stop.reason, error=None, seconds=counters.seconds, joined=joined)


async def _find_holder(settings: Settings) -> JoinedRun | None:
    found = await asyncio.to_thread(holder, settings.output.directory)
    return None if found is None else JoinedRun(found.command, found.pid, found.host, found.since)
