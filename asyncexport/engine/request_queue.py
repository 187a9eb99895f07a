"""Who waits for leave to send a request, the best first.

1. Results go first, then creates and polls as `[polling] prefer` says, then the rest; first in, first out among equals.
2. Those that take a token and those that take none wait apart: an empty bucket holds up the first alone.
"""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from asyncexport.core.admission import Grant, Prefer, Priority, rank
from asyncexport.core.service.requests import Kind


@dataclass(order=True, slots=True)
class RequestWaiter:
    """One request that waits for leave."""

    rank: int
    order: int
    kind: Kind = field(compare=False)
    granted: "asyncio.Future[Grant]" = field(compare=False)


class RequestQueue:
    """All that wait."""

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
        """Whether nobody waits."""
        return not (self._counted or self._free)

    @property
    def is_uncontended(self) -> bool:
        """Whether neither a result nor a create waits."""
        return self._uncontended.is_set()

    async def wait_until_uncontended(self) -> None:
        """Wait until that is so."""
        await self._uncontended.wait()

    def count(self, priority: Priority) -> int:
        """How many wait."""
        return self._waiting[priority]

    async def wait(self, kind: Kind, priority: Priority, *, counted: bool, take_back: Callable[[Grant], None]) -> Grant:
        """Wait for leave; `take_back` is given what was granted in the very moment in which the wait was cancelled."""
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
        """Whether one waits that takes a token (`counted`), or one that takes none."""
        heap = self._counted if counted else self._free
        while heap and heap[0].granted.done():
            heapq.heappop(heap)
        return bool(heap)

    def best(self, *, counted: bool) -> RequestWaiter:
        """Who is to be served next, and waits no longer; there must be one."""
        return heapq.heappop(self._counted if counted else self._free)

    def all_count(self) -> None:
        """From now on all of them take a token."""
        for waiter in self._free:
            heapq.heappush(self._counted, waiter)
        self._free.clear()

    def send_away(self, why: Callable[[], BaseException]) -> None:
        """Tell all of them that there will be no leave; `why` makes the error for each."""
        for waiter in self._counted + self._free:
            if not waiter.granted.done():
                waiter.granted.set_exception(why())
        self._counted.clear()
        self._free.clear()

    def _note_waiting(self, priority: Priority, change: int) -> None:
        self._waiting[priority] += change
        if self._waiting[Priority.RESULTS] or self._waiting[Priority.CREATE]:
            self._uncontended.clear()
        else:
            self._uncontended.set()
