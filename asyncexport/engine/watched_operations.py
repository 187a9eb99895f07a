"""The operations that bundles wait for, with their waiters and deadlines.

1. Several bundles may wait for one operation: the service may answer two creates with the same operation id if their
   bodies are equal. This is one operation with several waiters. It has one place in the list, is polled once for all of
   them, and its duration is learned once.
2. Each waiter has a deadline of its own, counted from the answer to its create, and may leave independently.
3. An operation is watched as long as it has waiters. All of them get its outcome.
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
    """A bundle that waits for an operation; `asked_at` is when its create was answered with the operation's id."""

    asked_at: float
    outcome: "asyncio.Future[FinishedOperation | None]"


class DueAge(NamedTuple):
    """The age, in seconds, at which an operation is due for an individual poll, and what it was computed from.

    `estimates` is the version of the duration estimate (see `Durations`), `chance` the probability that the operation
    is done at that age.
    """

    estimates: int
    chance: float
    seconds: float


@dataclass(slots=True, eq=False)
class WatchedOperation:
    """An operation that bundles wait for. Times are seconds since 1970 by the service's clock, ages are seconds.

    Attributes:
        operation_id: Its id.
        number: Number of operations that were watched before it.
        asked_at: When the first create was answered with its id; its age counts from here.
        waiters: The waiters; empty once it has an outcome or all have left.
        waiting_since: The earliest `asked_at` of its waiters; the next deadline counts from here.
        seen: The age at which it was last seen running.
        polled_at: When it was last polled individually.
        listed: Whether the list is expected to show it.
        gone_since: When the service first answered that it does not exist.
        refused_since: When its polls began to be refused, on the monotonic clock.
        refusals: Number of its polls in a row that were refused.
        without_export_since: When the service first reported it COMPLETED without an export id.
        final_polls: Number of polls since the deadline of its earliest waiter.
        due: The age at which it is due for an individual poll; None if it has to be computed again.
        is_urgent: Whether a bundle waits for it that settled while the run goes on.
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
    without_export_since: float | None = None
    final_polls: int = 0
    due: DueAge | None = None
    is_urgent: bool = False

    def add(self, waiter: Waiter) -> None:
        """Add a waiter. Its create was answered with this operation, so an earlier 404 no longer counts."""
        self.gone_since = None
        earlier = self.asked_at - waiter.asked_at
        if earlier > 0:
            self.asked_at = waiter.asked_at
            self.seen += earlier if self.seen > 0 else 0.0
        self.waiters.append(waiter)
        self._update_deadline()

    def remove(self, waiters: Iterable[Waiter]) -> None:
        """Remove waiters."""
        for waiter in waiters:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
        self._update_deadline()

    def overdue(self, now: float, deadline_seconds: float) -> list[Waiter]:
        """Return the waiters whose deadline has passed."""
        return [waiter for waiter in self.waiters if now - waiter.asked_at >= deadline_seconds]

    def saw_running(self, now: float) -> None:
        """Note an answer according to which it still runs, or that at least does not end it."""
        self.seen = max(self.seen, now - self.asked_at)

    def saw_no_export_id(self, now: float, *, believed_after: float) -> bool:
        """Note that it is COMPLETED without an export id; return whether to poll it again soon, individually."""
        if self.without_export_since is None:
            self.without_export_since = now
        self.listed, self.polled_at = False, now
        self.saw_running(now)
        return now - self.without_export_since < believed_after

    def age_at(self, now: float) -> OperationAge:
        """Return its age, and the age at which it was last seen running."""
        return OperationAge(now - self.asked_at, self.seen)

    def _update_deadline(self) -> None:
        """Find the next deadline among the remaining waiters."""
        since = min((waiter.asked_at for waiter in self.waiters), default=math.inf)
        if since != self.waiting_since:
            self.waiting_since, self.final_polls = since, 0
        self.due = None


class WatchedOperations:
    """All watched operations; iterates over them in the order in which they were added.

    Attributes:
        added: Number of operations that were ever added.
    """

    def __init__(self) -> None:
        self._operations: dict[str, WatchedOperation] = {}
        self._arrival = asyncio.Event()
        self.added = 0

    def __iter__(self) -> Iterator[WatchedOperation]:
        """Iterate over the operations."""
        return iter(self._operations.values())

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self._operations)

    @property
    def waiters(self) -> int:
        """Number of waiters; more than the number of operations if some share one."""
        return sum(len(one.waiters) for one in self)

    @property
    def listed(self) -> list[WatchedOperation]:
        """The operations that the list is expected to show."""
        return [one for one in self if one.listed]

    def ages(self, now: float) -> list[OperationAge]:
        """Return the ages of all operations."""
        return [one.age_at(now) for one in self]

    def urgent_ages(self, now: float, *, listed: bool) -> list[OperationAge]:
        """Return the ages of urgent operations; if `listed`, only of those that the list is expected to show."""
        return [one.age_at(now) for one in self if one.is_urgent and (one.listed or not listed)]

    def newer_than(self, one: WatchedOperation) -> int:
        """Return the number of operations that were added after this one."""
        return self.added - 1 - one.number

    async def wait_for_first(self) -> None:
        """Wait until there is an operation to watch."""
        while not self._operations:
            self._arrival.clear()
            await self._arrival.wait()

    async def outcome(self, operation_id: str, *, asked_at: float, is_urgent: bool = False) -> FinishedOperation | None:
        """Wait for the outcome of an operation; None if it still ran at the deadline, which counts from `asked_at`.

        Raises:
            ServiceError: the outcome is an error.
        """
        watched = self._operations.get(operation_id)
        if watched is None:
            watched = self._operations[operation_id] = WatchedOperation(operation_id, self.added, asked_at)
            self.added += 1
        waiter = Waiter(asked_at, asyncio.get_running_loop().create_future())
        watched.add(waiter)
        watched.is_urgent |= is_urgent
        self._arrival.set()
        try:
            return await waiter.outcome
        finally:
            self._remove(watched, [waiter])

    def set_outcome(
        self, one: WatchedOperation, outcome: FinishedOperation | ServiceError | None, waiters: Iterable[Waiter]
    ) -> None:
        """Give these waiters of an operation its outcome: an error is raised for them, None means their deadline."""
        finished = list(waiters)
        for waiter in finished:
            if waiter.outcome.done():
                continue
            if isinstance(outcome, ServiceError):
                waiter.outcome.set_exception(outcome)
            else:
                waiter.outcome.set_result(outcome)
        self._remove(one, finished)

    def _remove(self, one: WatchedOperation, waiters: Iterable[Waiter]) -> None:
        """Remove waiters, even if their tasks have not run yet; stop watching an operation without waiters."""
        one.remove(waiters)
        if not one.waiters and self._operations.get(one.operation_id) is one:
            del self._operations[one.operation_id]
