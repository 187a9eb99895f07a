"""What the errors of a file system mean: one table for archives and ledger.

Only what people cannot guess from the system's own words stands here. The rest is told in those words.
"""

import errno
from typing import NamedTuple

NO_FOLDER_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What `fsync` of a folder fails with where the file system has no such thing (SMB, sshfs, DrvFs). It is lived with."""

FOLDERS_NOT_FLUSHED = (
    "the file system of {directory} cannot flush folders: after a power cut, archives stored shortly before it may be "
    "missing, and `verify --repair` fetches them again"
)
"""What is told of such a file system."""


class FileFault(NamedTuple):
    """An error in plain words, and the next thing to do."""

    message: str
    hint: str


def directory_gone(directory: str) -> FileFault:
    """What is said where the output directory is no longer there."""
    return FileFault(
        f"{directory} went away while a run wrote to it",
        "bring it back (is its disk still mounted?), then run the same command again",
    )


def file_fault(number: int | None, *, place: str, directory: str, has_inodes: bool = True) -> FileFault | None:
    """What an error number means; None where the system's own words say enough.

    Args:
        number: The system's error number.
        place: The file or folder that was used.
        directory: The output directory.
        has_inodes: Whether the file system has room for one more file, however small.
    """
    match number:
        case errno.ENOSPC if not has_inodes:
            return FileFault(
                f"the disk of {directory} has no inodes left: it holds as many files as it can",
                "delete files that nobody needs, or use wider bundles, and run the same command again: what is stored "
                "is kept",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return FileFault(
                f"the disk of {directory} is full",
                "free some space and run the same command again: what is stored is kept",
            )
        case errno.EMFILE:
            return FileFault(
                f"{place} cannot be opened: this process has as many files open as it may",
                "raise the limit (`ulimit -n 4096`), or set [concurrency] downloads lower",
            )
        case errno.ENFILE:
            return FileFault(
                f"{place} cannot be opened: this machine has as many files open as it can",
                "look for the program that has them open (`lsof`), then run the same command again",
            )
        case errno.ENOLCK:
            return FileFault(
                f"{place} cannot be locked: its file system gives out no locks",
                "choose an [output] directory on a local disk, or turn on the file server's lock service",
            )
        case errno.ELOOP:
            return FileFault(
                f"{place} is a link, and what it leads to is left alone",
                "remove the link, and run the same command again; the output directory itself may be one",
            )
        case errno.EISDIR:
            return FileFault(
                f"{place} is a folder, and a file belongs there",
                "move the folder away, and run the same command again",
            )
        case _:
            return None
