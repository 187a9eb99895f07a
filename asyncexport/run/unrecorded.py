"""Detects archives that the ledger does not know, before anything is exported or overwritten.

The ledger may be older than the archives, such as one from a backup, or the archives may come from another directory.
A run would then silently replace these archives, or store the same rows a second time.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.directory_diff import suspect_days, unrecorded
from asyncexport.core.exports import Export
from asyncexport.errors import LedgerError, StorageError
from asyncexport.ledger import Ledger, LedgerQueries, LedgerReader
from asyncexport.storage import Archives, ExportFolder, archive_path, archives_of, scan_folder

MOST_NAMED = 5
"""Archives that are listed one by one; `verify` lists all."""


async def check_all_recorded(
    directory: Path, exports: Sequence[Export], *, archives: Archives, ledger: Ledger
) -> dict[str, ExportFolder]:
    """Check that the ledger has a row for each archive of these exports.

    Args:
        directory: The output directory.
        exports: The exports of the run.
        archives: The archives in the directory.
        ledger: The ledger.

    Returns:
        The contents of the exports' folders, by the exports' names.

    Raises:
        LedgerError: some archives have no row; the message has the first of them.
        StorageError: the disk cannot be read.
    """
    # Both take about the same time, so they run in parallel.
    found, recorded = await asyncio.gather(
        archives.scan_folders(exports), ledger.query(lambda queries: [queries.stored_days(one.name) for one in exports])
    )
    paths: list[str] = []
    for export, stored_days in zip(exports, recorded, strict=True):
        if days := suspect_days(found[export.name].days, stored_days):
            there = await archives.archives_of(export, days)
            paths += await ledger.query(partial(_paths_without_row, export=export, days=days, there=there))
    if paths:
        raise _not_recorded(directory, paths)
    return found


def check_recorded_in(directory: Path, exports: Sequence[Export], ledger: LedgerReader) -> None:
    """Do the same check for a command that changes nothing. It reads the disk and must not run in an event loop.

    Raises:
        LedgerError: see `check_all_recorded`.
        StorageError: the disk cannot be read.
    """
    try:
        paths = [path for export in exports for path in _unrecorded_of(directory, export, ledger)]
    except OSError as error:
        raise StorageError(f"{error.filename or directory} cannot be read: {error.strerror or error}") from error
    if paths:
        raise _not_recorded(directory, paths)


def _unrecorded_of(directory: Path, export: Export, ledger: LedgerReader) -> list[str]:
    days = suspect_days(scan_folder(directory, export).days, ledger.stored_days(export.name))
    if not days:
        return []
    return _paths_without_row(ledger, export=export, days=days, there=archives_of(directory, export, days))


def _paths_without_row(
    queries: LedgerQueries, *, export: Export, days: Sequence[int], there: Sequence[Range]
) -> list[str]:
    """Return the archives that start on these days and have no row, in order."""
    span = Range(days[0], days[-1] + DAY)
    unfinished = queries.recorded_range(export.name, span).unfinished
    unknown = unrecorded(there, queries.stored_ranges(export.name, span), unfinished)
    return [archive_path(Bundle(export.name, one), export.definition.format) for one in unknown]


def _not_recorded(directory: Path, paths: list[str]) -> LedgerError:
    named = ", ".join(paths[:MOST_NAMED])
    rest = f" and {len(paths) - MOST_NAMED:,} more" if len(paths) > MOST_NAMED else ""
    count = "an archive" if len(paths) == 1 else f"{len(paths):,} archives"
    return LedgerError(
        f"{directory} contains {count} that the ledger does not know: {named}{rest}",
        hint="the ledger may be from a backup: run `asyncexport verify --adopt`, which checks the archives and adds "
        "them to the ledger",
    )
