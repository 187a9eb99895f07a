"""Fetching the file of a bundle's export, however often it takes.

1. A link lives for minutes, so it is asked for only when a download slot is free; one that is about to expire is not
   used again.
2. While the file of an export can be had, it is fetched again, through a fresh link where the old one is dead. A
   refusal makes no new export: what is refused is probed, and in the end the bundle is parked with its export
   (`Refused`), or the export is stopped. What follows from an answer is decided by the table
   (`core.service.retrying`).
3. An outage and a 429 do not count as a try, and neither does a cut download that got further than any before it.
4. A new export of a stored bundle replaces the archive only if it does not have far fewer rows
   (`core.replacement_guard`), the
   archive is damaged or missing, or the user accepts it; else the bundle ends in `FewerRows`. An archive that no row
   tells of, since the ledger is from a backup, is replaced only by one with more rows.
5. While calls of an export are held back, its bundles take no download slot from others.
"""

import logging
from collections.abc import Container, KeysView

from asyncexport.core.archive.expected_rows import RowLook
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
from asyncexport.engine.fetch_failures import FetchFailures, FileOfBundle
from asyncexport.engine.file_tries import FileTries
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.row_checks import RowChecks
from asyncexport.errors import ArchiveError, FewerRowsError, ServiceError

log = logging.getLogger(__name__)


class Fetching:
    """The downloads of a run.

    Args:
        service: What gives links.
        downloads: Where archives are brought.
        moves: Where states are written.
        call_turns: How long between tries, and whose trouble it is.
        slots: `[concurrency] downloads`.
        accepted: Bundles whose archive is replaced by whatever comes. More may be added during the run.
        second_look_seconds: `[download] second_look`.

    Attributes:
        rows: What is known of the rows in each export's files.
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
        self.rows = RowChecks(moves.tell, span_seconds=second_look_seconds, now=call_turns.now)
        self._failures = FetchFailures(moves, call_turns, self.rows, second_look_seconds=second_look_seconds)
        self._tries = FileTries(service, call_turns, self._failures, clock=moves.clock)
        self._accepted = accepted
        self._files: dict[Bundle, ArchiveDownload] = {}
        self._began: dict[Bundle, float] = {}
        self._seconds = 0.0
        self._fetched = 0

    @property
    def downloading(self) -> KeysView[Bundle]:
        """Whose file is being fetched at present, or was and goes on record."""
        return self._began.keys()

    @property
    def received(self) -> int:
        """Bytes that have come of files that are not whole yet."""
        return sum(download.received for download in self._files.values())

    @property
    def ages(self) -> list[float]:
        """For how long each download under way has been going, in seconds."""
        return [self._call_turns.now() - began for began in self._began.values()]

    @property
    def seconds_each(self) -> float | None:
        """What a download takes, those counted in that are not done; None before the first is."""
        return (self._seconds + sum(self.ages)) / self._fetched if self._fetched else None

    @property
    def second_looks(self) -> SecondLooks:
        """How many files were fetched, and how many of them took a second look."""
        return SecondLooks(self._fetched, min(self._failures.second_looks, self._fetched))

    async def fetch(self, record: BundleRecord, ready: Ready, export: ExportState) -> BundleRecord:
        """From `Ready` to `Stored`, back to `Planned` for the next attempt, or parked.

        Raises:
            ExportRefused: the export is stopped.
            StorageError: the disk is full, or not writable.
            UnavailableError: the service is gone for good.
        """
        least, definition = self._least_rows(record), export.export.definition

        def new_look() -> RowLook:
            return self.rows.look(record.bundle, definition)

        async with self._downloads.begin(record.bundle, definition, least_rows=least, new_look=new_look) as download:
            self._files[record.bundle] = download
            try:
                tries = FetchAttempts(self._moves.attempts)
                return await self._try_on(FileOfBundle(record, ready, export, download, tries))
            finally:
                del self._files[record.bundle]

    def _least_rows(self, record: BundleRecord) -> int | None:
        """Rule 4, as the number of rows that a new export needs; None: no archive is on record."""
        if record.bundle in self._accepted:
            return 0
        return None if record.stored is None else least_rows(record.stored.rows)

    async def _try_on(self, file: FileOfBundle) -> BundleRecord:
        """Try until it is fetched, or given up."""
        record = file.record
        while True:
            await self._tries.until_turn(file)
            try:
                async with self._slots.take() as slot:
                    archive = await self._tries.once(file, slot, begin=lambda: self._note_begin(file))
                if archive is None:
                    continue
                self._fetched += 1
                # The next download need not wait for the ledger.
                stored = await self._moves.note(record, _stored(archive, file.ready, record.stored))
            except FewerRowsError as error:
                # The file came whole: another try would bring the same one.
                return await self._moves.note(record, FewerRows(error.rows_before, error.rows_found))
            except (ServiceError, ArchiveError) as error:
                failure = error
            else:
                self.rows.taken(record.bundle, file.download.look)
                return stored
            finally:
                self._note_end(record.bundle)
            ended = await self._failures.after(file, failure)
            if ended is not None:
                return ended

    def _note_begin(self, file: FileOfBundle) -> None:
        self._began[file.record.bundle] = self._call_turns.now()

    def _note_end(self, bundle: Bundle) -> None:
        """A try is over; of one that went well, what came of it is on record."""
        began = self._began.pop(bundle, None)
        if began is not None:
            self._seconds += self._call_turns.now() - began


def _stored(archive: Archive, ready: Ready, before: Stored | None) -> Stored:
    """The state of a bundle whose file has come; `before` is the archive that it had, and may have kept."""
    return Stored.of(
        archive,
        exported_at=ready.exported_at,
        asked_at=ready.asked_at,
        settle_seconds=ready.settle_seconds,
        written_by=before.writer_of(archive) if before else None,
    )
