"""One bundle from state to state: create, watch, fetch, store.

1. Each step takes a bundle in one state and gives it back in the next, which is durable by then.
2. `Creating` is in the ledger before the POST, and `Created` right after its answer with nothing in between, in a task
   of our own that is awaited before the loop ends: a cancel must not orphan an operation.
3. A bundle's failure is its own and ends in `Failed`; it counts an attempt only where the fault is the bundle's: a
   failed operation, a lost export, a bad file. An outage, a 429, a lost answer do not count. But what goes well for
   others all the time that it fails for one bundle is no outage: after `[retry] outage` that one is given up.
4. A new export of a stored bundle replaces the archive only if it does not have far fewer rows (`core.guard`), the
   archive is damaged or missing, or the user accepts it; else it ends in `FewerRows`.
5. While the file of an export can be had, it is fetched again, through a fresh link where the old one is dead; a new
   export is asked for only when the service says that the old one is gone, or its file stays bad.
6. What concerns all bundles is raised: a refused key, a full disk, a broken ledger, a service gone for good.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Container, KeysView
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from asyncexport.core.admission import Backoff, Priority
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import ExportStopped, Listener, PossibleDuplicate, Retried, event_of
from asyncexport.core.exports import Definition, Export
from asyncexport.core.guard import least_rows
from asyncexport.core.polling import FinishedOperation
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import (
    Archive,
    BundleRecord,
    Created,
    Creating,
    Failed,
    FewerRows,
    Overdue,
    Planned,
    Ready,
    State,
    Stored,
    moved,
)
from asyncexport.errors import (
    ArchiveError,
    CorruptError,
    FewerRowsError,
    GoneError,
    OperationFailedError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)

log = logging.getLogger(__name__)

PROGRESS_BYTES = 1024 * 1024
"""A cut download that got this much further than any before it was not in vain, and does not count as a try."""

LINK_MARGIN_SECONDS = 15.0
"""A link that is about to expire is not used again; getting a fresh one takes a moment, too."""


class ExportCalls(Protocol):
    """What is asked of the service."""

    async def create(
        self, definition: Definition, span: Range, *, priority: Priority, before: Callable[[], Awaitable[None]]
    ) -> str:
        """Start an operation; its id. `before` is awaited when the request may be sent, right before it is."""
        ...

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """A fresh link to the file of a finished operation."""
        ...


class OperationOutcomes(Protocol):
    """Who knows when operations are done."""

    async def wait(self, operation_id: str, *, asked_at: float) -> FinishedOperation | None:
        """Wait until it is done; None when it still runs at its deadline."""
        ...

    async def ask(self, operation_id: str) -> FinishedOperation | None:
        """Ask for it now; None where it still runs."""
        ...


class Download(Protocol):
    """One archive on its way to the disk; it goes on where an earlier try was cut."""

    @property
    def received(self) -> int:
        """How many bytes have come so far."""
        ...

    async def fetch(self, location: DownloadLink) -> Archive:
        """Fetch the rest, check the whole, and put it under its final name."""
        ...


class Downloads(Protocol):
    """Where archives are brought."""

    def begin(
        self, bundle: Bundle, definition: Definition, *, least_rows: int
    ) -> AbstractAsyncContextManager[Download]:
        """Begin one; what is half-made when left is removed. Fewer than `least_rows` replace no sound archive."""
        ...


class StateLog(Protocol):
    """Where states are written."""

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add a row; it is durable on return."""
        ...


@dataclass(slots=True)
class ExportState:
    """What the bundles of one export share.

    `accepted`: the service has ever accepted a create of it. Until then creates go one at a time, so that an unknown
    segment costs one request and not fifty. `refused`: it never did and said no.
    """

    export: Export
    accepted: bool = False
    refused: RefusedError | None = None
    first: asyncio.Lock = field(default_factory=asyncio.Lock)


class ExportRefused(Exception):  # noqa: N818 - a way out of a coroutine, not an error of its own
    """The bundle's export was refused, or all that we ask is: there is nothing more to do for it."""


class BundleRunner:
    """Takes bundles from state to state.

    Args:
        service: What creates and locates.
        watch: Who knows when operations are done.
        downloads: Where archives are brought.
        ledger: Where states are written.
        streams: The exports by name.
        tell: Called with each event.
        patience: How long between tries.
        attempts: `[retry] attempts`.
        download_slots: `[concurrency] downloads`.
        accepted: Bundles whose archive is replaced by whatever comes. More may be added during the run.
        clock: Seconds since 1970 by the service's clock.
        jitter: A number in [0, 1), anew at each call.
    """

    def __init__(
        self,
        *,
        service: ExportCalls,
        watch: OperationOutcomes,
        downloads: Downloads,
        ledger: StateLog,
        export_states: dict[str, ExportState],
        tell: Listener,
        backoff: Backoff,
        attempts: int,
        download_slots: int,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        accepted: Container[Bundle] = frozenset(),
    ) -> None:
        self._service = service
        self._watch = watch
        self._downloads = downloads
        self._ledger = ledger
        self._export_states = export_states
        self._tell = tell
        self._backoff = backoff
        self._attempts = attempts
        self._slots = asyncio.Semaphore(download_slots)
        self._clock = clock
        self._jitter = jitter
        self._accepted = accepted
        self._now = asyncio.get_running_loop().time
        self._posts: set[asyncio.Task[BundleRecord]] = set()
        self._left_alone: set[asyncio.Task[BundleRecord]] = set()
        self._lost: BaseException | None = None
        self._over = False
        self._troubles: dict[Bundle, _CreateRetries] = {}
        self._went_well = dict.fromkeys(_Step, -math.inf)
        self._files: dict[Bundle, Download] = {}
        self._began: dict[Bundle, float] = {}
        self._fetching_seconds = 0.0
        self._fetched = 0
        self.asking: set[Bundle] = set()

    @property
    def downloading(self) -> KeysView[Bundle]:
        """Whose file is being fetched at present, or was and goes on record."""
        return self._began.keys()

    @property
    def received(self) -> int:
        """Bytes that have come of files that are not whole yet."""
        return sum(download.received for download in self._files.values())

    @property
    def download_ages(self) -> list[float]:
        """For how long each download under way has been going."""
        return [self._now() - began for began in self._began.values()]

    @property
    def download_seconds(self) -> float | None:
        """What a download takes, those counted in that are not done; None before the first is."""
        return (self._fetching_seconds + sum(self.download_ages)) / self._fetched if self._fetched else None

    async def resume(self, record: BundleRecord) -> BundleRecord:
        """A bundle as an earlier run left it, ready to go on: what was parked is planned again, at attempt 1."""
        match record.state:
            case Failed() | FewerRows():
                return self._planned_again(record)
            case Overdue() as overdue:
                return await self._ask_once_more(record, overdue)
            case Creating():
                self._tell(PossibleDuplicate(record.bundle))
        return record

    async def create(self, record: BundleRecord, attempt: int) -> BundleRecord:
        """From `Planned` (or a `Creating` whose answer is lost) to `Created`, back to `Planned`, or to `Failed`.

        Raises:
            ExportRefused: the service refuses the whole export.
            UnauthorizedError: the key was refused.
            UnavailableError: the service is gone for good.
        """
        stream = self._export_states[record.bundle.export]
        if trouble := self._troubles.get(record.bundle):
            await self._pause(trouble.tries)
        if not stream.accepted:
            async with stream.first:
                if not stream.accepted:
                    return await self._post(record, attempt, stream)
        return await self._post(record, attempt, stream)

    async def watch(self, record: BundleRecord, state: Created) -> BundleRecord:
        """From `Created` to `Ready`, back to `Planned` for the next attempt, or parked."""
        try:
            finished = await self._watch.wait(state.operation_id, asked_at=state.asked_at)
        except (OperationFailedError, GoneError, RefusedError) as error:
            return await self._count_attempt(record, state.attempt, str(error))
        if finished is None:
            return await self._note(record, Overdue(state.attempt, state.asked_at, state.operation_id))
        return await self._note(record, Ready(state.attempt, finished.exported_at, finished.export_id))

    async def fetch(self, record: BundleRecord, state: Ready) -> BundleRecord:
        """From `Ready` to `Stored`, back to `Planned` for the next attempt, to `Failed`, or to `FewerRows`.

        Raises:
            StorageError: the disk is full, or not writable.
            UnavailableError: the service is gone for good.
        """
        definition = self._export_states[record.bundle.export].export.definition
        least = self._least_rows(record)
        async with self._downloads.begin(record.bundle, definition, least_rows=least) as download:
            self._files[record.bundle] = download
            try:
                return await self._fetch_in_the_end(record, state, download)
            finally:
                del self._files[record.bundle]

    async def _fetch_in_the_end(self, record: BundleRecord, state: Ready, download: Download) -> BundleRecord:
        """Try until it is fetched, or given up."""
        trial = _FetchAttempts(self._attempts)
        while True:
            try:
                async with self._slots:
                    archive = await self._try_to_fetch(record, state, download, trial)
                # The next download need not wait for the ledger.
                return await self._note(record, _stored(archive, state))
            except ServiceError as error:
                self._after_failed_try(record.bundle, error, trial)
            except FewerRowsError as error:
                # The file came whole: another try would bring the same one.
                self._note_well(_Step.FETCH, record.bundle)
                return await self._note(record, FewerRows(error.rows_before, error.rows_found))
            except ArchiveError as error:
                trial.count(error, received=download.received)
                self._tell(Retried(record.bundle, str(error)))
            finally:
                self._note_end(record.bundle)
            if trial.over:
                return await self._count_attempt(record, state.attempt, trial.reason)
            await self._pause(trial.tries)

    def _least_rows(self, record: BundleRecord) -> int:
        """Rule 4, as the number of rows that a new export needs; what finds no sound archive may have fewer."""
        if record.stored is None or record.bundle in self._accepted:
            return 0
        return least_rows(record.stored.rows)

    async def finish_posts(self) -> None:
        """Wait for the answers of creates that were sent, and whose bundles nobody carries any more.

        Raises:
            ExportError: an operation that was made could not be put on record.
        """
        if self._posts:
            await asyncio.wait(self._posts)
        if self._lost:
            raise self._lost

    def drop_posts(self) -> None:
        """Wait for them no longer: their bundles are found `Creating`, and count as possible duplicates."""
        for task in self._posts:
            task.cancel()

    def _planned_again(self, record: BundleRecord) -> BundleRecord:
        """Not written: the next row says it (rule 3 of `core.states`)."""
        after = replace(record, state=moved(record.state, Planned()))
        self._tell(event_of(record, after))
        return after

    async def _ask_once_more(self, record: BundleRecord, overdue: Overdue) -> BundleRecord:
        trouble = _CreateRetries(self._now())
        while True:
            try:
                finished = await self._watch.ask(overdue.operation_id)
            except (OperationFailedError, GoneError, RefusedError):
                return self._planned_again(record)
            except ServiceError as error:
                if not error.transient:
                    raise
                if self._now() - trouble.since >= self._backoff.outage_seconds:
                    return self._planned_again(record)
                trouble.tries += 1
                await self._pause(trouble.tries)
                continue
            if finished is None:
                return self._planned_again(record)
            return await self._note(record, Ready(overdue.attempt, finished.exported_at, finished.export_id))

    async def _post(self, record: BundleRecord, attempt: int, stream: ExportState) -> BundleRecord:
        if stream.refused or self._over:
            raise ExportRefused
        granted = asyncio.Event()
        task = asyncio.create_task(self._ask_and_note(record, attempt, stream, granted), name="create")
        self._posts.add(task)
        task.add_done_callback(self._post_is_done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._left_alone.add(task)
            if not granted.is_set():
                task.cancel()
            elif task.done():
                self._post_is_done(task)
            raise

    def _post_is_done(self, task: asyncio.Task[BundleRecord]) -> None:
        """Whoever waits for it is told; where nobody does any more, only what lost an operation is kept."""
        self._posts.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and task in self._left_alone and not isinstance(error, ServiceError | ExportRefused):
            self._lost = self._lost or error
        self._left_alone.discard(task)

    async def _ask_and_note(
        self, record: BundleRecord, attempt: int, stream: ExportState, granted: asyncio.Event
    ) -> BundleRecord:
        asked = record

        async def note_intent() -> None:
            nonlocal asked
            granted.set()
            self.asking.add(record.bundle)
            log.debug("%s: its create goes out, attempt %d", record.bundle, attempt)
            asked = await self._note(record, Creating(attempt, self._clock()))

        try:
            operation_id = await self._service.create(
                stream.export.definition, record.bundle.range, priority=Priority.CREATE, before=note_intent
            )
        except ServiceError as error:
            if not granted.is_set():
                raise
            return await self._after_refused_create(asked, attempt, stream, error)
        else:
            stream.accepted = True
            self._note_well(_Step.CREATE, record.bundle)
            return await self._note(asked, Created(attempt, self._clock(), operation_id))
        finally:
            self.asking.discard(record.bundle)

    async def _after_refused_create(
        self, asked: BundleRecord, attempt: int, stream: ExportState, error: ServiceError
    ) -> BundleRecord:
        match error:
            case RefusedError() if stream.accepted:
                return await self._note(asked, Failed(str(error)))
            case RefusedError():
                stream.refused = error
                await self._note(asked, Planned(attempt))
                self._tell(ExportStopped(stream.export.name, error))
                raise ExportRefused from error
            case ReplyError() | GoneError():
                self._tell(PossibleDuplicate(asked.bundle))
                return await self._count_attempt(asked, attempt, str(error))
            case RateLimitedError():
                return await self._note(asked, Planned(attempt))
            case UnavailableError(unanswered=unanswered):
                if unanswered:
                    self._tell(PossibleDuplicate(asked.bundle))
                self._tell(Retried(asked.bundle, str(error), concerns_all=True))
                trouble = self._troubles.setdefault(asked.bundle, _CreateRetries(self._now()))
                trouble.tries += 1
                if self._is_its_own(_Step.CREATE, trouble.since):
                    del self._troubles[asked.bundle]
                    return await self._note(asked, Failed(str(error)))
                back = await self._note(asked, Planned(attempt))
                if not error.transient:
                    raise error
                return back
            case _:
                self._over = True
                await self._note(asked, Planned(attempt))
                raise error

    async def _try_to_fetch(
        self, record: BundleRecord, state: Ready, download: Download, trial: "_FetchAttempts"
    ) -> Archive:
        """One try, in a download slot: a link lives for minutes, so it is asked for when it can be used at once."""
        if trial.location is None or not trial.link_lives(self._clock()):
            trial.location = None
            trial.location = await self._locate(state.export_id, trial)
        self._began[record.bundle] = self._now()
        log.debug("%s: its file is fetched from byte %d on", record.bundle, download.received)
        archive = await download.fetch(trial.location)
        self._fetched += 1
        self._note_well(_Step.FETCH, record.bundle)
        return archive

    def _note_end(self, bundle: Bundle) -> None:
        """A try is over; of one that went well, what came of it is on record."""
        began = self._began.pop(bundle, None)
        if began is not None:
            self._fetching_seconds += self._now() - began

    async def _locate(self, export_id: str, trial: "_FetchAttempts") -> DownloadLink:
        try:
            location = await self._service.locate(export_id, priority=Priority.RESULTS)
        except GoneError as error:
            trial.lost(error)
            raise
        trial.found()
        self._went_well[_Step.LOCATE] = self._now()
        return location

    def _after_failed_try(self, bundle: Bundle, error: ServiceError, trial: "_FetchAttempts") -> None:
        if isinstance(error, UnauthorizedError) or not (error.transient or isinstance(error, RefusedError | GoneError)):
            raise error
        is_nobodys = isinstance(error, UnavailableError | RateLimitedError)
        self._tell(Retried(bundle, str(error), concerns_all=is_nobodys and trial.location is None))
        if not is_nobodys:
            trial.count(error)
            return
        trial.unavailable(error, now=self._now())
        since = trial.down_since or 0.0
        if self._now() - since >= self._backoff.outage_seconds:
            if not self._is_its_own(_Step.LOCATE if trial.location is None else _Step.FETCH, since):
                raise UnavailableError(str(error), lasting=True, hint=error.hint) from error
            trial.hopeless = True

    def _note_well(self, step: "_Step", bundle: Bundle) -> None:
        self._went_well[step] = self._now()
        self._troubles.pop(bundle, None)

    def _is_its_own(self, step: "_Step", since: float) -> bool:
        """Rule 3: whether a trouble that began so long ago is the bundle's alone, since others got on meanwhile."""
        return self._now() - since >= self._backoff.outage_seconds and self._went_well[step] > since

    async def _count_attempt(self, record: BundleRecord, attempt: int, reason: str) -> BundleRecord:
        """Rule 3: the next attempt, or parked after the last."""
        self._tell(Retried(record.bundle, reason))
        if attempt >= self._attempts:
            return await self._note(record, Failed(reason))
        return await self._note(record, Planned(attempt + 1))

    async def _note(self, record: BundleRecord, state: State) -> BundleRecord:
        """The bundle in its new state, once that is durable."""
        stored = state if isinstance(state, Stored) else record.stored
        after = BundleRecord(record.bundle, record.revision, moved(record.state, state), stored)
        await self._ledger.append(after, at=self._clock())
        self._tell(event_of(record, after))
        if isinstance(state, Created):
            log.debug("%s: operation %s", record.bundle, state.operation_id)
        return after

    async def _pause(self, tries: int) -> None:
        await asyncio.sleep(self._backoff.wait_seconds(max(1, tries), jitter=self._jitter()))


def _stored(archive: Archive, state: Ready) -> Stored:
    return Stored(archive.path, archive.bytes, archive.rows, archive.sha256, state.exported_at)


class _Step(Enum):
    """What may go well for some bundles and not for others."""

    CREATE = "create"
    LOCATE = "locate"
    FETCH = "fetch"


@dataclass(slots=True)
class _CreateRetries:
    """Since when, on the monotonic clock, the service is in trouble over a bundle, and how often it was tried."""

    since: float
    tries: int = 0


@dataclass(slots=True)
class _FetchAttempts:
    """How the fetching of one export goes: what counts against it, and what does not.

    `tries` is what back-off goes by; `counted` are those that were the file's own fault.
    """

    allowed: int
    location: DownloadLink | None = None
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
        return self.location is not None and (
            self.location.expires_at is None or now < self.location.expires_at - LINK_MARGIN_SECONDS
        )

    def count(self, error: Exception, *, received: int = 0) -> None:
        """A try that failed by the fault of the file or its link."""
        self.tries += 1
        self.reason = str(error)
        self.down_since = None
        if isinstance(error, CorruptError | GoneError | RefusedError):
            self.location = None
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

    def unavailable(self, error: ServiceError, *, now: float) -> None:
        """A try that failed by nobody's fault."""
        self.tries += 1
        self.reason = str(error)
        if self.down_since is None:
            self.down_since = now
