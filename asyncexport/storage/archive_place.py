"""Where an archive belongs: what stands there, and how another comes in its place.

1. A file is replaced only if its rows differ: the service writes the same rows in another order each time. Where the
   bytes differ and the number of rows does not, a digest of them decides (`core.archive.row_digest`).
2. One that is sound is replaced only by an archive that has the rows that the caller demands.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from asyncexport.core.archive.row_digest import RowDigest
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ArchiveError, FewerRowsError
from asyncexport.storage.disk import Disk
from asyncexport.storage.inspecting import inspect

COMPARED_BYTES = 256 << 10
"""How much of two files is compared at once."""


class ArchivePlace:
    """The final name of an archive. All of it is for threads.

    Args:
        disk: Where.
        path: The name.
        container: What is inside.
    """

    def __init__(self, disk: Disk, path: Path, container: Format) -> None:
        self.path = path
        self._disk = disk
        self._container = container

    def check_rows(self, archive: Archive, *, least_rows: int, goes_on: Callable[[], bool]) -> None:
        """Rule 2, where an archive has fewer rows than that.

        Raises:
            FewerRowsError: what stands here is sound, and has them.
            GivenUp: nobody waits any more.
        """
        if archive.rows < least_rows:
            # Only here, since it takes long to read an archive to its end.
            rows_before = self._rows(goes_on)
            if rows_before is not None and rows_before >= least_rows:
                raise FewerRowsError(rows_before=rows_before, rows_found=archive.rows)

    def put(self, made: Path, file: int, archive: Archive, *, goes_on: Callable[[], bool]) -> Archive:
        """Flush an archive, and give it this name, or remove it (rule 1). The folder is still to be flushed.

        Args:
            made: Where it lies.
            file: Its handle.
            archive: What it is.
            goes_on: Whether anybody waits.

        Returns:
            The archive that has the name: this one, or the one that had it before.

        Raises:
            OSError: it cannot be made durable.
            GivenUp: nobody waits any more.
        """
        stays = self._with_the_rows_of(made, archive, goes_on)
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if stays is not None:
            made.unlink()
            return stays
        self._disk.give_name(file, made, self.path)
        return archive

    def _with_the_rows_of(self, made: Path, archive: Archive, goes_on: Callable[[], bool]) -> Archive | None:
        """The archive that stands here, if it has the rows of the one that was made."""
        if not self._disk.is_file(self.path):
            return None
        if self._has_the_bytes_of(made, archive):
            return archive
        try:
            there = inspect(self.path, self._container, name=archive.path, goes_on=goes_on).archive
            if there.rows != archive.rows:
                return None
            digest = self._digest(self.path, goes_on)
        except (FileNotFoundError, ArchiveError):
            return None
        return there if digest is not None and digest == self._digest(made, goes_on) else None

    def _digest(self, file: Path, goes_on: Callable[[], bool]) -> int | None:
        digest = RowDigest()
        inspect(file, self._container, sample=digest, goes_on=goes_on)
        return digest.value

    def _has_the_bytes_of(self, made: Path, archive: Archive) -> bool:
        if self.path.stat().st_size != archive.bytes:
            return False
        with self.path.open("rb") as old, made.open("rb") as new:
            return all(a == b for a, b in zip(_pieces_of(old), _pieces_of(new), strict=True))

    def _rows(self, goes_on: Callable[[], bool]) -> int | None:
        """How many rows the archive has that stands here; None where there is none, or it is damaged."""
        if not self._disk.is_file(self.path):
            return None
        try:
            return inspect(self.path, self._container, goes_on=goes_on).archive.rows
        except (FileNotFoundError, ArchiveError):
            return None


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All that is in a file, a piece at a time."""
    while piece := file.read(COMPARED_BYTES):
        yield piece
