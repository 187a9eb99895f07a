"""Raw servers on loopback that can misbehave in any way."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw server: its URL, and the requests and connections it got."""

    url: str
    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def http(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return a complete, well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sends(*pieces: bytes, reset: bool = False) -> Answer:
    """Return an answer that sends these bytes and then closes or resets the connection."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def stays_silent_after(*pieces: bytes) -> Answer:
    """Return an answer that sends these bytes, and then nothing while the connection stays open."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        await asyncio.Event().wait()

    return answer


@asynccontextmanager
async def serving(
    *answers: Answer, tls: ssl.SSLContext | None = None, keep_alive: bool = False
) -> AsyncIterator[Server]:
    """Run a server that gives these answers, one for each request, and repeats the last one."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
                request = head + await reader.readexactly(size)
                server.requests.append(request)
                await answers[min(len(server.requests), len(answers)) - 1](request, writer)
                await writer.drain()
                if not keep_alive:
                    return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server = Server(f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{port}", port)
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def drips(*, seconds: float, head: bytes = b"") -> Answer:
    """Return an answer that sends one byte at a time without end."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer
