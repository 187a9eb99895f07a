"""Reading the ledger: by the run that writes it, and by anybody else while it does.

1. Each question is answered from one moment: in one transaction, or by one statement, which sees no half of a commit.
2. The sums over the bundles are compared with the head before the first answer about bundles. After that whoever writes
   keeps them.
"""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.directory_diff import DayTally
from asyncexport.core.exports import Definition
from asyncexport.core.states import BundleRecord, Created, Ready
from asyncexport.ledger.bundle_queries import BundleQueries
from asyncexport.ledger.check import check_everything, check_sums
from asyncexport.ledger.faults import translated
from asyncexport.ledger.metadata_queries import MetadataQueries
from asyncexport.ledger.overview import Overview
from asyncexport.ledger.rows import KnownExport, LedgerHead
from asyncexport.ledger.service_ids import IdKind, check_service_ids, states_with
from asyncexport.ledger.settles import longest_settle

SMALL_LEDGER_ROWS = 10_000
"""A ledger of so many rows is checked before a run asks for anything: about 0.4 s of work on a slow machine."""


class LedgerQueries(MetadataQueries):
    """Answers from an open ledger. Not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        super().__init__(connection, path)
        self._sums_checked = False
        self._ids_checked = False
        self._names: dict[int, str] = {}

    def exports(self) -> dict[str, Definition]:
        """The exports that are known, by name."""
        with self._moment() as head:
            return {name: known.definition for name, known in head.exports.items()}

    def stock(self, export: str, span: Range) -> RecordedRange:
        """What a run over the span has to know."""
        with self._moment() as head:
            return self._bundles(head, export).recorded_range(span)

    def has_states(self) -> bool:
        """Whether anything was ever done with a bundle."""
        with self._moment() as head:
            return head.last_state > 0

    def unfinished(self, export: str, span: Range) -> list[BundleRecord]:
        """Bundles that overlap the span and whose newest revision has begun and not ended as stored, in order.

        Left out is what was begun in another width and is neither under way nor parked, once archives cover its time.
        """
        with self._moment() as head:
            bundles = self._bundles(head, export)
            return list(bundles.unfinished(span, tuple(bundles.covered(span))))

    def covered(self, export: str, span: Range) -> list[Range]:
        """The time of all bundles that overlap the span and have an archive, merged, in order."""
        with self._moment() as head:
            return list(self._bundles(head, export).covered(span))

    def stored_days(self, export: str) -> dict[int, DayTally]:
        """What the archives come to, by the second that the day of their start begins with."""
        with self._moment() as head:
            return self._bundles(head, export).stored_days()

    def stored_ranges(self, export: str, span: Range) -> list[Range]:
        """The ranges of all bundles that overlap the span and have an archive, in order."""
        with self._moment() as head:
            return self._bundles(head, export).stored_ranges(span)

    def overlaps(self, export: str) -> list[tuple[Range, Range]]:
        """Archives that begin before an earlier one has ended, each after the one that it overlaps."""
        with self._moment() as head:
            return self._bundles(head, export).overlaps()

    def has_archives(self, export: str) -> bool:
        """Whether any bundle has an archive."""
        return self.count_stored(export, ALL_TIME) > 0

    def count_stored(self, export: str, span: Range) -> int:
        """How many bundles that overlap the span have an archive."""
        with self._moment() as head:
            return self._bundles(head, export).count_stored(span)

    def stored(self, export: str, span: Range, *, exported_within: float = math.inf) -> Iterator[BundleRecord]:
        """Bundles that overlap the span and have an archive, in order of their start.

        They are read in pages, each of its own moment: what is stored meanwhile may be among them or not. Each bundle
        comes once.

        Args:
            export: Its name.
            span: Where.
            exported_within: Only archives exported sooner than so many seconds after the end of their bundle, as far
                as whole seconds tell. This narrows the candidates for a refresh, and leaves out none that
                `core.refreshing.needs_refresh` finds due at an age of up to as many seconds; that function alone
                decides.
        """
        after: Range | None = None
        while True:
            with self._moment() as head:
                page = self._bundles(head, export).stored_page(span, after=after, exported_within=exported_within)
            if not page:
                return
            yield from page
            after = page[-1].bundle.range

    def unsettled(self, export: str, span: Range) -> list[BundleRecord]:
        """Bundles that overlap the span, and whose archive was not settled (`core.coverage.was_settled`), in order."""
        with self._moment() as head:
            settle = longest_settle(self._connection, head, export)
            return self._bundles(head, export).unsettled(span, settle=settle)

    def bundles_of_operation(self, operation_id: str) -> tuple[Bundle, ...]:
        """The bundles that this operation was ever recorded for, by any run; none on record in version 1."""
        return self._bundles_of(Created, operation_id)

    def bundles_of_export(self, export_id: str) -> tuple[Bundle, ...]:
        """The bundles that this export of the service was ever recorded for, by any run; none in version 1."""
        return self._bundles_of(Ready, export_id)

    def overviews(self) -> list[Overview]:
        """What there is to say of each export, in the order they were first asked for; all of one moment."""
        with self._moment() as head:
            settles = {name: longest_settle(self._connection, head, name) for name in head.exports}
            return [self._bundles(head, name).overview(settle=settle) for name, settle in settles.items()]

    def check_if_small(self) -> None:
        """As `check`, where that is done at once; a larger ledger is left to `asyncexport verify`.

        Raises:
            LedgerCorruptError: some of it is not as it was written.
        """
        with self._moment() as head:
            rows = head.last_state + head.requests + head.durations + head.runs + head.hours + head.accepted
        if rows <= SMALL_LEDGER_ROWS:
            self.check()

    def check(self) -> None:
        """Read all there is, see `check_everything`.

        Raises:
            LedgerCorruptError: some of it is not as it was written.
        """
        with self._moment() as head:
            check_everything(self._connection, head)
            self._sums_checked, self._ids_checked = True, head.version >= 2

    def _bundles_of(self, kind: IdKind, service_id: str) -> tuple[Bundle, ...]:
        if not self._ids_checked:
            with self._moment() as head:
                if head.version < 2:
                    return ()
                check_service_ids(self._connection, head.service_ids)
                self._ids_checked = True
        # A run asks this twice a bundle: one statement sees one moment, and needs no transaction of its own.
        with translated(self._path):
            rows = list(states_with(self._connection, kind, service_id))
        if any(row.export not in self._names for row in rows):
            with self._moment() as head:
                self._names = {known.number: name for name, known in head.exports.items()}
        found = (Bundle(self._names.get(row.export, ""), Range(row.start, row.stop)) for row in rows)
        return tuple(dict.fromkeys(found))

    def _bundles(self, head: LedgerHead, export: str) -> BundleQueries:
        """The bundles of an export, once their sums are known to be right (rule 2); none if it is not known."""
        if not self._sums_checked:
            check_sums(self._connection, head)
            self._sums_checked = True
        return BundleQueries(self._connection, export, head.exports.get(export) or KnownExport(0, Definition()))
