"""Pairs what the ledger lists with what the bucket holds, for mirrors and for their check.

1. The ledger says what the bucket should have: the archive of every bundle of every export. The definition of each
   export is added, so that the bucket alone is enough to rebuild a ledger.
2. One listing of an export's folder says what the bucket has: a request per 1,000 objects. It is in memory meanwhile,
   about 35 MB for 100,000 objects.
3. The ledger is only read, and a run may go on meanwhile.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson

from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.exports import Definition
from asyncexport.core.mirror.objects import Held, Step, Wanted, step_for
from asyncexport.core.mirror.seen import seen_digest
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.errors import ChangedArchiveError, OddNameError
from asyncexport.ledger import LedgerReader
from asyncexport.mirror.archive_file import opened
from asyncexport.mirror.seen_file import SeenFile
from asyncexport.storage import DEFINITION_NAME

if TYPE_CHECKING:
    from asyncexport.mirror.store import MirrorStore

PAGE = 500
"""Archives that are compared at a time."""

MOST_DEFINITION_BYTES = 1 << 20

UNREAD = Held(-1)
"""An object that may be there or not."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Orphans = Callable[[list[str]], None]

Failed = Callable[[ChangedArchiveError], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """A file, and the object of the same name.

    Attributes:
        wanted: The file.
        held: The object; None if there is none.
        bundle: The bundle of the archive; None if the file is a definition.
        is_known: Whether the object is known to be right from before.
    """

    wanted: Wanted
    held: Held | None
    bundle: Bundle | None = None
    is_known: bool = False


class MirrorPairs:
    """The pairs of one output directory and one bucket.

    Args:
        directory: The output directory.
        ledger: Its ledger.
        store: The bucket.
        seen: The objects that were found to be right.
    """

    def __init__(self, directory: Path, ledger: LedgerReader, store: "MirrorStore", seen: SeenFile) -> None:
        self._directory = directory
        self._ledger = ledger
        self._store = store
        self._seen = seen
        self._earlier: tuple[str, dict[Range, set[str]]] = ("", {})
        self._reading = asyncio.Lock()

    async def exports(self) -> list[str]:
        """Return the names of the exports that the ledger knows."""
        return await self._read(lambda ledger: list(ledger.exports()))

    async def count(self) -> int:
        """Return the number of files that the bucket should have, the definitions included."""
        return await self._read(_count)

    async def pages(self, export: str, *, orphans: Orphans, failed: Failed) -> AsyncIterator[list[Pair]]:
        """Yield the pairs of an export, some at a time.

        Args:
            export: The name of the export.
            orphans: Called at the end with the names of the objects that have no file.
            failed: Called if the definition cannot be read.

        Raises:
            LedgerError: the ledger cannot be read.
            MirrorError: the bucket cannot be listed.
        """
        records = self._ledger.stored(export, ALL_TIME)
        page = await self._read(lambda _: list(islice(records, PAGE)))
        if not page:
            return
        held, absent = await self._listed(export)
        try:
            definition = await asyncio.to_thread(self._definition, export)
            yield [self._pair(definition, held.pop(definition.path, absent))]
        except ChangedArchiveError as error:
            held.pop(error.path, None)
            failed(error)
        while page:
            yield [
                self._pair(wanted_of(one.stored), held.pop(one.stored.path, absent), one.bundle)
                for one in page
                if one.stored is not None
            ]
            page = await self._read(lambda _: list(islice(records, PAGE)))
        orphans(sorted(held))

    async def step(self, pair: Pair, held: Held | None) -> Step:
        """Return what is to be done with an object.

        Raises:
            ChangedArchiveError: a run has replaced the archive since the pair was made, and the object as well.
            LedgerError: the ledger cannot be read.
            MirrorError: the store failed.
        """
        step = step_for(pair.wanted, held, ())
        if step is not Step.REFUSE:
            return step
        if pair.bundle is None:
            return Step.KEEP if await self._defines_the_same(pair.wanted) else Step.REFUSE
        step = step_for(pair.wanted, held, await self._earlier_hashes(pair.bundle))
        if step is Step.REFUSE and (await self.renewed(pair)).wanted != pair.wanted:
            self._earlier = ("", {})
            path = pair.wanted.path
            raise ChangedArchiveError(f"{path} was replaced by a run, and mirrored, at this moment", path=path)
        return step

    async def current(self, bundle: Bundle) -> BundleRecord | None:
        """Return the record of a bundle as it is by now."""
        found = await self._read(lambda ledger: list(ledger.stored(bundle.export, bundle.range)))
        return next((one for one in found if one.bundle == bundle), None)

    async def renewed(self, pair: Pair) -> Pair:
        """Return a pair with the archive that its bundle has by now."""
        record = None if pair.bundle is None else await self.current(pair.bundle)
        if record is None or record.stored is None:
            return pair
        return replace(pair, wanted=wanted_of(record.stored))

    def digest(self, wanted: Wanted, held: Held) -> str | None:
        """Return the digest under which an object is remembered as right."""
        return seen_digest(self._store.url, wanted, held)

    async def _listed(self, export: str) -> tuple[dict[str, Held], Held | None]:
        """Return the objects of an export by name, and what stands for an object that is not among them."""
        try:
            return await self._store.listed(export), None
        except OddNameError as error:
            log.warning("%s; each object is examined by its name instead, and orphans are not found", error)
            return {}, UNREAD

    def _pair(self, wanted: Wanted, held: Held | None, bundle: Bundle | None = None) -> Pair:
        is_known = held is not None and held.bytes == wanted.bytes and self._seen.has(self.digest(wanted, held))
        return Pair(wanted, held, bundle, is_known)

    def _definition(self, export: str) -> Wanted:
        path = f"{export}/{DEFINITION_NAME}"
        content = self._content(path)
        return Wanted(path, len(content), sha256(content).hexdigest())

    def _content(self, path: str) -> bytes:
        try:
            with opened(self._directory / path) as file:
                return file.read()
        except OSError as error:
            raise ChangedArchiveError(
                f"{path} was not uploaded: it cannot be read: {error.strerror or error}",
                path=path,
                hint="a run of this export writes it again",
            ) from error

    async def _defines_the_same(self, wanted: Wanted) -> bool:
        """Whether the object of a definition defines the same export as the file, however it is written."""
        there = await self._store.content(wanted.path, most=MOST_DEFINITION_BYTES)
        here = await asyncio.to_thread(self._content, wanted.path)
        return there is not None and _defined(there) == _defined(here) is not None

    async def _earlier_hashes(self, bundle: Bundle) -> set[str]:
        """Return the hashes of all archives that the bundle has had, if it has had several."""
        if self._earlier[0] != bundle.export:
            self._earlier = bundle.export, await self._read(lambda ledger: ledger.stored_hashes(bundle.export))
        return self._earlier[1].get(bundle.range, set())

    async def _read(self, query: Callable[[LedgerReader], T]) -> T:
        """Read the ledger in a thread, one query at a time, to its end even if cancelled."""
        async with self._reading:
            reading = asyncio.ensure_future(asyncio.to_thread(query, self._ledger))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                # The ledger must not be closed while a thread reads it.
                await asyncio.wait([reading])
                raise


def _count(ledger: LedgerReader) -> int:
    archives = [ledger.count_stored(name, ALL_TIME) for name in ledger.exports()]
    return sum(archives) + sum(map(bool, archives))


def wanted_of(stored: Stored) -> Wanted:
    """Return an archive as a file that the bucket should have."""
    return Wanted(stored.path, stored.bytes, stored.sha256)


def _defined(content: bytes) -> Definition | None:
    with suppress(ValueError, KeyError, TypeError):
        return Definition.from_dict(orjson.loads(content))
    return None
