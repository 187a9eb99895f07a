"""What the client needs of whoever decides when an API request may be sent.

A request is sent with a pass, never without one, and the pass is told what came of it.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.service.requests import Kind


class Pass(Protocol):
    """Leave to send one request; exactly one of the two is called afterwards."""

    def leave(self, status: int | None, *, retry_after: float | None = None) -> None:
        """Say what came back: a status, or None where nothing did; `retry_after` in seconds."""
        ...

    def abandon(self) -> None:
        """Say that what came of it tells nothing of the service."""
        ...


class Gate(Protocol):
    """What every API request passes through."""

    async def enter(
        self, kind: Kind, priority: Priority, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> Pass:
        """Wait for leave to send one request; `before` is awaited once it is certain."""
        ...
