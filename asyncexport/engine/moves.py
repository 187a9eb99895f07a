"""The moves of a bundle from state to state: each is durable before anybody is told of it.

A bundle's failure is its own. What counts against it is an attempt; after the last one it is parked as `Failed`.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Listener, Retried, event_of
from asyncexport.core.states import BundleRecord, Created, Failed, Planned, State, Stored, moved

log = logging.getLogger(__name__)


class StateLog(Protocol):
    """Where states are written, and with them the ids that the service gave."""

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add a row; it is durable on return."""
        ...

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """For which bundles an operation's id was ever written, in this order."""
        ...

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """The same of an export's id."""
        ...


class BundleMoves:
    """Writes the moves, and tells of them.

    Args:
        ledger: Where states are written.
        tell: Called with each event.
        attempts: `[retry] attempts`.
        clock: Seconds since 1970 by the service's clock.
        earliest: The earliest time that it may be by that clock, as long as it is in doubt. None: it never is.

    Attributes:
        tell, attempts, clock, earliest: As they were given.
    """

    def __init__(
        self,
        ledger: StateLog,
        tell: Listener,
        *,
        attempts: int,
        clock: Callable[[], float],
        earliest: Callable[[], float] | None = None,
    ) -> None:
        self._ledger = ledger
        self.tell = tell
        self.attempts = attempts
        self.clock = clock
        self.earliest = earliest or clock

    async def note(self, record: BundleRecord, state: State) -> BundleRecord:
        """The bundle in its new state, once that is durable."""
        stored = state if isinstance(state, Stored) else record.stored
        after = BundleRecord(record.bundle, record.revision, moved(record.state, state), stored)
        await self._ledger.append(after, at=self.clock())
        self.tell(event_of(record, after))
        if isinstance(state, Created):
            log.debug("%s: operation %s", record.bundle, state.operation_id)
        return after

    async def count_attempt(self, record: BundleRecord, attempt: int, reason: str) -> BundleRecord:
        """Planned for the next attempt, or parked after the last."""
        self.tell(Retried(record.bundle, reason))
        if attempt >= self.attempts:
            return await self.note(record, Failed(reason))
        return await self.note(record, Planned(attempt + 1))

    def plan_again(self, record: BundleRecord) -> BundleRecord:
        """A parked bundle, planned at attempt 1; not written, since its next row says it (rule 3 of `core.states`)."""
        return self.take_up(record, Planned())

    def take_up(self, record: BundleRecord, state: State) -> BundleRecord:
        """A parked bundle in the state that it goes on from; not written, since its next row says it."""
        after = replace(record, state=moved(record.state, state))
        self.tell(event_of(record, after))
        return after
