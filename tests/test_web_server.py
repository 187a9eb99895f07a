"""The HTTP server of the metrics and the status page: whom it answers, and that no client gets into the run's log."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from asyncexport.core.listen_address import ListenAddress
from asyncexport.monitor.web_server import serving

LONG = b"a" * 20_000

MALFORMED = [
    b"no HTTP\r\n\r\n",
    # The beginning of a TLS connection: somebody opened the address with https://.
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LONG + b"\r\n\r\n",
    b"GET /" + LONG + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: local\xffhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: ]localhost[\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost:port\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost:99999\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
]


@asynccontextmanager
async def served(*, host: str = "127.0.0.1", is_broken: bool = False) -> AsyncIterator[str]:
    """Serve a word at /, and yield the URL."""

    async def answer(_request: web.Request) -> web.Response:
        if is_broken:
            raise ZeroDivisionError
        return web.Response(text="hello")

    async with serving(ListenAddress(host, 0), [web.get("/", answer)], what="the word") as url:
        yield url


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what a run would print without -v."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.INFO]


async def first_line(url: str, request: bytes) -> bytes:
    """Send bytes and return the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(request)
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("request_bytes", MALFORMED)
async def test_what_clients_do_wrong_is_not_in_the_log(caplog, request_bytes):
    """They get 400, and a run prints nothing about it."""
    async with served() as url:
        assert b" 400 " in await first_line(url, request_bytes)
    assert not logged(caplog)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:80", 200),
        ("127.0.0.1", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
    ],
)
async def test_other_names_are_refused_unless_the_address_is_public(name, status):
    """A site whose name leads to this address cannot read an answer."""
    async with aiohttp.ClientSession() as session:
        async with served() as url, session.get(url, headers={"Host": name}) as answer:
            assert answer.status == status
        async with served(host="0.0.0.0") as url:
            port = url.rpartition(":")[2]
            async with session.get(f"http://127.0.0.1:{port}", headers={"Host": name}) as answer:
                assert answer.status == 200


async def test_an_answer_that_fails_is_one_warning(caplog):
    """However often it is asked for."""
    async with served(is_broken=True) as url, aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(url) as answer:
                assert answer.status == 500
    assert logged(caplog) == ["a request for the word could not be answered: unexpected ZeroDivisionError"]


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/", 405), ("HEAD", "/", 200), ("GET", "/x", 404)])
async def test_other_requests_get_their_status(caplog, method, path, status):
    """They are no errors of the run either."""
    async with served() as url, aiohttp.ClientSession() as session, session.request(method, url + path) as answer:
        assert answer.status == status
    assert not logged(caplog)
