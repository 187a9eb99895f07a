"""Archives that the ledger knows nothing of: found before anything is exported or overwritten.

A ledger that is older than the archives, from a backup perhaps, or the files of another directory: what a run exported
then would replace these archives unseen, or lie beside them with the same rows once more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.exports import Export
from asyncexport.core.holdings import suspect_days, unrecorded
from asyncexport.errors import LedgerError
from asyncexport.ledger import Ledger
from asyncexport.storage import Archives, ExportFolder, archive_path

MOST_NAMED = 5
"""Archives named one by one; `verify` names all."""


async def check_all_recorded(
    directory: Path,
    exports: Sequence[Export],
    found: Mapping[str, ExportFolder],
    *,
    archives: Archives,
    ledger: Ledger,
) -> None:
    """Make sure that the ledger has a row for each archive of these exports.

    Args:
        directory: The output directory.
        exports: The exports of the run.
        found: What lies in their folders.
        archives: To look closer.
        ledger: The ledger.

    Raises:
        LedgerError: it does not; the first of these archives are named.
        StorageError: the disk cannot be read.
    """
    paths: list[str] = []
    for export in exports:
        days = suspect_days(found[export.name].days, await ledger.stored_days(export.name))
        if days:
            there = await archives.archives_of(export, days)
            span = Range(days[0], days[-1] + DAY)
            stock = await ledger.stock(export.name, span)
            unknown = unrecorded(there, await ledger.stored_ranges(export.name, span), stock.unfinished)
            paths += [archive_path(Bundle(export.name, one), export.definition.format) for one in unknown]
    if paths:
        raise _not_recorded(directory, paths)


def _not_recorded(directory: Path, paths: list[str]) -> LedgerError:
    named = ", ".join(paths[:MOST_NAMED])
    rest = f" and {len(paths) - MOST_NAMED:,} more" if len(paths) > MOST_NAMED else ""
    count = "an archive" if len(paths) == 1 else f"{len(paths):,} archives"
    return LedgerError(
        f"{directory} holds {count} that its ledger knows nothing of: {named}{rest}",
        hint="the ledger may be from a backup: run `asyncexport verify --adopt`, which looks into them and takes them "
        "in",
    )
