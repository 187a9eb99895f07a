"""Gzip data, complete and damaged, cut into pieces of every size, with both libraries that may inflate it."""

import gzip
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from asyncexport.core.archive.gunzip import PIECE_BYTES, Gunzip
from asyncexport.errors import CorruptError, IncompleteError

ROWS = b'{"a":1}\n{"b":"text"}\n' * 3
BOTH = pytest.mark.parametrize("codec", [isal_zlib, zlib], ids=["isal", "zlib"])

HEADERS: dict[str, dict[str, Any]] = {
    "bare": {},
    "name": {"name": b"rows.ndjson"},
    "extra": {"extra": b"ab\x02\x00cd"},
    "comment": {"comment": b"a comment"},
    "checked": {"checked": True},
    "all": {"name": b"rows.ndjson", "extra": b"x" * 300, "comment": b"a comment", "checked": True, "text": True},
}


def member(
    data: bytes = ROWS,
    *,
    name: bytes = b"",
    extra: bytes = b"",
    comment: bytes = b"",
    checked: bool = False,
    text: bool = False,
    crc32: int | None = None,
    size: int | None = None,
    level: int = 6,
) -> bytes:
    """Return a gzip member with any header fields and, if asked, a wrong trailer."""
    flags = text | checked << 1 | bool(extra) << 2 | bool(name) << 3 | bool(comment) << 4
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\x12\x34\x56\x65\x02\x03"
    header += struct.pack("<H", len(extra)) + extra if extra else b""
    header += b"".join(part + b"\0" for part in (name, comment) if part)
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if checked else b""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    trailer = struct.pack(
        "<II", zlib.crc32(data) if crc32 is None else crc32, (len(data) if size is None else size) % 2**32
    )
    return header + deflate.compress(data) + deflate.flush() + trailer


def inflated(pieces: Iterable[bytes], codec: ModuleType = zlib) -> bytes:
    """Return the inflated content."""
    gunzip = Gunzip(codec=codec)
    found = b"".join(inner for piece in pieces for inner in gunzip.feed(piece))
    gunzip.close()
    return found


def bytewise(data: bytes) -> list[bytes]:
    """Return the same bytes, one at a time."""
    return [data[at : at + 1] for at in range(len(data))]


@BOTH
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_any_header_may_be_cut_anywhere(codec, header):
    """Names, comments, extra fields and header checksums are skipped, wherever the data is cut."""
    data = member(**header)
    assert gzip.decompress(data) == ROWS
    assert inflated(bytewise(data), codec) == ROWS
    for place in range(len(data)):
        assert inflated([data[:place], data[place:]], codec) == ROWS


@BOTH
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_cut_is_noticed_at_every_byte(codec, header):
    """Data that ends early is incomplete, whatever the position and the pieces."""
    data = member(**header)
    for end in range(len(data)):
        for pieces in ([data[:end]], bytewise(data[:end])):
            with pytest.raises(IncompleteError):
                inflated(pieces, codec)


@BOTH
@pytest.mark.parametrize(
    ("header", "harmless"),
    [("checked", set()), ("bare", {(3, 0), *itertools.product(range(4, 10), range(8))})],
)
def test_every_flipped_bit_is_noticed_or_harmless(codec, header, harmless):
    """A flipped bit is an error unless it is in a date, a system id or the unused bits of the last byte."""
    data = member(**HEADERS[header])
    unseen = set()
    for place, bit in itertools.product(range(len(data)), range(8)):
        damaged = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        try:
            assert inflated([damaged], codec) == ROWS
        except (CorruptError, IncompleteError):
            continue
        unseen.add((place, bit))
    rest = {(place, bit) for place, bit in unseen if place == len(data) - 9}
    assert unseen == harmless | rest
    assert len(rest) < 8


@BOTH
@pytest.mark.parametrize("lie", [{"crc32": 0}, {"size": 0}, {"size": len(ROWS) + 1}], ids=str)
def test_a_wrong_trailer_is_rejected(codec, lie):
    """A wrong checksum or a wrong length is damage, even if the other one is right."""
    for pieces in ([member(**lie)], bytewise(member(**lie))):
        with pytest.raises(CorruptError, match="damaged"):
            inflated(pieces, codec)


@BOTH
@given(
    contents=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    headers=st.lists(st.sampled_from(sorted(HEADERS)), min_size=4, max_size=4),
    cuts=st.lists(st.integers(0, 1500), max_size=6),
    padding=st.integers(0, 3),
)
def test_several_members_are_one_content(codec, contents, headers, cuts, padding):
    """Several members, empty ones included, are one content, wherever the data is cut."""
    data = b"".join(member(content, **HEADERS[name]) for content, name in zip(contents, headers, strict=False))
    data += bytes(padding)
    assert gzip.decompress(data) == b"".join(contents)
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    gunzip = Gunzip(codec=codec)
    found = [inner for a, b in itertools.pairwise(places) for inner in gunzip.feed(data[a:b])]
    gunzip.close()
    assert b"".join(found) == b"".join(contents)
    assert gunzip.members == len(contents)


@BOTH
@pytest.mark.parametrize(
    "garbage", [b"x", b"\0x", b"\x1f\x8c", b"\0\x1f\x8b", b"\x1f\x8b\x07", b'{"a":1}\n', b"\0" * 9 + member()]
)
def test_data_after_the_end_is_rejected(codec, garbage):
    """Only zeros may follow the last member, and nothing may follow zeros."""
    for pieces in ([member() + garbage], [member(), garbage], bytewise(member() + garbage)):
        with pytest.raises(CorruptError):
            inflated(pieces, codec)


@BOTH
def test_the_start_of_another_member_is_a_cut(codec):
    """Data that could continue is incomplete, not damaged."""
    with pytest.raises(IncompleteError):
        inflated([member() + b"\x1f"], codec)


@BOTH
@pytest.mark.parametrize("data", [b"", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08"])
def test_almost_no_data_is_a_cut(codec, data):
    """A file needs at least one complete member."""
    with pytest.raises(IncompleteError):
        inflated([data], codec)


@BOTH
@pytest.mark.parametrize("data", [b"x", b"\0", b'{"a":1}', b"\x1f\x8b\x09\0\0\0\0\0\0\0"])
def test_data_other_than_gzip_is_rejected(codec, data):
    """It is rejected at the first byte that cannot be gzip."""
    with pytest.raises(CorruptError):
        inflated([data], codec)


@BOTH
def test_an_endless_header_is_rejected_before_memory_is_full(codec):
    """A file name of a megabyte is damage."""
    with pytest.raises(CorruptError, match="endless gzip header"):
        inflated([b"\x1f\x8b\x08\x08" + bytes(6), *[b"x" * 65536] * 100], codec)


@BOTH
@pytest.mark.parametrize("extra", [-1, 0, 1, 300])
@pytest.mark.parametrize("level", [0, 9])
def test_content_of_about_whole_pieces_is_complete(codec, extra, level):
    """Content of about a whole number of pieces is complete, even though the compressed bytes run out early."""
    content = (ROWS * (3 * PIECE_BYTES // len(ROWS) + 1))[: 2 * PIECE_BYTES + extra]
    data = member(content, level=level)
    for places in ([0, len(data)], [0, len(data) - 8, len(data)], [0, len(data) - 9, len(data)]):
        assert inflated([data[a:b] for a, b in itertools.pairwise(places)], codec) == content


@pytest.mark.slow
@BOTH
def test_a_bomb_is_inflated_a_piece_at_a_time(codec):
    """A few bytes that inflate to many megabytes take no more memory than a few pieces."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    assert len(bomb) < 1 << 20
    gunzip = Gunzip(codec=codec)
    tracemalloc.start()
    try:
        assert sum(map(len, gunzip.feed(bomb))) == 64 << 20
        assert max(map(len, gunzip.feed(member()))) <= PIECE_BYTES
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    gunzip.close()
    assert peak < 8 << 20
