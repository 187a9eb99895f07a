"""Fullstory's API: one method a call. What is asked and what an answer means is decided in `core.service`.

1. Each call is one request on the wire, and it passes the gate first.
2. The key is in `ApiTransport` alone. Signed links are followed by `storage_host`, which never has the key.
3. No error and no reason holds the key, a value of the user's headers or the proxy's password, should the service echo
   them in whatever spelling.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
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
"""So many pages of segments in a row with nothing on them: the list has no end."""


class ApiClient:
    """The calls of Fullstory's API; an async context manager. Arguments and errors are those of `ApiTransport`.

    `gate` is what every request passes through. `heard` is told of each answer that could be read, and was made for
    this very request: the kind of call, and the time at the service. `wall_clock` tells seconds since 1970.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        gate: Gate,
        connection: ConnectionSettings | None = None,
        headers: Mapping[str, str] | None = None,
        heard: Callable[[Kind, float], None] = lambda _kind, _time: None,
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
        self._heard = heard
        self._gated = GatedTransport(self._transport, gate, mask=self._mask, wall_clock=wall_clock)

    async def __aenter__(self) -> Self:
        """Open the session; nothing is sent yet."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session, and with it what is still under way."""
        await self._transport.__aexit__()

    async def create(self, definition: Definition, span: Range, *, permit: RequestPermit) -> str:
        """Start the export of one range; its operation's id. Not idempotent.

        `permit` is the caller's, who has to note what it is about to do before the request is sent.

        Raises:
            UnavailableError: no answer, or one that the service is in trouble; `unanswered` where it may have arrived.
            ServiceError: what else `GatedTransport.call` and `resources.read_created` raise.
        """
        reply = await self._gated.send(requests.create(definition, span), permit)
        return self._read(Kind.CREATE, reply, resources.read_created)

    async def operation(self, operation_id: str, *, priority: Priority = Priority.POLL) -> Operation:
        """How one operation stands.

        Raises:
            GoneError: the service does not know it (any more).
            ServiceError: what else `GatedTransport.call` and `resources.read_operation` raise.
        """
        reply = await self._gated.call(requests.operation(operation_id), priority)
        return self._masked(self._read(Kind.POLL, reply, resources.read_operation))

    async def operations(
        self, *, state: str = "", token: str = "", priority: Priority = Priority.POLL
    ) -> OperationsPage:
        """One page of the list of operations.

        Raises:
            ServiceError: what `GatedTransport.call` and `resources.read_operations` raise.
        """
        reply = await self._gated.call(requests.operations(state=state, token=token), priority)
        page = self._read(Kind.LIST, reply, resources.read_operations)
        return replace(page, operations=tuple(map(self._masked, page.operations)))

    async def locate(self, export_id: str, *, priority: Priority = Priority.RESULTS) -> DownloadLink:
        """A fresh link to the archive of a completed export; it lives for minutes.

        Raises:
            GoneError: the export is gone.
            ServiceError: what else `GatedTransport.call` and `resources.read_location` raise.
        """
        reply = await self._gated.call(requests.results(export_id), priority)
        return self._read(Kind.RESULTS, reply, resources.read_location)

    async def segments(self, *, priority: Priority = Priority.REST) -> AsyncIterator[Segment]:
        """Every segment once, page by page.

        Raises:
            ReplyError: the list has no end.
            ServiceError: what else `GatedTransport.call` and `resources.read_segments` raise.
        """
        token, tokens, ids, empty = "", {""}, set[str](), 0
        while True:
            reply = await self._gated.call(requests.segments(token=token), priority)
            page = self._read(Kind.OTHER, reply, resources.read_segments)
            for segment in page.segments:
                if segment.id not in ids:
                    ids.add(segment.id)
                    yield segment
            token, empty = page.next_token, 0 if page.segments else empty + 1
            if not token:
                return
            if token in tokens or empty >= EMPTY_PAGES:
                raise ReplyError("listing segments: the service's list has no end; what it holds has been shown")
            tokens.add(token)

    async def segment(self, segment_id: str, *, priority: Priority = Priority.REST) -> Segment:
        """Look one segment up.

        Raises:
            ServiceError: what `GatedTransport.call` and `resources.read_segment` raise.
        """
        reply = await self._gated.call(requests.segment(segment_id), priority)
        return self._read(Kind.OTHER, reply, resources.read_segment)

    async def me(self, *, priority: Priority = Priority.REST) -> Me:
        """Whose key it is.

        Raises:
            ServiceError: what `GatedTransport.call` and `resources.read_me` raise.
        """
        return self._read(Kind.OTHER, await self._gated.call(requests.me(), priority), resources.read_me)

    def _read(self, kind: Kind, reply: Reply, read: Callable[[Reply], T]) -> T:
        """What a success holds; its date counts only once it has turned out to be the service's answer."""
        try:
            value = read(reply)
        except ExportError as error:
            self._mask.hide_in(error)
            raise
        at = time_at_end(reply)
        if at is not None:
            self._heard(kind, at)
        return value

    def _masked(self, operation: Operation) -> Operation:
        """The operation without a secret in what the service says of it."""
        match operation.progress:
            case Ended(reason):
                return replace(operation, progress=Ended(self._mask(reason)))
            case Running(state):
                return replace(operation, progress=Running(self._mask(state)))
            case _:
                return operation
