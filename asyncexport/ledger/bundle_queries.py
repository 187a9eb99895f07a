"""What the ledger knows of the bundles of one export.

1. A bundle belongs to a range if the two share at least one second.
2. Results that may be large are read lazily or in pages.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from asyncexport.core.bundles import ALL_TIME, Bundle, Range, merged
from asyncexport.core.coverage import RecordedRange, was_settled
from asyncexport.core.directory_diff import START_WEIGHT, DayTally, overlaps
from asyncexport.core.health.overview import Overview
from asyncexport.core.service_time import CLOCKS_APART_SECONDS
from asyncexport.core.states import BundleRecord, Planned, Split
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.park_history import park_history
from asyncexport.ledger.rows import KnownExport, StateRow, read_record

BUNDLES_PER_PAGE = 500
"""Bundles read at a time, which takes a few milliseconds."""

_OVERLAPS = (
    "SELECT count(*) FROM (SELECT start, max(stop) OVER (ORDER BY start, stop ROWS BETWEEN UNBOUNDED PRECEDING"
    " AND 1 PRECEDING) AS reached FROM bundle WHERE export = ? AND stored IS NOT NULL) WHERE start < reached"
)
"""The number of archives that begin before an earlier archive has ended."""

_UNSETTLED = (
    "SELECT standing.* FROM standing JOIN state AS archived ON archived.seq = standing.stored"
    " WHERE standing.export = ?1 AND standing.start < ?2 AND standing.stop > ?3"
    " AND standing.exported < standing.stop + ?4 - ?5 AND standing.exported"
    " < standing.stop + coalesce(json_extract(archived.fields, '$.settle_seconds'), 0) - ?5"
    " ORDER BY standing.start, standing.stop"
)
"""Bundles whose archive was exported before its data was settled, with a tolerance (?5).

The query works on whole seconds and only narrows the candidates; `core.coverage.was_settled` decides. The condition on
the export's longest settle time (?4) comes first, because it saves reading the `state` rows of most archives.
"""


class BundleQueries:
    """The bundles of one export, as seen by the open transaction.

    Args:
        connection: The connection to the ledger.
        name: The name of the export.
        known: The export's entry in the head.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, known: KnownExport) -> None:
        self._connection = connection
        self._name = name
        self._known = known

    def recorded_range(self, span: Range) -> RecordedRange:
        """Return what a run over the range has to know."""
        covered = tuple(self.covered(span))
        found = tuple(self._not_stored(span, covered))
        unfinished = tuple(one for one in found if not isinstance(one.state, Split))
        # A bundle whose new revision is unfinished is still to do, even though it has an archive.
        again = sum(one.stored is not None and not one.kept for one in unfinished)
        history = park_history(self._connection, self._known.number, unfinished)
        return RecordedRange(
            unfinished,
            covered,
            self.count_stored(span) - again,
            accepted=history.accepted,
            kept_before=history.kept_before,
            parked=history.times,
            split=tuple(one for one in found if isinstance(one.state, Split)),
        )

    def count_stored(self, span: Range) -> int:
        """Return how many bundles of the range have an archive; for all time, the verified sum in the head."""
        if span == ALL_TIME:
            return self._known.sums.archives
        (count,) = self._connection.execute(
            "SELECT count(stored) FROM bundle WHERE export = ? AND start < ? AND stop > ?",
            (self._known.number, span.end, span.start),
        ).fetchone()
        return int(count)

    def stored_days(self) -> dict[int, DayTally]:
        """Return the tally of the archives of each day, by the day's first second."""
        rows = self._connection.execute(_STORED_DAYS, (self._known.number,))
        return {day: DayTally(count, START_WEIGHT * starts + stops) for day, count, starts, stops in rows}

    def stored_ranges(self, span: Range) -> list[Range]:
        """Return the ranges of all bundles of the span that have an archive, in order."""
        rows = self._connection.execute(
            "SELECT start, stop FROM bundle WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
            " ORDER BY start, stop",
            (self._known.number, span.end, span.start),
        )
        return [Range(start, stop) for start, stop in rows]

    def overlaps(self) -> list[tuple[Range, Range]]:
        """Return the pairs of an archive and a later one that begins before it has ended."""
        (found,) = self._connection.execute(_OVERLAPS, (self._known.number,)).fetchone()
        return list(overlaps(self.stored_ranges(ALL_TIME))) if found else []

    def covered(self, span: Range) -> Iterator[Range]:
        """Return the time that the archives of the range's bundles cover, merged, in order."""
        rows = self._connection.execute(
            "SELECT start, stop FROM bundle WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
            " ORDER BY start, stop",
            (self._known.number, span.end, span.start),
        )
        return merged(rows)

    def unfinished(self, span: Range, covered: Sequence[Range]) -> Iterator[BundleRecord]:
        """Return the bundles of the range whose newest revision has begun and not ended as stored, in order.

        Omitted are split bundles, and bundles that are planned again without an archive of their own but whose time
        other archives cover by now (after a change of the bundle width).
        """
        return (one for one in self._not_stored(span, covered) if not isinstance(one.state, Split))

    def _not_stored(self, span: Range, covered: Sequence[Range]) -> Iterator[BundleRecord]:
        """Return the same bundles as `unfinished`, and the split ones."""
        rows = self._connection.execute(
            "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT latest"
            " ORDER BY start, stop",
            (self._known.number, span.end, span.start),
        )
        for row in rows:
            one = self._record(row)
            if not (isinstance(one.state, Planned) and one.stored is None and _lies_within(one.bundle.range, covered)):
                yield one

    def stored_page(self, span: Range, *, after: Range | None, exported_within: float) -> list[BundleRecord]:
        """Return the next bundles of the range that have an archive, in order; see `LedgerQueries.stored`."""
        key = (after.start, after.end) if after else (ALL_TIME.start, ALL_TIME.start)
        rows = self._connection.execute(
            "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
            " AND (start, stop) > (?, ?) AND exported - stop < ? ORDER BY start, stop LIMIT ?",
            (self._known.number, span.end, span.start, *key, exported_within, BUNDLES_PER_PAGE),
        )
        return [self._record(row) for row in rows]

    def unsettled(self, span: Range, *, settle: float) -> list[BundleRecord]:
        """See `LedgerQueries.unsettled`; `settle` is an upper bound of the archives' settle times, in seconds."""
        asked = (self._known.number, span.end, span.start, settle, CLOCKS_APART_SECONDS)
        rows = self._connection.execute(_UNSETTLED, asked)
        return [one for one in map(self._record, rows) if not was_settled(one)]

    def all(self) -> Iterator[BundleRecord]:
        """Return every bundle, in no particular order."""
        every = "SELECT * FROM standing WHERE export = ?"
        return map(self._record, self._connection.execute(every, (self._known.number,)))

    def overview(self, *, settle: float) -> Overview:
        """Return what `status` shows of the export; `settle` as for `unsettled`."""
        empty, latest = self._connection.execute(
            "SELECT count(stored) FILTER (WHERE rows = 0), max(latest) FROM bundle WHERE export = ?",
            (self._known.number,),
        ).fetchone()
        covered = tuple(self.covered(ALL_TIME))
        unfinished = tuple(self.unfinished(ALL_TIME, covered))
        return Overview(
            name=self._name,
            definition=self._known.definition,
            stored=self._known.sums.archives,
            empty=empty,
            rows=self._known.sums.rows,
            bytes=self._known.sums.bytes,
            unfinished=unfinished,
            parked_times=park_history(self._connection, self._known.number, unfinished).times,
            covered=covered,
            overlaps=tuple(self.overlaps()),
            unsettled=tuple(self.unsettled(ALL_TIME, settle=settle)),
            last_at=None if latest is None else self._state_row(latest).written_at,
        )

    def _record(self, row: tuple[Any, ...]) -> BundleRecord:
        """Read a row of the view `standing`: the pointers, followed by the two rows of `state` that they point to."""
        number, start, stop, _, stored, *_ = row[:8]
        archive = None if stored is None else row[17:]
        bundle = Bundle(self._name, Range(start, stop))
        return read_record(bundle, number, latest=row[8:17], stored=archive)

    def _state_row(self, seq: int) -> StateRow:
        row = self._connection.execute("SELECT * FROM state WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise LedgerCorruptError(f"the ledger is damaged: row {seq} is missing")
        return StateRow.read(row)


_STORED_DAYS = (
    "SELECT start / 86400 * 86400, count(*),"
    " sum(start % 86400 / 3600 * 10000 + start % 3600 / 60 * 100 + start % 60),"
    " sum(stop % 86400 / 3600 * 10000 + stop % 3600 / 60 * 100 + stop % 60)"
    " FROM bundle WHERE export = ? AND stored IS NOT NULL GROUP BY 1"
)
"""The times of day are added up as numbers of the form HHMMSS (`core.directory_diff`)."""


def _lies_within(span: Range, covered: Sequence[Range]) -> bool:
    """Whether one of these ranges, merged and in order, contains the whole span."""
    at = bisect_right(covered, span.start, key=lambda one: one.start) - 1
    return at >= 0 and span.end <= covered[at].end
