"""Answers of the storage host, ranges and the minimum rate, as literals."""

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
def test_each_storage_status_gives_one_error(status: int, body: bytes, error: type[ExportError]) -> None:
    """Each status of the storage host gives one type of error, and an expired URL is recognised by its code."""
    with pytest.raises(ExportError) as caught:
        judge_download(Reply(status, {}, body))
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["", "gzip", "GZIP", "identity", "gzip, gzip"])
def test_a_download_may_be_gzip_encoded(encoding: str) -> None:
    """A 200 or 206 starts a download, with gzip encoding or none."""
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
def test_headers_show_whether_a_body_was_transformed(
    headers: dict[str, str], length: int | None, form: BodyForm
) -> None:
    """The headers show whether the body is the stored file, which the hash refers to, or was decompressed."""
    assert body_form(headers, length=length) is form


def test_another_encoding_is_refused() -> None:
    """A body in an encoding that was not requested is refused."""
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
def test_a_range_is_requested_only_with_a_strong_etag(offset: int, etag: str, headers: dict[str, str]) -> None:
    """The rest of a file is requested only with a strong ETag, because it could belong to another file."""
    assert range_headers(offset, etag) == headers


def test_a_complete_file_starts_at_zero() -> None:
    """A 200 starts at offset 0 and has the length, ETag and hashes of the file."""
    reply = Reply(200, {"Content-Length": "10", "ETag": TAG})
    head = read_head(reply, goog_hash=["crc32c=AAAA==, md5=BBBB==", "x=1"], offset=5, etag=TAG)
    hashes = ("crc32c=AAAA==", "md5=BBBB==", "x=1")
    form = BodyForm.PLAIN_IS_CHANGED
    assert head == DownloadHead(0, 10, TAG, hashes, is_chunked=False, reaches_end=True, form=form)
    assert head.proves_end(10)
    assert not head.proves_end(9)


def test_a_weak_etag_is_ignored() -> None:
    """A weak ETag is ignored, because a download cannot be resumed with it."""
    assert read_head(Reply(200, {"ETag": 'W/"a"'}), goog_hash=[], offset=0, etag="").etag == ""


def test_a_body_without_length_or_chunks_proves_no_end() -> None:
    """The end of a body is proved by chunked encoding, but not by an invalid length."""
    assert not read_head(Reply(200, {"Content-Length": "x"}), goog_hash=[], offset=0, etag="").proves_end(10)
    assert read_head(Reply(200, {"Transfer-Encoding": "chunked"}), goog_hash=[], offset=0, etag="").proves_end(10)


def test_the_rest_of_a_file_is_accepted() -> None:
    """A 206 that starts at the requested offset and reaches the end is accepted."""
    reply = Reply(206, {"Content-Range": "bytes 5-9/10", "Content-Length": "5", "etag": TAG})
    head = read_head(reply, goog_hash=[], offset=5, etag=TAG)
    assert (head.offset, head.length) == (5, 5)
    assert head.proves_end(5)


def test_the_rest_of_a_file_of_unknown_size_proves_no_end() -> None:
    """A 206 without the total size does not prove that it reaches the end."""
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
def test_a_different_part_is_refused(headers: dict[str, str]) -> None:
    """A part that is not exactly the rest of the same file is refused."""
    with pytest.raises(IncompleteError):
        read_head(Reply(206, headers), goog_hash=[], offset=5, etag=TAG)


def test_an_unrequested_part_is_refused() -> None:
    """A 206 in answer to a request for the complete file is refused."""
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
def test_any_answer_is_read_or_raises_an_export_error(
    status: int, headers: dict[str, str], body: bytes, offset: int
) -> None:
    """Any answer of the storage host is read or raises an ExportError, and a part always has the requested offset."""
    reply = Reply(status, headers, body)
    try:
        judge_download(reply)
        head = read_head(reply, goog_hash=[*headers.values()], offset=offset, etag=TAG)
    except ExportError:
        return
    assert head.offset in (0, offset)


def test_a_drip_is_below_the_minimum_rate() -> None:
    """One byte a second is detected at the end of the window, and not before."""
    floor = RateFloor(1024)
    assert all(floor.holds(1, waited_seconds=1.0) for _ in range(59))
    assert not floor.holds(1, waited_seconds=1.0)


def test_a_burst_makes_up_for_a_pause() -> None:
    """The rate is averaged over the window, so a burst makes up for a pause."""
    floor = RateFloor(1024)
    assert floor.holds(1, waited_seconds=50.0)
    assert floor.holds(60 * 1024, waited_seconds=10.0)


def test_a_drip_after_a_fast_start_is_below_the_minimum_rate() -> None:
    """Bytes of an earlier window do not count in a later one."""
    floor = RateFloor(1024)
    assert floor.holds(1 << 30, waited_seconds=60.0)
    assert not floor.holds(1, waited_seconds=60.0)


def test_a_slow_reader_does_not_lower_the_rate() -> None:
    """Only time spent waiting for bytes counts towards the rate."""
    floor = RateFloor(1024)
    assert all(floor.holds(1, waited_seconds=0.0) for _ in range(10_000))


def test_retry_after_of_the_storage_host_is_read():
    """The seconds of a Retry-After header are passed on; a date without a Date header and invalid text are ignored."""
    for value, seconds in (("31", 31.0), ("Thu, 01 Jan 2026 00:01:00 GMT", None), ("soon", None)):
        with pytest.raises(UnavailableError) as caught:
            judge_download(Reply(503, {"Retry-After": value}))
        assert caught.value.retry_after == seconds
