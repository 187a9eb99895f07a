"""Reading raw replies of the API: dates, compression, and arbitrary bodies."""

import json
import zlib
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.exports import Definition
from asyncexport.core.service import replies, requests, resources, statuses
from asyncexport.core.service.replies import Reply
from asyncexport.errors import ExportError, ReplyError
from tests.api_replies import DATE, HALF_HOUR, LINK, NOW, reply


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (DATE, NOW),
        ("Thursday, 01-Jan-26 00:00:00 GMT", NOW),
        ("Thu Jan  1 00:00:00 2026", NOW),
        ("Thu, 01 Jan 2026 00:00:00 -0000", NOW),
        ("Thu, 01 Jan 2026 00:00:00", NOW),
        ("Thu, 01 Jan 2026 01:00:00 +0100", NOW),
        ("Wed, 31 Dec 2025 23:59:60 GMT", NOW),
        ("Wed, 31 Dec 2025 23:59:61 GMT", None),
        ("Thu, 31 Feb 2026 00:00:00 GMT", None),
        ("yesterday", None),
        ("", None),
        ("1", None),
    ],
)
def test_the_date_header_is_read(value: str, seconds: float | None) -> None:
    """The Date header is read in each of its formats, and an invalid one is ignored."""
    assert replies.read_date({"Date": value}) == seconds


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON_VALUES, escaped=st.booleans())
def test_json_values_are_read_without_loss(*, value: object, escaped: bool) -> None:
    """Numbers keep their digits and type, and texts their characters."""
    body = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    expected = json.loads(body.decode("utf-8", "replace"))
    assert repr(replies.read_json(body)) == repr(expected)


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:0123456789-+.eE\\u ', max_size=40).map(str.encode))
def test_both_json_readers_agree(body: bytes) -> None:
    """Any body that the fast JSON reader accepts gives the same value as with the lenient one."""
    try:
        expected = json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
    except ValueError:
        expected = None
    assert repr(replies.read_json(body)) == repr(expected)


def test_broken_json_is_not_quoted() -> None:
    """An unreadable reply is not quoted in the error, because it may contain a signed URL."""
    with pytest.raises(ReplyError) as caught:
        resources.read_location(reply(b'{"location":"https:\\/\\/s.example\\/a?X=canary'))
    assert "s.example" not in str(caught.value)
    assert "canary" not in repr(reply(LINK.encode()))


def test_a_compressed_reply_is_decompressed() -> None:
    """A reply that a proxy compressed unasked is decompressed, and a damaged one is an error."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(b'{"operationId":"o"}') + squeeze.flush()
    assert resources.read_created(replies.decoded(reply(body, Content_Encoding="gzip"))) == "o"
    for broken in (body[:-3], b"nonsense"):
        with pytest.raises(ReplyError):
            replies.decoded(reply(broken, Content_Encoding="gzip"))


def test_a_compressed_reply_cannot_fill_the_memory() -> None:
    """A small body that decompresses to a huge one is refused."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(bytes(replies.MAX_REPLY_BYTES + 1)) + squeeze.flush()
    with pytest.raises(ReplyError):
        replies.decoded(reply(body, Content_Encoding="gzip"))


READERS: list[Callable[[Reply], object]] = [
    resources.read_created,
    resources.read_operation,
    resources.read_operations,
    resources.read_location,
    resources.read_segments,
    resources.read_segment,
    resources.read_me,
    replies.decoded,
]
REQUESTS = [
    requests.create(Definition(), HALF_HOUR),
    requests.operation("o"),
    requests.operations(),
    requests.results("e"),
    requests.me(),
]
KEYS = [
    *("operationId", "operations", "nextPaginationToken", "state", "id", "results", "searchExportId", "location"),
    *("expires", "createdAt", "finishedAt", "estimatePctComplete", "errorDetails", "message", "error", "segments"),
    *("name", "creator", "created", "email"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["PENDING", "COMPLETED", "FAILED", "2026-01-01T00:00:00Z", LINK, "https://[", "0001-01-01T00:00:00+23:59"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "date", "Content-Encoding", "X"]),
    st.text(max_size=40) | st.sampled_from([DATE, "gzip", "0", "Mon, 99 Foo 99999 99:99:99 +9999"]),
)
BODIES = st.binary(max_size=60) | VALUES.map(orjson.dumps) | VALUES.map(orjson.dumps).map(lambda body: body[:-1])


@given(status=st.integers(0, 999), headers=HEADERS, body=BODIES)
def test_any_reply_is_read_or_raises_an_export_error(status: int, headers: dict[str, str], body: bytes) -> None:
    """Any reply is either read or raises an ExportError with one printable line and no signature."""
    messages: list[str] = []
    for act in [*READERS, *(lambda r, q=q: statuses.judge(q, r, now=NOW) for q in REQUESTS)]:
        try:
            act(Reply(status, headers, body))
        except ExportError as error:
            messages.append(str(error))
    assert all(message.isprintable() and len(message) < 400 for message in messages)
    assert "canary" not in "".join(messages)
    seconds = statuses.retry_after(headers, now=NOW)
    assert seconds is None or 0 < seconds <= 86_400
