"""The file of an archive that is being written, from its first byte to its final name; all of it in threads.

1. Its name begins with a dot, tells the process that writes it, and ends in `.part` (`part_names`). It is created anew:
   what lies there under that name is removed, and never written into.
2. In this order: all bytes are written, the whole is checked, the file is flushed, it gets its final name, and the
   folder is flushed.
3. A file under the final name is replaced only if it differs. One that is sound is replaced only by an archive that has
   the rows that the caller demands.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from asyncexport.core.archive.inspection import Inspector, WireHashes
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ArchiveError, FewerRowsError
from asyncexport.storage.disk import Disk
from asyncexport.storage.part_names import part_path

COMPARED_BYTES = 256 << 10
"""How much of a file that is there already is read at once."""


class ArchivePart:
    """The file, which is made when the first bytes come. Not for two threads at once.

    Args:
        disk: Where.
        path: Its final name, relative to the output directory.
        container: What is inside.
        wire_hashes: What the body must hash to.
    """

    def __init__(self, disk: Disk, path: str, container: Format, *, wire_hashes: WireHashes | None = None) -> None:
        self._disk = disk
        self._path = path
        self._container = container
        self._inspector = Inspector(container, path=path, write=self._put, wire_hashes=wire_hashes)
        self._file: int | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the file was made, and neither finished nor removed."""
        return self._file is not None

    def take(self, chunks: list[bytes]) -> None:
        """Check and write what came of the body.

        Raises:
            CorruptError: it cannot be one whole export any more.
            StorageError: a folder on the way is a link.
            OSError: it cannot be made, or not be written.
        """
        if self._closed:
            raise AssertionError("the part file is closed")
        if self._file is None:
            # Not while a core is held: making it waits for the disk.
            self._create()
        with self._disk.cores:
            self._inspector.feed(b"".join(chunks))

    def finish(self, *, end_proved: bool, least_rows: int) -> Archive:
        """Check the whole, make it durable, give it its final name; see `ArchiveWriter.commit`.

        Raises:
            ArchiveError: it is not one whole export.
            FewerRowsError: it has fewer rows than that, and a sound archive has the name.
            OSError: it cannot be made durable.
        """
        archive = self._inspector.close(end_proved=end_proved)
        if archive.rows < least_rows:
            # Only here, since it takes long to read an archive to its end.
            rows_before = self._rows_there()
            if rows_before is not None and rows_before >= least_rows:
                raise FewerRowsError(rows_before=rows_before, rows_found=archive.rows)
        file = self._open_file()
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if self._is_the_same(archive):
            self._part.unlink()
        else:
            self._disk.give_name(file, self._part, self._final)
        self._close()
        self._disk.sync_folder(self._final.parent)
        return archive

    def remove(self) -> None:
        """Remove the file. One that cannot be removed is left to the next run, which removes all part files."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    @cached_property
    def _final(self) -> Path:
        return self._disk.directory / self._path

    @cached_property
    def _part(self) -> Path:
        return part_path(self._final)

    def _create(self) -> None:
        self._disk.make_folder(self._final.parent)
        with self._disk.at("part.create"):
            try:
                self._file = self._disk.make_file(self._part)
            except FileExistsError:
                # Never into what is there already, wherever that may lead.
                self._part.unlink()
                self._file = self._disk.make_file(self._part)

    def _put(self, piece: bytes) -> None:
        file = self._open_file()
        with self._disk.at("part.write"):
            written = os.write(file, piece)
            while written < len(piece):
                written += os.write(file, memoryview(piece)[written:])

    def _is_the_same(self, archive: Archive) -> bool:
        """Whether the file under the final name has exactly these bytes."""
        try:
            status = self._final.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != archive.bytes:
            return False
        with self._final.open("rb") as old, self._part.open("rb") as new:
            return all(a == b for a, b in zip(_pieces_of(old), _pieces_of(new), strict=True))

    def _rows_there(self) -> int | None:
        """How many rows the archive under the final name has; None where there is none, or it is damaged."""
        if not self._disk.is_file(self._final):
            return None
        inspector = Inspector(self._container, path=self._path)
        try:
            with self._final.open("rb") as file:
                for piece in _pieces_of(file):
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

    def _close(self) -> None:
        """Close the file once: its number may be another file's by the next time."""
        file, self._file, self._closed = self._file, None, True
        if file is not None:
            os.close(file)

    def _open_file(self) -> int:
        if self._file is None:
            raise AssertionError("the part file is closed")
        return self._file


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All that is in a file, a piece at a time."""
    while piece := file.read(COMPARED_BYTES):
        yield piece
