"""Decides what follows a failed attempt to fetch a file, by the table in `core.service.retrying`.

1. If a refusal may concern all bundles of an export, its calls are paused and probed. A bundle that is refused while
   others succeed waits on its own.
2. A bundle that is given up because of refusals is parked with its export, whose file the next run asks for first. So
   is one whose file is no export again and again; if the file still is none `NO_EXPORT_SECONDS` after it was asked for,
   a new export is made.
3. An empty file that nothing confirms is downloaded again some time later (the second check, `[download] second_look`).
   It holds no download slot meanwhile.
"""

import asyncio
import logging
from dataclasses import dataclass

from asyncexport.core.connectivity import LONGEST_PAUSE_SECONDS
from asyncexport.core.events import Retried
from asyncexport.core.row_rejections import Repeated
from asyncexport.core.service.fetch_attempts import FetchAttempts
from asyncexport.core.service.refusals import EXPORT_LIFE_SECONDS, BundleFailures
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, failure_of
from asyncexport.core.states import BundleRecord, Ready, Refused
from asyncexport.core.text import show_duration
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.download import ArchiveDownload
from asyncexport.engine.export_state import ExportHasStopped, ExportState
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.row_checks import RowChecks
from asyncexport.errors import (
    ArchiveError,
    ExportError,
    ForeignRowsError,
    NoExportError,
    ServiceError,
    UnavailableError,
)

log = logging.getLogger(__name__)

NO_EXPORT_SECONDS = 12 * 3600.0
"""A proxy or a gateway in trouble sends what is no export for hours. After that, it is the file that is wrong."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """The file of a bundle that is being fetched.

    Attributes:
        record: The bundle.
        ready: Its state, which has the export id.
        export: The state that the bundles of its export share.
        download: The download in progress.
        attempts: The fetch attempts so far.
    """

    record: BundleRecord
    ready: Ready
    export: ExportState
    download: ArchiveDownload
    attempts: FetchAttempts

    @property
    def name(self) -> str:
        """The name of its export."""
        return self.export.export.name

    def age_seconds(self, now: float) -> float:
        """Seconds since the service was asked for the export."""
        return now - (self.ready.exported_at if self.ready.asked_at is None else self.ready.asked_at)


class FetchFailures:
    """Decides what follows failed fetch attempts.

    Args:
        moves: Records states.
        call_turns: What is known about refused calls.
        rows: Checks the rows of each export's files.
        second_look_seconds: `[download] second_look`.

    Attributes:
        second_looks: Number of empty files that needed a second check.
    """

    def __init__(
        self, moves: BundleMoves, call_turns: CallTurns, rows: RowChecks, *, second_look_seconds: float
    ) -> None:
        self._moves = moves
        self._call_turns = call_turns
        self._rows = rows
        self._second_look_seconds = second_look_seconds
        self.second_looks = 0

    def may_concern_all(self, file: BundleFile, error: ServiceError) -> bool:
        """Whether the error is a refusal, and no other bundle of the export succeeds."""
        attempts, now = file.attempts, self._call_turns.now()
        if not attempts.is_refusal(failure_of(attempts.call, error), now):
            return False
        return not self._call_turns.others_succeed(file.name, attempts.call, attempts.failures_of_call(now))

    async def after(self, file: BundleFile, error: ServiceError | ArchiveError) -> BundleRecord | None:
        """Do what the table says; None if the file is to be fetched again."""
        attempts, record, call = file.attempts, file.record, file.attempts.call
        failure = failure_of(call, error)
        failures = attempts.failed(failure, now=self._call_turns.now(), received=file.download.received)
        self._report(file, failure, error)
        refusal = self._call_turns.refusals.ongoing(file.name, call)
        repeated = self._rows.repeated(record.bundle, error)
        life_seconds = NO_EXPORT_SECONDS if isinstance(error, NoExportError) else EXPORT_LIFE_SECONDS
        known = Facts(
            has_worked=file.export.ever_stored,
            expired=file.age_seconds(self._moves.clock()) >= life_seconds,
            retries_left=attempts.retries_left,
            only_this_bundle=repeated is Repeated.FOR_BUNDLE or (refusal is not None and refusal.is_of(record.bundle)),
            range_is_checked=isinstance(error, ForeignRowsError) and self._rows.rejects_range(record.bundle),
            repeatedly_no_export=repeated is not Repeated.NO,
        )
        match await self._call_turns.next_after(error, file.name, call, failures, known):
            case Action.STOP_RUN:
                raise _as_lasting(error)
            case Action.STOP_EXPORT:
                self._call_turns.stop(file.export, error, call)
                raise ExportHasStopped from error
            case Action.PARK:
                return await self._moves.note(record, Refused(str(error), file.ready))
            case Action.NEW_ATTEMPT:
                return await self._moves.count_attempt(record, file.ready.attempt, str(error))
            case Action.SECOND_LOOK:
                await asyncio.sleep(self._second_look_seconds)
                return None
        await self._pause(file, error, failures)
        return None

    def _report(self, file: BundleFile, failure: Failure, error: ExportError) -> None:
        """Report what went wrong; an empty file is only logged."""
        bundle = file.record.bundle
        if failure is Failure.NO_ROWS:
            self.second_looks += 1
            log.info("%s: %s; downloading it again in %s", bundle, error, show_duration(self._second_look_seconds))
        elif failure not in (Failure.GIVEN_UP, Failure.UNAUTHORIZED):
            is_outage = failure in (Failure.UNAVAILABLE, Failure.RATE_LIMITED) and file.attempts.call is Call.RESULTS
            self._moves.emit(Retried(bundle, str(error), concerns_all=is_outage))

    async def _pause(self, file: BundleFile, error: ExportError, failures: BundleFailures) -> None:
        """Wait before the next attempt, unless such calls are paused for all bundles of the export."""
        call_turns, attempts = self._call_turns, file.attempts
        failure = failure_of(attempts.call, error)
        if failure is Failure.GONE:
            await asyncio.sleep(call_turns.refusal_times.confirmation_seconds)
        elif not attempts.is_refusal(failure, call_turns.now()):
            asked = error.retry_after if isinstance(error, UnavailableError) else None
            await call_turns.pause(attempts.failed_in_a_row, least_seconds=min(asked or 0.0, LONGEST_PAUSE_SECONDS))
        elif call_turns.others_succeed(file.name, attempts.call, failures):
            await asyncio.sleep(call_turns.refusal_times.probe_wait(failures.count))


def _as_lasting(error: ExportError) -> ExportError:
    """Return the error that ends the run: an outage that has lasted too long becomes a lasting one."""
    if isinstance(error, UnavailableError):
        return UnavailableError(str(error), lasting=True, hint=error.hint)
    return error
