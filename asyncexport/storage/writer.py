"""Writing one archive from the event loop: what comes is gathered, and handed to a thread many chunks at once.

1. One thread works on the file at a time, while the next chunks are gathered.
2. A caller that is cancelled waits until the thread is done: the file must not be closed or removed beneath it.
3. A body is inspected when it has ended, in threads that do nothing else. A small one is written in the same hop.
"""

import asyncio
import contextlib
from typing import Self

from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.states import Archive
from asyncexport.errors import ExportError
from asyncexport.storage.archive_part import ArchivePart
from asyncexport.storage.disk import Disk
from asyncexport.storage.threads import until_over

GATHER_BYTES = 1 << 20
"""How much is handed to a thread at once: more is hardly faster, and takes memory in every download."""

GATHER_CHUNKS = 1024
"""So many chunks are handed on in any case: the system takes no more at once, and the smallest take memory, too."""


class ArchiveWriter:
    """One archive being filled; an asynchronous context manager that removes it unless it was committed.

    Its file is made in the first hop to a thread, and a small archive takes no other. `received` counts the bytes of
    the body that were taken in. After an error nothing but `discard` is of use.
    """

    def __init__(self, disk: Disk, part: ArchivePart) -> None:
        self._disk = disk
        self._part = part
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self.received = 0

    async def write(self, chunk: bytes) -> None:
        """Take in a chunk of the body.

        Raises:
            CorruptError: it cannot be one whole export, as far as its first bytes tell.
            StorageError: it cannot be made, or not be written.
        """
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        self.received += len(chunk)
        if self._gathered_bytes >= GATHER_BYTES or len(self._gathered) >= GATHER_CHUNKS:
            await self._drain()
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._writing = asyncio.create_task(self._disk.run(self._part.take, gathered))

    async def commit(self, proof: BodyProof, *, least_rows: int | None = 0) -> Archive:
        """Inspect the whole, make it durable, give it its final name; what comes back is the archive that has it then.

        That is the one which had it before, where its rows are the same, or where it is not on record and has more.

        A caller that is cancelled gives up the inspection; once that is done, the rest is brought to its end.

        Args:
            proof: What is known of the body besides its bytes; whether it has its hash is found here.
            least_rows: The fewest rows that may replace a sound archive. A file under the final name that is damaged,
                or has itself fewer rows than this, is replaced all the same. None: no archive is on record, and one
                that stands there all the same is replaced only by one with more rows.

        Raises:
            ArchiveError: it is not one whole export.
            FewerRowsError: it has fewer rows than that, and a sound archive has the name.
            StorageError: it cannot be made durable.
        """
        await self._drain()
        gathered, self._gathered = self._gathered, []
        do = self._disk.inspect if self._part.is_open else self._disk.run
        return await do(self._finish, gathered, proof, least_rows, give_up=self._part.give_up)

    async def discard(self) -> None:
        """Remove it; nothing happens to one that was committed."""
        try:
            with contextlib.suppress(ExportError):
                await self._drain()
        finally:
            if self._part.is_open:
                await self._disk.run(self._part.remove)

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove it unless it was committed."""
        await self.discard()

    async def _drain(self) -> None:
        """Wait for the write under way, also when cancelled (rule 2)."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await until_over(writing)
            raise

    def _finish(self, chunks: list[bytes], proof: BodyProof, least_rows: int | None) -> Archive:
        self._part.take(chunks, is_all=True)
        return self._part.finish(proof, least_rows=least_rows)
