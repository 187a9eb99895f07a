"""Fullstory's API: one method per call. `core.service` builds the requests and interprets the replies.

1. Each call sends exactly one request, which passes the gate first.
2. Only `ApiTransport` holds the key. Signed URLs are followed by `storage_host`, which never gets the key.
3. Errors and failure reasons never contain the key, a value of the user's headers or the proxy's password, even if the
   service echoes one of them in another spelling.
"""

import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Self, TypeVar

from asyncexport.client.api_transport import ApiTransport
from asyncexport.client.gate import Gate, RequestPermit
from asyncexport.client.gated_transport import GatedTransport
from asyncexport.client.session import ConnectionSettings
from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.masking import Mask, secrets_of_headers
from asyncexport.core.service import requests, resources
from asyncexport.core.service.replies import Reply, time_at_end
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import DownloadLink, Ended, Me, Operation, OperationsPage, Running, Segment
from asyncexport.errors import ExportError, ReplyError

T = TypeVar("T")

EMPTY_PAGES = 3
"""Empty pages of segments in a row after which the list is considered endless."""


class ApiClient:
    """The calls of Fullstory's API; an async context manager. Other arguments and errors are those of `ApiTransport`.

    Args:
        gate: What every request passes through.
        on_date: Called with the kind of call and the time at the service, for each reply that could be read and has the
            date of this very request (not one from a cache).
        wall_clock: Returns the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        gate: Gate,
        connection: ConnectionSettings | None = None,
        headers: Mapping[str, str] | None = None,
        on_date: Callable[[Kind, float], None] = lambda _kind, _time: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        connection = connection or ConnectionSettings()
        self._mask = Mask([key], others=[*secrets_of_headers(headers or {}), *connection.secrets])
        self._transport = ApiTransport(
            base_url=base_url,
            key=key,
            connection=connection,
            headers=headers or {},
        )
        self._on_date = on_date
        self._gated = GatedTransport(self._transport, gate, mask=self._mask, wall_clock=wall_clock)

    async def __aenter__(self) -> Self:
        """Open the session; nothing is sent yet."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session and abort what is still in flight."""
        await self._transport.__aexit__()

    async def create(self, definition: Definition, span: Range, *, permit: RequestPermit) -> str:
        """Start the export of one range and return the operation's id. Not idempotent.

        The caller brings its own `permit`, because it has to record the create before the request is sent.

        Raises:
            UnavailableError: the service did not answer or is in trouble; `unanswered` if the request may have arrived.
            ServiceError: everything else that `GatedTransport.call` and `resources.read_created` raise.
        """
        reply = await self._gated.send(requests.create(definition, span), permit)
        return self._read(Kind.CREATE, reply, resources.read_created)

    async def operation(self, operation_id: str, *, priority: Priority = Priority.POLL) -> Operation:
        """Return the state of one operation.

        Raises:
            GoneError: the service does not know the operation, or no longer does.
            ServiceError: everything else that `GatedTransport.call` and `resources.read_operation` raise.
        """
        reply = await self._gated.call(requests.operation(operation_id), priority)
        return self._masked(self._read(Kind.POLL, reply, resources.read_operation))

    async def operations(
        self, *, state: str = "", token: str = "", priority: Priority = Priority.POLL
    ) -> OperationsPage:
        """Return one page of the list of operations.

        Raises:
            ServiceError: see `GatedTransport.call` and `resources.read_operations`.
        """
        reply = await self._gated.call(requests.operations(state=state, token=token), priority)
        page = self._read(Kind.LIST, reply, resources.read_operations)
        return replace(page, operations=tuple(map(self._masked, page.operations)))

    async def locate(self, export_id: str, *, priority: Priority = Priority.RESULTS) -> DownloadLink:
        """Return a fresh signed URL for the archive of a completed export; it expires after minutes.

        Raises:
            GoneError: the export is gone.
            ServiceError: everything else that `GatedTransport.call` and `resources.read_location` raise.
        """
        reply = await self._gated.call(requests.results(export_id), priority)
        return self._read(Kind.RESULTS, reply, resources.read_location)

    async def segments(
        self, *, priority: Priority = Priority.REST, most_pages: float = math.inf
    ) -> AsyncGenerator[Segment, None]:
        """Yield every segment once, page by page, but no more than `most_pages`.

        Raises:
            ReplyError: the list does not end.
            ServiceError: everything else that `GatedTransport.call` and `resources.read_segments` raise.
        """
        token, tokens, ids, empty = "", {""}, set[str](), 0
        for page_number in count(1):
            reply = await self._gated.call(requests.segments(token=token), priority)
            page = self._read(Kind.OTHER, reply, resources.read_segments)
            for segment in page.segments:
                if segment.id not in ids:
                    ids.add(segment.id)
                    yield segment
            token, empty = page.next_token, 0 if page.segments else empty + 1
            if not token or page_number >= most_pages:
                return
            if token in tokens or empty >= EMPTY_PAGES:
                raise ReplyError("listing segments: the service's list does not end; all segments found are shown")
            tokens.add(token)

    async def segment(self, segment_id: str, *, priority: Priority = Priority.REST) -> Segment:
        """Return one segment.

        Raises:
            ServiceError: see `GatedTransport.call` and `resources.read_segment`.
        """
        reply = await self._gated.call(requests.segment(segment_id), priority)
        return self._read(Kind.OTHER, reply, resources.read_segment)

    async def me(self, *, priority: Priority = Priority.REST) -> Me:
        """Return who created the key, and the organisation it belongs to.

        Raises:
            ServiceError: see `GatedTransport.call` and `resources.read_me`.
        """
        return self._read(Kind.OTHER, await self._gated.call(requests.me(), priority), resources.read_me)

    def _read(self, kind: Kind, reply: Reply, read: Callable[[Reply], T]) -> T:
        """Return the content of a successful reply; its date only counts if the content can be read."""
        try:
            value = read(reply)
        except ExportError as error:
            self._mask.hide_in(error)
            raise
        at = time_at_end(reply)
        if at is not None:
            self._on_date(kind, at)
        return value

    def _masked(self, operation: Operation) -> Operation:
        """Return the operation with secrets masked in the service's texts."""
        match operation.progress:
            case Ended(reason):
                return replace(operation, progress=Ended(self._mask(reason)))
            case Running(state):
                return replace(operation, progress=Running(self._mask(state)))
            case _:
                return operation
