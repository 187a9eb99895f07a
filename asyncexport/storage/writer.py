"""One archive being written: taken in, checked, made durable, and only then given its name."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

from asyncexport.core.archive.inspection import Inspector, WireHashes
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ArchiveError, ExportError, FewerRowsError
from asyncexport.storage.disk import Disk, until_over

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

GATHER_BYTES = 256 << 10
"""What is handed to a thread at once: more is hardly faster, and adds up with what else a download holds."""


class ArchiveWriter:
    """One archive being filled; an asynchronous context manager that removes it unless it was committed.

    Its file is made in the first hop to a thread, and a small archive takes no other. `received` counts the bytes of
    the body that were taken in. After an error nothing but `discard` is of use.
    """

    def __init__(self, disk: Disk, path: str, container: Format, *, wire_hashes: WireHashes | None = None) -> None:
        self._disk = disk
        self._path = path
        self._container = container
        self._inspector = Inspector(container, path=path, write=self._put, wire_hashes=wire_hashes)
        self._file: int | None = None
        self._closed = False
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self.received = 0

    async def write(self, chunk: bytes) -> None:
        """Take in what came.

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
            self._writing = asyncio.create_task(self._disk.run(self._take, gathered))

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
            if self._file is not None:
                await self._disk.run(self._remove)

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove it unless it was committed."""
        await self.discard()

    async def _drain(self) -> None:
        """Wait for the write under way, also when cancelled: the file must not be closed beneath it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await until_over(writing)
            raise

    @cached_property
    def _final(self) -> Path:
        return self._disk.directory / self._path

    @cached_property
    def _part(self) -> Path:
        return self._final.with_name(f".{self._final.name}.part")

    def _create(self) -> None:
        self._disk.make_folder(self._final.parent)
        with self._disk.at("part.create"):
            try:
                self._file = os.open(self._part, CREATE, 0o666)
            except FileExistsError:
                # Never into what is there already, wherever that may lead.
                self._part.unlink()
                self._file = os.open(self._part, CREATE, 0o666)

    def _take(self, chunks: list[bytes]) -> None:
        if self._closed:
            raise AssertionError("the draft is closed")
        if self._file is None:
            # Not while a core is held: making it waits for the disk.
            self._create()
        with self._disk.cores:
            self._inspector.feed(b"".join(chunks))

    def _put(self, piece: bytes) -> None:
        file = self._open_file()
        with self._disk.at("part.write"):
            written = os.write(file, piece)
            while written < len(piece):
                written += os.write(file, memoryview(piece)[written:])

    def _finish(self, chunks: list[bytes], end_proved: bool, least_rows: int) -> Archive:  # noqa: FBT001 - for a thread
        self._take(chunks)
        archive = self._inspector.close(end_proved=end_proved)
        if archive.rows < least_rows:
            # Here alone, since reading an archive to its end is dear.
            rows_before = self._rows_there()
            if rows_before is not None and rows_before >= least_rows:
                raise FewerRowsError(rows_before=rows_before, rows_found=archive.rows)
        file = self._open_file()
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if self._is_the_same(archive):
            self._part.unlink()
        else:
            with self._disk.at("rename"):
                self._part.replace(self._final)
        self._close()
        self._disk.sync_folder(self._final.parent)
        return archive

    def _is_the_same(self, archive: Archive) -> bool:
        """Whether the file that stands under the name has the very bytes."""
        try:
            status = self._final.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != archive.bytes:
            return False
        with self._final.open("rb") as old, self._part.open("rb") as new:
            return all(a == b for a, b in zip(pieces_of(old), pieces_of(new), strict=True))

    def _rows_there(self) -> int | None:
        """How many rows the archive under the final name has; None where there is none, or it is damaged."""
        inspector = Inspector(self._container, path=self._path)
        try:
            with self._final.open("rb") as file:
                for piece in pieces_of(file):
                    with self._disk.cores:
                        inspector.feed(piece)
            return inspector.close_archive().rows
        except (FileNotFoundError, ArchiveError):
            return None
        except OSError as error:
            # The disk does not give it back any more.
            if error.errno != errno.EIO:
                raise
            return None

    def _remove(self) -> None:
        """What cannot be removed is rubbish, which the next start removes."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        """Once: the number may be another file's by the next time."""
        file, self._file, self._closed = self._file, None, True
        if file is not None:
            os.close(file)

    def _open_file(self) -> int:
        if self._file is None:
            raise AssertionError("the draft is closed")
        return self._file


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All that is in a file, some of it at a time."""
    while piece := file.read(GATHER_BYTES):
        yield piece
