"""The lock on an output directory: held by the operating system, so that it ends with the process that holds it.

What is written into the file only names the holder to whoever finds it locked. A file without a lock is nothing, and is
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

from asyncexport.core.bundles import show
from asyncexport.errors import LedgerLockedError
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import LEDGER_FOLDER, make_folder, restrict

LOCK_NAME = "lock"


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
            show(found.since)
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return None
        return found

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
        found = Holder.read((directory.absolute() / LEDGER_FOLDER / LOCK_NAME).read_bytes()[:4096])
    except OSError:
        return None
    return None if found is None or found.gone else found


@contextmanager
def hold(directory: Path, *, command: str) -> Iterator[None]:
    """Be the only one that writes to an output directory; `command` is what others are told that runs.

    Raises:
        LedgerLockedError: another process holds it.
        StorageError: the directory cannot be made or written.
    """
    path = directory.absolute() / LEDGER_FOLDER / LOCK_NAME
    with translated(path):
        make_folder(directory)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with translated(path):
            restrict(path, 0o600)
            _lock(file, directory)
            _write(file, {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()})
        try:
            yield
        finally:
            # While it is still ours. Where it cannot be done, whoever looks finds that the process is gone.
            with suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _lock(file: int, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LedgerLockedError(
            f"another run holds {directory}{_holder(file)}",
            hint="wait until it has ended, or choose another [output] directory",
        ) from error


def _holder(file: int) -> str:
    """Who holds it, as far as that is written."""
    found = Holder.read(os.pread(file, 4096, 0))
    return f": {found}" if found else ""


def _write(file: int, holder: dict[str, object]) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, orjson.dumps(holder) + b"\n", 0)
