"""The protocol for what decides when an API request may be sent.

Every request is sent under a permit. The permit's row in the journal is durable before the request is sent, and the
client reports the outcome to the permit before it returns or raises.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.service.requests import Kind


class RequestPermit(Protocol):
    """A permit to send one request."""

    async def recorded(self) -> None:
        """Wait until the request is recorded; it may be sent after that."""
        ...

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Report the outcome of the request.

        Args:
            status: The HTTP status; None if no answer came.
            retry_after: Seconds until the service wants the next request.
            problem: A description of what went wrong.
        """
        ...


class Gate(Protocol):
    """Decides when an API request may be sent."""

    def permit(self, kind: Kind, priority: Priority) -> AbstractAsyncContextManager[RequestPermit]:
        """Wait for a permit to send one request; exit the context once its answer is known or it will not be sent."""
        ...
