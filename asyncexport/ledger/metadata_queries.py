"""Reading what is not of bundles: requests, durations, runs, hours, remarks, and what was accepted as missing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncexport.core.bucket import HISTORY_SECONDS, RequestHistory, SentRequest
from asyncexport.ledger.accepted import AcceptedGap, read_accepted
from asyncexport.ledger.faults import translated
from asyncexport.ledger.hours import HourCount, read_hours
from asyncexport.ledger.journal import read_durations, read_requests
from asyncexport.ledger.rows import LedgerHead
from asyncexport.ledger.run_log import RunRecord, read_runs


class MetadataQueries:
    """Answers from an open ledger, each from one moment. Not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is for messages."""
        self._connection = connection
        self._path = path

    def requests_since(self, at: float) -> list[SentRequest]:
        """The requests on record that were sent at this moment or later, in the order they were."""
        with self._moment() as head:
            return [one for one in read_requests(self._connection, head) if one.at >= at]

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
            return read_durations(self._connection, head)

    def recall(self, key: str) -> str | None:
        """What was remembered under this key."""
        with self._moment() as head:
            return head.remarks.get(key)

    def remarks(self) -> dict[str, str]:
        """All that was remembered, by its key."""
        with self._moment() as head:
            return dict(head.remarks)

    def runs(self) -> list[RunRecord]:
        """The runs of the last 400 days, in the order they began; of a ledger of version 1 only the newest."""
        with self._moment() as head:
            return read_runs(self._connection, head)

    def last_run(self) -> RunRecord | None:
        """The newest run; None if there was none."""
        runs = self.runs()
        return runs[-1] if runs else None

    def hours(self) -> list[HourCount]:
        """The requests of the last 400 days, by hour, kind and status; none of a ledger of version 1."""
        with self._moment() as head:
            return read_hours(self._connection, head)

    def accepted(self) -> list[AcceptedGap]:
        """What was accepted as missing, in the order it was."""
        with self._moment() as head:
            return read_accepted(self._connection, head)

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
