"""The disk under an output directory: its work is done in threads, and its errors are told in plain words."""

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, TypeVar

from aiofiles.os import wrap

from asyncexport.core.access import Access
from asyncexport.core.file_faults import NO_FOLDER_FLUSH, file_fault
from asyncexport.errors import LedgerLockedError, StorageError
from asyncexport.storage.failpoints import STORAGE_FAILPOINT

CORES = os.cpu_count() or 1
"""How many archives are looked into at the very same time, that is hashed, inflated and handed to the system: more
would only contend for the interpreter, and hold what they inflate in memory."""

THREADS = max(4, CORES)
"""How many archives are worked on in all: the rest of it is waiting for the disk."""

T = TypeVar("T")


def _do(work: Callable[..., T], *arguments: Any) -> T:
    return work(*arguments)


# Wrapped once: aiofiles would copy the name and the words of what it wraps at every call.
in_a_thread: Callable[..., Awaitable[Any]] = wrap(_do)


async def until_over(doing: "asyncio.Future[Any]") -> None:
    """Wait for the end of what a thread does, however often we are cancelled; its result is dropped."""
    while not doing.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([doing])
    if not doing.cancelled():
        # Whoever waited is cancelled. An exception that nobody retrieves would make asyncio print a traceback.
        doing.exception()


class Disk:
    """What lies under a directory.

    Args:
        directory: Where.

    Attributes:
        access: Who may read what is made.
        is_prepared: The directory was made for a run: from now on it is never made anew, wherever it went.
        cores: Held by a thread while it looks into an archive.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.access = Access.UMASK
        self.is_prepared = False
        self._failpoint = STORAGE_FAILPOINT.get()
        self.cores = threading.BoundedSemaphore(CORES)
        self._making_folders = threading.Lock()
        self._durable: set[Path] = set()
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="storage")

    async def close(self) -> None:
        """End the threads, once they have done what they were given."""
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do work with the disk in a thread. Whoever is cancelled waits for the end of the work.

        Raises:
            StorageError: the disk is full, not writable, or failed.
        """
        doing: asyncio.Future[T] = asyncio.ensure_future(
            in_a_thread(self._told, work, *arguments, executor=self._threads)
        )
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await until_over(doing)
            raise

    def _told(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do it; in the thread, since the disk is looked at once more to say what is wrong with it."""
        try:
            return work(*arguments)
        except OSError as error:
            raise _in_plain_words(error, self.directory) from error

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
        try:
            kind = folder.lstat().st_mode
        except FileNotFoundError:
            return False
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
        try:
            return S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            return False

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
        if not final.is_symlink() and final.is_dir():
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


def _has_inodes(directory: Path) -> bool:
    """Whether one more file would find an inode; True where the file system does not count them."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    return found.f_files == 0 or found.f_favail > 0


def _in_plain_words(error: OSError, directory: Path) -> StorageError:
    """The error of ours for what the system raised."""
    where = error.filename or directory
    inodes = error.errno != errno.ENOSPC or _has_inodes(directory)
    fault = file_fault(error.errno, place=str(where), directory=str(directory), has_inodes=inodes)
    if fault is not None:
        return StorageError(fault.message, hint=fault.hint)
    match error.errno:
        case errno.ENOENT if not directory.exists():
            return StorageError(
                f"{directory} went away while a run wrote to it",
                hint="bring it back (is its disk still mounted?), then run the same command again",
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(
                f"{where} cannot be used: {error.strerror}",
                hint="check who owns the directory, or choose another by [output] directory",
            )
        case _:
            return StorageError(
                f"{where}: {error.strerror or error}",
                hint="see to the disk, then run the same command again: what is stored is kept",
            )
