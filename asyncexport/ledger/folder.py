"""The folder of the ledger and the lock: creates it, protects it from other users, flushes it.

Nothing in it is opened through a link: another user who could write to the output directory before us must not be able
to redirect our writes to another file of ours. The folder itself may be a link, to a folder that we own and that no
other user can write to.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from asyncexport.core.file_faults import NO_FOLDER_FLUSH
from asyncexport.errors import StorageError
from asyncexport.ledger.failpoints import reached

LEDGER_FOLDER = ".asyncexport"


def make_folder(directory: Path, *, directory_mode: int = 0o777) -> Path:
    """Return the folder of the ledger and the lock; create it durably if it is missing.

    Args:
        directory: The output directory.
        directory_mode: The mode, before the umask, of the output directory if it has to be created.

    Raises:
        StorageError: the folder is a link to something that others own or can write to.
        OSError: the folder cannot be created.
    """
    folder = directory.absolute() / LEDGER_FOLDER
    if folder.is_symlink():
        _check_link(folder)
        return folder
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        _make(path, {folder: 0o700, folder.parent: directory_mode}.get(path, 0o777))
    restrict(folder, 0o700)
    return folder


def make_load_folder(directory: Path, *, mode: int) -> None:
    """Create a load directory durably if it is missing; `mode` is its mode, before the umask.

    Raises:
        OSError: it cannot be created.
    """
    for path in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        _make(path, mode if path == directory else 0o777)


def _make(folder: Path, mode: int) -> None:
    """Create a folder durably, unless it has appeared meanwhile.

    Raises:
        NotADirectoryError: there is a file, or a link to nowhere.
    """
    try:
        folder.mkdir(mode=mode, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
    sync_folder(folder.parent)


def refuse_link(path: Path) -> None:
    """Make sure that a file is not a link, if it is opened by something that cannot be told not to follow one.

    Raises:
        OSError: it is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def can_flush_folders(path: Path) -> bool:
    """Whether the file system of a folder supports flushing the folder's entries."""
    return _flush(path)


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable, if the file system supports that (`can_flush_folders`)."""
    _flush(path)


def restrict(path: Path, mode: int) -> None:
    """Set the mode of a file or folder, if the file system and the owner allow it."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(PermissionError):
            path.chmod(mode)


def _check_link(folder: Path) -> None:
    """Make sure that a link leads to a folder that we own and that no other user can write to."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise StorageError(
            f"{folder} is a link to a folder that does not exist", hint="create that folder, or remove the link"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StorageError(
            f"{folder} is a link to something that is not a folder", hint="remove the link: a folder will be created"
        )
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(
            f"{folder} is a link to a folder that others own or can write to",
            hint="make it a link to a folder of your own (chmod 700), or remove it: a folder will be created",
        )


def _flush(path: Path) -> bool:
    """Flush a folder; return False if the file system does not support that.

    Raises:
        OSError: the file system supports it, but it failed.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reached("ledger.folder.fsync:before")
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return False
    finally:
        os.close(folder)
    return True
