"""Gaps that the user has accepted: bundles that have fewer rows than expected, for good.

Rows are numbered and counted in the head, which reveals a missing row. Rows are never changed or deleted.
"""

import sqlite3

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.health.records import AcceptedGap
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.journal import complete_rows
from asyncexport.ledger.rows import LedgerHead, digest_of


def insert_accepted(connection: sqlite3.Connection, head: LedgerHead, gap: AcceptedGap, *, export: int) -> None:
    """Insert an accepted gap; `export` is the number of its export."""
    seq, span = head.accepted + 1, gap.bundle.range
    key = (seq, export, span.start, span.end)
    digest = digest_of(*key, gap.reason.encode(), float(gap.at))
    row = (*key, gap.reason, float(gap.at), digest)
    connection.execute("INSERT INTO accepted VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    head.accepted = seq


def read_accepted(connection: sqlite3.Connection, head: LedgerHead) -> list[AcceptedGap]:
    """Return all accepted gaps, in the order they were accepted.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        return []
    names = {known.number: name for name, known in head.exports.items()}
    found = connection.execute("SELECT * FROM accepted ORDER BY seq")
    rows = complete_rows(found, "accepted", count=head.accepted, last=head.accepted)
    if not all(row[1] in names for row in rows):
        raise LedgerCorruptError("the ledger is damaged: an accepted gap belongs to an unknown export")
    return [
        AcceptedGap(Bundle(names[export], Range(start, stop)), reason.decode(), at)
        for _, export, start, stop, reason, at in rows
    ]
