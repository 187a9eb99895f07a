"""What an output directory holds as a whole, archives and ledger seen together.

1. Archives without a ledger are never taken for a beginning: all of them would be exported once more. The same holds
   for what is left of a ledger, where the exports' definitions allow to rebuild it: operations that only the lost
   ledger knew would be created twice.
2. This is the one place that decides it. Every command that opens a ledger asks here first.
"""

from pathlib import Path

from asyncexport.errors import LedgerError
from asyncexport.ledger import has_remains, present
from asyncexport.storage import has_archives, has_definitions


def check_ledger_not_lost(directory: Path) -> None:
    """Make sure that the directory has a ledger, or shows no sign that there ever was one.

    It reads the disk: call it in a thread where an event loop runs.

    Raises:
        LedgerError: the ledger is gone, and `verify --rebuild` can make a new one from what lies there.
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
