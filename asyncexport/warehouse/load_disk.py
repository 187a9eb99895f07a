"""The disk under a load directory: creates, flushes, renames and removes, each step with its failpoints."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncexport.core.file_faults import NO_FOLDER_FLUSH
from asyncexport.warehouse.failpoints import Failpoints
from asyncexport.warehouse.faults import storage_error


class LoadDisk:
    """File operations in a load directory. `what` names a step in its failpoints.

    Args:
        directory: The load directory, for messages.
        folder_mode: The mode of folders that are created, before the umask.
    """

    def __init__(self, directory: Path, *, folder_mode: int) -> None:
        self._directory = directory
        self._folder_mode = folder_mode
        self._failpoints = Failpoints()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate the errors of the operating system in the block.

        Raises:
            StorageError: there was one.
        """
        try:
            yield
        except OSError as error:
            raise storage_error(error, self._directory) from error

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its missing parents durably."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            with self._failpoints.at("folder"):
                try:
                    one.mkdir(mode=self._folder_mode, exist_ok=True)
                except FileExistsError as error:
                    # A file, or a link to nowhere.
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(one)) from error
            self.flush_folder("folder", one.parent)

    def flush(self, what: str, file: Path) -> None:
        """Make the content of a file durable."""
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._failpoints.at(f"{what}.fsync"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, what: str, part: Path, final: Path) -> None:
        """Rename a file and flush its folder."""
        with self._failpoints.at(f"{what}.rename"):
            part.replace(final)
        self.flush_folder(what, final.parent)

    def remove(self, what: str, file: Path) -> None:
        """Remove a file. The caller flushes the folder."""
        with self._failpoints.at(f"{what}.remove"):
            file.unlink()

    def flush_folder(self, what: str, folder: Path) -> None:
        """Flush a folder, if its file system can do that."""
        with self._failpoints.at(f"{what}.folder"):
            flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush a folder, if its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)
