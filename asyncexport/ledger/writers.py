"""What is known of earlier archives of a bundle: their hashes, and when the bytes of an archive were exported.

If a refresh brings the same rows, the archive stays as it was, and the newest `Stored` row has a later time (rule 10 of
`core.states`). The row of the revision that wrote the bytes has the time of the bytes.
"""

import sqlite3
from collections.abc import Iterator

from asyncexport.core.bundles import Range
from asyncexport.core.states import Stored
from asyncexport.ledger.row_counts import RowCountQueries
from asyncexport.ledger.rows import StateRow

_STORED = "SELECT * FROM state WHERE export = ? AND state = 'stored' AND start < ? AND stop > ?"


_REPLACED = (
    "SELECT * FROM state WHERE export = ?1 AND state = 'stored' AND (start, stop) IN (SELECT start, stop FROM state"
    " WHERE export = ?1 AND state = 'stored' GROUP BY start, stop HAVING count(*) > 1)"
)


class WriterQueries(RowCountQueries):
    """Reads the `Stored` rows of all revisions."""

    def exported_times(self, export: str, span: Range) -> dict[tuple[Range, int], float]:
        """Return when each archive of the span was exported, by its range and revision, in seconds since 1970.

        It reads all rows of the ledger once: some tenths of a second for a year of bundles.
        """
        with self._snapshot() as head:
            known = head.exports.get(export)
            return {} if known is None else dict(_exported_times(self._connection, known.number, span))

    def stored_hashes(self, export: str) -> dict[Range, set[str]]:
        """Return the SHA-256 of all archives that a bundle has had, for bundles that were stored more than once.

        It reads all rows of the ledger: some tenths of a second for a year of bundles.
        """
        found: dict[Range, set[str]] = {}
        with self._snapshot() as head:
            known = head.exports.get(export)
            rows = [] if known is None else self._connection.execute(_REPLACED, (known.number,))
            for one in map(StateRow.read, rows):
                if isinstance(one.state, Stored):
                    found.setdefault(Range(one.start, one.stop), set()).add(one.state.sha256)
        return found


def _exported_times(
    connection: sqlite3.Connection, number: int, span: Range
) -> Iterator[tuple[tuple[Range, int], float]]:
    for one in map(StateRow.read, connection.execute(_STORED, (number, span.end, span.start))):
        if isinstance(one.state, Stored):
            yield (Range(one.start, one.stop), one.revision), one.state.exported_at
