"""A proxy on loopback that opens tunnels and records every byte that clients send to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Tunnel:
    """A proxy that opens tunnels.

    Attributes:
        leads_to: The port on 127.0.0.1 where every tunnel ends, whichever host was requested.
        port: The port on 127.0.0.1 where the proxy listens.
        heads: The heads of all requests for a tunnel.
        received: The bytes that clients sent, including the contents of tunnels, for each connection.
    """

    leads_to: int
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    received: list[bytearray] = field(default_factory=list)

    def url(self, user: str = "") -> str:
        """Return the proxy's URL; `user` is a name and a password, such as "name:password"."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        kept = bytearray()
        self.received.append(kept)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            kept += head
            self.heads.append(head)
            back, forth = await asyncio.open_connection("127.0.0.1", self.leads_to)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, forth, kept))
                group.create_task(_pass_on(back, writer, bytearray()))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while piece := await source.read(65_536):
            kept += piece
            target.write(piece)
            await target.drain()
    except OSError:
        return
    finally:
        target.close()


@asynccontextmanager
async def tunnelling(leads_to: int) -> AsyncIterator[Tunnel]:
    """Run a proxy whose tunnels all lead to this port."""
    tunnel = Tunnel(leads_to)
    tasks: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Our own task, because asyncio's own one logs an error when it is cancelled.
        task = asyncio.create_task(tunnel.handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    tunnel.port = listener.sockets[0].getsockname()[1]
    try:
        yield tunnel
    finally:
        listener.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
