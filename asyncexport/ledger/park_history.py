"""What only the earlier states of bundles show, found in one pass over the states, without an index."""

import sqlite3
from collections.abc import Sequence

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.parking import PAUSABLE, ParkedTimes, may_pause
from asyncexport.core.states import BundleRecord, FewerRows
from asyncexport.ledger.rows import StateRow


def refused_for_fewer_rows(
    connection: sqlite3.Connection, number: int, records: Sequence[BundleRecord]
) -> frozenset[Bundle]:
    """Return the bundles whose newest revision was refused because it has far fewer rows than their archive.

    Args:
        connection: The connection to the ledger.
        number: The number of the export.
        records: Bundles that have an archive.
    """
    if not records:
        return frozenset()
    newest = {one.bundle.range: one for one in records}
    # The states of a bundle's newest revision come after the row of its archive.
    rows = connection.execute(
        "SELECT * FROM state WHERE export = ? AND state IN ('failed', 'fewerrows') AND seq > ("
        "SELECT min(stored) FROM bundle WHERE export = ? AND stored IS NOT latest)",
        (number, number),
    )
    refused = (row for row in map(StateRow.read, rows) if isinstance(row.state, FewerRows))
    found = ((newest.get(Range(row.start, row.stop)), row.revision) for row in refused)
    return frozenset(one.bundle for one, revision in found if one is not None and one.revision == revision)


def parked_times(
    connection: sqlite3.Connection, number: int, records: Sequence[BundleRecord]
) -> dict[Bundle, ParkedTimes]:
    """Return how often and when bundles were parked since they were last stored, if nightly runs delay their retries.

    Args:
        connection: The connection to the ledger.
        number: The number of the export.
        records: Bundles whose newest revision is not stored.
    """
    delayed = {one.bundle.range: one.bundle for one in records if may_pause(one)}
    found: dict[Bundle, ParkedTimes] = {}
    if not delayed:
        return found
    rows = connection.execute(
        "SELECT state.* FROM state JOIN bundle ON bundle.export = state.export AND bundle.start = state.start"
        " AND bundle.stop = state.stop WHERE state.export = ? AND state.state IN ('failed', 'overdue')"
        " AND state.seq > coalesce(bundle.stored, 0) ORDER BY state.seq",
        (number,),
    )
    for row in map(StateRow.read, rows):
        bundle = delayed.get(Range(row.start, row.stop))
        if bundle is not None and isinstance(row.state, PAUSABLE):
            times = found[bundle].times if bundle in found else 0
            found[bundle] = ParkedTimes(times + 1, row.written_at)
    return found
