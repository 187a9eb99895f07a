"""Reads what is not about bundles: requests, durations, runs, hours, notes, and accepted gaps."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncexport.core.bucket import HISTORY_SECONDS, RequestHistory, SentRequest
from asyncexport.core.health.records import AcceptedGap, HourCount, RunRecord
from asyncexport.ledger.accepted import read_accepted
from asyncexport.ledger.faults import translated
from asyncexport.ledger.hours import read_hours
from asyncexport.ledger.journal import read_durations, read_requests
from asyncexport.ledger.rows import LedgerHead
from asyncexport.ledger.run_log import read_runs
from asyncexport.ledger.schema import VERSION


class MetadataQueries:
    """Reads from an open ledger; each query sees one consistent state. Not thread-safe."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        self._connection = connection
        self._path = path

    def is_current(self) -> bool:
        """Whether the ledger has the present version of the format, so that opening it does not migrate it."""
        with self._snapshot() as head:
            return head.version == VERSION

    def requests_since(self, at: float) -> list[SentRequest]:
        """Return the recorded requests that were sent at this time or later, in the order they were sent."""
        with self._snapshot() as head:
            return [one for one in read_requests(self._connection, head) if one.at >= at]

    def request_history(self, *, now: float) -> RequestHistory:
        """Return the history of earlier runs' requests; `now` is in seconds since 1970."""
        return RequestHistory.read(
            self.requests_since(now - HISTORY_SECONDS),
            first_at=self.first_request_at(),
            all_counted_since=self.recall("all_counted_since"),
            now=now,
        )

    def first_request_at(self) -> float | None:
        """Return when the first request ever was sent; None if none was, 0 if its row has been deleted."""
        with self._snapshot() as head:
            return head.first_request_at

    def durations(self) -> list[float]:
        """Return the durations of the operations that finished last, in seconds, oldest first."""
        with self._snapshot() as head:
            return read_durations(self._connection, head)

    def recall(self, key: str) -> str | None:
        """Return the note with this key."""
        with self._snapshot() as head:
            return head.remarks.get(key)

    def notes(self) -> dict[str, str]:
        """Return all notes, by key."""
        with self._snapshot() as head:
            return dict(head.remarks)

    def runs(self) -> list[RunRecord]:
        """Return the runs of the last 400 days, in the order they began; only the newest for a ledger of version 1."""
        with self._snapshot() as head:
            return read_runs(self._connection, head)

    def last_run(self) -> RunRecord | None:
        """Return the newest run; None if there was none."""
        runs = self.runs()
        return runs[-1] if runs else None

    def hours(self) -> list[HourCount]:
        """Return the requests of the last 400 days by hour, kind and status; none for a ledger of version 1."""
        with self._snapshot() as head:
            return read_hours(self._connection, head)

    def accepted(self) -> list[AcceptedGap]:
        """Return the accepted gaps, in the order they were accepted."""
        with self._snapshot() as head:
            return read_accepted(self._connection, head)

    @contextmanager
    def _snapshot(self) -> Iterator[LedgerHead]:
        """Open a transaction, which sees one consistent state of the ledger, and yield its head."""
        with translated(self._path):
            self._connection.execute("BEGIN")
            try:
                yield LedgerHead.read(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
