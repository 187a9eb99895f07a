"""The ledger's files: their paths, and how they are created, opened and set aside.

1. A file under the ledger's name is a complete ledger: it is created under another name and renamed when it is durable.
2. Only the owner may access the files: mode 0600, in a folder of mode 0700. SQLite gives its side files the same mode.
3. An unreadable ledger is never replaced automatically: it is moved aside when the user asks for a rebuild.
4. Nothing in a file is changed before the file is known to be our ledger.
5. SQLite applies a write-ahead log to whatever file has the ledger's name. So no file gets that name while side files
   of an earlier ledger exist. Side files are set aside like the ledger itself, even if the ledger file is gone: the log
   may hold the only copy of rows.
6. A ledger is set aside in three steps; each is durable before the next begins:
   a. The ledger file. From then on there is no ledger: runs refuse to start because archives exist, and `verify
      --rebuild` completes the move. If the log were moved first, a crash could leave a ledger without its log, and only
      a readable mark would reveal that commits are missing.
   b. Its log, journal and shared-memory index. Until then, rule 5 keeps a new ledger away from them.
   c. Its mark, or an empty file if it had none, which shows that this set is complete. After a crash, the remaining
      files get the same number as those already moved, so that a log never ends up with the wrong ledger. A ledger file
      is never a remaining file: it always begins a set of its own.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from asyncexport.errors import LedgerCorruptError, LedgerError, StorageError
from asyncexport.ledger.commit_mark import CommitMark
from asyncexport.ledger.failpoints import reached
from asyncexport.ledger.faults import DAMAGED, primary_code, translated
from asyncexport.ledger.folder import LEDGER_FOLDER, refuse_link, restrict, sync_folder
from asyncexport.ledger.rows import LedgerHead, digest_of
from asyncexport.ledger.schema import APPLICATION_ID, TABLES, TABLES_OF, VERSION

LEDGER_NAME = "ledger.sqlite3"
LOG_SUFFIX = "-wal"
MARK_SUFFIX = "-mark"
SIDE_FILES = (LOG_SUFFIX, "-journal", "-shm", MARK_SUFFIX)

SET_ASIDE_NAME = re.compile(rf"{re.escape(LEDGER_NAME)}\.damaged-([0-9]+)(-[a-z]+)?", re.ASCII)
"""The name of a file that was set aside."""

BUSY_SECONDS = 10.0
"""Seconds to wait for another program that has the ledger locked, such as SQLite's shell."""

COPY_TRIES = 5
"""Attempts to copy a ledger that a run keeps changing meanwhile."""


def ledger_path(directory: Path) -> Path:
    """Return the path of the ledger of an output directory."""
    return directory.absolute() / LEDGER_FOLDER / LEDGER_NAME


def mark_path(path: Path) -> Path:
    """Return the path of a ledger's mark."""
    return _beside(path, MARK_SUFFIX)


def present(directory: Path) -> bool:
    """Whether the output directory has a ledger.

    Raises:
        StorageError: the folder cannot be accessed.
    """
    path = ledger_path(directory)
    with translated(path):
        return path.exists()


def has_remains(directory: Path) -> bool:
    """Whether there is no ledger but remains of an earlier one: files set aside, or a log without its ledger.

    Raises:
        StorageError: the folder cannot be accessed.
    """
    path = ledger_path(directory)
    with translated(path):
        if path.exists() or not path.parent.is_dir():
            return False
        logs = {_beside(path, suffix).name for suffix in (LOG_SUFFIX, "-journal")}
        return any(one.name in logs or SET_ASIDE_NAME.fullmatch(one.name) for one in path.parent.iterdir())


def set_aside(directory: Path) -> Path | None:
    """Move the ledger and its side files out of the way, or those of them that exist (rule 6).

    Call it only under the lock. After a crash in the middle, another call moves the rest.

    Args:
        directory: The output directory.

    Returns:
        The new path of the ledger file, or the one it would have if it had existed; None if there was nothing to move.

    Raises:
        StorageError: a file cannot be moved.
    """
    path = ledger_path(directory)
    with translated(path):
        here = [suffix for suffix in ("", *SIDE_FILES) if os.path.lexists(_beside(path, suffix))]
        unfinished = _unfinished_set(path)
        if not here:
            if unfinished:
                _finish_set(unfinished)
            return None
        if unfinished and "" in here:
            # The unfinished set belongs to an earlier ledger: the present ledger file begins a set of its own.
            _finish_set(unfinished)
            unfinished = None
        if unfinished and not any(os.path.lexists(_beside(unfinished, suffix)) for suffix in here):
            aside = unfinished
        else:
            aside = path.with_name(f"{LEDGER_NAME}.damaged-{_last_set(path) + 1}")
        for step in ("",), (LOG_SUFFIX, "-journal", "-shm"):
            for suffix in step:
                if suffix in here:
                    reached("ledger.aside:before")
                    _beside(path, suffix).rename(_beside(aside, suffix))
                    reached("ledger.aside:after")
            sync_folder(path.parent)
        reached("ledger.aside:before")
        if MARK_SUFFIX in here:
            _beside(path, MARK_SUFFIX).rename(_beside(aside, MARK_SUFFIX))
            sync_folder(path.parent)
        else:
            _finish_set(aside)
        reached("ledger.aside:after")
        return aside


def put_in_place(made: Path, directory: Path) -> None:
    """Move a ledger that was made elsewhere to the ledger's path. Call it only under the lock.

    Raises:
        StorageError: it cannot be moved.
    """
    path = ledger_path(directory)
    set_aside(directory)
    reached("ledger.place:before")
    # Its log is empty (`empty_log`), so this file is the complete ledger.
    made.rename(path)
    sync_folder(path.parent)
    reached("ledger.place:after")
    # A crash before this line does no harm: the next commit writes a mark.
    with suppress(FileNotFoundError):
        mark_path(made).rename(mark_path(path))


def empty_log(path: Path) -> None:
    """Move everything from the log into the ledger's file, durably. No program may have the ledger open.

    Closing the ledger does that as well, but does not report a failure.

    Raises:
        StorageError: the disk has no room for it.
    """
    with closing(_connect(path, "rw", busy_seconds=BUSY_SECONDS)) as connection:
        make_durable(connection, path)
        _empty_log(connection, path)


def create(path: Path, *, now: float) -> None:
    """Create an empty ledger, and set side files of an earlier one aside (rule 5). Call it only under the lock.

    Raises:
        StorageError: the disk has no room for it.
    """
    new = path.with_name(f"{LEDGER_NAME}.new")
    empty_file(new)
    with closing(_connect(new, "rw", busy_seconds=BUSY_SECONDS)) as connection:
        make_durable(connection, new)
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in TABLES.values():
            connection.execute(statement)
        text = LedgerHead(created_at=now).to_text()
        connection.execute("INSERT INTO head VALUES (1, ?, ?)", (text, digest_of(1, text.encode())))
        connection.execute("COMMIT")
        _empty_log(connection, path)
    set_aside(path.parent.parent)
    reached("ledger.create:before")
    new.rename(path)
    sync_folder(path.parent)
    reached("ledger.create:after")


def empty_file(path: Path) -> None:
    """Create an empty file for a new database, and remove side files of an earlier one."""
    for suffix in ("", *SIDE_FILES):
        _beside(path, suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_to_write(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Open a connection for the thread that writes; the ledger may be of an earlier version (`migration`).

    Raises:
        LedgerError: the ledger is of a newer version, or in use.
        LedgerCorruptError: the file is not a ledger, or is damaged.
    """
    mark = CommitMark.read(mark_path(path))
    connection = _connect(path, "rw", busy_seconds=busy_seconds)
    try:
        _check(connection, path, mark)
        restrict(path, 0o600)
        make_durable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened_to_read(path: Path, *, busy_seconds: float) -> Iterator[sqlite3.Connection]:
    """Open a connection that changes nothing; a run may be going on.

    Even to read, SQLite needs a shared-memory index of the log next to the ledger. If it cannot create that, a copy of
    the ledger is read.

    Raises:
        LedgerError: the ledger is of a newer version, or in use.
        LedgerCorruptError: the file is not a ledger, or is damaged.
    """
    with ExitStack() as stack:
        mark = CommitMark.read(mark_path(path))
        connection = stack.enter_context(closing(_connect(path, _reading_mode(path), busy_seconds=busy_seconds)))
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if primary_code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncexport-"))
            copied = _copy(path, Path(folder))
            connection = stack.enter_context(closing(_connect(copied, "rw", busy_seconds=busy_seconds)))
        _check(connection, path, mark)
        yield connection


def remove_durably(path: Path) -> None:
    """Remove a file durably, if it exists."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to WAL, where readers do not block commits, and to `synchronous=FULL`, so that each commit is durable."""
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != b"wal":
        raise LedgerError(
            f"cannot create a ledger in {path.parent}: its file system has no shared memory for SQLite's WAL mode",
            hint="choose an [output] directory on a local disk",
        )
    connection.execute("PRAGMA synchronous = FULL")


def _empty_log(connection: sqlite3.Connection, path: Path) -> None:
    """Move everything from the log into the ledger's file."""
    is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise StorageError(f"cannot create {path}: its write-ahead log is in use and cannot be emptied")


def _last_set(path: Path) -> int:
    """Return the number of the newest set that was set aside; 0 if there is none."""
    found = (SET_ASIDE_NAME.fullmatch(one.name) for one in path.parent.iterdir())
    return max((int(one[1]) for one in found if one), default=0)


def _unfinished_set(path: Path) -> Path | None:
    """Return the ledger's path in a set that a crash left incomplete; None if there is none."""
    last = _last_set(path)
    aside = path.with_name(f"{LEDGER_NAME}.damaged-{last}")
    return aside if last and not os.path.lexists(_beside(aside, MARK_SUFFIX)) else None


def _finish_set(aside: Path) -> None:
    """Mark a set as complete if its ledger had no mark (rule 6c)."""
    os.close(os.open(_beside(aside, MARK_SUFFIX), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    sync_folder(aside.parent)


def _connect(path: Path, mode: str, *, busy_seconds: float) -> sqlite3.Connection:
    for suffix in ("", *SIDE_FILES):
        refuse_link(_beside(path, suffix))
    if not path.is_file():
        raise LedgerCorruptError(f"{path} is not a ledger", hint=DAMAGED)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        # Text stays undecoded until its checksum was verified.
        connection.text_factory = bytes
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path, mark: CommitMark | None) -> None:
    """Make sure that the file is a ledger of this or an earlier version, and that no commit is missing."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise LedgerCorruptError(f"{path} is not a ledger", hint=DAMAGED)
    if version > VERSION and LedgerHead.read(connection).version == version:
        raise LedgerError(
            f"the ledger {path} was written by a newer asyncexport (format version {version}, supported: {VERSION})",
            hint="upgrade asyncexport",
        )
    if version not in TABLES_OF or tables_in(connection) != TABLES_OF[version]:
        raise LedgerCorruptError(f"the ledger {path} is damaged: its tables have been changed", hint=DAMAGED)
    head = LedgerHead.read(connection)
    if head.version != version:
        raise LedgerCorruptError(f"the ledger {path} is damaged: its head has another format version", hint=DAMAGED)
    if mark is not None and mark.created_at == head.created_at and mark.commits > head.commits:
        missing = mark.commits - head.commits
        raise LedgerCorruptError(
            f"the ledger {path} is damaged: the last {missing} commits are missing",
            hint=f"{DAMAGED}; if you restored it from a backup, remove {mark_path(path)} instead (it belongs to the "
            "later ledger) and run the same command again",
        )


def tables_in(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the CREATE statements of the tables and views, by name."""
    found = connection.execute("SELECT name, sql FROM sqlite_master")
    return {name.decode("utf-8", "replace"): (sql or b"").decode("utf-8", "replace") for name, sql in found}


def _reading_mode(path: Path) -> str:
    """Return SQLite's open mode for reading.

    A connection that may write empties the log and removes SQLite's side files when it closes, so it is only opened if
    there is no log.
    """
    return "ro" if _beside(path, LOG_SUFFIX).exists() else "rw"


def _copy(path: Path, folder: Path) -> Path:
    """Copy the ledger and its log in a consistent state.

    The log only grows until its content has been moved into the ledger and it is restarted. So the two copies are
    consistent if the log was not restarted between the start of the first copy and the end of the second.
    """
    copied, log = folder / LEDGER_NAME, _beside(path, LOG_SUFFIX)
    for _ in range(COPY_TRIES):
        before = _generation(path, log)
        shutil.copyfile(path, copied)
        _beside(copied, LOG_SUFFIX).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(log, _beside(copied, LOG_SUFFIX))
        if _generation(path, _beside(copied, LOG_SUFFIX)) == before:
            return copied
    raise LedgerError(f"cannot read {path}: it changes faster than it can be copied", hint="try again")


def _generation(path: Path, log: Path) -> bytes:
    """Return what changes when the log is restarted: its header, or the ledger's modification time without a log."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        if header := file.read(32):
            return header
    return str(path.stat().st_mtime_ns).encode()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
