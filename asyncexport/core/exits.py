"""How a command ends: the exit codes, what each means, and which error ends in which.

They are what users script against: a number never changes its meaning. Importing this is cheap: help shows them.
"""

from enum import IntEnum

from asyncexport.errors import (
    ConfigError,
    LedgerError,
    LedgerLockedError,
    RefusedError,
    ServiceError,
    StorageError,
    UnauthorizedError,
)


class Exit(IntEnum):
    """The exit codes; what each means is in `MEANINGS`."""

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
    Exit.DONE: "all that was asked for is done",
    Exit.UNEXPECTED: "an unexpected error: a bug of ours",
    Exit.USAGE: "usage or configuration, clocks days apart, or an export that the service refuses from the start",
    Exit.PARTIAL: "finished, but bundles are parked, unfinished or far smaller than before, or archives not sound",
    Exit.LOCKED: "another run holds the directory",
    Exit.UNREACHABLE: "the service was out of reach for `[retry] outage` or `first_contact`, and nothing was stored",
    Exit.KEY_REFUSED: "the API key is missing, or was refused",
    Exit.LEDGER: "the ledger does not fit, is damaged or gone, or knows nothing of archives that are there",
    Exit.DISK: "the disk is full, not writable or gone, or gives out no locks",
    Exit.TIME_UP: "stopped by `--max-duration`: work is left, nothing failed",
    Exit.INTERRUPTED: "stopped by SIGINT, state saved",
    Exit.TERMINATED: "stopped by SIGTERM or SIGHUP, state saved",
}
"""As the README and each command's help have it."""


def exit_of(error: BaseException, *, stored: int = 0) -> Exit:
    """The code for an error that ended a run in which `stored` bundles were stored."""
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
            # Out of reach, or behind a proxy or a certificate that is in the way.
            return Exit.PARTIAL if stored else Exit.UNREACHABLE
        case LedgerLockedError():
            return Exit.LOCKED
        case LedgerError():
            return Exit.LEDGER
        case StorageError():
            return Exit.DISK
        case _:
            return Exit.UNEXPECTED
