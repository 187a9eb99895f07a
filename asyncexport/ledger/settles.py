"""The longest settle time that an export's archives were made with: it tells which of them need not be looked at.

1. An archive's settle time stands in its row of `state`, and to read all of these takes long. They are only ever added
   to: what the head remembers of those up to a number stays true, and a run looks at what was added since.
2. Where nothing is remembered, or nothing that can be read, all are looked at. What another ledger remembered, from
   which this one was made anew, says nothing: its rows had other numbers.
"""

import math
import sqlite3

import orjson

from asyncexport.ledger.rows import LedgerHead

LONGEST_SETTLES = "longest_settles"
"""The head's key for what is remembered: when the ledger was made, the newest row by then, and the times by export."""

_LONGEST = (
    "SELECT max(coalesce(json_extract(fields, '$.settle_seconds'), 0)) FROM state"
    " WHERE seq > ? AND export = ? AND state = 'stored'"
)


def note_longest_settles(connection: sqlite3.Connection, head: LedgerHead) -> None:
    """Remember the times as they are now; all rows are written."""
    last, settles = _remembered(head)
    now = {
        name: max(settles.get(name, 0.0), _longest(connection, known.number, after=last if name in settles else 0))
        for name, known in head.exports.items()
    }
    head.remarks[LONGEST_SETTLES] = orjson.dumps([head.created_at, head.last_state, now]).decode()


def longest_settle(connection: sqlite3.Connection, head: LedgerHead, export: str) -> float:
    """The longest settle time of an export's archives, in seconds; infinite where nothing is remembered of it."""
    last, settles = _remembered(head)
    if export not in settles or export not in head.exports:
        return math.inf
    return max(settles[export], _longest(connection, head.exports[export].number, after=last))


def _remembered(head: LedgerHead) -> tuple[int, dict[str, float]]:
    """Up to which row, and the times by export; nothing where it cannot be read, or is another ledger's."""
    try:
        made, last, settles = orjson.loads(head.remarks.get(LONGEST_SETTLES, "[0, 0, {}]"))
        settles = {str(name): float(seconds) for name, seconds in settles.items()}
        is_ours = made == head.created_at and 0 <= last <= head.last_state
    except (ValueError, TypeError, AttributeError):
        return 0, {}
    return (int(last), settles) if is_ours else (0, {})


def _longest(connection: sqlite3.Connection, number: int, *, after: int) -> float:
    """Of the archives of the export with this number, whose rows come after that one."""
    (found,) = connection.execute(_LONGEST, (after, number)).fetchone()
    return float(found or 0.0)
