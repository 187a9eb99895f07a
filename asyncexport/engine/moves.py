"""Moves bundles from state to state: each new state is durable before it is reported.

A failure that counts against a bundle uses up an attempt. `core.splitting` decides what follows: another attempt,
narrower bundles instead, or parking.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import BundleSplit, Listener, Retried, event_of
from asyncexport.core.splitting import AttemptRules, FailedAttempts
from asyncexport.core.states import BundleRecord, Created, Failed, Planned, Ready, Split, State, Stored, moved

log = logging.getLogger(__name__)


class StateLog(Protocol):
    """The record of states, and of the ids that the service gave."""

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add a row, which is durable on return."""
        ...

    async def split(self, record: BundleRecord, pieces: Sequence[Range], *, at: float) -> tuple[BundleRecord, ...]:
        """Replace a bundle by narrower ones in one step, which is durable on return; return those to be exported."""
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
        rules: How often a failing bundle is exported, and when it is split.
        clock: Seconds since 1970 by the service's clock.
        earliest: The earliest time that it may be by that clock while the clock is in doubt; None if it never is.

    Attributes:
        emit, rules, clock, earliest: The arguments of the same names.
        failed_attempts: Decides what follows a failed attempt.
        start: Called with the pieces of a bundle that was split, to have them exported in this run.
    """

    def __init__(
        self,
        ledger: StateLog,
        emit: Listener,
        *,
        rules: AttemptRules,
        clock: Callable[[], float],
        earliest: Callable[[], float] | None = None,
    ) -> None:
        self._ledger = ledger
        self.emit = emit
        self.rules = rules
        self.failed_attempts = FailedAttempts(rules)
        self.clock = clock
        self.earliest = earliest or clock
        self.start: Callable[[Sequence[BundleRecord]], None] = lambda _: None

    async def note(self, record: BundleRecord, state: State) -> BundleRecord:
        """Record the new state; return the bundle in it, once that is durable."""
        stored = state if isinstance(state, Stored) else record.stored
        after = BundleRecord(record.bundle, record.revision, moved(record.state, state), stored)
        await self._ledger.append(after, at=self.clock())
        self.emit(event_of(record, after))
        if isinstance(state, Ready):
            self.failed_attempts.completed()
        if isinstance(state, Stored):
            self.failed_attempts.stored(record.bundle)
        if isinstance(state, Created):
            log.debug("%s: operation %s", record.bundle, state.operation_id)
        return after

    async def count_attempt(
        self, record: BundleRecord, attempt: int, reason: str, *, is_refusal: bool = False
    ) -> BundleRecord:
        """Plan the next attempt, split the bundle, or park it.

        Args:
            record: The bundle.
            attempt: The attempt that failed.
            reason: Why it failed.
            is_refusal: Whether it was a create without a readable answer; the bundle is not split for that.
        """
        self.emit(Retried(record.bundle, reason))
        if is_refusal:
            self.failed_attempts.refused(record.bundle)
        else:
            self.failed_attempts.failed(record.bundle)
            if pieces := self.failed_attempts.pieces(record, attempt):
                return await self._split(record, pieces, reason)
        if self.failed_attempts.is_last(record.bundle, attempt):
            return await self.note(record, Failed(reason))
        return await self.note(record, Planned(attempt + 1))

    async def _split(self, record: BundleRecord, pieces: Sequence[Range], reason: str) -> BundleRecord:
        # Noted before the ledger is written, so that other pieces that fail at the same time count this split.
        self.failed_attempts.split(record.bundle, [Bundle(record.bundle.export, piece) for piece in pieces])
        started = await self._ledger.split(record, pieces, at=self.clock())
        bundles = tuple(one.bundle for one in started)
        self.emit(BundleSplit(record.bundle, bundles, reason))
        self.start(started)
        return replace(record, state=moved(record.state, Split()))

    def plan_again(self, record: BundleRecord) -> BundleRecord:
        """Return a parked bundle as `Planned`, attempt 1. Not recorded: its next row implies it (`core.states`, 3)."""
        self.failed_attempts.retried(record)
        return self.take_up(record, Planned())

    def take_up(self, record: BundleRecord, state: State) -> BundleRecord:
        """Return a parked bundle in the state that it resumes from. Not recorded: its next row implies it."""
        after = replace(record, state=moved(record.state, state))
        self.emit(event_of(record, after))
        return after
