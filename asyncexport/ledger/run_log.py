"""The log of runs: when each began and ended, how it ended, and what it did.

1. A run's row is written when it begins, and again when it ends. A run that was killed has no end.
2. Rows are numbered and counted in the head, which reveals a missing row. They are kept for 400 days; older ones are
   deleted at the end of a run that knows the service's time.
3. Version 1 of the ledger only recorded how the newest run ended, in a note.
"""

import socket
import sqlite3
from typing import Any

import orjson

from asyncexport.core.health.records import RunRecord
from asyncexport.ledger.journal import complete_rows
from asyncexport.ledger.rows import LedgerHead, digest_of

KEPT_SECONDS = 400 * 86_400
"""How long the rows of runs and hours are kept: a year and some weeks."""

LAST_RUN = "last_run"
"""The key of the note in which version 1 recorded the newest run."""


def begun_run(command: str, *, at: float) -> RunRecord:
    """Return the record of a run that begins now, on this machine."""
    return RunRecord(command, at, socket.gethostname())


def run_of_note(text: str | None) -> RunRecord | None:
    """Read the note of version 1; return None if there is none or it is invalid."""
    try:
        known = RunRecord(**orjson.loads(text)) if text else None
        # Only accept what could be written as a row.
        return known if known and _row(known, 0) and isinstance(known.command, str) else None
    except (TypeError, ValueError):
        return None


class RunLogWriter:
    """Adds to the log of runs within the open transaction and updates the counts in the head."""

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head

    def begin(self, run: RunRecord) -> None:
        """Record that a run has begun; it is the newest one."""
        self._head.last_run += 1
        self._head.runs += 1
        self._put(run)

    def end(self, run: RunRecord) -> None:
        """Record that the newest run has ended."""
        self._put(run)

    def drop_before(self, at: float) -> None:
        """Delete all runs before the first that began at this time or later; the newest run is never deleted."""
        (first,) = self._connection.execute("SELECT min(seq) FROM run WHERE began >= ?", (at,)).fetchone()
        last_deleted = (self._head.last_run if first is None else first) - 1
        self._head.runs -= self._connection.execute("DELETE FROM run WHERE seq <= ?", (last_deleted,)).rowcount

    def _put(self, run: RunRecord) -> None:
        values = _row(run, self._head.last_run)
        self._connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def read_runs(connection: sqlite3.Connection, head: LedgerHead) -> list[RunRecord]:
    """Return all recorded runs, in the order they began.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        known = run_of_note(head.remarks.get(LAST_RUN))
        return [known] if known else []
    rows = complete_rows(
        connection.execute("SELECT * FROM run ORDER BY seq"), "run", count=head.runs, last=head.last_run
    )
    return [
        RunRecord(command.decode(), began, host.decode(), ended, exit_code, error.decode(), orjson.loads(counts))
        for _, began, ended, command, host, exit_code, error, counts in rows
    ]


def _row(run: RunRecord, seq: int) -> tuple[Any, ...]:
    """Return the row of a run with this number."""
    counts = orjson.dumps(run.counts).decode()
    ended = None if run.ended is None else float(run.ended)
    values = (seq, float(run.began), ended, run.command, run.host, run.exit_code, run.error, counts)
    digest = digest_of(*(value.encode() if isinstance(value, str) else value for value in values))
    return (*values, digest)
