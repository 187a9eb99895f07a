"""A load that holds the lock of its directory: finds the days to load, loads them, and brings the views up to date."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, Range
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.days import DaySource
from asyncexport.core.warehouse.load_events import LoadListener
from asyncexport.core.warehouse.load_tally import LoadTally
from asyncexport.core.warehouse.to_load import DayTask, Have, complete_until, day_task, emptied, with_writers
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.errors import SinkError, StorageError
from asyncexport.ledger import LedgerReader
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.load_day import DayLoader
from asyncexport.run.load_exports import DayLookup, ExportTables, exports_to_load, left_alone, refusals
from asyncexport.run.load_making import DayMaking
from asyncexport.run.load_place import load_place
from asyncexport.run.load_sinks import LoadSinks, SinkThread
from asyncexport.run.load_workers import workers_for
from asyncexport.run.organisation import ORGANISATION, known_organisation


class OpenLoad:
    """A load that holds the lock of its directory; made by `open_load`.

    Args:
        exports: The exports to load.
        lookup: Looks up days in the ledger.
        sinks: The destinations.
        loader: Loads a day.
        notes: What the user should know.
    """

    def __init__(
        self,
        exports: Sequence[ExportTables],
        lookup: DayLookup,
        sinks: LoadSinks,
        loader: DayLoader,
        *,
        notes: Sequence[str],
    ) -> None:
        self.notes = tuple(notes)
        self._exports = exports
        self._lookup = lookup
        self._sinks = sinks
        self._loader = loader
        self._days: dict[str, list[DaySource]] = {}
        self._have: Have = {}

    async def tasks(self, span: Range, tally: LoadTally, *, again: bool) -> list[tuple[ExportTables, DayTask]]:
        """Return the days of a range that are to be loaded, in order, and count them in the tally."""
        have = self._have = {one.name: await self._receipts(one) for one in self._sinks.every}
        self._days.clear()
        found = []
        for tables in self._exports:
            days = await self._days_of(tables)
            within = [one for one in days if span.start <= one.start < span.end]
            gone = emptied(
                tables.export,
                tables.definition.format,
                wanted=[one.date for one in days],
                have=have,
                tables=list(tables.tables),
                span=span,
            )
            tasks = [self._task(tables, one, have, again=again) for one in within]
            tasks += [task for one in gone if (task := self._task(tables, one, have, again=False))]
            tally.days += len(tasks)
            tally.already += tasks.count(None)
            found += await self._with_writers(tables, [task for task in tasks if task is not None])
        return found

    async def complete_day(self, export: str, start: int) -> tuple[ExportTables, DayTask] | None:
        """Return a day if all of it is stored and it is to be loaded."""
        tables = next((one for one in self._exports if one.export == export), None)
        if tables is None:
            return None
        source, in_progress = await self._lookup.day(tables, start)
        if in_progress or not source.is_complete:
            return None
        if not self._have:
            self._have = {one.name: await self._receipts(one) for one in self._sinks.every}
        task = self._task(tables, source, self._have, again=False)
        return None if task is None else (tables, task)

    async def run(self, tasks: Sequence[tuple[ExportTables, DayTask]], on_event: LoadListener) -> None:
        """Load days, several at the same time.

        Raises:
            StorageError: the disk is full or failed.
        """
        to_do = iter(tasks)

        async def work() -> None:
            for tables, task in to_do:
                on_event(await self._loader.load(tables, task))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._loader.at_once, len(tasks))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            storage, others = errors.split(StorageError)
            if others is not None or storage is None:
                raise
            raise next(_single(storage)) from None

    async def finish(self, tally: LoadTally) -> None:
        """Bring the tables and views of each destination up to date, which may lack a table without rows."""
        organisation = known_organisation(await self._lookup.recall(ORGANISATION))
        for sink in self._sinks.chosen:
            try:
                for tables in self._exports:
                    await self._finish(sink, tables, organisation)
            except SinkError as error:
                tally.unfinished_sinks[sink.name] = error

    def leave_alone(self) -> None:
        """Wait no longer for servers, since the process is about to end."""
        self._sinks.leave_alone()

    async def _finish(self, sink: SinkThread, tables: ExportTables, organisation: str) -> None:
        for table, columns in tables.tables.items():
            days = await self._days_of(tables)
            receipts = await sink.call(sink.sink.receipts, table)
            lacking = [one.start for one in days if receipts.get(one.date) != tables.receipts(one)[table]]
            type_ = tables.layout.type if table == tables.flat else None
            facts = TableFacts(type_, organisation, complete_until(days, lacking=lacking))
            await sink.call(sink.sink.prepare, table, columns)
            await sink.call(sink.sink.finish, table, facts)

    async def _receipts(self, sink: SinkThread) -> dict[str, Mapping[str, str]]:
        """Return the receipts of a destination by table; none if it cannot be reached, and then it is given up."""
        found: dict[str, Mapping[str, str]] = {}
        try:
            for tables in self._exports:
                for table in tables.tables:
                    found[table] = await sink.call(sink.sink.receipts, table)
        except SinkError as error:
            sink.give_up(error)
        return found

    def _task(self, tables: ExportTables, source: DaySource, have: Have, *, again: bool) -> DayTask | None:
        chosen = [one.name for one in self._sinks.chosen]
        return day_task(source, tables.receipts(source), have, chosen=chosen, again=again)

    async def _with_writers(self, tables: ExportTables, tasks: Sequence[DayTask]) -> list[tuple[ExportTables, DayTask]]:
        """Add to days that are to be made when the bytes of their archives were exported."""
        writers = await self._lookup.writers(tables.export, [one.source for one in tasks if one.must_be_made])
        return [(tables, replace(one, source=with_writers(one.source, writers))) for one in tasks]

    async def _days_of(self, tables: ExportTables) -> list[DaySource]:
        """Return all days of an export that had archives when the load began."""
        if tables.export not in self._days:
            self._days[tables.export] = await self._lookup.days(tables, ALL_TIME)
        return self._days[tables.export]


@asynccontextmanager
async def open_load(
    settings: Settings,
    names: Sequence[str],
    sinks: Sequence[SinkName],
    *,
    report: Callable[[str], None],
    scheduler: str | None = None,
) -> AsyncIterator[OpenLoad]:
    """Open the ledger, hold the lock of the load directory, and make the destinations ready.

    Args:
        settings: The settings.
        names: The names of the exports; all of the settings if empty.
        sinks: The destinations.
        report: Called with messages for the user, in any thread.
        scheduler: The address of a Dask scheduler whose workers make the days; None for processes on this machine.

    Raises:
        ConfigError: the names or the settings cannot be used, or a worker has another version.
        DayError: the scheduler cannot be reached, or has no workers.
        LedgerError: the ledger is missing or damaged, or another load holds the directory.
        StorageError: the load directory cannot be used.
    """
    directory = settings.output.directory
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(check_ledger_not_lost, directory)
        ledger = stack.enter_context(LedgerReader(directory))
        exports = exports_to_load(settings, ledger, names)
        place = stack.enter_context(load_place(settings, ledger))
        destinations = LoadSinks.make(settings, sinks, access=place.access, scratch=place.scratch, report=report)
        stack.push_async_callback(destinations.close)
        workers = await stack.enter_async_context(workers_for(settings, place, scheduler))
        lookup = DayLookup(ledger)
        loader = DayLoader(DayMaking(settings, place, workers, lookup), destinations)
        notes = [*place.notes, *refusals(settings, exports), *([] if exports else left_alone(settings, ledger))]
        yield OpenLoad(exports, lookup, destinations, loader, notes=notes)


def _single(errors: BaseExceptionGroup[StorageError]) -> Iterator[StorageError]:
    for one in errors.exceptions:
        if isinstance(one, StorageError):
            yield one
        else:
            yield from _single(one)
