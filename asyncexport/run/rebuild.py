"""Makes a new ledger from the archives if the old one is lost or damaged (`verify --rebuild`).

1. A ledger is never replaced silently. The new one is made from the archives and the definitions next to them. After
   all of them were read, it takes the place of the old one, which is moved aside. If the rebuild stops earlier, the old
   ledger stays as it was.
2. An intact ledger is replaced only with `--force`, because it knows more than the archives. What it knows is then
   copied: bundles in progress or parked, the export time and the revision of each archive, and its notes.
3. Only an intact archive gets a row. Any other archive is moved aside, so that its name is free for the next run. This
   happens while neither ledger is in place, so that no ledger ever counts a moved archive as stored. Its bundle is
   parked, so that the gap is visible and will be filled.
4. A folder with archives but without a definition is reported, because its export is unknown.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Container, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from asyncexport.core.archive.expected_rows import RowCheck
from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.directory_diff import overlaps
from asyncexport.core.exports import Definition, Export
from asyncexport.core.parking import MOVED_ASIDE
from asyncexport.core.row_rejections import UNTIMED, RowVerdicts, read_untimed
from asyncexport.core.states import IN_PROGRESS, BundleRecord, Failed, Planned, Split, Stored
from asyncexport.errors import ArchiveError, ConfigError, LedgerCorruptError, LedgerError, Problem, StorageError
from asyncexport.ledger import AcceptedGap, Ledger, LedgerReader, hold, present
from asyncexport.ledger.replace import replacement
from asyncexport.run.findings import (
    Damaged,
    Finding,
    Intact,
    Overlapping,
    RulesOff,
    UnknownExport,
    Unrecorded,
)
from asyncexport.run.parallel_inspection import judged, row_check
from asyncexport.storage import Archives, archive_bundle, archive_path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownBefore:
    """What an intact ledger knows and the archives do not.

    Attributes:
        definitions: Of its exports, by name.
        stored: The record of each bundle with an archive.
        unfinished: Bundles whose newest revision was started and is not stored.
        accepted: The gaps that the user accepted.
        notes: The notes that runs leave for later runs.
    """

    definitions: dict[str, Definition] = field(default_factory=dict)
    stored: dict[Bundle, BundleRecord] = field(default_factory=dict)
    unfinished: tuple[BundleRecord, ...] = ()
    accepted: tuple[AcceptedGap, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def untimed(self) -> Container[str]:
        """The exports whose archives are not checked for the time of their rows."""
        return read_untimed(self.notes.get(UNTIMED))

    def record_of(self, bundle: Bundle, archive: Stored) -> BundleRecord:
        """Return the record of a bundle with its intact archive; known facts are kept if they belong to this file."""
        known = self.stored.get(bundle)
        if known is None or known.stored is None or known.stored.sha256 != archive.sha256:
            return BundleRecord(bundle, 0, archive, archive)
        found = replace(known.stored, path=archive.path, bytes=archive.bytes, rows=archive.rows)
        return BundleRecord(bundle, known.revision if isinstance(known.state, Stored) else 0, found, found)


async def rebuild(directory: Path, *, force: bool = False) -> AsyncGenerator[Finding, None]:
    """Make a new ledger from the archives on disk; it is in place when the generator is exhausted.

    Yields intact archives as `Intact`, others as `Damaged`, other files as `Unrecorded`, and then overlapping archives
    and folders without a definition. Unless the old ledger is intact, the time at which an archive was written is used
    as its export time, which is not known.

    Args:
        directory: The output directory.
        force: Whether to replace an intact ledger.

    Raises:
        ConfigError: the ledger is intact, and `force` is not set.
        LedgerLockedError: a run is in progress.
        LedgerError: there is nothing to make a ledger from, or the ledger is from a newer version.
        StorageError: the disk cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(Archives(directory))
        for note in stack.enter_context(hold(directory, command="verify --rebuild")):
            log.warning("%s", note)
        before = await asyncio.to_thread(_known_before, directory, force=force)
        exports, unknown = await _exports(archives, directory, before)
        records: list[BundleRecord] = []
        damaged: list[Damaged] = []
        for export in exports:
            checks = (_check_archive(archives, export, path, before) for path in await archives.files(export.name))
            verdicts = RowVerdicts[tuple[Finding, BundleRecord | None]]()
            async with aclosing(judged(checks, verdicts)) as findings:
                async for result, wrong in findings:
                    finding, record = await _rejected(archives, result, wrong) if wrong else result
                    records += [record] if record else []
                    damaged += [finding] if isinstance(finding, Damaged) else []
                    yield finding
            if verdicts.are_off or export.name in before.untimed:
                yield RulesOff(export.name, is_remembered=not verdicts.are_off)
            for overlapping in _overlapping(export, records):
                yield overlapping
        for folder in unknown:
            yield UnknownExport(folder, "it has no .export.json, so its export is unknown")
        formats = {export.name: export.definition.format for export in exports}

        async def move_damaged() -> None:
            for one in damaged:
                await archives.move_aside(archive_path(one.bundle, formats[one.bundle.export]), one.path)

        async with replacement(directory, meanwhile=move_damaged) as ledger:
            await _write_rebuilt(ledger, exports, records, [one.bundle for one in damaged], before)


def _known_before(directory: Path, *, force: bool) -> KnownBefore:
    """Return what the old ledger knows, or nothing if it is lost or damaged. Call it in a thread."""
    if not present(directory):
        return KnownBefore()
    try:
        with LedgerReader(directory) as ledger:
            ledger.check()
            if not force:
                raise ConfigError(
                    [Problem("--rebuild", f"the ledger of {directory} is intact and knows more than the archives do")],
                    hint="`asyncexport verify --adopt` adds archives that it does not know; --force replaces it",
                )
            names = ledger.exports()
            return KnownBefore(
                names,
                {one.bundle: one for name in names for one in ledger.stored(name, ALL_TIME)},
                tuple(one for name in names for one in ledger.unfinished(name, ALL_TIME)),
                tuple(ledger.accepted()),
                ledger.notes(),
            )
    except LedgerCorruptError:
        return KnownBefore()


async def _exports(archives: Archives, directory: Path, before: KnownBefore) -> tuple[list[Export], list[str]]:
    """Return the exports for the new ledger, and the folders of unknown exports."""
    found = {one.name: one for one in await archives.definitions()}
    found |= {name: Export(name, definition) for name, definition in before.definitions.items()}
    if not found:
        raise LedgerError(
            f"{directory} contains no export to make a ledger from",
            hint="each export's folder contains a file .export.json; check [output] directory",
        )
    return list(found.values()), [folder for folder in await archives.folders() if folder not in found]


async def _check_archive(
    archives: Archives, export: Export, path: str, before: KnownBefore
) -> tuple[tuple[Finding, BundleRecord | None], RowCheck | None]:
    """Check one file: return the finding, the record of its bundle if it is an intact archive, and its row check."""
    bundle = archive_bundle(export.name, path, export.definition.format)
    if bundle is None:
        return (Unrecorded(path), None), None
    rows = row_check(bundle, export.definition, untimed=before.untimed)
    try:
        found = await archives.check(path, export.definition.format, rules=rows)
    except ArchiveError as error:
        return (Damaged(await archives.name_aside(path), bundle, str(error)), None), None
    if found is None:
        raise StorageError(f"{path} disappeared while it was checked")
    stored = Stored.of(found, exported_at=await archives.written_at(path))
    return (Intact(path, found.rows, found.bytes, rows.outside), before.record_of(bundle, stored)), rows


async def _rejected(
    archives: Archives, result: tuple[Finding, BundleRecord | None], wrong: ArchiveError
) -> tuple[Finding, None]:
    """Return the finding for an archive that is rejected for its rows."""
    finding, record = result
    if record is None:
        return finding, None
    return Damaged(await archives.name_aside(finding.path), record.bundle, str(wrong)), None


def _overlapping(export: Export, records: Iterable[BundleRecord]) -> list[Overlapping]:
    """Return the archives of an export that overlap an earlier one."""

    def path(span: Range) -> str:
        return archive_path(Bundle(export.name, span), export.definition.format)

    spans = sorted(one.bundle.range for one in records if one.bundle.export == export.name)
    return [Overlapping(path(later), Bundle(export.name, later), path(earlier)) for earlier, later in overlaps(spans)]


async def _write_rebuilt(
    ledger: Ledger, exports: list[Export], records: list[BundleRecord], damaged: list[Bundle], before: KnownBefore
) -> None:
    now = time.time()
    await ledger.register(exports)
    await ledger.restore(records, at=now)
    stored = {one.bundle: one.stored for one in records}
    # A bundle in progress whose archive exists: the run died between storing the archive and its row.
    over = {one.bundle for one in before.unfinished if one.stored is None and one.bundle in stored}
    still = (one for one in before.unfinished if one.bundle not in over)
    unfinished = {one.bundle: replace(one, stored=stored.get(one.bundle)) for one in still}
    for bundle in damaged:
        known = unfinished.get(bundle)
        if known is None or not isinstance(known.state, IN_PROGRESS):
            unfinished[bundle] = BundleRecord(bundle, known.revision if known else 0, Failed(MOVED_ASIDE))
    # Bundles between two attempts, and bundles that were split, are ordinary gaps.
    left = (one for one in unfinished.values() if one.stored or not isinstance(one.state, Planned | Split))
    await asyncio.gather(*(ledger.append(one, at=now) for one in left))
    for gap in before.accepted:
        await ledger.accept(gap)
    for key, value in before.notes.items():
        ledger.remember(key, value)
    # It is not known how many requests were sent lately: assume an empty bucket rather than risk a 429.
    ledger.assume_spent(at=now)
