"""The final path of an archive: decides whether a new archive replaces the existing one.

1. An archive is replaced only if its rows differ, because the service sends the same rows in another order each time.
   If the bytes differ but the number of rows does not, a digest of the rows decides (`core.archive.row_digest`).
2. An intact archive is replaced only by one that has the minimum number of rows set by the caller, and not far fewer
   rows than itself (`core.replacement_guard`). An archive with the rows of another range is not intact: its number of
   rows does not matter.
3. An archive that is not in the ledger may be newer than the new one: the ledger may come from a backup. It is replaced
   only by an archive with more rows, and a warning is logged.
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
"""Bytes of two files that are compared at a time."""


class ArchivePlace:
    """The final path of an archive. All methods are called in threads.

    Args:
        disk: The output directory.
        path: The absolute path.
        container: The format of the export.
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
        is_wanted: Callable[[], bool],
    ) -> Archive:
        """Flush a new archive and move it here, or remove it (rules 1 to 3). The caller has to flush the folder.

        Args:
            made: The new archive's present path.
            file: Its open descriptor.
            archive: What the inspection found.
            least_rows: The fewest rows that may replace an intact archive here; 0 for any number. None if the ledger
                has no archive here.
            rules: The rules that the rows of the bundle's archives must follow.
            is_wanted: Returns whether the result is still wanted.

        Returns:
            The archive that is here now: the new one, or the existing one if it was kept.

        Raises:
            FewerRowsError: the existing archive is intact, and the new one has too few rows to replace it.
            OSError: the new archive cannot be made durable.
            Abandoned: the result is no longer wanted.
        """
        kept = self._kept_archive(made, archive, least_rows=least_rows, rules=rules, is_wanted=is_wanted)
        with self._disk.at("part.fsync"):
            os.fsync(file)
        if kept is not None:
            made.unlink()
            return kept
        self._disk.give_name(file, made, self.path)
        return archive

    def _kept_archive(
        self,
        made: Path,
        archive: Archive,
        *,
        least_rows: int | None,
        rules: RowRules | None,
        is_wanted: Callable[[], bool],
    ) -> Archive | None:
        """Return the existing archive if it is kept; None if there is none, or if the new one replaces it."""
        if not self._disk.is_file(self.path):
            return None
        if self._has_same_bytes(made, archive):
            return archive
        try:
            existing = inspect(
                self.path,
                self._container,
                name=archive.path,
                rules=rules.fresh() if rules else None,
                is_wanted=is_wanted,
            ).archive
            if self._has_same_rows(made, archive, existing, is_wanted):
                return existing
        except (FileNotFoundError, ArchiveError):
            return None
        if least_rows is None:
            return _unrecorded_if_kept(existing, archive)
        _check_rows(existing, archive, least_rows=least_rows)
        return None

    def _has_same_rows(self, made: Path, archive: Archive, existing: Archive, is_wanted: Callable[[], bool]) -> bool:
        if existing.rows != archive.rows:
            return False
        digest = self._digest(self.path, is_wanted)
        return digest is not None and digest == self._digest(made, is_wanted)

    def _digest(self, file: Path, is_wanted: Callable[[], bool]) -> int | None:
        digest = RowDigest()
        inspect(file, self._container, sample=digest, is_wanted=is_wanted)
        return digest.value

    def _has_same_bytes(self, made: Path, archive: Archive) -> bool:
        if self.path.stat().st_size != archive.bytes:
            return False
        with self.path.open("rb") as old, made.open("rb") as new:
            return all(a == b for a, b in zip(_pieces_of(old), _pieces_of(new), strict=True))


def _unrecorded_if_kept(existing: Archive, archive: Archive) -> Archive | None:
    """Apply rule 3: return the existing archive, which is not in the ledger, if it is kept."""
    is_kept = existing.rows >= archive.rows
    log.warning(
        "%s: the ledger has no record of the archive here (%d rows); the archive just downloaded has %d rows and %s",
        archive.path, existing.rows, archive.rows, "was discarded" if is_kept else "replaced it",
    )  # fmt: skip
    return existing if is_kept else None


def _check_rows(existing: Archive, archive: Archive, *, least_rows: int) -> None:
    """Enforce rule 2.

    Raises:
        FewerRowsError: the existing archive is intact and must not be replaced by this one.
    """
    too_few = archive.rows < least_rows <= existing.rows
    # The existing archive may not be the one in the ledger: the file or the ledger may come from a backup.
    if too_few or (least_rows > 0 and is_far_fewer(archive.rows, rows_before=existing.rows)):
        raise FewerRowsError(rows_before=existing.rows, rows_found=archive.rows)


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file in pieces."""
    while piece := file.read(COMPARED_BYTES):
        yield piece
