"""Uploads one file of a mirror after the other, or finds that the bucket has it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import ConflictError, Held, Step, Wanted, foreign_reason
from asyncexport.core.mirror.tally import GIVES_UP_AFTER, MirrorEvent, MirrorListener, Outcome
from asyncexport.errors import ChangedArchiveError, CutAnswerError, MirrorError
from asyncexport.mirror.archive_file import archive_pieces, read_archive
from asyncexport.run.mirror_pairs import Pair

if TYPE_CHECKING:
    from asyncexport.mirror.store import MirrorStore

DecideStep = Callable[[Pair, Held | None], Awaitable[Step]]

LARGE_PIECE = 8 << 20
"""Bytes of a large archive that are read at a time."""

TRIES = 3
"""How often an upload is tried if the object changes meanwhile, or if the answer to a request is cut."""

CHANGES_HINT = "does another program write below this prefix? The next run or `mirror` tries again"


class MirrorUploads:
    """Uploads files.

    Args:
        directory: The output directory.
        store: The bucket.
        limits: How much is done at a time.
        decide: Says what is to be done with an object.
        found_right: Called with each file whose object was found to be right, or was uploaded, and that object.
        on_event: Called with what became of each file.
    """

    def __init__(
        self,
        directory: Path,
        store: "MirrorStore",
        limits: MirrorLimits,
        *,
        decide: DecideStep,
        found_right: Callable[[Wanted, Held], None],
        on_event: MirrorListener,
    ) -> None:
        self._directory = directory
        self._store = store
        self._limits = limits
        self._decide = decide
        self._found_right = found_right
        self._on_event = on_event
        self._failed_in_a_row = 0

    async def bring_all(self, pairs: Iterator[Pair], changed: list[tuple[Pair, ChangedArchiveError]]) -> None:
        """Bring all pairs up to date, several at a time.

        Args:
            pairs: The pairs.
            changed: Gets those whose file is not what the pair says; they are not reported.

        Raises:
            MirrorError: the store as a whole failed.
            LedgerError: the ledger cannot be read.
        """

        async def work() -> None:
            for one in pairs:
                try:
                    await self.bring(one)
                except ChangedArchiveError as error:
                    changed.append((one, error))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._limits.uploads):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def bring(self, pair: Pair) -> None:
        """Upload a file, unless the bucket has it.

        Raises:
            MirrorError: the store as a whole failed.
            ChangedArchiveError: the file is not what the pair says; nothing was uploaded or reported.
        """
        path = pair.wanted.path
        try:
            event = await self._brought(pair)
        except MirrorError as error:
            self._failed_in_a_row += 1
            self._on_event(MirrorEvent(path, Outcome.FAILED, error=error))
            if error.is_general or self._failed_in_a_row >= GIVES_UP_AFTER:
                raise
            return
        self._failed_in_a_row = 0
        self._on_event(event)

    async def _brought(self, pair: Pair) -> MirrorEvent:
        wanted, held, has_sent = pair.wanted, pair.held, False
        where = f"{self._store.url}/{wanted.path}"
        failure = MirrorError(f"cannot upload {where}: the object keeps changing", hint=CHANGES_HINT)
        for _ in range(TRIES):
            step = await self._decide(pair, held)
            if step is Step.READ:
                held = await self._store.examined(wanted.path)
                step = await self._decide(pair, held)
            match step:
                case Step.KEEP if held is not None:
                    self._found_right(wanted, held)
                    # After a conflict, this object is what an upload whose answer was lost has left.
                    size = wanted.bytes if has_sent else 0
                    return MirrorEvent(wanted.path, Outcome.UPLOADED if has_sent else Outcome.ALREADY, size)
                case Step.REFUSE:
                    hint = "move it away, or set [output] mirror to another place"
                    error = MirrorError(f"{where}: {foreign_reason(held)}", hint=hint)
                    return MirrorEvent(wanted.path, Outcome.FOREIGN, error=error)
            try:
                has_sent = True
                done = await self._upload(wanted, held)
            except (ConflictError, CutAnswerError) as error:
                failure = error if isinstance(error, CutAnswerError) else failure
                held = await self._store.examined(wanted.path)
                continue
            self._found_right(wanted, done)
            return MirrorEvent(wanted.path, Outcome.UPLOADED, wanted.bytes)
        raise failure

    async def _upload(self, wanted: Wanted, instead_of: Held | None) -> Held:
        if wanted.bytes <= self._limits.single_bytes:
            content = await asyncio.to_thread(read_archive, self._directory, wanted)
            return await self._store.put(wanted.path, content, wanted.sha256, instead_of=instead_of)

        async def check() -> None:
            found = await self._store.examined(wanted.path)
            if _version(found) != _version(instead_of):
                raise ConflictError

        pieces = _in_threads(archive_pieces(self._directory, wanted, LARGE_PIECE))
        try:
            return await self._store.put_large(wanted.path, pieces, wanted.sha256, size=wanted.bytes, check=check)
        except MirrorError:
            # If the answer to the last request was lost, the object is there, and the repeated request fails.
            found = await self._store.examined(wanted.path)
            if found is None or (found.sha256, found.bytes) != (wanted.sha256, wanted.bytes):
                raise
            return found


def _version(held: Held | None) -> tuple[str | None, str | None] | None:
    return None if held is None else (held.e_tag, held.version)


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces that are read in threads."""
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
