"""The exit codes: what each one means, and which error leads to which code.

Users write scripts against them, so a code never changes its meaning. Importing this module is cheap because help needs
the meanings.
"""

from enum import IntEnum

from asyncexport.errors import (
    ChangedArchiveError,
    ConfigError,
    DayCountError,
    DayError,
    LedgerError,
    LedgerLockedError,
    MirrorError,
    OverlapError,
    RefusedError,
    ServiceError,
    SinkError,
    StorageError,
    UnauthorizedError,
)


class Exit(IntEnum):
    """The exit codes; `MEANINGS` explains each."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    PARTIAL = 3
    LOCKED = 4
    UNREACHABLE = 5
    KEY_REFUSED = 6
    LEDGER = 7
    DISK = 8
    TIME_UP = 9
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "everything that was asked for is done",
    Exit.UNEXPECTED: "an unexpected error: a bug in asyncexport",
    Exit.USAGE: "wrong usage or configuration, clocks more than a day apart, or an export that the service refuses "
    "from the start",
    Exit.PARTIAL: "not all is well: bundles are parked, unfinished or late, new exports have far fewer rows, archives "
    "are not intact, days could not be loaded or have lines that are no rows, files are not in the mirror, "
    "or rows are missing and `[sentinel] fail` is set",
    Exit.LOCKED: "another run holds the lock of the output directory, or another load that of the load directory",
    Exit.UNREACHABLE: "the service was unreachable for `[retry] outage` or `first_contact`, and nothing was stored",
    Exit.KEY_REFUSED: "the API key is missing or was refused",
    Exit.LEDGER: "the ledger is damaged, missing although archives exist, incomplete, or belongs to another export "
    "definition or organisation; or archives to be loaded are not what the ledger says, or overlap",
    Exit.DISK: "the disk is full, not writable or missing, or does not support file locks",
    Exit.TIME_UP: "work is left and nothing failed: stopped by `--max-duration`, the end is not settled yet "
    "(`--require-end`), or an audit found nothing to compare",
    Exit.INTERRUPTED: "stopped by SIGINT (Ctrl-C); the state is saved",
    Exit.TERMINATED: "stopped by SIGTERM or SIGHUP; the state is saved",
}
"""The texts that the README and the help of each command show."""


def exit_of(error: BaseException, *, stored: int = 0) -> Exit:
    """Return the code for an error that ended a run after `stored` bundles were stored."""
    match error:
        case ConfigError():
            return Exit.USAGE
        case UnauthorizedError():
            return Exit.KEY_REFUSED
        case RefusedError(status=403):
            return Exit.KEY_REFUSED
        case RefusedError():
            return Exit.USAGE
        case ServiceError():
            # Unreachable, or blocked by a proxy or a certificate.
            return Exit.PARTIAL if stored else Exit.UNREACHABLE
        case LedgerLockedError():
            return Exit.LOCKED
        case LedgerError() | ChangedArchiveError() | DayCountError() | OverlapError():
            return Exit.LEDGER
        case DayError() | SinkError() | MirrorError():
            return Exit.PARTIAL
        case StorageError():
            return Exit.DISK
        case _:
            return Exit.UNEXPECTED
