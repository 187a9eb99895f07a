"""The log of runs: when each began and ended, how it ended, and what it did.

1. A run's row is written when it begins, and again when it ends. A run that was killed has no end.
2. Rows are numbered and counted in the head, which reveals a missing row. They are kept for 400 days; older ones are
   deleted at the end of a run that knows the service's time.
3. Version 1 of the ledger only recorded how the newest run ended, in a note.
"""

import socket
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from asyncexport.ledger.journal import complete_rows
from asyncexport.ledger.rows import LedgerHead, digest_of

KEPT_SECONDS = 400 * 86_400
"""How long the rows of runs and hours are kept: a year and some weeks."""

LAST_RUN = "last_run"
"""The key of the note in which version 1 recorded the newest run."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        command: The command.
        began: When it began, in seconds since 1970.
        host: The name of the machine; "" if it is not known.
        ended: When it ended, in seconds since 1970; None if it is still running or was killed.
        exit_code: The exit code; None if it is still running or was killed.
        error: The error that ended it, in one line; "" if there was none.
        counts: The counts of its summary: `bundles`, `rows`, `bytes`, `requests`, `refused`; {} until it ends.
    """

    command: str
    began: float
    host: str = ""
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""
    counts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begun(cls, command: str, *, at: float) -> Self:
        """Make the record of a run that begins now, on this machine."""
        return cls(command, at, socket.gethostname())

    @classmethod
    def of_note(cls, text: str | None) -> Self | None:
        """Read the note of version 1; return None if there is none or it is invalid."""
        try:
            known = cls(**orjson.loads(text)) if text else None
            # Only accept what could be written as a row.
            return known if known and known.values(0) and isinstance(known.command, str) else None
        except (TypeError, ValueError):
            return None

    def values(self, seq: int) -> tuple[Any, ...]:
        """Return the row with this number."""
        counts = orjson.dumps(self.counts).decode()
        ended = None if self.ended is None else float(self.ended)
        values = (seq, float(self.began), ended, self.command, self.host, self.exit_code, self.error, counts)
        digest = digest_of(*(value.encode() if isinstance(value, str) else value for value in values))
        return (*values, digest)


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
        values = run.values(self._head.last_run)
        self._connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def read_runs(connection: sqlite3.Connection, head: LedgerHead) -> list[RunRecord]:
    """Return all recorded runs, in the order they began.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        known = RunRecord.of_note(head.remarks.get(LAST_RUN))
        return [known] if known else []
    rows = complete_rows(
        connection.execute("SELECT * FROM run ORDER BY seq"), "run", count=head.runs, last=head.last_run
    )
    return [
        RunRecord(command.decode(), began, host.decode(), ended, exit_code, error.decode(), orjson.loads(counts))
        for _, began, ended, command, host, exit_code, error, counts in rows
    ]
