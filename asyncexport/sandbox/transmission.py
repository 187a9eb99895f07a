"""How an answer goes over the wire, by the rules or against them.

aiohttp's server keeps the rules of HTTP and so cannot break them: it will not promise a length that it does not send,
stop within a chunk, or reset a connection. So answers are written to the transport here, byte by byte, and aiohttp is
handed `SandboxSentResponse`, an answer that writes nothing. All breaking of rules is in this module; which rule is
broken, a `SandboxTransmission` says.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Literal

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

from asyncexport.sandbox.answers import SandboxAnswer, SandboxContent
from asyncexport.sandbox.behaviour import Framing

PIECE_BYTES = 256 << 10
"""Written at once, before the peer has to keep up."""

LAST_DATE = 253_402_300_799
"""The end of 9999: no date has more digits."""

GARBAGE = b"\x16\x03\x01\x00\xff\xfenothing that speaks HTTP\r\n\r\n"


@dataclass(frozen=True, slots=True)
class SandboxTransmission:
    """How an answer is sent; the default is by the rules.

    Attributes:
        head: All of it, half of it, none, or garbage in its place; without a whole one no body follows.
        framing: How the body's end is told.
        promised: What Content-Length says, if not the truth.
        sent: So many bytes of the body are sent; None: all.
        ending: What comes after them: a proper end, a connection that is closed or reset, silence, or a bad chunk.
        step: How many bytes are sent at once; 0: as many as may be.
        pause_seconds: Between two of those.
        wait_seconds: Before anything is sent.
        date_off_seconds: How much later its date is than it should be; None: it has none.
    """

    head: Literal["whole", "half", "none", "garbage"] = "whole"
    framing: Framing = "length"
    promised: int | None = None
    sent: int | None = None
    ending: Literal["proper", "close", "reset", "stall", "bad-chunk"] = "proper"
    step: int = 0
    pause_seconds: float = 0.0
    wait_seconds: float = 0.0
    date_off_seconds: float | None = 0.0


class SandboxSentResponse(web.StreamResponse):
    """An answer that is on its way already."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may bring another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - its signature
        """Nothing is left to do."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""


BY_THE_RULES = SandboxTransmission()


async def send(
    request: web.BaseRequest, answer: SandboxAnswer, transmission: SandboxTransmission, *, now: float
) -> SandboxSentResponse:
    """Send an answer; `now` is the date it bears.

    Raises:
        ConnectionResetError: the peer is gone.
    """
    if transmission.wait_seconds:
        await asyncio.sleep(transmission.wait_seconds)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the peer is gone")
    if request.version == HttpVersion10 and transmission.framing == "chunked":
        transmission = replace(transmission, framing="close")
    keep = (
        request.keep_alive
        and transmission.ending == "proper"
        and transmission.framing != "close"
        and transmission.head == "whole"
    )
    head = _head(answer, transmission, keep=keep, now=now)
    if request.method == "HEAD":
        answer = replace(answer, body=b"")
    if transmission is BY_THE_RULES and isinstance(answer.body, bytes) and len(answer.body) <= PIECE_BYTES:
        transport.write(head + answer.body)
        return SandboxSentResponse(keep=keep)
    match transmission.head:
        case "whole":
            transport.write(head)
            await _send_body(request, transport, answer.body, transmission)
        case "half":
            transport.write(head[: len(head) // 2])
        case "garbage":
            transport.write(GARBAGE)
    await _end_connection(request, transport, transmission)
    return SandboxSentResponse(keep=keep)


def _head(answer: SandboxAnswer, transmission: SandboxTransmission, *, keep: bool, now: float) -> bytes:
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {answer.status} {phrase}", "Server: sandbox"]
    if transmission.date_off_seconds is not None:
        lines.append(f"Date: {_date_header(int(now + transmission.date_off_seconds))}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    match transmission.framing:
        case "length":
            lines.append(
                f"Content-Length: {len(answer.body) if transmission.promised is None else transmission.promised}"
            )
        case "chunked":
            lines.append("Transfer-Encoding: chunked")
    if not keep:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


@lru_cache(maxsize=1)
def _date_header(second: int) -> str:
    return formatdate(min(second, LAST_DATE), usegmt=True)


async def _send_body(
    request: web.BaseRequest,
    transport: asyncio.Transport,
    body: bytes | SandboxContent,
    transmission: SandboxTransmission,
) -> None:
    size = len(body) if transmission.sent is None else min(transmission.sent, len(body))
    for piece in _pieces(body, size, transmission.step):
        if transport.is_closing():
            raise ConnectionResetError("the peer is gone")
        if transmission.framing == "chunked":
            transport.write(b"%x\r\n" % len(piece))
        transport.write(piece)
        if transmission.framing == "chunked":
            transport.write(b"\r\n")
        await request.writer.drain()
        if transmission.pause_seconds:
            await asyncio.sleep(transmission.pause_seconds)
    if transmission.framing == "chunked" and transmission.ending == "proper":
        transport.write(b"0\r\n\r\n")


def _pieces(body: bytes | SandboxContent, size: int, step: int) -> Iterator[bytes]:
    step = step or PIECE_BYTES
    if isinstance(body, bytes):
        yield from (body[at : min(at + step, size)] for at in range(0, size, step))
        return
    for piece in body.pieces(0, size):
        yield from (piece[at : at + step] for at in range(0, len(piece), step))


async def _end_connection(
    request: web.BaseRequest, transport: asyncio.Transport, transmission: SandboxTransmission
) -> None:
    match transmission.ending:
        case "stall":
            await asyncio.Event().wait()
        case "bad-chunk":
            transport.write(b"zz\r\nno size\r\n")
            transport.close()
        case "close":
            transport.close()
        case "reset":
            await _reset(request, transport)


async def _reset(request: web.BaseRequest, transport: asyncio.Transport) -> None:
    """Reset the connection once all that was written has left: a socket that lingers for no time says RST, not FIN."""
    transport.set_write_buffer_limits(high=0)
    await request.writer.drain()
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
