"""Decides what follows when an operation has completed, failed, is gone or refused, or still runs at its deadline.

An operation or export whose id the service gave for another range before counts as failed (`engine.service_ids`).
Whether the bundle or the service caused a failure is decided by the operations that end next
(`core.service.operation_failures`); until then the bundle waits.
"""

import asyncio

from asyncexport.core.events import Retried
from asyncexport.core.exports import Export
from asyncexport.core.parking import is_too_wide
from asyncexport.core.polling import FinishedOperation, operation_start
from asyncexport.core.service.operation_failures import Blame
from asyncexport.core.service.refusals import ALL_EXPORTS, BundleFailures
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, KeyStatus, decide, failure_of
from asyncexport.core.states import BundleRecord, Created, Failed, Overdue, Planned, Ready, Refused
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.export_state import ExportHasStopped, ExportState
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.service_ids import IdOwners
from asyncexport.errors import GoneError, OperationFailedError, RefusedError, ReplyError, ServiceError


class OperationEnds:
    """Waits for operations and decides what follows.

    Args:
        poller: Waits for operations.
        moves: Records states.
        call_turns: What is known about refused calls.
        owners: Finds the bundle that an id belongs to.
    """

    def __init__(self, poller: OperationPoller, moves: BundleMoves, call_turns: CallTurns, owners: IdOwners) -> None:
        self._poller = poller
        self._moves = moves
        self._call_turns = call_turns
        self._owners = owners
        self._watching = 0

    async def watch(self, record: BundleRecord, created: Created, export: ExportState) -> BundleRecord:
        """Take a bundle from `Created` to `Ready`, back to `Planned` for the next attempt, or to a parked state.

        Raises:
            ExportHasStopped: the service refuses every poll.
        """
        failures = self._call_turns.failures
        try:
            finished = await self._wait(created, is_urgent=record.bundle in export.urgent)
        except OperationFailedError as error:
            return await self.failed(record, created.attempt, str(error))
        except (GoneError, RefusedError, ReplyError) as error:
            failures.ended(record.bundle)
            return await self._after_refusal(record, created, error, export)
        if finished is None:
            failures.ended(record.bundle)
            overdue = Overdue(created.attempt, created.asked_at, created.operation_id, created.settle_seconds)
            return await self._moves.note(record, overdue)
        ready = await self._moves.note(record, _ready(created, finished, self._moves))
        if owner := await self._owners.of_export(record.bundle, finished.export_id):
            return await self.failed(ready, created.attempt, f"the service returned an export that belongs to {owner}")
        failures.completed()
        self._call_turns.changes.notify()
        return ready

    async def _wait(self, created: Created, *, is_urgent: bool) -> FinishedOperation | None:
        self._watching += 1
        try:
            return await self._poller.wait(created.operation_id, asked_at=created.asked_at, is_urgent=is_urgent)
        finally:
            self._watching -= 1
            self._call_turns.changes.notify()

    async def failed(self, record: BundleRecord, attempt: int, reason: str) -> BundleRecord:
        """Handle a failed operation: `Planned` again, or parked, once it is known which side caused it."""
        call_turns, failures = self._call_turns, self._call_turns.failures
        pause = call_turns.pause_seconds(failures.failed_probes + 1)
        whole = self._moves.failed_attempts.whole(record.bundle)
        failed = failures.failed(record.bundle, reason, now=call_turns.now(), backoff_seconds=pause, whole=whole)
        call_turns.changes.notify()
        while failed.blame is None:
            failures.expire(failed, now=call_turns.now(), others_run=self._watching > 0)
            if failed.blame is None:
                await call_turns.changes.wait(failures.undecided_seconds)
        if failed.blame is Blame.PARKED:
            self._moves.emit(Retried(record.bundle, reason))
            return await self._moves.note(record, Failed(reason))
        known = Facts(service_is_failing=failed.blame is Blame.SERVICE)
        if decide(Call.POLL, Failure.OPERATION_FAILED, known) is Action.WAIT:
            self._moves.emit(Retried(record.bundle, reason, concerns_all=True))
            return await self._moves.note(record, Planned(attempt))
        return await self._moves.count_attempt(record, attempt, reason)

    async def _after_refusal(
        self, record: BundleRecord, created: Created, error: GoneError | RefusedError | ReplyError, export: ExportState
    ) -> BundleRecord:
        """Handle an answer that the poller got often enough to believe it."""
        call_turns, since = self._call_turns, self._call_turns.now() - self._call_turns.refusal_times.lasting_seconds
        known = Facts(
            key=KeyStatus.GOOD,
            repeated=True,
            lasting=True,
            others_succeed=call_turns.refusals.successes.since(ALL_EXPORTS, Call.POLL, since),
        )
        match decide(Call.POLL, failure_of(Call.POLL, error), known):
            case Action.NEW_ATTEMPT:
                return await self._moves.count_attempt(record, created.attempt, str(error))
            case Action.PARK:
                return await self._moves.note(record, Refused(str(error), created))
        call_turns.stop(export, error, Call.POLL)
        raise ExportHasStopped from error


class OverdueOperations:
    """Polls operations again that were parked as overdue; arguments as for `OperationEnds`."""

    def __init__(self, poller: OperationPoller, moves: BundleMoves, call_turns: CallTurns) -> None:
        self._poller = poller
        self._moves = moves
        self._call_turns = call_turns

    async def poll_again(self, record: BundleRecord, overdue: Overdue, export: Export) -> BundleRecord:
        """Poll the operation; if it still runs or has failed, plan a new one or narrower bundles instead.

        Raises:
            ExportHasStopped: the operation cannot be polled; the bundle stays parked.
        """
        failures = BundleFailures(self._call_turns.now())
        while True:
            try:
                finished = await self._poller.ask(overdue.operation_id)
            except OperationFailedError as error:
                return await self._give_up(record, export, str(error))
            except ServiceError as error:
                failures.failed(failure_of(Call.POLL, error), self._call_turns.now())
                match await self._call_turns.next_after(error, ALL_EXPORTS, Call.POLL, failures, self._facts(failures)):
                    case Action.STOP_RUN:
                        raise
                    case Action.NEW_ATTEMPT:
                        return await self._give_up(record, export, str(error))
                    case Action.PARK | Action.STOP_EXPORT:
                        raise ExportHasStopped from error
                await self._pause(error, failures)
                continue
            if finished is None:
                return await self._give_up(record, export, "its operation is still running")
            return await self._moves.note(record, _ready(overdue, finished, self._moves))

    async def _give_up(self, record: BundleRecord, export: Export, reason: str) -> BundleRecord:
        """Plan the bundle again, unless bundles are narrower by now: then the next run splits it."""
        if is_too_wide(record, export):
            return await self._moves.note(record, Failed(f"{reason}; narrower bundles will take its place"))
        return self._moves.plan_again(record)

    def _facts(self, failures: BundleFailures) -> Facts:
        """What is known about an operation whose polls keep failing."""
        return Facts(lasting=self._call_turns.refusal_times.is_lasting(self._call_turns.now() - failures.since))

    async def _pause(self, error: ServiceError, failures: BundleFailures) -> None:
        """Wait before the operation is polled again."""
        call_turns = self._call_turns
        match failure_of(Call.POLL, error):
            case Failure.GONE:
                await asyncio.sleep(call_turns.refusal_times.confirmation_seconds)
            case Failure.UNAVAILABLE | Failure.RATE_LIMITED | Failure.UNREADABLE:
                await call_turns.pause(failures.count)
            case _:
                await asyncio.sleep(call_turns.refusal_times.probe_wait(failures.count))


def _ready(asked: Created | Overdue, finished: FinishedOperation, moves: BundleMoves) -> Ready:
    """Make the `Ready` state. If times differ, the earlier one counts: unsettled data must not count as settled."""
    asked_at = min(asked.asked_at, moves.earliest())
    began = operation_start(finished.exported_at, asked_at=asked_at, now=moves.clock())
    return Ready.of(asked, exported_at=began, export_id=finished.export_id)
