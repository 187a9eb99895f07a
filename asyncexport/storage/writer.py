"""Writing one archive from the event loop: what comes is gathered, and handed to a thread many chunks at once.

1. One thread works on the file at a time, while the next chunks are gathered.
2. Whoever is cancelled waits until the thread is done: the file must not be closed or removed beneath it.
"""

import asyncio
import contextlib
from typing import Self

from asyncexport.core.archive.inspection import WireHashes
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ExportError
from asyncexport.storage.archive_part import ArchivePart
from asyncexport.storage.disk import Disk, until_over

GATHER_BYTES = 256 << 10
"""How much is handed to a thread at once: more is hardly faster, and takes memory in every download."""


class ArchiveWriter:
    """One archive being filled; an asynchronous context manager that removes it unless it was committed.

    Its file is made in the first hop to a thread, and a small archive takes no other. `received` counts the bytes of
    the body that were taken in. After an error nothing but `discard` is of use.
    """

    def __init__(self, disk: Disk, path: str, container: Format, *, wire_hashes: WireHashes | None = None) -> None:
        self._disk = disk
        self._part = ArchivePart(disk, path, container, wire_hashes=wire_hashes)
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self.received = 0

    async def write(self, chunk: bytes) -> None:
        """Take in a chunk of the body.

        Raises:
            CorruptError: it cannot be one whole export any more.
            StorageError: it cannot be made, or not be written.
        """
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        self.received += len(chunk)
        if self._gathered_bytes >= GATHER_BYTES:
            await self._drain()
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._writing = asyncio.create_task(self._disk.run(self._part.take, gathered))

    async def commit(self, *, end_proved: bool, least_rows: int = 0) -> Archive:
        """Check the whole, make it durable, give it its final name. Once begun that is brought to its end.

        Args:
            end_proved: Whether the body was proved to end where it did.
            least_rows: The fewest rows that may replace a sound archive. A file under the final name that is damaged,
                or has itself fewer rows than this, is replaced all the same.

        Raises:
            ArchiveError: it is not one whole export.
            FewerRowsError: it has fewer rows than that, and a sound archive has the name.
            StorageError: it cannot be made durable.
        """
        await self._drain()
        return await self._disk.run(self._finish, self._gathered, end_proved, least_rows)

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

    def _finish(self, chunks: list[bytes], end_proved: bool, least_rows: int) -> Archive:  # noqa: FBT001 - for a thread
        self._part.take(chunks)
        return self._part.finish(end_proved=end_proved, least_rows=least_rows)
