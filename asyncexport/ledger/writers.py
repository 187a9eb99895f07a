"""When the bytes of archives were exported, for those that a later revision found to be the same.

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


class WriterQueries(RowCountQueries):
    """Reads the `Stored` rows of all revisions."""

    def exported_times(self, export: str, span: Range) -> dict[tuple[Range, int], float]:
        """Return when each archive of the span was exported, by its range and revision, in seconds since 1970.

        It reads all rows of the ledger once: some tenths of a second for a year of bundles.
        """
        with self._snapshot() as head:
            known = head.exports.get(export)
            return {} if known is None else dict(_exported_times(self._connection, known.number, span))


def _exported_times(
    connection: sqlite3.Connection, number: int, span: Range
) -> Iterator[tuple[tuple[Range, int], float]]:
    for one in map(StateRow.read, connection.execute(_STORED, (number, span.end, span.start))):
        if isinstance(one.state, Stored):
            yield (Range(one.start, one.stop), one.revision), one.state.exported_at
