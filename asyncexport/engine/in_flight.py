"""Where the bundles of a run are, and whether there is room for one more.

A bundle runs from when it is taken up until its operation is known to be done; then it waits for its download. Bundles
are taken up lazily: as many as may be running at the service, and not while finished ones pile up.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from asyncexport.core.bundles import Bundle
from asyncexport.core.states import BundleRecord, Created, Ready


class InFlight:
    """The bundles that are taken up.

    Args:
        allowed: How many operations may be running at the service at present.
        most_waiting: How many finished ones may wait for their download before no more are begun.
        asking: Whose create is on its way to the service.
    """

    def __init__(self, *, allowed: Callable[[], int], most_waiting: int, asking: AbstractSet[Bundle]) -> None:
        self._allowed = allowed
        self._most_waiting = most_waiting
        self._asking = asking
        self._room = asyncio.Event()
        self._running: set[Bundle] = set()
        self._created: set[Bundle] = set()
        self._waiting: set[Bundle] = set()

    @property
    def running(self) -> int:
        """How many bundles have, or are about to have, an operation that is not known to be done."""
        return len(self._running)

    @property
    def at_service(self) -> int:
        """How many of these have an operation there, or a create that is on its way to it."""
        return len(self._created | self._asking)

    @property
    def queued(self) -> int:
        """How many of these wait for their request."""
        return len(self._running - self._created - self._asking)

    @property
    def waiting(self) -> int:
        """How many wait for their download, or are in it."""
        return len(self._waiting)

    def enter(self, record: BundleRecord) -> None:
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

    def leave(self, bundle: Bundle) -> None:
        """The bundle has come to rest, or is not carried on."""
        for these in (self._running, self._created, self._waiting):
            these.discard(bundle)
        self._room.set()

    async def until_room(self) -> None:
        """Wait until one more may be taken up."""
        while len(self._running) >= self._allowed() or len(self._waiting) >= self._most_waiting:
            self._room.clear()
            await self._room.wait()
