"""One run, from taking the lock to storing the last archive: `export(settings, spec)`.

1. The lock is held during the whole run, and nothing is written before it is taken.
2. The run is planned before the first request (`planner`).
3. A damaged ledger is not written to: before its first request, a run checks a small ledger completely, and the parts
   of a large one that it uses.
4. The first request of a run reads the list of operations. Its answer tells the service's time; if that differs from
   this host's, more calls confirm it (`first_contact`). If the key is new to the directory, or is used with another
   host, its organisation is checked next (`organisation`). Then the run is planned again, with a range that ends where
   data is settled by that time.
5. How a run ended is in its summary. A run raises only bugs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from asyncexport.client.clock import HostClock, ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.access import ACCESS_NOTE, Access, access_of
from asyncexport.core.events import Listener, Note
from asyncexport.core.exits import Exit
from asyncexport.core.lanes import LaneOrder
from asyncexport.core.splitting import FailedAttempts, split_earlier
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import Snapshot, Summary
from asyncexport.core.work_queue import WorkQueue
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError, LedgerError, UnavailableError
from asyncexport.ledger import Ledger, no_ledger, present
from asyncexport.run.counters import RunCounters
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.first_contact import check_clocks, first_contact, time_is_unknown
from asyncexport.run.following import PresentFollower
from asyncexport.run.listeners import EventListeners, log_failed_listener
from asyncexport.run.lock_wait import CHECK_SECONDS, LockWait, find_joined, hold_or_wait
from asyncexport.run.logging_runs import logged
from asyncexport.run.organisation import OrganisationCheck
from asyncexport.run.planner import CLOCK_CHECK, Planner, RunPlan
from asyncexport.run.progress import Progress
from asyncexport.run.sentinel import sentinel
from asyncexport.run.spec import RunSpec, instructions
from asyncexport.run.stopping import unless_stopped
from asyncexport.run.unrecorded import check_all_recorded
from asyncexport.run.wiring import RunEngine, export_states, open_engine
from asyncexport.storage import Archives, has_open_archives

Watch = Callable[[Callable[[], Snapshot]], Awaitable[None]]
"""Shows the progress of a run: gets a function that returns a snapshot, and is cancelled when the run ends."""


KEPT_OPEN = (
    "contains archives that other users may read, so new ones get the permissions of the umask; "
    'to prevent that, set [output] access = "private" for new archives and use chmod for old ones'
)
"""Reported once for a directory that is older than `[output] access`."""


async def watch_nothing(_snapshot: Callable[[], Snapshot]) -> None:
    """Show nothing."""


def _do_nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Run:
    """What all steps of a run need."""

    settings: Settings
    spec: RunSpec
    key: ApiKey
    stop: Stop
    watch: Watch
    counters: RunCounters
    emit: Listener
    host_clock: HostClock | None
    on_locked: Callable[[], None]
    wait: LockWait | None


async def export(
    settings: Settings,
    spec: RunSpec,
    *,
    key: ApiKey,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
    host_clock: HostClock | None = None,
    on_locked: Callable[[], None] = _do_nothing,
    waits: bool = False,
    check_seconds: float = CHECK_SECONDS,
) -> Summary:
    """Carry out a run and return its summary, which says how it ended.

    Args:
        settings: The settings.
        spec: What to do.
        key: The API key.
        stop: Stops the run cleanly when its `ask` is called. None: the run is not stopped.
        listeners: Called with each event, in this order. A listener that raises is not called again.
        watch: Shows the progress of the run.
        host_clock: The clocks of this host. None: the real ones.
        on_locked: Called once the run holds the lock of the output directory.
        waits: Whether to wait while another run holds that lock, instead of ending with `Exit.LOCKED`.
        check_seconds: How often a waiting run tries to take the lock.
    """
    asked = instructions(spec)
    audits_only = asked.audit is not None and not asked.fills_gaps
    counters = RunCounters(requires_end=asked.require_end, requires_comparison=audits_only)
    stop = stop or Stop()
    repaired = frozenset(one.bundle for one in asked.repairs)
    emit = EventListeners(counters, listeners, repaired=repaired).emit
    wait = LockWait(emit, check_seconds) if waits else None
    error: ExportError | None = None
    try:
        await _carry_out(_Run(settings, spec, key, stop, watch, counters, emit, host_clock, on_locked, wait))
    except ExportError as failure:
        error = failure
    return counters.summary(spec, directory=str(settings.output.directory), error=error, stop=stop)


async def _carry_out(run: _Run) -> None:
    clock = ServiceClock(host=run.host_clock, trust=run.settings.api.clock)
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(
            Archives(run.settings.output.directory, max_row=run.settings.download.max_row)
        )
        ledger = await _open_directory(stack, run)
        if ledger is None:
            return
        clock.recall(await ledger.recall(CLOCK_CHECK))
        await stack.enter_async_context(
            logged(
                run.spec, run.counters, run.stop, directory=run.settings.output.directory, ledger=ledger, clock=clock
            )
        )
        await ledger.register(run.spec.exports)
        await stack.enter_async_context(
            sentinel(run.settings, run.spec, ledger=ledger, clock=clock, tally=run.counters.tally, emit=run.emit)
        )
        access = await _access(run, ledger)
        directory = run.settings.output.directory
        found = await check_all_recorded(directory, run.spec.exports, archives=archives, ledger=ledger)
        await archives.prepare(run.spec.exports, access=access, found=found)
        planner = Planner(run.settings, run.spec, ledger=ledger, clock=clock, tally=run.counters.tally)
        stack.callback(planner.remember)
        plan = await planner.plan()
        asks_for_time = not plan.has_work
        if asks_for_time and not planner.needs_service_time(plan):
            plan.check_dates()
            _emit_notes(run, plan)
            return
        # Before aiohttp is loaded, so that the memory for hashing the key does not add to the run's peak.
        organisation = await OrganisationCheck.begin(ledger, run.key, base_url=run.settings.api.base_url)
        engine = await stack.enter_async_context(
            open_engine(
                run.settings,
                key=run.key,
                clock=clock,
                ledger=ledger,
                archives=archives,
                export_states=await export_states(ledger, run.spec.exports, plan.exports),
                accepted=run.counters.tally.accepted,
                emit=run.emit,
                stop=run.stop,
                key_is_new=organisation.key_is_new,
                retries_once=instructions(run.spec).pauses_parked,
            )
        )
        contact = _first_contact(run, engine, clock, organisation, asks_for_time=not plan.has_work)
        await _work(run, planner, engine, clock, contact)


async def _open_directory(stack: AsyncExitStack, run: _Run) -> Ledger | None:
    """Lock the directory and open its ledger; the stack closes the ledger and releases the lock.

    Return None if the run was stopped while it waited for the lock. Limitations of the directory's file
    system are reported.

    Raises:
        LedgerError: another run holds the lock, the ledger is lost or damaged, or the run needs a ledger and there is
            none.
        StorageError: the ledger cannot be opened or created.
    """
    directory = run.settings.output.directory
    try:
        await asyncio.to_thread(_check_ledger, run.spec, directory)
    except LedgerError:
        if await find_joined(directory) is None:
            raise
        # A rebuild may be making the ledger. Taking the lock fails as long as it does; then the check is repeated.
    mode = run.settings.output.access.folder_mode
    lock = stack.enter_context(ExitStack())
    notes = await hold_or_wait(
        lock, directory, command=run.spec.command, directory_mode=mode, wait=run.wait, stopped=run.stop.asked
    )
    if notes is None:
        return None
    for message in notes:
        run.emit(Note(message))
    run.counters.has_begun = True
    run.on_locked()
    # Check again under the lock: a rebuild that held the lock until now may have been killed.
    await asyncio.to_thread(_check_ledger, run.spec, directory)
    ledger = await Ledger.open(directory)
    stack.push_async_callback(ledger.close)
    await ledger.check_if_small()
    return ledger


def _check_ledger(spec: RunSpec, directory: Path) -> None:
    """Check that there is a ledger, or that the run may create one.

    Raises:
        LedgerError: the ledger is lost, or the run needs a ledger and there is none.
        StorageError: the folder of the ledger cannot be read.
    """
    check_ledger_not_lost(directory)
    if not instructions(spec).fills_gaps and not present(directory):
        # There is nothing to resume. Do not create a directory whose name may be mistyped.
        raise no_ledger(directory)


async def _access(run: _Run, ledger: Ledger) -> Access:
    """Return the access for new files. If an old directory stays readable for others, that is reported once."""
    output, remembered = run.settings.output, await ledger.recall(ACCESS_NOTE)
    is_open = remembered is None and await asyncio.to_thread(has_open_archives, output.directory)
    access = access_of(chosen=output.chosen_access, remembered=remembered, is_open=is_open)
    if output.chosen_access is None and remembered is None:
        ledger.remember(ACCESS_NOTE, access.value)
        if access is Access.UMASK:
            run.emit(Note(f"{output.directory} {KEPT_OPEN}"))
    return access


@contextmanager
def _explaining_the_request() -> Iterator[None]:
    """If the service cannot be asked for its time, say in the error why a run with nothing to do asks it."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(
            f"whether there is anything to do depends on the service's time, which could not be requested: {error}",
            lasting=True,
            hint=error.hint,
        ) from error


async def _work(
    run: _Run, planner: Planner, engine: RunEngine, clock: ServiceClock, contact: Coroutine[Any, Any, None]
) -> None:
    progress = Progress(run.settings, run.counters, engine)
    helpers = [
        asyncio.create_task(_show_progress(run.watch, progress.snapshot), name="viewer"),
        asyncio.create_task(_time_out(run.spec.max_duration_seconds, run.stop), name="max duration"),
    ]
    try:
        if await unless_stopped(contact, run.stop):
            plan = await planner.plan()  # rule 4
            plan.check_dates()
            _emit_notes(run, plan)
            if splits := await planner.split(plan):
                for message in splits:
                    run.emit(Note(message))
                plan = await planner.plan()
            await _run_bundles(planner, engine, clock, plan, run.stop)
    finally:
        run.counters.requests, run.counters.refused = dict(engine.budget.sent), engine.budget.refused
        for helper in helpers:
            helper.cancel()
        await asyncio.wait(helpers)


async def _run_bundles(planner: Planner, engine: RunEngine, clock: ServiceClock, plan: RunPlan, stop: Stop) -> None:
    """Process the bundles of the exports, and then those to audit."""
    work, audit = _queue(planner, plan), _audit_queue(plan)
    _recall_splits(plan, engine.runner.moves.failed_attempts)
    if time_is_unknown(engine.poller, clock):
        first = tuple(islice(chain(work, audit), 1))
        await engine.scheduler.run(iter(first))
        check_clocks(clock)
        if planner.clock_was_corrected:
            plan = await planner.plan(processed=first)
            work, audit = _queue(planner, plan), _audit_queue(plan)
            _recall_splits(plan, engine.runner.moves.failed_attempts)
    clock.begin()
    newly_due = None
    if planner.has_open_end and planner.asked.fills_gaps:
        newly_due = PresentFollower(planner, plan, is_given=work.has_given).newly_due
    await engine.scheduler.run(iter(work), newest=work.newest, newly_due=newly_due)
    if plan.audit and not stop.asked.is_set():
        await engine.scheduler.run(audit, newly_due=newly_due)
    planner.leave_audits()


def _recall_splits(plan: RunPlan, failed_attempts: FailedAttempts) -> None:
    """Note which bundles are pieces of bundles that earlier runs split."""
    for one in plan.exports:
        missing = [each.bundle for each in one.recorded.unfinished if each.stored is None]
        split = [each.bundle for each in one.recorded.split]
        for piece, whole in split_earlier(missing, split, width_seconds=one.export.bundle_seconds):
            failed_attempts.split_earlier(piece, whole)


def _queue(planner: Planner, plan: RunPlan) -> WorkQueue:
    """Return the bundles of a run, in lanes if its end is open."""
    lanes = LaneOrder(planner.clock.now(), planner.asked.old_order) if planner.has_open_end else None
    return WorkQueue(plan.exports, lanes)


def _audit_queue(plan: RunPlan) -> Iterator[BundleRecord]:
    return (one.next_revision() for one in plan.audit)


async def _first_contact(
    run: _Run, engine: RunEngine, clock: ServiceClock, organisation: OrganisationCheck, *, asks_for_time: bool
) -> None:
    """Get the service's time and check the organisation of the key (rule 4)."""
    with _explaining_the_request() if asks_for_time else nullcontext():
        await first_contact(engine.poller, engine.service, clock)
    await organisation.finish(engine.service.me, lambda message: run.emit(Note(message)))


async def _show_progress(watch: Watch, snapshot: Callable[[], Snapshot]) -> None:
    try:
        await watch(snapshot)
    except Exception as error:  # noqa: BLE001 - no viewer stops a run
        log_failed_listener(watch, error)


async def _time_out(seconds: float | None, stop: Stop) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
        stop.ask(Exit.TIME_UP)


def _emit_notes(run: _Run, plan: RunPlan) -> None:
    for message in plan.notes:
        run.emit(Note(message))


__all__ = ["Watch", "export", "watch_nothing"]
