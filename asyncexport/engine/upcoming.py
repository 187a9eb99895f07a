"""The bundles that a run has not started yet: those that were planned, and those that are added while it goes on.

1. Every five minutes a run that follows the present asks what has become due. That is started before everything that
   was planned.
2. Of that, bundles without an archive are urgent: they may start even if the others take all the room
   (`engine.in_flight`), and their requests are sent before those of the others.
3. The pieces of a bundle that was split come next, before what was planned: their data is as old as that of the bundle.
4. Once everything that was planned is finished, the run no longer asks. Otherwise a run whose operations take longer
   than a bundle is wide would never end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord

log = logging.getLogger(__name__)

NewlyDue = Callable[[], Awaitable[Sequence[BundleRecord]]]
"""Returns the bundles that have become due since the last call, in the order in which they are started."""

FOLLOW_SECONDS = 300.0
"""Seconds between two questions what has become due. By default bundles settle every half hour."""


class UpcomingBundles:
    """The bundles that a run has not started yet.

    Args:
        planned: The planned bundles, in the order in which they are started.
        newly_due: Returns what has become due. None if the run does not follow the present.
        notify: Called when bundles were added.
        hurry: Called with each urgent bundle when it is taken.
    """

    def __init__(
        self,
        planned: Iterator[BundleRecord],
        newly_due: NewlyDue | None,
        *,
        notify: Callable[[], None],
        hurry: Callable[[Bundle], None],
    ) -> None:
        self._planned = planned
        self._newly_due = newly_due
        self._notify = notify
        self._hurry = hurry
        self._due: deque[BundleRecord] = deque()
        self._pieces: deque[BundleRecord] = deque()
        self._next = next(planned, None)
        self._late: set[Bundle] = set()
        self._following: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Whether a bundle can be started."""
        return bool(self._due or self._pieces) or self._next is not None

    @property
    def is_urgent(self) -> bool:
        """Whether the next bundle is urgent (rule 2)."""
        return bool(self._due) and self._due[0].stored is None

    def take(self) -> BundleRecord:
        """Return the next bundle; there must be one."""
        if self._due:
            if self.is_urgent:
                self._hurry(self._due[0].bundle)
            late = self._due.popleft()
            self._late.add(late.bundle)
            return late
        if self._pieces:
            return self._pieces.popleft()
        if self._next is None:
            raise AssertionError("no bundle is left to take")
        record, self._next = self._next, next(self._planned, None)
        return record

    def add_pieces(self, pieces: Sequence[BundleRecord]) -> None:
        """Add the pieces of a bundle that was split (rule 3); a piece of a late bundle is late as well."""
        self._pieces.extend(pieces)
        self._late |= {one.bundle for one in pieces if any(late.contains(one.bundle) for late in self._late)}
        self._notify()

    def follow(self, group: asyncio.TaskGroup) -> bool:
        """Start to ask what becomes due, if the run follows the present; return whether it does."""
        if self._newly_due is not None:
            self._following = group.create_task(self._follow(self._newly_due), name="follower")
        return self._following is not None

    def end_if_only_late(self, running: Iterable[Bundle]) -> None:
        """Stop asking if only bundles that became due later are still running (rule 4)."""
        if self._late.issuperset(running):
            self.end()

    def end(self) -> None:
        """Stop asking."""
        if self._following is not None:
            self._following.cancel()

    async def _follow(self, newly_due: NewlyDue) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            due = await newly_due()
            if due:
                log.info("due by now and exported next: %d more, the first is %s", len(due), due[0].bundle)
            self._due.extend(due)
            self._notify()
