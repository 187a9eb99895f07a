"""Requests of commands that are not runs, such as `segments`.

1. They respect the budget left by earlier runs, which is read from the ledger if there is one.
2. They are recorded in the ledger when the command ends, so that the next run and the counts per hour know of them. For
   a moment, the command then holds the lock of the directory. If a run holds it, they are not recorded. A directory
   without a ledger gets none, and a damaged ledger or one of an earlier version is left as it is.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncexport.client.clock import ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bucket import RequestHistory, SentRequest
from asyncexport.errors import ExportError
from asyncexport.ledger import Ledger, LedgerReader, hold, present
from asyncexport.run.wiring import make_api_client, make_budget

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient

logger = logging.getLogger(__name__)


@asynccontextmanager
async def client_outside_runs(
    settings: Settings, key: ApiKey, *, command: str, sent: Callable[[str], None], clock: ServiceClock | None = None
) -> "AsyncIterator[ApiClient]":
    """Open a client with a budget, for a command that is not a run.

    Args:
        settings: The settings.
        key: The API key.
        command: The command, for the error message of a run that starts at the same moment.
        sent: Called with the kind of each request.
        clock: Gets the dates of the answers. None: a new one.
    """
    clock = clock or ServiceClock()
    journal = _Journal(sent)
    budget = make_budget(settings, journal, clock.now)
    await budget.open(_history(settings, now=clock.now()))
    try:
        async with make_api_client(settings, key, budget, clock) as client:
            yield client
    finally:
        await budget.close()
        await _record(settings.output.directory, journal.requests, command=command)


def _history(settings: Settings, *, now: float) -> RequestHistory:
    directory = settings.output.directory
    if not present(directory):
        return RequestHistory()
    with LedgerReader(directory) as ledger:
        return ledger.request_history(now=now)


async def _record(directory: Path, requests: list[SentRequest], *, command: str) -> None:
    """Record requests in the ledger (rule 2)."""
    if not requests or not present(directory):
        return
    try:
        with LedgerReader(directory) as reader:
            if not reader.is_current():
                return
        with hold(directory, command=command):
            ledger = await Ledger.open(directory)
            try:
                await ledger.check_if_small()
                # All of them are put into one commit.
                numbers = await asyncio.gather(*(ledger.send(one.kind, at=one.at) for one in requests))
                for number, one in zip(numbers, requests, strict=True):
                    ledger.answered(number, status=one.status)
            finally:
                await ledger.close()
    except ExportError as error:
        logger.info("the ledger does not count the requests of this command: %s", error)


@dataclass(frozen=True, slots=True)
class _Journal:
    """Collects requests, and calls `sent` with the kind of each.

    Attributes:
        requests: The requests so far; the number of a request is its place.
    """

    sent: Callable[[str], None]
    requests: list[SentRequest] = field(default_factory=list)

    async def send(self, kind: str, *, at: float) -> int:
        self.sent(kind)
        self.requests.append(SentRequest(at, kind, 0))
        return len(self.requests) - 1

    def answered(self, request_id: int, *, status: int) -> None:
        """Add the status of an answer."""
        one = self.requests[request_id]
        self.requests[request_id] = SentRequest(one.at, one.kind, status)

    def remember(self, key: str, value: str) -> None:
        """Record nothing: only a run may learn which requests the limit counts."""
