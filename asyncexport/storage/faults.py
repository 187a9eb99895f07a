"""What the system says of a disk, in plain words."""

import errno
import os
from pathlib import Path

from asyncexport.core.file_faults import file_fault
from asyncexport.errors import StorageError


def in_plain_words(error: OSError, directory: Path) -> StorageError:
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


def _has_inodes(directory: Path) -> bool:
    """Whether one more file would find an inode; True where the file system does not count them."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    return found.f_files == 0 or found.f_favail > 0
