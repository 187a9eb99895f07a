"""Creates: the requests that start operations, one for each bundle.

1. `Creating` is durable before the POST is sent, and `Created` is written right after its answer with nothing in
   between. That happens in a task of its own, which outlives the bundle's cancel and is awaited before the loop ends:
   no operation is orphaned.
2. A create that was not granted yet is taken back when its bundle is cancelled, or when creates are held back
   meanwhile: nothing was sent, nothing is written.
3. Until the service has taken the first create of an export in this run, and while it refuses them, creates of it go
   one at a time (`engine.create_turns`).
4. An outage, a 429 and a lost answer count no attempt.
5. What follows from an answer is decided by the table (`core.service.retrying`).
"""

import asyncio
import logging
from dataclasses import dataclass

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Bundle
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.retrying import Call
from asyncexport.core.states import BundleRecord, Created, Creating, Failed
from asyncexport.engine.budget import Budget, NotWanted
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.create_failures import CreateFailures
from asyncexport.engine.create_turns import CreateTurn, CreateTurns
from asyncexport.engine.export_state import ExportHasStopped, ExportState
from asyncexport.engine.moves import BundleMoves
from asyncexport.errors import ServiceError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of a create: the bundle as it is now, and what went wrong."""

    record: BundleRecord
    error: ServiceError | None = None


class Creates:
    """The creates of a run.

    Args:
        gate: What gives leave to send.
        service: What is asked.
        moves: Where states are written.
        call_turns: What is known of refusals.

    Attributes:
        turns: Whose create may go.
        asking: Whose create is on its way to the service, or will be in a moment.
    """

    def __init__(self, gate: Budget, service: ExportCalls, moves: BundleMoves, call_turns: CallTurns) -> None:
        self._gate = gate
        self._service = service
        self._moves = moves
        self._call_turns = call_turns
        self._posts: set[asyncio.Task[Posted]] = set()
        self._left_alone: set[asyncio.Task[Posted]] = set()
        self._lost: BaseException | None = None
        self.turns = CreateTurns(call_turns)
        self._failures = CreateFailures(moves, call_turns, self.turns)
        self.asking: set[Bundle] = set()

    async def create(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        """From `Planned` (or a `Creating` whose answer is lost) to `Created`, back to `Planned`, or to `Failed`.

        Raises:
            ExportHasStopped: the service refuses the whole export.
            UnauthorizedError: the key was refused.
            UnavailableError: the service is gone for good.
        """
        with self.turns.waiting(record.bundle, export):
            after = await self._create(record, attempt, export)
        if isinstance(after.state, Failed):
            self._failures.forget(record.bundle)
            self.turns.give_up(record.bundle, export)
        return after

    async def finish(self) -> None:
        """Wait for the answers of creates that were sent, and whose bundles nobody carries any more.

        Raises:
            ExportError: an operation that was made could not be put on record.
        """
        if self._posts:
            await asyncio.wait(self._posts)
        if self._lost:
            raise self._lost

    def drop(self) -> None:
        """Wait for them no longer: their bundles are found `Creating`, and count as possible duplicates."""
        for task in self._posts:
            task.cancel()

    async def _create(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        bundle, failures = record.bundle, self._call_turns.failures
        turn = await self._turn(bundle, export)
        if turn is None:
            return await self._moves.note(record, Failed(failures.parked.pop(bundle)))
        posted: Posted | None = None
        try:
            posted = await self._post(record, attempt, export, turn)
        except NotWanted:
            return record
        finally:
            if posted is None or posted.error is not None:
                failures.ended(bundle)
            self.turns.leave(turn, export)
        if posted.error is None:
            return posted.record
        return await self._failures.after(posted.record, export, posted.error)

    async def _turn(self, bundle: Bundle, export: ExportState) -> CreateTurn | None:
        """Wait for leave to ask; None: the bundle is to be parked, since its operations failed."""
        failures, was_refused = self._call_turns.failures, self._failures.has_failed(bundle)
        while True:
            if failures.given_up:
                self._call_turns.stop(export, ServiceError(failures.given_up), Call.CREATE)
            if export.creates_stopped_by or self._failures.is_over:
                raise ExportHasStopped
            if bundle in failures.parked:
                return None
            turn = self.turns.take(bundle, export, was_refused=was_refused)
            if turn is not None:
                return turn
            await self._call_turns.changes.wait(self.turns.wait_seconds(bundle, export, was_refused=was_refused))

    async def _post(self, record: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn) -> Posted:
        """Rules 1 and 2."""
        granted = asyncio.Event()
        task = asyncio.create_task(self._ask_and_note(record, attempt, export, turn, granted), name="create")
        self._posts.add(task)
        task.add_done_callback(self._note_end)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._left_alone.add(task)
            if not granted.is_set():
                task.cancel()
            elif task.done():
                self._note_end(task)
            raise

    def _note_end(self, task: asyncio.Task[Posted]) -> None:
        """A create has ended. Its bundle gets the error; without a bundle, only one that lost an operation is kept."""
        self._posts.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and task in self._left_alone and not isinstance(error, ServiceError | NotWanted):
            self._lost = self._lost or error
        self._left_alone.discard(task)

    async def _ask_and_note(
        self, record: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn, granted: asyncio.Event
    ) -> Posted:
        bundle, asked, settle = record.bundle, record, float(export.export.settle_seconds)

        def is_wanted() -> bool:
            return not self._failures.is_over and self.turns.may_go(turn, export)

        try:
            async with self._gate.permit(Kind.CREATE, Priority.CREATE, is_wanted=is_wanted) as permit:
                granted.set()
                self.asking.add(bundle)
                log.debug("%s: its create goes out, attempt %d", bundle, attempt)
                # The row of the permit is queued already: both go into one commit.
                asked = await self._moves.note(record, Creating(attempt, self._moves.clock(), settle))
                operation_id = await self._service.create(export.export.definition, bundle.range, permit=permit)
        except ServiceError as error:
            if not granted.is_set():
                raise
            return Posted(await self._failures.note(asked, attempt, export, turn, error), error)
        else:
            self.turns.taken(turn, export)
            self._failures.forget(bundle)
            return Posted(await self._moves.note(asked, Created(attempt, self._moves.clock(), operation_id, settle)))
        finally:
            self.asking.discard(bundle)
