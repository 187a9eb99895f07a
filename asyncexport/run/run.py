"""One run, from the lock to the last row: `export(settings, spec)`.

1. The lock is held for the whole run, and nothing is written before it is.
2. What there is to do is known before the service is asked for anything (`planner`).
3. A damaged ledger is not written on: before its first request a run reads a small ledger whole, and of a large one
   what it goes by.
4. The first request of a run looks at the list of operations. Its answer tells the service's time, of which others are
   asked where it differs (`first_contact`). The end of the range is then cut back to what is settled by that time, and
   the work is planned once more. A key that the directory does not know is asked about next (`organisation`).
5. How a run ends is in its summary. It raises nothing but bugs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from asyncexport.client.clock import HostClock, ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.access import ACCESS_NOTE, Access, access_of
from asyncexport.core.events import Listener, Note
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Snapshot, Summary
from asyncexport.core.work_queue import WorkQueue
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError, UnavailableError
from asyncexport.ledger import Ledger, hold, no_ledger, present
from asyncexport.run.counters import RunCounters
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.first_contact import first_contact, refuse_conflict, tells_no_time
from asyncexport.run.listeners import EventListeners, log_failed_listener
from asyncexport.run.logging_runs import logged
from asyncexport.run.organisation import OrganisationCheck
from asyncexport.run.planner import CLOCK_CHECK, Planner, RunPlan
from asyncexport.run.progress import Progress
from asyncexport.run.spec import RunSpec, instructions
from asyncexport.run.unrecorded import check_all_recorded
from asyncexport.run.wiring import RunEngine, export_states, open_engine
from asyncexport.storage import Archives, has_open_archives

Watch = Callable[[Callable[[], Snapshot]], Awaitable[None]]
"""Shows how far a run has come: it is given what makes a snapshot, runs along, and is cancelled at the run's end."""


KEPT_OPEN = (
    "contains archives that other users may read, so new ones get the permissions of the umask; "
    'to prevent that, set [output] access = "private" for new archives and use chmod for old ones'
)
"""What is told once of a directory that is older than `[output] access`."""


async def watch_nothing(_snapshot: Callable[[], Snapshot]) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What all steps of one run need."""

    settings: Settings
    spec: RunSpec
    key: ApiKey
    stop: Stop
    watch: Watch
    counters: RunCounters
    tell: Listener
    host_clock: HostClock | None


async def export(
    settings: Settings,
    spec: RunSpec,
    *,
    key: ApiKey,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
    host_clock: HostClock | None = None,
) -> Summary:
    """Carry out a run; how it ended is in the summary.

    Args:
        settings: The settings.
        spec: What to do.
        key: The API key.
        stop: Asks the run to stop when its `ask` is called. None: nothing does.
        listeners: Called with each event, in this order. One that raises is called no more.
        watch: Shows how far the run has come.
        host_clock: The clocks of this host. None: as they are.
    """
    counters, stop = RunCounters(), stop or Stop()
    repaired = frozenset(one.bundle for one in instructions(spec).repairs)
    tell = EventListeners(counters, listeners, repaired=repaired).tell
    error: ExportError | None = None
    try:
        await _carry_out(_Run(settings, spec, key, stop, watch, counters, tell, host_clock))
    except ExportError as failure:
        error = failure
    return counters.summary(spec, directory=str(settings.output.directory), error=error, stop=stop)


async def _carry_out(run: _Run) -> None:
    clock = ServiceClock(host=run.host_clock, trust=run.settings.api.clock)
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(
            Archives(run.settings.output.directory, max_row=run.settings.download.max_row)
        )
        ledger = await _take_directory(stack, run)
        clock.recall(await ledger.recall(CLOCK_CHECK))
        await stack.enter_async_context(
            logged(
                run.spec, run.counters, run.stop, directory=run.settings.output.directory, ledger=ledger, clock=clock
            )
        )
        await ledger.register(run.spec.exports)
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
            _tell_notes(run, plan)
            return
        # Before aiohttp is loaded: what the digest of the key takes is no part of the run's peak then.
        organisation = await OrganisationCheck.begin(ledger, run.key)
        engine = await stack.enter_async_context(
            open_engine(
                run.settings,
                key=run.key,
                clock=clock,
                ledger=ledger,
                archives=archives,
                export_states=await export_states(ledger, run.spec.exports, plan.exports),
                accepted=run.counters.tally.accepted,
                tell=run.tell,
                stop=run.stop,
                key_is_new=organisation.key_is_new,
            )
        )
        contact = _first_contact(run, engine, clock, organisation, asks_for_time=not plan.has_work)
        await _work_off(run, planner, engine, clock, contact)


async def _take_directory(stack: AsyncExitStack, run: _Run) -> Ledger:
    """The ledger of the directory, under the lock; the stack closes it and lets go of the lock.

    What the directory's file system cannot do is told.

    Raises:
        LedgerError: another run holds the directory, the ledger is lost or damaged, or there is nothing to go on with.
        StorageError: the ledger cannot be opened or made.
    """
    directory = run.settings.output.directory
    await asyncio.to_thread(check_ledger_not_lost, directory)
    if not instructions(run.spec).fills_gaps and not present(directory):
        # There is nothing to go on with, and a directory whose name was mistyped is not to be made.
        raise no_ledger(directory)
    mode = run.settings.output.access.folder_mode
    for message in stack.enter_context(hold(directory, command=run.spec.command, directory_mode=mode)):
        run.tell(Note(message))
    # Once more: whoever held the directory until now may have been making the ledger anew when it was killed.
    await asyncio.to_thread(check_ledger_not_lost, directory)
    ledger = await Ledger.open(directory)
    stack.push_async_callback(ledger.close)
    await ledger.check_if_small()
    return ledger


async def _access(run: _Run, ledger: Ledger) -> Access:
    """Who may read what is made. Where the directory stays open to others since it was, that is told once."""
    output, remembered = run.settings.output, await ledger.recall(ACCESS_NOTE)
    is_open = remembered is None and await asyncio.to_thread(has_open_archives, output.directory)
    access = access_of(chosen=output.chosen_access, remembered=remembered, is_open=is_open)
    if output.chosen_access is None and remembered is None:
        ledger.remember(ACCESS_NOTE, access.value)
        if access is Access.UMASK:
            run.tell(Note(f"{output.directory} {KEPT_OPEN}"))
    return access


@contextmanager
def _saying_what_for() -> Iterator[None]:
    """Where a run ends because the service could not be asked for its time, say why that was needed."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(
            f"whether there is anything to do depends on the service's time, which could not be requested: {error}",
            lasting=True,
            hint=error.hint,
        ) from error


async def _work_off(
    run: _Run, planner: Planner, engine: RunEngine, clock: ServiceClock, contact: Coroutine[Any, Any, None]
) -> None:
    progress = Progress(run.settings, run.counters, engine)
    helpers = [
        asyncio.create_task(_show_progress(run.watch, progress.snapshot), name="viewer"),
        asyncio.create_task(_time_out(run.spec.max_duration_seconds, run.stop), name="max duration"),
    ]
    try:
        if await _unless_stopped(contact, run.stop):
            plan = await planner.plan()  # rule 4
            plan.check_dates()
            _tell_notes(run, plan)
            if splits := await planner.split(plan):
                for message in splits:
                    run.tell(Note(message))
                plan = await planner.plan()
            await _work_through(planner, engine, clock, plan)
    finally:
        run.counters.requests, run.counters.refused = dict(engine.budget.sent), engine.budget.refused
        for helper in helpers:
            helper.cancel()
        await asyncio.wait(helpers)


async def _work_through(planner: Planner, engine: RunEngine, clock: ServiceClock, plan: RunPlan) -> None:
    work = WorkQueue(plan.exports)
    if tells_no_time(engine.poller, clock):
        first = tuple(islice(work, 1))
        await engine.scheduler.run(iter(first))
        refuse_conflict(clock)
        if planner.went_by_another_time:
            work = WorkQueue((await planner.plan(begun=first)).exports)
    clock.begin()
    await engine.scheduler.run(iter(work), newest=work.newest)


async def _first_contact(
    run: _Run, engine: RunEngine, clock: ServiceClock, organisation: OrganisationCheck, *, asks_for_time: bool
) -> None:
    """Rule 4, and whose the key is."""
    with _saying_what_for() if asks_for_time else nullcontext():
        await first_contact(engine.poller, engine.service, clock)
    await organisation.finish(engine.service.me, lambda message: run.tell(Note(message)))


async def _unless_stopped(doing: Coroutine[Any, Any, None], stop: Stop) -> bool:
    """Whether it was done; False: the run was asked to stop before it was."""
    task = asyncio.create_task(doing)
    stopping = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        stopping.cancel()
        await asyncio.wait({task, stopping})


async def _show_progress(watch: Watch, snapshot: Callable[[], Snapshot]) -> None:
    try:
        await watch(snapshot)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
        log_failed_listener(watch, error)


async def _time_out(seconds: float | None, stop: Stop) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
        stop.ask(Exit.TIME_UP)


def _tell_notes(run: _Run, plan: RunPlan) -> None:
    for message in plan.notes:
        run.tell(Note(message))


__all__ = ["Watch", "export", "watch_nothing"]
