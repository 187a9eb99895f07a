"""Takes the lock of an output directory, and waits until it is free if that is wanted."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from asyncexport.errors import LedgerLockedError
from asyncexport.ledger import hold

CHECK_SECONDS = 1.0
"""How often a waiting command tries to take the lock."""


async def hold_or_wait(
    stack: ExitStack,
    directory: Path,
    *,
    command: str,
    on_wait: Callable[[str], None] | None,
    check_seconds: float = CHECK_SECONDS,
) -> tuple[str, ...]:
    """Take the lock; the stack releases it. Return the warnings about the file system.

    Args:
        stack: The stack.
        directory: The output directory.
        command: The running command, for the error message of other runs.
        on_wait: Called once, with what holds the lock, before the wait. None: do not wait.
        check_seconds: How often to try.

    Raises:
        LedgerLockedError: another process holds the lock, and `on_wait` is None.
        StorageError: see `hold`.
    """
    is_waiting = False
    while True:
        try:
            return stack.enter_context(hold(directory, command=command))
        except LedgerLockedError as error:
            if on_wait is None:
                raise
            if not is_waiting:
                on_wait(str(error))
            is_waiting = True
        await asyncio.sleep(check_seconds)
