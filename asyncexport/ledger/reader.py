"""Reads the ledger of a directory for commands that change nothing; a run may be going on."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from asyncexport.core.exports import Export
from asyncexport.errors import LedgerError
from asyncexport.ledger.definitions import check_definitions
from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import BUSY_SECONDS, ledger_path, opened_to_read, present
from asyncexport.ledger.queries import LedgerQueries


class LedgerReader(LedgerQueries):
    """Reads a ledger without changing it, even while a run writes to it; a context manager.

    Args:
        directory: The output directory.
        busy_seconds: Seconds to wait for another program that has the ledger locked.

    Raises:
        LedgerError: there is no ledger, it is of a newer version, or in use.
        LedgerCorruptError: the ledger is damaged.
        StorageError: it cannot be read.
    """

    def __init__(self, directory: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        path = ledger_path(directory)
        if not present(directory):
            raise no_ledger(directory)
        self._stack = ExitStack()
        with translated(path):
            connection = self._stack.enter_context(opened_to_read(path, busy_seconds=busy_seconds))
        super().__init__(connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_definitions(self, exports: Sequence[Export]) -> None:
        """Make sure that a run with these exports would not be refused because of their definitions.

        Raises:
            LedgerError: an export is recorded with another definition and has data, here or at the service.
        """
        with self._snapshot() as head:
            check_definitions(self._connection, head.exports, exports)

    def close(self) -> None:
        """Close the ledger."""
        self._stack.close()


def no_ledger(directory: Path) -> LedgerError:
    """Return the error for a directory that has neither a ledger nor an archive."""
    return LedgerError(f"{directory} has no ledger", hint="check [output] directory; `backfill` creates a ledger")
