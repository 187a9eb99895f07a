"""Translates errors of SQLite and of the operating system into the package's own."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncexport.core.file_faults import file_fault
from asyncexport.errors import ExportError, LedgerCorruptError, LedgerError, StorageError

DAMAGED = "run `asyncexport verify --rebuild`: it moves the damaged ledger aside and makes a new one from the archives"

_DISK_HINT = "check that the disk has room and can be written to, then run the same command again"

_OWNER_HINT = "run the command as the user who owns the directory, or check its owner and mode (`ls -ld {folder}`)"

_DISK_CODES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOLFS,
        None,  # raised by Python's module without a code
    }
)

_IN_USE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


@contextmanager
def translated(path: Path, directory: Path | None = None) -> Iterator[None]:
    """Translate the errors that SQLite and the operating system raise in the block.

    Args:
        path: The file that is used.
        directory: The directory to check, for messages. None: the one that has the folder of the file.

    Raises:
        LedgerCorruptError: the ledger is not as it was written.
        LedgerError: another program has the ledger in use.
        StorageError: the disk is full, not writable, or failed.
    """
    try:
        yield
    except LedgerCorruptError as error:
        error.hint = error.hint or DAMAGED
        raise
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        raise _sqlite_error(error, path) from error
    except UnicodeDecodeError as error:
        # SQLite quotes damaged text in its message, which Python cannot decode.
        raise LedgerCorruptError(f"the ledger {path} is damaged", hint=DAMAGED) from error
    except OSError as error:
        raise _system_error(error, path, directory or path.parent.parent) from error


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code of an error, without the extended part."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sqlite_error(error: sqlite3.DatabaseError, path: Path) -> ExportError:
    code = primary_code(error)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN) and (fault := _system_fault(code, path)):
        return fault
    if code in _DISK_CODES:
        return StorageError(f"cannot use {path}: {error}", hint=_DISK_HINT)
    if code in _IN_USE:
        return LedgerError(
            f"cannot use {path}: another program has locked it",
            hint="close the program that has it open, and try again; on a network share, locks may not work at all",
        )
    # Our statements are few and fixed: if one fails, the tables are not the ones that we created.
    return LedgerCorruptError(f"the ledger {path} is damaged: {error}", hint=DAMAGED)


def _system_error(error: OSError, path: Path, directory: Path) -> StorageError:
    place = Path(error.filename or path)
    fault = _fault(error.errno, place, directory)
    is_refused = error.errno in (errno.EACCES, errno.EPERM)
    hint = _OWNER_HINT.format(folder=directory) if is_refused else _DISK_HINT
    return fault or StorageError(f"cannot use {place}: {error.strerror or error}", hint=hint)


def _system_fault(code: int, path: Path) -> StorageError | None:
    """Find out what SQLite does not report: whether disk space, inodes or file descriptors have run out."""
    if code == sqlite3.SQLITE_FULL:
        return _fault(errno.ENOSPC, path, path.parent.parent)
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return _fault(error.errno, path, path.parent.parent)
    return None


def _fault(number: int | None, place: Path, directory: Path) -> StorageError | None:
    fault = file_fault(number, place=str(place), directory=str(directory), has_inodes=_has_inodes(directory))
    return None if fault is None else StorageError(fault.message, hint=fault.hint)


def _has_inodes(directory: Path) -> bool:
    """Whether there is an inode for one more file; True if the file system does not count them."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    return found.f_files == 0 or found.f_favail > 0
