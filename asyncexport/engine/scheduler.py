"""The main loop of a run: starts one coroutine per bundle, which takes the bundle from state to state until it is done.

1. Running and resuming are the same: each bundle starts from the state that the ledger has for it.
2. Bundles are started lazily, when there is room (`engine.in_flight`). What becomes due while the run goes on, and the
   pieces of a bundle that was split, are started before the others (`engine.upcoming`). The newest bundle of an export
   is started ahead of its turn when its result is needed to decide about the others (`engine.create_turns`).
3. The failure of one bundle is handled in that bundle's coroutine (`engine.bundle_runner`). An error that concerns all
   bundles ends the run.
4. When asked to stop, the run starts nothing new, lets downloads in progress finish within the grace period and waits
   for the answers to creates that were sent. Everything else stays as the ledger has it.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord, Created, Creating, Planned, Ready
from asyncexport.core.summary import Exit
from asyncexport.engine.bundle_runner import BundleRunner
from asyncexport.engine.export_state import ExportHasStopped
from asyncexport.engine.in_flight import InFlight
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.upcoming import NewlyDue, UpcomingBundles
from asyncexport.errors import ExportError


@dataclass(slots=True)
class Stop:
    """Asks a run to end: gracefully the first time, immediately the second time."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)
    reason: Exit | None = None

    def ask(self, reason: Exit) -> None:
        """Ask to end gracefully, with this exit code if work is left; a second call asks to end immediately.

        The exit code of the first call is kept.
        """
        if self.asked.is_set():
            self.now.set()
            return
        self.reason = reason
        self.asked.set()


class Scheduler:
    """Runs many bundles concurrently.

    Args:
        runner: Takes one bundle from state to state.
        poller: Polls for the operations of all bundles.
        allowed: Returns how many operations may currently be in flight at the service.
        most: The most that `allowed` may return.
        most_waiting: Number of bundles waiting for their download at which no more are started.
        stop: Asks the run to end.
        grace_seconds: Seconds that downloads in progress may take after that.

    Attributes:
        in_flight: Counts the bundles in each phase.
        more_to_create: Whether there are bundles that were not started yet.
    """

    def __init__(
        self,
        runner: BundleRunner,
        poller: OperationPoller,
        *,
        allowed: Callable[[], int],
        most: int,
        most_waiting: int,
        stop: Stop,
        grace_seconds: float,
    ) -> None:
        self._runner = runner
        self._poller = poller
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._tasks: dict[asyncio.Task[None], Bundle] = {}
        self.in_flight = InFlight(runner.creates.sending, allowed=allowed, most=most, most_waiting=most_waiting)
        self.more_to_create = True
        self._group: asyncio.TaskGroup | None = None

    async def run(
        self,
        work: Iterator[BundleRecord],
        *,
        newest: Callable[[str], BundleRecord | None] = lambda _: None,
        newly_due: NewlyDue | None = None,
    ) -> None:
        """Process all bundles until each is final or parked, or until asked to stop.

        Args:
            work: The bundles in the order in which they are started.
            newest: Takes the newest bundle of an export out of `work`, ahead of its turn; None if there is none left.
            newly_due: Returns what has become due; None if the run does not follow the present.

        Raises:
            ExportError: an error that concerns all bundles.
        """
        self.more_to_create = True
        self._runner.creates.turns.take_newest = lambda export: self._start_newest(newest, export)
        try:
            await self._run_all(work, newly_due)
        except BaseExceptionGroup as failures:
            raise _cause(failures) from failures
        finally:
            await _finish_creates(self._runner, self._stop)

    async def _run_all(self, work: Iterator[BundleRecord], newly_due: NewlyDue | None) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            upcoming = UpcomingBundles(work, newly_due, notify=self.in_flight.notify, hurry=self._runner.hurry)
            self._runner.moves.start = upcoming.add_pieces
            self._runner.moves.failed_attempts.in_progress = self._tasks.values
            self.in_flight.keeps_room = upcoming.follow(group)
            polling = group.create_task(self._poller.run(), name="poller")
            feeding = group.create_task(self._feed(upcoming, group), name="feeder")
            stopping = group.create_task(self._stop.asked.wait(), name="stop")
            now = group.create_task(self._stop.now.wait(), name="stop now")
            await asyncio.wait({feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            upcoming.end()
            if not feeding.done():
                await self._wind_down(feeding, now)
            for helper in (polling, stopping, now):
                helper.cancel()

    async def _feed(self, upcoming: UpcomingBundles, group: asyncio.TaskGroup) -> None:
        """Start bundles while there is room; return when all have finished."""
        while upcoming or self._tasks:
            self.more_to_create = bool(upcoming)
            if upcoming:
                await self.in_flight.until_room(is_urgent=lambda: upcoming.is_urgent)
                self._start(upcoming.take(), group)
            else:
                upcoming.end_if_only_late(self._tasks.values())
                await self.in_flight.change()
        self.more_to_create = False

    def _start(self, record: BundleRecord, group: asyncio.TaskGroup) -> None:
        self.in_flight.enter(record)
        task = group.create_task(self._run_bundle(record), name="bundle")
        self._tasks[task] = record.bundle
        task.add_done_callback(lambda ended: self.in_flight.leave(self._tasks.pop(ended)))

    def _start_newest(self, newest: Callable[[str], BundleRecord | None], export: str) -> Bundle | None:
        """Start the newest bundle of an export immediately, even if there is no room, and return it.

        Called by another bundle. If that one is being cancelled, the run is ending, and the group takes no more tasks.
        """
        caller = asyncio.current_task()
        if self._group is None or self._stop.asked.is_set() or (caller is not None and caller.cancelling()):
            return None
        record = newest(export)
        if record is None:
            return None
        self._start(record, self._group)
        return record.bundle

    async def _run_bundle(self, record: BundleRecord) -> None:
        """Process one bundle from its recorded state until it is final or parked."""
        try:
            record = await self._runner.resume(record)
            while True:
                self.in_flight.enter(record)
                if self._stop.asked.is_set() and not isinstance(record.state, Ready):
                    # Rule 4. If a download fails within the grace period, its next attempt is left to the next run.
                    return
                match record.state:
                    case Planned(attempt) | Creating(attempt):
                        record = await self._runner.create(record, attempt)
                    case Created() as created:
                        record = await self._runner.watch(record, created)
                    case Ready() as ready:
                        record = await self._runner.fetch(record, ready)
                    case _:
                        return
        except ExportHasStopped:
            return

    async def _wind_down(self, feeding: asyncio.Task[None], now: asyncio.Task[bool]) -> None:
        """Stop gracefully (rule 4)."""
        feeding.cancel()
        for task, bundle in self._tasks.items():
            if bundle not in self._runner.fetching.downloading:
                task.cancel()
        ends_at = asyncio.get_running_loop().time() + self._grace_seconds
        while self._tasks and not now.done() and (seconds := ends_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({now, *self._tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()


async def _finish_creates(runner: BundleRunner, stop: Stop) -> None:
    """Wait for the answers to creates that were sent, unless asked to stop immediately or cancelled again."""
    finishing = asyncio.create_task(runner.creates.finish(), name="creates")
    now = asyncio.create_task(stop.now.wait(), name="stop now")
    try:
        await asyncio.wait({finishing, now}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not finishing.done():
            runner.creates.drop()
        now.cancel()
        await asyncio.wait({finishing, now})
    finishing.result()


def _cause(failures: BaseExceptionGroup) -> BaseException:
    """Choose the error to raise: a bug if there is one, else the first error that concerns all bundles."""
    flat = list(_flat(failures))
    bugs = [error for error in flat if not isinstance(error, ExportError)]
    return bugs[0] if bugs else flat[0]


def _flat(failures: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in failures.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error
