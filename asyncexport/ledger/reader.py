"""Reading the ledger: by the run that writes it, and by anybody else while it does.

1. Each question is answered from one moment: in one transaction, which sees no half of a commit.
2. The sums over the bundles are compared with the head before the first answer about them. After that whoever writes
   keeps them.
3. What may be large is read in pages, and lazily.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from asyncexport.core.bundles import Bundle, Range, gaps
from asyncexport.core.exports import Definition
from asyncexport.core.pacing import Sent
from asyncexport.core.states import CLAIMING, Failed, Overdue, Planned, Standing
from asyncexport.errors import LedgerCorruptError, LedgerError
from asyncexport.ledger.files import BUSY_SECONDS, ledger_path, opened_to_read, translated
from asyncexport.ledger.rows import Head, Kept, Sums, Written, read_standing, verified

PAGE = 500
"""Bundles read at once: a few milliseconds."""

EVER = Range(-(2**62), 2**62)


@dataclass(frozen=True, slots=True)
class Overview:
    """What the ledger knows of one export, for `status`.

    Attributes:
        stored: How many bundles have an archive; `empty` of them have no rows in it.
        rows, bytes: In these archives, and of them.
        unfinished: Bundles whose newest take has begun and not ended as stored, in order.
        covered: The time that archives cover, merged, in order.
        last_at: When its last row was written, in seconds since 1970; None where there is none.
    """

    name: str
    definition: Definition
    stored: int
    empty: int
    rows: int
    bytes: int
    unfinished: tuple[Standing, ...]
    covered: tuple[Range, ...]
    last_at: float | None

    @property
    def claimed(self) -> int:
        """Bundles that the service works on, or whose file waits there."""
        return sum(isinstance(one.state, CLAIMING) for one in self.unfinished)

    @property
    def failed(self) -> int:
        """Bundles given up."""
        return sum(isinstance(one.state, Failed) for one in self.unfinished)

    @property
    def overdue(self) -> int:
        """Bundles whose operation was still running at its deadline."""
        return sum(isinstance(one.state, Overdue) for one in self.unfinished)

    @property
    def parked(self) -> tuple[Standing, ...]:
        """Bundles given up or overdue, in order: the open problems."""
        return tuple(one for one in self.unfinished if one.parked)

    @property
    def gaps(self) -> tuple[Range, ...]:
        """What no archive covers between the first and the last."""
        if not self.covered:
            return ()
        return tuple(gaps(Range(self.covered[0].start, self.covered[-1].end), self.covered))


class Reading:
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

    def unfinished(self, export: str, span: Range) -> list[Standing]:
        """Bundles that overlap the span and whose newest take has begun and not ended as stored, in order.

        A first take that is back where it began (`Planned` at attempt 1) is as good as no row, and left out.
        """
        with self._moment() as head:
            kept = self._known(head, export)
            return list(self._unfinished(export, kept, span))

    def covered(self, export: str, span: Range) -> list[Range]:
        """The time of all bundles that overlap the span and have an archive, merged, in order."""
        with self._moment() as head:
            kept = self._known(head, export)
            return list(self._covered(kept, span))

    def count_stored(self, export: str, span: Range) -> int:
        """How many bundles that overlap the span have an archive."""
        with self._moment() as head:
            kept = self._known(head, export)
            (count,) = self._connection.execute(
                "SELECT count(stored) FROM bundle WHERE export = ? AND start < ? AND stop > ?",
                (kept.number, span.end, span.start),
            ).fetchone()
            return int(count)

    def stored(self, export: str, span: Range, *, exported_within: float = math.inf) -> Iterator[Standing]:
        """Bundles that overlap the span and have an archive, in order of their start.

        What is stored meanwhile may be among them or not; each bundle comes once.

        Args:
            export: Its name.
            span: Where.
            exported_within: Only archives exported sooner than so many seconds after the end of their bundle, give or
                take a second.
        """
        after: Range | None = None
        while page := self.stored_page(export, span, after=after, exported_within=exported_within):
            yield from page
            after = page[-1].bundle.range

    def stored_page(self, export: str, span: Range, *, after: Range | None, exported_within: float) -> list[Standing]:
        """The next page of `stored`."""
        with self._moment() as head:
            kept = self._known(head, export)
            key = (after.start, after.end) if after else (EVER.start, EVER.start)
            rows = self._connection.execute(
                "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
                " AND (start, stop) > (?, ?) AND exported - stop < ? ORDER BY start, stop LIMIT ?",
                (kept.number, span.end, span.start, *key, exported_within, PAGE),
            )
            return [_standing(export, row) for row in rows]

    def requests_since(self, at: float) -> list[Sent]:
        """The requests on record that were sent at this moment or later, in the order they were."""
        with self._moment() as head:
            found = self._connection.execute("SELECT * FROM request ORDER BY seq")
            rows = _all(found, "request", count=head.requests, last=head.last_request)
            return [Sent(moment, kind.decode(), status) for _, moment, kind, status in rows if moment >= at]

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
                    _standing(name, row)
        self.requests_since(0.0)
        self.durations()

    @contextmanager
    def _moment(self) -> Iterator[Head]:
        """The ledger as it is at one moment."""
        with translated(self._path):
            self._connection.execute("BEGIN")
            try:
                yield Head.read(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _known(self, head: Head, export: str) -> Kept:
        """The export, once the bundles are known to add up (rule 2); one without any if it is not known."""
        if not self._adds_up:
            known = sorted((kept.number, kept.sums) for kept in head.exports.values() if kept.sums.bundles)
            if Sums.read(self._connection) != known:
                raise LedgerCorruptError("the ledger is damaged: its bundles do not add up")
            self._adds_up = True
        return head.exports.get(export) or Kept(0, Definition())

    def _unfinished(self, export: str, kept: Kept, span: Range) -> Iterator[Standing]:
        rows = self._connection.execute(
            "SELECT * FROM standing WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT latest"
            " ORDER BY start, stop",
            (kept.number, span.end, span.start),
        )
        for row in rows:
            one = _standing(export, row)
            if not (isinstance(one.state, Planned) and one.state.attempt == 1 and one.take == 0):
                yield one

    def _covered(self, kept: Kept, span: Range) -> Iterator[Range]:
        rows = self._connection.execute(
            "SELECT start, stop FROM bundle WHERE export = ? AND start < ? AND stop > ? AND stored IS NOT NULL"
            " ORDER BY start, stop",
            (kept.number, span.end, span.start),
        )
        return _merged(rows)

    def _overview(self, name: str, head: Head) -> Overview:
        kept = self._known(head, name)
        empty, latest = self._connection.execute(
            "SELECT count(stored) FILTER (WHERE rows = 0), max(latest) FROM bundle WHERE export = ?", (kept.number,)
        ).fetchone()
        last = self._connection.execute("SELECT * FROM state WHERE seq = ?", (latest,)).fetchone()
        return Overview(
            name=name,
            definition=kept.definition,
            stored=kept.sums.archives,
            empty=empty,
            rows=kept.sums.rows,
            bytes=kept.sums.bytes,
            unfinished=tuple(self._unfinished(name, kept, EVER)),
            covered=tuple(self._covered(kept, EVER)),
            last_at=Written.read(last).written_at if last else None,
        )


class LedgerReader(Reading):
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
        if not path.exists():
            raise LedgerError(f"{directory} has no ledger", hint="check [output] directory; `backfill` makes a ledger")
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


def _standing(export: str, row: tuple[Any, ...]) -> Standing:
    """From a row of the view: the pointers, then the two rows of `state` they lead to."""
    number, start, stop, _, stored, *_ = row[:8]
    archive = None if stored is None else row[17:]
    return read_standing(Bundle(export, Range(start, stop)), number, latest=row[8:17], stored=archive)


def _all(rows: Iterable[tuple[Any, ...]], what: str, *, count: int, last: int) -> list[tuple[Any, ...]]:
    """The rows, verified, if they are these and no others."""
    found = [verified(row, f"{what} {row[0]}") for row in rows]
    if [row[0] for row in found] != list(range(last - count + 1, last + 1)):
        raise LedgerCorruptError(f"the ledger is damaged: rows of {what} are missing")
    return found


def _merged(rows: Iterable[tuple[int, int]]) -> Iterator[Range]:
    """The union of spans in order of their start.

    As `core.bundles.merged`, but for bare numbers: a hundred thousand ranges that only make one are dear.
    """
    begun, reached = None, 0
    for start, stop in rows:
        if begun is None:
            begun, reached = start, stop
        elif start > reached:
            yield Range(begun, reached)
            begun, reached = start, stop
        elif stop > reached:
            reached = stop
    if begun is not None:
        yield Range(begun, reached)
