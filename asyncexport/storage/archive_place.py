"""Where an archive belongs: what stands there, and how another comes in its place.

1. A file is replaced only if its rows differ: the service writes the same rows in another order each time. Where the
   bytes differ and the number of rows does not, a digest of them decides (`core.archive.row_digest`).
2. One that is sound is replaced only by an archive that has the rows that the caller demands. One with the rows of
   another range is not sound, and how many they are says nothing.
3. One that no row of the ledger tells of may be newer than what comes: the ledger may be from a backup. It is replaced
   only by an archive with more rows, and that is told.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from asyncexport.core.archive.row_digest import RowDigest
from asyncexport.core.archive.rules import RowRules
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ArchiveError, FewerRowsError
from asyncexport.storage.disk import Disk
from asyncexport.storage.inspecting import inspect

log = logging.getLogger(__name__)

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

    def check_rows(
        self, archive: Archive, *, least_rows: int | None, rules: RowRules | None, goes_on: Callable[[], bool]
    ) -> None:
        """Rule 2, where an archive has fewer rows than that.

        Args:
            archive: The one that came.
            least_rows: How many rows it needs; None: any number will do.
            rules: What the rows of the bundle's archives must be like.
            goes_on: Whether anybody waits.

        Raises:
            FewerRowsError: what stands here is sound, and has them.
            GivenUp: nobody waits any more.
        """
        if least_rows is not None and archive.rows < least_rows:
            # Only here, since it takes long to read an archive to its end.
            rows_before = self._rows(rules.anew() if rules else None, goes_on)
            if rows_before is not None and rows_before >= least_rows:
                raise FewerRowsError(rows_before=rows_before, rows_found=archive.rows)

    def put(
        self, made: Path, file: int, archive: Archive, *, is_recorded: bool, goes_on: Callable[[], bool]
    ) -> Archive:
        """Flush an archive, and give it this name, or remove it (rules 1, 3). The folder is still to be flushed.

        Args:
            made: Where it lies.
            file: Its handle.
            archive: What it is.
            is_recorded: Whether the ledger knows of what stands here.
            goes_on: Whether anybody waits.

        Returns:
            The archive that has the name: this one, or the one that had it before.

        Raises:
            OSError: it cannot be made durable.
            GivenUp: nobody waits any more.
        """
        stays = self._what_stays(made, archive, is_recorded=is_recorded, goes_on=goes_on)
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if stays is not None:
            made.unlink()
            return stays
        self._disk.give_name(file, made, self.path)
        return archive

    def _what_stays(
        self, made: Path, archive: Archive, *, is_recorded: bool, goes_on: Callable[[], bool]
    ) -> Archive | None:
        """The archive that stands here and is not replaced by the one that was made; None: there is none."""
        if not self._disk.is_file(self.path):
            return None
        if self._has_the_bytes_of(made, archive):
            return archive
        try:
            there = inspect(self.path, self._container, name=archive.path, goes_on=goes_on).archive
            if self._has_the_rows_of(made, archive, there, goes_on):
                return there
        except (FileNotFoundError, ArchiveError):
            return None
        if is_recorded:
            return None
        stays = there.rows >= archive.rows
        log.warning(
            "%s: an archive of %d rows stood there that the ledger knew nothing of, and one of %d rows came; %s",
            archive.path, there.rows, archive.rows, "the first one stays" if stays else "that one takes its place",
        )  # fmt: skip
        return there if stays else None

    def _has_the_rows_of(self, made: Path, archive: Archive, there: Archive, goes_on: Callable[[], bool]) -> bool:
        if there.rows != archive.rows:
            return False
        digest = self._digest(self.path, goes_on)
        return digest is not None and digest == self._digest(made, goes_on)

    def _digest(self, file: Path, goes_on: Callable[[], bool]) -> int | None:
        digest = RowDigest()
        inspect(file, self._container, sample=digest, goes_on=goes_on)
        return digest.value

    def _has_the_bytes_of(self, made: Path, archive: Archive) -> bool:
        if self.path.stat().st_size != archive.bytes:
            return False
        with self.path.open("rb") as old, made.open("rb") as new:
            return all(a == b for a, b in zip(_pieces_of(old), _pieces_of(new), strict=True))

    def _rows(self, rules: RowRules | None, goes_on: Callable[[], bool]) -> int | None:
        """How many rows the archive has that stands here; None where there is none, or it is not sound."""
        if not self._disk.is_file(self.path):
            return None
        try:
            return inspect(self.path, self._container, rules=rules, goes_on=goes_on).archive.rows
        except (FileNotFoundError, ArchiveError):
            return None


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All that is in a file, a piece at a time."""
    while piece := file.read(COMPARED_BYTES):
        yield piece
