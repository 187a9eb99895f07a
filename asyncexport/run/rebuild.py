"""Where the ledger is lost or damaged: what do the archives have to say?

1. A ledger is never silently replaced. A new one is made from the archives and the definitions beside them, and takes
   its place when all of them were read; the old one is moved aside then. Whatever stops it before leaves it as it was.
2. A sound ledger is replaced only by force: it knows more than archives can say. What it knows is then carried over:
   what is under way or parked, when each archive was exported and in which revision, what it remembers.
3. Only a sound archive gets a row. One that is not is moved aside, too, so that the next run may have its name: between
   the old ledger, which may count it as stored, and the new one. No ledger is ever there to count what was moved. Its
   bundle is parked, so that the hole is seen and filled.
4. A folder with archives and without a definition is named: nobody knows what was asked for.
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
from asyncexport.run.parallel_inspection import judged, look_at
from asyncexport.storage import Archives, archive_bundle, archive_path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownBefore:
    """What a sound ledger knows that archives cannot say.

    Attributes:
        definitions: Of its exports, by name.
        stored: Where each bundle with an archive stands.
        unfinished: Bundles whose newest revision has begun and not ended as stored.
        accepted: What was accepted as missing.
        remarks: What it remembers from run to run.
    """

    definitions: dict[str, Definition] = field(default_factory=dict)
    stored: dict[Bundle, BundleRecord] = field(default_factory=dict)
    unfinished: tuple[BundleRecord, ...] = ()
    accepted: tuple[AcceptedGap, ...] = ()
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def untimed(self) -> Container[str]:
        """The exports whose archives are not judged by the time of their rows."""
        return read_untimed(self.remarks.get(UNTIMED))

    def standing(self, bundle: Bundle, archive: Stored) -> BundleRecord:
        """Where a bundle stands whose sound archive was found: as it was known before, if that is of this file."""
        known = self.stored.get(bundle)
        if known is None or known.stored is None or known.stored.sha256 != archive.sha256:
            return BundleRecord(bundle, 0, archive, archive)
        found = replace(known.stored, path=archive.path, bytes=archive.bytes, rows=archive.rows)
        return BundleRecord(bundle, known.revision if isinstance(known.state, Stored) else 0, found, found)


async def rebuild(directory: Path, *, force: bool = False) -> AsyncGenerator[Finding, None]:
    """Make the ledger anew from the archives on disk; in place once the last finding was taken from here.

    Sound archives come as `Intact`, those that are not as `Damaged`, other files as `Unrecorded`; then archives that
    overlap, and folders that no definition goes with. When the service was asked for an archive is not known any more
    unless the old ledger is sound: the moment it was written stands for it.

    Args:
        directory: The output directory.
        force: Replace a sound ledger, too.

    Raises:
        ConfigError: the ledger is sound, and nobody said that it is to be replaced all the same.
        LedgerLockedError: a run is going on.
        LedgerError: there is nothing to make it from, or it is from a newer version.
        StorageError: the disk cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        archives = await stack.enter_async_context(Archives(directory))
        for note in stack.enter_context(hold(directory, command="verify --rebuild")):
            log.warning("%s", note)
        before = await asyncio.to_thread(_known_before, directory, force=force)
        exports, unknown = await _exports(archives, directory, before)
        records: list[BundleRecord] = []
        unsound: list[Damaged] = []
        for export in exports:
            looks = (_look(archives, export, path, before) for path in await archives.files(export.name))
            verdicts = RowVerdicts[tuple[Finding, BundleRecord | None]]()
            async with aclosing(judged(looks, verdicts)) as findings:
                async for look, wrong in findings:
                    finding, record = await _refused(archives, look, wrong) if wrong else look
                    records += [record] if record else []
                    unsound += [finding] if isinstance(finding, Damaged) else []
                    yield finding
            if verdicts.are_off or export.name in before.untimed:
                yield RulesOff(export.name, is_remembered=not verdicts.are_off)
            for overlapping in _overlapping(export, records):
                yield overlapping
        for folder in unknown:
            yield UnknownExport(folder, "it has no .export.json, so its export is unknown")
        formats = {export.name: export.definition.format for export in exports}

        async def move_unsound() -> None:
            for one in unsound:
                await archives.move_aside(archive_path(one.bundle, formats[one.bundle.export]), one.path)

        async with replacement(directory, meanwhile=move_unsound) as ledger:
            await _write_rebuilt(ledger, exports, records, [one.bundle for one in unsound], before)


def _known_before(directory: Path, *, force: bool) -> KnownBefore:
    """What the ledger that lies there knows; nothing where it is lost or damaged. In a thread."""
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
    """The exports to make a ledger of, and the folders of which nobody knows the export."""
    found = {one.name: one for one in await archives.definitions()}
    found |= {name: Export(name, definition) for name, definition in before.definitions.items()}
    if not found:
        raise LedgerError(
            f"{directory} contains no export to make a ledger from",
            hint="each export's folder contains a file .export.json; check [output] directory",
        )
    return list(found.values()), [folder for folder in await archives.folders() if folder not in found]


async def _look(
    archives: Archives, export: Export, path: str, before: KnownBefore
) -> tuple[tuple[Finding, BundleRecord | None], RowCheck | None]:
    """What a file is, where its bundle stands if it is a sound archive, and what its rows tell."""
    bundle = archive_bundle(export.name, path, export.definition.format)
    if bundle is None:
        return (Unrecorded(path), None), None
    look = look_at(bundle, export.definition, untimed=before.untimed)
    try:
        found = await archives.check(path, export.definition.format, rules=look)
    except ArchiveError as error:
        return (Damaged(await archives.name_aside(path), bundle, str(error)), None), None
    if found is None:
        raise StorageError(f"{path} disappeared while it was checked")
    stored = Stored.of(found, exported_at=await archives.written_at(path))
    return (Intact(path, found.rows, found.bytes, look.outside), before.standing(bundle, stored)), look


async def _refused(
    archives: Archives, look: tuple[Finding, BundleRecord | None], wrong: ArchiveError
) -> tuple[Finding, None]:
    """The same for an archive that is refused for its rows."""
    finding, record = look
    if record is None:
        return finding, None
    return Damaged(await archives.name_aside(finding.path), record.bundle, str(wrong)), None


def _overlapping(export: Export, records: Iterable[BundleRecord]) -> list[Overlapping]:
    """Of the archives of one export, those that overlap an earlier one."""

    def path(span: Range) -> str:
        return archive_path(Bundle(export.name, span), export.definition.format)

    spans = sorted(one.bundle.range for one in records if one.bundle.export == export.name)
    return [Overlapping(path(later), Bundle(export.name, later), path(earlier)) for earlier, later in overlaps(spans)]


async def _write_rebuilt(
    ledger: Ledger, exports: list[Export], records: list[BundleRecord], unsound: list[Bundle], before: KnownBefore
) -> None:
    now = time.time()
    await ledger.register(exports)
    await ledger.restore(records, at=now)
    stored = {one.bundle: one.stored for one in records}
    # A bundle that was under way and whose archive is there after all died between its archive and its row.
    over = {one.bundle for one in before.unfinished if one.stored is None and one.bundle in stored}
    still = (one for one in before.unfinished if one.bundle not in over)
    unfinished = {one.bundle: replace(one, stored=stored.get(one.bundle)) for one in still}
    for bundle in unsound:
        known = unfinished.get(bundle)
        if known is None or not isinstance(known.state, IN_PROGRESS):
            unfinished[bundle] = BundleRecord(bundle, known.revision if known else 0, Failed(MOVED_ASIDE))
    # What an earlier run left between attempts, and what gave way to narrower bundles, is a gap like any other.
    left = (one for one in unfinished.values() if one.stored or not isinstance(one.state, Planned | Split))
    await asyncio.gather(*(ledger.append(one, at=now) for one in left))
    for gap in before.accepted:
        await ledger.accept(gap)
    for key, value in before.remarks.items():
        ledger.remember(key, value)
    # What was spent before is not known any more: better to wait for tokens than to be refused.
    ledger.assume_spent(at=now)
