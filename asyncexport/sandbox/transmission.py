"""Writes an answer to the connection, as HTTP requires or in violation of it.

aiohttp's server always follows HTTP: it does not promise a length that it does not send, stop within a chunk, or reset
a connection. So this module writes answers to the transport itself, and aiohttp gets a `SandboxSentResponse`, which
writes nothing. All violations of HTTP are in this module; a `SandboxTransmission` says which one happens.
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
"""Bytes written in one call, before waiting for the client to read."""

LAST_DATE = 253_402_300_799
"""The end of the year 9999, the last that a date header can express."""

GARBAGE = b"\x16\x03\x01\x00\xff\xfenothing that speaks HTTP\r\n\r\n"


@dataclass(frozen=True, slots=True)
class SandboxTransmission:
    """How to send an answer; the default follows HTTP.

    Attributes:
        head: Whether the response head is complete, cut in half, missing, or replaced by garbage. A body follows only a
            complete head.
        framing: How the end of the body is marked.
        promised: The Content-Length, if it is not the true one.
        sent: The number of body bytes that are sent; None means all.
        ending: What follows the body: a proper end, a closed or reset connection, silence, or a bad chunk.
        step: The number of bytes sent in one call; 0 means `PIECE_BYTES`.
        pause_seconds: The pause after each step.
        wait_seconds: The wait before anything is sent.
        date_off_seconds: How far the Date header is ahead of the clock; None means no Date header.
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
    """A response that has already been written to the transport."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may be used for another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's signature
        """Do nothing: the answer has been sent."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the answer has been sent."""


BY_THE_RULES = SandboxTransmission()


async def send(
    request: web.BaseRequest, answer: SandboxAnswer, transmission: SandboxTransmission, *, now: float
) -> SandboxSentResponse:
    """Send an answer; `now` is the time for its Date header.

    Raises:
        ConnectionResetError: The client has disconnected.
    """
    if transmission.wait_seconds:
        await asyncio.sleep(transmission.wait_seconds)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has disconnected")
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
            raise ConnectionResetError("the client has disconnected")
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
    """Reset the connection after all written bytes are sent. A linger time of zero makes close send RST, not FIN."""
    transport.set_write_buffer_limits(high=0)
    await request.writer.drain()
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
