"""The output directory: prepares it for a run, lists its files, and starts, checks and moves aside archives."""

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
from asyncexport.storage.listing import ExportFolder, archives_of, files_below, scan_folder
from asyncexport.storage.part_names import is_rubbish
from asyncexport.storage.writer import ArchiveWriter


class Archives:
    """The output directory; an async context manager that ends its threads.

    Args:
        directory: The output directory.
        max_row: Rows longer than this many bytes are warned about when they arrive.
    """

    def __init__(self, directory: Path, *, max_row: int = MAX_ROW_BYTES) -> None:
        self._directory = directory
        self._max_row = max_row
        self._disk = Disk(directory)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the threads."""
        await self.close()

    async def close(self) -> None:
        """End the threads."""
        await self._disk.close()

    async def scan_folders(self, exports: Sequence[Export]) -> dict[str, ExportFolder]:
        """Return what is in each export's folder, by the export's name; changes nothing.

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(
            lambda: {export.name: scan_folder(self._directory, export) for export in exports},
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
        """Create the folders, write the definitions into them, and remove abandoned part files of earlier runs.

        Args:
            exports: The exports of the run.
            access: Who may read the files and folders created from now on.
            found: The result of `scan_folders`; None to scan the folders now.

        Raises:
            StorageError: the directory cannot be written.
            LedgerError: a folder holds archives of another definition.
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
        """Start an archive; nothing is written to the disk yet."""
        path = archive_path(bundle, container)
        part = ArchivePart(self._disk, path, container, wire_hashes=wire_hashes, rules=rules, max_row=self._max_row)
        return ArchiveWriter(self._disk, part)

    async def files(self, export: str) -> list[str]:
        """Return all files below an export's folder, in order, relative to the output directory (`listing`).

        Raises:
            StorageError: a folder cannot be read.
        """
        return await self._disk.run(files_below, self._directory, export)

    async def folders(self) -> list[str]:
        """Return the names of the folders that hold archives, in order."""
        return await self._disk.run(folders_with_archives, self._directory)

    async def definitions(self) -> list[Export]:
        """Return the exports whose definitions are stored here.

        Raises:
            StorageError: one cannot be read.
        """
        return await self._disk.run(read_definitions, self._directory)

    async def check(self, path: str, container: Format, *, rules: RowRules | None = None) -> Archive | None:
        """Read an archive to its end; return None if there is none, or if it was deleted meanwhile.

        Raises:
            ArchiveError: it is not one complete export, or the disk cannot read it.
            StorageError: there is no permission to read it.
        """
        abandoned = threading.Event()

        def read() -> Archive | None:
            file = self._directory / path
            with suppress(FileNotFoundError):
                _require_regular_file(file)
                found = inspect(file, container, name=path, rules=rules, is_wanted=lambda: not abandoned.is_set())
                # A file that is deleted while it is open can still be read to its end.
                file.lstat()
                return found.archive
            return None

        return await self._disk.inspect(read, abandon=abandoned.set)

    async def written_at(self, path: str) -> float:
        """Return when a file was last written, in seconds since 1970."""
        return await self._disk.run(lambda: (self._directory / path).stat().st_mtime)

    async def name_aside(self, path: str) -> str:
        """Return the next free name for an archive that cannot be used; it does not look like an archive's name."""
        return await self._disk.run(self._name_aside, path)

    async def move_aside(self, path: str, aside: str) -> None:
        """Rename an archive that cannot be used to the name that `name_aside` found."""
        await self._disk.run(self._move_aside, path, aside)

    def _prepare(self, exports: Sequence[Export], found: Mapping[str, ExportFolder] | None) -> None:
        self._disk.make_folder(self._directory)
        self._disk.is_prepared = True
        for export in exports:
            if not EXPORT_NAME.fullmatch(export.name):
                raise StorageError(f"{export.name!r} is not a valid folder name", hint="rename the export")
            folder = self._directory / export.name
            self._disk.make_folder(folder)
            known = found.get(export.name) if found else None
            for path in (known or scan_folder(self._directory, export)).parts:
                if is_rubbish(part := self._directory / path):
                    part.unlink(missing_ok=True)
            write_definition(self._disk, export)

    def _name_aside(self, path: str) -> str:
        return str(self._disk.name_aside(self._directory / path).relative_to(self._directory))

    def _move_aside(self, path: str, aside: str) -> None:
        self._disk.move_aside(self._directory / path, self._directory / aside)


def _require_regular_file(path: Path) -> None:
    """Make sure that there is a regular file: an archive is never stored as a link.

    Raises:
        CorruptError: there is something else.
        FileNotFoundError: there is nothing.
    """
    kind = path.lstat().st_mode
    if not S_ISREG(kind):
        what = "a folder" if S_ISDIR(kind) else "a link" if S_ISLNK(kind) else "a special file"
        raise CorruptError(f"there is {what} in place of the archive")
