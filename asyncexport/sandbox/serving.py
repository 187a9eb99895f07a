"""A sandbox that listens, and that leaves nothing behind when it stops.

Every connection is ended then, those too that a fault left hanging: they are aborted, so that no transport waits for a
peer that does not read, and their handlers, which are cancelled with them, have ended before `serving` does.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from asyncexport.sandbox.behaviour import SandboxBehaviour
from asyncexport.sandbox.sandbox import Sandbox
from asyncexport.sandbox.server import SandboxServer

SHUTDOWN_SECONDS = 5.0
"""For handlers to end once their connections are gone; they take a turn of the loop."""


class _Door:
    """Where connections come in."""

    def __init__(self, server: SandboxServer, *, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        # Handlers end when their peer goes: some of them wait for nothing else.
        self._http = web.Server(server.handle, handler_cancellation=True, access_log=None)
        self._host, self.port, self._tls = host, port, tls
        self._listening: asyncio.Server | None = None

    async def open(self) -> None:
        """Let connections in."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._http, self._host, self.port, ssl=self._tls, backlog=1024)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Let none in, and end those that are there."""
        if self._listening is not None:
            self._listening.close()
        await asyncio.sleep(0)
        for connection in self._http.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._http.shutdown(SHUTDOWN_SECONDS)

    @asynccontextmanager
    async def shut_for_now(self) -> AsyncIterator[None]:
        """Refuse connections as long as this lasts."""
        await self.shut()
        try:
            yield
        finally:
            await self.open()


@asynccontextmanager
async def serving(
    behaviour: SandboxBehaviour | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Sandbox]:
    """A sandbox that listens.

    Args:
        behaviour: How it behaves; by default as the service does, in real time.
        host: Where it listens.
        port: Likewise; 0: any that is free.
        tls: With it the sandbox speaks https.
        clock: Seconds since 1970.
    """
    sandbox = Sandbox(behaviour or SandboxBehaviour(), clock=clock)
    server = SandboxServer(sandbox)
    door = _Door(server, host=host, port=port, tls=tls)
    await door.open()
    sandbox.url = f"{'https' if tls else 'http'}://{_reached_as(host)}:{door.port}"
    sandbox.unreachable = door.shut_for_now
    try:
        yield sandbox
    finally:
        await door.shut()
        await server.close()


def _reached_as(host: str) -> str:
    """The host of a URL that leads to who listens there."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
