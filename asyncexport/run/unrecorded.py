"""Archives that the ledger knows nothing of: found before anything is exported or overwritten.

A ledger that is older than the archives, from a backup perhaps, or the files of another directory: what a run exported
then would replace these archives unseen, or lie beside them with the same rows once more.
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
"""Archives named one by one; `verify` names all."""


async def check_all_recorded(
    directory: Path, exports: Sequence[Export], *, archives: Archives, ledger: Ledger
) -> dict[str, ExportFolder]:
    """Make sure that the ledger has a row for each archive of these exports.

    Args:
        directory: The output directory.
        exports: The exports of the run.
        archives: What lies there.
        ledger: The ledger.

    Returns:
        What lies in the folders of these exports, by their names.

    Raises:
        LedgerError: it has not; the first of these archives are named.
        StorageError: the disk cannot be read.
    """
    # The two take about as long, and neither waits for the other.
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
    """The same for a command that changes nothing. It reads the disk: not for an event loop.

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
    """Of the archives that lie there and begin on these days, in order, those that no row explains."""
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
