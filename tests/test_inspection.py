"""Inspection of archives: each way to wrap, cut and damage an export is tested, in pieces of every size."""

import base64
import gzip
import hashlib
import itertools
import json
import tracemalloc
import zlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from asyncexport.core.archive.inspection import HELD_BYTES, MOST_LAYERS, Inspector
from asyncexport.core.archive.proof import BodyForm, BodyProof
from asyncexport.core.archive.wire_hash import WireCheck, WireHashes, read_goog_hash
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive
from asyncexport.errors import ArchiveError, CorruptError, IncompleteError, OtherHashError, UnprovedEmptyError
from tests.inspecting import inspect_pieces

PATH = "events/one.ndjson.gz"
BOTH = pytest.mark.parametrize("codec", [isal_zlib, zlib], ids=["isal", "zlib"])
ROWS = b'{"a":1}\n{"b":"\xc3\xa9"}\n{"c":[]}\n'
EMPTY = {Format.NDJSON: [b"", b"\n"], Format.JSON: [b"", b"[]", b"[]\n"], Format.CSV: [b"", b"a,b", b"a,b\n"]}


def packed(data: bytes, *, layers: int = 1, members: int = 1) -> bytes:
    """Return the data in `layers` layers of gzip, each of `members` members."""
    for _ in range(layers):
        places = [len(data) * number // members for number in range(members + 1)]
        data = b"".join(gzip.compress(data[a:b], mtime=0) for a, b in itertools.pairwise(places))
    return data


def crc32c(data: bytes) -> bytes:
    """Return the digest used in `x-goog-hash`."""
    checksum = google_crc32c.Checksum(data)
    digest: bytes = checksum.digest()
    return digest


def md5(data: bytes) -> bytes:
    """Return the digest used in `x-goog-hash`."""
    return hashlib.md5(data).digest()


def pieces_of(data: bytes, size: int) -> list[bytes]:
    """Return the data in pieces of this size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def archive_from(
    body: Iterable[bytes],
    container: Format = Format.NDJSON,
    *,
    proved: bool = True,
    hashes: WireHashes | None = None,
    codec: ModuleType = zlib,
) -> tuple[bytes, Archive]:
    """Return the archive made of a body, and its description."""
    body = list(body)
    wire = WireCheck(hashes)
    for piece in body:
        wire.feed(piece)
    written = bytearray()
    for rewrites in (False, True):
        written.clear()
        inspector = Inspector(container, path=PATH, write=written.extend, recompresses=rewrites, codec=codec)
        for piece in body:
            inspector.feed(piece)
        if not inspector.needs_another_pass:
            break
    found = inspector.close(BodyProof(end_proved=proved, hashed=wire.holds))
    return bytes(written) if found.is_remade else b"".join(body), found.archive


def check_archive(written: bytes, found: Archive, content: bytes) -> None:
    """Check that the archive is one layer of gzip around the content and is described correctly."""
    assert gzip.decompress(written) == content
    assert found.bytes == len(written)
    assert found.sha256 == hashlib.sha256(written).hexdigest()
    assert found.path == PATH
    assert inspect_pieces([written], Format.NDJSON, path=PATH) == found


# What is written


@BOTH
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9), max_size=2), max_size=5),
    wrapping=st.tuples(st.integers(0, MOST_LAYERS), st.integers(1, 3)),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    bom=st.booleans(),
)
def test_one_layer_of_gzip_is_written_for_any_wrapping_and_pieces(codec, rows, wrapping, cuts, bom):
    """Plain data and up to four layers of gzip with several members become one layer around the innermost content."""
    content = b"\xef\xbb\xbf" * bom + b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    layers, members = wrapping
    body = packed(content, layers=layers, members=members)
    places = [0, *sorted(min(place, len(body)) for place in cuts), len(body)]
    written, found = archive_from([body[a:b] for a, b in itertools.pairwise(places)], codec=codec)
    check_archive(written, found, content)
    assert found.rows == len(rows)
    assert (written, found) == archive_from([body]) == archive_from(pieces_of(body, 1), codec=codec)
    if layers and members == 1:
        assert written == packed(content)
    else:
        assert written == archive_from([content])[0]


def test_the_received_bytes_are_kept():
    """A single gzip member is stored unchanged, whatever its header contains."""
    body = gzip.compress(ROWS, 1, mtime=12345)
    written, found = archive_from(pieces_of(body, 7))
    assert written == body
    assert found.rows == 3


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("tail", [gzip.compress(b""), gzip.compress(ROWS), bytes(5)], ids=["empty", "rows", "zeros"])
def test_several_members_become_one(layers, tail):
    """Some readers stop after the first member, and trailing zeros look like the result of a power cut."""
    written, found = archive_from(pieces_of(packed(packed(ROWS) + tail, layers=layers - 1), 7))
    check_archive(written, found, gzip.decompress(packed(ROWS) + tail))
    assert written == archive_from([gzip.decompress(written)])[0]


@pytest.mark.parametrize("container", Format)
@pytest.mark.parametrize("layers", range(3))
def test_an_empty_export_is_an_archive_without_rows(container, layers):
    """A range without data is a success, in every form that it may be sent in."""
    for content in EMPTY[container]:
        written, found = archive_from(pieces_of(packed(content, layers=layers), 1), container)
        assert gzip.decompress(written) == content
        assert found.rows == 0
        assert inspect_pieces([written], container, path=PATH) == found


def test_a_body_that_is_already_an_archive_is_not_rewritten():
    """The part file is kept as it is; the content of a wrapper is written as it is unwrapped."""
    archive = gzip.compress(ROWS * 100_000, 0)
    written = bytearray()
    inspector = Inspector(Format.NDJSON, path=PATH, write=written.extend)
    inspector.feed(archive)
    assert not inspector.close().is_remade
    assert not written
    inspector = Inspector(Format.NDJSON, path=PATH, write=written.extend)
    inspector.feed(gzip.compress(archive, 0))
    assert written == archive
    assert inspector.close().is_remade


# What is rejected


@BOTH
@pytest.mark.parametrize(("layers", "members"), [(1, 1), (2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_a_body_cut_at_any_byte_is_rejected(codec, layers, members, size):
    """Gzip that ends early is incomplete; after a cut between two members the content shows it."""
    body = packed(ROWS, layers=layers, members=members)
    for end in range(len(body)):
        with pytest.raises(IncompleteError if members == 1 else ArchiveError):
            archive_from(pieces_of(body[:end], size), proved=False, codec=codec)


@BOTH
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_cut_inner_layer_is_rejected(codec, layers):
    """An inner layer may be cut although the outer one is complete."""
    inner = packed(ROWS, layers=layers)
    for end in range(3, len(inner)):
        with pytest.raises(IncompleteError):
            archive_from([packed(inner[:end])], codec=codec)


@BOTH
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("place", [-8, -4, -1])
def test_a_wrong_checksum_or_length_is_rejected_in_any_layer(codec, layers, place):
    """The trailers of inner and outer layers are compared."""
    good = packed(ROWS)
    damaged = bytearray(good)
    damaged[place] ^= 1
    with pytest.raises(CorruptError, match="damaged"):
        archive_from(pieces_of(packed(bytes(damaged), layers=layers - 1), 3), codec=codec)


@pytest.mark.parametrize("layers", [1, 2])
def test_data_after_the_end_is_rejected(layers):
    """Data after the last member is not part of an export."""
    with pytest.raises(CorruptError, match="after its end"):
        archive_from([packed(packed(ROWS) + b"garbage", layers=layers - 1)])


def test_too_many_layers_are_rejected():
    """The number of layers is limited, so that no file is unwrapped forever."""
    assert archive_from([packed(ROWS, layers=MOST_LAYERS)])[1].rows == 3
    with pytest.raises(CorruptError, match="more than"):
        archive_from([packed(ROWS, layers=MOST_LAYERS + 1)])


@pytest.mark.parametrize("container", Format)
@pytest.mark.parametrize("layers", range(3))
def test_the_content_is_checked_through_all_layers(container, layers):
    """Complete gzip around something else is rejected."""
    with pytest.raises(CorruptError):
        archive_from(pieces_of(packed(b"<html>sorry</html>\n", layers=layers), 2), container)


# Proof of the end


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"\x1f", "not compressed"),
        (ROWS, "not compressed"),
        (ROWS[:9], "not compressed"),
        (packed(ROWS, members=2), "several gzip members"),
    ],
)
def test_a_body_whose_cut_would_not_show_needs_a_proved_end(body, why):
    """Empty bodies, plain bodies and bodies of several members are incomplete without proof of their end."""
    for size in (1, 1 << 20):
        with pytest.raises(IncompleteError, match=why):
            archive_from(pieces_of(body, size), proved=False)


@pytest.mark.parametrize("body", [b"", ROWS, packed(ROWS, members=2)])
@pytest.mark.parametrize("proof", ["framing", "crc32c", "md5"])
def test_either_proof_is_enough(body, proof):
    """Both the framing and a hash of the body prove its end."""
    hashes = {"framing": None, "crc32c": WireHashes(crc32c=crc32c(body)), "md5": WireHashes(md5=md5(body))}[proof]
    assert archive_from([body], proved=proof == "framing", hashes=hashes)[1].rows == (3 if body else 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_single_gzip_member_proves_its_own_end(layers):
    """Its length and checksum are at its end."""
    assert archive_from([packed(ROWS, layers=layers)], proved=False)[1].rows == 3


def test_a_single_byte_is_no_export():
    """The first byte of gzip with a proved end is complete, but damaged."""
    with pytest.raises(CorruptError):
        archive_from([b"\x1f"])


def test_a_plain_body_is_always_compressed_to_the_same_file():
    """The same data in other pieces results in the same bytes, so a new revision of it changes nothing."""
    body = b"".join(b'{"n":%d}\n' % (number * number) for number in range(20_000))
    made = {archive_from(pieces_of(body, size))[0] for size in (777, 65_536, 1 << 20)}
    assert len(made) == 1
    assert gzip.decompress(made.pop()) == body


# Hashes of the received bytes


@pytest.mark.parametrize("layers", range(3))
@pytest.mark.parametrize("name", ["crc32c", "md5"])
def test_a_body_with_a_wrong_hash_is_rejected(layers, name):
    """A hash covers the bytes as stored by the host, not their content."""
    body = packed(ROWS, layers=layers)
    digest = {"crc32c": crc32c, "md5": md5}[name]
    assert archive_from(pieces_of(body, 3), hashes=WireHashes(**{name: digest(body)}))[1].rows == 3
    with pytest.raises(CorruptError, match="hash"):
        archive_from(pieces_of(body, 3), hashes=WireHashes(**{name: digest(body + b"x")}))


@pytest.mark.parametrize("form", list(BodyForm))
@pytest.mark.parametrize("layers", range(2))
@pytest.mark.parametrize("proved", [True, False])
def test_a_different_hash_may_belong_to_another_form(form, layers, proved):
    """If a proxy changed the form, framing and structure are proof; if it may have, the same body must arrive twice."""
    is_plain, body = layers == 0, packed(ROWS, layers=layers)
    may_have_changed = form in (BodyForm.CHANGED, BodyForm.UNKNOWN) or (form is BodyForm.PLAIN_IS_CHANGED and is_plain)

    def inspected(sha256_before: str = "") -> Archive:
        inspector = Inspector(Format.NDJSON, write=lambda _: None)
        inspector.feed(body)
        proof = BodyProof(end_proved=proved, hashed=False, form=form, sha256_before=sha256_before)
        return inspector.close(proof).archive

    if not (proved and may_have_changed):
        with pytest.raises(CorruptError if proved else IncompleteError, match="hash"):
            inspected("any")
    elif form is BodyForm.CHANGED:
        assert inspected().rows == 3
    else:
        for sha256_before in ("", "another"):
            with pytest.raises(OtherHashError) as caught:
                inspected(sha256_before)
        assert inspected(caught.value.sha256).rows == 3


@pytest.mark.parametrize(
    ("container", "body"),
    [
        (Format.NDJSON, b""),
        (Format.NDJSON, b"\n"),
        (Format.NDJSON, b" \r\n\n"),
        (Format.JSON, b""),
        (Format.JSON, b"[]"),
        (Format.JSON, b"[ ]\n"),
        (Format.CSV, b""),
        (Format.CSV, b"IndvId,UserId\n"),
    ],
)
def test_an_empty_body_is_only_accepted_immediately_if_it_is_proved(container, body):
    """Proof is a matching hash, gzip around it, or a first download that was empty as well."""

    def inspected(body: bytes, **known: Any) -> int:
        inspector = Inspector(container, write=lambda _: None)
        inspector.feed(body)
        return inspector.close(BodyProof(empty_before=False, **known)).archive.rows

    with pytest.raises(UnprovedEmptyError):
        inspected(body)
    assert inspected(gzip.compress(body)) == 0
    assert inspected(gzip.compress(gzip.compress(body))) == 0
    assert inspected(body, hashed=True) == 0
    with pytest.raises(UnprovedEmptyError):
        inspected(body, hashed=False, form=BodyForm.CHANGED)
    inspector = Inspector(container, write=lambda _: None)
    inspector.feed(body)
    assert inspector.close(BodyProof(empty_before=True)).archive.rows == 0


def test_md5_is_only_checked_without_crc32c():
    """It is expensive to compute, and crc32c detects transfer errors as well."""
    body = packed(ROWS)
    assert archive_from([body], hashes=WireHashes(crc32c=crc32c(body), md5=b"x" * 16))[1].rows == 3
    with pytest.raises(CorruptError, match="hash"):
        archive_from([body], hashes=WireHashes(crc32c=b"xxxx", md5=md5(body)))


def test_a_wrong_hash_without_a_proved_end_is_a_cut():
    """The hash may be that of the missing bytes."""
    with pytest.raises(IncompleteError, match="hash"):
        archive_from([ROWS[:8]], proved=False, hashes=WireHashes(crc32c=crc32c(ROWS)))


def test_a_cut_is_reported_as_a_cut_and_not_as_a_wrong_hash():
    """A cut download is resumed, while one with a wrong hash starts again."""
    body = packed(ROWS)
    with pytest.raises(IncompleteError, match="cut"):
        archive_from([body[:-3]], hashes=WireHashes(crc32c=crc32c(body)))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], WireHashes()),
        (["crc32c=AAAAAA=="], WireHashes(crc32c=bytes(4))),
        (["crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA=="], WireHashes(crc32c=bytes(4), md5=bytes(16))),
        (["crc32c=AAAAAA==", "md5=AAAAAAAAAAAAAAAAAAAAAA=="], WireHashes(crc32c=bytes(4), md5=bytes(16))),
        ([" CRC32C=AAAAAA== , sha1=AAAA"], WireHashes(crc32c=bytes(4))),
        (["crc32c=AAAA", "md5=AAAAAA==", "crc32c", "=", "", "md5=!", "crc32c=é"], WireHashes()),
    ],
)
def test_invalid_hashes_are_ignored(values, found):
    """Hashes may be in one header or several, and an invalid one counts as missing."""
    assert read_goog_hash(values) == found


@given(data=st.binary(max_size=40))
def test_a_hash_is_read_as_the_storage_host_writes_it(data):
    """It is the Base64 form of the digest."""
    text = f"crc32c={base64.b64encode(crc32c(data)).decode()},md5={base64.b64encode(md5(data)).decode()}"
    assert read_goog_hash([text]) == WireHashes(crc32c(data), md5(data))


# On disk


@pytest.mark.parametrize("body", [ROWS, b"", packed(ROWS, layers=2), packed(ROWS, layers=3)])
def test_anything_but_one_layer_of_gzip_is_no_archive_on_disk(body):
    """Bodies that are rewritten when received must not be on disk unchanged."""
    with pytest.raises(CorruptError, match="one layer"):
        inspect_pieces(pieces_of(body, 4), Format.NDJSON)


def test_an_archive_on_disk_is_read_to_its_end():
    """A cut or damage is found under a final name as well; several members are accepted."""
    assert inspect_pieces([packed(ROWS, members=3)], Format.NDJSON).rows == 3
    with pytest.raises(CorruptError, match="zeros after its end"):
        inspect_pieces([packed(ROWS) + bytes(4096)], Format.NDJSON)
    with pytest.raises(IncompleteError):
        inspect_pieces([packed(ROWS)[:-1]], Format.NDJSON)
    with pytest.raises(CorruptError):
        inspect_pieces([packed(ROWS)], Format.JSON)


# Memory


def deflated(pieces: Iterable[bytes], level: int) -> bytes:
    """Return one gzip member, made without holding its content in memory."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
    return b"".join([*map(deflate.compress, pieces), deflate.flush()])


@pytest.mark.slow
@BOTH
def test_a_gzip_bomb_in_gzip_takes_a_few_megabytes(codec):
    """Gzip with megabytes of gzip in it is read and written a piece at a time."""
    row = b'{"a":"' + b"0" * 4096 + b'"}\n'
    bomb = deflated(pieces_of(deflated([row] * (48 << 8), 0), 1 << 20), 9)
    assert len(bomb) < 1 << 20
    inspector = Inspector(Format.NDJSON, path=PATH, write=len, codec=codec)
    tracemalloc.start()
    try:
        inspector.feed(bomb)
        found = inspector.close().archive
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.bytes > 48 << 20
    assert found.rows == 48 << 8
    assert peak < 12 << 20


@pytest.mark.parametrize("empty", [gzip.compress(b"") * 1000, b"\0\0\0\xff\xff" * 10_000], ids=["members", "blocks"])
def test_gzip_without_content_is_not_held_forever(empty):
    """Endless empty members or blocks are rejected."""
    inspector = Inspector(Format.NDJSON, path=PATH)
    inspector.feed(gzip.compress(b"")[:10] if empty[0] == 0 else b"")
    with pytest.raises(CorruptError, match="gzip without content"):
        inspector.feed(empty * (HELD_BYTES // len(empty) + 2))


def test_many_empty_members_are_rejected_in_any_place():
    """A few bytes of gzip in gzip may hold millions of members, and each takes time."""
    body = packed(ROWS) + gzip.compress(b"", mtime=0) * 20_000
    with pytest.raises(CorruptError, match="gzip without content"):
        archive_from([packed(body)])
