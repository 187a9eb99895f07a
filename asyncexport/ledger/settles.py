"""The longest settle time of an export's archives, which saves reading most of them in the search for unsettled ones.

1. An archive's settle time is in its row of `state`, and reading all of these rows takes long. Rows are only appended,
   so a maximum up to a row number stays valid. It is stored in the head, and a run only reads the rows after it.
2. Without a valid stored maximum, all rows are read. A maximum that was copied from another ledger during a rebuild is
   not valid, because its rows had other numbers.
"""

import math
import sqlite3

import orjson

from asyncexport.ledger.rows import LedgerHead

LONGEST_SETTLES = "longest_settles"
"""The key of the note: when the ledger was created, the newest row that was read, and the maximum of each export."""

_LONGEST = (
    "SELECT max(coalesce(json_extract(fields, '$.settle_seconds'), 0)) FROM state"
    " WHERE seq > ? AND export = ? AND state = 'stored'"
)


def note_longest_settles(connection: sqlite3.Connection, head: LedgerHead) -> None:
    """Store the present maxima; all collected rows must have been written."""
    last, settles = _remembered(head)
    now = {
        name: max(settles.get(name, 0.0), _longest(connection, known.number, after=last if name in settles else 0))
        for name, known in head.exports.items()
    }
    head.remarks[LONGEST_SETTLES] = orjson.dumps([head.created_at, head.last_state, now]).decode()


def longest_settle(connection: sqlite3.Connection, head: LedgerHead, export: str) -> float:
    """Return the longest settle time of an export's archives, in seconds; infinite if no maximum is stored."""
    last, settles = _remembered(head)
    if export not in settles or export not in head.exports:
        return math.inf
    return max(settles[export], _longest(connection, head.exports[export].number, after=last))


def _remembered(head: LedgerHead) -> tuple[int, dict[str, float]]:
    """Read the note: the newest row that was read, and the maxima; 0 and {} if it is invalid or another ledger's."""
    try:
        made, last, settles = orjson.loads(head.remarks.get(LONGEST_SETTLES, "[0, 0, {}]"))
        settles = {str(name): float(seconds) for name, seconds in settles.items()}
        is_ours = made == head.created_at and 0 <= last <= head.last_state
    except (ValueError, TypeError, AttributeError):
        return 0, {}
    return (int(last), settles) if is_ours else (0, {})


def _longest(connection: sqlite3.Connection, number: int, *, after: int) -> float:
    """Return the longest settle time of an export's archives whose rows come after the given one."""
    (found,) = connection.execute(_LONGEST, (after, number)).fetchone()
    return float(found or 0.0)
