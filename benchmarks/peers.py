"""Simpler schedules on the same simulated service, for comparison.

1. One window at a time, polled every 5 seconds, as the vendor's daemon does it.
2. Everything at once: one coroutine per window behind one limiter, first in first out, polled every 30 seconds.
3. Polls before creates: 50 windows in flight, each polled every 30 seconds, and a due poll goes first.

They keep within the rate limit and lose nothing. They do not use the list, and do not learn durations.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range, cut
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Completed
from asyncexport.simulate import clock
from asyncexport.simulate.run import Result, Scenario
from asyncexport.simulate.service import MemoryService
from asyncexport.simulate.work import EXPORT

DAEMON_POLL_SECONDS = 5.0
FIXED_POLL_SECONDS = 30.0
FIXED_IN_FLIGHT = 50

Rank = Callable[[Priority], int]


class _Permit:
    """Permission to send one request; its answer is ignored."""

    async def recorded(self) -> None:
        """Return immediately: nothing is recorded."""

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Ignore the answer."""


class _Limiter:
    """A token bucket and the requests that wait for it: lowest rank first, first in first out among equals."""

    def __init__(self, scenario: Scenario, rank: Rank) -> None:
        self._loop = asyncio.get_running_loop()
        self._counts_all = scenario.counts_all
        self._rank = rank
        self._burst = float(scenario.burst)
        self._level = self._burst - scenario.tokens_used
        self._at = 0.0
        self._per_second = scenario.requests_per_minute / 60
        self._orders = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.sent = dict.fromkeys(Kind, 0)

    @asynccontextmanager
    async def permit(self, kind: Kind, priority: Priority) -> AsyncIterator[_Permit]:
        """Wait for a token, if this call takes one."""
        if self._counts_all or kind is Kind.CREATE:
            turn = self._loop.create_future()
            heapq.heappush(self._waiting, (self._rank(priority), next(self._orders), turn))
            self._serve()
            await turn
        self.sent[kind] += 1
        yield _Permit()

    def _serve(self) -> None:
        now = self._loop.time()
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
        while self._waiting and self._level >= 1:
            self._level -= 1
            heapq.heappop(self._waiting)[-1].set_result(None)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = self._loop.call_later((1 - self._level) / self._per_second + 1e-6, self._serve)


class _Work:
    """The windows of a scenario, and how each is exported."""

    def __init__(self, scenario: Scenario, rank: Rank) -> None:
        now = asyncio.get_running_loop().time
        self._scenario = scenario
        self._now = now
        self._limiter = _Limiter(scenario, rank)
        self._service = MemoryService(scenario.behaviour, clock=now)
        self._service.gate = self._limiter
        self._stored_at: list[float] = []
        self._longest_wait = 0.0
        self._running = 0
        self._most_running = 0

    def windows(self) -> Iterable[Range]:
        """Return all windows to export."""
        width = EXPORT.bundle_seconds
        return cut(Range(0, self._scenario.bundles * width), width)

    async def export(self, window: Range, *, poll_seconds: float) -> None:
        """Export one window: create, poll at a fixed interval, locate, fetch."""
        async with self._limiter.permit(Kind.CREATE, Priority.CREATE) as permit:
            self._count_running()
            operation = await self._service.create(EXPORT.definition, window, permit=permit)
        while True:
            await asyncio.sleep(poll_seconds)
            progress = (await self._service.operation(operation, priority=Priority.POLL)).progress
            if isinstance(progress, Completed):
                break
        self._running -= 1
        await self._service.locate(progress.export_id, priority=Priority.RESULTS)
        await asyncio.sleep(self._scenario.fetch_seconds)
        self._stored_at.append(self._now())
        self._longest_wait = max(self._longest_wait, self._now() - self._service.finished_at(progress.export_id))

    def result(self) -> Result:
        """Return the result."""
        return Result(
            stored=len(self._stored_at),
            operations=self._service.made,
            makespan=max(self._stored_at),
            first_archive=min(self._stored_at),
            longest_wait=self._longest_wait,
            most_running=self._most_running,
            requests={kind.value: sent for kind, sent in self._limiter.sent.items()},
            refused=0,
        )

    def _count_running(self) -> None:
        self._running += 1
        self._most_running = max(self._most_running, self._running)


def one_at_a_time(scenario: Scenario) -> Result:
    """Simulate peer 1."""

    async def export_all(work: _Work) -> None:
        for window in work.windows():
            await work.export(window, poll_seconds=DAEMON_POLL_SECONDS)

    return _run(scenario, export_all, rank=_first_come)


def everything_at_once(scenario: Scenario) -> Result:
    """Simulate peer 2."""

    async def export_all(work: _Work) -> None:
        async with asyncio.TaskGroup() as group:
            for window in work.windows():
                group.create_task(work.export(window, poll_seconds=FIXED_POLL_SECONDS))

    return _run(scenario, export_all, rank=_first_come)


def polls_before_creates(scenario: Scenario) -> Result:
    """Simulate peer 3."""

    async def export_all(work: _Work) -> None:
        windows = iter(work.windows())

        async def export_in_turn() -> None:
            for window in windows:
                await work.export(window, poll_seconds=FIXED_POLL_SECONDS)

        async with asyncio.TaskGroup() as group:
            for _ in range(FIXED_IN_FLIGHT):
                group.create_task(export_in_turn())

    return _run(scenario, export_all, rank=_creates_last)


PEERS: dict[str, Callable[[Scenario], Result]] = {
    "one at a time": one_at_a_time,
    "everything at once": everything_at_once,
    "polls before creates": polls_before_creates,
}


def _first_come(_: Priority) -> int:
    return 0


def _creates_last(priority: Priority) -> int:
    return int(priority is Priority.CREATE)


def _run(scenario: Scenario, export_all: Callable[[_Work], Awaitable[None]], *, rank: Rank) -> Result:
    async def main() -> Result:
        work = _Work(scenario, rank)
        await export_all(work)
        return work.result()

    return clock.run(main())
