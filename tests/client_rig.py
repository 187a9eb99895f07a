"""The two clients of the service with settings for tests, and what their errors give away."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from asyncexport.client.api import ApiClient
from asyncexport.client.session import ConnectionSettings
from asyncexport.client.storage_host import DownloadBody, StorageHost
from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import DownloadLink
from tests.raw_server import Server

KEY = "na1.CANARYkey/CANARY+key=="
SIGNED = "/bucket/%2F%7e//a%20b/../c?X-Goog-Signature=CANARYsig%2B~/+:@!$'()*,;&x=%zz&&y"
HALF_HOUR = Range(1_767_225_600, 1_767_227_400)
DATA = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Gate:
    """Lets everybody through, and writes down who came and what they left with."""

    entered: list[tuple[Kind, Priority]] = field(default_factory=list)
    left: list[object] = field(default_factory=list)
    takes: float = 0.0

    @asynccontextmanager
    async def permit(self, kind: Kind, priority: Priority) -> AsyncIterator["Permit"]:
        """Let through."""
        self.entered.append((kind, priority))
        permit = Permit(self)
        try:
            yield permit
        finally:
            self.left += [] if permit.is_answered else ["abandoned" if permit.is_recorded else "unsent"]


@dataclass
class Permit:
    """Leave to send one request."""

    gate: Gate
    is_recorded: bool = False
    is_answered: bool = False
    problem: str = ""

    async def recorded(self) -> None:
        """On record after a while."""
        await asyncio.sleep(self.gate.takes)
        self.is_recorded = True

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Left with a status."""
        assert self.is_recorded
        self.is_answered, self.problem = True, problem
        self.gate.left.append(status if retry_after is None else (status, retry_after))


async def create(api: ApiClient, gate: Gate | None = None) -> str:
    """Start an export, as whoever has got a permit for it does."""
    async with (gate or Gate()).permit(Kind.CREATE, Priority.CREATE) as permit:
        return await api.create(Definition(), HALF_HOUR, permit=permit)


def client(server: Server, gate: Gate | None = None, **settings: Any) -> ApiClient:
    """A client of this server's API, with little patience; `settings` are the connection's, and its own."""
    defaults: dict[str, Any] = {"base_url": server.url, "key": KEY, "gate": gate or Gate()}
    return ApiClient(connection=taken_from(settings), **(defaults | settings))


def storage(**settings: Any) -> StorageHost:
    """A client of any storage host, with little patience; `settings` are the connection's, and its own."""
    return StorageHost(taken_from(settings), **settings)


def taken_from(settings: dict[str, Any]) -> ConnectionSettings:
    """Take out the settings that say how hosts are reached."""
    taken = {one.name: settings.pop(one.name) for one in fields(ConnectionSettings) if one.name in settings}
    return ConnectionSettings(**({"read_timeout_seconds": 5.0} | taken))


def link(server: Server, path: str = SIGNED) -> DownloadLink:
    """A signed link to this server."""
    return DownloadLink(f"{server.url}{path}")


async def read(body: DownloadBody) -> bytes:
    """All of a body."""
    return b"".join([chunk async for chunk in body.chunks()])


async def fetch(server: Server, *, offset: int = 0, etag: str = "", **settings: Any) -> tuple[bytes, DownloadBody]:
    """Download from this server with a client of its own."""
    async with storage(**settings) as host, host.open(link(server), offset=offset, etag=etag) as body:
        return await read(body), body


def shown(error: BaseException) -> str:
    """All that can be seen of an error: text, repr, traceback, and everything it hangs on to."""
    texts, todo = [], [error]
    while todo:
        one = todo.pop()
        texts += [str(one), repr(one), str(one.args), *traceback.format_exception(one)]
        texts.append(str(getattr(one, "hint", "")))
        todo += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
    return "\n".join(texts)
