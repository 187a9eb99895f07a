"""What file system errors mean, for archives and the ledger: one table.

Only errors whose system message does not help are in it. The others are reported in the system's words.
"""

import errno
from typing import NamedTuple

NO_FOLDER_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
"""Errors of `fsync` for a folder on file systems that cannot do it (SMB, sshfs, DrvFs). A run goes on without."""

FOLDERS_NOT_FLUSHED = (
    "the file system of {directory} cannot flush folders: after a power cut, archives stored shortly before it may be "
    "missing, and `verify --repair` fetches them again"
)
"""The warning about such a file system."""


class FileFault(NamedTuple):
    """An error in plain words, and the next thing to do."""

    message: str
    hint: str


def directory_gone(directory: str) -> FileFault:
    """Return the fault for an output directory that no longer exists."""
    return FileFault(
        f"{directory} disappeared while a run was writing to it",
        "bring it back (is its disk still mounted?), then run the same command again",
    )


def no_folder(place: str) -> FileFault:
    """Return the fault for a path that leads through something that is not a folder."""
    return FileFault(
        f"{place} cannot be used: in its path there is something else where a folder is expected",
        "look for a file, or a link to nowhere, in the path (`ls -ld`), move it away, and run the same command again",
    )


def file_fault(number: int | None, *, place: str, directory: str, has_inodes: bool = True) -> FileFault | None:
    """Return what an error number means. None if the system's own words say enough.

    Args:
        number: The system's error number.
        place: The file or folder that was used.
        directory: The output directory.
        has_inodes: Whether the file system has room for one more file, however small.
    """
    match number:
        case errno.ENOSPC if not has_inodes:
            return FileFault(
                f"the disk of {directory} has no inodes left: it cannot hold more files",
                "delete files that are not needed, or use wider bundles, and run the same command again: stored "
                "bundles are kept",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return FileFault(
                f"the disk of {directory} is full",
                "free some space and run the same command again: stored bundles are kept",
            )
        case errno.EMFILE:
            return FileFault(
                f"{place} cannot be opened: this process has reached its limit of open files",
                "raise the limit (`ulimit -n 4096`), or set [concurrency] downloads lower",
            )
        case errno.ENFILE:
            return FileFault(
                f"{place} cannot be opened: this machine has reached its limit of open files",
                "look for the program that has them open (`lsof`), then run the same command again",
            )
        case errno.ENOLCK:
            return FileFault(
                f"{place} cannot be locked: its file system does not support locks",
                "choose an [output] directory on a local disk, or turn on the file server's lock service",
            )
        case errno.ELOOP:
            return FileFault(
                f"{place} is a symbolic link, and is not followed",
                "remove the link, and run the same command again; the output directory itself may be a link",
            )
        case errno.EISDIR:
            return FileFault(
                f"{place} is a folder where a file is expected",
                "move the folder away, and run the same command again",
            )
        case errno.ENOTDIR:
            return no_folder(place)
        case _:
            return None
