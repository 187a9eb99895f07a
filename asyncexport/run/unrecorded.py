"""Archives that the ledger knows nothing of: found before anything is exported or overwritten.

A ledger that is older than the archives, from a backup perhaps, or the files of another directory: what a run exported
then would replace these archives unseen, or lie beside them with the same rows once more.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.exports import Export
from asyncexport.core.holdings import suspect_days, unrecorded
from asyncexport.errors import LedgerError, StorageError
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.storage import Archives, ExportFolder, archive_path, archives_of, look_into

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
    known = asyncio.gather(*(ledger.stored_days(export.name) for export in exports))
    found, recorded = await asyncio.gather(archives.look_into(exports), known)
    paths: list[str] = []
    for export, stored_days in zip(exports, recorded, strict=True):
        if days := suspect_days(found[export.name].days, stored_days):
            there, span = await archives.archives_of(export, days), Range(days[0], days[-1] + DAY)
            stock = await ledger.stock(export.name, span)
            unknown = unrecorded(there, await ledger.stored_ranges(export.name, span), stock.unfinished)
            paths += _paths(export, unknown)
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
    days = suspect_days(look_into(directory, export).days, ledger.stored_days(export.name))
    if not days:
        return []
    there, span = archives_of(directory, export, days), Range(days[0], days[-1] + DAY)
    unfinished = ledger.stock(export.name, span).unfinished
    return _paths(export, unrecorded(there, ledger.stored_ranges(export.name, span), unfinished))


def _paths(export: Export, spans: list[Range]) -> list[str]:
    return [archive_path(Bundle(export.name, one), export.definition.format) for one in spans]


def _not_recorded(directory: Path, paths: list[str]) -> LedgerError:
    named = ", ".join(paths[:MOST_NAMED])
    rest = f" and {len(paths) - MOST_NAMED:,} more" if len(paths) > MOST_NAMED else ""
    count = "an archive" if len(paths) == 1 else f"{len(paths):,} archives"
    return LedgerError(
        f"{directory} holds {count} that its ledger knows nothing of: {named}{rest}",
        hint="the ledger may be from a backup: run `asyncexport verify --adopt`, which looks into them and takes them "
        "in",
    )
