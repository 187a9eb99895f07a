"""Uploads to the mirror what it lacks: `mirror(settings)`.

1. The ledger says what the bucket should have, and a listing what it has (`mirror_pairs`). So a mirror that was killed
   at any point is resumed by starting it again, and what was stored before the mirror was set is uploaded as well.
2. An object is written only if there is none, or in place of one that is known to be ours. Several mirrors may work at
   the same time: the store's own conditions keep them apart.
3. A file that fails does not stop the others. If the store as a whole fails, the mirror ends.
4. How a mirror ended is in its summary. It raises only bugs, and what is wrong with the settings.
"""

import asyncio
import time
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from asyncexport.config import Settings
from asyncexport.core.exits import exit_of
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import Held, Wanted
from asyncexport.core.mirror.tally import MirrorEvent, MirrorListener, MirrorTally, Outcome
from asyncexport.core.states import Ready
from asyncexport.core.summary import Summary, Tally
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ChangedArchiveError, ExportError
from asyncexport.run.beside_log import BesideLog
from asyncexport.run.mirror_pairs import Pair, wanted_of
from asyncexport.run.mirror_place import OpenMirror, open_mirror, open_store
from asyncexport.run.mirror_uploads import MirrorUploads
from asyncexport.run.stopping import unless_stopped

if TYPE_CHECKING:
    from asyncexport.mirror.store import MirrorStore


def ignore(_event: MirrorEvent) -> None:
    """Do nothing."""


async def mirror(
    settings: Settings,
    *,
    stop: Stop | None = None,
    on_event: MirrorListener = ignore,
    limits: MirrorLimits | None = None,
) -> Summary:
    """Upload what the mirror lacks and return the summary, which says how that ended.

    Args:
        settings: The settings.
        stop: Stops the mirror when its `ask` is called. None: it is not stopped.
        on_event: Called with what became of each file, except those that the bucket had.
        limits: How much is done at a time, and how long to wait. None: the usual limits.

    Raises:
        ConfigError: the settings cannot be used, or a library is missing.
    """
    began, stop, limits = time.monotonic(), stop or Stop(), limits or MirrorLimits()
    store, tally = await asyncio.to_thread(open_store, settings, limits), MirrorTally(settings.output.mirror)
    record = BesideLog.of_mirror(settings.output.directory, command="mirror")
    error: ExportError | None = None
    await asyncio.to_thread(record.begin)
    try:
        work = MirrorPass(settings.output.directory, store, limits, tally, on_event).carried_out()
        tally.is_stopped = not await unless_stopped(work, stop)
    except ExportError as failure:
        tally.error = error = failure
    tally.seconds = time.monotonic() - began
    code = stop.reason if tally.is_stopped and stop.reason is not None else tally.exit_code()
    code = code if error is None else exit_of(error)
    await asyncio.to_thread(record.end_mirror, tally, code)
    return Summary(
        command="mirror",
        exit_code=code,
        seconds=tally.seconds,
        tally=Tally(),
        requests=dict.fromkeys(("create", "poll", "list", "results", "other"), 0),
        refused=0,
        directory=str(settings.output.directory),
        error=error,
        mirror=tally,
    )


class MirrorPass:
    """One comparison of everything in the ledger with the bucket, which uploads what is missing.

    Args:
        directory: The output directory.
        store: The bucket.
        limits: How much is done at a time.
        tally: Counts what is done.
        on_event: Called with what became of each file, except those that the bucket had.
        counted: Names of files that the tally has counted as uploaded before.
    """

    def __init__(
        self,
        directory: Path,
        store: "MirrorStore",
        limits: MirrorLimits,
        tally: MirrorTally,
        on_event: MirrorListener,
        *,
        counted: Container[str] = (),
    ) -> None:
        self._directory = directory
        self._store = store
        self._limits = limits
        self._tally = tally
        self._on_event = on_event
        self._counted = counted
        self._right: list[tuple[Wanted, Held]] = []

    async def carried_out(self) -> None:
        """Compare and upload.

        Raises:
            LedgerError: the ledger is missing or damaged.
            MirrorError: the store as a whole failed.
            StorageError: the disk cannot be read or written.
        """
        async with open_mirror(self._directory, self._store) as one:
            self._tally.left = await one.pairs.count()
            await self._store.check_key()
            uploads = MirrorUploads(
                self._directory,
                self._store,
                self._limits,
                decide=one.pairs.step,
                found_right=lambda wanted, held: self._right.append((wanted, held)),
                on_event=self._record,
            )
            for export in await one.pairs.exports():
                async for page in one.pairs.pages(export, orphans=_ignore_names, failed=self._fail):
                    try:
                        await self._page(one, uploads, page)
                    finally:
                        await self._remember(one)
            self._tally.left = 0
            await asyncio.to_thread(one.seen.tidy)

    async def _page(self, one: OpenMirror, uploads: MirrorUploads, page: list[Pair]) -> None:
        for pair in page:
            if pair.is_known:
                self._record(MirrorEvent(pair.wanted.path, Outcome.ALREADY))
        changed: list[tuple[Pair, ChangedArchiveError]] = []
        await uploads.bring_all((pair for pair in page if not pair.is_known), changed)
        again: list[Pair] = []
        for pair, error in changed:
            # A run may have replaced the archive after its record was read.
            record = None if pair.bundle is None else await one.pairs.current(pair.bundle)
            if record is None or record.stored is None:
                self._fail(error)
            elif wanted_of(record.stored) != pair.wanted:
                again.append(Pair(wanted_of(record.stored), pair.held, pair.bundle))
            elif not isinstance(record.state, Ready):
                self._fail(error)
        changed.clear()
        await uploads.bring_all(iter(again), changed)
        for _, error in changed:
            self._fail(error)

    async def _remember(self, one: OpenMirror) -> None:
        right, self._right = self._right, []
        await asyncio.to_thread(one.seen.add, one.digests(right))

    def _fail(self, error: ChangedArchiveError) -> None:
        self._record(MirrorEvent(error.path, Outcome.FAILED, error=error))

    def _record(self, event: MirrorEvent) -> None:
        # A run may store archives meanwhile.
        self._tally.left = max(0, (self._tally.left or 0) - 1)
        if event.outcome is Outcome.ALREADY and event.path in self._counted:
            return
        self._tally.record(event)
        if event.outcome is not Outcome.ALREADY:
            self._on_event(event)


def _ignore_names(_names: list[str]) -> None:
    """Do nothing: only a check reports objects without a file."""
