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
from asyncexport.core.service.refusals import BundleTrouble
from asyncexport.core.service.retrying import Call, CameBack, Facts, Next, decide, read
from asyncexport.core.states import BundleRecord, Failed, Planned
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.create_turns import CreateTurn, CreateTurns
from asyncexport.engine.export_state import ExportHasStopped, ExportState
from asyncexport.engine.moves import BundleMoves
from asyncexport.errors import ServiceError, UnavailableError

BLOCKED = frozenset({CameBack.FORBIDDEN, CameBack.BLOCKED, CameBack.UNREADABLE})
"""What may have come to all creates, and is probed."""

SAID_NO = frozenset({CameBack.REFUSED, CameBack.NOT_FOUND, CameBack.GONE})
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
        self._troubles: dict[Bundle, BundleTrouble] = {}
        self.is_over = False

    async def note(
        self, asked: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn, error: ServiceError
    ) -> BundleRecord:
        """Take the row of the intent back, and note what else all must know at once."""
        came_back, bundle = read(Call.CREATE, error), asked.bundle
        is_lost = came_back is CameBack.UNREADABLE or (isinstance(error, UnavailableError) and error.unanswered)
        if is_lost:
            self._moves.tell(PossibleDuplicate(bundle))
        self.is_over = self.is_over or came_back in (CameBack.GIVEN_UP, CameBack.KEY_REFUSED)
        if came_back in SAID_NO:
            export.creates.refuse(bundle, str(error))
            export.waiting.pop(bundle, None)
        elif came_back in BLOCKED and not self._others_get_on(export, bundle):
            is_odd = came_back is CameBack.UNREADABLE
            turn.turn.refused(error, least_wait=self._call_turns.patience.repeated_seconds if is_odd else 0.0)
        if came_back is CameBack.UNREADABLE:
            return await self._moves.count_attempt(asked, attempt, str(error))
        return await self._moves.note(asked, Planned(attempt))

    async def after(self, record: BundleRecord, export: ExportState, error: ServiceError) -> BundleRecord:
        """What the table says, once the row of the intent is taken back."""
        name, bundle, came_back = export.export.name, record.bundle, read(Call.CREATE, error)
        if came_back in SAID_NO:
            return await self._see_others(record, export, error)
        trouble, known = self._trouble(bundle), Facts(ever_good=export.accepted)
        trouble.tries += came_back is not CameBack.TOO_OFTEN
        if came_back is CameBack.UNREADABLE:
            known = replace(known, said_twice=self._is_unreadable_again(export))
        elif came_back is not CameBack.TOO_OFTEN:
            self._moves.tell(Retried(bundle, str(error), concerns_all=came_back is CameBack.TROUBLE))
        match await self._call_turns.next_after(error, name, Call.CREATE, trouble, known):
            case Next.PARK:
                return await self._moves.note(record, Failed(str(error)))
            case Next.STOP_EXPORT:
                self._call_turns.stop(export, error, Call.CREATE)
                raise ExportHasStopped from error
            case Next.STOP_RUN:
                self.is_over = True
                raise error
            case Next.AGAIN if self._others_get_on(export, bundle):
                await asyncio.sleep(self._call_turns.patience.probe_wait(trouble.tries))
            case Next.WAIT if came_back is CameBack.TROUBLE:
                await self._call_turns.pause(trouble.tries)
        return record

    async def _see_others(self, record: BundleRecord, export: ExportState, error: ServiceError) -> BundleRecord:
        """Wait until it is known whether the refusal of a create is the bundle's trouble or the export's."""
        bundle, creates = record.bundle, export.creates
        self._moves.tell(Retried(bundle, str(error)))
        while not export.creates_stopped_by:
            known = Facts(
                others_get_on=bundle not in creates.undecided,
                in_a_row=creates.in_a_row,
                newest_left=not creates.newest_refused,
            )
            match decide(Call.CREATE, read(Call.CREATE, error), known):
                case Next.PARK:
                    return await self._moves.note(record, Failed(str(error)))
                case Next.STOP_EXPORT:
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

    def _trouble(self, bundle: Bundle) -> BundleTrouble:
        return self._troubles.setdefault(bundle, BundleTrouble(self._call_turns.now()))

    def _others_get_on(self, export: ExportState, bundle: Bundle) -> bool:
        return self._call_turns.others_get_on(export.export.name, Call.CREATE, self._trouble(bundle))

    def _is_unreadable_again(self, export: ExportState) -> bool:
        """Whether a create of the export was answered with something unreadable before, long enough ago."""
        since = export.unreadable_since
        export.unreadable_since = self._call_turns.now() if since is None else since
        return since is not None and self._call_turns.now() - since >= self._call_turns.patience.repeated_seconds
