"""Lanes and the loop: one coroutine a bundle, so many at once, each going from state to state until it is at rest.

1. Running and resuming are the same loop: a bundle comes with the state that the ledger has, and goes on from there.
2. Bundles are taken up lazily: as many as may be running at the service, and not while finished ones pile up.
3. A bundle's failure is its own and ends in its own coroutine (`runner`). What concerns all ends the run.
4. Asked to stop, it begins nothing new, lets the downloads under way finish within the grace, waits for the answers of
   the creates that were sent, and leaves the rest as the ledger has it.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord, Created, Creating, Planned, Ready
from asyncexport.core.summary import Exit
from asyncexport.engine.bundle_runner import BundleRunner, ExportRefused
from asyncexport.errors import ExportError


class Poller(Protocol):
    """What polls for all bundles, until cancelled."""

    async def run(self) -> None:
        """Poll."""
        ...


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
        carrier: Takes one bundle from state to state.
        poller: Polls for all.
        allowed: How many operations may be running at the service at present.
        most_waiting: How many finished ones may wait for their download before no more are begun.
        stop: How the run is asked to end.
        grace_seconds: How long downloads under way may go on after that.
    """

    def __init__(
        self,
        runner: BundleRunner,
        poller: Poller,
        *,
        allowed: Callable[[], int],
        most_waiting: int,
        stop: Stop,
        grace_seconds: float,
    ) -> None:
        self._runner = runner
        self._poller = poller
        self._allowed = allowed
        self._most_waiting = most_waiting
        self._stop = stop
        self._grace_seconds = grace_seconds
        self._room = asyncio.Event()
        self._running: set[Bundle] = set()
        self._created: set[Bundle] = set()
        self._waiting: set[Bundle] = set()
        self._carrying: dict[asyncio.Task[None], Bundle] = {}
        self.more_to_create = True

    @property
    def running(self) -> int:
        """How many bundles have, or are about to have, an operation that is not known to be done."""
        return len(self._running)

    @property
    def at_service(self) -> int:
        """How many of these have an operation there, or a create that is on its way to it."""
        return len(self._created | self._runner.asking)

    @property
    def queued(self) -> int:
        """How many of these wait for their request."""
        return len(self._running - self._created - self._runner.asking)

    @property
    def waiting(self) -> int:
        """How many wait for their download, or are in it."""
        return len(self._waiting)

    async def run(self, work: Iterator[BundleRecord]) -> None:
        """Carry all bundles to where they rest, or until asked to stop.

        Raises:
            ExportError: what concerns all bundles.
        """
        try:
            await self._carry_all(work)
        except BaseExceptionGroup as failures:
            raise _cause(failures) from failures
        finally:
            await self._finish_posts()

    async def _carry_all(self, work: Iterator[BundleRecord]) -> None:
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(self._poller.run(), name="watcher")
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
            await self._until_room()
            self._enter(record)
            task = group.create_task(self._carry(record), name="bundle")
            self._carrying[task] = record.bundle
            task.add_done_callback(self._left)
        self.more_to_create = False
        while self._carrying:
            await asyncio.wait(self._carrying)

    async def _carry(self, record: BundleRecord) -> None:
        """One bundle, from where the ledger has it to where it rests."""
        try:
            record = await self._runner.resume(record)
            while True:
                self._enter(record)
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
        except ExportRefused:
            return

    def _enter(self, record: BundleRecord) -> None:
        """Count the bundle where it now belongs."""
        self._created.discard(record.bundle)
        if isinstance(record.state, Created):
            self._created.add(record.bundle)
        if isinstance(record.state, Ready):
            self._running.discard(record.bundle)
            self._waiting.add(record.bundle)
        else:
            self._waiting.discard(record.bundle)
            self._running.add(record.bundle)
        self._room.set()

    def _left(self, task: asyncio.Task[None]) -> None:
        bundle = self._carrying.pop(task)
        for these in (self._running, self._created, self._waiting):
            these.discard(bundle)
        self._room.set()

    async def _until_room(self) -> None:
        while len(self._running) >= self._allowed() or len(self._waiting) >= self._most_waiting:
            self._room.clear()
            await self._room.wait()

    async def _wind_down(self, feeding: asyncio.Task[None], now: asyncio.Task[bool]) -> None:
        """Rule 4."""
        feeding.cancel()
        for task, bundle in self._carrying.items():
            if bundle not in self._runner.downloading:
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
        finishing = asyncio.create_task(self._runner.finish_posts(), name="posts")
        now = asyncio.create_task(self._stop.now.wait(), name="stop now")
        try:
            await asyncio.wait({finishing, now}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not finishing.done():
                self._runner.drop_posts()
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
