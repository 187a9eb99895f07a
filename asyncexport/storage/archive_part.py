"""The file of an archive that is being written, from its first byte to its final name; all of it in threads.

1. Its name begins with a dot, tells the process that writes it, and ends in `.part` (`part_names`). It is created anew:
   what lies there under that name is removed, and never written into.
2. It holds the body as it was sent. In this order: all bytes are written, the whole is inspected, the file is flushed,
   it gets its final name, and the folder is flushed. Where the body is no archive as it is, the inspection writes one
   beside it, which is flushed and named in its place.
3. What stands under the final name may stay (`archive_place`).
4. While the body is coming, only its hash is followed, and its first bytes are looked at: a page in place of a file is
   not taken in to its end.
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
from asyncexport.storage.inspecting import inspect, look_at_begin, write_all
from asyncexport.storage.part_names import part_path

log = logging.getLogger(__name__)

LOOKED_AT_BYTES = 64 << 10
"""How much of a body's beginning is looked at while the rest is coming."""


class ArchivePart:
    """The file, which is made when the first bytes come. Not for two threads at once.

    Args:
        disk: Where.
        path: Its final name, relative to the output directory.
        container: What is inside.
        wire_hashes: What the body must hash to.
        rules: Are handed rows to look at.
        max_row: A row of more bytes is told.
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
        self._given_up = False

    @property
    def is_open(self) -> bool:
        """Whether the file was made, and neither finished nor removed."""
        return self._file is not None

    def take(self, chunks: list[bytes], *, is_all: bool = False) -> None:
        """Write what came of the body; `is_all`: no more will come, so that it is inspected next.

        Raises:
            CorruptError: it cannot be one whole export.
            StorageError: a folder on the way is a link.
            OSError: it cannot be made, or not be written.
        """
        if self._closed:
            raise AssertionError("the part file is closed")
        if self._file is None:
            self._create()
            if not is_all:
                look_at_begin(_begin_of(chunks), self._container)
        for chunk in chunks:
            self._wire.feed(chunk)
        if chunks:
            with self._disk.at("part.write"):
                write_all(self._open_file(), chunks)

    def give_up(self) -> None:
        """Nobody waits for it any more: an inspection under way ends soon."""
        self._given_up = True

    def finish(self, proof: BodyProof, *, least_rows: int | None) -> Archive:
        """Inspect the whole, make it durable, give it its final name; see `ArchiveWriter.commit`.

        Raises:
            ArchiveError: it is not one whole export.
            FewerRowsError: it has fewer rows than that, and a sound archive has the name.
            OSError: it cannot be made durable.
            GivenUp: nobody waits any more.
        """
        found = self._inspect(proof)
        if found.is_remade:
            file = os.open(self._remade, os.O_RDONLY | os.O_CLOEXEC)
            try:
                stands = self._put(self._remade, file, found.archive, least_rows=least_rows)
            finally:
                os.close(file)
            self._part.unlink()
        else:
            stands = self._put(self._part, self._open_file(), found.archive, least_rows=least_rows)
        self._close()
        self._disk.sync_folder(self._part.parent)
        return stands

    def _put(self, made: Path, file: int, archive: Archive, *, least_rows: int | None) -> Archive:
        return self._place.put(made, file, archive, least_rows=least_rows, rules=self._rules, goes_on=self._goes_on)

    def remove(self) -> None:
        """Remove the file. One that cannot be removed is left to the next run, which removes all part files."""
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
            goes_on=self._goes_on,
            create=self._disk.make_file,
            at=self._disk.at,
        )
        if found.long_rows:
            told = "a row" if found.long_rows == 1 else f"{found.long_rows:,} rows"
            log.warning(
                "%s: %s longer than [download] max_row (%d bytes): stored as it came, and not looked into",
                self._path, told, self._max_row,
            )  # fmt: skip
        return found

    def _goes_on(self) -> bool:
        return not self._given_up

    def _create(self) -> None:
        self._disk.make_folder(self._part.parent)
        # Never into what is there already, wherever that may lead.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)  # noqa: PTH108 - for each archive
        with self._disk.at("part.create"):
            self._file = self._disk.make_file(self._part)

    def _close(self) -> None:
        """Close the file once: its number may be another file's by the next time."""
        file, self._file, self._closed = self._file, None, True
        if file is not None:
            os.close(file)

    def _open_file(self) -> int:
        if self._file is None:
            raise AssertionError("the part file is closed")
        return self._file


def _begin_of(chunks: list[bytes]) -> bytes:
    begin = b""
    for chunk in chunks:
        if len(begin) >= LOOKED_AT_BYTES:
            break
        begin += chunk
    return begin[:LOOKED_AT_BYTES]
