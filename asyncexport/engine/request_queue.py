"""The requests that wait for a permit, best first.

1. Urgent requests go first, then results calls, then creates and polls in the order set by `[polling] prefer`, then all
   others. Requests of equal rank are served first in, first out.
2. Requests that take a token and requests that take none wait in separate queues: an empty bucket delays only the
   former.
"""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from asyncexport.core.admission import Grant, Prefer, Priority, rank
from asyncexport.core.service.requests import Kind

CONTENDING = (Priority.URGENT, Priority.RESULTS, Priority.CREATE)
"""Requests to which polls give way."""


@dataclass(order=True, slots=True)
class RequestWaiter:
    """One request that waits for a permit."""

    rank: int
    order: int
    kind: Kind = field(compare=False)
    granted: "asyncio.Future[Grant]" = field(compare=False)


class RequestQueue:
    """All requests that wait for a permit."""

    def __init__(self, prefer: Prefer) -> None:
        self._prefer = prefer
        self._orders = count()
        self._counted: list[RequestWaiter] = []
        self._free: list[RequestWaiter] = []
        self._waiting = dict.fromkeys(Priority, 0)
        self._uncontended = asyncio.Event()
        self._uncontended.set()

    @property
    def is_empty(self) -> bool:
        """Whether no request waits."""
        return not (self._counted or self._free)

    @property
    def is_uncontended(self) -> bool:
        """Whether neither an urgent request nor a results call nor a create waits."""
        return self._uncontended.is_set()

    async def wait_until_uncontended(self) -> None:
        """Wait until neither a results call nor a create waits."""
        await self._uncontended.wait()

    def count(self, priority: Priority) -> int:
        """Number of requests of this priority that wait."""
        return self._waiting[priority]

    async def wait(self, kind: Kind, priority: Priority, *, counted: bool, take_back: Callable[[Grant], None]) -> Grant:
        """Wait for a grant. If the wait is cancelled just as it is granted, the grant goes to `take_back`."""
        granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        waiter = RequestWaiter(rank(priority, self._prefer), next(self._orders), kind, granted)
        heapq.heappush(self._counted if counted else self._free, waiter)
        self._note_waiting(priority, +1)
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                take_back(granted.result())
            raise
        finally:
            self._note_waiting(priority, -1)

    def has(self, *, counted: bool) -> bool:
        """Whether a request waits that takes a token (`counted`), or one that takes none."""
        heap = self._counted if counted else self._free
        while heap and heap[0].granted.done():
            heapq.heappop(heap)
        return bool(heap)

    def best(self, *, counted: bool) -> RequestWaiter:
        """Remove and return the request to serve next; there must be one."""
        return heapq.heappop(self._counted if counted else self._free)

    def all_count(self) -> None:
        """Make all waiting requests take a token."""
        for waiter in self._free:
            heapq.heappush(self._counted, waiter)
        self._free.clear()

    def reject_all(self, make_error: Callable[[], BaseException]) -> None:
        """Fail all waiting requests, each with an error of its own from `make_error`."""
        for waiter in self._counted + self._free:
            if not waiter.granted.done():
                waiter.granted.set_exception(make_error())
        self._counted.clear()
        self._free.clear()

    def _note_waiting(self, priority: Priority, change: int) -> None:
        self._waiting[priority] += change
        if any(self._waiting[one] for one in CONTENDING):
            self._uncontended.clear()
        else:
            self._uncontended.set()
