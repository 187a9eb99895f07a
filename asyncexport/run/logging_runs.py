"""The log of runs in the ledger: that a run began, and how it ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from asyncexport.client.clock import ServiceClock
from asyncexport.core.exits import Exit
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ExportError
from asyncexport.ledger import Ledger, begun_run, discard_copy
from asyncexport.run.counters import RunCounters
from asyncexport.run.spec import RunSpec

COUNTS = ("bundles", "refreshed", "rows", "bytes", "requests", "refused", "possible_duplicates")
"""What of a summary is kept."""


@asynccontextmanager
async def logged(
    spec: RunSpec, counters: RunCounters, stop: Stop, *, directory: Path, ledger: Ledger, clock: ServiceClock
) -> AsyncIterator[None]:
    """Log that a run begins, and how it ends; one that is killed is on record as begun.

    The first run that ends well removes the copy of a ledger that was migrated.

    Args:
        spec: The run.
        counters: What it knows of itself.
        stop: How it was asked to end.
        directory: The output directory.
        ledger: Its ledger.
        clock: What time it is at the service. Old rows are dropped only if the service has told it.
    """
    begun = begun_run(spec.command, at=clock.now())

    def log_end(failure: Exception | None) -> None:
        code, cause = counters.exit_code(failure, stop), counters.cause(failure)
        # The text of a bug may hold anything.
        error = "" if cause is None else str(cause) if isinstance(cause, ExportError) else type(cause).__name__
        known = counters.summary(spec, directory="", error=None, stop=stop).to_dict()
        counts = {name: known[name] for name in COUNTS}
        ended = replace(begun, ended=clock.now(), exit_code=int(code), error=error, counts=counts)
        ledger.end_run(ended, drops_old=clock.is_known)

    ledger.begin_run(begun)
    try:
        yield
    except Exception as error:
        log_end(error)
        raise
    log_end(None)
    if counters.exit_code(None, stop) is Exit.DONE:
        # It is in nobody's way: a copy that cannot be removed now is removed by the next run.
        with suppress(OSError):
            await asyncio.to_thread(discard_copy, directory)
