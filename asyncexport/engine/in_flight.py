"""Counts the bundles in each phase of a run and decides whether another one may start.

A bundle is running from its start until its operation is known to be done; after that it waits for its download.
Bundles are started lazily: only as many as may be in flight at the service, and none while finished ones pile up.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord, Created, Ready

MOST_URGENT = 10
"""Urgent bundles that may start when the others have taken all that is allowed, if `most` permits."""

KEPT_SHARE = 0.02
"""Share of `most` that is kept for urgent bundles: two of a hundred."""


class InFlight:
    """The bundles that were started and have not finished.

    Args:
        sending: Bundles whose create is in flight.
        allowed: Returns how many operations may currently be in flight at the service.
        most: The most that `allowed` may return; `[concurrency] operations`.
        most_waiting: Number of bundles waiting for their download at which no more are started.

    Attributes:
        keeps_room: Whether urgent bundles may come, for which some of `most` are kept.
    """

    def __init__(
        self, sending: AbstractSet[Bundle], *, allowed: Callable[[], int], most: int, most_waiting: int
    ) -> None:
        self._allowed = allowed
        self._most = most
        self._most_waiting = most_waiting
        self.keeps_room = False
        self._sending = sending
        self._changed = asyncio.Event()
        self._running: set[Bundle] = set()
        self._created: set[Bundle] = set()
        self._waiting: set[Bundle] = set()

    @property
    def running(self) -> int:
        """Number of bundles that have, or are about to have, an operation that is not known to be done."""
        return len(self._running)

    @property
    def at_service(self) -> int:
        """Number of these with an operation at the service, or a create in flight."""
        return len(self._created | self._sending)

    @property
    def queued(self) -> int:
        """Number of these that wait to send their create."""
        return len(self._running - self._created - self._sending)

    @property
    def waiting(self) -> int:
        """Number of bundles that wait for their download or are being downloaded."""
        return len(self._waiting)

    def enter(self, record: BundleRecord) -> None:
        """Count the bundle in the phase that its state belongs to."""
        self._created.discard(record.bundle)
        if isinstance(record.state, Created):
            self._created.add(record.bundle)
        if isinstance(record.state, Ready):
            self._running.discard(record.bundle)
            self._waiting.add(record.bundle)
        else:
            self._waiting.discard(record.bundle)
            self._running.add(record.bundle)
        self._changed.set()

    def leave(self, bundle: Bundle) -> None:
        """Stop counting a bundle that is finished, or that this run no longer processes."""
        for these in (self._running, self._created, self._waiting):
            these.discard(bundle)
        self._changed.set()

    async def until_room(self, *, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Wait until another bundle may start. `is_urgent` returns whether it is urgent."""
        while not self._has_room(is_urgent=is_urgent()):
            await self.change()

    async def change(self) -> None:
        """Wait until a bundle changes its phase, or `notify` is called."""
        self._changed.clear()
        await self._changed.wait()

    def notify(self) -> None:
        """Wake those who wait for room or for a change."""
        self._changed.set()

    def _has_room(self, *, is_urgent: bool) -> bool:
        kept, extra = 0, MOST_URGENT if is_urgent else 0
        if self.keeps_room and not is_urgent:
            kept = int(self._most * KEPT_SHARE)
        limit = min(self._allowed() + extra, self._most - kept)
        return len(self._running) < limit and len(self._waiting) < self._most_waiting + extra
