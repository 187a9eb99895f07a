"""One day of a load: made by a worker, published as Parquet, then put into each destination.

The order of the steps must not be changed:

1. A worker makes the files in the folder for unfinished files. Their rows are counted.
2. The quarantine file is put in its place, or an old one is removed.
3. The Parquet file is flushed and renamed, and its folder is flushed.
4. Each other destination replaces the day, in one atomic step, from that file.

A load that is killed between two steps is resumed by comparing receipts: only the steps after that are repeated.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.load_events import DayCounts, DayFailed, DayLoaded, LoadEvent
from asyncexport.core.warehouse.to_load import DayTask
from asyncexport.errors import DayCountError, ExportError, PlaceError, SinkError, StorageError
from asyncexport.run.load_exports import ExportTables
from asyncexport.run.load_making import DayMaking
from asyncexport.run.load_sinks import LoadSinks, SinkThread
from asyncexport.warehouse.day_maker import DayMade

MOST_PLACES = 3
"""After so many days in a row whose files cannot be put in their place, the load ends: the next ones would be made in
vain."""


@dataclass(slots=True)
class _Progress:
    """How far a day has come.

    Attributes:
        task: What there is to do.
        rows: Rows of the flat table.
        made: What a worker made; None if the Parquet file was up to date.
        bytes: Bytes of the files that were made.
        loaded: The destinations that are done.
        failed: The destinations that failed, each with its error.
    """

    task: DayTask
    rows: int = 0
    made: DayMade | None = None
    bytes: int = 0
    loaded: list[str] = field(default_factory=list)
    failed: dict[str, SinkError] = field(default_factory=dict)

    def expected(self, *, is_flat: bool) -> int:
        """Return how many rows the file of the flat table, or of the one in the shape of Data Direct, has to have."""
        if self.made is None:
            return 0
        if is_flat:
            return sum(self.made.rows.values())
        return self.made.data_direct.rows if self.made.data_direct else 0


class DayLoader:
    """Loads days; several at the same time.

    Args:
        making: Makes the files of a day.
        sinks: The destinations.
    """

    def __init__(self, making: DayMaking, sinks: LoadSinks) -> None:
        self._making = making
        self._sinks = sinks
        self._places = 0

    @property
    def at_once(self) -> int:
        """How many days are worked on at the same time: one per worker, and one per destination."""
        return self._making.workers.size + len(self._sinks.chosen)

    async def load(self, tables: ExportTables, task: DayTask) -> LoadEvent:
        """Load a day and say how that ended.

        Raises:
            StorageError: the disk is full or failed; no other day can be loaded.
        """
        began = time.monotonic()
        progress = _Progress(task)
        error: ExportError | None = None
        try:
            await self._do(tables, progress)
            self._places = 0
        except StorageError as failure:
            self._places += 1
            if not isinstance(failure, PlaceError) or self._places >= MOST_PLACES:
                raise
            error = failure
        except ExportError as failure:
            error = failure
        return self._event(progress, error, seconds=time.monotonic() - began)

    async def _do(self, tables: ExportTables, progress: _Progress) -> None:
        if progress.task.must_be_made:
            if progress.task.source.archives:
                await self._make(tables, progress)
            else:
                await self._publish(tables, progress, dict.fromkeys(progress.task.receipts), None)
        await self._fill_sinks(tables, progress)

    async def _make(self, tables: ExportTables, progress: _Progress) -> None:
        """Make the day's files and publish them (steps 1 to 3)."""
        async with self._making.folder(tables, progress.task.source.date) as folder:
            progress.task, request, made = await self._making.make(tables, progress.task, folder)
            progress.made = made
            files = {tables.flat: request.flat if sum(made.rows.values()) else None}
            if request.data_direct and made.data_direct:
                files[tables.data_direct] = request.data_direct.file if made.data_direct.rows else None
            quarantine = request.quarantine if made.quarantined else None
            progress.bytes = sum(file.stat().st_size for file in files.values() if file)
            await self._publish(tables, progress, files, quarantine)

    async def _publish(
        self, tables: ExportTables, progress: _Progress, files: Mapping[str, Path | None], quarantine: Path | None
    ) -> None:
        """Put the files in their place (steps 2 and 3)."""
        date, receipts = progress.task.source.date, progress.task.receipts
        await self._sinks.parquet.call(self._sinks.files.put_quarantine, tables.flat, date, quarantine)
        for table, file in files.items():
            rows = await self._sinks.parquet.call(self._sinks.files.replace, table, date, file, receipts[table])
            expected = progress.expected(is_flat=table == tables.flat)
            if rows != expected:
                raise DayCountError(f"the file of {date} in {table} has {rows} rows instead of {expected}")
            progress.rows = rows if table == tables.flat else progress.rows
        progress.loaded.append(SinkName.PARQUET.value)

    async def _fill_sinks(self, tables: ExportTables, progress: _Progress) -> None:
        """Put the day into the other destinations (step 4). One that fails does not stop the next."""
        for one in self._sinks.chosen:
            lacking = progress.task.lacking.get(one.name, ())
            if one is self._sinks.parquet or not lacking:
                continue
            try:
                for table in lacking:
                    rows = await self._fill(one, tables, progress.task, table)
                    progress.rows = rows if table == tables.flat else progress.rows
            except SinkError as error:
                progress.failed[one.name] = error
            else:
                progress.loaded.append(one.name)

    async def _fill(self, sink: SinkThread, tables: ExportTables, task: DayTask, table: str) -> int:
        path = self._sinks.files.path(table, task.source.date)
        file = path if await asyncio.to_thread(path.is_file) else None
        await sink.call(sink.sink.prepare, table, tables.tables[table])
        return await sink.call(sink.sink.replace, table, task.source.date, file, task.receipts[table])

    def _event(self, progress: _Progress, error: ExportError | None, *, seconds: float) -> LoadEvent:
        chosen = [one.name for one in self._sinks.chosen]
        # A day that was made and not published counts as nothing.
        made = progress.made if progress.loaded and progress.made else DayMade({})
        counts = DayCounts(
            export=progress.task.source.export,
            date=progress.task.source.date,
            rows=progress.rows if progress.loaded else 0,
            rescued=made.rescued,
            quarantined=sum(made.quarantined.values()),
            bytes=progress.bytes if progress.loaded else 0,
            exact=made.exact,
            left_out=made.data_direct.left_out if made.data_direct else {},
            sinks=tuple(name for name in progress.loaded if name in chosen),
            seconds=seconds,
        )
        errors = [*([] if error is None else [error]), *progress.failed.values()]
        if not errors:
            return DayLoaded(counts)
        first, *others = errors
        lost = [name for name in progress.task.lacking if name in chosen and name not in progress.loaded]
        reasons = {name: str(progress.failed.get(name, first)) for name in lost}
        return DayFailed(counts, first, reasons, tuple(others))
