"""The storage host's answers, ranges and the floor on the rate, as literals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.archive.proof import BodyForm
from asyncexport.core.service.replies import Reply
from asyncexport.core.service.transfer import (
    DownloadHead,
    RateFloor,
    body_form,
    judge_download,
    range_headers,
    read_head,
)
from asyncexport.errors import ExportError, GoneError, IncompleteError, RefusedError, ReplyError, UnavailableError

TAG = '"abc-1"'
EXPIRED = b"""<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>
<Message>The provided token has expired.</Message><Details>Request signature expired at: canary</Details></Error>"""
EXPIRED_NEWER = b"""<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>
<Message>Invalid argument.</Message><Details>The provided token has expired. canary</Details></Error>"""
DENIED = b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>GET canary</StringToSign></Error>"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, EXPIRED, GoneError),
        (403, EXPIRED, GoneError),
        (400, EXPIRED_NEWER, GoneError),
        (403, EXPIRED_NEWER, GoneError),
        (400, b"", RefusedError),
        (401, b"", RefusedError),
        (403, DENIED, RefusedError),
        (403, b"ExpiredToken", RefusedError),
        (404, b"<Error><Code>NoSuchKey</Code></Error>", GoneError),
        (410, b"", GoneError),
        (416, b"", IncompleteError),
        (408, b"", UnavailableError),
        (429, b"", UnavailableError),
        (499, b"", UnavailableError),
        (500, EXPIRED, UnavailableError),
        (503, b"", UnavailableError),
        (302, b"", ReplyError),
        (304, b"", ReplyError),
        (204, b"", ReplyError),
    ],
)
def test_a_storage_status_is_one_error(status: int, body: bytes, error: type[ExportError]) -> None:
    """An expired link is told by its code, in either wording; no status of the storage host speaks of the key."""
    with pytest.raises(ExportError) as caught:
        judge_download(Reply(status, {}, body))
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["", "gzip", "GZIP", "identity", "gzip, gzip"])
def test_a_download_may_be_gzip_encoded(encoding: str) -> None:
    """200 and 206 begin a download, in an encoding that was asked for."""
    judge_download(Reply(200, {"Content-Encoding": encoding}))
    judge_download(Reply(206))


@pytest.mark.parametrize(
    ("headers", "length", "form"),
    [
        ({}, 10, BodyForm.PLAIN_IS_CHANGED),
        ({"Content-Encoding": "gzip"}, 10, BodyForm.UNKNOWN),
        ({"X-GUploader-Response-Body-Transformations": "gunzipped"}, None, BodyForm.CHANGED),
        ({"Warning": "214 UploadServer gunzipped"}, None, BodyForm.CHANGED),
        ({"Warning": '110 - "Response is Stale"'}, None, BodyForm.PLAIN_IS_CHANGED),
        ({"x-goog-stored-content-encoding": "gzip"}, 10, BodyForm.CHANGED),
        ({"x-goog-stored-content-encoding": "identity", "Content-Encoding": "gzip"}, 10, BodyForm.CHANGED),
        ({"x-goog-stored-content-encoding": "identity"}, 10, BodyForm.PLAIN_IS_CHANGED),
        ({"x-goog-stored-content-encoding": "identity", "x-goog-stored-content-length": "10"}, 10, BodyForm.STORED),
        (
            {"x-goog-stored-content-encoding": "identity", "x-goog-stored-content-length": "11"},
            10,
            BodyForm.PLAIN_IS_CHANGED,
        ),
        (
            {"x-goog-stored-content-encoding": "identity", "x-goog-stored-content-length": "10"},
            None,
            BodyForm.PLAIN_IS_CHANGED,
        ),
        (
            {
                "x-goog-stored-content-encoding": "gzip",
                "Content-Encoding": "x-gzip",
                "x-goog-stored-content-length": "11",
            },
            10,
            BodyForm.UNKNOWN,
        ),
    ],
)
def test_headers_tell_whether_a_body_was_changed_on_the_way(
    headers: dict[str, str], length: int | None, form: BodyForm
) -> None:
    """The hash is of what is stored; a plain body under the hash of a gzip file is no damage."""
    assert body_form(headers, length=length) is form


def test_another_encoding_is_refused() -> None:
    """What nobody asked for cannot be unpacked."""
    with pytest.raises(ReplyError):
        judge_download(Reply(200, {"content-encoding": "br"}))


@pytest.mark.parametrize(
    ("offset", "etag", "headers"),
    [
        (5, TAG, {"Range": "bytes=5-", "If-Range": TAG}),
        (0, TAG, {}),
        (5, "", {}),
        (5, 'W/"abc"', {}),
        (5, "abc", {}),
        (5, '"a"\r\nX: y', {}),
    ],
)
def test_the_rest_is_asked_for_only_when_that_is_safe(offset: int, etag: str, headers: dict[str, str]) -> None:
    """Without a strong ETag the rest might be of another file."""
    assert range_headers(offset, etag) == headers


def test_a_whole_file_begins_at_zero() -> None:
    """A 200 says where the body ends, what the file is, and what its hashes are."""
    reply = Reply(200, {"Content-Length": "10", "ETag": TAG})
    head = read_head(reply, goog_hash=["crc32c=AAAA==, md5=BBBB==", "x=1"], offset=5, etag=TAG)
    hashes = ("crc32c=AAAA==", "md5=BBBB==", "x=1")
    form = BodyForm.PLAIN_IS_CHANGED
    assert head == DownloadHead(0, 10, TAG, hashes, is_chunked=False, reaches_end=True, form=form)
    assert head.proves_end(10)
    assert not head.proves_end(9)


def test_a_weak_etag_is_none() -> None:
    """It cannot be used to go on."""
    assert read_head(Reply(200, {"ETag": 'W/"a"'}), goog_hash=[], offset=0, etag="").etag == ""


def test_a_body_that_just_stops_proves_nothing() -> None:
    """Neither length nor closing chunk: the end may be anywhere."""
    assert not read_head(Reply(200, {"Content-Length": "x"}), goog_hash=[], offset=0, etag="").proves_end(10)
    assert read_head(Reply(200, {"Transfer-Encoding": "chunked"}), goog_hash=[], offset=0, etag="").proves_end(10)


def test_the_rest_of_a_file_is_taken() -> None:
    """A 206 that begins where asked and reaches to the end is the rest."""
    reply = Reply(206, {"Content-Range": "bytes 5-9/10", "Content-Length": "5", "etag": TAG})
    head = read_head(reply, goog_hash=[], offset=5, etag=TAG)
    assert (head.offset, head.length) == (5, 5)
    assert head.proves_end(5)


def test_the_rest_of_a_file_of_unknown_size_proves_nothing() -> None:
    """Whether the part reaches to the end is not known."""
    head = read_head(Reply(206, {"Content-Range": "bytes 5-9/*"}), goog_hash=[], offset=5, etag=TAG)
    assert not head.proves_end(5)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Range": "bytes 4-9/10"},
        {"Content-Range": "bytes 6-9/10"},
        {"Content-Range": "bytes 5-8/10"},
        {"Content-Range": "bytes 9-5/10"},
        {"Content-Range": "bytes */10"},
        {"Content-Range": "items 5-9/10"},
        {"Content-Range": "bytes 5-9/10", "Content-Length": "4"},
        {"Content-Range": "bytes 5-9/10", "ETag": '"other"'},
    ],
)
def test_another_part_is_not_taken(headers: dict[str, str]) -> None:
    """A part that is not exactly the rest of the same file is never appended."""
    with pytest.raises(IncompleteError):
        read_head(Reply(206, headers), goog_hash=[], offset=5, etag=TAG)


def test_a_part_nobody_asked_for_is_not_taken() -> None:
    """A 206 to a request for the whole cannot be the whole."""
    with pytest.raises(IncompleteError):
        read_head(Reply(206, {"Content-Range": "bytes 0-9/10"}), goog_hash=[], offset=0, etag="")


TEXT = st.text(max_size=30) | st.sampled_from(["chunked", TAG, "bytes 5-9/10", "5", "9" * 30])
NAMES = ("etag", "content-length", "transfer-encoding", "content-range", "content-encoding")


@given(
    status=st.integers(0, 999),
    headers=st.dictionaries(st.sampled_from(NAMES), TEXT),
    body=st.binary(max_size=50) | st.sampled_from([EXPIRED, DENIED]),
    offset=st.integers(0, 10),
)
def test_no_answer_raises_anything_but_ours(status: int, headers: dict[str, str], body: bytes, offset: int) -> None:
    """Whatever the storage host says, it is read or it is an ExportError, and a part is never mistaken for another."""
    reply = Reply(status, headers, body)
    try:
        judge_download(reply)
        head = read_head(reply, goog_hash=[*headers.values()], offset=offset, etag=TAG)
    except ExportError:
        return
    assert head.offset in (0, offset)


def test_a_drip_is_below_the_floor() -> None:
    """One byte a second is noticed once the window is over, and not before."""
    floor = RateFloor(1024)
    assert all(floor.holds(1, waited_seconds=1.0) for _ in range(59))
    assert not floor.holds(1, waited_seconds=1.0)


def test_a_burst_makes_up_for_a_pause() -> None:
    """The rate is an average over the window."""
    floor = RateFloor(1024)
    assert floor.holds(1, waited_seconds=50.0)
    assert floor.holds(60 * 1024, waited_seconds=10.0)


def test_a_drip_after_a_fast_start_is_below_the_floor() -> None:
    """What came in an earlier window does not excuse a later one."""
    floor = RateFloor(1024)
    assert floor.holds(1 << 30, waited_seconds=60.0)
    assert not floor.holds(1, waited_seconds=60.0)


def test_a_slow_reader_is_not_blamed_on_the_line() -> None:
    """Only time spent waiting counts."""
    floor = RateFloor(1024)
    assert all(floor.holds(1, waited_seconds=0.0) for _ in range(10_000))


def test_a_storage_host_in_trouble_says_when_to_come_again():
    """Its Retry-After is passed on; a date counts from the reply's own."""
    for value, seconds in (("31", 31.0), ("Thu, 01 Jan 2026 00:01:00 GMT", None), ("soon", None)):
        with pytest.raises(UnavailableError) as caught:
            judge_download(Reply(503, {"Retry-After": value}))
        assert caught.value.retry_after == seconds
