"""Reading the ledger of a directory from outside: by commands that change nothing, while a run goes on or not."""

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
    """Reads a ledger and changes nothing in it, while a run goes on or not; a context manager.

    Args:
        directory: The output directory.
        busy_seconds: How long to wait for another program.

    Raises:
        LedgerError: there is none, it is from a newer version, or in use.
        LedgerCorruptError: it is damaged.
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
        """Make sure that a run with these exports would not be refused for their definitions.

        Raises:
            LedgerError: one is known by another definition, and there is data of it, here or at the service.
        """
        with self._moment() as head:
            check_definitions(self._connection, head.exports, exports)

    def close(self) -> None:
        """Close the ledger."""
        self._stack.close()


def no_ledger(directory: Path) -> LedgerError:
    """The error for a directory that has neither a ledger nor an archive."""
    return LedgerError(f"{directory} has no ledger", hint="check [output] directory; `backfill` makes a ledger")
