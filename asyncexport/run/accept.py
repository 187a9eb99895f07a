"""Accepts parked bundles and shortfalls as missing for good (`accept`).

1. Runs and the health check no longer count them as problems; `status` lists them with the reason.
2. Nightly runs and backfills do not retry an accepted bundle. `retry` with a range does.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.health.acceptance import Acceptance, acceptance
from asyncexport.core.health.problems import not_accepted
from asyncexport.ledger import AcceptedGap, Ledger, LedgerQueries, no_ledger, present
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.lock_wait import LockWait, hold_or_wait
from asyncexport.run.sentinel import open_shortfalls, read_memory


async def accept(
    directory: Path,
    export: str,
    span: Range,
    *,
    reason: str,
    at: float,
    warn: Callable[[str], None],
    wait: LockWait | None = None,
) -> Acceptance:
    """Accept what is parked or short in a range of an export; nothing is written if there is nothing to accept.

    Args:
        directory: The output directory.
        export: The name of the export, which the ledger must know.
        span: The range.
        reason: Why, in the user's words.
        at: The present time, in seconds since 1970.
        warn: Called with each warning about the file system.
        wait: How to wait for the end of another run that holds the directory. None: do not wait.

    Raises:
        LedgerLockedError: another run holds the directory, and `wait` is None.
        LedgerError: the ledger is missing or damaged.
        StorageError: it cannot be written.
    """
    await asyncio.to_thread(check_ledger_not_lost, directory)
    if not present(directory):
        raise no_ledger(directory)
    with ExitStack() as stack:
        for warning in await hold_or_wait(stack, directory, command="accept", wait=wait) or ():
            warn(warning)
        await asyncio.to_thread(check_ledger_not_lost, directory)
        ledger = await Ledger.open(directory)
        try:
            await ledger.check_if_small()
            found = await ledger.query(lambda queries: _acceptance(queries, export, span))
            for one in found.spans:
                await ledger.accept(AcceptedGap(Bundle(export, one), reason, at))
        finally:
            await ledger.close()
    return found


def _acceptance(queries: LedgerQueries, export: str, span: Range) -> Acceptance:
    gaps = [one for one in queries.accepted() if one.bundle.export == export]
    parked = not_accepted([one for one in queries.unfinished(export, span) if one.parked], gaps)
    shortfalls = open_shortfalls(read_memory(queries), gaps, export)
    return acceptance(
        span,
        parked=[one.bundle.range for one in parked],
        shortfalls=[one.bundle.range for one in shortfalls],
    )
