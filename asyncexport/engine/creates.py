"""Creates: the requests that start operations, one for each bundle.

1. `Creating` is durable before the POST is sent, and `Created` is written right after its answer with nothing in
   between. That happens in a task of its own, which outlives the bundle's cancel and is awaited before the loop ends:
   no operation is orphaned.
2. A create that was not granted yet is taken back when its bundle is cancelled: nothing was sent, nothing is written.
3. Until the service has taken the first create of an export, creates of it go one at a time: an unknown segment costs
   one request and not fifty.
4. An outage, a 429 and a lost answer count no attempt.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Bundle
from asyncexport.core.events import ExportStopped, PossibleDuplicate, Retried
from asyncexport.core.exports import Export
from asyncexport.core.service.requests import Kind
from asyncexport.core.states import BundleRecord, Created, Creating, Failed, Planned
from asyncexport.engine.budget import Budget
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.retrying import Retrying, Step
from asyncexport.errors import GoneError, RateLimitedError, RefusedError, ReplyError, ServiceError, UnavailableError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ExportState:
    """What the bundles of one export share.

    Attributes:
        export: The export.
        accepted: Whether the service has ever taken a create of it.
        refused: What it said where it never did, and refused one.
        first: Held by the create that goes alone (rule 3).
    """

    export: Export
    accepted: bool = False
    refused: RefusedError | None = None
    first: asyncio.Lock = field(default_factory=asyncio.Lock)


class ExportRefused(Exception):  # noqa: N818 - a way out of a coroutine, not an error of its own
    """The bundle's export was refused, or all that we ask is: there is nothing more to do for it."""


@dataclass(slots=True)
class CreateRetries:
    """Since when, on the monotonic clock, the service is in trouble over a bundle, and how often it was tried."""

    since: float
    tries: int = 0


class Creates:
    """The creates of a run.

    Args:
        gate: What gives leave to send.
        service: What is asked.
        moves: Where states are written.
        retrying: How long between tries, and whose trouble it is.

    Attributes:
        asking: Whose create is on its way to the service, or will be in a moment.
    """

    def __init__(self, gate: Budget, service: ExportCalls, moves: BundleMoves, retrying: Retrying) -> None:
        self._gate = gate
        self._service = service
        self._moves = moves
        self._retrying = retrying
        self._posts: set[asyncio.Task[BundleRecord]] = set()
        self._left_alone: set[asyncio.Task[BundleRecord]] = set()
        self._lost: BaseException | None = None
        self._is_over = False
        self._retries: dict[Bundle, CreateRetries] = {}
        self.asking: set[Bundle] = set()

    async def create(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        """From `Planned` (or a `Creating` whose answer is lost) to `Created`, back to `Planned`, or to `Failed`.

        Raises:
            ExportRefused: the service refuses the whole export.
            UnauthorizedError: the key was refused.
            UnavailableError: the service is gone for good.
        """
        if retries := self._retries.get(record.bundle):
            await self._retrying.pause(retries.tries)
        if not export.accepted:
            async with export.first:
                if not export.accepted:
                    return await self._post(record, attempt, export)
        return await self._post(record, attempt, export)

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

    async def _post(self, record: BundleRecord, attempt: int, export: ExportState) -> BundleRecord:
        """Rules 1 and 2."""
        if export.refused or self._is_over:
            raise ExportRefused
        granted = asyncio.Event()
        task = asyncio.create_task(self._ask_and_note(record, attempt, export, granted), name="create")
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

    def _note_end(self, task: asyncio.Task[BundleRecord]) -> None:
        """Whoever waits for it is told; where nobody does any more, only what lost an operation is kept."""
        self._posts.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and task in self._left_alone and not isinstance(error, ServiceError | ExportRefused):
            self._lost = self._lost or error
        self._left_alone.discard(task)

    async def _ask_and_note(
        self, record: BundleRecord, attempt: int, export: ExportState, granted: asyncio.Event
    ) -> BundleRecord:
        bundle, asked, settle = record.bundle, record, float(export.export.settle_seconds)
        try:
            async with self._gate.permit(Kind.CREATE, Priority.CREATE) as permit:
                granted.set()
                self.asking.add(bundle)
                log.debug("%s: its create goes out, attempt %d", bundle, attempt)
                # The row of the permit is queued already: both go into one commit.
                asked = await self._moves.note(record, Creating(attempt, self._moves.clock(), settle))
                operation_id = await self._service.create(export.export.definition, bundle.range, permit=permit)
        except ServiceError as error:
            if not granted.is_set():
                raise
            return await self._after_failure(asked, attempt, export, error)
        else:
            export.accepted = True
            self._retrying.note_success(Step.CREATE)
            self._retries.pop(bundle, None)
            return await self._moves.note(asked, Created(attempt, self._moves.clock(), operation_id, settle))
        finally:
            self.asking.discard(bundle)

    async def _after_failure(
        self, asked: BundleRecord, attempt: int, export: ExportState, error: ServiceError
    ) -> BundleRecord:
        match error:
            case RefusedError() if export.accepted:
                return await self._moves.note(asked, Failed(str(error)))
            case RefusedError():
                export.refused = error
                await self._moves.note(asked, Planned(attempt))
                self._moves.tell(ExportStopped(export.export.name, error))
                raise ExportRefused from error
            case ReplyError() | GoneError():
                self._moves.tell(PossibleDuplicate(asked.bundle))
                return await self._moves.count_attempt(asked, attempt, str(error))
            case RateLimitedError():
                return await self._moves.note(asked, Planned(attempt))
            case UnavailableError():
                return await self._after_outage(asked, attempt, error)
            case _:
                self._is_over = True
                await self._moves.note(asked, Planned(attempt))
                raise error

    async def _after_outage(self, asked: BundleRecord, attempt: int, error: UnavailableError) -> BundleRecord:
        """Rule 4; but a bundle whose create alone never goes through is parked in the end."""
        if error.unanswered:
            self._moves.tell(PossibleDuplicate(asked.bundle))
        self._moves.tell(Retried(asked.bundle, str(error), concerns_all=True))
        retries = self._retries.setdefault(asked.bundle, CreateRetries(self._retrying.now()))
        retries.tries += 1
        if self._retrying.is_its_own(Step.CREATE, retries.since):
            del self._retries[asked.bundle]
            return await self._moves.note(asked, Failed(str(error)))
        back = await self._moves.note(asked, Planned(attempt))
        if not error.transient:
            raise error
        return back
