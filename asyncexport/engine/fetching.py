"""Fetching the file of a bundle's export, however often it takes.

1. A link lives for minutes, so it is asked for only when a download slot is free; one that is about to expire is not
   used again.
2. While the file of an export can be had, it is fetched again, through a fresh link where the old one is dead. A new
   export is asked for when the service says twice that the old one is gone, when `[retry] attempts` tries in a row
   failed (a bad file, or a refusal: any 4xx but 401, 408, 429 and 499), or when this file alone could not be had for
   `[retry] outage` while others came.
3. An outage and a 429 do not count as a try, and neither does a cut download that got further than any before it.
4. A new export of a stored bundle replaces the archive only if it does not have far fewer rows (`core.guard`), the
   archive is damaged or missing, or the user accepts it; else the bundle ends in `FewerRows`.
"""

import logging
from collections.abc import Container, KeysView
from dataclasses import dataclass

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Bundle
from asyncexport.core.events import Retried
from asyncexport.core.exports import Definition
from asyncexport.core.guard import least_rows
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import Archive, BundleRecord, FewerRows, Ready, Stored
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.download import ArchiveDownload, ArchiveDownloads
from asyncexport.engine.download_slots import DownloadSlot, DownloadSlots
from asyncexport.engine.moves import BundleMoves
from asyncexport.engine.retrying import Retrying, Step
from asyncexport.errors import (
    ArchiveError,
    CorruptError,
    FewerRowsError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)

log = logging.getLogger(__name__)

PROGRESS_BYTES = 1024 * 1024
"""A cut download that got this much further than any before it was not in vain, and does not count as a try."""

LINK_MARGIN_SECONDS = 15.0
"""A link that is about to expire is not used again; getting a fresh one takes a moment, too."""


class Fetching:
    """The downloads of a run.

    Args:
        service: What gives links.
        downloads: Where archives are brought.
        moves: Where states are written.
        retrying: How long between tries, and whose trouble it is.
        slots: `[concurrency] downloads`.
        accepted: Bundles whose archive is replaced by whatever comes. More may be added during the run.
    """

    def __init__(
        self,
        service: ExportCalls,
        downloads: ArchiveDownloads,
        moves: BundleMoves,
        retrying: Retrying,
        *,
        slots: int,
        accepted: Container[Bundle],
    ) -> None:
        self._service = service
        self._downloads = downloads
        self._moves = moves
        self._retrying = retrying
        self._slots = DownloadSlots(slots)
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
        return [self._retrying.now() - began for began in self._began.values()]

    @property
    def seconds_each(self) -> float | None:
        """What a download takes, those counted in that are not done; None before the first is."""
        return (self._seconds + sum(self.ages)) / self._fetched if self._fetched else None

    async def fetch(self, record: BundleRecord, ready: Ready, definition: Definition) -> BundleRecord:
        """From `Ready` to `Stored`, back to `Planned` for the next attempt, to `Failed`, or to `FewerRows`.

        Raises:
            StorageError: the disk is full, or not writable.
            UnavailableError: the service is gone for good.
        """
        least = self._least_rows(record)
        async with self._downloads.begin(record.bundle, definition, least_rows=least) as download:
            self._files[record.bundle] = download
            try:
                return await self._try_on(record, ready, download)
            finally:
                del self._files[record.bundle]

    def _least_rows(self, record: BundleRecord) -> int:
        """Rule 4, as the number of rows that a new export needs; what finds no sound archive may have fewer."""
        if record.stored is None or record.bundle in self._accepted:
            return 0
        return least_rows(record.stored.rows)

    async def _try_on(self, record: BundleRecord, ready: Ready, download: ArchiveDownload) -> BundleRecord:
        """Try until it is fetched, or given up."""
        tries = FetchAttempts(self._moves.attempts)
        while True:
            try:
                async with self._slots.take() as slot:
                    archive = await self._try(record.bundle, ready, download, tries, slot)
                # The next download need not wait for the ledger.
                return await self._moves.note(record, _stored(archive, ready))
            except ServiceError as error:
                self._after_failed_try(record.bundle, error, tries)
            except FewerRowsError as error:
                # The file came whole: another try would bring the same one.
                self._retrying.note_success(Step.FETCH)
                return await self._moves.note(record, FewerRows(error.rows_before, error.rows_found))
            except ArchiveError as error:
                tries.count(error, received=download.received)
                self._moves.tell(Retried(record.bundle, str(error)))
            finally:
                self._note_end(record.bundle)
            if tries.over:
                return await self._moves.count_attempt(record, ready.attempt, tries.reason)
            await self._retrying.pause(tries.tries)

    async def _try(
        self, bundle: Bundle, ready: Ready, download: ArchiveDownload, tries: "FetchAttempts", slot: DownloadSlot
    ) -> Archive:
        """One try, in a download slot (rule 1)."""
        if tries.link is None or not tries.link_lives(self._moves.clock()):
            tries.link = None
            tries.link = await self._locate(ready.export_id, tries)
        self._began[bundle] = self._retrying.now()
        log.debug("%s: its file is fetched from byte %d on", bundle, download.received)
        archive = await download.fetch(tries.link, on_end=slot.end_body)
        self._fetched += 1
        self._retrying.note_success(Step.FETCH)
        return archive

    def _note_end(self, bundle: Bundle) -> None:
        """A try is over; of one that went well, what came of it is on record."""
        began = self._began.pop(bundle, None)
        if began is not None:
            self._seconds += self._retrying.now() - began

    async def _locate(self, export_id: str, tries: "FetchAttempts") -> DownloadLink:
        try:
            link = await self._service.locate(export_id, priority=Priority.RESULTS)
        except GoneError as error:
            tries.lost(error)
            raise
        tries.found()
        self._retrying.note_success(Step.LOCATE)
        return link

    def _after_failed_try(self, bundle: Bundle, error: ServiceError, tries: "FetchAttempts") -> None:
        """Rule 3."""
        if isinstance(error, UnauthorizedError) or not (error.transient or isinstance(error, RefusedError | GoneError)):
            raise error
        is_nobodys = isinstance(error, UnavailableError | RateLimitedError)
        self._moves.tell(Retried(bundle, str(error), concerns_all=is_nobodys and tries.link is None))
        if not is_nobodys:
            tries.count(error)
            return
        since = tries.unavailable(error, now=self._retrying.now())
        if self._retrying.has_lasted(since):
            if not self._retrying.is_its_own(Step.LOCATE if tries.link is None else Step.FETCH, since):
                raise UnavailableError(str(error), lasting=True, hint=error.hint) from error
            tries.hopeless = True


def _stored(archive: Archive, ready: Ready) -> Stored:
    return Stored.of(
        archive, exported_at=ready.exported_at, asked_at=ready.asked_at, settle_seconds=ready.settle_seconds
    )


@dataclass(slots=True)
class FetchAttempts:
    """How the fetching of one export goes: what counts against it, and what does not.

    Attributes:
        allowed: How many tries may fail by the file's own fault.
        link: The link in use, where there is one.
        tries: How many failed in a row, by anybody's fault: back-off goes by it.
        counted: How many of these were the file's own fault.
        farthest: How many bytes the best of the cut tries got.
        lost_times: How often in a row the service said that the export is gone.
        down_since: Since when it cannot be had by nobody's fault.
        hopeless: Whether it is given up for that.
        reason: What went wrong last, in words.
    """

    allowed: int
    link: DownloadLink | None = None
    tries: int = 0
    counted: int = 0
    farthest: int = 0
    lost_times: int = 0
    down_since: float | None = None
    hopeless: bool = False
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether the export is given up."""
        return self.hopeless or self.counted >= self.allowed or self.lost_times > 1

    def link_lives(self, now: float) -> bool:
        """Whether the link may be used again."""
        return self.link is not None and (
            self.link.expires_at is None or now < self.link.expires_at - LINK_MARGIN_SECONDS
        )

    def count(self, error: Exception, *, received: int = 0) -> None:
        """A try that failed by the fault of the file or its link."""
        self.tries += 1
        self.reason = str(error)
        self.down_since = None
        if isinstance(error, CorruptError | GoneError | RefusedError):
            self.link = None
        if received >= self.farthest + PROGRESS_BYTES:
            self.farthest = received
            self.tries = self.counted = 0
        self.counted += 1

    def lost(self, error: GoneError) -> None:
        """The service says that the export is gone; it is believed when it says so twice."""
        self.lost_times += 1
        self.reason = str(error)

    def found(self) -> None:
        """The service gave a link."""
        self.lost_times = 0

    def unavailable(self, error: ServiceError, *, now: float) -> float:
        """A try that failed by nobody's fault; since when that has been so."""
        self.tries += 1
        self.reason = str(error)
        if self.down_since is None:
            self.down_since = now
        return self.down_since
