"""The ledger's files: where they lie, and how they are made and opened.

1. A file under the ledger's name is a whole ledger: it is made under another name, and renamed when it is durable.
2. All of them are for their owner alone: 0600, in a folder of 0700. SQLite gives its side files the same mode.
3. A ledger that cannot be read is never replaced: it is moved aside, by a person's order.
4. Nothing is changed in a file before it is known to be a ledger of ours.
5. SQLite takes a log for that of whatever file has the ledger's name. So no file gets that name while a side file of
   an earlier ledger lies beside it. Side files are set aside like the ledger itself, whether or not it is still there;
   the log may hold the only copy of rows.
6. A ledger is set aside in three steps, and each is durable before the next begins:
   a. The ledger file. From here on there is no ledger: a run refuses to begin beside archives, and `verify --rebuild`
      goes on. The other way round, a ledger without its log would lie there for a moment, and only a readable mark
      could tell that commits are missing from it.
   b. Its log, journal and index. Until then they lie beside nothing, and rule 5 keeps a new ledger away from them.
   c. Its mark, or an empty file where it had none: the sign that this set is complete. Whoever goes on after a crash
      gives the rest the same number, so that a log is never put beside the wrong ledger. A ledger file is never part
      of the rest: where one lies there, it begins a set of its own.
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
"""How long to wait for another program that has the ledger open, such as SQLite's shell."""

COPY_TRIES = 5
"""How often a ledger is copied before a run that keeps changing it meanwhile is called in the way."""


def ledger_path(directory: Path) -> Path:
    """Where the ledger of an output directory lies."""
    return directory.absolute() / LEDGER_FOLDER / LEDGER_NAME


def mark_path(path: Path) -> Path:
    """Where the mark of a ledger lies."""
    return _beside(path, MARK_SUFFIX)


def present(directory: Path) -> bool:
    """Whether the output directory has a ledger.

    Raises:
        StorageError: that cannot be seen.
    """
    path = ledger_path(directory)
    with translated(path):
        return path.exists()


def has_remains(directory: Path) -> bool:
    """Whether there is no ledger, and something of an earlier one: set aside, or a log that outlived it.

    Raises:
        StorageError: that cannot be seen.
    """
    path = ledger_path(directory)
    with translated(path):
        if path.exists() or not path.parent.is_dir():
            return False
        logs = {_beside(path, suffix).name for suffix in (LOG_SUFFIX, "-journal")}
        return any(one.name in logs or SET_ASIDE_NAME.fullmatch(one.name) for one in path.parent.iterdir())


def set_aside(directory: Path) -> Path | None:
    """Move a ledger and its side files out of the way, or those of them that are there (rule 6).

    To be done under the lock. After a crash in the middle of it, calling it again moves the rest.

    Args:
        directory: The output directory.

    Returns:
        The name that the ledger itself has, or would have if it had been there; None: there was nothing to move.

    Raises:
        StorageError: something cannot be moved.
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
            # Its ledger went before its side files, or was never there: this one is of another life.
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
    """Give a ledger that was made elsewhere the place of one that was set aside. To be done under the lock.

    Raises:
        StorageError: it cannot be moved.
    """
    path = ledger_path(directory)
    set_aside(directory)
    reached("ledger.place:before")
    # Its log is empty (`empty_log`), so this one file is all of it.
    made.rename(path)
    sync_folder(path.parent)
    reached("ledger.place:after")
    # A ledger without a mark is no worse than one with it until its next commit, which writes one.
    with suppress(FileNotFoundError):
        mark_path(made).rename(mark_path(path))


def empty_log(path: Path) -> None:
    """Have all of a ledger that nobody has open in its one file, durably.

    Closing does that as well, but says nothing where it fails.

    Raises:
        StorageError: the disk has no room for it.
    """
    with closing(_connect(path, "rw", busy_seconds=BUSY_SECONDS)) as connection:
        make_durable(connection, path)
        _empty_log(connection, path)


def create(path: Path, *, now: float) -> None:
    """Make an empty ledger. Side files of an earlier one are set aside (rule 5). To be done under the lock.

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
    """An empty file for a database that is being made, with no side file of an earlier one beside it."""
    for suffix in ("", *SIDE_FILES):
        _beside(path, suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_to_write(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection for the one thread that writes; the ledger may be of an earlier version (`migration`).

    Raises:
        LedgerError: it is from a newer version, or in use.
        LedgerCorruptError: it is no ledger, or damaged.
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
    """A connection that changes nothing, while a run is going on or not.

    Even to read, SQLite keeps an index of the log beside the ledger. Where it may not, a copy is read.

    Raises:
        LedgerError: it is from a newer version, or in use.
        LedgerCorruptError: it is no ledger, or damaged.
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
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """From now on a commit is on the disk when it returns, and readers do not stand in its way."""
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != b"wal":
        raise LedgerError(
            f"{path.parent} cannot hold a ledger: its file system has no shared memory for SQLite",
            hint="choose an [output] directory on a local disk",
        )
    connection.execute("PRAGMA synchronous = FULL")


def _empty_log(connection: sqlite3.Connection, path: Path) -> None:
    """All of it into the file that is renamed."""
    is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise StorageError(f"cannot make {path}: its log cannot be emptied")


def _last_set(path: Path) -> int:
    """The number of what was set aside last; 0: nothing was."""
    found = (SET_ASIDE_NAME.fullmatch(one.name) for one in path.parent.iterdir())
    return max((int(one[1]) for one in found if one), default=0)


def _unfinished_set(path: Path) -> Path | None:
    """The ledger's name in a set that was being set aside when the program died; None: there is none."""
    last = _last_set(path)
    aside = path.with_name(f"{LEDGER_NAME}.damaged-{last}")
    return aside if last and not os.path.lexists(_beside(aside, MARK_SUFFIX)) else None


def _finish_set(aside: Path) -> None:
    """Rule 6c, for a ledger that had no mark."""
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
        # Text is decoded once its checksum is known to be right.
        connection.text_factory = bytes
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path, mark: CommitMark | None) -> None:
    """Whether it is a ledger, of this version or an earlier one, with all that was ever committed to it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise LedgerCorruptError(f"{path} is not a ledger", hint=DAMAGED)
    if version > VERSION and LedgerHead.read(connection).version == version:
        raise LedgerError(
            f"the ledger {path} was written by a newer asyncexport (version {version} of its format, here {VERSION})",
            hint="upgrade asyncexport",
        )
    if version not in TABLES_OF or tables_in(connection) != TABLES_OF[version]:
        raise LedgerCorruptError(f"the ledger {path} is damaged: its tables are not as they were made", hint=DAMAGED)
    head = LedgerHead.read(connection)
    if head.version != version:
        raise LedgerCorruptError(f"the ledger {path} is damaged: its head is of another version", hint=DAMAGED)
    if mark is not None and mark.created_at == head.created_at and mark.commits > head.commits:
        missing = mark.commits - head.commits
        raise LedgerCorruptError(
            f"the ledger {path} is damaged: what was written last is missing ({missing} commits)",
            hint=f"{DAMAGED}; if it is a backup that you put there, remove {mark_path(path)} instead, which is of the "
            "later one, and run the same command again",
        )


def tables_in(connection: sqlite3.Connection) -> dict[str, str]:
    """The statements that made what is in it, by name."""
    found = connection.execute("SELECT name, sql FROM sqlite_master")
    return {name.decode("utf-8", "replace"): (sql or b"").decode("utf-8", "replace") for name, sql in found}


def _reading_mode(path: Path) -> str:
    """Who may write takes away what SQLite laid beside the ledger, and empties the log: so only where there is none."""
    return "ro" if _beside(path, LOG_SUFFIX).exists() else "rw"


def _copy(path: Path, folder: Path) -> Path:
    """The ledger and its log as they were at one time.

    The log only grows until it is begun anew, and is not before all of it is in the ledger: with the log that there was
    before the ledger was copied, and what came to it since, any state of the ledger makes a whole.
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
    raise LedgerError(f"{path} changes faster than it can be read", hint="try again")


def _generation(path: Path, log: Path) -> bytes:
    """What changes when the log is begun anew: its header, and where there is none, the time of the ledger itself."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        if header := file.read(32):
            return header
    return str(path.stat().st_mtime_ns).encode()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
