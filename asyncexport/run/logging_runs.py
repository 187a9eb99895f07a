"""Records in the ledger's log of runs that a run started, and how it ended."""

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

COUNTS = ("bundles", "refreshed", "audited", "rows", "bytes", "requests", "refused", "possible_duplicates")
"""The keys of the summary that are recorded."""


@asynccontextmanager
async def logged(
    spec: RunSpec, counters: RunCounters, stop: Stop, *, directory: Path, ledger: Ledger, clock: ServiceClock
) -> AsyncIterator[None]:
    """Record that a run starts, and how it ends; a run that is killed stays recorded as started.

    The first run that ends with 0 removes the backup copy of a migrated ledger.

    Args:
        spec: The run.
        counters: The counters of the run.
        stop: How the run was asked to stop.
        directory: The output directory.
        ledger: The ledger of the directory.
        clock: The service's clock. Old rows are deleted only if the service has told its time.
    """
    begun = begun_run(spec.command, at=clock.now())

    def log_end(failure: Exception | None) -> None:
        code, cause = counters.exit_code(failure, stop), counters.cause(failure)
        # The text of an unexpected exception may contain secrets.
        error = "" if cause is None else str(cause) if isinstance(cause, ExportError) else type(cause).__name__
        known = counters.summary(spec, directory="", error=None, stop=stop).to_dict()
        counts = {name: known[name] for name in COUNTS if name in known}
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
        # The copy does no harm: if it cannot be removed now, the next run removes it.
        with suppress(OSError):
            await asyncio.to_thread(discard_copy, directory)
