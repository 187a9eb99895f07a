"""The journal: which requests were sent, and how long operations took. The next run's budget and poller start from it.

1. A row is numbered, and the head counts the rows: one that went missing shows.
2. Only the newest rows are kept. Older ones are dropped many at a time.
3. Rows are gathered, and written when the transaction ends or rows are to be dropped.
4. Beside its row, each request counts in its hour (`hours`), which is kept for longer.
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
"""Three days at 2 requests a minute; the level of the token bucket follows from the last two days at most."""

KEPT_DURATIONS = 1_000
"""More than the poller looks back."""

PRUNE_EVERY = 500
"""Rows are dropped so many at a time."""


class JournalWriter:
    """Adds to the journal within the transaction that is open, and keeps the head's counts in step.

    Attributes:
        hours: Counts requests by hour.
    """

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head
        self._unanswered: dict[int, tuple[float, str]] = {}
        self._requests: dict[int, tuple[Any, ...]] = {}
        self._durations: list[tuple[Any, ...]] = []
        self.hours = HourWriter(connection, head)

    def send(self, kind: str, at: float) -> int:
        """Record a request; its number."""
        seq = self._add_request(at, kind, 0)
        self._unanswered[seq] = at, kind
        self.hours.sent(kind, at)
        return seq

    def assume_spent(self, at: float) -> None:
        """Have the next run begin as after a 429: a row of a request that was never sent, and counts in no hour."""
        self._add_request(at, "other", 429)

    def answered(self, seq: int, status: int) -> None:
        """Add the status that came back, if the request is still on record."""
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

    def write_gathered(self) -> None:
        """Write the rows that were gathered."""
        insert_rows(self._connection, "INSERT OR REPLACE INTO request", self._requests.values())
        insert_rows(self._connection, "INSERT INTO duration", self._durations)
        self._requests.clear()
        self._durations.clear()
        self.hours.write_gathered()

    def _add_request(self, at: float, kind: str, status: int) -> int:
        """A new row; its number."""
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
        """Drop the rows up to this number; how many there were."""
        self.write_gathered()
        return self._connection.execute(statement, (last,)).rowcount


def read_requests(connection: sqlite3.Connection, head: LedgerHead) -> list[SentRequest]:
    """All requests on record, in the order they were sent.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    found = connection.execute("SELECT * FROM request ORDER BY seq")
    rows = complete_rows(found, "request", count=head.requests, last=head.last_request)
    return [SentRequest(moment, kind.decode(), status) for _, moment, kind, status in rows]


def read_durations(connection: sqlite3.Connection, head: LedgerHead) -> list[float]:
    """What the operations on record took, in seconds, in the order they finished.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    found = connection.execute("SELECT * FROM duration ORDER BY seq")
    return [row[2] for row in complete_rows(found, "duration", count=head.durations, last=head.last_duration)]


def complete_rows(rows: Iterable[tuple[Any, ...]], table: str, *, count: int, last: int) -> list[tuple[Any, ...]]:
    """The rows of a table, each verified, once it is known that their numbers are the `count` up to `last`.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    return list(each_complete(rows, table, count=count, last=last))


def each_complete(rows: Iterable[tuple[Any, ...]], table: str, *, count: int, last: int) -> Iterator[tuple[Any, ...]]:
    """The same, one by one; that rows are missing may be known only at the end.

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
        raise LedgerCorruptError(f"the ledger is damaged: rows of {table} are missing")
