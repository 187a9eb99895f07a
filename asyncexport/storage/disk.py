"""The disk under an output directory: creates, renames and flushes files and folders."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from asyncexport.core.access import Access
from asyncexport.core.file_faults import NO_FOLDER_FLUSH
from asyncexport.errors import LedgerLockedError, StorageError
from asyncexport.storage.failpoints import STORAGE_FAILPOINT
from asyncexport.storage.threads import DiskThreads


class Disk(DiskThreads):
    """File operations under an output directory.

    Args:
        directory: The output directory.

    Attributes:
        access: Who may read the files and folders that are created.
        is_prepared: Whether the run has prepared the directory: if it disappears after that, it is not created again.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.access = Access.UMASK
        self.is_prepared = False
        self._failpoint = STORAGE_FAILPOINT.get()
        self._making_folders = threading.Lock()
        self._durable: set[Path] = set()

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Announce a write's failpoints: one before it, and one after it unless it failed."""
        self._failpoint(f"{name}:before")
        yield
        self._failpoint(f"{name}:after")

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its missing parents, and flush the parent of each.

        The parent of an existing folder below the directory is flushed once, too: the thread or run that created the
        folder may not have flushed it.

        Raises:
            StorageError: the folder is a link, so files written into it would end up elsewhere.
        """
        with self._making_folders:
            if folder == self.directory or not self._is_there(folder):
                self._make_folder(folder)
            elif folder not in self._durable:
                self.sync_folder(folder.parent)
            self._durable.add(folder)

    def _is_there(self, folder: Path) -> bool:
        kind = _kind(folder)
        if S_ISLNK(kind):
            raise StorageError(
                f"{folder} is a link", hint="replace it by a folder, or make the whole output directory a link"
            )
        return S_ISDIR(kind)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            if folder == self.directory and self.is_prepared:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            with self.at("folder"):
                one.mkdir(mode=self.access.folder_mode, exist_ok=True)
            self.sync_folder(one.parent)

    def make_file(self, path: Path) -> int:
        """Create a new file and return a descriptor to write to it.

        Raises:
            FileExistsError: there is something of that name; a link is not followed.
        """
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.access.file_mode)

    def is_file(self, path: Path) -> bool:
        """Whether there is a regular file at the path, and not a folder or a link."""
        return S_ISREG(_kind(path))

    def give_name(self, file: int, part: Path, final: Path) -> None:
        """Rename the part file with this descriptor to its final name. A folder of that name is moved aside.

        Raises:
            LedgerLockedError: another process has replaced the part file.
        """
        ours, there = os.fstat(file), part.lstat()
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise LedgerLockedError(
                f"another process has replaced {part}: two runs write to {self.directory} at the same time",
                hint="make sure that only one run uses a directory, then run the same command again",
            )
        if S_ISDIR(_kind(final)):
            self.move_aside(final, self.name_aside(final))
        with self.at("rename"):
            part.replace(final)

    def name_aside(self, path: Path) -> Path:
        """Return the next free name for something that cannot be used; it does not look like an archive's name."""
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
            number += 1
        return aside

    def move_aside(self, path: Path, aside: Path) -> None:
        """Rename it durably."""
        with self.at("aside"):
            path.rename(aside)
        self.sync_folder(path.parent)

    def sync_folder(self, folder: Path) -> None:
        """Flush the entries of a folder if the file system supports that (if not, `hold` has warned about it)."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self.at("folder.fsync"):
                os.fsync(handle)
        except OSError as error:
            if error.errno not in NO_FOLDER_FLUSH:
                raise
        finally:
            os.close(handle)


def _kind(path: Path) -> int:
    """Return the file mode of what is at the path, without following a link; 0 if there is nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
