"""Writes one archive from the event loop: collects chunks and hands many of them to a thread at a time.

1. One thread works on the file at a time, while the next chunks are collected.
2. A cancelled caller waits until the thread has finished: the file must not be closed or removed while it is in use.
3. A complete body is inspected in threads that do nothing else. A small body is written and inspected in a single call
   to a thread.
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
"""Bytes handed to a thread at a time: more is hardly faster and takes memory in every download."""

GATHER_CHUNKS = 1024
"""Chunks handed to a thread at a time, at most: the system's limit for one write, and small chunks take memory too."""


class ArchiveWriter:
    """One archive being written; an async context manager that removes it unless it was committed.

    The file is created in the first call to a thread; a small archive needs only that one. After an error, only
    `discard` may be called.

    Attributes:
        received: Bytes of the body received so far.
    """

    def __init__(self, disk: Disk, part: ArchivePart) -> None:
        self._disk = disk
        self._part = part
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self.received = 0

    async def write(self, chunk: bytes) -> None:
        """Add a chunk of the body.

        Raises:
            CorruptError: the first bytes show that the body cannot be a complete export.
            StorageError: the file cannot be created or written.
        """
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        self.received += len(chunk)
        if self._gathered_bytes >= GATHER_BYTES or len(self._gathered) >= GATHER_CHUNKS:
            await self._drain()
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._writing = asyncio.create_task(self._disk.run(self._part.take, gathered))

    async def commit(self, proof: BodyProof, *, least_rows: int | None = 0) -> Archive:
        """Inspect the file, make it durable and rename it to its final name; return the archive of that name.

        That is the existing archive if it has the same rows, or if it is not recorded and the new one has no more rows.

        If the caller is cancelled, the inspection is abandoned; if it was already finished, the remaining steps are
        completed.

        Args:
            proof: What is known about the body from outside; `hashed` is determined here.
            least_rows: The fewest rows that may replace an intact archive. An existing archive that is damaged, or has
                fewer rows than this itself, does not have that protection. None if no archive is recorded: an existing
                one is then replaced only by one with more rows.

        Raises:
            ArchiveError: the file is not one complete export.
            FewerRowsError: it has too few rows to replace the intact archive of that name.
            StorageError: it cannot be made durable.
        """
        await self._drain()
        gathered, self._gathered = self._gathered, []
        do = self._disk.inspect if self._part.is_open else self._disk.run
        return await do(self._finish, gathered, proof, least_rows, abandon=self._part.abandon)

    async def discard(self) -> None:
        """Remove the file, unless it was committed."""
        try:
            with contextlib.suppress(ExportError):
                await self._drain()
        finally:
            if self._part.is_open:
                await self._disk.run(self._part.remove)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove the file, unless it was committed."""
        await self.discard()

    async def _drain(self) -> None:
        """Wait for the write in progress, even if cancelled (rule 2)."""
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
