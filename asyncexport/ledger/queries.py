"""Reading the ledger: by the run that writes it, and by anybody else while it does.

1. Each question is answered from one moment: in one transaction, which sees no half of a commit.
2. The sums over the bundles are compared with the head before the first answer about them. After that whoever writes
   keeps them.
3. What may be large is read in pages, and lazily.
"""

import math
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from asyncexport.core.bucket import HISTORY_SECONDS, RequestHistory, SentRequest
from asyncexport.core.bundles import ALL_TIME, Bundle, Range, merged
from asyncexport.core.coverage import RecordedRange
from asyncexport.core.exports import Definition
from asyncexport.core.states import BundleRecord, Planned
from asyncexport.errors import LedgerCorruptError, LedgerError
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import BUSY_SECONDS, ledger_path, opened_to_read, present
from asyncexport.ledger.overview import Overview
from asyncexport.ledger.rows import BundleSums, KnownExport, LedgerHead, StateRow, read_record, verified

PAGE = 500
"""Bundles read at once: a few milliseconds."""

AT_ONCE = 10_000
"""Rows that a run checks before it asks for anything: about 0.4 s of work on a slow machine."""


class LedgerQueries:
    """Answers from an open ledger. Not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        self._connection = connection
        self._path = path
        self._adds_up = False

    def exports(self) -> dict[str, Definition]:
        """The exports that are known, by name."""
        with self._moment() as head:
            return {name: kept.definition for name, kept in head.exports.items()}

    def stock(self, export: str, span: Range) -> RecordedRange:
        """What a run over the span has to know, from one moment."""
        with self._moment() as head:
            kept = self._known(head, export)
            covered = tuple(self._covered(kept, span))
            unfinished = tuple(self._unfinished(export, kept, span, covered))
            # A bundle whose new take is under way is to do, and not done already.
            again = sum(one.stored is not None and not one.kept for one in unfinished)
            return RecordedRange(unfinished, covered, self._count_stored(kept, span) - again)

    def unfinished(self, export: str, span: Range) -> list[BundleRecord]:
        """Bundles that overlap the span and whose newest take has begun and not ended as stored, in order.

        Left out is what was begun in another width and is neither under way nor parked, once others cover its time.
        """
        with self._moment() as head:
            kept = self._known(head, export)
            return list(self._unfinished(export, kept, span, tuple(self._covered(kept, span))))

    def covered(self, export: str, span: Range) -> list[Range]:
        """The time of all bundles that overlap the span and have an archive, merged, in order."""
        with self._moment() as head:
            kept = self._known(head, export)
            return list(self._covered(kept, span))

    def count_stored(self, export: str, span: Range) -> int:
        """How many bundles that overlap the span have an archive."""
        with self._moment() as head:
            return self._count_stored(self._known(head, export), span)

    def stored(self, export: str, span: Range, *, exported_within: float = math.inf) -> Iterator[BundleRecord]:
        """Bundles that overlap the span and have an archive, in order of their start.

        What is stored meanwhile may be among them or not; each bundle comes once.

        Args:
            export: Its name.
            span: Where.
            exported_within: Only archives exported sooner than so many seconds after the end of their bundle, as far
                as whole seconds tell. This narrows the candidates for a refresh, and leaves out none that
                `core.coverage.needs_refresh` names for as many seconds; that function alone decides.
        """
        after: Range | None = None
        while page := self.stored_page(export, span, after=after, exported_within=exported_within):
            yield from page
            after = page[-1].bundle.range

    def stored_page(
        self, export: str, span: Range, *, after: Range | None, exported_within: float
    ) -> list[BundleRecord]:
        """The next page of `stored`."""
        with self._moment() as head:
            kept = self._known(head, export)
            key = (after.start, after.end) if after else (ALL_TIME.start, ALL_TIME.start)
            rows = self._connection.execute(
                "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
                " AND (start, stop) > (?, ?) AND exported - stop < ? ORDER BY start, stop LIMIT ?",
                (kept.number, span.end, span.start, *key, exported_within, PAGE),
            )
            return [_record(export, row) for row in rows]

    def requests_since(self, at: float) -> list[SentRequest]:
        """The requests on record that were sent at this moment or later, in the order they were."""
        with self._moment() as head:
            found = self._connection.execute("SELECT * FROM request ORDER BY seq")
            rows = _all(found, "request", count=head.requests, last=head.last_request)
            return [SentRequest(moment, kind.decode(), status) for _, moment, kind, status in rows if moment >= at]

    def request_history(self, *, now: float) -> RequestHistory:
        """What earlier runs left on record of their requests; `now` in seconds since 1970."""
        return RequestHistory.read(
            self.requests_since(now - HISTORY_SECONDS),
            first_at=self.first_request_at(),
            all_counted_since=self.recall("all_counted_since"),
            now=now,
        )

    def first_request_at(self) -> float | None:
        """When the first request ever was sent, None if none was; 0 once the record does not reach back to it."""
        with self._moment() as head:
            return head.first_request_at

    def durations(self) -> list[float]:
        """What the operations that finished last took, in seconds, oldest first."""
        with self._moment() as head:
            found = self._connection.execute("SELECT * FROM duration ORDER BY seq")
            return [row[2] for row in _all(found, "duration", count=head.durations, last=head.last_duration)]

    def recall(self, key: str) -> str | None:
        """What was remembered under this key."""
        with self._moment() as head:
            return head.remarks.get(key)

    def overviews(self) -> list[Overview]:
        """What there is to say of each export, in the order they were first asked for; all of one moment."""
        with self._moment() as head:
            return [self._overview(name, head) for name in head.exports]

    def check_if_small(self) -> None:
        """As `check`, where that is done at once; a larger ledger is left to `asyncexport verify`.

        Raises:
            LedgerCorruptError: some of it is not as it was written.
        """
        with self._moment() as head:
            rows = head.last_state + head.requests + head.durations
        if rows <= AT_ONCE:
            self.check()

    def check(self) -> None:
        """Read all there is, rows that nothing leads to included: some ten seconds for half a million.

        Raises:
            LedgerCorruptError: some of it is not as it was written.
        """
        with self._moment() as head:
            (verdict,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != b"ok":
                raise LedgerCorruptError(f"the ledger is damaged: {verdict.decode('utf-8', 'replace').splitlines()[0]}")
            states = self._connection.execute("SELECT * FROM state ORDER BY seq")
            _all(states, "state", count=head.last_state, last=head.last_state)
            self._adds_up = False
            for name in head.exports:
                kept = self._known(head, name)
                for row in self._connection.execute("SELECT * FROM standing WHERE export = ?", (kept.number,)):
                    _record(name, row)
        self.requests_since(0.0)
        self.durations()

    @contextmanager
    def _moment(self) -> Iterator[LedgerHead]:
        """The ledger as it is at one moment."""
        with translated(self._path):
            self._connection.execute("BEGIN")
            try:
                yield LedgerHead.read(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _known(self, head: LedgerHead, export: str) -> KnownExport:
        """The export, once the bundles are known to add up (rule 2); one without any if it is not known."""
        if not self._adds_up:
            known = sorted((kept.number, kept.sums) for kept in head.exports.values() if kept.sums.bundles)
            if BundleSums.read(self._connection) != known:
                raise LedgerCorruptError("the ledger is damaged: its bundles do not add up")
            self._adds_up = True
        return head.exports.get(export) or KnownExport(0, Definition())

    def _count_stored(self, kept: KnownExport, span: Range) -> int:
        (count,) = self._connection.execute(
            "SELECT count(stored) FROM bundle WHERE export = ? AND start < ? AND stop > ?",
            (kept.number, span.end, span.start),
        ).fetchone()
        return int(count)

    def _unfinished(
        self, export: str, kept: KnownExport, span: Range, covered: Sequence[Range]
    ) -> Iterator[BundleRecord]:
        rows = self._connection.execute(
            "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT latest"
            " ORDER BY start, stop",
            (kept.number, span.end, span.start),
        )
        for row in rows:
            one = _record(export, row)
            if not (isinstance(one.state, Planned) and one.stored is None and _lies_within(one.bundle.range, covered)):
                yield one

    def _covered(self, kept: KnownExport, span: Range) -> Iterator[Range]:
        rows = self._connection.execute(
            "SELECT start, stop FROM bundle WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
            " ORDER BY start, stop",
            (kept.number, span.end, span.start),
        )
        return merged(rows)

    def _overview(self, name: str, head: LedgerHead) -> Overview:
        kept = self._known(head, name)
        empty, latest = self._connection.execute(
            "SELECT count(stored) FILTER (WHERE rows = 0), max(latest) FROM bundle WHERE export = ?", (kept.number,)
        ).fetchone()
        covered = tuple(self._covered(kept, ALL_TIME))
        return Overview(
            name=name,
            definition=kept.definition,
            stored=kept.sums.archives,
            empty=empty,
            rows=kept.sums.rows,
            bytes=kept.sums.bytes,
            unfinished=tuple(self._unfinished(name, kept, ALL_TIME, covered)),
            covered=covered,
            last_at=None if latest is None else self._written(latest).written_at,
        )

    def _written(self, seq: int) -> StateRow:
        row = self._connection.execute("SELECT * FROM state WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise LedgerCorruptError(f"the ledger is damaged: row {seq} is missing")
        return StateRow.read(row)


class LedgerReader(LedgerQueries):
    """Reads a ledger and changes nothing in it, while a run goes on or not; a context manager.

    Args:
        directory: The output directory.
        busy_seconds: How long to wait for another program.

    Raises:
        LedgerError: there is none, it is from a newer version, or in use.
        LedgerCorruptError: it is damaged.
        StorageError: it cannot be read.
    """

    def __init__(self, directory: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        path = ledger_path(directory)
        if not present(directory):
            raise no_ledger(directory)
        self._stack = ExitStack()
        with translated(path):
            connection = self._stack.enter_context(opened_to_read(path, busy_seconds=busy_seconds))
        super().__init__(connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._stack.close()


def no_ledger(directory: Path) -> LedgerError:
    """What is said where there is none, and no archive either."""
    return LedgerError(f"{directory} has no ledger", hint="check [output] directory; `backfill` makes a ledger")


def _record(export: str, row: tuple[Any, ...]) -> BundleRecord:
    """From a row of the view: the pointers, then the two rows of `state` they lead to."""
    number, start, stop, _, stored, *_ = row[:8]
    archive = None if stored is None else row[17:]
    return read_record(Bundle(export, Range(start, stop)), number, latest=row[8:17], stored=archive)


def _all(rows: Iterable[tuple[Any, ...]], what: str, *, count: int, last: int) -> list[tuple[Any, ...]]:
    """The rows, verified, if they are these and no others."""
    found = [verified(row, f"{what} {row[0]}") for row in rows]
    if [row[0] for row in found] != list(range(last - count + 1, last + 1)):
        raise LedgerCorruptError(f"the ledger is damaged: rows of {what} are missing")
    return found


def _lies_within(span: Range, covered: Sequence[Range]) -> bool:
    """Whether one of these ranges, merged and in order, holds all of it."""
    at = bisect_right(covered, span.start, key=lambda one: one.start) - 1
    return at >= 0 and span.end <= covered[at].end
