"""Sends creates: the requests that start operations, one for each bundle.

1. `Creating` is durable before the POST is sent, and `Created` is written right after its answer with nothing in
   between. Both happen in a task of their own, which survives the cancellation of the bundle's task and is awaited
   before the run ends, so that no operation is lost.
2. A create without a permit is withdrawn when its bundle is cancelled, or when creates are paused meanwhile: nothing
   was sent and nothing is written.
3. Until the service has accepted the first create of an export in this run, and while it refuses them, the creates of
   that export are sent one at a time (`engine.create_turns`).
4. An outage, a 429 and a lost answer do not count as attempts.
5. The table in `core.service.retrying` decides what follows an answer.
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
class CreateResult:
    """The result of a create: the bundle in its new state, and the error if it failed."""

    record: BundleRecord
    error: ServiceError | None = None


class Creates:
    """The creates of a run.

    Args:
        gate: The budget, which grants permits.
        service: Makes the calls.
        moves: Records states.
        call_turns: What is known about refused calls.

    Attributes:
        turns: Decides which bundle may send its create.
        sending: Bundles whose create is in flight, or has its permit.
    """

    def __init__(self, gate: Budget, service: ExportCalls, moves: BundleMoves, call_turns: CallTurns) -> None:
        self._gate = gate
        self._service = service
        self._moves = moves
        self._call_turns = call_turns
        self._tasks: set[asyncio.Task[CreateResult]] = set()
        self._unawaited: set[asyncio.Task[CreateResult]] = set()
        self._lost_operation: BaseException | None = None
        self.turns = CreateTurns(call_turns)
        self._failures = CreateFailures(moves, call_turns, self.turns)
        self.sending: set[Bundle] = set()

    async def create(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        """Take a bundle from `Planned` (or a `Creating` whose answer is lost) to `Created`, `Planned` or `Failed`.

        Raises:
            ExportHasStopped: the service refuses the whole export.
            UnauthorizedError: the key was refused.
            UnavailableError: the service was given up.
        """
        with self.turns.waiting(record.bundle, export):
            after = await self._create(record, attempt, export)
        if isinstance(after.state, Failed):
            self._failures.forget(record.bundle)
            self.turns.give_up(record.bundle, export)
        return after

    async def finish(self) -> None:
        """Wait for the answers to creates that were sent and whose bundles are no longer processed.

        Raises:
            ExportError: an operation was created but could not be recorded.
        """
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._lost_operation:
            raise self._lost_operation

    def drop(self) -> None:
        """Stop waiting for them. The next run finds their bundles `Creating` and counts them as possible duplicates."""
        for task in self._tasks:
            task.cancel()

    async def _create(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        bundle, failures = record.bundle, self._call_turns.failures
        turn = await self._turn(bundle, export)
        if turn is None:
            return await self._moves.note(record, Failed(failures.parked.pop(bundle)))
        result: CreateResult | None = None
        try:
            result = await self._send(record, attempt, export, turn)
        except NotWanted:
            return record
        finally:
            if result is None or result.error is not None:
                failures.ended(bundle)
            self.turns.leave(turn, export)
        if result.error is None:
            return result.record
        return await self._failures.after(result.record, export, result.error)

    async def _turn(self, bundle: Bundle, export: ExportState) -> CreateTurn | None:
        """Wait for the bundle's turn; None if the bundle must be parked because its operations failed."""
        failures, was_refused = self._call_turns.failures, self._failures.has_failed(bundle)
        while True:
            if failures.given_up:
                self._call_turns.stop(export, ServiceError(failures.given_up), Call.CREATE)
            if export.creates_stopped_by or self._failures.run_is_ending:
                raise ExportHasStopped
            if bundle in failures.parked:
                return None
            turn = self.turns.take(bundle, export, was_refused=was_refused)
            if turn is not None:
                return turn
            await self._call_turns.changes.wait(self.turns.wait_seconds(bundle, export, was_refused=was_refused))

    async def _send(self, record: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn) -> CreateResult:
        """Send the create in a task of its own (rules 1 and 2)."""
        granted = asyncio.Event()
        task = asyncio.create_task(self._send_and_record(record, attempt, export, turn, granted), name="create")
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unawaited.add(task)
            if not granted.is_set():
                task.cancel()
            elif task.done():
                self._note_end(task)
            raise

    def _note_end(self, task: asyncio.Task[CreateResult]) -> None:
        """Note that a create has ended.

        Its error reaches the bundle's task. If that was cancelled, only an error that lost an operation is kept.
        """
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and task in self._unawaited and not isinstance(error, ServiceError | NotWanted):
            self._lost_operation = self._lost_operation or error
        self._unawaited.discard(task)

    async def _send_and_record(
        self, record: BundleRecord, attempt: int, export: ExportState, turn: CreateTurn, granted: asyncio.Event
    ) -> CreateResult:
        bundle, asked, settle = record.bundle, record, float(export.export.settle_seconds)

        def is_wanted() -> bool:
            return not self._failures.run_is_ending and self.turns.may_send(turn, export)

        try:
            priority = Priority.URGENT if bundle in export.urgent else Priority.CREATE
            async with self._gate.permit(Kind.CREATE, priority, is_wanted=is_wanted) as permit:
                granted.set()
                self.sending.add(bundle)
                log.debug("%s: sending its create, attempt %d", bundle, attempt)
                # The row of the permit is already queued, so both rows go into one commit.
                asked = await self._moves.note(record, Creating(attempt, self._moves.clock(), settle))
                operation_id = await self._service.create(export.export.definition, bundle.range, permit=permit)
        except ServiceError as error:
            if not granted.is_set():
                raise
            return CreateResult(await self._failures.note(asked, attempt, export, turn, error), error)
        else:
            self.turns.accepted(turn, export)
            self._failures.forget(bundle)
            created = Created(attempt, self._moves.clock(), operation_id, settle)
            return CreateResult(await self._moves.note(asked, created))
        finally:
            self.sending.discard(bundle)
