"""Adds archives to the ledger that it does not know (`verify --adopt`).

1. The whole ledger is read first and must be intact.
2. Only an intact archive gets a row, and only if no other archive covers its time and no bundle in progress claims it:
   its rows would be there twice. Otherwise both are reported, and the user decides which one to remove.
3. An archive that is not intact is moved aside, so that its name is free for the next run.
4. The time of the export is not known, so the time at which the file was written is used. The exception is a bundle
   that was ready to download, whose export time the ledger has: a run died between storing the archive and its row, or
   the ledger is older than the archive.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Container, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.directory_diff import TakenTime
from asyncexport.core.exports import Definition, Export
from asyncexport.core.row_rejections import UNTIMED, RowVerdicts, read_untimed
from asyncexport.core.states import IN_PROGRESS, BundleRecord, Overdue, Ready, Refused, Stored
from asyncexport.errors import ArchiveError
from asyncexport.ledger import Ledger, LedgerReader, hold, no_ledger, present
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.findings import Adopted, Damaged, Finding, Overlapping, RulesOff, UnknownExport
from asyncexport.run.parallel_inspection import judged, row_check
from asyncexport.storage import Archives, archive_bundle, archive_path

log = logging.getLogger(__name__)

CLAIMING = (*IN_PROGRESS, Overdue, Refused)
"""States in which a bundle may still get an archive of its own width (rule 2)."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the ledger records about one export.

    Attributes:
        stored: The ranges that are stored.
        claimed: The ranges of bundles that may still get an archive.
        unfinished: The unfinished bundles.
        is_untimed: Whether its archives are not checked for the time of their rows.
    """

    stored: list[Range] = field(default_factory=list)
    claimed: list[Range] = field(default_factory=list)
    unfinished: dict[Bundle, BundleRecord] = field(default_factory=dict)
    is_untimed: bool = False


async def adopt(directory: Path, *, exports: Iterable[Export] = ()) -> AsyncGenerator[Finding, None]:
    """Add the archives to the ledger that it does not know; done when the generator is exhausted.

    Args:
        directory: The output directory.
        exports: The exports of the settings, for folders whose definition is neither in the ledger nor in the folder.

    Raises:
        LedgerLockedError: a run is in progress.
        LedgerError: there is no ledger, or it cannot be read.
        StorageError: the disk cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(Archives(directory))
        await asyncio.to_thread(check_ledger_not_lost, directory)
        if not present(directory):
            raise no_ledger(directory)
        for note in stack.enter_context(hold(directory, command="verify --adopt")):
            log.warning("%s", note)
        recorded, known = await asyncio.to_thread(_recorded, directory)
        known = {one.name: one for one in exports} | {one.name: one for one in await archives.definitions()} | known
        adopted: list[BundleRecord] = []
        for folder in await archives.folders():
            if folder not in known:
                yield UnknownExport(
                    folder, "neither the ledger, the settings nor an .export.json file describe this export"
                )
                continue
            has = recorded.get(folder) or _Recorded()
            async with aclosing(_adopt_export(archives, known[folder], has)) as findings:
                async for finding, record in findings:
                    adopted += [record] if record else []
                    yield finding
        if adopted:
            await _write(directory, [known[name] for name in sorted({one.bundle.export for one in adopted})], adopted)


def _recorded(directory: Path) -> tuple[dict[str, _Recorded], dict[str, Export]]:
    """Return what the ledger records about each export, and its exports, both by name. Call it in a thread."""
    found = {}
    with LedgerReader(directory) as ledger:
        ledger.check()
        known, untimed = ledger.exports(), read_untimed(ledger.recall(UNTIMED))
        for name in known:
            unfinished = {one.bundle: one for one in ledger.unfinished(name, ALL_TIME)}
            claimed = [one.bundle.range for one in unfinished.values() if isinstance(one.state, CLAIMING)]
            found[name] = _Recorded(ledger.stored_ranges(name, ALL_TIME), claimed, unfinished, name in untimed)
    return found, {name: Export(name, definition) for name, definition in known.items()}


async def _adopt_export(
    archives: Archives, export: Export, has: _Recorded
) -> AsyncGenerator[tuple[Finding, BundleRecord | None], None]:
    container = export.definition.format
    taken, untimed = TakenTime([*has.stored, *has.claimed]), {export.name} if has.is_untimed else frozenset[str]()
    checks = (
        _check_archive(archives, path, bundle, export.definition, untimed)
        for path, bundle in _unknown(export, await archives.files(export.name), set(has.stored))
    )
    verdicts = RowVerdicts[tuple[str, Bundle, Stored | Damaged | None]]()
    async with aclosing(judged(checks, verdicts)) as findings:
        async for (path, bundle, result), wrong in findings:
            found = Damaged(await archives.name_aside(path), bundle, str(wrong)) if wrong else result
            if isinstance(found, Damaged):
                await archives.move_aside(path, found.path)
                yield found, None
            if not isinstance(found, Stored):
                continue
            known = has.unfinished.get(bundle)
            # The bundle's own claim ends when it has an archive.
            other = taken.meets(bundle.range, but=bundle.range if known else None)
            if other is not None:
                yield Overlapping(path, bundle, archive_path(Bundle(export.name, other), container)), None
                continue
            taken.add(bundle.range)
            yield Adopted(path, found.rows, found.bytes), _record_of(bundle, found, known)
    if verdicts.are_off:
        yield RulesOff(export.name), None
    elif has.is_untimed:
        yield RulesOff(export.name, is_remembered=True), None


def _record_of(bundle: Bundle, found: Stored, known: BundleRecord | None) -> BundleRecord:
    """Return the record of a bundle with its adopted archive; for a ready bundle the export time is known (rule 4)."""
    if known is None:
        return BundleRecord(bundle, 0, found, found)
    if isinstance(ready := known.state, Ready):
        found = Stored.of(
            found, exported_at=ready.exported_at, asked_at=ready.asked_at, settle_seconds=ready.settle_seconds
        )
    return BundleRecord(bundle, known.revision, found, found)


def _unknown(export: Export, paths: Iterable[str], expected: set[Range]) -> Iterator[tuple[str, Bundle]]:
    """Yield the archives among these files that have no row."""
    for path in paths:
        bundle = archive_bundle(export.name, path, export.definition.format)
        if bundle is not None and bundle.range not in expected:
            yield path, bundle


async def _check_archive(
    archives: Archives, path: str, bundle: Bundle, definition: Definition, untimed: Container[str]
) -> tuple[tuple[str, Bundle, Stored | Damaged | None], RowCheck | None]:
    """Check one archive: return its new state, or the damage, or None if the file disappeared; and the row check."""
    rows = row_check(bundle, definition, untimed=untimed)
    try:
        found = await archives.check(path, definition.format, rules=rows)
    except ArchiveError as error:
        return (path, bundle, Damaged(await archives.name_aside(path), bundle, str(error))), None
    if found is None:
        return (path, bundle, None), None
    return (path, bundle, Stored.of(found, exported_at=await archives.written_at(path))), rows


async def _write(directory: Path, exports: list[Export], records: list[BundleRecord]) -> None:
    ledger = await Ledger.open(directory)
    try:
        await ledger.register(exports)
        await ledger.restore(records, at=time.time())
    finally:
        await ledger.close()
