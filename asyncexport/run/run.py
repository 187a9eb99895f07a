"""Puts the rooms together: `export(settings, spec)` is a whole run, from the ledger to the summary.

1. The lock is held for the whole run, and nothing is written before it is.
2. What there is to do is known before anything is asked: a finished range costs no request. The exception is where
   "nothing to do" rests on this host's clock alone: on the first night, and where the clock is behind what the service
   said in an earlier run, or no run has heard from it yet.
3. A damaged ledger is not written on: before its first request a run reads a small one whole, of a large one what it
   goes by.
4. The first request of a run looks at the list of operations: it tells the service's time, by which the end of the
   range is cut back to what is settled, and what there is to do is reckoned once more.
5. What is reckoned with a clock that was not compared with the service's is not remembered: where `nightly` begins is
   fixed once the service has told its time.
6. How a run ends is in its summary; it raises nothing but bugs.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncexport.client.clock import ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.admission import (
    HISTORY_SECONDS,
    Backoff,
    BudgetScope,
    Down,
    Prefer,
    Priority,
    SentRequest,
    tokens_used,
)
from asyncexport.core.bundles import DAY, Range, settled_until, show
from asyncexport.core.coverage import ExportPlan, RecordedRange, in_order, needs_refresh
from asyncexport.core.durations import Durations
from asyncexport.core.events import Listener, Note
from asyncexport.core.exports import Export
from asyncexport.core.forecast import (
    ALL_WITH_LIST,
    ALL_WITHOUT_LIST,
    CREATES_ONLY,
    Pace,
    RequestCost,
    seconds_of_downloads,
    seconds_to_end,
)
from asyncexport.core.operation_limit import OperationLimit
from asyncexport.core.polling import PollingMode, PollingRules
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Segment
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import Exit, Snapshot, Summary
from asyncexport.engine.budget import Budget, Quota, RequestHistory, read_history
from asyncexport.engine.bundle_runner import BundleRunner, ExportState
from asyncexport.engine.download import ArchiveDownloads
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.scheduler import Scheduler, Stop
from asyncexport.errors import ExportError
from asyncexport.ledger import LAST_RUN, LastRun, Ledger, LedgerReader, has_remains, hold, no_ledger, present
from asyncexport.run.announcing import Announcer, log_failed_listener
from asyncexport.run.books import RunBooks
from asyncexport.run.spec import Instructions, RunSpec, instructions
from asyncexport.storage import Archives, ledger_lost

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient
    from asyncexport.client.session import ConnectionSettings
    from asyncexport.client.storage_host import StorageHost

log = logging.getLogger(__name__)

EVER = Range(-(2**62), 2**62)

FIRST_NIGHT_SECONDS = 7 * DAY
"""How far back the first night goes where `[nightly] since` does not say."""

NIGHTLY_SINCE = "nightly_since"
"""What it is remembered under where `nightly` begins, in seconds since 1970."""

TIME_AT_SERVICE = "time_at_service"
"""What it is remembered under what time it was when the newest run heard it from the service, in seconds since 1970."""


Watch = Callable[[Callable[[], Snapshot]], Awaitable[None]]
"""Shows how far a run has come: it is given what makes a snapshot, runs along, and is cancelled at the run's end."""


async def watch_nothing(_snapshot: Callable[[], Snapshot]) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run would find.

    Attributes:
        works: What there is to do, by export; those with nothing settled in the range are left out.
        cut_back: Messages: ends that were cut back to what is settled.
        tokens: In the bucket now, where every request counts.
        tokens_for_creates: The same, where only creates do.
        median_seconds: What an operation is expected to take.
        operations_seen: On how many that rests; 0: on `[polling] expected`.
        all_counted_since: When it was learned that every request counts, in seconds since 1970; None: it never was.
    """

    works: tuple[ExportPlan, ...]
    cut_back: tuple[str, ...]
    tokens: float
    tokens_for_creates: float
    median_seconds: float
    operations_seen: int = 0
    all_counted_since: float | None = None


def ignore(_name: str) -> None:
    """Nobody listens."""


async def export(
    settings: Settings,
    spec: RunSpec,
    *,
    key: ApiKey,
    stop: Stop,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
    boundary: Callable[[str], None] = ignore,
) -> Summary:
    """Carry out a run; how it ended is in the summary.

    `boundary` is told the name of every write to the disk right before and after it, in the thread that writes: tests
    kill the process there, or raise what the disk would.
    """
    books = RunBooks()
    repaired = frozenset(one.bundle for one in instructions(spec).repairs)
    tell = Announcer(books, listeners, repaired=repaired).tell
    run = _Run(settings, spec, key, stop, watch, books, tell, boundary)
    error: ExportError | None = None
    try:
        await run.carry_out()
    except ExportError as failure:
        error = failure
    return books.summary(spec, directory=str(settings.output.directory), error=error, stop=stop)


def survey(settings: Settings, spec: RunSpec, *, now: float) -> Survey:
    """What a run would find, from the ledger alone: nothing is asked, nothing is written.

    Raises:
        LedgerError: the ledger cannot be read, or is missing beside archives.
    """
    burst = _allowance(settings).usable_burst
    directory = Path(settings.output.directory)
    if not present(directory):
        _check_not_lost(Archives(directory), directory)
        spans, notes = _spans(spec.exports, instructions(spec), now=now, since=_since(settings, None, now=now))
        works = tuple(ExportPlan(export, span, RecordedRange()) for export, span in spans)
        return Survey(works, notes, burst, burst, settings.polling.expected_seconds)
    with LedgerReader(directory) as ledger:
        spans, notes = _spans(
            spec.exports, instructions(spec), now=now, since=_since(settings, ledger.recall(NIGHTLY_SINCE), now=now)
        )
        works = tuple(ExportPlan(export, span, ledger.stock(export.name, span)) for export, span in spans)
        durations = Durations(expected_seconds=settings.polling.expected_seconds, known=ledger.durations())
        first = ledger.first_request_at()
        sent = ledger.requests_since(now - HISTORY_SECONDS)
        complete = first is None or first >= now - HISTORY_SECONDS
        learned = ledger.recall("all_counted_since")
        creates = [one for one in sent if one.kind == Kind.CREATE]
        return Survey(
            works,
            notes,
            tokens=max(0.0, burst - _used(settings, sent, now=now, complete=complete)),
            tokens_for_creates=max(0.0, burst - _used(settings, creates, now=now, complete=complete)),
            median_seconds=durations.median_seconds,
            operations_seen=durations.known,
            all_counted_since=float(learned) if learned else None,
        )


def _used(settings: Settings, sent: list[SentRequest], *, now: float, complete: bool) -> float:
    """Tokens of the bucket in use, where these requests are those that count."""
    return tokens_used(
        sent,
        now=now,
        burst=settings.budget.burst,
        requests_per_minute=settings.budget.requests_per_minute,
        oldest_known=complete,
    )


async def segments(settings: Settings, *, key: ApiKey, sent: Callable[[str], None] = ignore) -> AsyncIterator[Segment]:
    """The segments of the account. The budget's level is read from the ledger, if there is one, and not changed.

    `sent` is told the kind of each request.

    Raises:
        ServiceError: the service refused, or could not be reached.
    """
    async with _asking(settings, key, sent) as client:
        async for segment in client.segments():
            yield segment


@asynccontextmanager
async def _asking(settings: Settings, key: ApiKey, sent: Callable[[str], None]) -> "AsyncIterator[ApiClient]":
    """A client for a command that exports nothing: its requests are on no record."""
    journal = _NoJournal(sent)
    clock = ServiceClock()
    budget = _budget(settings, journal, clock.now)
    directory = Path(settings.output.directory)
    history = RequestHistory()
    if present(directory):
        with LedgerReader(directory) as ledger:
            first = ledger.first_request_at()
            since = clock.now() - HISTORY_SECONDS
            history = read_history(
                ledger.requests_since(since),
                complete=first is None or first >= since,
                all_counted_since=ledger.recall("all_counted_since"),
            )
    await budget.open(history)
    try:
        async with _api_client(settings, key, budget, clock) as client:
            yield client
    finally:
        await budget.close()


@dataclass(frozen=True, slots=True)
class _NoJournal:
    """Keeps nothing; says what is sent."""

    sent: Callable[[str], None]

    async def send(self, kind: str, *, at: float) -> int:  # noqa: ARG002 - a journal's method
        self.sent(kind)
        return 0

    def answered(self, request_id: int, *, status: int) -> None:
        """Keep nothing."""

    def remember(self, key: str, value: str) -> None:
        """Keep nothing."""


@dataclass(slots=True)
class _Run:
    """One run, from the lock to the last row."""

    settings: Settings
    spec: RunSpec
    key: ApiKey
    stop: Stop
    watch: Watch
    books: RunBooks
    tell: Listener
    boundary: Callable[[str], None]

    @property
    def asked(self) -> Instructions:
        return instructions(self.spec)

    async def carry_out(self) -> None:
        directory = Path(self.settings.output.directory)
        async with AsyncExitStack() as stack:
            clock = ServiceClock()
            archives = await stack.enter_async_context(Archives(directory, boundary=self.boundary))
            await asyncio.to_thread(_check_not_lost, archives, directory)
            if not self.asked.fills_gaps and not present(directory):
                # There is nothing to go on with, and a place that was mistyped is not to be made.
                raise no_ledger(directory)
            stack.enter_context(hold(directory, command=self.spec.command))
            # Once more: whoever held the directory until now may have been making the ledger anew when it was killed.
            await asyncio.to_thread(_check_not_lost, archives, directory)
            ledger = await Ledger.open(directory, boundary=self.boundary)
            stack.push_async_callback(ledger.close)
            await ledger.check_if_small()
            stack.enter_context(self._on_record(ledger, clock))
            await ledger.register(self.spec.exports)
            await archives.prepare(self.spec.exports)
            works, notes = await self._works(ledger, clock)
            if any(work.count for work in works) or await self._needs_the_time(ledger, clock, notes):
                await self._work_off(stack, works, ledger=ledger, archives=archives, clock=clock)
            else:
                self._tell_notes(notes)

    @contextmanager
    def _on_record(self, ledger: Ledger, clock: ServiceClock) -> Iterator[None]:
        """Remember how the run ends, for `status`; one that is killed is remembered as begun."""
        begun = LastRun(self.spec.command, clock.now())
        ledger.remember(LAST_RUN, begun.to_json())
        try:
            yield
        except Exception as error:
            ledger.remember(LAST_RUN, self._ended(begun, error, at=clock.now()).to_json())
            raise
        ledger.remember(LAST_RUN, self._ended(begun, None, at=clock.now()).to_json())

    def _ended(self, begun: LastRun, failure: Exception | None, *, at: float) -> LastRun:
        code = self.books.exit_code(failure, self.stop)
        why = self.books.cause(failure)
        # The text of a bug may hold anything.
        error = "" if why is None else str(why) if isinstance(why, ExportError) else type(why).__name__
        return replace(begun, ended=at, exit_code=int(code), error=error)

    async def _works(self, ledger: Ledger, clock: ServiceClock) -> tuple[list[ExportPlan], tuple[str, ...]]:
        """What there is to do, counted into the tally; and what ends were cut back, in words."""
        now = clock.now()
        since = _since(self.settings, await ledger.recall(NIGHTLY_SINCE), now=now)
        if clock.is_known:
            ledger.remember(TIME_AT_SERVICE, str(now))
            if self.asked.start is None:
                ledger.remember(NIGHTLY_SINCE, str(since))
        spans, notes = _spans(self.spec.exports, self.asked, now=now, since=since)
        works = [await self._one_work(ledger, export, span, now=now) for export, span in spans]
        if self.asked.reports_kept:
            notes += tuple(_left_kept(work) for work in works if any(one.kept for one in work.stock.unfinished))
        self.books.tally.stored_before = sum(work.stored_before for work in works)
        self.books.tally.planned = self.books.tally.stored_before + sum(work.count for work in works)
        return works, notes

    async def _needs_the_time(self, ledger: Ledger, clock: ServiceClock, notes: tuple[str, ...]) -> bool:
        """Whether the service has to be asked for its time before it is said that there is nothing to do (rule 2).

        With an end that was not cut back the clock has no part in it. Else a clock that is slow hides work; one that is
        fast only makes some up, and the first request puts that right.
        """
        now = clock.now()
        is_nightly = self.asked.start is None and not self.settings.nightly.since
        if is_nightly and not _is_past(await ledger.recall(NIGHTLY_SINCE), now=now):
            return True
        hangs_on_the_clock = self.asked.end is None or bool(notes)
        return hangs_on_the_clock and not _is_past(await ledger.recall(TIME_AT_SERVICE), now=now)

    async def _one_work(self, ledger: Ledger, export: Export, span: Range, *, now: float) -> ExportPlan:
        stock = await ledger.stock(export.name, span)
        refresh = [one for one in self.asked.repairs if one.bundle.export == export.name]
        if self.asked.accepts_fewer:
            kept = [one for one in stock.unfinished if one.kept]
            self.books.tally.accepted.update(one.bundle for one in kept)
            refresh += kept
        if self.asked.refresh_seconds > 0:
            soon = ledger.stored(export.name, span, exported_within=self.asked.refresh_seconds + 1)
            refresh += [one async for one in soon if self._is_stale(one, now=now)]
        return ExportPlan(export, span, stock, tuple(refresh), fills_gaps=self.asked.fills_gaps)

    def _is_stale(self, one: BundleRecord, *, now: float) -> bool:
        # A refresh that was refused is not asked for night after night.
        if one.stored is None or one.kept:
            return False
        return needs_refresh(one.stored, one.bundle.range, refresh_seconds=self.asked.refresh_seconds, now=now)

    async def _work_off(
        self, stack: AsyncExitStack, works: list[ExportPlan], *, ledger: Ledger, archives: Archives, clock: ServiceClock
    ) -> None:
        settings = self.settings
        since = clock.now() - HISTORY_SECONDS
        first = await ledger.first_request_at()
        budget = _budget(settings, ledger, clock.now)
        await budget.open(
            read_history(
                await ledger.requests_since(since),
                complete=first is None or first >= since,
                all_counted_since=await ledger.recall("all_counted_since"),
            )
        )
        stack.push_async_callback(budget.close)
        client = await stack.enter_async_context(_api_client(settings, self.key, budget, clock))
        storage_host = await stack.enter_async_context(_storage_host(settings))
        durations = Durations(expected_seconds=settings.polling.expected_seconds, known=await ledger.durations())
        scheduler: Scheduler
        watcher = OperationPoller(
            client,
            budget=budget,
            durations=durations,
            polling=_polling(settings),
            clock=clock.now,
            more_to_create=lambda: scheduler.more_to_create or budget.waiting(Priority.CREATE) > 0,
            learned=lambda at, seconds: ledger.learn(finished_at=at, seconds=seconds),
        )
        runner = BundleRunner(
            service=client,
            watch=watcher,
            downloads=ArchiveDownloads(storage_host, archives),
            ledger=ledger,
            export_states={export.name: await _stream(ledger, export, works) for export in self.spec.exports},
            tell=self.tell,
            backoff=_backoff(settings),
            attempts=settings.retry.attempts,
            download_slots=settings.concurrency.downloads,
            clock=clock.now,
            jitter=random.random,
            accepted=self.books.tally.accepted,
        )
        operation_limit = OperationLimit(
            cap=settings.concurrency.operations,
            burst=settings.budget.burst,
            requests_per_minute=settings.budget.requests_per_minute,
            prefer=Prefer(settings.polling.prefer),
        )
        scheduler = Scheduler(
            runner,
            watcher,
            allowed=lambda: operation_limit.allowed(durations, polls_cost=budget.polls_cost),
            most_waiting=settings.concurrency.operations,
            stop=self.stop,
            grace_seconds=settings.output.grace_seconds,
        )
        helpers = [
            asyncio.create_task(
                self._show(lambda: self._snapshot(budget, scheduler, runner, watcher, durations)), name="viewer"
            ),
            asyncio.create_task(self._time_out(), name="max duration"),
        ]
        try:
            if await self._prime(watcher):
                # Once more, now that the service's clock is known: what is settled hangs on it, and so does where the
                # first night begins.
                works, notes = await self._works(ledger, clock)
                self._tell_notes(notes)
                await scheduler.run(in_order(works))
        finally:
            self.books.requests, self.books.refused = dict(budget.sent), budget.refused
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)

    async def _show(self, snapshot: Callable[[], Snapshot]) -> None:
        try:
            await self.watch(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            log_failed_listener(self.watch, error)

    async def _prime(self, watcher: OperationPoller) -> bool:
        """Rule 3; whether the run goes on."""
        priming = asyncio.create_task(watcher.prime())
        stopping = asyncio.create_task(self.stop.asked.wait())
        try:
            await asyncio.wait({priming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if priming.done():
                priming.result()
            return priming.done()
        finally:
            priming.cancel()
            stopping.cancel()
            await asyncio.wait({priming, stopping})

    async def _time_out(self) -> None:
        if self.spec.max_duration_seconds is None:
            return
        await asyncio.sleep(self.spec.max_duration_seconds)
        self.stop.ask(Exit.TIME_UP)

    def _tell_notes(self, notes: tuple[str, ...]) -> None:
        for message in notes:
            self.tell(Note(message))

    def _snapshot(
        self, budget: Budget, scheduler: Scheduler, runner: BundleRunner, watcher: OperationPoller, durations: Durations
    ) -> Snapshot:
        tally, seconds = self.books.tally, self.books.seconds
        scope = budget.scope.value
        undecided = self.settings.budget.scope == BudgetScope.AUTO and budget.scope is BudgetScope.CREATE
        line = budget.line
        down_seconds = asyncio.get_running_loop().time() - line.since if isinstance(line, Down) else None
        problems = self.books.problems.open(service_is_well=down_seconds is None and not budget.paused_seconds)
        return Snapshot(
            seconds=seconds,
            done=tally.stored,
            stored_before=tally.stored_before,
            planned=tally.planned,
            running=scheduler.at_service,
            queued=scheduler.queued,
            fetching=scheduler.waiting,
            downloading=len(runner.downloading),
            received=runner.received,
            parked=tally.failed,
            tokens=budget.tokens,
            burst=self.settings.budget.burst,
            scope=f"{scope}?" if undecided else scope,
            next_request_seconds=budget.next_token_seconds,
            paused_seconds=budget.paused_seconds,
            down_seconds=down_seconds,
            rows=tally.rows,
            bytes=tally.bytes,
            expected_seconds=None
            if down_seconds is not None
            else self._expected(budget, scheduler, runner, watcher, durations),
            problems=tuple(problem.text for problem in problems),
            problem_ages=tuple(max(0.0, seconds - problem.at) for problem in problems),
        )

    def _expected(
        self, budget: Budget, scheduler: Scheduler, runner: BundleRunner, watcher: OperationPoller, durations: Durations
    ) -> float | None:
        """Until the last file is there; None while files are to be fetched and nobody knows how long one takes."""
        each_seconds = runner.download_seconds
        if each_seconds is None and scheduler.waiting:
            return None
        unfinished = self.books.tally.unfinished
        finished = min(scheduler.waiting, unfinished)
        asking = self._expected_of_requests(budget, scheduler, watcher, durations)
        fetching = seconds_of_downloads(
            unfinished,
            slots=self.settings.concurrency.downloads,
            each_seconds=each_seconds or 0.0,
            ages=runner.download_ages,
        )
        return max(asking + (each_seconds or 0.0) * (finished < unfinished), fetching)

    def _expected_of_requests(
        self, budget: Budget, scheduler: Scheduler, watcher: OperationPoller, durations: Durations
    ) -> float:
        reading: RequestCost = CREATES_ONLY
        if budget.polls_cost:
            reading = ALL_WITHOUT_LIST if watcher.mode is PollingMode.INDIVIDUAL else ALL_WITH_LIST
        ages = watcher.ages
        pace = Pace(
            tokens=budget.tokens,
            requests_per_minute=self.settings.budget.requests_per_minute,
            lanes=self.settings.concurrency.operations,
            operation_seconds=durations.median_seconds,
        )
        return seconds_to_end(
            reading,
            pace,
            bundles=self.books.tally.unfinished,
            created=min(watcher.waiters + scheduler.waiting, self.books.tally.unfinished),
            rest_seconds=durations.rest_seconds(ages),
        )


def _check_not_lost(archives: Archives, directory: Path) -> None:
    """Whether there is no ledger where there must have been one; not for an event loop.

    Remains of one count only beside a definition: without that it could not be made anew.

    Raises:
        LedgerError: so it is.
    """
    if present(directory):
        return
    if archives.existing():
        raise ledger_lost(directory)
    if has_remains(directory) and archives.defined():
        raise ledger_lost(directory, beside="remains of a ledger")


async def _stream(ledger: Ledger, export: Export, works: list[ExportPlan]) -> ExportState:
    """Whether the service ever took a create of it: something is stored, or under way there."""
    under_way = any(work.in_progress for work in works if work.export.name == export.name)
    return ExportState(export, accepted=under_way or await ledger.count_stored(export.name, EVER) > 0)


def _spans(
    exports: tuple[Export, ...], asked: Instructions, *, now: float, since: int
) -> tuple[list[tuple[Export, Range]], tuple[str, ...]]:
    """The range of each export, cut back to what is settled; and what was cut back, in words."""
    spans, notes = [], []
    for export in exports:
        settled = settled_until(now, settle_seconds=export.settle_seconds)
        # Whole bundles only: half of one now and the other half tomorrow would be two archives for ever.
        settled = settled // export.bundle_seconds * export.bundle_seconds
        start = since if asked.start is None else asked.start
        end = settled if asked.end is None else min(asked.end, settled)
        if start < end:
            spans.append((export, Range(start, end)))
            if asked.end is not None and asked.end > settled:
                notes.append(f"{export.name}: data is settled up to {show(settled)}; the end is cut back to that")
        else:
            notes.append(f"{export.name}: nothing to do from {show(start)} on; data is settled up to {show(settled)}")
    return spans, tuple(notes)


def _since(settings: Settings, remembered: str | None, *, now: float) -> int:
    """Where `nightly` begins."""
    chosen = settings.nightly.since_at(now)
    if chosen is not None:
        return chosen
    # One that lies ahead was reckoned with a wrong clock, or this one is wrong: it would mean nothing to do, for ever.
    if remembered and _is_past(remembered, now=now):
        return int(remembered)
    return int(now) // DAY * DAY - FIRST_NIGHT_SECONDS


def _is_past(remembered: str | None, *, now: float) -> bool:
    """Whether a moment is remembered, and is not after this one."""
    return bool(remembered) and float(remembered or 0) <= now


def _budget(settings: Settings, journal: Any, wall_clock: Callable[[], float]) -> Budget:
    return Budget(
        _allowance(settings),
        prefer=Prefer(settings.polling.prefer),
        backoff=_backoff(settings),
        journal=journal,
        wall_clock=wall_clock,
        jitter=random.random,
    )


def _allowance(settings: Settings) -> Quota:
    budget = settings.budget
    return Quota(budget.requests_per_minute, budget.burst, BudgetScope(budget.scope))


def _backoff(settings: Settings) -> Backoff:
    retry = settings.retry
    return Backoff(retry.backoff_initial_seconds, retry.backoff_max_seconds, retry.outage_seconds)


def _polling(settings: Settings) -> PollingRules:
    allowance = _allowance(settings)
    return PollingRules(
        min_interval_seconds=settings.polling.min_interval_seconds,
        deadline_seconds=settings.polling.operation_deadline_seconds,
        prefer=Prefer(settings.polling.prefer),
        burst=allowance.usable_burst,
        refill_seconds=allowance.refill_seconds,
    )


def _api_client(settings: Settings, key: ApiKey, budget: Budget, clock: ServiceClock) -> "ApiClient":
    # Here, since a plan asks nothing: aiohttp is the better part of its start.
    from asyncexport.client.api import ApiClient  # noqa: PLC0415

    return ApiClient(
        base_url=settings.base_url_for(key),
        key=key.reveal(),
        gate=budget,
        connection=_connection(settings),
        headers=settings.api.headers,
        on_date=clock.correct,
        wall_clock=clock.now,
    )


def _storage_host(settings: Settings) -> "StorageHost":
    from asyncexport.client.storage_host import StorageHost  # noqa: PLC0415 - see `_api_client`

    return StorageHost(_connection(settings), min_rate=settings.download.min_rate)


def _connection(settings: Settings) -> "ConnectionSettings":
    from asyncexport.client.session import ConnectionSettings  # noqa: PLC0415 - see `_api_client`

    api = settings.api
    return ConnectionSettings(
        connect_timeout_seconds=api.connect_timeout_seconds,
        read_timeout_seconds=api.read_timeout_seconds,
        proxy=api.proxy,
        ca_file=api.ca_file,
    )


def _left_kept(work: ExportPlan) -> str:
    """What is said of bundles that a plain retry leaves as they are."""
    count = sum(one.kept for one in work.stock.unfinished)
    bundles = "1 bundle keeps its archive" if count == 1 else f"{count:,} bundles keep their archives"
    return (
        f"{work.export.name}: {bundles}, since far fewer rows came; `retry --accept-fewer` exports anew, and takes "
        "what comes"
    )


__all__ = ["Survey", "Watch", "export", "segments", "survey"]
