"""A proxy between the program and an S3 server, which counts requests and does what goes wrong on the way."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

import aiohttp
from aiohttp import web
from yarl import URL

NOT_PASSED_ON = {"transfer-encoding", "connection", "content-encoding"}
"""Headers that the proxy sets itself."""


class Fault(Enum):
    """What goes wrong with a request."""

    NONE = "nothing"
    REFUSED = "the answer is 500"
    DROPPED = "the connection breaks before the server gets it"
    LOST = "the connection breaks before the answer comes"
    STALLED = "no answer ever comes"
    CUT = "the connection breaks in the middle of the answer"


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        number: How many requests came before it.
        method: Its method.
        path: Its path and query.
        headers: Its headers, with names in small letters.
        has_passed: Whether the server has answered, so that its answer may be lost.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    has_passed: bool = False

    @property
    def uploads(self) -> bool:
        """Whether it writes."""
        return self.method in ("PUT", "POST")


@dataclass(frozen=True)
class Answer:
    """An answer that the server did not give.

    Attributes:
        status: Its status.
        code: The code in its body, in the words of S3; "" for an empty body.
        headers: Its headers.
    """

    status: int
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def _no_fault(_call: Call) -> Fault | Answer:
    return Fault.NONE


@dataclass
class S3Proxy:
    """A running proxy; made by `proxying`.

    Attributes:
        server: The port of the server.
        port: The port of the proxy.
        fault: Says what goes wrong with a request.
        calls: The requests that came.
        meanwhile: Called before each request is passed on.
        headers: Headers that are added to the answers of the server, except listings.
        rewritten: Texts in the bodies of its answers, and what replaces them.
    """

    server: int
    port: int = 0
    fault: Callable[[Call], Fault | Answer] = _no_fault
    calls: list[Call] = field(default_factory=list)
    meanwhile: Callable[[Call], None] = lambda _call: None
    headers: dict[str, str] = field(default_factory=dict)
    rewritten: dict[bytes, bytes] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    now: int = 0
    most: int = 0

    def count(self, method: str) -> int:
        """Return how many requests with a method came."""
        return sum(one.method == method for one in self.calls)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, or do what goes wrong."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._handle(request)
        finally:
            self.now -= 1

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(len(self.calls), request.method, request.raw_path, headers)
        self.calls.append(call)
        body = io.BytesIO(await request.read())  # aiohttp warns of large bodies that are bytes
        match self.fault(call):
            case Fault.REFUSED:
                return web.Response(status=500, text="<Error><Code>InternalError</Code></Error>")
            case Fault.DROPPED:
                return _broken(request)
            case Fault.STALLED:
                await self.closing.wait()
                return _broken(request)
            case Answer() as given:
                text = f"<Error><Code>{given.code}</Code></Error>" if given.code else ""
                return web.Response(status=given.status, text=text, headers=given.headers)
        self.meanwhile(call)
        url = URL(f"http://127.0.0.1:{self.server}{request.raw_path}", encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, data=body, headers=request.headers, allow_redirects=False) as answer,
        ):
            content = await answer.read()
            passed = Call(call.number, call.method, call.path, headers, has_passed=True)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_PASSED_ON}
            kept |= self.headers if "list-type" not in request.query else {}
            for old, new in self.rewritten.items():
                if old in content:
                    content = content.replace(old, new)
                    kept.pop("Content-Length", None)
            match self.fault(passed):
                case Fault.LOST:
                    return _broken(request)
                case Fault.CUT:
                    return await _cut(request, web.StreamResponse(status=answer.status, headers=kept), content)
            return web.Response(status=answer.status, headers=kept, body=content or None)


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _cut(request: web.Request, answer: web.StreamResponse, content: bytes) -> web.StreamResponse:
    answer.content_length = len(content)
    await answer.prepare(request)
    await answer.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.abort()
    return answer


@asynccontextmanager
async def proxying(server: int) -> AsyncIterator[S3Proxy]:
    """Run a proxy before a server."""
    proxy = S3Proxy(server)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, shutdown_timeout=5.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        yield proxy
    finally:
        proxy.closing.set()
        await runner.cleanup()
