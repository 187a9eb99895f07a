"""The output directory: prepared for a run, its files listed, and its archives begun, checked and moved aside."""

import errno
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import BinaryIO, Self

from asyncexport.core.access import Access
from asyncexport.core.archive.inspection import Inspector, WireHashes
from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Export, Format
from asyncexport.core.states import Archive
from asyncexport.errors import CorruptError, StorageError
from asyncexport.storage.definitions import read_definitions, write_definition
from asyncexport.storage.disk import Disk
from asyncexport.storage.layout import EXPORT_NAME, archive_path
from asyncexport.storage.listing import files_below
from asyncexport.storage.part_names import is_rubbish
from asyncexport.storage.writer import GATHER_BYTES, ArchiveWriter

READ_BYTES = 4 * GATHER_BYTES
"""How much is read and checked in one go in a thread: whoever is cancelled waits for it."""


class Archives:
    """The output directory; an asynchronous context manager that ends its threads.

    Args:
        directory: Where.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._disk = Disk(directory)

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the threads."""
        await self.close()

    async def close(self) -> None:
        """End the threads."""
        await self._disk.close()

    async def prepare(self, exports: Sequence[Export], *, access: Access = Access.UMASK) -> None:
        """Make the folders, write the definitions beside them, remove what earlier runs left half-made.

        Args:
            exports: The exports to make ready for.
            access: Who may read what is made from now on.

        Raises:
            StorageError: the directory cannot be written.
        """
        self._disk.access = access
        await self._disk.run(self._prepare, exports)

    def new_part(self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None = None) -> ArchiveWriter:
        """Begin an archive; nothing is on the disk yet."""
        return ArchiveWriter(self._disk, archive_path(bundle, container), container, wire_hashes=wire_hashes)

    async def files(self, export: str) -> list[str]:
        """All files below an export's folder, in order, relative to the output directory (`listing`).

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(files_below, self._directory, export)

    async def definitions(self) -> list[Export]:
        """The exports whose definitions lie here.

        Raises:
            StorageError: one cannot be read.
        """
        return await self._disk.run(read_definitions, self._directory)

    async def check(self, path: str, container: Format) -> Archive | None:
        """Read an archive to its end; None where there is none.

        Raises:
            ArchiveError: it is not one whole export, or the disk does not give it back.
            StorageError: it may not be read.
        """
        with closing(self._looks(path, container)) as looks:
            is_over, found = False, None
            while not is_over:
                is_over, found = await self._disk.run(next, looks)
            return found

    async def written_at(self, path: str) -> float:
        """When a file was written, in seconds since 1970."""
        return await self._disk.run(lambda: (self._directory / path).stat().st_mtime)

    async def name_aside(self, path: str) -> str:
        """The next free name, which is no archive's, for an archive that cannot be used."""
        return await self._disk.run(self._name_aside, path)

    async def move_aside(self, path: str, aside: str) -> None:
        """Give an archive that cannot be used the name that `name_aside` found."""
        await self._disk.run(self._move_aside, path, aside)

    def _prepare(self, exports: Sequence[Export]) -> None:
        self._disk.make_folder(self._directory)
        self._disk.is_prepared = True
        for export in exports:
            if not EXPORT_NAME.fullmatch(export.name):
                raise StorageError(f"{export.name!r} cannot be the name of a folder", hint="choose another name")
            folder = self._directory / export.name
            self._disk.make_folder(folder)
            for part in (*folder.glob(".*.part"), *folder.glob("date=*/.*.part")):
                if is_rubbish(part):
                    part.unlink(missing_ok=True)
            write_definition(self._disk, export)

    def _looks(self, path: str, container: Format) -> Generator[tuple[bool, Archive | None], None, None]:
        """Check an archive, each `next` for a bounded time in a thread: whether that is all, and the result."""
        inspector = Inspector(container, path=path)
        try:
            _refuse_no_file(self._directory / path)
            file = (self._directory / path).open("rb")
        except FileNotFoundError:
            yield True, None
            return
        with file:
            while piece := _read(file):
                with self._disk.cores:
                    inspector.feed(piece)
                if len(piece) == READ_BYTES:
                    yield False, None
        yield True, inspector.close_archive()

    def _name_aside(self, path: str) -> str:
        return str(self._disk.name_aside(self._directory / path).relative_to(self._directory))

    def _move_aside(self, path: str, aside: str) -> None:
        self._disk.move_aside(self._directory / path, self._directory / aside)


def _refuse_no_file(path: Path) -> None:
    """Make sure that a file lies there: what a link leads to is not what was stored.

    Raises:
        CorruptError: it is anything else.
        FileNotFoundError: there is nothing.
    """
    kind = path.lstat().st_mode
    if not S_ISREG(kind):
        what = "a folder" if S_ISDIR(kind) else "a link" if S_ISLNK(kind) else "no file"
        raise CorruptError(f"{what} lies in its place")


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(READ_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise CorruptError("the disk does not give the archive back: it cannot be read to its end") from error
