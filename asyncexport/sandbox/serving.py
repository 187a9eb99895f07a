"""Starts and stops a sandbox, and leaves nothing behind when it stops.

Stopping aborts every connection, including those that a fault left hanging, so that no transport waits for a client
that does not read. Their handlers are cancelled with them and have ended before `serving` returns.
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
"""Time limit for handlers to end after their connections are closed. They need one iteration of the event loop."""


class _Listener:
    """The listening socket and its connections."""

    def __init__(self, server: SandboxServer, *, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        # A handler is cancelled when its client disconnects: some handlers wait for nothing else.
        self._http = web.Server(server.handle, handler_cancellation=True, access_log=None)
        self._host, self.port, self._tls = host, port, tls
        self._listening: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._http, self._host, self.port, ssl=self._tls, backlog=1024)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Stop accepting connections and end the existing ones."""
        if self._listening is not None:
            self._listening.close()
        await asyncio.sleep(0)
        for connection in self._http.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._http.shutdown(SHUTDOWN_SECONDS)

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Refuse connections within the `with` block."""
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
    """Run a sandbox on a local port.

    Args:
        behaviour: The behaviour; by default that of the service, in real time.
        host: The address to listen on.
        port: The port to listen on; 0 means any free port.
        tls: The TLS context, if the sandbox is to use https.
        clock: A function that returns the seconds since 1970.
    """
    sandbox = Sandbox(behaviour or SandboxBehaviour(), clock=clock)
    server = SandboxServer(sandbox)
    listener = _Listener(server, host=host, port=port, tls=tls)
    await listener.open()
    sandbox.url = f"{'https' if tls else 'http'}://{_reached_as(host)}:{listener.port}"
    sandbox.unreachable = listener.closed
    try:
        yield sandbox
    finally:
        await listener.shut()
        await server.close()


def _reached_as(host: str) -> str:
    """Return the host to use in a URL for a server that listens on this address."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
