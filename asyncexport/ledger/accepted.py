"""What a person accepted as missing: a bundle whose rows are fewer than they should be, and will stay so.

Rows are numbered, and the head counts them: one that went missing shows. None is ever changed or dropped.
"""

import sqlite3
from typing import NamedTuple

from asyncexport.core.bundles import Bundle, Range
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.journal import complete_rows
from asyncexport.ledger.rows import LedgerHead, digest_of


class AcceptedGap(NamedTuple):
    """What was accepted.

    Attributes:
        bundle: Where.
        reason: Why, in the words of the person who accepted it.
        at: When, in seconds since 1970.
    """

    bundle: Bundle
    reason: str
    at: float


def insert_accepted(connection: sqlite3.Connection, head: LedgerHead, gap: AcceptedGap, *, export: int) -> None:
    """Add one, of the export with this number."""
    seq, span = head.accepted + 1, gap.bundle.range
    key = (seq, export, span.start, span.end)
    digest = digest_of(*key, gap.reason.encode(), float(gap.at))
    row = (*key, gap.reason, float(gap.at), digest)
    connection.execute("INSERT INTO accepted VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    head.accepted = seq


def read_accepted(connection: sqlite3.Connection, head: LedgerHead) -> list[AcceptedGap]:
    """All of them, in the order they were accepted.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        return []
    names = {known.number: name for name, known in head.exports.items()}
    found = connection.execute("SELECT * FROM accepted ORDER BY seq")
    rows = complete_rows(found, "accepted", count=head.accepted, last=head.accepted)
    if not all(row[1] in names for row in rows):
        raise LedgerCorruptError("the ledger is damaged: something was accepted of an export that it does not know")
    return [
        AcceptedGap(Bundle(names[export], Range(start, stop)), reason.decode(), at)
        for _, export, start, stop, reason, at in rows
    ]
