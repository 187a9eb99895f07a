"""The client against servers on loopback, most of them raw, so that they can misbehave in every way."""

import asyncio
import datetime as dt
import logging
import socket
import ssl
import struct
import traceback
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from asyncexport.client.api import Client, DownloadBody
from asyncexport.core.admission import Priority
from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition
from asyncexport.core.service.replies import MAX_REPLY_BYTES
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Completed, DownloadLink, Me, Segment
from asyncexport.errors import (
    ConfigError,
    ExportError,
    GoneError,
    IncompleteError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from tests.tunnel import tunnelling

KEY = "na1.CANARYkey/CANARY+key=="
SIGNED = "/bucket/%2F%7e//a%20b/../c?X-Goog-Signature=CANARYsig%2B~/+:@!$'()*,;&x=%zz&&y"
HALF_HOUR = Range(1_767_225_600, 1_767_227_400)
DATA = bytes(range(256)) * 4096  # 1 MiB

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw server: what was sent to it, and where it is."""

    url: str
    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


@dataclass
class Gate:
    """Lets everybody through, and writes down who came and what they left with."""

    entered: list[tuple[Kind, Priority]] = field(default_factory=list)
    left: list[object] = field(default_factory=list)

    async def enter(
        self, kind: Kind, priority: Priority, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> "Gate":
        """Let through."""
        self.entered.append((kind, priority))
        if before is not None:
            await before()
        return self

    def leave(self, status: int | None, *, retry_after: float | None = None) -> None:
        """Left with a status."""
        self.left.append(status if retry_after is None else (status, retry_after))

    def abandon(self) -> None:
        """Left with nothing."""
        self.left.append("abandoned")


def http(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole, well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sends(*pieces: bytes, reset: bool = False) -> Answer:
    """An answer of these bytes, after which the connection is closed, or reset."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def stays_silent_after(*pieces: bytes) -> Answer:
    """An answer that stops, and keeps the connection open."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        await asyncio.Event().wait()

    return answer


@asynccontextmanager
async def serving(
    *answers: Answer, tls: ssl.SSLContext | None = None, keep_alive: bool = False
) -> AsyncIterator[Server]:
    """A server that gives these answers, one a request, the last again and again."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
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
            talks.discard(task)

    listener = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server = Server(f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{port}", port)
    try:
        yield server
    finally:
        listener.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def client(server: Server, gate: Gate | None = None, **settings: Any) -> Client:
    """A client of this server, with little patience."""
    defaults: dict[str, Any] = {"base_url": server.url, "key": KEY, "gate": gate or Gate(), "read_timeout_seconds": 5.0}
    return Client(**(defaults | settings))


def link(server: Server, path: str = SIGNED) -> DownloadLink:
    """A signed link to this server."""
    return DownloadLink(f"{server.url}{path}")


async def read(body: DownloadBody) -> bytes:
    """All of a body."""
    return b"".join([chunk async for chunk in body.chunks()])


async def fetch(server: Server, *, offset: int = 0, etag: str = "", **settings: Any) -> tuple[bytes, DownloadBody]:
    """Download from this server with a client of its own."""
    async with client(server, **settings) as api, api.open(link(server), offset=offset, etag=etag) as body:
        return await read(body), body


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test of this file, whatever goes wrong in it, leaves a key or a signature in a log."""
    caplog.set_level(logging.DEBUG)
    yield
    assert "CANARY" not in caplog.text


def shown(error: BaseException) -> str:
    """All that can be seen of an error: text, repr, traceback, and everything it hangs on to."""
    texts, todo = [], [error]
    while todo:
        one = todo.pop()
        texts += [str(one), repr(one), str(one.args), *traceback.format_exception(one)]
        texts.append(str(getattr(one, "hint", "")))
        todo += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
    return "\n".join(texts)


async def test_create_sends_the_key_as_it_is_and_reads_the_operation() -> None:
    """One POST with `Basic <key>` and JSON makes an operation, and the gate is told of its status."""
    gate = Gate()
    async with serving(sends(http(b'{"operationId":"op=="}'))) as server, client(server, gate) as api:
        assert await api.create(Definition(), HALF_HOUR, priority=Priority.CREATE) == "op=="
    [request] = server.requests
    assert request.startswith(b"POST /segments/v1/exports HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Basic {KEY}\r\n".encode() in request
    assert b"\r\nContent-Type: application/json\r\n" in request
    assert b"\r\nUser-Agent: asyncexport/" in request
    assert b'"segmentTimeRange":{"start":"2026-01-01T00:00:00Z"' in request
    assert gate.entered == [(Kind.CREATE, Priority.CREATE)]
    assert gate.left == [200]


async def test_before_is_awaited_after_the_gate_and_before_the_request() -> None:
    """What must be on record before a create is sent is on record by then."""
    gate, seen = Gate(), []

    async def note() -> None:
        seen.append((len(gate.entered), len(server.requests)))

    async with serving(sends(http(b'{"operationId":"o"}'))) as server, client(server, gate) as api:
        await api.create(Definition(), HALF_HOUR, before=note)
    assert seen == [(1, 0)]


async def test_nothing_is_sent_when_before_fails() -> None:
    """A create whose intent cannot be noted is not sent."""
    gate = Gate()

    async def fail() -> None:
        raise ZeroDivisionError

    async with serving(sends(http())) as server, client(server, gate) as api:
        with pytest.raises(ZeroDivisionError):
            await api.create(Definition(), HALF_HOUR, before=fail)
    assert server.requests == []
    assert gate.left == []


async def test_every_call_asks_for_its_own_path() -> None:
    """Each method is one request, with its kind and priority named to the gate."""
    gate = Gate()
    answers = [
        b'{"state":"COMPLETED","results":{"searchExportId":"e"}}',
        b'{"operations":[{"id":"o","state":"PENDING"}]}',
        b'{"location":"https://s.example/a?CANARY"}',
        b'{"id":"s","name":"S"}',
        b'{"email":"e","orgId":"O","role":"ADMIN"}',
    ]
    async with serving(*(sends(http(body)) for body in answers)) as server, client(server, gate) as api:
        assert (await api.operation("a/b=", priority=Priority.POLL)).progress == Completed("e")
        assert (await api.operations(state="PENDING", priority=Priority.POLL)).operations[0].id == "o"
        assert (await api.locate("e", priority=Priority.RESULTS)).host == "s.example"
        assert await api.segment("s") == Segment("s", "S")
        assert await api.me() == Me("e", "O", "ADMIN")
    assert [request.split(b" HTTP")[0] for request in server.requests] == [
        b"GET /operations/v1/a%2Fb%3D",
        b"GET /operations/v1?type=SEARCH_EXPORT&state=PENDING&limit=100",
        b"GET /search/v1/exports/e/results",
        b"GET /segments/v1/s",
        b"GET /me",
    ]
    assert gate.entered == [
        (Kind.POLL, Priority.POLL),
        (Kind.LIST, Priority.POLL),
        (Kind.RESULTS, Priority.RESULTS),
        (Kind.OTHER, Priority.REST),
        (Kind.OTHER, Priority.REST),
    ]


async def test_segments_come_page_by_page_and_once_each() -> None:
    """Pages are followed to the last; what moves between pages is not told twice."""
    first = http(b'{"segments":[{"id":"a"},{"id":"b"}],"nextPaginationToken":"t"}')
    second = http(b'{"segments":[{"id":"b"},{"id":"c"}],"nextPaginationToken":""}')
    async with serving(sends(first), sends(second)) as server, client(server) as api:
        assert [segment.id async for segment in api.segments()] == ["a", "b", "c"]
    assert b"paginationToken=t " in server.requests[1]


@pytest.mark.parametrize(
    "body", [b'{"segments":[{"id":"a"}],"nextPaginationToken":"t"}', b'{"nextPaginationToken":"t"}']
)
async def test_a_list_of_segments_without_end_ends(body: bytes) -> None:
    """A repeated token or page after empty page does not keep us for ever."""
    async with serving(sends(http(body))) as server, client(server) as api:
        with pytest.raises(ReplyError):
            _ = [segment async for segment in api.segments()]
    assert len(server.requests) == 2


async def test_empty_pages_with_fresh_tokens_end() -> None:
    """Not even if each has a token of its own."""
    pages = [sends(http(b'{"segments":[],"nextPaginationToken":"%d"}' % n)) for n in range(9)]
    async with serving(*pages) as server, client(server) as api:
        with pytest.raises(ReplyError):
            _ = [segment async for segment in api.segments()]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("401 Unauthorized", UnauthorizedError),
        ("403 Forbidden", RefusedError),
        ("404 Not Found", GoneError),
        ("500 Oops", UnavailableError),
        ("204 No Content", ReplyError),
    ],
)
async def test_a_status_is_judged_and_told_to_the_gate(status: str, error: type[ExportError]) -> None:
    """Whatever the status, it is one request, one error, and the gate hears of it."""
    gate = Gate()
    async with serving(sends(http(b"", status))) as server, client(server, gate) as api:
        with pytest.raises(error):
            await api.operation("o")
    assert len(server.requests) == 1
    assert gate.left == [int(status[:3])]


async def test_a_429_tells_the_gate_how_long_to_wait() -> None:
    """Retry-After reaches the gate and the error."""
    gate = Gate()
    async with serving(sends(http(b"", "429 Slow", Retry_After="31"))) as server, client(server, gate) as api:
        with pytest.raises(RateLimitedError) as caught:
            await api.me()
    assert caught.value.retry_after == 31.0
    assert gate.left == [(429, 31.0)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_with_the_key(status: int) -> None:
    """The server a redirect names gets no request at all."""
    async with serving(sends(http())) as elsewhere:
        away = http(b"", f"{status} Away", DownloadLink=f"{elsewhere.url}/x?CANARY=1")
        async with serving(sends(away)) as server, client(server) as api:
            with pytest.raises(RefusedError) as caught:
                await api.create(Definition(), HALF_HOUR)
    assert elsewhere.requests == []
    assert "CANARY" not in shown(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sends(), UnavailableError),
        (sends(reset=True), UnavailableError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Le"), UnavailableError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), UnavailableError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", reset=True), UnavailableError),
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), UnavailableError),
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), ReplyError),
        (sends(b"\x16\x03\x01\x02garbage\r\n\r\n"), ReplyError),
        (sends(b"SSH-2.0-OpenSSH_9\r\n"), ReplyError),
        (sends(b"HTTP/1.1 OK 200\r\n\r\n"), ReplyError),
        (sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 50_000 + b"\r\n\r\n"), ReplyError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), ReplyError),
    ],
)
@pytest.mark.parametrize("is_create", [True, False])
async def test_a_broken_answer_is_one_request_and_no_status(
    answer: Answer,
    error: type[ExportError],
    is_create: bool,  # noqa: FBT001 - a table's column
) -> None:
    """A reset, a cut or garbage is never sent again behind our back, and never taken for a status of the service."""
    gate = Gate()
    async with serving(answer) as server, client(server, gate) as api:
        with pytest.raises(ExportError) as caught:
            await (api.create(Definition(), HALF_HOUR) if is_create else api.operation("o"))
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert gate.left == [None]
    assert "CANARY" not in shown(caught.value)
    if isinstance(caught.value, UnavailableError):
        assert caught.value.unanswered


async def test_a_refused_connection_was_never_sent() -> None:
    """What could not be sent cannot have been done: not a possible duplicate."""
    gate = Gate()
    # As long as the port is taken nobody else can listen there.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        async with client(Server(f"http://127.0.0.1:{port}", port), gate) as api:
            with pytest.raises(UnavailableError, match="refused") as caught:
                await api.create(Definition(), HALF_HOUR)
    assert not caught.value.unanswered
    assert gate.left == [None]


@pytest.mark.may_idle(10)  # if the machine has a name server that does not answer
async def test_a_name_that_does_not_resolve_is_an_outage() -> None:
    """No DNS is the network's trouble, and nothing was sent."""
    async with Client(base_url="https://nowhere.invalid", key=KEY, gate=Gate()) as api:
        with pytest.raises(UnavailableError, match=r"nowhere\.invalid") as caught:
            await api.me()
    assert not caught.value.unanswered


async def test_a_service_that_stays_out_of_reach_is_told_of_once_and_so_is_its_return(caplog) -> None:
    """After half a minute the reason is a warning, not at every try; a hiccup is none; the end is told, too."""
    now = [1000.0]
    statuses = ["503 No"] * 3 + ["200 OK", "503 No", "200 OK"]
    answers = [sends(http(b'{"email":"","orgId":"","role":""}', status)) for status in statuses]
    async with serving(*answers) as server, client(server, wall_clock=lambda: now[0]) as api:
        for status in statuses:
            if status == "200 OK":
                await api.me()
            else:
                with pytest.raises(UnavailableError):
                    await api.me()
            now[0] += 20
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2, told
    assert "503" in told[0]
    assert told[1] == "the service answers again"


async def test_an_outage_that_is_given_up_names_its_last_reason() -> None:
    """Hours later somebody must know whether it was the name, the network or the service."""

    class Closed(Gate):
        async def enter(self, kind: Kind, priority: Priority, **_: object) -> Gate:
            if self.left:
                raise UnavailableError("could not be reached for 6 h", lasting=True, hint="later")
            return await super().enter(kind, priority)

    async with serving(sends(http(b"", "503 No"))) as server, client(server, Closed()) as api:
        with pytest.raises(UnavailableError):
            await api.me()
        with pytest.raises(UnavailableError, match=r"could not be reached for 6 h \(.*503.*\)") as caught:
            await api.me()
    assert caught.value.hint == "later"
    assert not caught.value.transient


@pytest.mark.parametrize(
    "answer", [stays_silent_after(), stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")]
)
async def test_a_stalled_answer_ends(answer: Answer) -> None:
    """An answer that does not come, or stops, is given up after the time allowed."""
    gate = Gate()
    async with (
        serving(answer) as server,
        client(server, gate, connect_timeout_seconds=0.5, read_timeout_seconds=0.1) as api,
    ):
        with pytest.raises(UnavailableError) as caught:
            await api.me()
    assert caught.value.unanswered
    assert gate.left == [None]


async def test_a_dripping_answer_ends() -> None:
    """The whole of a reply has its time: a byte now and then does not prolong it."""

    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(10_000):
            writer.write(http(b" " * 10_000)[at : at + 1])
            await asyncio.sleep(0.01)

    async with serving(drip) as server:
        settings: dict[str, Any] = {"connect_timeout_seconds": 0.1, "read_timeout_seconds": 0.2}
        async with client(server, **settings) as api:
            with pytest.raises(UnavailableError):
                await api.me()


async def test_a_huge_answer_is_refused() -> None:
    """No reply can fill the memory."""

    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _size in range(MAX_REPLY_BYTES // len(DATA) + 8):
            writer.write(DATA)
            await writer.drain()

    async with serving(flood) as server, client(server) as api:
        with pytest.raises(ReplyError):
            await api.me()


async def test_an_error_is_judged_though_its_text_is_cut() -> None:
    """A 401 stays a 401 when its body breaks off."""
    gate = Gate()
    cut = b"HTTP/1.1 401 No\r\nContent-Length: 999\r\n\r\nbad key"
    async with serving(sends(cut)) as server, client(server, gate) as api:
        with pytest.raises(UnauthorizedError, match="bad key"):
            await api.me()
    assert gate.left == [401]


async def test_a_compressed_answer_cut_short_is_no_answer() -> None:
    """A truncated gzip body, which aiohttp would take for a whole one, is refused."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(b'{"operationId":"o"}') + squeeze.flush()
    answers = [sends(http(part, Content_Encoding="gzip")) for part in (body, body[:-8])]
    async with serving(*answers) as server, client(server) as api:
        assert await api.create(Definition(), HALF_HOUR) == "o"
        with pytest.raises(ReplyError):
            await api.create(Definition(), HALF_HOUR)


async def test_an_echoed_key_is_not_passed_on() -> None:
    """A service that repeats the key in its error does not make us show it."""
    slashed = KEY.replace("/", "\\/")
    for text in (f"bad key {KEY}", f'{{"message":"bad {slashed}"}}', f"bad {KEY[4:]}"):
        async with serving(sends(http(text.encode(), "401 No"))) as server, client(server) as api:
            with pytest.raises(UnauthorizedError) as caught:
                await api.me()
        assert "CANARY" not in shown(caught.value)
        assert "bad" in str(caught.value)


async def test_a_cancelled_call_gives_its_pass_back() -> None:
    """A cancel says nothing of the service, and leaves no connection behind."""
    gate, arrived = Gate(), asyncio.Event()

    async def hang(_: bytes, __: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(hang) as server, client(server, gate) as api:
        call = asyncio.create_task(api.me())
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert gate.left == ["abandoned"]


async def test_the_services_clock_is_told_once() -> None:
    """The first reply with a date, whatever its status, says how far the service's clock is ahead."""
    ahead: list[float] = []
    answers = [
        sends(http()),
        sends(http(b"", "500 No", Date="Thu, 01 Jan 2026 00:00:10 GMT")),
        sends(http(b"{}", Date="Thu, 01 Jan 2026 00:00:20 GMT")),
    ]
    async with (
        serving(*answers) as server,
        client(server, on_date=ahead.append, wall_clock=lambda: 1_767_225_600.0) as api,
    ):
        for _ in range(2):
            with pytest.raises(ServiceError):
                await api.me()
        await api.me()
    assert ahead == [10.0]


async def test_the_users_headers_go_along_but_never_replace_the_key() -> None:
    """Extra headers are for the API alone, and Authorization stays ours."""
    headers = {"Integration-Source": "acme", "authorization": "Bearer other", "user-agent": "mine"}
    async with serving(sends(http(b"{}"))) as server, client(server, headers=headers) as api:
        await api.me()
        async with api.open(link(server)) as body:
            await read(body)
    first, second = server.requests
    assert b"\r\nIntegration-Source: acme\r\n" in first
    assert b"\r\nuser-agent: mine\r\n" in first
    assert first.lower().count(b"authorization") == first.lower().count(b"user-agent") == 1
    assert f"Basic {KEY}".encode() in first
    assert b"acme" not in second


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"": "a"}, {"X\n": "a"}, {"host": "other.example"}])
async def test_a_header_that_cannot_be_sent_is_a_config_error(headers: dict[str, str]) -> None:
    """A line end in a header, and a Host, which a proxy would see, are found before anything is sent."""
    with pytest.raises(ConfigError):
        Client(base_url="https://x.example", key=KEY, gate=Gate(), headers=headers)


async def test_the_storage_gets_the_link_byte_for_byte_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed URL is not touched, and no key, cookie or netrc entry goes with it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login CANARY password CANARY\ndefault login CANARY password CANARY\n")
    monkeypatch.setenv("NETRC", str(netrc))
    answer = sends(http(b"data", Set_Cookie="a=CANARY; Path=/", Connection="close"))
    async with serving(answer) as server, client(server) as api:
        # Cookies are never kept for a bare address, so the name is used.
        named = DownloadLink(f"http://localhost:{server.port}{SIGNED}")
        for _ in range(2):
            async with api.open(named) as body:
                assert await read(body) == b"data"
    for request in server.requests:
        assert request.startswith(f"GET {SIGNED} HTTP/1.1\r\n".encode())
        assert b"\r\nAccept-Encoding: gzip\r\n" in request
        names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:] if line}
        assert names == {b"host", b"accept", b"accept-encoding", b"user-agent"}


async def test_bytes_come_as_they_were_sent() -> None:
    """Nothing is inflated on the way, whatever Content-Encoding says."""
    squeeze = zlib.compressobj(wbits=31)
    packed = squeeze.compress(DATA) + squeeze.flush()
    answer = sends(http(packed, Content_Encoding="gzip", ETag='"t"', X_Goog_Hash="crc32c=A, md5=B"))
    async with serving(answer) as server:
        data, body = await fetch(server)
    assert data == packed
    assert body.end_proved
    assert (body.offset, body.length, body.etag) == (0, len(packed), '"t"')
    assert body.goog_hash == ("crc32c=A", "md5=B")


async def test_a_hash_may_stand_in_two_headers() -> None:
    """Both lines of `x-goog-hash` are seen."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-goog-hash: crc32c=A\r\nX-Goog-Hash: md5=B\r\n\r\n"
    async with serving(sends(answer)) as server:
        _, body = await fetch(server)
    assert body.goog_hash == ("crc32c=A", "md5=B")


@pytest.mark.parametrize(
    ("head", "pieces", "is_proved"),
    [
        (b"Content-Length: 6", [b"abcdef"], True),
        (b"Content-Length: 0", [b""], True),
        (b"Transfer-Encoding: chunked", [b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n"], True),
        (b"Transfer-Encoding: chunked", [b"0\r\n\r\n"], True),
        (b"Connection: close", [b"abc", b"def"], False),
        (b"Connection: close", [], False),
    ],
)
async def test_an_end_is_proved_by_length_or_closing_chunk(head: bytes, pieces: list[bytes], is_proved: bool) -> None:  # noqa: FBT001 - a table's column
    """A body that merely stops is read, and not vouched for."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n", *pieces)) as server:
        data, body = await fetch(server)
    assert data in (b"abcdef", b"")
    assert body.end_proved is is_proved


async def test_a_reset_of_a_body_without_length_proves_nothing() -> None:
    """Even a reset may look like an end there; it is not taken for one."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\n\r\n", b"abc", reset=True)) as server:
        try:
            _, body = await fetch(server)
        except IncompleteError:
            return
    assert not body.end_proved


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "head_and_start",
    [
        b"Content-Length: 2000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n100000\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n200000\r\n",
    ],
)
async def test_a_cut_body_is_incomplete(head_and_start: bytes, reset: bool) -> None:  # noqa: FBT001 - a table's column
    """A body that ends before its length or its closing chunk raises, and what came before it was handed on."""
    answer = sends(b"HTTP/1.1 200 OK\r\n" + head_and_start, DATA, reset=reset)
    async with serving(answer) as server, client(server) as api, api.open(link(server)) as body:
        with pytest.raises(IncompleteError) as caught:
            await read(body)
    assert not body.end_proved
    assert caught.value.transient
    assert "CANARY" not in shown(caught.value)
    if not reset:
        assert 0 < body.received <= len(DATA)


async def test_garbage_between_chunks_is_incomplete() -> None:
    """A broken framing is a fault: neither an end nor, as in aiohttp itself, a wait for ever."""
    read_so_far = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await read_so_far.wait()
        writer.write(b"xyz\r\n0\r\n\r\n")

    async with (
        serving(answer) as server,
        client(server, read_timeout_seconds=0.5) as api,
        api.open(link(server)) as body,
    ):
        chunks = body.chunks()
        assert await anext(chunks) == b"abc"
        read_so_far.set()
        with pytest.raises(IncompleteError):
            await anext(chunks)
    assert not body.end_proved


async def test_a_connection_that_went_after_garbage_between_chunks_is_cut() -> None:
    """What aiohttp takes for a bug of its caller is a fault of the line."""
    read_so_far = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await read_so_far.wait()
        writer.write(b"xyz\r\n")

    async with serving(answer) as server, client(server) as api, api.open(link(server)) as body:
        chunks = body.chunks()
        assert await anext(chunks) == b"abc"
        read_so_far.set()
        while body._content._protocol.connected:  # noqa: ASYNC110 - nobody tells when it goes
            await asyncio.sleep(0)
        with pytest.raises(IncompleteError):
            await anext(chunks)
    assert not body.end_proved


async def test_more_than_the_length_is_not_handed_on() -> None:
    """Bytes beyond the promised length are no part of the file; where they come at once, the answer is no HTTP."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")) as server:
        with pytest.raises(ReplyError):
            await fetch(server)


async def test_a_stalled_body_is_incomplete() -> None:
    """No bytes for the time allowed: it is given up."""
    answer = stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    async with serving(answer) as server:
        with pytest.raises(IncompleteError, match="after 3 bytes"):
            await fetch(server, read_timeout_seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [stays_silent_after(), stays_silent_after(b"HTTP/1.1 200 OK\r\n")])
async def test_a_stalled_head_of_a_download_is_an_outage(answer: Answer) -> None:
    """A storage host that does not answer is given up."""
    async with serving(answer) as server:
        with pytest.raises(UnavailableError) as caught:
            await fetch(server, connect_timeout_seconds=0.1, read_timeout_seconds=0.1)
    assert "CANARY" not in shown(caught.value)


def drips(*, seconds: float, head: bytes = b"") -> Answer:
    """An answer of one byte at a time, for ever."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


async def test_a_dripping_head_of_a_download_ends() -> None:
    """A byte now and then does not keep a head open."""
    async with serving(drips(seconds=0.01, head=b"HTTP/1.1 200 OK\r\nX: ")) as server:
        with pytest.raises(UnavailableError):
            await fetch(server, connect_timeout_seconds=0.1, read_timeout_seconds=0.1)


async def test_a_dripping_body_is_incomplete() -> None:
    """A drip never stalls, and is given up all the same, since it is below the floor."""
    answer = drips(seconds=0.005, head=b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    async with serving(answer) as server:
        with pytest.raises(IncompleteError, match="slow"):
            await fetch(server, rate_window_seconds=0.1, min_rate=100_000)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sends(http(b"<Error><Code>ExpiredToken</Code><Details>CANARY</Details></Error>", "400 Bad")), GoneError),
        (sends(http(b"<Error><Code>ExpiredToken</Code></Error>", "403 No")), GoneError),
        (sends(http(b"<Error><Code>AccessDenied</Code>CANARY</Error>", "403 No")), RefusedError),
        (sends(http(b"", "401 No")), RefusedError),
        (sends(http(b"", "404 No")), GoneError),
        (sends(http(b"", "503 No")), UnavailableError),
        (sends(http(b"", "302 Away", DownloadLink="http://127.0.0.1:1/CANARY")), ReplyError),
        (sends(), UnavailableError),
        (sends(reset=True), UnavailableError),
        (sends(b"garbage\r\n\r\n"), ReplyError),
    ],
)
async def test_a_download_that_cannot_begin_is_one_request(answer: Answer, error: type[ExportError]) -> None:
    """Whatever the storage host says is one request and one error, without any of the link."""
    async with serving(answer) as server:
        with pytest.raises(ExportError) as caught:
            await fetch(server)
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert "CANARY" not in shown(caught.value)


async def test_a_cut_download_goes_on() -> None:
    """The rest is asked for by range and ETag, and begins where it was cut."""
    answer = sends(http(b"defg", "206 Partial Content", Content_Range="bytes 3-6/7", ETag='"t"'))
    async with serving(answer) as server:
        data, body = await fetch(server, offset=3, etag='"t"')
    assert b"\r\nRange: bytes=3-\r\n" in server.requests[0]
    assert b'\r\nIf-Range: "t"\r\n' in server.requests[0]
    assert (data, body.offset, body.length, body.end_proved) == (b"defg", 3, 4, True)


async def test_a_server_that_ignores_ranges_begins_again() -> None:
    """A 200 is the whole file, and says so."""
    async with serving(sends(http(b"abcdefg"))) as server:
        data, body = await fetch(server, offset=3, etag='"t"')
    assert (data, body.offset, body.length) == (b"abcdefg", 0, 7)


@pytest.mark.parametrize(
    "answer",
    [
        http(b"cdefg", "206 Partial Content", Content_Range="bytes 2-6/7"),
        http(b"defg", "206 Partial Content", Content_Range="bytes 3-6/7", ETag='"u"'),
        http(b"", "416 Range Not Satisfiable", Content_Range="bytes */3"),
    ],
)
async def test_a_wrong_part_is_not_taken(answer: bytes) -> None:
    """A part that is not the rest of the same file means: begin at 0."""
    async with serving(sends(answer)) as server:
        with pytest.raises(IncompleteError):
            await fetch(server, offset=3, etag='"t"')


async def test_a_download_left_early_closes_its_connection() -> None:
    """Who stops reading does not leave a connection open, nor spoil the next download."""
    async with serving(sends(http(DATA)), sends(http(b"next")), keep_alive=True) as server, client(server) as api:
        async with api.open(link(server)) as body:
            async for _ in body.chunks():
                break
        async with api.open(link(server)) as body:
            assert await read(body) == b"next"
    assert server.connections == 2


async def test_downloads_share_a_connection_and_calls_do_not() -> None:
    """Storage connections are kept alive; an API call has a fresh one, so that none is ever sent twice."""
    async with serving(sends(http(b"{}")), keep_alive=True) as server, client(server) as api:
        for _ in range(3):
            async with api.open(link(server)) as body:
                await read(body)
        assert server.connections == 1
        await api.me()
        await api.me()
    assert server.connections == 3


async def test_a_cancelled_download_closes_its_connection() -> None:
    """A cancel in the middle of a body is passed on as it is."""
    answer = stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    async with serving(answer) as server, client(server) as api:
        begun = asyncio.Event()

        async def download() -> None:
            async with api.open(link(server)) as body:
                async for _ in body.chunks():
                    begun.set()

        task = asyncio.create_task(download())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def server_tls(authority: trustme.CA, name: str = "localhost", **dates: Any) -> ssl.SSLContext:
    """A server's side of TLS with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **dates).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its certificate, to be trusted."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


async def test_an_own_authority_can_be_trusted(authority: trustme.CA, ca_file: str) -> None:
    """`[api] ca_file` holds for both hosts."""
    async with serving(sends(http(b"{}")), tls=server_tls(authority)) as server, client(server, ca_file=ca_file) as api:
        await api.me()
        async with api.open(link(server)) as body:
            assert await read(body) == b"{}"


LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("name", "dates", "why"),
    [
        ("localhost", {}, "unable to get"),
        ("other.example", {}, "not valid for"),
        ("localhost", {"not_before": LONG_AGO, "not_after": LONG_AGO + dt.timedelta(days=1)}, "expired"),
    ],
)
async def test_a_bad_certificate_is_no_outage(
    authority: trustme.CA, ca_file: str, name: str, dates: dict[str, Any], why: str
) -> None:
    """An untrusted, wrong or expired certificate is told at once, with a hint, since waiting does not cure it."""
    gate = Gate()
    settings: dict[str, Any] = {"ca_file": ca_file} if why != "unable to get" else {}
    async with (
        serving(sends(http()), tls=server_tls(authority, name, **dates)) as server,
        client(server, gate, **settings) as api,
    ):
        for call in (api.me(), fetch(server, **settings)):
            with pytest.raises(ServiceError, match=why) as caught:
                await call
            assert type(caught.value) is ServiceError
            assert not caught.value.transient
            assert caught.value.hint
            assert "CANARY" not in shown(caught.value)
    assert server.requests == []
    assert gate.left == ["abandoned"]


async def test_a_server_without_tls_is_an_outage() -> None:
    """TLS that does not come about for another reason may pass."""
    answer = sends(b"HTTP/1.1 400 No\r\n\r\n")
    settings: dict[str, Any] = {"connect_timeout_seconds": 0.2}
    async with serving(answer) as plain, client(plain, base_url=f"https://127.0.0.1:{plain.port}", **settings) as api:
        with pytest.raises(UnavailableError) as caught:
            await api.me()
    assert not caught.value.unanswered


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_bad_ca_file_is_a_config_error(tmp_path: Path, text: str | None) -> None:
    """A CA file that is missing, or none, is told with its name."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        async with Client(base_url="https://x.example", key=KEY, gate=Gate(), ca_file=str(path)):
            pass


async def test_a_proxy_is_used_for_both_hosts() -> None:
    """`[api] proxy` carries API calls and downloads."""
    async with (
        serving(sends(http(b"{}"))) as proxy,
        serving(sends()) as server,
        client(server, proxy=proxy.url) as api,
    ):
        await api.me()
        async with api.open(link(server)) as body:
            await read(body)
    assert [request.split(b" HTTP/")[0] for request in proxy.requests] == [
        f"GET {server.url}/me".encode(),
        f"GET {server.url}{SIGNED}".encode(),
    ]
    assert server.requests == []


async def test_the_environments_proxy_is_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `proxy = "environment"` the environment has no say; with it, `no_proxy` has, too."""
    async with serving(sends(http(b"{}"))) as proxy, serving(sends(http(b"{}"))) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
        monkeypatch.delenv("no_proxy", raising=False)
        async with client(server) as api:
            await api.me()
        async with client(server, proxy="environment") as api:
            await api.me()
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await api.me()
    assert len(proxy.requests) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("spelling", ["url", "environment"])
@pytest.mark.parametrize("user", ["", "proxyuser:p%40ss"])
async def test_a_request_for_a_tunnel_holds_nothing_but_the_host_and_our_name(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, ca_file: str, user: str, spelling: str
) -> None:
    """A proxy sees no key and none of the user's headers, and no credentials but those in its own URL."""
    headers = {"Integration-Source": "CANARYheader", "User-Agent": "CANARYagent"}
    tls = server_tls(authority, "*.fullstory.example")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(sends(http(b"{}")), tls=tls) as server, tunnelling(server.port) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url(user))
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file, "headers": headers}
        chosen = proxy.url(user) if spelling == "url" else spelling
        async with client(server, proxy=chosen, **settings) as api:
            await api.me()
            async with api.open(DownloadLink(f"https://storage.fullstory.example{SIGNED}")) as body:
                await read(body)
    asked = {"Proxy-Authorization": f"Basic {b64encode(b'proxyuser:p@ss').decode()}"} if user else {}
    for head, host in zip(proxy.heads, ("api.fullstory.example", "storage.fullstory.example"), strict=True):
        first, *lines = head.decode().rstrip("\r\n").split("\r\n")
        assert first == f"CONNECT {host}:443 HTTP/1.1"
        sent = dict(line.split(": ", 1) for line in lines)
        assert sent.pop("User-Agent").startswith("asyncexport/")
        # aiohttp's own; they say nothing of us.
        for name in ("Accept", "Accept-Encoding", "Connection"):
            sent.pop(name, None)
        assert sent == {"Host": host, **asked}
    assert b"CANARY" not in b"".join(proxy.received)
    assert b"Integration-Source: CANARYheader" in server.requests[0]
    assert f"Authorization: Basic {KEY}".encode() in server.requests[0]
    assert b"CANARYkey" not in server.requests[1]


@pytest.mark.parametrize("spelling", ["url", "environment"])
async def test_plain_http_never_goes_through_the_proxy_of_another_machine(
    monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """It is for this machine alone, and a proxy could read the key."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(sends(http(b"{}"))) as server:
        chosen = "http://proxy.example:3128" if spelling == "url" else spelling
        async with client(server, proxy=chosen) as api:
            await api.me()
            async with api.open(link(server)) as body:
                await read(body)
    assert [request.split(b" ")[1] for request in server.requests] == [b"/me", SIGNED.encode()]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sends(http(b"", "407 Auth")), ServiceError),
        (sends(http(b"", "503 No")), UnavailableError),
        (sends(), UnavailableError),
    ],
)
async def test_a_proxys_refusal_is_not_the_services(answer: Answer, error: type[ExportError]) -> None:
    """A proxy that says no to a tunnel is never taken for the service; its password is not shown."""
    gate = Gate()
    async with serving(answer) as proxy:
        url = f"http://user:CANARYpw@127.0.0.1:{proxy.port}"
        async with Client(base_url="https://api.example", key=KEY, gate=gate, proxy=url) as api:
            with pytest.raises(ServiceError) as caught:
                await api.me()
    assert type(caught.value) is error
    assert proxy.requests[0].startswith(b"CONNECT api.example:443 ")
    assert f"Basic {KEY}".encode() not in proxy.requests[0]
    assert "CANARY" not in shown(caught.value)


async def test_nothing_of_a_secret_is_in_a_repr() -> None:
    """Neither client nor body nor link shows a key or a signature."""
    async with serving(sends(http(b"x"))) as server, client(server) as api, api.open(link(server)) as body:
        assert "CANARY" not in repr(api) + repr(body) + repr(link(server))
