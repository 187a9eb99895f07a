"""The loop of a run: one coroutine a bundle, so many at once, each going from state to state until it is at rest.

1. Running and resuming are the same loop: a bundle comes with the state that the ledger has, and goes on from there.
2. Bundles are taken up lazily, when there is room (`engine.in_flight`). The newest of an export is taken up ahead of
   its turn where it has to be known how it fares (`engine.create_turns`).
3. A bundle's failure is its own and ends in its own coroutine (`runner`). What concerns all ends the run.
4. Asked to stop, it begins nothing new, lets the downloads under way finish within the grace, waits for the answers of
   the creates that were sent, and leaves the rest as the ledger has it.
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
from asyncexport.errors import ExportError


@dataclass(slots=True)
class Stop:
    """How a run is asked to end: politely at first, then at once."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)
    reason: Exit | None = None

    def ask(self, reason: Exit) -> None:
        """End politely, with this exit code if work is left; asked again, end at once. The first reason stands."""
        if self.asked.is_set():
            self.now.set()
            return
        self.reason = reason
        self.asked.set()


class Scheduler:
    """The fan-out.

    Args:
        runner: Takes one bundle from state to state.
        poller: Polls for all.
        allowed: How many operations may be running at the service at present.
        most_waiting: How many finished ones may wait for their download before no more are begun.
        stop: How the run is asked to end.
        grace_seconds: How long downloads under way may go on after that.

    Attributes:
        in_flight: Where the bundles are.
        more_to_create: Whether bundles are left that were not taken up yet.
    """

    def __init__(
        self,
        runner: BundleRunner,
        poller: OperationPoller,
        *,
        allowed: Callable[[], int],
        most_waiting: int,
        stop: Stop,
        grace_seconds: float,
    ) -> None:
        self._runner = runner
        self._poller = poller
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._carrying: dict[asyncio.Task[None], Bundle] = {}
        self.in_flight = InFlight(allowed=allowed, most_waiting=most_waiting, asking=runner.creates.asking)
        self.more_to_create = True
        self._group: asyncio.TaskGroup | None = None

    async def run(
        self, work: Iterator[BundleRecord], *, newest: Callable[[str], BundleRecord | None] = lambda _: None
    ) -> None:
        """Carry all bundles to where they rest, or until asked to stop.

        Args:
            work: The bundles in the order in which they are taken up.
            newest: Gives the newest bundle of an export out of `work`, ahead of its turn; None: there is none.

        Raises:
            ExportError: what concerns all bundles.
        """
        self.more_to_create = True
        self._runner.creates.turns.take_newest = lambda export: self._take_newest(newest, export)
        try:
            await self._carry_all(work)
        except BaseExceptionGroup as failures:
            raise _cause(failures) from failures
        finally:
            await self._finish_posts()

    async def _carry_all(self, work: Iterator[BundleRecord]) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            polling = group.create_task(self._poller.run(), name="poller")
            feeding = group.create_task(self._feed(work, group), name="feeder")
            stopping = group.create_task(self._stop.asked.wait(), name="stop")
            now = group.create_task(self._stop.now.wait(), name="stop now")
            await asyncio.wait({feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not feeding.done():
                await self._wind_down(feeding, now)
            for helper in (polling, stopping, now):
                helper.cancel()

    async def _feed(self, work: Iterator[BundleRecord], group: asyncio.TaskGroup) -> None:
        """Take up bundles while there is room; return when all have come to rest."""
        for record in work:
            await self.in_flight.until_room()
            self._take_up(record, group)
        self.more_to_create = False
        while self._carrying:
            await asyncio.wait(self._carrying)

    def _take_up(self, record: BundleRecord, group: asyncio.TaskGroup) -> None:
        self.in_flight.enter(record)
        task = group.create_task(self._carry(record), name="bundle")
        self._carrying[task] = record.bundle
        task.add_done_callback(self._left)

    def _take_newest(self, newest: Callable[[str], BundleRecord | None], export: str) -> Bundle | None:
        """Take up the newest bundle of an export at once, whether or not there is room; which it is.

        Called by another bundle. If that one is being cancelled, the run is ending, and the group takes no more tasks.
        """
        asking = asyncio.current_task()
        if self._group is None or self._stop.asked.is_set() or (asking is not None and asking.cancelling()):
            return None
        record = newest(export)
        if record is None:
            return None
        self._take_up(record, self._group)
        return record.bundle

    async def _carry(self, record: BundleRecord) -> None:
        """One bundle, from where the ledger has it to where it rests."""
        try:
            record = await self._runner.resume(record)
            while True:
                self.in_flight.enter(record)
                if self._stop.asked.is_set() and not isinstance(record.state, Ready):
                    # Rule 4: a download that fails within the grace may be worth a new attempt, for the next run.
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

    def _left(self, task: asyncio.Task[None]) -> None:
        self.in_flight.leave(self._carrying.pop(task))

    async def _wind_down(self, feeding: asyncio.Task[None], now: asyncio.Task[bool]) -> None:
        """Rule 4."""
        feeding.cancel()
        for task, bundle in self._carrying.items():
            if bundle not in self._runner.fetching.downloading:
                task.cancel()
        ends_at = asyncio.get_running_loop().time() + self._grace_seconds
        while self._carrying and not now.done():
            seconds = ends_at - asyncio.get_running_loop().time()
            if seconds <= 0:
                break
            await asyncio.wait({now, *self._carrying}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in self._carrying:
            task.cancel()

    async def _finish_posts(self) -> None:
        """Wait for the answers of creates that were sent, unless told, or cancelled once more: that means now."""
        finishing = asyncio.create_task(self._runner.creates.finish(), name="posts")
        now = asyncio.create_task(self._stop.now.wait(), name="stop now")
        try:
            await asyncio.wait({finishing, now}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not finishing.done():
                self._runner.creates.drop()
            now.cancel()
            await asyncio.wait({finishing, now})
        finishing.result()


def _cause(failures: BaseExceptionGroup) -> BaseException:
    """The one error to tell: a bug before all, else the first of those that concern all bundles."""
    flat = list(_flat(failures))
    bugs = [error for error in flat if not isinstance(error, ExportError)]
    return bugs[0] if bugs else flat[0]


def _flat(failures: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in failures.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error
