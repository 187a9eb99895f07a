"""What follows from a failed create, as the table has it (`core.service.retrying`).

1. The row of the intent is taken back at once, whatever came back: the service is known to have said no, or the answer
   is lost and counted as a possible duplicate.
2. What may come to all creates is probed (`core.service.refusals`). What is refused otherwise is the export's trouble
   if its newest bundle is refused, too, and the bundle's if others are taken.
"""

import asyncio
from dataclasses import replace

from asyncexport.core.bundles import Bundle
from asyncexport.core.events import PossibleDuplicate, Retried
from asyncexport.core.service.refusals import BundleFailures
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, decide, failure_of
from asyncexport.core.states import BundleRecord, Failed, Planned
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.create_turns import CreateTurn, CreateTurns
from asyncexport.engine.export_state import ExportHasStopped, ExportState
from asyncexport.engine.moves import BundleMoves
from asyncexport.errors import ServiceError, UnavailableError

BLOCKED = frozenset({Failure.FORBIDDEN, Failure.BLOCKED, Failure.UNREADABLE})
"""What may have come to all creates, and is probed."""

SAID_NO = frozenset({Failure.REFUSED, Failure.NOT_FOUND, Failure.GONE})
"""What is the export's trouble, or the bundle's."""


class CreateFailures:
    """What follows from failed creates.

    Args:
        moves: Where states are written.
        call_turns: What is known of refusals.
        turns: Whose create may go.

    Attributes:
        is_over: Whether the run is to end: no create is sent any more.
    """

    def __init__(self, moves: BundleMoves, call_turns: CallTurns, turns: CreateTurns) -> None:
        self._moves = moves
        self._call_turns = call_turns
        self._turns = turns
        self._troubles: dict[Bundle, BundleFailures] = {}
        self.is_over = False

    async def note(
        self, asked: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn, error: ServiceError
    ) -> BundleRecord:
        """Take the row of the intent back, and note what else all must know at once."""
        failure, bundle = failure_of(Call.CREATE, error), asked.bundle
        is_lost = failure is Failure.UNREADABLE or (isinstance(error, UnavailableError) and error.unanswered)
        if is_lost:
            self._moves.tell(PossibleDuplicate(bundle))
        self.is_over = self.is_over or failure in (Failure.GIVEN_UP, Failure.UNAUTHORIZED)
        if failure in SAID_NO:
            export.creates.refused(bundle, str(error))
            export.waiting.pop(bundle, None)
        elif failure in BLOCKED and not self._others_succeed(export, bundle):
            is_odd = failure is Failure.UNREADABLE
            turn.turn.refused(error, least_wait=self._call_turns.refusal_times.confirmation_seconds if is_odd else 0.0)
        if failure is Failure.UNREADABLE:
            return await self._moves.count_attempt(asked, attempt, str(error))
        return await self._moves.note(asked, Planned(attempt))

    async def after(self, record: BundleRecord, export: ExportState, error: ServiceError) -> BundleRecord:
        """What the table says, once the row of the intent is taken back."""
        name, bundle, failure = export.export.name, record.bundle, failure_of(Call.CREATE, error)
        if failure in SAID_NO:
            return await self._see_others(record, export, error)
        trouble, known = self._trouble(bundle), Facts(has_worked=export.accepted)
        trouble.count += failure is not Failure.RATE_LIMITED
        if failure is Failure.UNREADABLE:
            known = replace(known, repeated=self._is_unreadable_again(export))
        elif failure is not Failure.RATE_LIMITED:
            self._moves.tell(Retried(bundle, str(error), concerns_all=failure is Failure.UNAVAILABLE))
        match await self._call_turns.next_after(error, name, Call.CREATE, trouble, known):
            case Action.PARK:
                return await self._moves.note(record, Failed(str(error)))
            case Action.STOP_EXPORT:
                self._call_turns.stop(export, error, Call.CREATE)
                raise ExportHasStopped from error
            case Action.STOP_RUN:
                self.is_over = True
                raise error
            case Action.RETRY if self._others_succeed(export, bundle):
                await asyncio.sleep(self._call_turns.refusal_times.probe_wait(trouble.count))
            case Action.WAIT if failure is Failure.UNAVAILABLE:
                await self._call_turns.pause(trouble.count)
        return record

    async def _see_others(self, record: BundleRecord, export: ExportState, error: ServiceError) -> BundleRecord:
        """Wait until it is known whether the refusal of a create is the bundle's trouble or the export's."""
        bundle, creates = record.bundle, export.creates
        self._moves.tell(Retried(bundle, str(error)))
        while not export.creates_stopped_by:
            known = Facts(
                others_succeed=bundle not in creates.undecided,
                in_a_row=creates.in_a_row,
                newest_left=not creates.newest_refused,
            )
            match decide(Call.CREATE, failure_of(Call.CREATE, error), known):
                case Action.PARK:
                    return await self._moves.note(record, Failed(str(error)))
                case Action.STOP_EXPORT:
                    self._call_turns.stop(export, error, Call.CREATE)
                    raise ExportHasStopped from error
            self._turns.look_for_newest(export)
            if bundle in creates.undecided and not creates.newest_refused:
                await self._call_turns.changes.wait(float("inf"))
        raise ExportHasStopped from error

    def has_failed(self, bundle: Bundle) -> bool:
        """Whether a create of the bundle failed, and none was taken since."""
        return bundle in self._troubles

    def forget(self, bundle: Bundle) -> None:
        """A create of the bundle was taken, or the bundle is parked."""
        self._troubles.pop(bundle, None)

    def _trouble(self, bundle: Bundle) -> BundleFailures:
        return self._troubles.setdefault(bundle, BundleFailures(self._call_turns.now()))

    def _others_succeed(self, export: ExportState, bundle: Bundle) -> bool:
        return self._call_turns.others_succeed(export.export.name, Call.CREATE, self._trouble(bundle))

    def _is_unreadable_again(self, export: ExportState) -> bool:
        """Whether a create of the export was answered with something unreadable before, long enough ago."""
        since = export.unreadable_since
        export.unreadable_since = self._call_turns.now() if since is None else since
        return (
            since is not None and self._call_turns.now() - since >= self._call_turns.refusal_times.confirmation_seconds
        )
