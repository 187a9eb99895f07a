"""Translates errors of the operating system into the package's own."""

import errno
import os
from pathlib import Path

from asyncexport.core.file_faults import FileFault, directory_gone, file_fault
from asyncexport.errors import StorageError


def storage_error(error: OSError, directory: Path) -> StorageError:
    """Return our error for an error of the operating system."""
    where = error.filename or directory
    inodes = error.errno != errno.ENOSPC or _has_inodes(directory)
    fault = file_fault(error.errno, place=str(where), directory=str(directory), has_inodes=inodes)
    if fault is not None:
        return _error_of(fault)
    match error.errno:
        case errno.ENOENT if not directory.exists():
            return _error_of(directory_gone(str(directory)))
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(
                f"cannot use {where}: {error.strerror}",
                hint="check the owner and the permissions of the directory, or choose another [output] directory",
            )
        case _:
            return StorageError(
                f"{where}: {error.strerror or error}",
                hint="check the disk, then run the same command again: what is stored is kept",
            )


def _error_of(fault: FileFault) -> StorageError:
    return StorageError(fault.message, hint=fault.hint)


def _has_inodes(directory: Path) -> bool:
    """Whether there is an inode for one more file; True if the file system does not count them."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    return found.f_files == 0 or found.f_favail > 0
