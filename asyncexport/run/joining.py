"""A nightly run that finds the output directory in use joins the run that holds it, instead of ending with an error.

1. It reads the ledger at intervals, without changing it, and ends with a summary of its own as soon as its share is
   done (`core.joining`). It then needs neither the lock nor a request.
2. More often than that it checks whether the other run has ended. It then becomes an ordinary run, which resumes what
   the other one has left: nothing is requested twice, except creates whose answer was not recorded.
3. The share is worked out by the service's time. As long as the ledger does not contain that time, only the end of the
   other run ends the wait.
4. Only one run waits for a directory: it holds a second lock meanwhile. Another one ends with `Exit.LOCKED`.
5. A signal ends the wait immediately, since there is nothing to save.
6. How it ended is recorded in the log of joined runs (`ledger.joined_log`), so that `status --check` and the metrics
   know of it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from asyncexport.client.clock import HostClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import DAY
from asyncexport.core.events import BundleParked, Joining, Listener, Note
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.join_progress import JoinedRun, ShareProgress
from asyncexport.core.states import Failed, FewerRows, Overdue, Refused
from asyncexport.core.summary import Summary, Tally
from asyncexport.core.text import show_duration
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError, LedgerLockedError
from asyncexport.ledger import hold_place
from asyncexport.run.counters import RunCounters
from asyncexport.run.joined_record import JoinedRecord
from asyncexport.run.listeners import EventListeners
from asyncexport.run.lock_wait import find_joined
from asyncexport.run.run import Watch, export, watch_nothing
from asyncexport.run.share_reader import ShareReader
from asyncexport.run.spec import Nightly


@dataclass(frozen=True, slots=True)
class JoinTimes:
    """How often a joining run does something, and how long it waits, in seconds.

    Attributes:
        tick: Between two readings of the ledger, and between two attempts to take the lock of a run that seems alive.
        holder: Between two checks whether the other run has ended.
        report: Between two reports of the progress.
        longest: The longest wait of a run without a maximum duration.
        pause_per_reading: After a reading of the ledger, the next one is at least this many times its duration later: a
            year of narrow bundles takes seconds to read, and the other run needs the processor.
    """

    tick: float = 30.0
    holder: float = 1.0
    report: float = 60.0
    longest: float = DAY
    pause_per_reading: float = 20.0


async def export_or_join(
    settings: Settings,
    spec: Nightly,
    *,
    key: ApiKey,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
    host_clock: HostClock | None = None,
    times: JoinTimes | None = None,
) -> Summary:
    """Carry out a nightly run; if another run holds the output directory, join that run.

    Args:
        settings: The settings.
        spec: What to do.
        key: The API key.
        stop: Stops the run, or ends the wait.
        listeners: Called with each event of the wait (`Joining`) and of the run. One that raises is not called again.
        watch: Shows the progress of the run, once it has begun.
        host_clock: The clocks of this host. None: the real ones.
        times: How often a joining run does something. None: the default times.
    """
    clock = host_clock or HostClock()
    run = _JoiningRun(_Order(settings, spec, key, stop or Stop(), tuple(listeners), watch, clock), times or JoinTimes())
    return await run.attempt() or await run.join()


@dataclass(frozen=True, slots=True)
class _Order:
    """The arguments of the run."""

    settings: Settings
    spec: Nightly
    key: ApiKey
    stop: Stop
    listeners: tuple[Listener, ...]
    watch: Watch
    host_clock: HostClock


class _JoiningRun:
    """A nightly run, and its wait for another run."""

    def __init__(self, order: _Order, times: JoinTimes) -> None:
        self._order, self._times = order, times
        self._limit = order.spec.max_duration_seconds
        self._time = asyncio.get_running_loop().time
        self._began = self._time()
        self._counters = RunCounters(requires_end=order.spec.require_end)
        self._emit = EventListeners(self._counters, order.listeners).emit
        self._place = ExitStack()
        self._record = JoinedRecord(order.settings.output.directory, order.spec.command, order.host_clock)
        self._holds_lock = False
        self._share = ShareReader(order.settings, order.spec, order.host_clock)
        self._progress: ShareProgress | None = None
        self._joined: JoinedRun | None = None

    async def attempt(self) -> Summary | None:
        """Carry out the run and return its summary, or None if another run holds the directory."""
        order = self._order
        left = None if self._limit is None else max(0.0, self._limit - self._waited)
        summary = await export(
            order.settings,
            replace(order.spec, max_duration_seconds=left),
            key=order.key,
            stop=order.stop,
            listeners=order.listeners,
            watch=order.watch,
            host_clock=order.host_clock,
            on_locked=self._on_locked,
        )
        if isinstance(summary.error, LedgerLockedError) and not self._holds_lock:
            return None
        return replace(summary, seconds=self._counters.seconds, joined=self._joined)

    async def join(self) -> Summary:
        """Wait until the share is done, or until the run can be carried out; return the summary."""
        try:
            with self._place:
                self._place.enter_context(
                    hold_place(self._order.settings.output.directory, command=self._order.spec.command)
                )
                return await self._wait_on_record()
        except ExportError as error:
            return self._summary(exit_of(error), error)

    @property
    def _waited(self) -> float:
        """Seconds since the run began."""
        return self._time() - self._began

    def _on_locked(self) -> None:
        """Give up the place for a waiting run, because this run has taken the lock."""
        self._holds_lock = True
        self._record.forget()
        self._place.close()

    async def _wait_on_record(self) -> Summary:
        """Wait, and record how that ended unless this run has taken over."""
        await self._find_holder()
        await asyncio.to_thread(self._record.begin, self._joined)
        try:
            summary = await self._wait()
        except ExportError as error:
            summary = self._summary(exit_of(error), error)
        if not self._holds_lock:
            await asyncio.to_thread(self._record.end, summary)
        return summary

    async def _wait(self) -> Summary:
        times, attempt_at, read_at, report_at = self._times, 0.0, 0.0, 0.0
        while self._order.stop.reason is None:
            if not await self._find_holder() or self._waited >= attempt_at:
                # The lock is what counts: its holder may be a process on another machine, or in another container.
                attempt_at = self._waited + times.tick
                if summary := await self.attempt():
                    return summary
            if (began := self._waited) >= read_at:
                progress = await asyncio.to_thread(self._share.read, waited_seconds=began)
                read_at = self._waited + max(times.tick, (self._waited - began) * times.pause_per_reading)
                self._progress = progress or self._progress
                if progress is not None and not progress.left:
                    return await self._done()
            if self._waited >= report_at:
                report_at = self._waited + times.report
                self._emit(Joining(self._joined, self._progress, self._waited))
            if self._waited >= (times.longest if self._limit is None else self._limit):
                return await self._timed_out()
            await self._pause()
        return self._summary(self._order.stop.reason)

    async def _find_holder(self) -> bool:
        """Find out who holds the directory; return whether anybody seems to."""
        found = await find_joined(self._order.settings.output.directory)
        self._joined = found or self._joined
        return found is not None

    async def _pause(self) -> None:
        """Wait until the next check, or until the run is asked to stop."""
        limit = self._times.longest if self._limit is None else self._limit
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(self._times.holder, limit - self._waited))):
                await self._order.stop.asked.wait()

    async def _done(self) -> Summary:
        """Return the summary for a share that the other run has completed."""
        await self._count_shortfalls()
        for message in () if self._share.plan is None else self._share.plan.notes:
            self._emit(Note(message))
        self._count()
        return self._summary(self._counters.exit_code(None, Stop()))

    async def _timed_out(self) -> Summary:
        self._count()
        if self._limit is not None:
            await self._count_shortfalls()
            return self._summary(self._counters.code_of_stop(Exit.TIME_UP))
        directory, waited = self._order.settings.output.directory, show_duration(self._times.longest)
        error = LedgerLockedError(
            f"waited {waited} for {directory}, which another run still holds: {self._joined or 'an unknown process'}",
            hint="`asyncexport status` shows whether that run makes progress; if it does not, stop it",
        )
        return self._summary(Exit.LOCKED, error)

    async def _count_shortfalls(self) -> None:
        tally = self._counters.tally
        tally.shortfalls = await asyncio.to_thread(self._share.shortfalls)
        tally.shortfalls_fail = self._order.settings.sentinel.fail

    def _count(self) -> None:
        if self._progress is not None:
            count_share(self._counters.tally, self._progress)
        if self._share.plan is not None:
            self._counters.tally.ranges = dict(self._share.plan.ranges)

    def _summary(self, code: Exit, error: ExportError | None = None) -> Summary:
        """Return the summary of a run that has only waited."""
        order = self._order
        self._count()
        directory = str(order.settings.output.directory)
        summary = self._counters.summary(order.spec, directory=directory, error=error, stop=Stop())
        return replace(summary, exit_code=code, joined=self._joined)


def count_share(tally: Tally, progress: ShareProgress) -> None:
    """Fill in the tally of a run that has only waited: what is stored was stored by another run."""
    tally.stored_before, tally.planned = progress.stored, progress.planned
    tally.parked, tally.next_tries = {}, dict(progress.next_tries)
    for one in progress.parked:
        if isinstance(one.state, Failed | Overdue | Refused | FewerRows):
            tally.parked[one.bundle] = BundleParked(one.bundle, one.state).reason
        if isinstance(one.state, FewerRows):
            tally.fewer[one.bundle] = one.state
