"""A ledger of an earlier version, brought up to date by the run that holds the lock.

1. It is read whole first: a damaged one is not migrated.
2. A copy is laid beside it, `ledger.sqlite3.v1`, and is durable before the first change. It is removed when the first
   run has ended well; until then an earlier asyncexport can go on with it. One that lies there already, because a
   migration was interrupted, is made anew.
3. All changes are one transaction: after a crash the ledger is of the one version or of the other. No row is changed
   but the head. What a row of version 1 does not say is not known, see `core.states`.
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
from asyncexport.ledger.run_log import LAST_RUN, RunLogWriter, RunRecord
from asyncexport.ledger.schema import NEW_IN_2, TABLES, VERSION
from asyncexport.ledger.service_ids import insert_service_ids, recorded_ids

COPY_SUFFIX = ".v1"


def copy_path(path: Path) -> Path:
    """Where the copy of a ledger lies that was migrated from version 1."""
    return path.with_name(path.name + COPY_SUFFIX)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the ledger up to date, if it is of an earlier version. To be done under the lock.

    Args:
        connection: One that writes.
        path: The ledger.

    Raises:
        LedgerCorruptError: it is damaged.
        StorageError: the disk has no room for the copy or the change, through `translated`.
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
    """Remove the copy of the earlier version, if there is one: a run has ended well.

    Raises:
        OSError: it cannot be removed.
    """
    remove_durably(copy_path(ledger_path(directory)))


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Rule 2."""
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
    """Rule 3, from version 1 to 2."""
    connection.execute("ALTER TABLE state RENAME COLUMN take TO revision")
    for statement in NEW_IN_2.values():
        connection.execute(statement)
    insert_service_ids(connection, recorded_ids(connection), head.service_ids)
    if known := RunRecord.of_remark(head.remarks.pop(LAST_RUN, None)):
        RunLogWriter(connection, head).begin(known)
    head.version = VERSION
    head.commits += 1
    text = head.to_text()
    connection.execute("UPDATE head SET text = ?, digest = ? WHERE one = 1", (text, digest_of(1, text.encode())))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    if tables_in(connection) != TABLES:
        raise LedgerCorruptError(f"the ledger {path} cannot be migrated: its tables do not become as they should be")
