"""What an output directory holds as a whole, archives and ledger seen together."""

from pathlib import Path

from asyncexport.ledger import has_remains, present
from asyncexport.storage import Archives, ledger_lost


def check_ledger_not_lost(directory: Path) -> None:
    """Make sure that the directory has a ledger, or shows no sign that there ever was one.

    What remains of a ledger counts only beside an export's definition: without that it could not be made anew.

    It reads the disk: call it in a thread where an event loop runs.

    Raises:
        LedgerError: the ledger is gone, and `verify --rebuild` can make a new one from what lies there.
        StorageError: the ledger's folder cannot be read.
    """
    if present(directory):
        return
    archives = Archives(directory)
    if archives.existing():
        raise ledger_lost(directory)
    if has_remains(directory) and archives.defined():
        raise ledger_lost(directory, beside="remains of a ledger")
