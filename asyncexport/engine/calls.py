"""What the poller asks of the service; the API client answers it."""

from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.service.resources import Operation, OperationsPage


class OperationCalls(Protocol):
    """Questions about operations.

    Each raises a `ServiceError` where the request failed; `transient` says whether trying again may help.
    """

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        ...

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list; `state` filters it, `token` is that of the page before."""
        ...
