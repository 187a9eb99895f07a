"""What can be written; each in the transaction that the writer has opened.

1. What is refused (`LedgerError`, `IllegalMove`) is refused before any of it is written, so that others in the same
   transaction are not concerned.
2. Rows are gathered, and written when the transaction ends, as many as may be in one statement: each statement lets go
   of the interpreter and has to get hold of it again, beside an event loop that is never idle.
3. Where unfinished bundles stand is kept in memory: each of them is about to move on.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition, Export
from asyncexport.core.states import Stored
from asyncexport.errors import IllegalMove, LedgerCorruptError, LedgerError
from asyncexport.ledger.commit_mark import CommitMark
from asyncexport.ledger.rows import BundleRow, KnownExport, LedgerHead, NewStateRow, digest_of

KEPT_REQUESTS = 10_000
"""Three days at 2 requests a minute; the budget's level needs two at most."""

KEPT_DURATIONS = 1_000
"""More than the watcher looks back."""

PRUNE_EVERY = 500
"""Rows are dropped so many at a time."""

ROWS_AT_ONCE = 16
"""Rows in one statement: few enough for SQLite to keep one prepared for each number of them."""

Key = tuple[int, Range]
"""Which bundle: the number of its export, and its range."""


class LedgerTransaction:
    """Writes rows, and keeps the head that goes with them."""

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head
        self._unfinished: dict[Key, BundleRow] = {}
        self._unanswered: dict[int, tuple[float, str]] = {}
        self._states: list[tuple[Any, ...]] = []
        self._moved: dict[Key, BundleRow] = {}
        self._requests: dict[int, tuple[Any, ...]] = {}
        self._durations: list[tuple[Any, ...]] = []

    def finish(self) -> CommitMark:
        """Write all that was gathered, and the head: the last thing in each transaction.

        What to mark it with once it is committed.
        """
        self._write_gathered()
        self._head.commits += 1
        text = self._head.to_text()
        digest = digest_of(1, text.encode())
        self._connection.execute("UPDATE head SET text = ?, digest = ? WHERE one = 1", (text, digest))
        return CommitMark(self._head.created_at, self._head.commits)

    def register(self, exports: Sequence[Export]) -> None:
        """Remember the definitions of exports that are new, and of those that nothing came of yet.

        Raises:
            LedgerError: one is known by another definition, and there is data of it, here or at the service.
        """
        self._write_gathered()
        for export in exports:
            known = self._head.exports.get(export.name)
            if known is not None and known.definition != export.definition and self._has_data(known):
                raise _another_definition(export.name, known.definition, export.definition)
        for export in exports:
            known = self._head.exports.setdefault(
                export.name, KnownExport(len(self._head.exports) + 1, export.definition)
            )
            known.definition = export.definition

    def append(self, lines: Sequence[NewStateRow]) -> None:
        """Add states, and lead the pointers of their bundles to them.

        Raises:
            LedgerError: an export was never agreed on.
            IllegalMove: a bundle has an archive that its state does not know of, or the other way round.
        """
        checked = [(line, *self._known(line)) for line in lines]
        for line, kept, before in checked:
            self._append(line, kept, before)

    def send(self, kind: str, at: float) -> int:
        """Put a request on record; its number."""
        head = self._head
        seq = head.last_request + 1
        self._unanswered[seq] = at, kind
        self._put_request(seq, at, kind, 0)
        head.last_request = seq
        head.requests += 1
        if head.first_request_at is None:
            head.first_request_at = at
        if seq % PRUNE_EVERY == 0 and head.requests > KEPT_REQUESTS:
            last = seq - KEPT_REQUESTS
            head.requests -= self._prune("DELETE FROM request WHERE seq <= ?", last)
            head.first_request_at = 0.0
            self._unanswered = {number: sent for number, sent in self._unanswered.items() if number > last}
        return seq

    def answered(self, seq: int, status: int) -> None:
        """Add the status that came back, if the request is still on record."""
        sent = self._unanswered.pop(seq, None)
        if sent is not None:
            self._put_request(seq, *sent, status)

    def learn(self, finished_at: float, seconds: float) -> None:
        """Remember how long an operation took."""
        head = self._head
        seq = head.last_duration + 1
        values = (seq, finished_at, seconds)
        self._durations.append((*values, digest_of(*values)))
        head.last_duration = seq
        head.durations += 1
        if seq % PRUNE_EVERY == 0 and head.durations > KEPT_DURATIONS:
            head.durations -= self._prune("DELETE FROM duration WHERE seq <= ?", seq - KEPT_DURATIONS)

    def remember(self, key: str, value: str) -> None:
        """Keep something small from run to run."""
        self._head.remarks[key] = value

    def _known(self, line: NewStateRow) -> tuple[KnownExport, BundleRow | None]:
        """The line's export, and where its bundle stands, where the line may be written."""
        kept = self._head.exports.get(line.bundle.export)
        if kept is None:
            raise LedgerError(f"the ledger does not know the export {line.bundle.export!r}")
        before = self._pointers(kept, line.bundle.range)
        has_archive = isinstance(line.state, Stored) or (before is not None and before.stored is not None)
        if line.has_archive != has_archive:
            raise IllegalMove(
                f"{line.bundle} has {'an' if has_archive else 'no'} archive, and its state says otherwise"
            )
        return kept, before

    def _append(self, line: NewStateRow, kept: KnownExport, before: BundleRow | None) -> None:
        seq = self._head.last_state + 1
        key = kept.number, line.bundle.range
        # A line before this one may have been of the same bundle.
        before = self._moved.get(key, before)
        after = BundleRow.after(before, line, seq=seq)
        self._states.append(line.values(seq, kept.number))
        self._moved[key] = after
        self._head.last_state = seq
        if before is not None:
            kept.sums.add(before, times=-1)
        kept.sums.add(after)

    def _has_data(self, kept: KnownExport) -> bool:
        """Whether a definition ever led to anything; one that was only ever refused may still be corrected."""
        found = self._connection.execute(
            "SELECT 1 FROM bundle JOIN state ON state.seq = bundle.latest WHERE bundle.export = ?"
            " AND (bundle.stored IS NOT NULL OR state.state NOT IN ('planned', 'creating', 'failed')) LIMIT 1",
            (kept.number,),
        )
        return found.fetchone() is not None

    def _pointers(self, kept: KnownExport, span: Range) -> BundleRow | None:
        key = kept.number, span
        if known := self._moved.get(key) or self._unfinished.get(key):
            return known
        row = self._connection.execute(
            "SELECT * FROM bundle WHERE export = ? AND start = ? AND stop = ?", (kept.number, span.start, span.end)
        ).fetchone()
        return None if row is None else BundleRow(*row[1:])

    def _put_request(self, seq: int, at: float, kind: str, status: int) -> None:
        self._requests[seq] = (seq, at, kind, status, digest_of(seq, at, kind.encode(), status))

    def _write_gathered(self) -> None:
        """Rule 2."""
        self._insert("INSERT INTO state", self._states)
        self._insert("INSERT OR REPLACE INTO bundle", ((number, *after) for (number, _), after in self._moved.items()))
        self._insert("INSERT OR REPLACE INTO request", self._requests.values())
        self._insert("INSERT INTO duration", self._durations)
        for key, pointers in self._moved.items():
            if pointers.stored == pointers.latest:
                self._unfinished.pop(key, None)
            else:
                self._unfinished[key] = pointers
        for gathered in (self._states, self._moved, self._requests, self._durations):
            gathered.clear()

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        left = iter(rows)
        while some := list(islice(left, ROWS_AT_ONCE)):
            places = f"({', '.join('?' * len(some[0]))})"
            values = ", ".join([places] * len(some))
            self._connection.execute(f"{statement} VALUES {values}", list(chain.from_iterable(some)))

    def _prune(self, statement: str, last: int) -> int:
        """Drop the rows up to this number; how many there were."""
        self._write_gathered()
        return self._connection.execute(statement, (last,)).rowcount


def is_refusal(error: Exception) -> bool:
    """Whether only the one who asked for it is concerned."""
    return isinstance(error, IllegalMove | LedgerError) and not isinstance(error, LedgerCorruptError)


def _another_definition(name: str, known: Definition, asked: Definition) -> LedgerError:
    before, after = known.to_dict(), asked.to_dict()
    differences = ", ".join(
        f"{key} was {before[key]!r} and now is {after[key]!r}" for key in before if before[key] != after[key]
    )
    return LedgerError(
        f"the export {name!r} is in this directory with another definition: {differences}",
        hint="give the new definition a name of its own, choose another [output] directory, or change it back",
    )
