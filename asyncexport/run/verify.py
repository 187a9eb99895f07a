"""Checks the archives against the ledger.

1. The whole ledger is read first and must be intact.
2. Every archive is read to its end, and its hash, gzip checksums, structure and rows are compared with the ledger. This
   works during a run: an archive that the run replaced meanwhile is checked again, and one that it is about to record
   is left out.
3. A check changes nothing. A repair is an ordinary run that starts a new revision of each broken bundle.
4. Everything else in the folders is reported and left alone: files that are not in the ledger, and folders of unknown
   exports.
5. Archives of an export whose ranges overlap are reported: they contain the same rows twice, even if both are intact.
"""

import asyncio
from collections.abc import AsyncGenerator, Container, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import ALL_TIME, Bundle
from asyncexport.core.directory_diff import may_have_archive
from asyncexport.core.exports import Definition, Format
from asyncexport.core.parking import MOVED_ASIDE
from asyncexport.core.row_rejections import UNTIMED, RowVerdicts, read_untimed
from asyncexport.core.states import BundleRecord, Failed, Ready
from asyncexport.errors import ArchiveError, LedgerError
from asyncexport.ledger import LedgerReader
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.findings import (
    Broken,
    Finding,
    Intact,
    Missing,
    Overlapping,
    RulesOff,
    UnknownExport,
    Unrecorded,
)
from asyncexport.run.parallel_inspection import judged, row_check
from asyncexport.storage import Archives, archive_bundle, archive_path


async def verify(directory: Path, *, exports: Iterable[str] = ()) -> AsyncGenerator[Finding, None]:
    """Check every archive of these exports (of all exports if empty), and report other files.

    Raises:
        LedgerError: there is no ledger, it cannot be read, or it does not know one of the exports.
        LedgerCorruptError: the ledger is damaged.
        StorageError: the disk cannot be read.
    """
    names = set(exports)
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(Archives(directory))
        await asyncio.to_thread(check_ledger_not_lost, directory)
        ledger = stack.enter_context(LedgerReader(directory))
        await _wait_to_the_end(asyncio.to_thread(ledger.check))
        known = ledger.exports()
        if unknown := sorted(names - set(known)):
            raise LedgerError(f"the ledger of {directory} knows no export {unknown[0]!r}")
        untimed = read_untimed(ledger.recall(UNTIMED))
        for name, definition in known.items():
            if not names or name in names:
                async with aclosing(_verify_export(archives, ledger, name, definition, untimed)) as findings:
                    async for finding in findings:
                        yield finding
        if not names:
            for folder in await archives.folders():
                if folder not in known:
                    yield UnknownExport(folder, "the ledger knows no export of this name")


async def _wait_to_the_end(reading: Coroutine[Any, Any, None]) -> None:
    """Wait for a thread that reads the ledger, even if cancelled: the ledger must not be closed meanwhile."""
    doing = asyncio.ensure_future(reading)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


async def _verify_export(
    archives: Archives, ledger: LedgerReader, name: str, definition: Definition, untimed: Container[str]
) -> AsyncGenerator[Finding, None]:
    expected: set[str] = set()
    container, verdicts = definition.format, RowVerdicts[tuple[Finding, BundleRecord]]()

    def checks() -> Iterator[Coroutine[Any, Any, tuple[tuple[Finding, BundleRecord], RowCheck | None]]]:
        for record in ledger.stored(name, ALL_TIME):
            if record.stored:
                expected.add(record.stored.path)
                yield _check(archives, ledger, record, definition, untimed)

    async with aclosing(judged(checks(), verdicts)) as findings:
        async for (finding, record), wrong in findings:
            yield Broken(finding.path, record, str(wrong)) if wrong and isinstance(finding, Intact) else finding
    if verdicts.are_off or name in untimed:
        yield RulesOff(name, is_remembered=not verdicts.are_off)
    for one in ledger.unfinished(name, ALL_TIME):
        if isinstance(one.state, Failed) and one.stored is None and one.state.reason == MOVED_ASIDE:
            yield Missing(archive_path(one.bundle, container), one)
    for earlier, later in ledger.overlaps(name):
        bundle = Bundle(name, later)
        yield Overlapping(archive_path(bundle, container), bundle, archive_path(Bundle(name, earlier), container))
    for path in await archives.files(name):
        if path not in expected:
            of = archive_bundle(name, path, container)
            if of is None or not _is_known_by_now(ledger, of):
                yield Unrecorded(path, is_archive=of is not None)


async def _check(
    archives: Archives, ledger: LedgerReader, record: BundleRecord, definition: Definition, untimed: Container[str]
) -> tuple[tuple[Finding, BundleRecord], RowCheck | None]:
    """Check one archive: return the finding with the record it was compared with, and the row check if it is intact."""
    rows = row_check(record.bundle, definition, untimed=untimed)
    finding = await _compare(archives, record, definition.format, rows)
    if not isinstance(finding, Intact):
        # A run may have replaced the archive after its record was read: compare it with the current record.
        again = _record_of(ledger, record.bundle) or record
        if again != record:
            record, rows = again, row_check(record.bundle, definition, untimed=untimed)
            finding = await _compare(archives, record, definition.format, rows)
    return (finding, record), rows if isinstance(finding, Intact) else None


async def _compare(archives: Archives, record: BundleRecord, container: Format, rows: RowCheck) -> Finding:
    stored = record.stored
    if stored is None:
        raise AssertionError("only what is stored is compared")
    try:
        found = await archives.check(stored.path, container, rules=rows)
    except ArchiveError as error:
        return Broken(stored.path, record, str(error))
    if found is None:
        return Missing(stored.path, record)
    if found.sha256 == stored.sha256 and found.rows != stored.rows:
        return Broken(stored.path, record, f"it has {found.rows} rows instead of {stored.rows}")
    # A new revision's file is renamed shortly before its row is written. Until then it can only be checked by itself.
    if found.sha256 != stored.sha256 and not isinstance(record.state, Ready):
        return Broken(stored.path, record, "its bytes differ from those that were stored")
    return Intact(stored.path, found.rows, found.bytes, rows.outside)


def _record_of(ledger: LedgerReader, bundle: Bundle) -> BundleRecord | None:
    stored = ledger.stored(bundle.export, bundle.range)
    return next((record for record in stored if record.bundle == bundle), None)


def _is_known_by_now(ledger: LedgerReader, bundle: Bundle) -> bool:
    """Return whether a run has stored the bundle after the ledger was read, or is about to."""
    unfinished = ledger.unfinished(bundle.export, bundle.range)
    in_progress = any(one.bundle == bundle and may_have_archive(one) for one in unfinished)
    return in_progress or _record_of(ledger, bundle) is not None
