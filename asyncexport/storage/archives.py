"""The output directory: prepared for a run, its files listed, and its archives begun, checked and moved aside."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Self

from asyncexport.core.access import Access
from asyncexport.core.archive.rules import RowRules
from asyncexport.core.archive.structure import MAX_ROW_BYTES
from asyncexport.core.archive.wire_hash import WireHashes
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Export, Format
from asyncexport.core.states import Archive
from asyncexport.errors import CorruptError, StorageError
from asyncexport.storage.archive_part import ArchivePart
from asyncexport.storage.definitions import read_definitions, write_definition
from asyncexport.storage.disk import Disk
from asyncexport.storage.inspecting import inspect
from asyncexport.storage.layout import EXPORT_NAME, archive_path, folders_with_archives
from asyncexport.storage.listing import ExportFolder, archives_of, files_below, look_into
from asyncexport.storage.part_names import is_rubbish
from asyncexport.storage.writer import ArchiveWriter


class Archives:
    """The output directory; an asynchronous context manager that ends its threads.

    Args:
        directory: Where.
        max_row: A row of more bytes is told when it comes.
    """

    def __init__(self, directory: Path, *, max_row: int = MAX_ROW_BYTES) -> None:
        self._directory = directory
        self._max_row = max_row
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

    async def look_into(self, exports: Sequence[Export]) -> dict[str, ExportFolder]:
        """What lies in each export's folder, by its name; nothing is changed.

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(
            lambda: {export.name: look_into(self._directory, export) for export in exports},
        )

    async def archives_of(self, export: Export, days: Sequence[int]) -> list[Range]:
        """See `listing.archives_of`.

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(archives_of, self._directory, export, days)

    async def prepare(
        self,
        exports: Sequence[Export],
        *,
        access: Access = Access.UMASK,
        found: Mapping[str, ExportFolder] | None = None,
    ) -> None:
        """Make the folders, write the definitions beside them, remove what earlier runs left half-made.

        Args:
            exports: The exports to make ready for.
            access: Who may read what is made from now on.
            found: What `look_into` found; None: it is looked for.

        Raises:
            StorageError: the directory cannot be written.
        """
        self._disk.access = access
        await self._disk.run(self._prepare, exports, found)

    def new_part(
        self,
        bundle: Bundle,
        container: Format,
        *,
        wire_hashes: WireHashes | None = None,
        rules: RowRules | None = None,
    ) -> ArchiveWriter:
        """Begin an archive; nothing is on the disk yet."""
        path = archive_path(bundle, container)
        part = ArchivePart(self._disk, path, container, wire_hashes=wire_hashes, rules=rules, max_row=self._max_row)
        return ArchiveWriter(self._disk, part)

    async def files(self, export: str) -> list[str]:
        """All files below an export's folder, in order, relative to the output directory (`listing`).

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(files_below, self._directory, export)

    async def folders(self) -> list[str]:
        """The names of the folders that hold archives, in order."""
        return await self._disk.run(folders_with_archives, self._directory)

    async def definitions(self) -> list[Export]:
        """The exports whose definitions lie here.

        Raises:
            StorageError: one cannot be read.
        """
        return await self._disk.run(read_definitions, self._directory)

    async def check(self, path: str, container: Format, *, rules: RowRules | None = None) -> Archive | None:
        """Read an archive to its end; return None if there is none, or if it was deleted meanwhile.

        Raises:
            ArchiveError: it is not one whole export, or the disk does not give it back.
            StorageError: it may not be read.
        """
        given_up = threading.Event()

        def look() -> Archive | None:
            file = self._directory / path
            with suppress(FileNotFoundError):
                _refuse_no_file(file)
                found = inspect(file, container, name=path, rules=rules, goes_on=lambda: not given_up.is_set())
                # A file that is deleted while it is open can still be read to its end.
                file.lstat()
                return found.archive
            return None

        return await self._disk.inspect(look, give_up=given_up.set)

    async def written_at(self, path: str) -> float:
        """When a file was written, in seconds since 1970."""
        return await self._disk.run(lambda: (self._directory / path).stat().st_mtime)

    async def name_aside(self, path: str) -> str:
        """The next free name, which is no archive's, for an archive that cannot be used."""
        return await self._disk.run(self._name_aside, path)

    async def move_aside(self, path: str, aside: str) -> None:
        """Give an archive that cannot be used the name that `name_aside` found."""
        await self._disk.run(self._move_aside, path, aside)

    def _prepare(self, exports: Sequence[Export], found: Mapping[str, ExportFolder] | None) -> None:
        self._disk.make_folder(self._directory)
        self._disk.is_prepared = True
        for export in exports:
            if not EXPORT_NAME.fullmatch(export.name):
                raise StorageError(f"{export.name!r} cannot be the name of a folder", hint="choose another name")
            folder = self._directory / export.name
            self._disk.make_folder(folder)
            known = found.get(export.name) if found else None
            for path in (known or look_into(self._directory, export)).parts:
                if is_rubbish(part := self._directory / path):
                    part.unlink(missing_ok=True)
            write_definition(self._disk, export)

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
