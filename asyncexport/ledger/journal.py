"""The journal of requests and of the durations of operations, from which the next run's budget and poller start.

1. Rows are numbered and counted in the head, which reveals a missing row.
2. Only the newest rows are kept. Older ones are deleted in batches.
3. Rows are collected, and written when the transaction ends or before rows are deleted.
4. In addition to its row, each request counts in its hour (`hours`), which is kept for longer.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from asyncexport.core.bucket import SentRequest
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.bulk_insert import insert_rows
from asyncexport.ledger.hours import HourWriter
from asyncexport.ledger.rows import LedgerHead, digest_of, verified

KEPT_REQUESTS = 10_000
"""Three days at 2 requests a minute; the level of the token bucket depends on the last two days at most."""

KEPT_DURATIONS = 1_000
"""More than the poller uses."""

PRUNE_EVERY = 500
"""Old rows are deleted each time this many rows were added."""


class JournalWriter:
    """Adds to the journal within the open transaction and updates the counts in the head.

    Attributes:
        hours: Counts the requests of each hour.
    """

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head
        self._unanswered: dict[int, tuple[float, str]] = {}
        self._requests: dict[int, tuple[Any, ...]] = {}
        self._durations: list[tuple[Any, ...]] = []
        self.hours = HourWriter(connection, head)

    def send(self, kind: str, at: float) -> int:
        """Record a request and return its number."""
        seq = self._add_request(at, kind, 0)
        self._unanswered[seq] = at, kind
        self.hours.sent(kind, at)
        return seq

    def assume_spent(self, at: float) -> None:
        """Make the next run begin as after a 429, by a row for a request that was never sent and counts in no hour."""
        self._add_request(at, "other", 429)

    def answered(self, seq: int, status: int) -> None:
        """Add the status of the answer, if the request is still recorded."""
        sent = self._unanswered.pop(seq, None)
        if sent is not None:
            at, kind = sent
            self._put_request(seq, at, kind, status)
            self.hours.answered(kind, at, status)

    def learn(self, finished_at: float, seconds: float) -> None:
        """Record how long an operation took."""
        head = self._head
        seq = head.last_duration + 1
        values = (seq, finished_at, seconds)
        self._durations.append((*values, digest_of(*values)))
        head.last_duration = seq
        head.durations += 1
        if seq % PRUNE_EVERY == 0 and head.durations > KEPT_DURATIONS:
            head.durations -= self._drop("DELETE FROM duration WHERE seq <= ?", seq - KEPT_DURATIONS)

    def flush(self) -> None:
        """Write the collected rows."""
        insert_rows(self._connection, "INSERT OR REPLACE INTO request", self._requests.values())
        insert_rows(self._connection, "INSERT INTO duration", self._durations)
        self._requests.clear()
        self._durations.clear()
        self.hours.flush()

    def _add_request(self, at: float, kind: str, status: int) -> int:
        """Add a request's row and return its number."""
        head = self._head
        seq = head.last_request + 1
        self._put_request(seq, at, kind, status)
        head.last_request = seq
        head.requests += 1
        if head.first_request_at is None:
            head.first_request_at = at
        if seq % PRUNE_EVERY == 0 and head.requests > KEPT_REQUESTS:
            last = seq - KEPT_REQUESTS
            head.requests -= self._drop("DELETE FROM request WHERE seq <= ?", last)
            head.first_request_at = 0.0
            self._unanswered = {number: sent for number, sent in self._unanswered.items() if number > last}
        return seq

    def _put_request(self, seq: int, at: float, kind: str, status: int) -> None:
        self._requests[seq] = (seq, at, kind, status, digest_of(seq, at, kind.encode(), status))

    def _drop(self, statement: str, last: int) -> int:
        """Delete the rows up to this number and return how many there were."""
        self.flush()
        return self._connection.execute(statement, (last,)).rowcount


def read_requests(connection: sqlite3.Connection, head: LedgerHead) -> list[SentRequest]:
    """Return all recorded requests, in the order they were sent.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    found = connection.execute("SELECT * FROM request ORDER BY seq")
    rows = complete_rows(found, "request", count=head.requests, last=head.last_request)
    return [SentRequest(at, kind.decode(), status) for _, at, kind, status in rows]


def read_durations(connection: sqlite3.Connection, head: LedgerHead) -> list[float]:
    """Return the durations of the recorded operations in seconds, in the order they finished.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    found = connection.execute("SELECT * FROM duration ORDER BY seq")
    return [row[2] for row in complete_rows(found, "duration", count=head.durations, last=head.last_duration)]


def complete_rows(rows: Iterable[tuple[Any, ...]], table: str, *, count: int, last: int) -> list[tuple[Any, ...]]:
    """Verify the rows of a table, which must be the `count` rows numbered up to `last`, and return them.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    return list(each_complete(rows, table, count=count, last=last))


def each_complete(rows: Iterable[tuple[Any, ...]], table: str, *, count: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Do the same as `complete_rows`, one row at a time; a missing row may only show at the end.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    expected = last - count + 1
    for row in rows:
        yield verified(row, f"{table} {row[0]}")
        if row[0] != expected:
            break
        expected += 1
    if expected != last + 1:
        raise LedgerCorruptError(f"the ledger is damaged: rows of the table {table} are missing")
