"""What the engine asks of the service; the API client answers it."""

from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.resources import DownloadLink, Me, Operation, OperationsPage
from asyncexport.engine.permit import Permit


class OperationCalls(Protocol):
    """Questions about operations.

    Each raises a `ServiceError` where the request failed; `core.service.retrying` says what follows.
    """

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        ...

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list; `state` filters it, `token` is that of the page before."""
        ...


class ExportCalls(Protocol):
    """The two ends of an export, and whose key it is. Each raises a `ServiceError`, as above."""

    async def create(self, definition: Definition, span: Range, *, permit: Permit) -> str:
        """Start an operation under this permit; its id."""
        ...

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """A fresh link to the file of a finished operation."""
        ...

    async def me(self, *, priority: Priority) -> Me:
        """Whose key it is."""
        ...


class ServiceCalls(OperationCalls, ExportCalls, Protocol):
    """All of them."""
