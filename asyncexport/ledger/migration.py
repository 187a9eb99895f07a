"""Migrates a ledger of an earlier version, in the run that holds the lock.

1. The whole ledger is checked first: a damaged one is not migrated.
2. A copy, `ledger.sqlite3.v1`, is made durable next to it before the first change. It is removed after the first
   successful run; until then an earlier asyncexport can use it. A copy left by an interrupted migration is overwritten.
3. All changes are made in one transaction, so after a crash the ledger is of one version or the other. Only the head's
   row is changed. What version 1 did not record stays unknown, see `core.states`.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.check import check_everything
from asyncexport.ledger.failpoints import reached
from asyncexport.ledger.files import empty_file, ledger_path, remove_durably, tables_in
from asyncexport.ledger.folder import sync_folder
from asyncexport.ledger.rows import LedgerHead, digest_of
from asyncexport.ledger.run_log import LAST_RUN, RunLogWriter, run_of_note
from asyncexport.ledger.schema import NEW_IN_2, TABLES, VERSION
from asyncexport.ledger.service_ids import insert_service_ids, recorded_ids

COPY_SUFFIX = ".v1"


def copy_path(path: Path) -> Path:
    """Return the path of the copy of a ledger that was migrated from version 1."""
    return path.with_name(path.name + COPY_SUFFIX)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate the ledger if it is of an earlier version. Call it only under the lock.

    Args:
        connection: A connection that may write.
        path: The path of the ledger.

    Raises:
        LedgerCorruptError: the ledger is damaged.
        sqlite3.Error, OSError: the copy or the change cannot be written; the caller translates them.
    """
    head = LedgerHead.read(connection)
    if head.version == VERSION:
        return
    check_everything(connection, head)
    _copy(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    try:
        _change(connection, LedgerHead.read(connection), path)
        reached("ledger.migrate:before")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
    reached("ledger.migrate:after")


def discard_copy(directory: Path) -> None:
    """Remove the copy of the earlier version, if there is one, after a successful run.

    Raises:
        OSError: it cannot be removed.
    """
    remove_durably(copy_path(ledger_path(directory)))


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Make the copy of rule 2."""
    copy = copy_path(path)
    new = copy.with_name(f"{copy.name}.new")
    empty_file(new)
    with closing(sqlite3.connect(new)) as target:
        connection.backup(target)
    file = os.open(new, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    reached("ledger.copy:before")
    new.rename(copy)
    sync_folder(copy.parent)
    reached("ledger.copy:after")


def _change(connection: sqlite3.Connection, head: LedgerHead, path: Path) -> None:
    """Change the ledger from version 1 to 2 (rule 3)."""
    connection.execute("ALTER TABLE state RENAME COLUMN take TO revision")
    for statement in NEW_IN_2.values():
        connection.execute(statement)
    insert_service_ids(connection, recorded_ids(connection), head.service_ids)
    if known := run_of_note(head.remarks.pop(LAST_RUN, None)):
        RunLogWriter(connection, head).begin(known)
    head.version = VERSION
    head.commits += 1
    text = head.to_text()
    connection.execute("UPDATE head SET text = ?, digest = ? WHERE one = 1", (text, digest_of(1, text.encode())))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    if tables_in(connection) != TABLES:
        raise LedgerCorruptError(f"cannot migrate the ledger {path}: the migrated tables are not those of version 2")
