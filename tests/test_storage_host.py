"""Downloads from servers on loopback, mostly raw ones that can misbehave in every way."""

import asyncio
import zlib
from pathlib import Path

import pytest

from asyncexport.core.service.resources import DownloadLink
from asyncexport.errors import ExportError, GoneError, IncompleteError, RefusedError, ReplyError, UnavailableError
from tests.client_rig import DATA, SIGNED, fetch, link, read, shown, storage
from tests.raw_server import Answer, drips, http, sends, serving, stays_silent_after

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


async def test_the_storage_host_gets_the_signed_url_unchanged_and_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed URL is sent byte for byte, without a key, cookie or netrc entry."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login CANARY password CANARY\ndefault login CANARY password CANARY\n")
    monkeypatch.setenv("NETRC", str(netrc))
    answer = sends(http(b"data", Set_Cookie="a=CANARY; Path=/", Connection="close"))
    async with serving(answer) as server, storage() as host:
        # aiohttp keeps no cookies for an IP address, so the host name is used.
        named = DownloadLink(f"http://localhost:{server.port}{SIGNED}")
        for _ in range(2):
            async with host.open(named) as body:
                assert await read(body) == b"data"
    for request in server.requests:
        assert request.startswith(f"GET {SIGNED} HTTP/1.1\r\n".encode())
        assert b"\r\nAccept-Encoding: gzip\r\n" in request
        names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:] if line}
        assert names == {b"host", b"accept", b"accept-encoding", b"user-agent"}


async def test_bytes_are_passed_on_as_they_were_sent() -> None:
    """A body is not decompressed, whatever its Content-Encoding is."""
    squeeze = zlib.compressobj(wbits=31)
    packed = squeeze.compress(DATA) + squeeze.flush()
    answer = sends(http(packed, Content_Encoding="gzip", ETag='"t"', X_Goog_Hash="crc32c=A, md5=B"))
    async with serving(answer) as server:
        data, body = await fetch(server)
    assert data == packed
    assert body.end_proved
    assert (body.offset, body.length, body.etag) == (0, len(packed), '"t"')
    assert body.goog_hash == ("crc32c=A", "md5=B")


async def test_hashes_in_two_headers_are_read() -> None:
    """Both `x-goog-hash` headers of a reply are read."""
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
async def test_an_end_is_proved_by_length_or_last_chunk(head: bytes, pieces: list[bytes], is_proved: bool) -> None:  # noqa: FBT001 - a table's column
    """The end of a body is proved by its length or its last chunk, but not by a closed connection."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n", *pieces)) as server:
        data, body = await fetch(server)
    assert data in (b"abcdef", b"")
    assert body.end_proved is is_proved


async def test_a_reset_of_a_body_without_length_proves_nothing() -> None:
    """A reset of a body without a length does not prove its end."""
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
    """A body that ends before its length or its last chunk raises, and the bytes before that were passed on."""
    answer = sends(b"HTTP/1.1 200 OK\r\n" + head_and_start, DATA, reset=reset)
    async with serving(answer) as server, storage() as host, host.open(link(server)) as body:
        with pytest.raises(IncompleteError) as caught:
            await read(body)
    assert not body.end_proved
    assert caught.value.transient
    assert "CANARY" not in shown(caught.value)
    if not reset:
        assert 0 < body.received <= len(DATA)


async def test_garbage_between_chunks_is_incomplete() -> None:
    """Broken chunked encoding makes a body incomplete instead of waiting forever, as aiohttp itself would."""
    read_so_far = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await read_so_far.wait()
        writer.write(b"xyz\r\n0\r\n\r\n")

    async with (
        serving(answer) as server,
        storage(read_timeout_seconds=0.5) as host,
        host.open(link(server)) as body,
    ):
        chunks = body.chunks()
        assert await anext(chunks) == b"abc"
        read_so_far.set()
        with pytest.raises(IncompleteError):
            await anext(chunks)
    assert not body.end_proved


async def test_a_connection_closed_after_garbage_between_chunks_is_incomplete() -> None:
    """If the connection is closed after broken chunked encoding, the body is incomplete."""
    read_so_far = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await read_so_far.wait()
        writer.write(b"xyz\r\n")

    async with serving(answer) as server, storage() as host, host.open(link(server)) as body:
        chunks = body.chunks()
        assert await anext(chunks) == b"abc"
        read_so_far.set()
        while body._content._protocol.connected:  # noqa: ASYNC110 - there is no event for its end
            await asyncio.sleep(0)
        with pytest.raises(IncompleteError):
            await anext(chunks)
    assert not body.end_proved


async def test_a_body_longer_than_its_length_is_refused() -> None:
    """A reply with more bytes than its Content-Length is an error."""
    async with serving(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")) as server:
        with pytest.raises(ReplyError):
            await fetch(server)


async def test_a_stalled_body_is_incomplete() -> None:
    """A body that sends nothing for the read timeout is incomplete."""
    answer = stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    async with serving(answer) as server:
        with pytest.raises(IncompleteError, match="after 3 bytes"):
            await fetch(server, read_timeout_seconds=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [stays_silent_after(), stays_silent_after(b"HTTP/1.1 200 OK\r\n")])
async def test_a_stalled_head_of_a_download_is_an_outage(answer: Answer) -> None:
    """A storage host that does not answer in time counts as an outage."""
    async with serving(answer) as server:
        with pytest.raises(UnavailableError) as caught:
            await fetch(server, connect_timeout_seconds=0.1, read_timeout_seconds=0.1)
    assert "CANARY" not in shown(caught.value)


async def test_a_dripping_head_of_a_download_is_an_outage() -> None:
    """Headers that arrive one byte at a time do not extend the timeout."""
    async with serving(drips(seconds=0.01, head=b"HTTP/1.1 200 OK\r\nX: ")) as server:
        with pytest.raises(UnavailableError):
            await fetch(server, connect_timeout_seconds=0.1, read_timeout_seconds=0.1)


async def test_a_dripping_body_is_incomplete() -> None:
    """A body that drips below the minimum rate is incomplete, although it never stalls."""
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
        (sends(http(b"", "302 Away", Location="http://127.0.0.1:1/CANARY")), ReplyError),
        (sends(), UnavailableError),
        (sends(reset=True), UnavailableError),
        (sends(b"garbage\r\n\r\n"), ReplyError),
    ],
)
async def test_a_download_that_cannot_start_is_one_request(answer: Answer, error: type[ExportError]) -> None:
    """Any failing answer of the storage host costs one request and gives one error that does not contain the URL."""
    async with serving(answer) as server:
        with pytest.raises(ExportError) as caught:
            await fetch(server)
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert "CANARY" not in shown(caught.value)


async def test_a_cut_download_is_resumed() -> None:
    """The rest of a file is requested by range and ETag, from where the download was cut."""
    answer = sends(http(b"defg", "206 Partial Content", Content_Range="bytes 3-6/7", ETag='"t"'))
    async with serving(answer) as server:
        data, body = await fetch(server, offset=3, etag='"t"')
    assert b"\r\nRange: bytes=3-\r\n" in server.requests[0]
    assert b'\r\nIf-Range: "t"\r\n' in server.requests[0]
    assert (data, body.offset, body.length, body.end_proved) == (b"defg", 3, 4, True)


async def test_a_server_that_ignores_ranges_sends_the_complete_file() -> None:
    """A 200 for a range request is the complete file from offset 0."""
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
async def test_a_wrong_part_is_refused(answer: bytes) -> None:
    """A part that is not the rest of the same file makes the download incomplete."""
    async with serving(sends(answer)) as server:
        with pytest.raises(IncompleteError):
            await fetch(server, offset=3, etag='"t"')


async def test_a_download_that_is_left_early_closes_its_connection() -> None:
    """A download that is not read to its end closes its connection, and the next one is not affected."""
    async with serving(sends(http(DATA)), sends(http(b"next")), keep_alive=True) as server, storage() as host:
        async with host.open(link(server)) as body:
            async for _ in body.chunks():
                break
        async with host.open(link(server)) as body:
            assert await read(body) == b"next"
    assert server.connections == 2


async def test_a_cancelled_download_closes_its_connection() -> None:
    """A cancel in the middle of a body raises CancelledError."""
    answer = stays_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    async with serving(answer) as server, storage() as host:
        begun = asyncio.Event()

        async def download() -> None:
            async with host.open(link(server)) as body:
                async for _ in body.chunks():
                    begun.set()

        task = asyncio.create_task(download())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
