"""Compares the mirror with the ledger; changes nothing (`mirror --check`)."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asyncexport.config import Settings
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import Step, difference
from asyncexport.errors import ChangedArchiveError
from asyncexport.run.mirror_pairs import UNREAD, Pair
from asyncexport.run.mirror_place import OpenMirror, open_mirror, open_store

if TYPE_CHECKING:
    from asyncexport.mirror.store import MirrorStore

KINDS = {Step.ADD: "missing", Step.REPLACE: "differs", Step.REFUSE: "foreign"}


@dataclass(frozen=True, slots=True)
class MirrorDifference:
    """A file or an object that has no equal on the other side.

    Attributes:
        path: Its path in the output directory, which is also the name of the object.
        kind: `missing`, `differs`, `foreign`, `orphan` or `broken`.
        reason: How it differs.
    """

    path: str
    kind: str
    reason: str


async def check_mirror(
    settings: Settings, *, limits: MirrorLimits | None = None
) -> AsyncGenerator[MirrorDifference, None]:
    """Yield how the bucket differs from what the ledger lists.

    An object in the folder of an export, without a file in the ledger, is an orphan. Other folders are not listed: the
    bucket may hold anything else.

    Raises:
        ConfigError: the settings cannot be used, or a library is missing.
        LedgerError: the ledger is missing or damaged.
        MirrorError: the object store failed.
        StorageError: the disk cannot be read.
    """
    store = open_store(settings, limits or MirrorLimits())
    await store.check_key()
    async with open_mirror(settings.output.directory, store, reads_only=True) as one:
        for export in await one.pairs.exports():
            orphans: list[str] = []
            broken: list[ChangedArchiveError] = []
            async for page in one.pairs.pages(export, orphans=orphans.extend, failed=broken.append):
                for pair in page:
                    found = None if pair.is_known else await _difference(one, store, pair)
                    if found is not None:
                        yield found
            for error in broken:
                yield MirrorDifference(error.path, "broken", str(error))
            for path in orphans:
                yield MirrorDifference(path, "orphan", "the ledger has no such file")


async def _difference(one: OpenMirror, store: "MirrorStore", pair: Pair) -> MirrorDifference | None:
    found = await _compared(one, store, pair)
    if found is None:
        return None
    # A run may have replaced and mirrored the archive after its record was read.
    renewed = await one.pairs.renewed(pair)
    return found if renewed.wanted == pair.wanted else await _compared(one, store, replace(renewed, held=UNREAD))


async def _compared(one: OpenMirror, store: "MirrorStore", pair: Pair) -> MirrorDifference | None:
    path, held = pair.wanted.path, pair.held
    try:
        step = await one.pairs.step(pair, held)
        if step is Step.READ:
            held = await store.examined(path)
            step = await one.pairs.step(pair, held)
    except ChangedArchiveError as error:
        return MirrorDifference(path, KINDS[Step.REPLACE], str(error))
    return None if step is Step.KEEP else MirrorDifference(path, KINDS[step], difference(pair.wanted, held, step))
