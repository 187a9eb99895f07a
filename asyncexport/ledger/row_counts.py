"""The rows of stored bundles as sums, which are quick to read for years of history.

Only the table `bundle` is read, in the order of its key: a hundred thousand bundles take about a tenth of a second.
"""

import sqlite3
from pathlib import Path

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.sentinel.old_data import OLD_SECONDS, OldData
from asyncexport.core.sentinel.row_counts import HALF_HOUR, RowCounts
from asyncexport.ledger.check import check_sums
from asyncexport.ledger.metadata_queries import MetadataQueries
from asyncexport.ledger.rows import LedgerHead

MOST_NEW_ROWS = 20_000
"""Above this number of new rows, the range of all stored bundles is used: it is read from an index."""

_ROWS = (
    "SELECT start / ?1, sum(rows) FROM bundle WHERE export = ?2 AND start < ?3 AND stop > ?4 AND stored IS NOT NULL"
    " AND start / ?1 = (stop - 1) / ?1 GROUP BY 1 HAVING sum(stop - start) >= ?1"
)
"""The rows of every half hour or day that is covered by bundles which lie within it."""

_NEWLY_STORED = "SELECT min(start), max(stop) FROM state WHERE seq > ? AND export = ? AND state = 'stored'"

_ALL_STORED = "SELECT min(start), max(stop) FROM bundle WHERE export = ? AND stored IS NOT NULL"

_OLD = (
    "SELECT min(start), max(stop), sum(stop - start), sum(rows) FROM bundle"
    " WHERE export = ? AND stored IS NOT NULL AND exported - stop >= ?"
)


class RowCountQueries(MetadataQueries):
    """Reads sums over the rows of bundles; an export that the ledger does not know has none."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        super().__init__(connection, path)
        self._sums_checked = False

    def position(self) -> tuple[float, int]:
        """Return when the ledger was made, and the number of its newest row: together they identify its content."""
        with self._snapshot() as head:
            return head.created_at, head.last_state

    def newly_stored(self, export: str, *, after: int) -> Range | None:
        """Return the range of the bundles that were stored after this row; None if none was.

        It is wider than that after very many rows.
        """
        with self._snapshot() as head:
            self._check_sums(head)
            number, is_all = _number(head, export), not after or head.last_state - after > MOST_NEW_ROWS
            query = _ALL_STORED if is_all else _NEWLY_STORED
            start, end = self._connection.execute(query, (number,) if is_all else (after, number)).fetchone()
        return None if start is None else Range(start, end)

    def row_counts(self, export: str, span: Range) -> RowCounts:
        """Return the rows of the bundles that overlap the span, by half hour and by day."""
        with self._snapshot() as head:
            self._check_sums(head)
            number = _number(head, export)
            half_hours, days = (
                dict(self._connection.execute(_ROWS, (width, number, span.end, span.start)))
                for width in (HALF_HOUR, DAY)
            )
        return RowCounts(half_hours, days)

    def old_data(self, export: str) -> OldData | None:
        """Return the bundles that were older than 30 days when they were exported; None if there are none."""
        with self._snapshot() as head:
            self._check_sums(head)
            start, end, seconds, rows = self._connection.execute(_OLD, (_number(head, export), OLD_SECONDS)).fetchone()
        return None if start is None else OldData(Range(start, end), seconds, rows)

    def _check_sums(self, head: LedgerHead) -> None:
        """Compare the sums over the bundles with the head, once."""
        if not self._sums_checked:
            check_sums(self._connection, head)
            self._sums_checked = True


def _number(head: LedgerHead, export: str) -> int:
    known = head.exports.get(export)
    return 0 if known is None else known.number
