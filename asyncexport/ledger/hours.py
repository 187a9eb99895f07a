"""Counts the requests of each hour, by kind and status.

1. A request counts in the hour in which it was sent: with status 0 until its answer, then with the answer's status.
2. The head holds the number of rows and the sum of their requests, which reveal a missing row.
3. Rows are collected and written when the transaction ends.
"""

import sqlite3
from typing import Any, NamedTuple

from asyncexport.core.health.records import HourCount
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.bulk_insert import insert_rows
from asyncexport.ledger.rows import LedgerHead, digest_of, verified

HOUR = 3600

KNOWN_AT_MOST = 500
"""Rows that a run keeps in memory between commits."""


class HourKey(NamedTuple):
    """The key of a row: the hour, counted from 1970, the kind of request, and the status; 0 means no answer (yet)."""

    hour: int
    kind: str
    status: int


class HourWriter:
    """Counts requests within the open transaction and updates the head."""

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head
        self._known: dict[HourKey, int] = {}
        self._changed: dict[HourKey, int] = {}

    def sent(self, kind: str, at: float) -> None:
        """Count a request that was sent."""
        self._add(HourKey(int(at // HOUR), kind, 0), 1)

    def answered(self, kind: str, at: float, status: int) -> None:
        """Count the answer to a request that was sent at this time."""
        if status:
            self._add(HourKey(int(at // HOUR), kind, 0), -1)
            self._add(HourKey(int(at // HOUR), kind, status), 1)

    def drop_before(self, at: float) -> None:
        """Delete all hours that had ended by this time."""
        self.flush()
        self._known.clear()
        limit = int(at // HOUR)
        count, requests = self._connection.execute(
            "SELECT count(*), coalesce(sum(requests), 0) FROM hour WHERE hour < ?", (limit,)
        ).fetchone()
        self._connection.execute("DELETE FROM hour WHERE hour < ?", (limit,))
        self._head.hours -= count
        self._head.hour_requests -= requests

    def flush(self) -> None:
        """Write the collected rows."""
        rows = [_row(key, requests) for key, requests in self._changed.items()]
        insert_rows(self._connection, "INSERT OR REPLACE INTO hour", rows)
        if len(self._known) > KNOWN_AT_MOST:
            self._known.clear()
        self._known.update(self._changed)
        self._changed.clear()

    def _add(self, key: HourKey, requests: int) -> None:
        before = self._changed.get(key, self._known.get(key))
        if before is None:
            before = self._read(key)
        if before is None:
            self._head.hours += 1
        self._changed[key] = (before or 0) + requests
        self._head.hour_requests += requests

    def _read(self, key: HourKey) -> int | None:
        """Return the count of an earlier commit."""
        row = self._connection.execute("SELECT * FROM hour WHERE hour = ? AND kind = ? AND status = ?", key).fetchone()
        return None if row is None else int(verified(row, f"hour {row[0]}")[3])


def read_hours(connection: sqlite3.Connection, head: LedgerHead) -> list[HourCount]:
    """Return all hours in order, without rows whose requests all have another status by now.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        return []
    rows = [
        verified(row, f"hour {row[0]}") for row in connection.execute("SELECT * FROM hour ORDER BY hour, kind, status")
    ]
    if (len(rows), sum(row[3] for row in rows)) != (head.hours, head.hour_requests):
        raise LedgerCorruptError("the ledger is damaged: the rows of its hours do not match their sums")
    return [
        HourCount(hour * HOUR, kind.decode(), status, requests) for hour, kind, status, requests in rows if requests
    ]


def _row(key: HourKey, requests: int) -> tuple[Any, ...]:
    return (*key, requests, digest_of(key.hour, key.kind.encode(), key.status, requests))
