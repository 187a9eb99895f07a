"""Uploads archives during a run that stores them, and compares the whole mirror when the run has ended.

1. An archive is uploaded soon after it was stored, so a run that takes days is mirrored from its first hour on. What
   fails then is left for the end.
2. The end compares the ledger with the bucket, so it also uploads what earlier runs stored, and what was left. It is
   done after `--max-duration` as well, and not after a signal.
3. Nothing here harms the run: what goes wrong with the mirror is in its tally.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import replace

from asyncexport.config import Settings
from asyncexport.core.events import BundleStored, Event
from asyncexport.core.exits import Exit
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import Held, Step, step_for
from asyncexport.core.mirror.tally import MirrorEvent, MirrorListener, MirrorTally, Outcome, exit_with_mirror
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError, MirrorError
from asyncexport.run.beside_log import BesideLog
from asyncexport.run.mirror import MirrorPass, ignore
from asyncexport.run.mirror_pairs import Pair, wanted_of
from asyncexport.run.mirror_place import open_store
from asyncexport.run.mirror_uploads import MirrorUploads
from asyncexport.run.stopping import unless_set

log = logging.getLogger(__name__)

ENDS_A_MIRROR = frozenset({Exit.UNEXPECTED, Exit.USAGE, Exit.LOCKED, Exit.LEDGER, Exit.INTERRUPTED, Exit.TERMINATED})
"""If a run ends with one of these, nothing more is uploaded."""


class MirrorLane:
    """The mirror beside a run.

    Args:
        settings: The settings, with `[output] mirror`.
        on_event: Called with what became of each file, except those that the bucket had.
        limits: How much is done at a time, and how long to wait. None: the usual limits.

    Raises:
        ConfigError: the settings cannot be used, or a library is missing.
    """

    def __init__(
        self, settings: Settings, *, on_event: MirrorListener = ignore, limits: MirrorLimits | None = None
    ) -> None:
        self._directory = settings.output.directory
        self._limits = limits or MirrorLimits()
        self._store = open_store(settings, self._limits)
        self._tally = MirrorTally(settings.output.mirror)
        self._on_event = on_event
        self._stored: asyncio.Queue[BundleStored | None] = asyncio.Queue()
        self._has_ended = False
        self._uploaded: set[str] = set()

    def on_event(self, event: Event) -> None:
        """Note a bundle that was stored, unless its archive stayed as it was."""
        if isinstance(event, BundleStored):
            replaced = event.replaced
            if replaced is None or replaced.sha256 != event.archive.sha256:
                self._stored.put_nowait(event)

    async def beside(self, work: Awaitable[Summary], stop: Stop) -> Summary:
        """Carry out a run with the mirror beside it; return the run's summary, with the mirror's tally."""
        uploading = asyncio.create_task(self._during())
        try:
            summary = await work
            began = time.monotonic()
            # A maximum duration has asked the run to stop, but not the mirror (rule 2): only a signal after it does.
            stopping = stop.now if stop.reason is Exit.TIME_UP else stop.asked
            if summary.exit_code not in ENDS_A_MIRROR:
                # The upload in progress may end.
                self._stored.put_nowait(None)
                self._has_ended = True
                await unless_set(_until_done(uploading), stopping)
        finally:
            uploading.cancel()
            await asyncio.wait([uploading])
        if summary.exit_code not in ENDS_A_MIRROR:
            await self._after(stopping, stop, BesideLog.of_mirror(self._directory, command=summary.command))
        self._tally.seconds = time.monotonic() - began
        code = exit_with_mirror(summary.exit_code, self._tally, stopped_by=stop.reason)
        return replace(summary, mirror=self._tally, exit_code=code)

    async def _during(self) -> None:
        """Upload archives as they are stored. What fails is left for the end of the run."""
        try:
            await self._store.check_key()
            while (event := await self._stored.get()) is not None and not self._has_ended:
                try:
                    await self._upload(event)
                except ExportError as error:
                    # The run may have replaced the archive again. At the end everything is compared.
                    log.info("left for the end of the run: %s", error)
        except MirrorError as error:
            log.info("nothing is uploaded during the run: %s", error)
        except Exception as error:
            log.debug("traceback of the bug", exc_info=error)

    async def _upload(self, event: BundleStored) -> None:
        earlier = set() if event.replaced is None else {event.replaced.sha256}

        async def decide(pair: Pair, held: Held | None) -> Step:
            return step_for(pair.wanted, held, earlier)

        uploads = MirrorUploads(
            self._directory,
            self._store,
            self._limits,
            decide=decide,
            found_right=lambda _wanted, _held: None,
            on_event=self._note,
        )
        wanted = wanted_of(event.archive)
        held = None if event.replaced is None else await self._store.examined(wanted.path)
        await uploads.bring(Pair(wanted, held, event.bundle))

    def _note(self, event: MirrorEvent) -> None:
        """Count an upload during the run; anything else is found again at the end."""
        if event.outcome is Outcome.UPLOADED:
            self._uploaded.add(event.path)
            self._tally.record(event)
            self._on_event(event)

    async def _after(self, stopping: asyncio.Event, stop: Stop, record: BesideLog) -> None:
        """Compare everything, unless it is stopped, and record how that went."""
        await asyncio.to_thread(record.begin)
        one = MirrorPass(
            self._directory, self._store, self._limits, self._tally, self._on_event, counted=self._uploaded
        )
        try:
            self._tally.is_stopped = not await unless_set(one.carried_out(), stopping)
        except ExportError as error:
            self._tally.error = error
        except Exception as error:
            log.debug("traceback of the bug", exc_info=error)
            self._tally.error = ExportError(f"unexpected {type(error).__name__} in the mirror")
        code = stop.reason if self._tally.is_stopped and stop.reason is not None else self._tally.exit_code()
        await asyncio.to_thread(record.end_mirror, self._tally, code)


async def _until_done(uploading: "asyncio.Task[None]") -> None:
    await asyncio.wait([uploading])
