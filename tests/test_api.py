"""The API client against servers on loopback, most of them raw so that they can misbehave in every way."""

import asyncio
import gzip
import socket
import zlib
from contextlib import suppress
from typing import Any

import pytest

from asyncexport.client.api import ApiClient
from asyncexport.core.admission import Priority
from asyncexport.core.exports import Definition
from asyncexport.core.service.replies import MAX_REPLY_BYTES
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Completed, Ended, Me, Segment
from asyncexport.errors import (
    ConfigError,
    ExportError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from tests.client_rig import DATA, HALF_HOUR, KEY, Gate, client, create, shown
from tests.raw_server import Answer, Server, http, sends, serving, stays_silent_after
from tests.spellings import SPELLINGS

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


async def test_create_sends_the_key_unchanged_and_reads_the_operation() -> None:
    """One POST with `Basic <key>` and a JSON body creates an operation, and the gate receives its status."""
    gate = Gate()
    async with serving(sends(http(b'{"operationId":"op=="}'))) as server, client(server, gate) as api:
        assert await create(api, gate) == "op=="
    [request] = server.requests
    assert request.startswith(b"POST /segments/v1/exports HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Basic {KEY}\r\n".encode() in request
    assert b"\r\nContent-Type: application/json\r\n" in request
    assert b"\r\nUser-Agent: asyncexport/" in request
    assert b'"segmentTimeRange":{"start":"2026-01-01T00:00:00Z"' in request
    assert gate.entered == [(Kind.CREATE, Priority.CREATE)]
    assert gate.left == [200]


async def test_nothing_is_sent_before_its_row_is_written() -> None:
    """A create that is cancelled while its row is being written is not sent; a later one is."""
    gate = Gate(takes=0.05)
    async with serving(sends(http(b'{"operationId":"o"}'))) as server, client(server, gate) as api:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(create(api, gate), 0.01)
        assert (server.requests, gate.left) == ([], ["unsent"])
        assert await create(api, gate) == "o"
    assert len(server.requests) == 1


async def test_a_permit_receives_the_reason_of_a_failure() -> None:
    """The permit holds the text of the error, so that giving up can report the reason; a success has none."""
    gate = Gate()
    problems = []
    answers = sends(http(b"", "503 No")), sends(), sends(http(b'{"operationId":"o"}'))
    async with serving(*answers) as server, client(server, gate) as api:
        for _ in answers:
            async with gate.permit(Kind.CREATE, Priority.CREATE) as permit:
                with suppress(UnavailableError):
                    await api.create(Definition(), HALF_HOUR, permit=permit)
                problems.append(permit.problem)
    assert gate.left == [503, None, 200]
    assert "503" in problems[0]
    assert "the connection to 127.0.0.1 was lost" in problems[1]
    assert problems[2] == ""


async def test_every_call_requests_its_own_path() -> None:
    """Each method sends one request and passes its kind and priority to the gate."""
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


async def test_segments_come_page_by_page_without_duplicates() -> None:
    """All pages are read, and a segment that appears on two pages is returned once."""
    first = http(b'{"segments":[{"id":"a"},{"id":"b"}],"nextPaginationToken":"t"}')
    second = http(b'{"segments":[{"id":"b"},{"id":"c"}],"nextPaginationToken":""}')
    async with serving(sends(first), sends(second)) as server, client(server) as api:
        assert [segment.id async for segment in api.segments()] == ["a", "b", "c"]
    assert b"paginationToken=t " in server.requests[1]


@pytest.mark.parametrize(
    "body", [b'{"segments":[{"id":"a"}],"nextPaginationToken":"t"}', b'{"nextPaginationToken":"t"}']
)
async def test_an_endless_list_of_segments_is_an_error(body: bytes) -> None:
    """A repeated token or an empty page with a next token ends the listing with an error."""
    async with serving(sends(http(body))) as server, client(server) as api:
        with pytest.raises(ReplyError):
            _ = [segment async for segment in api.segments()]
    assert len(server.requests) == 2


async def test_empty_pages_with_new_tokens_are_an_error() -> None:
    """Empty pages end the listing even if each one has a new token."""
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
async def test_a_status_becomes_an_error_and_reaches_the_gate(status: str, error: type[ExportError]) -> None:
    """Each status results in one request and one error, and the gate receives it."""
    gate = Gate()
    async with serving(sends(http(b"", status))) as server, client(server, gate) as api:
        with pytest.raises(error):
            await api.operation("o")
    assert len(server.requests) == 1
    assert gate.left == [int(status[:3])]


async def test_a_429_tells_the_gate_how_long_to_wait() -> None:
    """Retry-After reaches both the gate and the error."""
    gate = Gate()
    async with serving(sends(http(b"", "429 Slow", Retry_After="31"))) as server, client(server, gate) as api:
        with pytest.raises(RateLimitedError) as caught:
            await api.me()
    assert caught.value.retry_after == 31.0
    assert gate.left == [(429, 31.0)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_with_the_key(status: int) -> None:
    """The target of a redirect gets no request at all."""
    async with serving(sends(http())) as elsewhere:
        away = http(b"", f"{status} Away", Location=f"{elsewhere.url}/x?CANARY=1")
        async with serving(sends(away)) as server, client(server) as api:
            with pytest.raises(RefusedError) as caught:
                await create(api)
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
        (sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n"), ReplyError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), ReplyError),
    ],
)
@pytest.mark.parametrize("is_create", [True, False])
async def test_a_broken_answer_is_one_request_without_a_status(
    answer: Answer,
    error: type[ExportError],
    is_create: bool,  # noqa: FBT001 - a table's column
) -> None:
    """After a reset, cut or garbled answer the request is not repeated automatically and no status is recorded."""
    gate = Gate()
    async with serving(answer) as server, client(server, gate) as api:
        with pytest.raises(ExportError) as caught:
            await (create(api, gate) if is_create else api.operation("o"))
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert gate.left == [None]
    assert "CANARY" not in shown(caught.value)
    if isinstance(caught.value, UnavailableError):
        assert caught.value.unanswered


async def test_a_refused_connection_counts_as_not_sent() -> None:
    """A request that could not be sent is no possible duplicate."""
    gate = Gate()
    # While the port is bound, no other process can listen on it.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        async with client(Server(f"http://127.0.0.1:{port}", port), gate) as api:
            with pytest.raises(UnavailableError, match="refused") as caught:
                await create(api, gate)
    assert not caught.value.unanswered
    assert gate.left == [None]


@pytest.mark.may_idle(10)  # A name server may be configured but not answer.
async def test_a_name_that_does_not_resolve_is_an_outage() -> None:
    """A DNS failure is an outage, and the request counts as not sent."""
    async with ApiClient(base_url="https://nowhere.invalid", key=KEY, gate=Gate()) as api:
        with pytest.raises(UnavailableError, match=r"nowhere\.invalid") as caught:
            await api.me()
    assert not caught.value.unanswered


async def test_an_outage_and_its_end_are_logged_once(caplog) -> None:
    """An outage of half a minute logs a warning with the reason, and another when it ends; a short one logs nothing."""
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
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2, warnings
    assert "503" in warnings[0]
    assert warnings[1] == "the service answers again"


@pytest.mark.parametrize(
    "answer", [stays_silent_after(), stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")]
)
async def test_a_stalled_answer_times_out(answer: Answer) -> None:
    """An answer that does not arrive, or stops, fails after the configured timeout."""
    gate = Gate()
    async with (
        serving(answer) as server,
        client(server, gate, connect_timeout_seconds=0.5, read_timeout_seconds=0.1) as api,
    ):
        with pytest.raises(UnavailableError) as caught:
            await api.me()
    assert caught.value.unanswered
    assert gate.left == [None]


async def test_a_dripping_answer_times_out() -> None:
    """The timeout applies to the reply as a whole: a byte now and then does not extend it."""

    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(10_000):
            writer.write(http(b" " * 10_000)[at : at + 1])
            await asyncio.sleep(0.01)

    async with serving(drip) as server:
        settings: dict[str, Any] = {"connect_timeout_seconds": 0.1, "read_timeout_seconds": 0.2}
        async with client(server, **settings) as api:
            with pytest.raises(UnavailableError):
                await api.me()


async def test_a_huge_answer_is_rejected() -> None:
    """No reply can exhaust the memory, and its status still reaches the gate."""
    gate = Gate()

    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _size in range(MAX_REPLY_BYTES // len(DATA) + 8):
            writer.write(DATA)
            await writer.drain()

    async with serving(flood) as server, client(server, gate) as api:
        with pytest.raises(ReplyError):
            await api.me()
    assert gate.left == [200]


async def test_an_error_status_counts_although_its_body_is_cut() -> None:
    """A 401 stays a 401 when its body is cut off."""
    gate = Gate()
    cut = b"HTTP/1.1 401 No\r\nContent-Length: 999\r\n\r\nbad key"
    async with serving(sends(cut)) as server, client(server, gate) as api:
        with pytest.raises(UnauthorizedError, match="bad key"):
            await api.me()
    assert gate.left == [401]


async def test_a_truncated_compressed_answer_is_an_error() -> None:
    """A truncated gzip body, which aiohttp would accept as complete, is rejected."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(b'{"operationId":"o"}') + squeeze.flush()
    answers = [sends(http(part, Content_Encoding="gzip")) for part in (body, body[:-8])]
    async with serving(*answers) as server, client(server) as api:
        assert await create(api) == "o"
        with pytest.raises(ReplyError):
            await create(api)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", [KEY, KEY[4:], "CANARY-header+/="])
async def test_an_echoed_secret_is_never_shown(spelling, secret) -> None:
    """If the service repeats the key or a header in any spelling, no error or log shows it."""
    gate, spelt = Gate(), spelling(secret)
    operation = b'{"id":"o","state":"FAILED","errorDetails":"bad %s"}' % spelt.replace("\\", "\\\\").encode()
    bodies = [f"bad {spelt}".encode(), f'{{"message":"bad {spelt}"}}'.encode()]
    answers = [
        *(sends(http(body, "401 No")) for body in bodies),
        *(sends(http(gzip.compress(body), "400 No", Content_Encoding="gzip")) for body in bodies),
        sends(http(f"<html><title>bad {spelt}</title>".encode())),
        sends(http(operation)),
    ]
    headers = {"X-Token": "CANARY-header+/="}
    async with serving(*answers) as server, client(server, gate, headers=headers) as api:
        for _ in answers[:-1]:
            with pytest.raises(ServiceError) as caught:
                await api.me()
            assert spelt not in shown(caught.value)
            assert "CANARY" not in shown(caught.value)
            assert "bad ***" in str(caught.value)
        found = await api.operation("o")
    assert found.progress == Ended("bad ***")


async def test_a_cancelled_call_gives_its_permit_back() -> None:
    """A cancelled call records no status and leaves no connection open."""
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


async def test_each_valid_answer_provides_the_time() -> None:
    """The date of a success is passed on with the kind of call; errors, other pages and cached answers are ignored."""
    heard: list[tuple[Kind, float]] = []
    date = "Thu, 01 Jan 2026 00:00:10 GMT"
    answers = [
        sends(http(b"{}", Date=date)),
        sends(http(b"", "503 No", Date="Thu, 01 Jan 2026 12:00:00 GMT")),
        sends(http(b"<html></html>", Date="Thu, 01 Jan 2026 12:00:00 GMT")),
        sends(http(b"{}", Date="Wed, 31 Dec 2025 00:00:00 GMT", Age="86400")),
        sends(http(b"{}")),
        sends(http(b'{"operations": []}', Date=date)),
    ]
    async with serving(*answers) as server, client(server, on_date=lambda *call: heard.append(call)) as api:
        for _ in answers[:-1]:
            with suppress(ServiceError):
                await api.me()
        await api.operations()
    assert [kind for kind, _ in heard] == [Kind.OTHER, Kind.LIST]
    assert all(0 <= at - 1_767_225_610.0 < 5 for _, at in heard)


async def test_a_slow_body_does_not_make_the_date_older() -> None:
    """The date belongs to the head, and the time spent on reading the body is added to it."""
    heard: list[float] = []
    head = http(b"{}", Date="Thu, 01 Jan 2026 00:00:10 GMT")[:-2]

    async def slow(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"{}")

    async with serving(slow) as server, client(server, on_date=lambda _, at: heard.append(at)) as api:
        await api.me()
    assert 0.1 < heard[0] - 1_767_225_610.0 < 5


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"": "a"}, {"X\n": "a"}, {"host": "other.example"}])
async def test_a_header_that_cannot_be_sent_is_a_config_error(headers: dict[str, str]) -> None:
    """A line break in a header, and a Host header, are rejected before anything is sent."""
    with pytest.raises(ConfigError):
        ApiClient(base_url="https://x.example", key=KEY, gate=Gate(), headers=headers)
