"""Checks that the whole ledger is as it was written.

1. SQLite checks its own pages.
2. Every row is compared with its checksum, and no row number may be missing.
3. The pointers of each export must add up to the sums in the head. So must the index of service ids, which must also
   match the states.
"""

import sqlite3
from collections import deque

from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.accepted import read_accepted
from asyncexport.ledger.bundle_queries import BundleQueries
from asyncexport.ledger.hours import read_hours
from asyncexport.ledger.journal import each_complete, read_durations, read_requests
from asyncexport.ledger.rows import BundleSums, LedgerHead
from asyncexport.ledger.run_log import read_runs
from asyncexport.ledger.service_ids import check_every_service_id


def check_everything(connection: sqlite3.Connection, head: LedgerHead) -> None:
    """Read all rows, including those without a pointer to them; half a million rows take some ten seconds.

    Raises:
        LedgerCorruptError: a part of the ledger is not as it was written.
    """
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != b"ok":
        raise LedgerCorruptError(f"the ledger is damaged: {verdict.decode('utf-8', 'replace').splitlines()[0]}")
    states = connection.execute("SELECT * FROM state ORDER BY seq")
    # Reading a row checks it. The rows are not kept: together they would take hundreds of megabytes.
    deque(each_complete(states, "state", count=head.last_state, last=head.last_state), maxlen=0)
    check_sums(connection, head)
    for name, known in head.exports.items():
        deque(BundleQueries(connection, name, known).all(), maxlen=0)
    read_requests(connection, head)
    read_durations(connection, head)
    if head.version >= 2:
        check_every_service_id(connection, head.service_ids)
        read_runs(connection, head)
        read_hours(connection, head)
        read_accepted(connection, head)


def check_sums(connection: sqlite3.Connection, head: LedgerHead) -> None:
    """Compare the pointers of all exports with the sums in the head.

    Raises:
        LedgerCorruptError: they differ.
    """
    expected = sorted((known.number, known.sums) for known in head.exports.values() if known.sums.bundles)
    if BundleSums.read(connection) != expected:
        raise LedgerCorruptError("the ledger is damaged: the rows of its bundles do not match their sums")
