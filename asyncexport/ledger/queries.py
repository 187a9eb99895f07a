"""Reads the ledger, in the run that writes it and in other processes.

1. Each query sees one consistent state: it runs in one transaction, or as one statement.
2. The sums over the bundles are compared with the head before the first query about bundles. After that the writer
   keeps them up to date.
"""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.directory_diff import DayTally
from asyncexport.core.exports import Definition
from asyncexport.core.health.overview import Overview
from asyncexport.core.states import BundleRecord, Created, Ready
from asyncexport.ledger.bundle_queries import BundleQueries
from asyncexport.ledger.check import check_everything
from asyncexport.ledger.faults import translated
from asyncexport.ledger.rows import KnownExport, LedgerHead
from asyncexport.ledger.sample_queries import SampleQueries
from asyncexport.ledger.service_ids import IdKind, check_service_ids, states_with
from asyncexport.ledger.settles import longest_settle

SMALL_LEDGER_ROWS = 10_000
"""A ledger of at most this many rows is checked before a run sends anything: about 0.4 s on a slow machine."""


class LedgerQueries(SampleQueries):
    """Reads from an open ledger. Not thread-safe."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        super().__init__(connection, path)
        self._ids_checked = False
        self._names: dict[int, str] = {}

    def exports(self) -> dict[str, Definition]:
        """Return the definitions of the recorded exports, by name."""
        with self._snapshot() as head:
            return {name: known.definition for name, known in head.exports.items()}

    def recorded_range(self, export: str, span: Range) -> RecordedRange:
        """Return what a run over the span has to know."""
        with self._snapshot() as head:
            return self._bundles(head, export).recorded_range(span)

    def has_states(self) -> bool:
        """Whether the ledger holds any state of a bundle."""
        with self._snapshot() as head:
            return head.last_state > 0

    def unfinished(self, export: str, span: Range) -> list[BundleRecord]:
        """Return the bundles that overlap the span and whose newest revision has begun and not ended as stored.

        They are in order. Some are omitted, see `BundleQueries.unfinished`.
        """
        with self._snapshot() as head:
            bundles = self._bundles(head, export)
            return list(bundles.unfinished(span, tuple(bundles.covered(span))))

    def covered(self, export: str, span: Range) -> list[Range]:
        """Return the time of all bundles that overlap the span and have an archive, merged, in order."""
        with self._snapshot() as head:
            return list(self._bundles(head, export).covered(span))

    def stored_days(self, export: str) -> dict[int, DayTally]:
        """Return the tally of the archives of each day, by the day's first second."""
        with self._snapshot() as head:
            return self._bundles(head, export).stored_days()

    def stored_ranges(self, export: str, span: Range) -> list[Range]:
        """Return the ranges of all bundles that overlap the span and have an archive, in order."""
        with self._snapshot() as head:
            return self._bundles(head, export).stored_ranges(span)

    def overlaps(self, export: str) -> list[tuple[Range, Range]]:
        """Return the pairs of an archive and a later one that begins before it has ended."""
        with self._snapshot() as head:
            return self._bundles(head, export).overlaps()

    def has_archives(self, export: str) -> bool:
        """Whether any bundle has an archive."""
        return self.count_stored(export, ALL_TIME) > 0

    def count_stored(self, export: str, span: Range) -> int:
        """Return how many bundles that overlap the span have an archive."""
        with self._snapshot() as head:
            return self._bundles(head, export).count_stored(span)

    def stored(self, export: str, span: Range, *, exported_within: float = math.inf) -> Iterator[BundleRecord]:
        """Yield the bundles that overlap the span and have an archive, in order of their start.

        They are read in pages, each in a transaction of its own: a bundle that is stored meanwhile may be included or
        not. Each bundle comes once.

        Args:
            export: The name of the export.
            span: The range.
            exported_within: Only yield archives that were exported less than this many seconds after the end of their
                bundle, in whole seconds. This narrows the candidates for a refresh: it never omits a bundle that
                `core.refreshing.needs_refresh` finds due for ages up to this one, and that function decides.
        """
        after: Range | None = None
        while True:
            with self._snapshot() as head:
                page = self._bundles(head, export).stored_page(span, after=after, exported_within=exported_within)
            if not page:
                return
            yield from page
            after = page[-1].bundle.range

    def unsettled(self, export: str, span: Range) -> list[BundleRecord]:
        """Return the bundles that overlap the span and whose archive is unsettled (`core.coverage.was_settled`)."""
        with self._snapshot() as head:
            settle = longest_settle(self._connection, head, export)
            return self._bundles(head, export).unsettled(span, settle=settle)

    def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """Return the bundles that any run recorded this operation for; none for a ledger of version 1."""
        return self._bundles_of(Created, operation_id)

    def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """Return the bundles that any run recorded this export id for; none for a ledger of version 1."""
        return self._bundles_of(Ready, export_id)

    def overviews(self) -> list[Overview]:
        """Return an overview of each export, in the order they were registered, all from one consistent state."""
        with self._snapshot() as head:
            settles = {name: longest_settle(self._connection, head, name) for name in head.exports}
            return [self._bundles(head, name).overview(settle=settle) for name, settle in settles.items()]

    def check_if_small(self) -> None:
        """Run `check` if the ledger is small; a larger one is only checked by `asyncexport verify`.

        Raises:
            LedgerCorruptError: a part of the ledger is not as it was written.
        """
        with self._snapshot() as head:
            rows = head.last_state + head.requests + head.durations + head.runs + head.hours + head.accepted
        if rows <= SMALL_LEDGER_ROWS:
            self.check()

    def check(self) -> None:
        """Read and check the whole ledger, see `check_everything`.

        Raises:
            LedgerCorruptError: a part of the ledger is not as it was written.
        """
        with self._snapshot() as head:
            check_everything(self._connection, head)
            self._sums_checked, self._ids_checked = True, head.version >= 2

    def _bundles_of(self, kind: IdKind, service_id: str) -> tuple[Bundle, ...]:
        if not self._ids_checked:
            with self._snapshot() as head:
                if head.version < 2:
                    return ()
                check_service_ids(self._connection, head.service_ids)
                self._ids_checked = True
        # A run calls this twice per bundle. A single statement sees a consistent state without a transaction.
        with translated(self._path):
            rows = list(states_with(self._connection, kind, service_id))
        if any(row.export not in self._names for row in rows):
            with self._snapshot() as head:
                self._names = {known.number: name for name, known in head.exports.items()}
        found = (Bundle(self._names.get(row.export, ""), Range(row.start, row.stop)) for row in rows)
        return tuple(dict.fromkeys(found))

    def _bundles(self, head: LedgerHead, export: str) -> BundleQueries:
        """Return the queries for an export, after the sums were checked (rule 2); an unknown export has no bundles."""
        self._check_sums(head)
        return BundleQueries(self._connection, export, head.exports.get(export) or KnownExport(0, Definition()))
