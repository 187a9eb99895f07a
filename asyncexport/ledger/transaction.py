"""The writes to the ledger, within the transaction that the ledger's thread has opened.

1. A write that is refused (`LedgerError`, `IllegalMove`) is refused before any part of it is written, so the other
   writes of the transaction are not affected.
2. Rows are collected and written when the transaction ends (`bulk_insert`).
3. The pointers of unfinished bundles are kept in memory, because these bundles will soon get another state.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Export
from asyncexport.core.health.records import AcceptedGap
from asyncexport.core.states import Stored
from asyncexport.errors import IllegalMove, LedgerCorruptError, LedgerError
from asyncexport.ledger.accepted import insert_accepted
from asyncexport.ledger.bulk_insert import insert_rows
from asyncexport.ledger.commit_mark import CommitMark
from asyncexport.ledger.definitions import check_definitions
from asyncexport.ledger.journal import JournalWriter
from asyncexport.ledger.rows import BundleRow, KnownExport, LedgerHead, NewStateRow, digest_of
from asyncexport.ledger.run_log import RunLogWriter
from asyncexport.ledger.service_ids import ServiceIdRow, id_of, insert_service_ids
from asyncexport.ledger.settles import note_longest_settles

BundleKey = tuple[int, Range]
"""The key of a bundle: the number of its export, and its range."""


class LedgerTransaction:
    """Writes rows and the head.

    Attributes:
        journal: Writes requests and durations.
        runs: Writes the log of runs.
        head_digest: The checksum of the head after the last transaction.
    """

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head
        self.journal = JournalWriter(connection, head)
        self.runs = RunLogWriter(connection, head)
        self.head_digest = 0
        self._unfinished: dict[BundleKey, BundleRow] = {}
        self._states: list[tuple[Any, ...]] = []
        self._service_ids: list[ServiceIdRow] = []
        self._moved: dict[BundleKey, BundleRow] = {}

    def finish(self) -> CommitMark:
        """Write all collected rows and the head, as the last step of a transaction.

        Returns:
            The mark to write after the transaction is committed.
        """
        self._flush()
        self.journal.flush()
        self._head.commits += 1
        text = self._head.to_text()
        self.head_digest = digest_of(1, text.encode())
        self._connection.execute("UPDATE head SET text = ?, digest = ? WHERE one = 1", (text, self.head_digest))
        return CommitMark(self._head.created_at, self._head.commits)

    def register(self, exports: Sequence[Export]) -> None:
        """Record the definitions of exports that are new or have no data yet.

        Raises:
            LedgerError: an export is recorded with another definition and has data, here or at the service.
        """
        self._flush()
        check_definitions(self._connection, self._head.exports, exports)
        for export in exports:
            known = self._head.exports.setdefault(
                export.name, KnownExport(len(self._head.exports) + 1, export.definition)
            )
            known.definition = export.definition
        note_longest_settles(self._connection, self._head)

    def append(self, rows: Sequence[NewStateRow]) -> None:
        """Append states and update the pointers of their bundles.

        Raises:
            LedgerError: an export was never registered.
            IllegalMove: the ledger has an archive of a bundle and its record has none, or vice versa.
        """
        checked = [(row, *self._checked(row)) for row in rows]
        for row, known, before in checked:
            self._append(row, known, before)

    def split(self, parent: NewStateRow, children: Sequence[NewStateRow]) -> None:
        """Append a bundle's last state, and the first states of the narrower bundles that replace it.

        Raises:
            LedgerError, IllegalMove: as `append` does.
        """
        known = self._head.exports.get(parent.bundle.export)
        if known is None:
            raise _unknown(parent.bundle.export)
        self.append([parent, *(one for one in children if self._pointers(known, one.bundle.range) is None)])

    def remember(self, key: str, value: str) -> None:
        """Store a note for later runs."""
        self._head.remarks[key] = value

    def accept(self, gap: AcceptedGap) -> None:
        """Record an accepted gap.

        Raises:
            LedgerError: its export was never registered.
        """
        known = self._head.exports.get(gap.bundle.export)
        if known is None:
            raise _unknown(gap.bundle.export)
        insert_accepted(self._connection, self._head, gap, export=known.number)

    def _checked(self, row: NewStateRow) -> tuple[KnownExport, BundleRow | None]:
        """Check that the row may be written; return its export and the present pointers of its bundle."""
        known = self._head.exports.get(row.bundle.export)
        if known is None:
            raise _unknown(row.bundle.export)
        before = self._pointers(known, row.bundle.range)
        has_archive = isinstance(row.state, Stored) or (before is not None and before.stored is not None)
        if row.has_archive != has_archive:
            has = "an archive" if has_archive else "no archive"
            raise IllegalMove(f"the ledger has {has} of {row.bundle}, but its new record says otherwise")
        return known, before

    def _append(self, row: NewStateRow, known: KnownExport, before: BundleRow | None) -> None:
        seq = self._head.last_state + 1
        key = known.number, row.bundle.range
        # An earlier row of this write may belong to the same bundle.
        before = self._moved.get(key, before)
        after = BundleRow.after(before, row, seq=seq)
        self._states.append(row.values(seq, known.number))
        if service_id := id_of(row.state):
            self._service_ids.append(ServiceIdRow.of(*service_id, seq=seq))
        self._moved[key] = after
        self._head.last_state = seq
        if before is not None:
            known.sums.add(before, times=-1)
        known.sums.add(after)

    def _pointers(self, known: KnownExport, span: Range) -> BundleRow | None:
        """Return the pointers of a bundle; None if it has no row yet."""
        key = known.number, span
        if pointers := self._moved.get(key) or self._unfinished.get(key):
            return pointers
        row = self._connection.execute(
            "SELECT * FROM bundle WHERE export = ? AND start = ? AND stop = ?", (known.number, span.start, span.end)
        ).fetchone()
        return None if row is None else BundleRow(*row[1:])

    def _flush(self) -> None:
        """Write the collected states and pointers."""
        pointers = ((number, *after) for (number, _), after in self._moved.items())
        insert_rows(self._connection, "INSERT INTO state", self._states)
        insert_service_ids(self._connection, self._service_ids, self._head.service_ids)
        insert_rows(self._connection, "INSERT OR REPLACE INTO bundle", pointers)
        for key, after in self._moved.items():
            if after.stored == after.latest:
                self._unfinished.pop(key, None)
            else:
                self._unfinished[key] = after
        self._states.clear()
        self._service_ids.clear()
        self._moved.clear()


def is_refusal(error: Exception) -> bool:
    """Whether an error only concerns the write that raised it."""
    return isinstance(error, IllegalMove | LedgerError) and not isinstance(error, LedgerCorruptError)


def _unknown(export: str) -> LedgerError:
    return LedgerError(f"the ledger does not know the export {export!r}")
