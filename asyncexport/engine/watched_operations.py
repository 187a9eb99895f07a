"""Which operations are waited for, by whom, and until when.

1. Several may wait for one operation: the service may answer two creates with the same operation id, as it may when
   their bodies are equal. That is one operation with several waiters. It has one place in the list, it is polled once
   for all of them, and its duration is learned once.
2. Each waiter has a deadline of its own, counted from when its create was answered, and may leave on its own.
3. An operation is watched as long as it has waiters. Its outcome is told to all of them.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncexport.core.polling import FinishedOperation, OperationAge
from asyncexport.errors import ServiceError


@dataclass(slots=True, eq=False)
class Waiter:
    """One that waits for an operation; at `asked_at` its create was answered with the operation's id."""

    asked_at: float
    outcome: "asyncio.Future[FinishedOperation | None]"


class DueAge(NamedTuple):
    """The age, in seconds, at which an operation is due for an individual poll, and what it was computed from.

    `estimates` is the number of the estimate of durations (see `Durations`), `chance` how likely the operation is done
    at that age.
    """

    estimates: int
    chance: float
    seconds: float


@dataclass(slots=True, eq=False)
class WatchedOperation:
    """An operation that somebody waits for; moments are seconds since 1970 by the service's clock, ages seconds.

    Attributes:
        operation_id: Its id.
        number: How many operations were watched before it.
        asked_at: When the first create was answered with its id: its age counts from here.
        waiters: All that wait for it; empty once it is settled, or all have left.
        waiting_since: The earliest `asked_at` of its waiters: the next deadline counts from here.
        seen: The age at which it was last seen running.
        polled_at: When it was last polled individually.
        listed: Whether the list is expected to show it.
        gone_since: Since when the service has been saying that it does not exist.
        refused_since: Since when polls of it are refused, on the monotonic clock.
        refusals: How many polls of it in a row were refused.
        nameless_since: Since when it has been saying that it is complete, without naming its export.
        final_polls: How often it was polled past the deadline of its earliest waiter.
        due: The age at which it is due for an individual poll; None where that must be computed first.
    """

    operation_id: str
    number: int
    asked_at: float
    waiters: list[Waiter] = field(default_factory=list)
    waiting_since: float = math.inf
    seen: float = 0.0
    polled_at: float = -math.inf
    listed: bool = True
    gone_since: float | None = None
    refused_since: float | None = None
    refusals: int = 0
    nameless_since: float | None = None
    final_polls: int = 0
    due: DueAge | None = None

    def add(self, waiter: Waiter) -> None:
        """One more waits for it; a create was answered with it, so an earlier 404 counts no more."""
        self.gone_since = None
        earlier = self.asked_at - waiter.asked_at
        if earlier > 0:
            self.asked_at = waiter.asked_at
            self.seen += earlier if self.seen > 0 else 0.0
        self.waiters.append(waiter)
        self._update_deadline()

    def remove(self, waiters: Iterable[Waiter]) -> None:
        """These wait no longer."""
        for waiter in waiters:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
        self._update_deadline()

    def overdue(self, now: float, deadline_seconds: float) -> list[Waiter]:
        """The waiters whose deadline has passed."""
        return [waiter for waiter in self.waiters if now - waiter.asked_at >= deadline_seconds]

    def saw_running(self, now: float) -> None:
        """The service says that it still runs, or nothing that ends it."""
        self.seen = max(self.seen, now - self.asked_at)

    def saw_nameless(self, now: float, *, believed_after: float) -> bool:
        """The service says that it is complete, and names no export: whether it is asked again, singly, and soon."""
        if self.nameless_since is None:
            self.nameless_since = now
        self.listed, self.polled_at = False, now
        self.saw_running(now)
        return now - self.nameless_since < believed_after

    def age_at(self, now: float) -> OperationAge:
        """Its age, and the age at which it was last seen running."""
        return OperationAge(now - self.asked_at, self.seen)

    def _update_deadline(self) -> None:
        """Find the next deadline among those that now wait."""
        since = min((waiter.asked_at for waiter in self.waiters), default=math.inf)
        if since != self.waiting_since:
            self.waiting_since, self.final_polls = since, 0
        self.due = None


class WatchedOperations:
    """All operations that are waited for; iterates over them in the order in which they were added.

    Attributes:
        added: How many were ever added.
    """

    def __init__(self) -> None:
        self._operations: dict[str, WatchedOperation] = {}
        self._arrival = asyncio.Event()
        self.added = 0

    def __iter__(self) -> Iterator[WatchedOperation]:
        """Over operations."""
        return iter(self._operations.values())

    def __len__(self) -> int:
        """How many operations are watched."""
        return len(self._operations)

    @property
    def waiters(self) -> int:
        """How many wait: more than there are operations, where some share one."""
        return sum(len(one.waiters) for one in self)

    @property
    def listed(self) -> list[WatchedOperation]:
        """Those that the list is expected to show."""
        return [one for one in self if one.listed]

    def ages(self, now: float) -> list[OperationAge]:
        """Of every operation."""
        return [one.age_at(now) for one in self]

    def newer_than(self, one: WatchedOperation) -> int:
        """How many operations were added after this one."""
        return self.added - 1 - one.number

    async def wait_for_first(self) -> None:
        """Wait until there is an operation to watch."""
        while not self._operations:
            self._arrival.clear()
            await self._arrival.wait()

    async def outcome(self, operation_id: str, *, asked_at: float) -> FinishedOperation | None:
        """Wait for the outcome of an operation; None: it still ran at the deadline, which counts from `asked_at`.

        Raises:
            ServiceError: the outcome is an error.
        """
        watched = self._operations.get(operation_id)
        if watched is None:
            watched = self._operations[operation_id] = WatchedOperation(operation_id, self.added, asked_at)
            self.added += 1
        waiter = Waiter(asked_at, asyncio.get_running_loop().create_future())
        watched.add(waiter)
        self._arrival.set()
        try:
            return await waiter.outcome
        finally:
            self._remove(watched, [waiter])

    def tell(
        self, one: WatchedOperation, outcome: FinishedOperation | ServiceError | None, waiters: Iterable[Waiter]
    ) -> None:
        """Tell these waiters of an operation its outcome: an error is raised for them, None is their deadline."""
        told = list(waiters)
        for waiter in told:
            if waiter.outcome.done():
                continue
            if isinstance(outcome, ServiceError):
                waiter.outcome.set_exception(outcome)
            else:
                waiter.outcome.set_result(outcome)
        self._remove(one, told)

    def _remove(self, one: WatchedOperation, waiters: Iterable[Waiter]) -> None:
        """These wait no longer, even if they have not run yet; an operation without waiters is not watched."""
        one.remove(waiters)
        if not one.waiters and self._operations.get(one.operation_id) is one:
            del self._operations[one.operation_id]
