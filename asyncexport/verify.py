"""Are the archives what the ledger says? And where the ledger is lost: what does it have to say?

1. Every archive is read to its end: its digest, its gzip checksums, its structure and its rows are compared with the
   ledger. It can be done while a run is going on: what a run replaced meanwhile is looked at once more.
2. Nothing is changed by checking. A repair is an ordinary run, which opens a new take for what is broken.
3. A ledger is never silently replaced: a damaged one is moved aside, and a new one is made from the archives and the
   definitions beside them. Only a sound archive gets a row. One that is not is moved aside, too, so that the next run
   may have its name.
4. Whatever else lies in the folders is named, and left alone.
"""

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Export, Format
from asyncexport.core.states import Standing, Stored
from asyncexport.errors import ArchiveError, LedgerError
from asyncexport.ledger import Ledger, LedgerReader, hold, present, set_aside
from asyncexport.storage import Archives

FAR = Range(0, 2**40)
"""All of time, as far as anybody here is concerned."""


@dataclass(frozen=True, slots=True)
class Sound:
    """An archive that is what the ledger says."""

    path: str
    rows: int


@dataclass(frozen=True, slots=True)
class Missing:
    """The ledger has an archive that the disk has not."""

    path: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class Broken:
    """An archive that is not what the ledger says."""

    path: str
    standing: Standing
    reason: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A file that the ledger knows nothing of."""

    path: str


Finding = Sound | Missing | Broken | Foreign


async def verify(directory: Path, *, exports: Iterable[str] = ()) -> AsyncIterator[Finding]:
    """Check every archive of these exports (none named: of all), and name what else lies there.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
        StorageError: the disk cannot be read.
    """
    archives = Archives(directory)
    with LedgerReader(directory) as ledger:
        known = ledger.exports()
        chosen = [name for name in known if not exports or name in set(exports)]
        for name in chosen:
            expected: set[str] = set()
            for standing in ledger.stored(name, FAR):
                if standing.stored:
                    expected.add(standing.stored.path)
                    yield await _check(archives, ledger, standing, known[name].format)
            for path in await archives.files(name):
                if path not in expected and not _is_stored_by_now(ledger, name, path):
                    yield Foreign(path)


async def rebuild(directory: Path) -> AsyncIterator[Finding]:
    """Make the ledger anew from the archives on disk; the old one, if there is one, is moved aside first.

    Sound archives come as `Sound`, others as `Foreign`: moved aside as `….damaged` where they were archives of ours.

    Raises:
        LedgerLockedError: a run is going on.
        StorageError: the disk cannot be read or written.
    """
    archives = Archives(directory)
    with hold(directory, command="verify --rebuild"):
        exports = await archives.definitions()
        if not exports:
            raise LedgerError(
                f"{directory} holds no export to make a ledger from",
                hint="each export's folder has a file .export.json; check [output] directory",
            )
        if present(directory):
            set_aside(directory)
        ledger = await Ledger.open(directory)
        try:
            await ledger.agree(exports)
            for export in exports:
                async for finding in _rebuild_export(archives, ledger, export):
                    yield finding
            # What was spent before is not known any more: better to wait for tokens than to be refused.
            request = await ledger.send("other", at=time.time())
            ledger.answered(request, status=429)
        finally:
            await ledger.close()


async def _check(archives: Archives, ledger: LedgerReader, standing: Standing, container: Format) -> Finding:
    finding = await _compare(archives, standing, container)
    if isinstance(finding, Sound):
        return finding
    # A run may have replaced it between our look at the ledger and our look at the disk.
    again = next(
        (one for one in ledger.stored(standing.bundle.export, standing.bundle.range) if one.bundle == standing.bundle),
        standing,
    )
    return finding if again.stored == standing.stored else await _compare(archives, again, container)


async def _compare(archives: Archives, standing: Standing, container: Format) -> Finding:
    stored = standing.stored
    if stored is None:
        raise AssertionError("only what is stored is compared")
    try:
        found = await archives.check(stored.path, container)
    except FileNotFoundError:
        return Missing(stored.path, standing)
    except ArchiveError as error:
        return Broken(stored.path, standing, str(error))
    if found.sha256 != stored.sha256:
        return Broken(stored.path, standing, "its bytes are not those that were stored")
    if found.rows != stored.rows:
        return Broken(stored.path, standing, f"it has {found.rows} rows, and {stored.rows} were counted")
    return Sound(stored.path, found.rows)


def _is_stored_by_now(ledger: LedgerReader, export: str, path: str) -> bool:
    """Whether a run stored it after the ledger was read."""
    span = Archives.span_of(path)
    if span is None:
        return False
    return any(one.stored and one.stored.path == path for one in ledger.stored(export, span))


async def _rebuild_export(archives: Archives, ledger: Ledger, export: Export) -> AsyncIterator[Finding]:
    for path in await archives.files(export.name):
        span = archives.span_of(path)
        if span is None:
            yield Foreign(path)
            continue
        try:
            found = await archives.check(path, export.definition.format)
        except ArchiveError:
            yield Foreign(await archives.move_aside(path))
            continue
        stored = Stored(path, found.bytes, found.rows, found.sha256, exported_at=await archives.written_at(path))
        await ledger.restore([Standing(Bundle(export.name, span), 0, stored, stored)], at=time.time())
        yield Sound(path, found.rows)
