"""Takes the lock of an output directory, and waits until it is free if that is wanted.

1. Unlike a nightly run that joins another one (`run.joining`), a waiting command needs the lock in any case: it only
   waits, for as long as it takes.
2. Any number of commands may wait. They try the lock less often than a joining run does, so that run usually
   goes first.
3. Nothing has been done yet, so the wait can be ended at any moment.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from asyncexport.core.events import Joining
from asyncexport.core.join_progress import JoinedRun
from asyncexport.errors import LedgerLockedError
from asyncexport.ledger import hold, holder

CHECK_SECONDS = 5.0
"""Seconds between two attempts to take the lock."""

REPORT_SECONDS = 60.0
"""Seconds between two reports that the command still waits."""


@dataclass(frozen=True, slots=True)
class LockWait:
    """How a command waits for the lock.

    Attributes:
        on_wait: Called when the wait begins, once a minute, and when another run has taken the lock.
        check_seconds: Seconds between two attempts to take the lock.
    """

    on_wait: Callable[[Joining], object]
    check_seconds: float = CHECK_SECONDS


async def hold_or_wait(
    stack: ExitStack,
    directory: Path,
    *,
    command: str,
    directory_mode: int = 0o777,
    wait: LockWait | None = None,
    stopped: asyncio.Event | None = None,
) -> tuple[str, ...] | None:
    """Take the lock; the stack releases it. Return the warnings about the file system, or None if the wait was stopped.

    Args:
        stack: The stack.
        directory: The output directory.
        command: The running command, for the error message of other runs.
        directory_mode: The mode, before the umask, of a directory that is created.
        wait: How to wait. None: do not wait.
        stopped: Ends the wait when it is set.

    Raises:
        LedgerLockedError: another process holds the lock, and `wait` is None.
        StorageError: see `hold`.
    """
    stopped = stopped or asyncio.Event()
    time = asyncio.get_running_loop().time
    began, reported_at, joined = time(), -REPORT_SECONDS, None
    while True:
        try:
            return stack.enter_context(hold(directory, command=command, directory_mode=directory_mode))
        except LedgerLockedError:
            if wait is None:
                raise
        found, waited = await find_joined(directory) or joined, time() - began
        if found != joined or waited >= reported_at + REPORT_SECONDS:
            joined, reported_at = found, waited
            wait.on_wait(Joining(joined, None, waited, has_share=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait.check_seconds):
                await stopped.wait()
        if stopped.is_set():
            return None


async def find_joined(directory: Path) -> JoinedRun | None:
    """Return the run that holds a directory; None if none seems to."""
    found = await asyncio.to_thread(holder, directory)
    return None if found is None else JoinedRun(found.command, found.pid, found.host, found.since)
