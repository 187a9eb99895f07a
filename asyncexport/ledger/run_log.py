"""Which runs there were: when each began and ended, how, and what it did.

1. The row of a run is written when it begins, and again when it ends: one that was killed has no end.
2. Rows are numbered, and the head counts them: one that went missing shows. Those of 400 days are kept; older ones are
   dropped at the end of a run that the service has told the time.
3. The ledger's version 1 remembered only how the newest run ended, in a remark.
"""

import socket
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from asyncexport.ledger.journal import complete_rows
from asyncexport.ledger.rows import LedgerHead, digest_of

KEPT_SECONDS = 400 * 86_400
"""How long the rows of runs and hours are kept: a year, and what it takes to look back at it."""

LAST_RUN = "last_run"
"""The key of the remark in which version 1 remembered the newest run."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        command: Which.
        began: When, in seconds since 1970.
        host: The machine's name; "" where that is not known.
        ended: When, in seconds since 1970; None where it did not get that far, or has not yet.
        exit_code: How it ended; None likewise.
        error: Why, in a line; "" where no error ended it.
        counts: What it did, as its summary has it: `bundles`, `rows`, `bytes`, `requests`, `refused`; {} until its end.
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
        """A run that begins now, on this machine."""
        return cls(command, at, socket.gethostname())

    @classmethod
    def of_remark(cls, text: str | None) -> Self | None:
        """What version 1 remembered; None where there is nothing, or nothing that can be read."""
        try:
            known = cls(**orjson.loads(text)) if text else None
            # It is as a row would have it, or it is no run.
            return known if known and known.values(0) and isinstance(known.command, str) else None
        except (TypeError, ValueError):
            return None

    def values(self, seq: int) -> tuple[Any, ...]:
        """As the row with this number."""
        counts = orjson.dumps(self.counts).decode()
        ended = None if self.ended is None else float(self.ended)
        values = (seq, float(self.began), ended, self.command, self.host, self.exit_code, self.error, counts)
        digest = digest_of(*(value.encode() if isinstance(value, str) else value for value in values))
        return (*values, digest)


class RunLogWriter:
    """Adds to the log of runs within the transaction that is open, and keeps the head's counts in step."""

    def __init__(self, connection: sqlite3.Connection, head: LedgerHead) -> None:
        self._connection = connection
        self._head = head

    def begin(self, run: RunRecord) -> None:
        """A run has begun: the newest one."""
        self._head.last_run += 1
        self._head.runs += 1
        self._put(run)

    def end(self, run: RunRecord) -> None:
        """The newest run has ended."""
        self._put(run)

    def drop_before(self, moment: float) -> None:
        """Drop all runs before the first that began at this moment or later; at least the newest stays."""
        (first,) = self._connection.execute("SELECT min(seq) FROM run WHERE began >= ?", (moment,)).fetchone()
        last_dropped = (self._head.last_run if first is None else first) - 1
        self._head.runs -= self._connection.execute("DELETE FROM run WHERE seq <= ?", (last_dropped,)).rowcount

    def _put(self, run: RunRecord) -> None:
        values = run.values(self._head.last_run)
        self._connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def read_runs(connection: sqlite3.Connection, head: LedgerHead) -> list[RunRecord]:
    """All runs on record, in the order they began.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    if head.version < 2:
        known = RunRecord.of_remark(head.remarks.get(LAST_RUN))
        return [known] if known else []
    rows = complete_rows(
        connection.execute("SELECT * FROM run ORDER BY seq"), "run", count=head.runs, last=head.last_run
    )
    return [
        RunRecord(command.decode(), began, host.decode(), ended, exit_code, error.decode(), orjson.loads(counts))
        for _, began, ended, command, host, exit_code, error, counts in rows
    ]
