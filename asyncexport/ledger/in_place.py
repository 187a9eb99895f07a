"""Is the ledger that a run has open still the one that lies there, and does nobody else write to it?

1. SQLite goes on writing to a file that somebody removed or replaced, and says nothing. What is committed there is
   lost.
2. Where locks do nothing, or the folder of the lock was removed, two runs may have one ledger open. Each keeps the head
   in memory, and would write over what the other counted.

Both are looked at before each commit: it costs two looks at the disk's cache, and no flush.
"""

import os
import sqlite3
from pathlib import Path

from asyncexport.core.file_faults import directory_gone
from asyncexport.errors import LedgerError, LedgerLockedError, StorageError


class LedgerInPlace:
    """Remembers which file was opened, and what its head was last.

    Args:
        connection: To the ledger.
        path: Where it lies.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._file = _identity(path)
        self._head = self._read_head()

    def check(self) -> None:
        """Look, within a transaction that has begun to write.

        Raises:
            StorageError: the output directory is gone.
            LedgerError: the ledger is gone, or is another one.
            LedgerLockedError: another run has written to it.
        """
        try:
            found = _identity(self._path)
        except FileNotFoundError:
            raise self._gone() from None
        if found != self._file:
            raise LedgerError(
                f"the ledger {self._path} was replaced by another while a run had it open",
                hint="see to it that nobody replaces it during a run, then run the same command again: it goes on from "
                "what lies there now",
            )
        if self._read_head() != self._head:
            raise LedgerLockedError(
                f"another run writes to {self._path} at the same time",
                hint="see to it that only one run uses a directory, then run the same command again",
            )

    def written(self, digest: int) -> None:
        """Remember the checksum of the head as this transaction leaves it."""
        self._head = digest

    def _read_head(self) -> int:
        (digest,) = self._connection.execute("SELECT digest FROM head").fetchone()
        return int(digest)

    def _gone(self) -> LedgerError | StorageError:
        directory = self._path.parent.parent
        if not directory.exists():
            fault = directory_gone(str(directory))
            return StorageError(fault.message, hint=fault.hint)
        return LedgerError(
            f"the ledger {self._path} went away while a run had it open",
            hint="bring it back from where it went, or run `asyncexport verify --rebuild`: it makes the ledger anew "
            "from the archives",
        )


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - before each commit
    return found.st_dev, found.st_ino
