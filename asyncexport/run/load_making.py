"""Lets workers make the files of days.

1. The rows are counted: a day with more or fewer rows than the ledger says is not published.
2. If an archive is not the file that the ledger describes, the day is looked up once more: a run may have replaced the
   archive, and records that afterwards. If the ledger says the same as before, and no run is about to change that, the
   archive was altered. If it says something else, the day is made from that: a refresh replaces the archives of a day
   one after the other, so this may happen several times.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from asyncexport.config import Settings
from asyncexport.core.warehouse.choices import QuarantineRule
from asyncexport.core.warehouse.to_load import DayTask
from asyncexport.errors import ChangedArchiveError, DayCountError, DayError, OverlapError, StorageError
from asyncexport.run.load_exports import DayLookup, ExportTables
from asyncexport.run.load_place import LoadPlace, remove_used
from asyncexport.warehouse.day_maker import DataDirectRequest, DayMade, DayRequest, Workers

TRIES = 5
"""How often a day is made while its archives are replaced."""

LOOKUPS = 5
"""How often a day is looked up while a run exports a part of it again."""

RUN_SECONDS = 1.0
"""The time between two lookups: a run records an archive at once after it has replaced it."""

REPAIR = "`asyncexport verify --repair` exports archives again that are not what the ledger says"


class DayMaking:
    """Makes days.

    Args:
        settings: The settings.
        place: The load directory.
        workers: The workers.
        lookup: Looks up days in the ledger.
    """

    def __init__(self, settings: Settings, place: LoadPlace, workers: Workers, lookup: DayLookup) -> None:
        self.workers = workers
        self._settings = settings
        self._place = place
        self._lookup = lookup

    @asynccontextmanager
    async def folder(self, tables: ExportTables, date: str) -> AsyncIterator[Path]:
        """Make a folder for the unfinished files of a day, which is removed at the end.

        Raises:
            StorageError: it cannot be made.
        """
        folder = self._place.scratch / f"{tables.flat}-{date}"
        try:
            await asyncio.to_thread(_make_folder, folder)
            yield folder
        finally:
            await asyncio.to_thread(remove_used, folder)

    async def make(self, tables: ExportTables, task: DayTask, folder: Path) -> tuple[DayTask, DayRequest, DayMade]:
        """Let a worker make a day; return the task, for the archives that it was made from.

        Raises:
            ChangedArchiveError: an archive is not what the ledger says.
            DayCountError: rows are missing, or there are too many.
            ExportError: the day cannot be made, such as one whose archives are replaced all the time.
        """
        for _ in range(TRIES):
            try:
                request, made = await self._made(tables, task, folder)
            except ChangedArchiveError as error:
                task = await self._looked_up(tables, task, error)
            else:
                self._check(request, made)
                return task, request, made
        raise DayError(
            f"its archives were replaced {TRIES} times while it was made",
            hint="run the same command again when the run that exports them again has ended",
        )

    async def _looked_up(self, tables: ExportTables, task: DayTask, error: ChangedArchiveError) -> DayTask:
        """Look a day up after one of its archives had changed (rule 2).

        Raises:
            ChangedArchiveError: the ledger says what it said before.
            DayError: the day has no archives any more.
        """
        for _ in range(LOOKUPS):
            source, in_progress = await self._lookup.day(tables, task.source.start)
            if source != task.source or not in_progress:
                break
            await asyncio.sleep(RUN_SECONDS)
        if source == task.source:
            error.hint = REPAIR
            raise error
        if not source.archives:
            raise DayError("its archives were removed meanwhile", hint="run the same command again")
        return DayTask(source, tables.receipts(source), task.lacking)

    async def _made(self, tables: ExportTables, task: DayTask, folder: Path) -> tuple[DayRequest, DayMade]:
        _check_overlaps(task)
        load = self._settings.load
        request = DayRequest(
            output=self._settings.output.directory.absolute(),
            source=task.source,
            layout=tables.layout,
            receipt=task.receipts[tables.flat],
            flat=folder / "flat.part",
            quarantine=folder / "quarantine.part",
            scratch=folder,
            memory=load.memory,
            max_row=load.max_row,
            fields=tables.definition.fields,
            data_direct=_data_direct(tables, task, folder),
        )
        return request, await self.workers.make(request)

    def _check(self, request: DayRequest, made: DayMade) -> None:
        """Count what a worker made, and apply `[load] quarantine`.

        Raises:
            DayCountError: rows are missing, or there are too many.
            DayError: lines are no rows, and such a day is not to be loaded.
        """
        for one in request.source.archives:
            found = made.rows.get(one.path, 0) + made.quarantined.get(one.path, 0)
            if found != one.rows:
                raise DayCountError(f"{one.path}: {found} rows were read, but the ledger says {one.rows}")
        if made.quarantined and self._settings.load.quarantine is QuarantineRule.FAIL:
            count, first = sum(made.quarantined.values()), min(made.quarantined)
            raise DayError(
                f"{'1 line is no row' if count == 1 else f'{count} lines are no rows'}, the first in {first}",
                hint='[load] quarantine = "keep" loads the other rows and keeps these lines in a file',
            )


def _data_direct(tables: ExportTables, task: DayTask, folder: Path) -> DataDirectRequest | None:
    if tables.recipe is None:
        return None
    return DataDirectRequest(folder / "datadirect.part", task.receipts[tables.data_direct], tables.recipe)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror or error}", hint="check the disk") from error


def _check_overlaps(task: DayTask) -> None:
    """Refuse a day with overlapping archives.

    Raises:
        OverlapError: there are some.
    """
    if overlaps := task.source.overlaps:
        first, second = overlaps[0]
        raise OverlapError(
            f"{first} and {second} overlap, so the day would hold rows twice",
            hint="move one of the two archives to another directory and run `asyncexport verify --rebuild`",
        )
