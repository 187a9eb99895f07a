"""The ledger's files: where they lie, how they are made and opened, and what their errors mean.

1. A file under the ledger's name is a whole ledger: it is made under another name, and renamed when it is durable.
2. All of them are for their owner alone: 0600, in a folder of 0700. SQLite gives its side files the same mode.
3. A ledger that cannot be read is never replaced: it is moved aside, by a person's order.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from asyncexport.errors import ExportError, LedgerCorruptError, LedgerError, StorageError
from asyncexport.ledger.rows import Head, digest_of
from asyncexport.ledger.schema import APPLICATION_ID, TABLES, VERSION

FOLDER = ".asyncexport"
NAME = "ledger.sqlite3"
SIDE_FILES = ("-wal", "-shm")

BUSY_SECONDS = 10.0
"""How long to wait for another program that has the ledger open, such as SQLite's shell."""

DAMAGED = "run `asyncexport verify --rebuild`: it moves the damaged ledger aside and makes a new one from the archives"


def ledger_path(directory: Path) -> Path:
    """Where the ledger of an output directory lies."""
    return directory.absolute() / FOLDER / NAME


def present(directory: Path) -> bool:
    """Whether the output directory has a ledger."""
    return ledger_path(directory).exists()


def set_aside(directory: Path) -> Path:
    """Move a damaged ledger out of the way, under the next free name beside it; where it went.

    To be done under the lock.

    Raises:
        StorageError: it cannot be moved.
    """
    path = ledger_path(directory)
    with translated(path):
        number = 1
        while (aside := path.with_name(f"{NAME}.damaged-{number}")).exists():
            number += 1
        # The ledger first: without its log it could be taken for a whole one.
        path.rename(aside)
        for suffix in SIDE_FILES:
            with suppress(FileNotFoundError):
                _beside(path, suffix).rename(_beside(aside, suffix))
        sync_folder(path.parent)
        return aside


def make_folder(directory: Path) -> Path:
    """The folder that the ledger and the lock lie in, made where it is missing, durably."""
    folder = directory.absolute() / FOLDER
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode=0o700 if path == folder else 0o777, exist_ok=True)
        sync_folder(path.parent)
    _restrict(folder, 0o700)
    return folder


def create(path: Path, *, now: float, boundary: Callable[[str], None]) -> None:
    """Make an empty ledger."""
    new = path.with_name(f"{NAME}.new")
    for suffix in ("", *SIDE_FILES):
        _beside(new, suffix).unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = _connect(new, "rw", busy_seconds=BUSY_SECONDS)
    try:
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in TABLES.values():
            connection.execute(statement)
        text = Head(created_at=now).to_text()
        connection.execute("INSERT INTO head VALUES (1, ?, ?)", (text, digest_of(1, text.encode())))
        connection.execute("COMMIT")
    finally:
        # This moves all of it out of the log, and syncs it.
        connection.close()
    # A log that outlived its ledger would be taken for the new one's.
    for suffix in SIDE_FILES:
        _beside(path, suffix).unlink(missing_ok=True)
    boundary("ledger.create:before")
    new.rename(path)
    sync_folder(path.parent)
    boundary("ledger.create:after")


def open_to_write(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection for the one thread that writes.

    Raises:
        LedgerError: it is from a newer version, or in use.
        LedgerCorruptError: it is no ledger.
    """
    _restrict(path, 0o600)
    connection = _connect(path, "rw", busy_seconds=busy_seconds)
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened_to_read(path: Path, *, busy_seconds: float) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, while a run is going on or not.

    Even to read, SQLite keeps an index of the log beside the ledger. Where it may not, a copy is read.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(closing(_connect(path, "ro", busy_seconds=busy_seconds)))
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if _primary(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncexport-"))
            copied = _copy(path, Path(folder))
            connection = stack.enter_context(closing(_connect(copied, "ro", busy_seconds=busy_seconds)))
        _check(connection, path)
        yield connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors of ours.

    Raises:
        LedgerCorruptError: the ledger is not what was written.
        LedgerError: another program keeps it from being used.
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
        raise _meaning(error, path) from error
    except UnicodeDecodeError as error:
        # SQLite quotes the damaged text in its message, and Python cannot read that.
        raise LedgerCorruptError(f"the ledger {path} is damaged", hint=DAMAGED) from error
    except OSError as error:
        raise StorageError(f"cannot use {path}: {error.strerror or error}", hint=_DISK_HINT) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_DISK_HINT = "check that the disk has room and can be written to, then run the same command again"

_TROUBLE_OF_THE_DISK = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOLFS,
        None,  # raised without a code: not by SQLite
    }
)

_IN_USE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def _meaning(error: sqlite3.DatabaseError, path: Path) -> ExportError:
    code = _primary(error)
    if code in _TROUBLE_OF_THE_DISK:
        return StorageError(f"cannot use {path}: {error}", hint=_DISK_HINT)
    if code in _IN_USE:
        return LedgerError(
            f"another program has {path} in use", hint="close the program that has it open, and try again"
        )
    # Our statements are few and fixed: one that does not fit means that the tables are not what we made.
    return LedgerCorruptError(f"the ledger {path} is damaged: {error}", hint=DAMAGED)


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _connect(path: Path, mode: str, *, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        # Text is decoded once its checksum is known to be right.
        connection.text_factory = bytes
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        if mode == "rw":
            _make_durable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """A commit is on the disk when it returns, and readers do not stand in its way."""
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != b"wal":
        raise LedgerError(
            f"{path.parent} cannot hold a ledger: its file system has no shared memory for SQLite",
            hint="choose an [output] directory on a local disk",
        )
    connection.execute("PRAGMA synchronous = FULL")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Whether it is a ledger, of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise LedgerCorruptError(f"{path} is not a ledger", hint=DAMAGED)
    if version > VERSION and Head.read(connection).version == version:
        raise LedgerError(
            f"the ledger {path} was written by a newer asyncexport (version {version} of its format, here {VERSION})",
            hint="upgrade asyncexport",
        )
    tables = {name.decode("utf-8", "replace"): sql for name, sql in connection.execute(_SCHEMA)}
    if version != VERSION or tables != {name: statement.encode() for name, statement in TABLES.items()}:
        raise LedgerCorruptError(f"the ledger {path} is damaged: its tables are not as they were made", hint=DAMAGED)


_SCHEMA = "SELECT CAST(name AS TEXT), sql FROM sqlite_master"


def _copy(path: Path, folder: Path) -> Path:
    copied = folder / NAME
    shutil.copyfile(path, copied)
    with suppress(FileNotFoundError):
        shutil.copyfile(_beside(path, "-wal"), _beside(copied, "-wal"))
    return copied


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _restrict(path: Path, mode: int) -> None:
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
