"""The disk under an output directory: folders and files that are made, named and flushed."""

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
    """What lies under a directory.

    Args:
        directory: Where.

    Attributes:
        access: Who may read what is made.
        is_prepared: The directory was made for a run: from now on it is never made anew, wherever it went.
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
        """Around a write: its failpoints, the second unless it failed."""
        self._failpoint(f"{name}:before")
        yield
        self._failpoint(f"{name}:after")

    def make_folder(self, folder: Path) -> None:
        """Make a folder and what is missing above it, each flushed into the one it lies in.

        One that is there already may have been made by a thread, or a run, that has not flushed it: one below the
        directory is, once.

        Raises:
            StorageError: it is a link, so that what is written into it would lie elsewhere.
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
                f"{folder} is a link to elsewhere", hint="put a folder there, or link the whole directory"
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
        """A handle to write to a new file.

        Raises:
            FileExistsError: something has that name; it is not followed.
        """
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.access.file_mode)

    def is_file(self, path: Path) -> bool:
        """Whether a file lies there, and neither a folder nor a link."""
        return S_ISREG(_kind(path))

    def give_name(self, file: int, part: Path, final: Path) -> None:
        """Give the part file with this handle its final name. A folder under that name is moved aside.

        Raises:
            LedgerLockedError: another process has put another file in its place.
        """
        ours, there = os.fstat(file), part.lstat()
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise LedgerLockedError(
                f"another process has replaced {part}: two runs write to {self.directory} at the same time",
                hint="see to it that only one run uses a directory, then run the same command again",
            )
        if S_ISDIR(_kind(final)):
            self.move_aside(final, self.name_aside(final))
        with self.at("rename"):
            part.replace(final)

    def name_aside(self, path: Path) -> Path:
        """The next free name, which is no archive's, for what cannot be used."""
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
            number += 1
        return aside

    def move_aside(self, path: Path, aside: Path) -> None:
        """Give it that name, durably."""
        with self.at("aside"):
            path.rename(aside)
        self.sync_folder(path.parent)

    def sync_folder(self, folder: Path) -> None:
        """Flush the names in a folder, where the file system can do that; a run is told once where it cannot."""
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
    """What lies there, and is not followed if it is a link; 0: nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
