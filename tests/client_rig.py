"""The two HTTP clients with settings for tests, a budget gate without a limit, and the texts of an error."""

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
    """Grants every permit immediately, and records the requests and their results."""

    entered: list[tuple[Kind, Priority]] = field(default_factory=list)
    left: list[object] = field(default_factory=list)
    takes: float = 0.0

    @asynccontextmanager
    async def permit(self, kind: Kind, priority: Priority) -> AsyncIterator["Permit"]:
        """Grant a permit."""
        self.entered.append((kind, priority))
        permit = Permit(self)
        try:
            yield permit
        finally:
            self.left += [] if permit.is_answered else ["abandoned" if permit.is_recorded else "unsent"]


@dataclass
class Permit:
    """A permit to send one request."""

    gate: Gate
    is_recorded: bool = False
    is_answered: bool = False
    problem: str = ""

    async def recorded(self) -> None:
        """Record the request, which takes `Gate.takes` seconds."""
        await asyncio.sleep(self.gate.takes)
        self.is_recorded = True

    def answered(self, status: int | None, *, retry_after: float | None = None, problem: str = "") -> None:
        """Record the status of the answer."""
        assert self.is_recorded
        self.is_answered, self.problem = True, problem
        self.gate.left.append(status if retry_after is None else (status, retry_after))


async def create(api: ApiClient, gate: Gate | None = None) -> str:
    """Start an export with a permit."""
    async with (gate or Gate()).permit(Kind.CREATE, Priority.CREATE) as permit:
        return await api.create(Definition(), HALF_HOUR, permit=permit)


def client(server: Server, gate: Gate | None = None, **settings: Any) -> ApiClient:
    """Return an API client of this server with a short timeout; `settings` are those of connection and client."""
    defaults: dict[str, Any] = {"base_url": server.url, "key": KEY, "gate": gate or Gate()}
    return ApiClient(connection=connection_settings(settings), **(defaults | settings))


def storage(**settings: Any) -> StorageHost:
    """Return a client of storage hosts with a short timeout; `settings` are those of connection and client."""
    return StorageHost(connection_settings(settings), **settings)


def connection_settings(settings: dict[str, Any]) -> ConnectionSettings:
    """Remove the connection's settings from `settings` and return them."""
    taken = {one.name: settings.pop(one.name) for one in fields(ConnectionSettings) if one.name in settings}
    return ConnectionSettings(**({"read_timeout_seconds": 5.0} | taken))


def link(server: Server, path: str = SIGNED) -> DownloadLink:
    """Return a signed URL of this server."""
    return DownloadLink(f"{server.url}{path}")


async def read(body: DownloadBody) -> bytes:
    """Read a complete body."""
    return b"".join([chunk async for chunk in body.chunks()])


async def fetch(server: Server, *, offset: int = 0, etag: str = "", **settings: Any) -> tuple[bytes, DownloadBody]:
    """Download from this server with a new client."""
    async with storage(**settings) as host, host.open(link(server), offset=offset, etag=etag) as body:
        return await read(body), body


def shown(error: BaseException) -> str:
    """Return all texts of an error and its causes: text, repr, arguments, traceback and hint."""
    texts, todo = [], [error]
    while todo:
        one = todo.pop()
        texts += [str(one), repr(one), str(one.args), *traceback.format_exception(one)]
        texts.append(str(getattr(one, "hint", "")))
        todo += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
    return "\n".join(texts)
