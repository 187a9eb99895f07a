"""What the client needs of whoever decides when an API request may be sent.

A request is sent under a permit, never without one. The permit's row in the journal is durable before the request is
sent, and the permit is told what came back before anybody else is.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.service.requests import Kind


class RequestPermit(Protocol):
    """Leave to send one request."""

    async def recorded(self) -> None:
        """Wait until the request is on record; it may be sent from then on."""
        ...

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Say what came back.

        Args:
            status: The HTTP status; None where no answer came.
            retry_after: In how many seconds the service wants to be asked again.
            problem: What went wrong, in words.
        """
        ...


class Gate(Protocol):
    """Who decides when an API request may be sent."""

    def permit(self, kind: Kind, priority: Priority) -> AbstractAsyncContextManager[RequestPermit]:
        """Wait for leave to send one request; to be left once its answer is known, or it will not be sent."""
        ...
