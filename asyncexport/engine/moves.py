"""Moves bundles from state to state: each new state is durable before it is reported.

A failure that counts against a bundle uses up an attempt; after the last attempt the bundle is parked as `Failed`.
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
    """The record of states, and of the ids that the service gave."""

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add a row, which is durable on return."""
        ...

    async def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """Return the bundles for which this operation id was ever recorded, in the order of their rows."""
        ...

    async def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """Return the bundles for which this export id was ever recorded, in the order of their rows."""
        ...


class BundleMoves:
    """Records each new state and reports it.

    Args:
        ledger: The record of states.
        emit: Called with each event.
        attempts: `[retry] attempts`.
        clock: Seconds since 1970 by the service's clock.
        earliest: The earliest time that it may be by that clock while the clock is in doubt; None if it never is.

    Attributes:
        emit, attempts, clock, earliest: The arguments of the same names.
    """

    def __init__(
        self,
        ledger: StateLog,
        emit: Listener,
        *,
        attempts: int,
        clock: Callable[[], float],
        earliest: Callable[[], float] | None = None,
    ) -> None:
        self._ledger = ledger
        self.emit = emit
        self.attempts = attempts
        self.clock = clock
        self.earliest = earliest or clock

    async def note(self, record: BundleRecord, state: State) -> BundleRecord:
        """Record the new state; return the bundle in it, once that is durable."""
        stored = state if isinstance(state, Stored) else record.stored
        after = BundleRecord(record.bundle, record.revision, moved(record.state, state), stored)
        await self._ledger.append(after, at=self.clock())
        self.emit(event_of(record, after))
        if isinstance(state, Created):
            log.debug("%s: operation %s", record.bundle, state.operation_id)
        return after

    async def count_attempt(self, record: BundleRecord, attempt: int, reason: str) -> BundleRecord:
        """Plan the next attempt, or park the bundle after the last one."""
        self.emit(Retried(record.bundle, reason))
        if attempt >= self.attempts:
            return await self.note(record, Failed(reason))
        return await self.note(record, Planned(attempt + 1))

    def plan_again(self, record: BundleRecord) -> BundleRecord:
        """Return a parked bundle as `Planned`, attempt 1. Not recorded: its next row implies it (`core.states`, 3)."""
        return self.take_up(record, Planned())

    def take_up(self, record: BundleRecord, state: State) -> BundleRecord:
        """Return a parked bundle in the state that it resumes from. Not recorded: its next row implies it."""
        after = replace(record, state=moved(record.state, state))
        self.emit(event_of(record, after))
        return after
