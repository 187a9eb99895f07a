"""The part file of an archive, from its first byte to its final name; everything here runs in threads.

1. The name begins with a dot, contains the process that writes the file, and ends in `.part` (`part_names`). The file
   is always a new one: an existing file of that name is removed and never written to.
2. It holds the body as sent. The order is: write all bytes, inspect the file, flush it, rename it to its final name,
   flush the folder. If the body is not an archive as sent, the inspection writes one to a second file, which is flushed
   and renamed instead.
3. An archive that already has the final name may be kept instead (`archive_place`).
4. While the body arrives, only its hash is computed and its first bytes are checked, so that an error page is not
   downloaded to its end.
"""

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path

from asyncexport.core.archive.inspection import Inspected
from asyncexport.core.archive.proof import BodyProof
from asyncexport.core.archive.rules import RowRules
from asyncexport.core.archive.structure import MAX_ROW_BYTES
from asyncexport.core.archive.wire_hash import WireCheck, WireHashes
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.storage.archive_place import ArchivePlace
from asyncexport.storage.disk import Disk
from asyncexport.storage.inspecting import check_start, inspect, write_all
from asyncexport.storage.part_names import part_path

log = logging.getLogger(__name__)

START_BYTES = 64 << 10
"""Bytes at the start of a body that are checked while the rest arrives."""


class ArchivePart:
    """A part file, created when the first bytes arrive. Not thread-safe.

    Args:
        disk: The output directory.
        path: The final path, relative to the output directory.
        container: The format of the export.
        wire_hashes: The hashes that the body must have.
        rules: The rules that sampled rows must follow.
        max_row: Rows longer than this many bytes are warned about.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        container: Format,
        *,
        wire_hashes: WireHashes | None = None,
        rules: RowRules | None = None,
        max_row: int = MAX_ROW_BYTES,
    ) -> None:
        self._disk = disk
        self._path = path
        self._container = container
        self._wire = WireCheck(wire_hashes)
        self._rules = rules
        self._max_row = max_row
        self._place = ArchivePlace(disk, disk.directory / path, container)
        self._part = part_path(self._place.path)
        self._remade = part_path(self._place.path.with_name(f"{self._place.path.name}.remade"))
        self._file: int | None = None
        self._closed = False
        self._abandoned = False

    @property
    def is_open(self) -> bool:
        """Whether the file was created, and neither finished nor removed."""
        return self._file is not None

    def take(self, chunks: list[bytes], *, is_all: bool = False) -> None:
        """Write the next chunks of the body; `is_all` if they are the last ones, so that the body is inspected next.

        Raises:
            CorruptError: the body cannot be a complete export.
            StorageError: a folder of its path is a link.
            OSError: the file cannot be created or written.
        """
        if self._closed:
            raise AssertionError("the part file is closed")
        if self._file is None:
            self._create()
            if not is_all:
                check_start(_first_bytes(chunks), self._container)
        for chunk in chunks:
            self._wire.feed(chunk)
        if chunks:
            with self._disk.at("part.write"):
                write_all(self._open_file(), chunks)

    def abandon(self) -> None:
        """Make an inspection in progress end soon, because its result is no longer wanted."""
        self._abandoned = True

    def finish(self, proof: BodyProof, *, least_rows: int | None) -> Archive:
        """Inspect the file, make it durable and rename it to its final name; see `ArchiveWriter.commit`.

        Raises:
            ArchiveError: the file is not one complete export.
            FewerRowsError: it has too few rows to replace the intact archive of that name.
            OSError: it cannot be made durable.
            Abandoned: the result is no longer wanted.
        """
        found = self._inspect(proof)
        if found.is_remade:
            file = os.open(self._remade, os.O_RDONLY | os.O_CLOEXEC)
            try:
                kept = self._put(self._remade, file, found.archive, least_rows=least_rows)
            finally:
                os.close(file)
            self._part.unlink()
        else:
            kept = self._put(self._part, self._open_file(), found.archive, least_rows=least_rows)
        self._close()
        self._disk.sync_folder(self._part.parent)
        return kept

    def _put(self, made: Path, file: int, archive: Archive, *, least_rows: int | None) -> Archive:
        return self._place.put(made, file, archive, least_rows=least_rows, rules=self._rules, is_wanted=self._is_wanted)

    def remove(self) -> None:
        """Remove the file. If that fails, the next run removes it along with all abandoned part files."""
        with contextlib.suppress(OSError):
            self._close()
        for path in (self._part, self._remade):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _inspect(self, proof: BodyProof) -> Inspected:
        found = inspect(
            self._part,
            self._container,
            name=self._path,
            rewrite_to=self._remade,
            proof=replace(proof, hashed=self._wire.holds),
            rules=self._rules,
            max_row=self._max_row,
            is_wanted=self._is_wanted,
            create=self._disk.make_file,
            at=self._disk.at,
        )
        if found.long_rows:
            count = "1 row is" if found.long_rows == 1 else f"{found.long_rows:,} rows are"
            log.warning(
                "%s: %s longer than [download] max_row (%d bytes) and stored without being parsed",
                self._path, count, self._max_row,
            )  # fmt: skip
        return found

    def _is_wanted(self) -> bool:
        return not self._abandoned

    def _create(self) -> None:
        self._disk.make_folder(self._part.parent)
        # Never write to an existing file, which may be a link to elsewhere.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)  # noqa: PTH108 - faster, and done for each archive
        with self._disk.at("part.create"):
            self._file = self._disk.make_file(self._part)

    def _close(self) -> None:
        """Close the file once: after that, its descriptor may belong to another file."""
        file, self._file, self._closed = self._file, None, True
        if file is not None:
            os.close(file)

    def _open_file(self) -> int:
        if self._file is None:
            raise AssertionError("the part file is closed")
        return self._file


def _first_bytes(chunks: list[bytes]) -> bytes:
    begin = b""
    for chunk in chunks:
        if len(begin) >= START_BYTES:
            break
        begin += chunk
    return begin[:START_BYTES]
