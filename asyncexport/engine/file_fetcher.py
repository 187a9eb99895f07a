"""Makes one attempt to fetch a file: requests a signed URL if there is no valid one, then downloads through it.

A signed URL is valid for minutes, so it is requested only when a download slot is free. One that is about to expire is
not used again. If calls of the export are paused and it is not this bundle's turn, the slot is released.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncexport.core.admission import Priority
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.service.retrying import Call
from asyncexport.core.states import Archive
from asyncexport.engine.call_turns import CallTurn, CallTurns
from asyncexport.engine.calls import ExportCalls
from asyncexport.engine.download_slots import DownloadSlot
from asyncexport.engine.export_state import ExportHasStopped
from asyncexport.engine.fetch_failures import BundleFile, FetchFailures
from asyncexport.errors import ArchiveError, ServiceError

log = logging.getLogger(__name__)


class FileFetcher:
    """Makes attempts to fetch files.

    Args:
        service: Returns signed URLs.
        call_turns: What is known about refused calls.
        failures: Decides what follows failed attempts.
        clock: Seconds since 1970 by the service's clock.
    """

    def __init__(
        self, service: ExportCalls, call_turns: CallTurns, failures: FetchFailures, *, clock: Callable[[], float]
    ) -> None:
        self._service = service
        self._call_turns = call_turns
        self._failures = failures
        self._clock = clock

    async def until_turn(self, file: BundleFile) -> None:
        """Wait until the file may be requested, so that no download slot is taken before.

        Raises:
            ExportHasStopped: the export is stopped.
        """
        call_turns = self._call_turns
        while not file.export.stopped:
            lives = file.attempts.link_lives(self._clock())
            calls = (Call.DOWNLOAD,) if lives else (Call.RESULTS, Call.DOWNLOAD)
            wait = max(
                call_turns.wait_seconds(file.name, one, lets_others_go=one in file.attempts.failures) for one in calls
            )
            if wait <= 0:
                return
            await call_turns.changes.wait(wait)
        raise ExportHasStopped

    async def once(self, file: BundleFile, slot: DownloadSlot, *, begin: Callable[[], None]) -> Archive | None:
        """Make one attempt, in a download slot; None if it is not this bundle's turn.

        `begin` is called when the download begins.
        """
        attempts, download, bundle = file.attempts, file.download, file.record.bundle
        if not attempts.link_lives(self._clock()):
            attempts.link = await self._locate(file)
        turn = self._call_turns.turn(file.name, Call.DOWNLOAD) if attempts.link else None
        if turn is None or attempts.link is None:
            return None
        attempts.call = Call.DOWNLOAD
        begin()
        log.debug("%s: downloading its file from byte %d on", bundle, download.received)
        with self._ended(turn, file):
            return await download.fetch(attempts.link, on_end=slot.end_body)

    async def _locate(self, file: BundleFile) -> DownloadLink | None:
        """Request a fresh signed URL; None if it is not this bundle's turn."""
        turn = self._call_turns.turn(file.name, Call.RESULTS)
        if turn is None:
            return None
        file.attempts.call, file.attempts.link = Call.RESULTS, None
        with self._ended(turn, file):
            priority = Priority.URGENT if file.record.bundle in file.export.urgent else Priority.RESULTS
            return await self._service.locate(file.ready.export_id, priority=priority)

    @contextmanager
    def _ended(self, turn: CallTurn, file: BundleFile) -> Iterator[None]:
        """End the turn with the result of the call inside the block."""
        try:
            yield
        except ServiceError as error:
            if self._failures.may_concern_all(file, error):
                turn.refused(error, bundle=file.record.bundle)
            raise
        except ArchiveError:
            # The file is bad, but the storage host did deliver it.
            turn.succeeded()
            file.attempts.succeeded()
            raise
        else:
            turn.succeeded()
            file.attempts.succeeded()
        finally:
            turn.leave()
