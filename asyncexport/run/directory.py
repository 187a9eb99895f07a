"""Detects an output directory that has lost its ledger.

1. A directory with archives but no ledger is never treated as new, because everything would be exported again. The same
   holds for a directory with remains of a ledger and definitions of exports, from which it can be rebuilt: operations
   that only the lost ledger knew would be created twice.
2. Every command that opens a ledger calls this check first.
"""

from pathlib import Path

from asyncexport.errors import LedgerError
from asyncexport.ledger import has_remains, present
from asyncexport.storage import has_archives, has_definitions


def check_ledger_not_lost(directory: Path) -> None:
    """Check that the directory has a ledger, or shows no sign that it ever had one.

    It reads the disk, so code with an event loop must call it in a thread.

    Raises:
        LedgerError: the ledger is lost, and `verify --rebuild` can make a new one.
        StorageError: the ledger's folder cannot be read.
    """
    if present(directory):
        return
    if has_archives(directory):
        raise _ledger_lost(directory, found="archives")
    if has_remains(directory) and has_definitions(directory):
        raise _ledger_lost(directory, found="remains of a ledger")


def _ledger_lost(directory: Path, *, found: str) -> LedgerError:
    """Return the error, which reports what was found that proves that there was a ledger."""
    return LedgerError(
        f"{directory} contains {found} but no ledger",
        hint="run `asyncexport verify --rebuild`, which makes a new ledger from the archives",
    )
