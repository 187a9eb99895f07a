"""What only the earlier states of bundles show, found in one pass over the states, without an index."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.parking import PAUSABLE, ParkedTimes, may_pause
from asyncexport.core.states import BundleRecord, FewerRows
from asyncexport.ledger.rows import StateRow

_PARKED = (
    "SELECT state.* FROM state JOIN bundle ON bundle.export = state.export AND bundle.start = state.start"
    " AND bundle.stop = state.stop WHERE state.export = ? AND state.state IN ('failed', 'overdue', 'fewerrows')"
    " AND state.seq > coalesce(bundle.stored, 0) ORDER BY state.seq"
)
"""How bundles of an export were parked since they were last stored. Version 1 wrote `FewerRows` as `failed`."""


@dataclass(frozen=True, slots=True)
class ParkHistory:
    """How bundles were parked since they were last stored.

    Attributes:
        times: How often and when, for the bundles that nightly runs retry after a pause. Only states like the present
            one count: kept archives, or failed attempts.
        accepted: Bundles whose newest revision was parked because it has far fewer rows, and was resumed.
        kept_before: Bundles that were parked for that reason, and whose newest revision was not resumed after that.
    """

    times: Mapping[Bundle, ParkedTimes] = field(default_factory=dict)
    accepted: frozenset[Bundle] = frozenset()
    kept_before: frozenset[Bundle] = frozenset()


def park_history(connection: sqlite3.Connection, number: int, records: Iterable[BundleRecord]) -> ParkHistory:
    """Return how bundles were parked since they were last stored.

    Args:
        connection: The connection to the ledger.
        number: The number of the export.
        records: Bundles whose newest revision is not stored.
    """
    wanted = {one.bundle.range: one for one in records if may_pause(one) or one.stored is not None}
    if not wanted:
        return ParkHistory()
    times: dict[Bundle, ParkedTimes] = {}
    accepted, kept_before = set[Bundle](), set[Bundle]()
    for row in map(StateRow.read, connection.execute(_PARKED, (number,))):
        record = wanted.get(Range(row.start, row.stop))
        if record is None:
            continue
        bundle, has_fewer = record.bundle, record.stored is not None and isinstance(row.state, FewerRows)
        if has_fewer:
            is_resumed = row.revision == record.revision and not record.kept
            (accepted if is_resumed else kept_before).add(bundle)
        if (record.kept and has_fewer) or (may_pause(record) and isinstance(row.state, PAUSABLE)):
            times[bundle] = ParkedTimes(times[bundle].times + 1 if bundle in times else 1, row.written_at)
    return ParkHistory(times, frozenset(accepted), frozenset(kept_before))
