"""The folder that the ledger and the lock lie in: made, kept from others, flushed.

Nothing in it is opened through a link: somebody who could write to the output directory before us must not make us
write to a file of ours elsewhere. The folder itself may be a link, to a folder of ours in which nobody else can write.
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
    """The folder that the ledger and the lock lie in, made where it is missing, durably.

    Args:
        directory: The output directory.
        directory_mode: What the directory itself is made with, before the umask, where it is missing.

    Raises:
        StorageError: it is a link to what is not ours, or what others can write to.
        OSError: it cannot be made.
    """
    folder = directory.absolute() / LEDGER_FOLDER
    if folder.is_symlink():
        _check_link(folder)
        return folder
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode={folder: 0o700, folder.parent: directory_mode}.get(path, 0o777), exist_ok=True)
        sync_folder(path.parent)
    restrict(folder, 0o700)
    return folder


def refuse_link(path: Path) -> None:
    """Make sure that a file which others than `os.open` will open is no link.

    Raises:
        OSError: it is one.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def can_flush_folders(path: Path) -> bool:
    """Whether the file system of a folder can make the names in it durable."""
    return _flush(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the file system can do that (`can_flush_folders`)."""
    _flush(path)


def restrict(path: Path, mode: int) -> None:
    """Keep others out, as far as the file system knows of others."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(PermissionError):
            path.chmod(mode)


def _check_link(folder: Path) -> None:
    """Make sure that what a linked folder leads to is a folder of ours in which nobody else can write."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise StorageError(f"{folder} is a link to nowhere", hint="make the folder it names, or remove it") from None
    if not stat.S_ISDIR(status.st_mode):
        raise StorageError(f"{folder} is a link to what is no folder", hint="remove it: a folder is made in its place")
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(
            f"{folder} is a link to a folder that others own or can write to",
            hint="let it lead to a folder of your own (chmod 700), or remove it: a folder is made in its place",
        )


def _flush(path: Path) -> bool:
    """Flush a folder; whether the file system can do that.

    Raises:
        OSError: it can, and failed.
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
