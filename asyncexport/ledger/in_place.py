"""Checks that the open ledger is still the file at its path, and that no other run writes to it.

1. SQLite does not notice if its file is removed or replaced, and keeps writing to the old one. Those commits are lost.
2. If locks do not work, or the folder of the lock was removed, two runs may have the same ledger open. Each keeps the
   head in memory and would overwrite the other's counts.

Both are checked before each commit, which costs two cached reads and no flush.
"""

import os
import sqlite3
from pathlib import Path

from asyncexport.core.file_faults import directory_gone
from asyncexport.errors import LedgerError, LedgerLockedError, StorageError


class LedgerInPlace:
    """Remembers which file was opened, and the checksum of its head.

    Args:
        connection: The connection to the ledger.
        path: The path of the ledger.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._file = _identity(path)
        self._head = self._read_head()

    def check(self) -> None:
        """Check the ledger, within a transaction that has begun to write.

        Raises:
            StorageError: the output directory is gone.
            LedgerError: the ledger is gone or was replaced.
            LedgerLockedError: another run has written to it.
        """
        try:
            found = _identity(self._path)
        except FileNotFoundError:
            raise self._gone() from None
        if found != self._file:
            raise LedgerError(
                f"the ledger {self._path} was replaced by another file during a run",
                hint="do not replace it during a run; run the same command again to continue with the ledger that is "
                "there now",
            )
        if self._read_head() != self._head:
            raise LedgerLockedError(
                f"another run writes to {self._path} at the same time",
                hint="make sure that only one run uses a directory, then run the same command again",
            )

    def written(self, digest: int) -> None:
        """Store the checksum that the head has after this transaction."""
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
            f"the ledger {self._path} was removed during a run",
            hint="move it back, or run `asyncexport verify --rebuild`: it makes a new ledger from the archives",
        )


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - faster, and done before each commit
    return found.st_dev, found.st_ino
