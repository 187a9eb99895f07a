"""Where an archive belongs: what stands there, and how another comes in its place.

1. A file is replaced only if its rows differ: the service writes the same rows in another order each time. Where the
   bytes differ and the number of rows does not, a digest of them decides (`core.archive.row_digest`).
2. One that is sound is replaced only by an archive that has the rows that the caller demands, and not far fewer than it
   has itself (`core.replacement_guard`). One with the rows of another range is not sound, and how many they are says
   nothing.
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
from asyncexport.core.replacement_guard import is_far_fewer
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

    def put(
        self,
        made: Path,
        file: int,
        archive: Archive,
        *,
        least_rows: int | None,
        rules: RowRules | None,
        goes_on: Callable[[], bool],
    ) -> Archive:
        """Flush an archive, and give it this name, or remove it (rules 1 to 3). The folder is still to be flushed.

        Args:
            made: Where it lies.
            file: Its handle.
            archive: What it is.
            least_rows: How many rows it needs where a sound one stands here. 0: any number will do; None: the ledger
                knows of none that stands here.
            rules: What the rows of the bundle's archives must be like.
            goes_on: Whether anybody waits.

        Returns:
            The archive that has the name: this one, or the one that had it before.

        Raises:
            FewerRowsError: what stands here is sound, and is not replaced by one with so few rows.
            OSError: it cannot be made durable.
            GivenUp: nobody waits any more.
        """
        stays = self._what_stays(made, archive, least_rows=least_rows, rules=rules, goes_on=goes_on)
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if stays is not None:
            made.unlink()
            return stays
        self._disk.give_name(file, made, self.path)
        return archive

    def _what_stays(
        self,
        made: Path,
        archive: Archive,
        *,
        least_rows: int | None,
        rules: RowRules | None,
        goes_on: Callable[[], bool],
    ) -> Archive | None:
        """The archive that stands here and is not replaced by the one that was made; None: there is none."""
        if not self._disk.is_file(self.path):
            return None
        if self._has_the_bytes_of(made, archive):
            return archive
        try:
            there = inspect(
                self.path, self._container, name=archive.path, rules=rules.anew() if rules else None, goes_on=goes_on
            ).archive
            if self._has_the_rows_of(made, archive, there, goes_on):
                return there
        except (FileNotFoundError, ArchiveError):
            return None
        if least_rows is None:
            return _larger(there, archive)
        _check_rows(there, archive, least_rows=least_rows)
        return None

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


def _larger(there: Archive, archive: Archive) -> Archive | None:
    """Rule 3: the archive that no row tells of, if it stays."""
    stays = there.rows >= archive.rows
    log.warning(
        "%s: an archive of %d rows stood there that the ledger knew nothing of, and one of %d rows came; %s",
        archive.path, there.rows, archive.rows, "the first one stays" if stays else "that one takes its place",
    )  # fmt: skip
    return there if stays else None


def _check_rows(there: Archive, archive: Archive, *, least_rows: int) -> None:
    """Rule 2.

    Raises:
        FewerRowsError: the sound archive that is there must not be replaced by this one.
    """
    too_few = archive.rows < least_rows <= there.rows
    # What is there may be another than the ledger knows: it may be from a backup.
    if too_few or (least_rows > 0 and is_far_fewer(archive.rows, rows_before=there.rows)):
        raise FewerRowsError(rows_before=there.rows, rows_found=archive.rows)


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All that is in a file, a piece at a time."""
    while piece := file.read(COMPARED_BYTES):
        yield piece
