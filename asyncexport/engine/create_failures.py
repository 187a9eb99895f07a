"""Decides what follows a failed create, by the table in `core.service.retrying`.

1. The bundle leaves `Creating` immediately, whatever the failure was: either the service refused the create, or its
   answer is lost and counted as a possible duplicate.
2. Refusals that may concern all creates are probed (`core.service.refusals`). For the others, the export is at fault if
   its newest bundle is refused as well, and the bundle is at fault if others are accepted.
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

PROBED = frozenset({Failure.FORBIDDEN, Failure.BLOCKED, Failure.UNREADABLE})
"""Failures that may concern all creates, and are probed."""

REJECTED = frozenset({Failure.REFUSED, Failure.NOT_FOUND, Failure.GONE})
"""Refusals for which the export or the bundle is at fault."""


class CreateFailures:
    """Decides what follows failed creates.

    Args:
        moves: Records states.
        call_turns: What is known about refused calls.
        turns: Decides which bundle may send its create.

    Attributes:
        run_is_ending: Whether an error has ended the run, so that no more creates are sent.
    """

    def __init__(self, moves: BundleMoves, call_turns: CallTurns, turns: CreateTurns) -> None:
        self._moves = moves
        self._call_turns = call_turns
        self._turns = turns
        self._failures: dict[Bundle, BundleFailures] = {}
        self.run_is_ending = False

    async def note(
        self, asked: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn, error: ServiceError
    ) -> BundleRecord:
        """Return the bundle to `Planned`, and note what concerns other bundles immediately."""
        failure, bundle = failure_of(Call.CREATE, error), asked.bundle
        is_lost = failure is Failure.UNREADABLE or (isinstance(error, UnavailableError) and error.unanswered)
        if is_lost:
            self._moves.emit(PossibleDuplicate(bundle))
        self.run_is_ending = self.run_is_ending or failure in (Failure.GIVEN_UP, Failure.UNAUTHORIZED)
        if failure in REJECTED:
            export.creates.refused(bundle, str(error))
            export.waiting.pop(bundle, None)
        elif failure in PROBED and not self._others_succeed(export, bundle):
            is_unreadable = failure is Failure.UNREADABLE
            turn.call_turn.refused(
                error, least_wait=self._call_turns.refusal_times.confirmation_seconds if is_unreadable else 0.0
            )
        if failure is Failure.UNREADABLE:
            return await self._moves.count_attempt(asked, attempt, str(error), is_refusal=True)
        return await self._moves.note(asked, Planned(attempt))

    async def after(self, record: BundleRecord, export: ExportState, error: ServiceError) -> BundleRecord:
        """Do what the table says, once the bundle is back at `Planned`."""
        name, bundle, failure = export.export.name, record.bundle, failure_of(Call.CREATE, error)
        if failure in REJECTED:
            return await self._find_who_is_at_fault(record, export, error)
        failures, known = self._failures_of(bundle), Facts(has_worked=export.accepted)
        failures.count += failure is not Failure.RATE_LIMITED
        if failure is Failure.UNREADABLE:
            known = replace(known, repeated=self._is_unreadable_again(export))
        elif failure is not Failure.RATE_LIMITED:
            self._moves.emit(Retried(bundle, str(error), concerns_all=failure is Failure.UNAVAILABLE))
        match await self._call_turns.next_after(error, name, Call.CREATE, failures, known):
            case Action.PARK:
                return await self._moves.note(record, Failed(str(error)))
            case Action.STOP_EXPORT:
                self._call_turns.stop(export, error, Call.CREATE)
                raise ExportHasStopped from error
            case Action.STOP_RUN:
                self.run_is_ending = True
                raise error
            case Action.RETRY if self._others_succeed(export, bundle):
                await asyncio.sleep(self._call_turns.refusal_times.probe_wait(failures.count))
            case Action.WAIT if failure is Failure.UNAVAILABLE:
                await self._call_turns.pause(failures.count)
        return record

    async def _find_who_is_at_fault(
        self, record: BundleRecord, export: ExportState, error: ServiceError
    ) -> BundleRecord:
        """Wait until it is known whether the bundle or the export caused the refusal of a create."""
        bundle, creates = record.bundle, export.creates
        self._moves.emit(Retried(bundle, str(error)))
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
            self._turns.pick_newest(export)
            if bundle in creates.undecided and not creates.newest_refused:
                await self._call_turns.changes.wait(float("inf"))
        raise ExportHasStopped from error

    def has_failed(self, bundle: Bundle) -> bool:
        """Whether a create of the bundle failed and none was accepted since."""
        return bundle in self._failures

    def forget(self, bundle: Bundle) -> None:
        """Forget the bundle's failures: a create of it was accepted, or it is parked."""
        self._failures.pop(bundle, None)

    def _failures_of(self, bundle: Bundle) -> BundleFailures:
        return self._failures.setdefault(bundle, BundleFailures(self._call_turns.now()))

    def _others_succeed(self, export: ExportState, bundle: Bundle) -> bool:
        return self._call_turns.others_succeed(export.export.name, Call.CREATE, self._failures_of(bundle))

    def _is_unreadable_again(self, export: ExportState) -> bool:
        """Whether an earlier create of the export got an unreadable answer, long enough ago."""
        since = export.unreadable_since
        export.unreadable_since = self._call_turns.now() if since is None else since
        return (
            since is not None and self._call_turns.now() - since >= self._call_turns.refusal_times.confirmation_seconds
        )
