"""Fetches the file of a bundle's export, with as many retries as that takes.

1. A signed URL is valid for minutes, so it is requested only when a download slot is free. One that is about to expire
   is not used again.
2. As long as the export's file may be available, it is fetched again, through a fresh signed URL if the old one no
   longer works. A refusal does not lead to a new export: refused calls are probed, and if that does not help the bundle
   is parked with its export (`Refused`), or the export is stopped. The table in `core.service.retrying` decides.
3. An outage and a 429 do not count as a fetch attempt, and neither does a cut download that got further than any
   before.
4. A new export of a stored bundle replaces the archive only if it does not have far fewer rows
   (`core.replacement_guard`), the archive is damaged or missing, or the user accepts fewer rows. Otherwise the bundle
   ends in `FewerRows`. An archive that the ledger does not know, because the ledger was restored from a backup, is
   replaced only by one with more rows.
5. While calls of an export are paused, its bundles take no download slot from others.
"""

import logging
from collections.abc import Container, KeysView

from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import Bundle
from asyncexport.core.replacement_guard import least_rows
from asyncexport.core.second_looks import SecondLooks
from asyncexport.core.service.fetch_attempts import FetchAttempts
from asyncexport.core.states import Archive, BundleRecord, FewerRows, Ready, Stored
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.download import ArchiveDownload, ArchiveDownloads
from asyncexport.engine.download_slots import DownloadSlots
from asyncexport.engine.export_state import ExportState
from asyncexport.engine.fetch_failures import BundleFile, FetchFailures
from asyncexport.engine.file_fetcher import FileFetcher
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.row_checks import RowChecks
from asyncexport.errors import ArchiveError, FewerRowsError, ServiceError

log = logging.getLogger(__name__)


class Fetching:
    """The downloads of a run.

    Args:
        service: Returns signed URLs.
        downloads: Downloads archives to the disk.
        moves: Records states.
        call_turns: What is known about refused calls, and how long to wait between attempts.
        slots: `[concurrency] downloads`.
        accepted: Bundles whose archive may be replaced by one with far fewer rows. More may be added during the run.
        second_look_seconds: `[download] second_look`.

    Attributes:
        rows: Checks the rows of each export's files.
    """

    def __init__(
        self,
        service: ExportCalls,
        downloads: ArchiveDownloads,
        moves: BundleMoves,
        call_turns: CallTurns,
        *,
        slots: int,
        accepted: Container[Bundle],
        second_look_seconds: float,
    ) -> None:
        self._downloads = downloads
        self._moves = moves
        self._call_turns = call_turns
        self._slots = DownloadSlots(slots)
        self.rows = RowChecks(moves.emit, span_seconds=second_look_seconds, now=call_turns.now)
        self._failures = FetchFailures(moves, call_turns, self.rows, second_look_seconds=second_look_seconds)
        self._fetcher = FileFetcher(service, call_turns, self._failures, clock=moves.clock)
        self._accepted = accepted
        self._files: dict[Bundle, ArchiveDownload] = {}
        self._began: dict[Bundle, float] = {}
        self._seconds = 0.0
        self._fetched = 0

    @property
    def downloading(self) -> KeysView[Bundle]:
        """Bundles whose file is being downloaded, inspected or recorded."""
        return self._began.keys()

    @property
    def received(self) -> int:
        """Bytes received of files that are not complete yet."""
        return sum(download.received for download in self._files.values())

    @property
    def ages(self) -> list[float]:
        """Seconds that each download in progress has taken so far."""
        return [self._call_turns.now() - began for began in self._began.values()]

    @property
    def seconds_each(self) -> float | None:
        """Average seconds per fetched file, including time spent on unfinished ones; None before the first file."""
        return (self._seconds + sum(self.ages)) / self._fetched if self._fetched else None

    @property
    def second_looks(self) -> SecondLooks:
        """How many files were fetched, and how many of them needed a second check."""
        return SecondLooks(self._fetched, min(self._failures.second_looks, self._fetched))

    async def fetch(self, record: BundleRecord, ready: Ready, export: ExportState) -> BundleRecord:
        """Take a bundle from `Ready` to `Stored`, back to `Planned` for the next attempt, or to a parked state.

        Raises:
            ExportHasStopped: the export was stopped.
            StorageError: the disk is full or not writable.
            UnavailableError: the service was given up.
        """
        least, definition = self._least_rows(record), export.export.definition

        def new_check() -> RowCheck:
            return self.rows.new_check(record.bundle, definition)

        async with self._downloads.begin(record.bundle, definition, least_rows=least, new_check=new_check) as download:
            self._files[record.bundle] = download
            try:
                attempts = FetchAttempts(self._moves.rules.attempts)
                return await self._fetch_with_retries(BundleFile(record, ready, export, download, attempts))
            finally:
                del self._files[record.bundle]

    def _least_rows(self, record: BundleRecord) -> int | None:
        """Return how many rows a new export must have to replace the archive (rule 4); None if none is recorded."""
        if record.bundle in self._accepted:
            return 0
        return None if record.stored is None else least_rows(record.stored.rows)

    async def _fetch_with_retries(self, file: BundleFile) -> BundleRecord:
        """Try until the file is stored or given up."""
        record = file.record
        while True:
            await self._fetcher.until_turn(file)
            try:
                async with self._slots.take() as slot:
                    archive = await self._fetcher.once(file, slot, begin=lambda: self._note_begin(file))
                if archive is None:
                    continue
                self._fetched += 1
                # The slot is free by now: the next download does not wait for the ledger.
                stored = await self._moves.note(record, _stored(archive, file.ready, record.stored))
            except FewerRowsError as error:
                # The file is complete: another download would bring the same one.
                return await self._moves.note(record, FewerRows(error.rows_before, error.rows_found))
            except (ServiceError, ArchiveError) as error:
                failure = error
            else:
                self.rows.stored(record.bundle, file.download.row_check)
                return stored
            finally:
                self._note_end(record.bundle)
            ended = await self._failures.after(file, failure)
            if ended is not None:
                return ended

    def _note_begin(self, file: BundleFile) -> None:
        self._began[file.record.bundle] = self._call_turns.now()

    def _note_end(self, bundle: Bundle) -> None:
        """Stop the clock of a fetch attempt; if it succeeded, its result is recorded by now."""
        began = self._began.pop(bundle, None)
        if began is not None:
            self._seconds += self._call_turns.now() - began


def _stored(archive: Archive, ready: Ready, before: Stored | None) -> Stored:
    """Make the state of a bundle whose file was stored; `before` is the archive that it had, and may have kept."""
    return Stored.of(
        archive,
        exported_at=ready.exported_at,
        asked_at=ready.asked_at,
        settle_seconds=ready.settle_seconds,
        written_by=before.writer_of(archive) if before else None,
    )
