"""The lock on an output directory: a lock of the operating system, which ends with the process that holds it.

A second lock of the same kind is held by the one run that waits for the holder of the first.

The lock file contains who holds the lock, for the error message of other runs. An unlocked file means nothing. The file
is never deleted: otherwise two processes could hold locks on two files of the same name.
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
from asyncexport.ledger.folder import LEDGER_FOLDER, can_flush_folders, make_folder, make_load_folder

LOCK_NAME = "lock"

LOAD_LOCK_NAME = ".lock"

OTHER_OUTPUT = "choose another [output] directory"

OTHER_LOAD = "choose another [load] directory"

PLACE_NAME = "waiting"
"""The lock file of the run that waits."""

LOCK_DOES_NOTHING = (
    "the file system of {directory} has no working locks: nothing stops a second run from using the directory, so make "
    "sure that only one runs at a time"
)
"""The warning for a file system where two processes can hold the same lock."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock; `since` is in seconds since 1970."""

    command: str
    pid: int
    host: str
    since: float

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """Read what the holder wrote; return None if it is invalid."""
        try:
            data = orjson.loads(text)
            found = cls(str(data["command"]), int(data["pid"]), str(data["host"]), float(data["since"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        return found if FIRST_WRITTEN <= found.since <= LAST_WRITTEN else None

    def __str__(self) -> str:
        """Return the text for messages."""
        return f"{self.command}, process {self.pid} on {self.host}, since {show(self.since)}"

    @property
    def gone(self) -> bool:
        """Whether it is a process of this machine that has ended without cleaning up."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return _is_zombie(self.pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only its parent has not taken note, which in some containers never happens."""
    try:
        # The name of the program, in parentheses, may contain anything; the state comes after it.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        # There is no such file on macOS.
        return False
    return state in (b"Z", b"X")


def holder(directory: Path) -> Holder | None:
    """Return who holds an output directory, by the content of the lock file; None if nobody seems to."""
    return _named_in(directory.absolute() / LEDGER_FOLDER / LOCK_NAME)


def load_holder(directory: Path) -> Holder | None:
    """Return the load that holds a load directory; None if none seems to."""
    return _named_in(directory.absolute() / LOAD_LOCK_NAME)


def waiting_run(directory: Path) -> Holder | None:
    """Return the run that waits for the holder of an output directory; None if none seems to."""
    return _named_in(directory.absolute() / LEDGER_FOLDER / PLACE_NAME)


def _named_in(path: Path) -> Holder | None:
    """Return the process that a lock file names, unless it is gone."""
    try:
        # O_NONBLOCK: if the path is a pipe, do not wait for it.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = _holder(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None if found is None or found.gone else found


def lock_holder(directory: Path) -> Holder | None:
    """Return who holds the lock of an output directory; None if a run could take it.

    Other than `holder`, it tests the lock, if the lock file names a holder: a process on another machine may have been
    killed. It holds the lock for an instant, so only call it for a user who asks.
    """
    found = holder(directory)
    if found is None:
        return None
    try:
        file = os.open(directory.absolute() / LEDGER_FOLDER / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return found
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return found
    finally:
        os.close(file)
    return None


@contextmanager
def hold(directory: Path, *, command: str, directory_mode: int = 0o777) -> Iterator[tuple[str, ...]]:
    """Hold the lock on an output directory.

    Args:
        directory: The output directory, which is created if it is missing.
        command: The running command, for the error message of other runs.
        directory_mode: The mode, before the umask, of a directory that is created.

    Yields:
        Warnings about what the file system does not support, one sentence each.

    Raises:
        LedgerLockedError: another process holds the lock.
        StorageError: the directory cannot be created or written, or its file system has no locks.
    """
    path = directory.absolute() / LEDGER_FOLDER / LOCK_NAME
    with translated(path):
        folder = make_folder(directory, directory_mode=directory_mode)
    with _held(path, directory, command=command, what="run", hint=OTHER_OUTPUT) as works, translated(path):
        notes: tuple[str, ...] = () if can_flush_folders(folder) else (FOLDERS_NOT_FLUSHED.format(directory=directory),)
        yield notes if works else (*notes, LOCK_DOES_NOTHING.format(directory=directory))


@contextmanager
def hold_load(directory: Path, *, directory_mode: int = 0o777) -> Iterator[bool]:
    """Hold the lock on a load directory, which has no folder of its own: `DIRECTORY/.lock`.

    Args:
        directory: The load directory, which is created if it is missing.
        directory_mode: The mode, before the umask, of a directory that is created.

    Yields:
        Whether locks work on the directory's file system.

    Raises:
        LedgerLockedError: another process holds the lock.
        StorageError: the directory cannot be created or written, or its file system has no locks.
    """
    path = directory.absolute() / LOAD_LOCK_NAME
    with translated(path, directory.absolute()):
        make_load_folder(directory.absolute(), mode=directory_mode)
    with _held(path, directory, command="load", what="load", hint=OTHER_LOAD) as works:
        yield works


@contextmanager
def _held(path: Path, directory: Path, *, command: str, what: str, hint: str) -> Iterator[bool]:
    """Hold the lock on a file; yield whether locks work there."""
    with translated(path, directory.absolute()):
        file = _open(path)
    try:
        with translated(path, directory.absolute()):
            with suppress(PermissionError):
                os.fchmod(file, 0o600)
            works = _lock(file, path, directory, what=what, hint=hint)
            _write(file, {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()})
        try:
            yield works
        finally:
            # Empty the file while the lock is still ours. If that fails, others can still see that the process is gone.
            with suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


@contextmanager
def hold_place(directory: Path, *, command: str) -> Iterator[None]:
    """Hold the place of the one run that may wait until the lock on an output directory is free.

    Args:
        directory: The output directory, which another run holds.
        command: The running command, for the error message of other runs.

    Raises:
        LedgerLockedError: another process holds the place.
        StorageError: the lock file cannot be written.
    """
    path = directory.absolute() / LEDGER_FOLDER / PLACE_NAME
    with translated(path):
        make_folder(directory)
        file = _open(path)
    try:
        with translated(path):
            if not _try_lock(file):
                raise LedgerLockedError(
                    f"another run holds {directory}{_suffix(holder(directory))}; a second one already waits for "
                    f"it{_suffix(_holder(file))}",
                    hint="only one run waits; start this one again when both have ended",
                )
            _write(file, {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()})
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(file: int, path: Path, directory: Path, *, what: str, hint: str) -> bool:
    """Take the lock; return False if the file system would let another process take it as well."""
    if not _try_lock(file):
        raise LedgerLockedError(
            f"another {what} holds {directory}{_suffix(_holder(file))}", hint=f"wait until it has ended, or {hint}"
        )
    second = _open(path)
    try:
        if not _try_lock(second):
            return True
    finally:
        os.close(second)
    found = _holder(file)
    if found and found.host == socket.gethostname() and found.pid != os.getpid() and not found.gone:
        raise LedgerLockedError(
            f"another {what} seems to hold {directory}{_suffix(found)}; locks do not work on its file system, so this "
            "relies on the content of the lock file",
            hint=f"wait until it has ended; if that process does not belong to asyncexport, delete {path}",
        )
    return False


def _try_lock(file: int) -> bool:
    """Try to take the lock; return whether that worked."""
    reached("lock:before")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> Holder | None:
    """Return the holder from the content of the lock file, if it is valid."""
    return Holder.read(os.pread(file, 4096, 0))


def _suffix(found: Holder | None) -> str:
    return f": {found}" if found else ""


def _write(file: int, holder: dict[str, object]) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, orjson.dumps(holder) + b"\n", 0)
