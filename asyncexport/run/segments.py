"""Lists the segments of the account, the possible values of `[[export]] segment`.

The requests respect the budget left by earlier runs, which is read from the ledger if there is one. They are not
recorded, because this is not a run.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncexport.client.clock import ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.bucket import RequestHistory
from asyncexport.core.service.resources import Segment
from asyncexport.ledger import LedgerReader, present
from asyncexport.run.wiring import make_api_client, make_budget

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient


async def segments(settings: Settings, *, key: ApiKey, sent: Callable[[str], None]) -> AsyncIterator[Segment]:
    """Yield the segments of the account as they are read; `sent` is called with the kind of each request.

    Raises:
        ServiceError: the service refused a request or could not be reached.
    """
    async with _unrecorded_client(settings, key, sent) as client:
        async for segment in client.segments():
            yield segment


@asynccontextmanager
async def _unrecorded_client(
    settings: Settings, key: ApiKey, sent: Callable[[str], None]
) -> "AsyncIterator[ApiClient]":
    """Open a client with a budget, for a command that is not a run."""
    clock = ServiceClock()
    budget = make_budget(settings, _NoJournal(sent), clock.now)
    await budget.open(_history(settings, now=clock.now()))
    try:
        async with make_api_client(settings, key, budget, clock) as client:
            yield client
    finally:
        await budget.close()


def _history(settings: Settings, *, now: float) -> RequestHistory:
    directory = settings.output.directory
    if not present(directory):
        return RequestHistory()
    with LedgerReader(directory) as ledger:
        return ledger.request_history(now=now)


@dataclass(frozen=True, slots=True)
class _NoJournal:
    """A journal that records nothing and only calls `sent`."""

    sent: Callable[[str], None]

    async def send(self, kind: str, *, at: float) -> int:  # noqa: ARG002 - a journal's method
        self.sent(kind)
        return 0

    def answered(self, request_id: int, *, status: int) -> None:
        """Record nothing."""

    def remember(self, key: str, value: str) -> None:
        """Record nothing."""
