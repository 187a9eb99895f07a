"""The service calls that the engine makes, as protocols; the API client implements them."""

from typing import Protocol

from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.resources import DownloadLink, Me, Operation, OperationsPage
from asyncexport.engine.permit import Permit


class OperationCalls(Protocol):
    """Calls that ask about operations.

    Each raises a `ServiceError` if the request failed; `core.service.retrying` decides what follows.
    """

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """Get one operation."""
        ...

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """Get one page of the list; `state` filters it, `token` comes from the page before."""
        ...


class ExportCalls(Protocol):
    """The first and last call of an export, and the one that checks the key. Each raises a `ServiceError`, as above."""

    async def create(self, definition: Definition, span: Range, *, permit: Permit) -> str:
        """Start an operation under this permit; return its id."""
        ...

    async def locate(self, export_id: str, *, priority: Priority) -> DownloadLink:
        """Get a fresh signed URL for the file of a finished operation."""
        ...

    async def me(self, *, priority: Priority) -> Me:
        """Ask whose key it is."""
        ...


class ServiceCalls(OperationCalls, ExportCalls, Protocol):
    """All calls of the engine."""
