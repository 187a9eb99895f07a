"""The sandbox's storage host: signed URLs, files, and every form in which a file can be delivered."""

import asyncio
import base64
import gzip
import hashlib
import os
import re
import zlib
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import google_crc32c
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, show
from asyncexport.sandbox import SandboxBehaviour, serving
from asyncexport.sandbox.behaviour import Delivery
from asyncexport.sandbox.contents import KEPT_BYTES, THREADS, SandboxArchives, SandboxRepeatedBody
from asyncexport.sandbox.formats import render, row_json
from asyncexport.sandbox.stored_files import HELD_BYTES, SandboxDiskBody, SandboxFile, finished, stored
from tests.sandbox_client import Caller, ask, unchunked

NOW = 1_780_000_000.0
"""A time in 2026, for clocks that stand still."""

START = 1_779_913_800
HALF_HOUR = 1800

QUICK = SandboxBehaviour(operation_seconds=0.0, requests_per_minute=1e6, burst=1_000_000, rows_per_hour=60, quiet=0)
"""Operations finish immediately, and the rate limit is never reached."""


def stopped_clock():
    return NOW


def texts(rows):
    return Counter(map(row_json, rows))


async def test_urls_exports_and_operations_expire_separately():
    """The signed URL expires first and can be requested again; then the export expires, then the operation."""
    async with serving(QUICK, clock=stopped_clock) as box:
        call = Caller(box)
        operation_id = await call.created(START, START + HALF_HOUR)
        export_id = box.operations[0].export_id
        link = call.path((await call.results(export_id)).data["location"])
        box.skip(299)
        assert (await call.download(link)).status == 200
        box.skip(2)
        dead = await call.download(link)
        assert dead.status == 400
        assert b"<Code>ExpiredToken</Code><Message>The provided token has expired.</Message>" in dead.body
        fresh = call.path((await call.results(export_id)).data["location"])
        assert (await call.download(fresh)).status == 200
        box.skip(7 * DAY)
        assert (await call.results(export_id)).status == 404
        assert (await call.poll(operation_id)).status == 200
        box.skip(30 * DAY)
        assert (await call.poll(operation_id)).status == 404


async def test_an_expired_signed_url_has_two_wordings_and_two_statuses():
    """Both have the same error code."""
    behaviour = replace(QUICK, expired_link=403, expired_wording="new", link_life_seconds=0.0)
    async with serving(behaviour, clock=stopped_clock) as box:
        call = Caller(box)
        got = await call.download(await call.located(START, START + HALF_HOUR))
        assert got.status == 403
        assert b"<Code>ExpiredToken</Code><Message>Invalid argument.</Message><Details>Request signature" in got.body


async def test_a_signed_url_is_valid_only_byte_for_byte():
    """A client that changes its escapes or leaves something out is refused."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, START + HALF_HOUR)
        assert (await call.download(link)).status == 200
        for other in (link.replace("%2f", "%2F"), link.replace("%7e", "~"), link[:-1], link.replace("&x=", "&y=")):
            assert other != link
            got = await call.download(other)
            assert got.status == 403
            assert b"<Code>SignatureDoesNotMatch</Code>" in got.body


def test_every_part_of_a_repeated_body_is_right():
    """Any range of a body gives the right bytes, whatever its head, block and tail."""
    for head, block, times, tail in ((b"", b"abc", 3, b"xy"), (b"hd", b"abc", 2, b""), (b"hd", b"abc", 0, b"xy")):
        body = SandboxRepeatedBody(head, block, times, tail)
        whole = head + block * times + tail
        assert len(body) == len(whole)
        for start in range(len(whole) + 1):
            for stop in range(start, len(whole) + 1):
                assert b"".join(body.pieces(start, stop)) == whole[start:stop]


@pytest.mark.slow
async def test_simultaneous_downloads_share_one_file():
    """Twenty simultaneous downloads make the file once, and kept files stay within their limit."""
    made = []

    def maker(number, size):
        def make():
            made.append(number)
            yield
            return SandboxFile.of(bytes(size))

        return make

    archives = SandboxArchives()
    await asyncio.gather(*(archives.shared((1,), maker(1, 1000)) for _ in range(20)))
    assert made == [1]
    for number in range(2, 6):
        await archives.shared((number,), maker(number, KEPT_BYTES // 2))
    await archives.shared((5,), maker(5, 1))
    assert made == [1, 2, 3, 4, 5]
    await archives.shared((1,), maker(1, 1000))
    assert made[-1] == 1
    await archives.close()


async def test_a_small_file_does_not_wait_for_big_ones():
    """Files take turns step by step, even if more are in progress than there are threads."""

    def endless():
        while True:
            yield

    def small():
        for _ in range(20):
            yield
        return SandboxFile.of(b"small")

    archives = SandboxArchives()
    waiting = [asyncio.create_task(archives.shared((number,), endless)) for number in range(3 * THREADS)]
    await asyncio.sleep(0)
    assert (await archives.shared(("small",), small)).content == b"small"
    assert not any(one.done() for one in waiting)
    await archives.close()
    assert all(
        isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*waiting, return_exceptions=True)
    )


async def test_a_file_that_failed_is_made_again():
    """An error reaches all who wait for the file, and the next request makes it again."""

    def broken():
        yield
        raise OSError("no space left")

    def whole():
        yield
        return SandboxFile.of(b"whole")

    archives = SandboxArchives()
    got = await asyncio.gather(*(archives.shared((1,), broken) for _ in range(2)), return_exceptions=True)
    assert [str(one) for one in got] == ["no space left"] * 2
    assert (await archives.shared((1,), whole)).content == b"whole"
    await archives.close()


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 9), st.integers(0, 300), st.integers(0, 300))
def test_a_file_on_disk_equals_one_in_memory(pieces, copies, start, length):
    """Both have the same bytes in every range and the same checksums."""
    small = b"".join(pieces)
    pieces = [*pieces, *[bytes([copies]) * (HELD_BYTES // 9 + 1)] * copies]
    data = b"".join(pieces)
    file = finished(stored(iter(pieces)))
    in_memory = SandboxFile.of(data)
    assert (file.etag, file.crc32c, file.md5) == (in_memory.etag, in_memory.crc32c, in_memory.md5)
    assert isinstance(file.content, SandboxDiskBody) == (len(data) > HELD_BYTES)
    if isinstance(file.content, SandboxDiskBody):
        assert len(file.content) == len(data)
        for first in (start, len(small) + start, HELD_BYTES - start):
            last = min(len(data), first + length * 2000)
            assert b"".join(file.content.pieces(first, last)) == data[first:last]
    else:
        assert file.content == data


def test_a_file_on_disk_is_closed_after_its_last_use(tmp_path):
    """It stays open while it is being read."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    descriptor = os.open(path, os.O_RDONLY)
    body = SandboxDiskBody(descriptor, 3)
    pieces = body.pieces(0, 3)
    del body
    assert list(pieces) == [b"abc"]
    del pieces
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


class CountedRow(dict[str, Any]):
    """A row that counts how many rows exist at the same time."""

    there = most = 0

    def __init__(self, *args):
        super().__init__(*args)
        CountedRow.there += 1
        CountedRow.most = max(CountedRow.most, CountedRow.there)

    def __del__(self):
        CountedRow.there -= 1


class ManyRows:
    """One row a second; only the last row of a range has a custom member."""

    def between(self, start, end, *, arrived_by=None):
        """Yield the rows of a range."""
        assert arrived_by is None or end <= arrived_by
        for number in range(int(start), int(end)):
            last = {"evt_last_str": "x"} if number == int(end) - 1 else {}
            yield CountedRow({"IndvId": 1, "EventStart": show(number), "EventTargetText": "row " * 100, **last})

    def history(self, start, end, *, as_of):  # noqa: ARG002 - no page views
        """Yield nothing."""
        yield from ()


@pytest.mark.parametrize("container", ["CSV", "NDJSON", "JSON"])
@pytest.mark.parametrize("delivery", ["gzip", "plain", "nested", "members", "inflated", "recompressed"])
async def test_no_file_is_in_memory_as_a_whole(container, delivery):
    """Rows are made while they are written, in every format and delivery, and a CSV header names all columns."""
    count = 3000
    async with serving(replace(QUICK, rows=ManyRows(), delivery=delivery), clock=stopped_clock) as box:
        call = Caller(box)
        link = await call.located(START, START + count, format=f"FORMAT_{container}")
        CountedRow.most = CountedRow.there = 0
        got = await call.download(link)
        assert CountedRow.most < 10
        assert CountedRow.there == 0
        data = got.body
        while data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        rows = list(ManyRows().between(START, START + count))
        assert data == b"".join(render(rows, container.lower()))
        if delivery == "plain":
            part = await call.download(link, Range=f"bytes=1000-{HELD_BYTES + 9}")
            assert (part.status, part.body) == (206, data[1000 : HELD_BYTES + 10])


@pytest.mark.slow
async def test_the_event_loop_is_free_while_a_file_is_made():
    """A thread makes the rows, and other requests are answered meanwhile."""
    async with serving(replace(QUICK, rows_per_hour=200)) as box:
        call = Caller(box)
        link = await call.located(START - 5 * DAY, START)
        download = asyncio.create_task(ask(box.url, link, wait_seconds=60))
        answered = 0
        while not download.done():
            assert (await call.get("/me", wait_seconds=10)).status == 200
            answered += 1
        assert (await download).status == 200
        assert answered >= 3


class TestDownloads:
    """The headers and bodies of downloads."""

    async def _fetched(self, behaviour, **headers):
        async with serving(behaviour, clock=stopped_clock) as box:
            call = Caller(box)
            link = await call.located(START, START + 4 * HALF_HOUR)
            rows = texts(box.events(START, START + 4 * HALF_HOUR))
            return await call.download(link, **headers), rows

    async def test_the_default_is_a_gzip_file(self):
        """It has its length, hashes and a strong ETag, and no Content-Encoding."""
        got, rows = await self._fetched(QUICK)
        assert got.header("Content-Type") == "application/gzip"
        assert got.header("Content-Encoding") is None
        assert got.header("Content-Length") == str(len(got.body))
        assert got.header("Content-Disposition") == 'attachment; filename="Everyone 2026-05-27.gz"'
        crc32c = base64.b64encode(google_crc32c.value(got.body).to_bytes(4, "big")).decode()
        md5 = base64.b64encode(hashlib.md5(got.body).digest()).decode()
        assert got.values("x-goog-hash") == [f"crc32c={crc32c}", f"md5={md5}"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', got.header("ETag") or "")
        assert Counter(gzip.decompress(got.body).splitlines()) == rows

    @pytest.mark.slow
    @pytest.mark.parametrize("delivery", get_args(Delivery))
    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    async def test_every_delivery_has_the_same_rows(self, delivery, framing):
        """The rows are the same with any compression and any framing."""
        got, rows = await self._fetched(replace(QUICK, delivery=delivery, framing=framing), Accept_Encoding="gzip")
        assert got.ended == "eof"
        body = got.body
        layers = {"plain": 0, "inflated": 0, "nested": 2, "encoded-gzip": 2}.get(delivery, 1)
        for _ in range(layers):
            body = gzip.decompress(body)
        assert Counter(body.splitlines()) == rows
        assert got.header("Content-Encoding") == (
            "gzip" if "encoded" in delivery or delivery == "recompressed" else None
        )
        assert (got.header("Content-Length") is not None) == (framing == "length")
        if framing == "chunked":
            assert unchunked(got.raw.partition(b"\r\n\r\n")[2])[1]

    @pytest.mark.parametrize("delivery", ["inflated", "recompressed"])
    @pytest.mark.parametrize("stored_form", [True, False])
    async def test_hashes_may_be_those_of_the_stored_file(self, delivery, stored_form):
        """The body was changed on the way, and headers may say so."""
        got, _ = await self._fetched(replace(QUICK, delivery=delivery, stored_form=stored_form))
        crc32c = base64.b64encode(google_crc32c.value(got.body).to_bytes(4, "big")).decode()
        assert f"crc32c={crc32c}" not in got.values("x-goog-hash")
        assert (got.header("x-goog-stored-content-encoding") is not None) == stored_form

    async def test_gzip_may_have_several_members(self):
        """A decompressor that reads one member stops before the end."""
        got, _ = await self._fetched(replace(QUICK, delivery="members"))
        first = zlib.decompressobj(wbits=31)
        first.decompress(got.body)
        assert first.unused_data

    @pytest.mark.parametrize("delivery", ["encoded", "encoded-gzip"])
    async def test_a_client_without_accept_encoding_gets_a_decoded_body(self, delivery):
        """The storage host decodes the file and does not send its length."""
        got, rows = await self._fetched(replace(QUICK, delivery=delivery), Accept_Encoding="identity")
        assert got.header("Content-Encoding") is None
        assert got.header("Content-Length") is None
        body = got.body if delivery == "encoded" else gzip.decompress(got.body)
        assert Counter(body.splitlines()) == rows

    @pytest.mark.parametrize(
        ("switch", "names"), [("crc32c", ["crc32c"]), ("md5", ["md5"]), ("none", []), ("wrong", ["crc32c", "md5"])]
    )
    async def test_hashes_can_be_left_out_or_be_wrong(self, switch, names):
        """A switch chooses the hashes."""
        got, _ = await self._fetched(replace(QUICK, goog_hash=switch))
        found = [value.partition("=")[0] for value in got.values("x-goog-hash")]
        assert found == names
        right = base64.b64encode(hashlib.md5(got.body).digest()).decode()
        assert (f"md5={right}" in got.values("x-goog-hash")) == (switch == "md5")

    async def test_a_range_can_be_requested(self):
        """Each form of a range gets a 206 and a Content-Range, one beyond the end a 416; invalid ones are ignored."""
        async with serving(QUICK) as box:
            call = Caller(box)
            link = await call.located(START, START + DAY)
            whole = await call.download(link)
            size, etag = len(whole.body), whole.header("ETag") or ""
            for wanted, first, last in (("100-", 100, size - 1), ("5-9", 5, 9), ("-7", size - 7, size - 1)):
                got = await call.download(link, Range=f"bytes={wanted}", If_Range=etag)
                assert (got.status, got.body) == (206, whole.body[first : last + 1])
                assert got.header("Content-Range") == f"bytes {first}-{last}/{size}"
                assert got.header("ETag") == etag
                assert got.values("x-goog-hash") == whole.values("x-goog-hash")
            beyond = await call.download(link, Range=f"bytes={size}-")
            assert (beyond.status, beyond.header("Content-Range")) == (416, f"bytes */{size}")
            for odd in ("bytes=9-5", "bytes=5-2", f"bytes={size + 9}-{size}", "lines=1-2", "bytes=-", "bytes=1-2,4-5"):
                ignored = await call.download(link, Range=odd)
                assert (ignored.status, ignored.body) == (200, whole.body)
            other = await call.download(link, Range="bytes=100-", If_Range='"another"')
            assert (other.status, other.body) == (200, whole.body)

    async def test_ranges_can_be_ignored_and_etags_left_out(self):
        """Then the complete file is sent without an ETag."""
        got, _ = await self._fetched(replace(QUICK, ranges=False, etag=False), Range="bytes=100-")
        assert got.status == 200
        assert got.header("ETag") is None
        assert got.header("Accept-Ranges") is None
        assert gzip.decompress(got.body)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name", ["../../../etc/passwd", "a\0b.gz", "x" * 4000, 'q"; filename="w', "C:\\con", "日本"]
    )
    async def test_file_names_can_be_hostile(self, name):
        """The name in Content-Disposition is sent unescaped, even with a NUL or 4000 characters."""
        got, _ = await self._fetched(replace(QUICK, file_name=name))
        assert got.status == 200
        assert f'filename="{name}"'.encode() in got.raw.partition(b"\r\n\r\n")[0]

    @pytest.mark.parametrize(
        ("switch", "body"), [("usual", b"[]"), ("plain", b"[]"), ("nothing", b""), ("gzip-of-nothing", b"")]
    )
    async def test_an_empty_export_has_many_forms(self, switch, body):
        """It may be gzipped or not, and an empty container or no bytes at all."""
        async with serving(replace(QUICK, empty=switch, rows_per_hour=0)) as box:
            call = Caller(box)
            got = await call.download(await call.located(START, START + 60, format="FORMAT_JSON"))
            assert got.status == 200
            assert (got.body[:2] == b"\x1f\x8b") == (switch in ("usual", "gzip-of-nothing"))
            assert (gzip.decompress(got.body) if got.body[:2] == b"\x1f\x8b" else got.body) == body

    @pytest.mark.slow
    @pytest.mark.parametrize("delivery", ["gzip", "plain"])
    async def test_big_files_need_no_memory(self, delivery):
        """A filler has exactly the requested size, can be downloaded in ranges, and has the right hashes."""
        size = 8_000_000
        async with serving(replace(QUICK, filler_bytes=size, delivery=delivery)) as box:
            call = Caller(box)
            link = await call.located(START, START + HALF_HOUR)
            whole = await call.download(link)
            inflated = gzip.decompress(whole.body) if delivery == "gzip" else whole.body
            assert len(inflated) == size
            assert orjson.loads(inflated.splitlines()[-1])["EventStart"]
            assert f"md5={base64.b64encode(hashlib.md5(whole.body).digest()).decode()}" in whole.values("x-goog-hash")
            middle = len(whole.body) // 3
            part = await call.download(link, Range=f"bytes={middle}-{middle + 900_000}")
            assert part.body == whole.body[middle : middle + 900_001]

    async def test_head_has_no_body(self):
        """Signed URLs are not valid for HEAD, and its answer has no body."""
        async with serving(QUICK) as box:
            call = Caller(box)
            got = await ask(box.url, await call.located(START, START + HALF_HOUR), method="HEAD")
            assert got.status == 404
            assert got.body == b""
