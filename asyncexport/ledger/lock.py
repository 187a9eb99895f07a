"""The lock on an output directory: held by the operating system, so that it ends with the process that holds it.

What is written into the file names the holder to those who find it locked. A file without a lock means nothing, and is
never deleted: deleting it would let two processes hold a lock on two files of one name.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson

from asyncexport.core.bundles import FIRST_WRITTEN, LAST_WRITTEN, show
from asyncexport.core.file_faults import FOLDERS_NOT_FLUSHED
from asyncexport.errors import LedgerLockedError
from asyncexport.ledger.failpoints import reached
from asyncexport.ledger.faults import translated
from asyncexport.ledger.folder import LEDGER_FOLDER, can_flush_folders, make_folder

LOCK_NAME = "lock"

LOCK_DOES_NOTHING = (
    "the file system of {directory} has no working locks: nothing keeps a second run on another machine out, so see to "
    "it that only one runs at a time"
)
"""What is told where two can hold the same lock."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; `since` is in seconds since 1970."""

    command: str
    pid: int
    host: str
    since: float

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """What the holder wrote, as far as it can be read."""
        try:
            data = orjson.loads(text)
            found = cls(str(data["command"]), int(data["pid"]), str(data["host"]), float(data["since"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        return found if FIRST_WRITTEN <= found.since <= LAST_WRITTEN else None

    def __str__(self) -> str:
        """As a person is told."""
        return f"{self.command}, process {self.pid} on {self.host}, since {show(self.since)}"

    @property
    def gone(self) -> bool:
        """Whether it is a process of this machine that has ended without a word."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


def holder(directory: Path) -> Holder | None:
    """Who holds an output directory; None where nobody seems to. The lock itself is not touched."""
    try:
        # A pipe in its place is not waited for.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(directory.absolute() / LEDGER_FOLDER / LOCK_NAME, flags)
    except OSError:
        return None
    try:
        found = _holder(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None if found is None or found.gone else found


@contextmanager
def hold(directory: Path, *, command: str, directory_mode: int = 0o777) -> Iterator[tuple[str, ...]]:
    """Be the only one that writes to an output directory.

    Args:
        directory: The output directory, which is made where it is missing.
        command: What others are told that runs.
        directory_mode: What it is made with, before the umask.

    Yields:
        What its file system cannot do and the user should know of, a sentence each.

    Raises:
        LedgerLockedError: another process holds it.
        StorageError: the directory cannot be made or written, or gives out no locks.
    """
    path = directory.absolute() / LEDGER_FOLDER / LOCK_NAME
    with translated(path):
        folder = make_folder(directory, directory_mode=directory_mode)
        file = _open(path)
    try:
        with translated(path):
            with suppress(PermissionError):
                os.fchmod(file, 0o600)
            notes: tuple[str, ...] = (
                () if can_flush_folders(folder) else (FOLDERS_NOT_FLUSHED.format(directory=directory),)
            )
            if not _lock(file, path, directory):
                notes += (LOCK_DOES_NOTHING.format(directory=directory),)
            _write(file, {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()})
        try:
            yield notes
        finally:
            # While it is still ours. If it cannot be done, others still see that the process is gone.
            with suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(file: int, path: Path, directory: Path) -> bool:
    """Take the lock; False: the file system lets others take it as well."""
    if not _takes(file):
        raise LedgerLockedError(
            f"another run holds {directory}{_named(_holder(file))}",
            hint="wait until it has ended, or choose another [output] directory",
        )
    second = _open(path)
    try:
        if not _takes(second):
            return True
    finally:
        os.close(second)
    found = _holder(file)
    if found and found.host == socket.gethostname() and found.pid != os.getpid() and not found.gone:
        raise LedgerLockedError(
            f"another run seems to hold {directory}{_named(found)}; its file system has no working locks, so what that "
            "run wrote is all there is to go by",
            hint=f"wait until it has ended; if that process is none of asyncexport, delete {path}",
        )
    return False


def _takes(file: int) -> bool:
    """Whether the lock could be had."""
    reached("lock:before")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> Holder | None:
    """Who holds it, as far as that is written."""
    return Holder.read(os.pread(file, 4096, 0))


def _named(found: Holder | None) -> str:
    return f": {found}" if found else ""


def _write(file: int, holder: dict[str, object]) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, orjson.dumps(holder) + b"\n", 0)
