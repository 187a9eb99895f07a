"""Fullstory's HTTP as literals: requests out, replies and errors in."""

import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Definition, Format, Type
from asyncexport.core.service import wire
from asyncexport.core.service.wire import Completed, DownloadLink, Ended, Kind, Operation, Reply, Running
from asyncexport.errors import (
    ConfigError,
    ExportError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
)

HALF_HOUR = Range(1_767_225_600, 1_767_227_400)  # 2026-01-01T00:00:00Z to 00:30:00Z
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
NOW = 1_767_225_600.0
LINK = "https://storage.googleapis.com/bucket/file?X-Goog-Signature=canary&x=1"


def reply(data: Any, status: int = 200, **headers: str) -> Reply:
    """A reply with this JSON, or these very bytes."""
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_create_always_sends_both_ranges_and_they_are_equal() -> None:
    """A create for old data cannot come back short for want of the segment's own range."""
    request = wire.create(Definition(), HALF_HOUR)
    times = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:30:00Z"}
    assert (request.kind, request.method, request.path) == (Kind.CREATE, "POST", "/segments/v1/exports")
    assert orjson.loads(request.body or b"") == {
        "segmentId": "everyone",
        "type": "TYPE_EVENT",
        "format": "FORMAT_NDJSON",
        "timeRange": times,
        "segmentTimeRange": times,
    }


def test_create_sends_what_is_set_and_no_field_twice() -> None:
    """Fields, scope and time zone go along as they are configured; a doubled field, which is refused, goes once."""
    definition = Definition(
        "s", Type.EVENT, Format.CSV, ("EventStart", "evt_*", "EventStart"), "SCOPE_PAGES", "Europe/Rome"
    )
    body = orjson.loads(wire.create(definition, HALF_HOUR).body or b"")
    assert body["format"] == "FORMAT_CSV"
    assert body["fields"] == ["EventStart", "evt_*"]
    assert body["eventDetails"] == {"scope": "SCOPE_PAGES"}
    assert body["timezone"] == "Europe/Rome"


def test_scope_is_sent_for_events_only() -> None:
    """Individuals know no event scope."""
    body = orjson.loads(wire.create(Definition(type=Type.INDIVIDUAL, scope="SCOPE_PAGES"), HALF_HOUR).body or b"")
    assert body["type"] == "TYPE_INDIVIDUAL"
    assert "eventDetails" not in body


@pytest.mark.parametrize(
    ("request_", "kind", "path", "query"),
    [
        (wire.operation("b3A=/+x"), Kind.POLL, "/operations/v1/b3A%3D%2F%2Bx", ""),
        (wire.operations(), Kind.LIST, "/operations/v1", "type=SEARCH_EXPORT&limit=100"),
        (
            wire.operations(state="PENDING", token="a b/c=", limit=5),
            Kind.LIST,
            "/operations/v1",
            "type=SEARCH_EXPORT&state=PENDING&limit=5&paginationToken=a%20b%2Fc%3D",
        ),
        (wire.results("a/b?c#d"), Kind.RESULTS, "/search/v1/exports/a%2Fb%3Fc%23d/results", ""),
        (wire.segments(token="t"), Kind.OTHER, "/segments/v1", "limit=100&paginationToken=t"),
        (
            wire.segment("user@example.com:4100200300400500"),
            Kind.OTHER,
            "/segments/v1/user%40example.com%3A4100200300400500",
            "",
        ),
        (wire.me(), Kind.OTHER, "/me", ""),
    ],
)
def test_requests_encode_every_id_whole(request_: wire.Request, kind: Kind, path: str, query: str) -> None:
    """Ids are opaque: whatever is in one, it stays one step of the path."""
    assert (request_.kind, request_.method, request_.path, request_.query) == (kind, "GET", path, query)


def test_the_key_goes_in_as_it_is() -> None:
    """`Basic` is followed by the key itself, not by base64 of anything."""
    assert wire.authorization("na1.aB+/=") == "Basic na1.aB+/="


@pytest.mark.parametrize("key", ["", "na1.abc\n", "na1 abc", "na1.äbc", "na1.abc\r\nX: y"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown(key: str) -> None:
    """A key with a line end or blank in it is a configuration fault, and is not repeated."""
    with pytest.raises(ConfigError) as caught:
        wire.authorization(key)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (wire.me(), 401, UnauthorizedError),
        (wire.me(), 400, RefusedError),
        (wire.create(Definition(), HALF_HOUR), 403, RefusedError),
        (wire.create(Definition(), HALF_HOUR), 404, RefusedError),
        (wire.create(Definition(), HALF_HOUR), 410, RefusedError),
        (wire.segment("s"), 404, RefusedError),
        (wire.operations(), 404, RefusedError),
        (wire.operation("o"), 404, GoneError),
        (wire.operation("o"), 410, GoneError),
        (wire.results("e"), 404, GoneError),
        (wire.results("e"), 410, GoneError),
        (wire.results("e"), 403, RefusedError),
        (wire.me(), 418, RefusedError),
        (wire.me(), 429, RateLimitedError),
        (wire.me(), 408, UnavailableError),
        (wire.me(), 499, UnavailableError),
        (wire.me(), 500, UnavailableError),
        (wire.me(), 502, UnavailableError),
        (wire.me(), 503, UnavailableError),
        (wire.me(), 504, UnavailableError),
        (wire.me(), 599, UnavailableError),
        (wire.me(), 777, UnavailableError),
        (wire.me(), 201, ReplyError),
        (wire.me(), 204, ReplyError),
        (wire.me(), 302, RefusedError),
        (wire.me(), 307, RefusedError),
        (wire.me(), 101, ReplyError),
    ],
)
def test_a_status_is_one_error(request_: wire.Request, status: int, error: type[ExportError]) -> None:
    """What a status means stands in one table; the message names the status and what was tried."""
    with pytest.raises(ExportError) as caught:
        wire.judge(request_, Reply(status), now=NOW)
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert request_.doing in str(caught.value)
    if isinstance(caught.value, RefusedError):
        assert caught.value.status == status


def test_200_is_no_error() -> None:
    """Exactly 200 is success."""
    wire.judge(wire.me(), Reply(200), now=NOW)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"code":"x","message":"Segment  not\\nfound"}', "Segment not found"),
        (b'{"error":"no such field"}', "no such field"),
        (b'{"error":{"code":3,"message":"nested"}}', "nested"),
        (b'{"message":7,"error":"second"}', "second"),
        (b"plain \x00 text\xff", "plain text\ufffd"),
        (b"<html><head><title>502 Bad &amp; worse</title></head><body>long</body>", "502 Bad & worse"),
        (b"see https://x.example/a?sig=canary&b=1 there", "see https://x.example/a?… there"),
        (b'{"message":"open https:\\/\\/x.example\\/a?sig=canary"}', "open https://x.example/a?…"),
    ],
)
def test_the_services_own_words_are_in_the_message(body: bytes, words: str) -> None:
    """The service's reason is passed on as one printable line, without queries."""
    with pytest.raises(RefusedError) as caught:
        wire.judge(wire.me(), Reply(400, {}, body), now=NOW)
    assert str(caught.value).endswith(f"(400): {words}")


@pytest.mark.parametrize("body", [b"", b"   ", b"<html><body>no title</body></html>", b"{}"])
def test_an_error_without_words_has_none(body: bytes) -> None:
    """An empty or mute body leaves a message that still says what happened."""
    with pytest.raises(UnavailableError, match=r"\(500\)(: \{\})?$"):
        wire.judge(wire.me(), Reply(500, {}, body), now=NOW)


def test_long_words_are_cut() -> None:
    """A page of text becomes one line of bounded length."""
    with pytest.raises(UnavailableError) as caught:
        wire.judge(wire.me(), Reply(500, {}, b"word " * 10_000), now=NOW)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("…")


def test_a_refused_key_has_a_hint() -> None:
    """Who has a wrong key is told what to do next."""
    with pytest.raises(UnauthorizedError) as caught:
        wire.judge(wire.me(), Reply(401), now=NOW)
    assert caught.value.hint


@pytest.mark.parametrize(("status", "unanswered"), [(500, False), (503, False), (502, True), (504, True)])
def test_a_gateways_answer_leaves_open_what_was_done(status: int, unanswered: bool) -> None:  # noqa: FBT001 - a table's column
    """Where a gateway answers in the service's place, a create may have been done all the same."""
    with pytest.raises(UnavailableError) as caught:
        wire.judge(wire.create(Definition(), HALF_HOUR), Reply(status), now=NOW)
    assert caught.value.unanswered is unanswered


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("9" * 300, 86_400.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400.0),
        ("0", None),
        ("-5", None),
        ("Wed, 31 Dec 2025 23:59:00 GMT", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("3e5", None),
        ("٣٠", None),
        ("", None),
    ],
)
def test_retry_after_is_read_leniently(value: str, seconds: float | None) -> None:
    """Seconds or a date, bounded to a day; what is not usable is None, and nothing crashes or says zero."""
    assert wire.retry_after({"Retry-After": value}, now=NOW) == seconds


def test_retry_after_as_a_date_goes_by_the_services_clock() -> None:
    """A host clock that is off does not lengthen the wait."""
    headers = {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "DATE": DATE}
    assert wire.retry_after(headers, now=NOW - 50_000) == 60.0


def test_a_429_carries_its_retry_after() -> None:
    """Whoever handles a 429 knows how long to wait."""
    with pytest.raises(RateLimitedError) as caught:
        wire.judge(wire.me(), reply({}, 429, Retry_After="31"), now=NOW)
    assert caught.value.retry_after == 31.0


def test_no_retry_after_is_none() -> None:
    """A 429 that says nothing says None."""
    assert wire.retry_after({}, now=NOW) is None


@pytest.mark.parametrize(
    ("value", "moment"),
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
def test_the_date_header_is_read(value: str, moment: float | None) -> None:
    """The service's clock is known from its Date, where that is one."""
    assert wire.read_date({"Date": value}) == moment


def test_a_created_operation_has_its_id() -> None:
    """The id comes back as it is, padding included."""
    assert wire.read_created(reply({"operationId": "b3A9=="})) == "b3A9=="


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"operationId": ""},
        {"operationId": 5},
        {"operationId": None, "error": "nope"},
        {"operationId": ".."},
        [],
        b"",
        b"<",
    ],
)
def test_a_200_without_operation_id_is_a_reply_error(body: Any) -> None:
    """A create that names no operation has failed, whatever its status."""
    with pytest.raises(ReplyError):
        wire.read_created(reply(body))


def test_the_error_text_of_a_200_without_id_is_told() -> None:
    """What the service says of a create without operation is in the message."""
    with pytest.raises(ReplyError, match="quota of the moon"):
        wire.read_created(reply({"error": "quota of the moon"}))


COMPLETED = {
    "id": "op7",
    "type": "SEARCH_EXPORT",
    "details": None,
    "results": {"expires": "2026-01-08T00:00:00.118Z", "searchExportId": "exp_9"},
    "state": "COMPLETED",
    "errorDetails": "",
    "createdAt": "2026-01-01T00:00:00.500000Z",
    "finishedAt": "2026-01-01T00:50:02.000000001Z",
    "estimatePctComplete": 100,
    "step": "",
}


def test_a_completed_operation_is_read() -> None:
    """All that counts of a documented reply is there."""
    found = wire.read_operation(reply(COMPLETED))
    assert found == Operation("op7", Completed("exp_9"), NOW + 0.5, found.finished_at, 100)
    assert found.finished_at == pytest.approx(NOW + 3002)


@pytest.mark.parametrize(
    ("changes", "progress"),
    [
        ({"state": "PENDING", "results": None}, Running("PENDING")),
        ({"state": "PENDING", "estimatePctComplete": 100}, Running("PENDING")),
        ({"state": "STATE_DREAMING"}, Running("STATE_DREAMING")),
        ({"state": "FAILED", "errorDetails": "too\nlarge"}, Ended("too large")),
        ({"state": "ERROR", "errorDetails": ""}, Ended("ERROR, without a reason")),
        ({"state": "FAILED", "errorDetails": 5}, Ended("FAILED, without a reason")),
        ({"results": None}, Ended("COMPLETED, but no export id came with it")),
        ({"results": {"searchExportId": ""}}, Ended("COMPLETED, but no export id came with it")),
        ({"results": {"searchExportId": 7}}, Ended("COMPLETED, but no export id came with it")),
        ({"results": "exp_9"}, Ended("COMPLETED, but no export id came with it")),
    ],
)
def test_a_state_is_running_completed_or_ended(changes: dict[str, Any], progress: wire.Progress) -> None:
    """Unknown states run on, FAILED and ERROR end, and COMPLETED needs an export; the percentage decides nothing."""
    assert wire.read_operation(reply(COMPLETED | changes)).progress == progress


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None, "createdAt": 5, "finishedAt": "soon", "estimatePctComplete": "100"},
        {"id": 12, "createdAt": None, "finishedAt": None, "estimatePctComplete": True},
        {"id": "", "createdAt": "", "finishedAt": "2026-13-01T00:00:00Z", "estimatePctComplete": 101},
        {"id": "a\nb", "createdAt": [], "finishedAt": {}, "estimatePctComplete": -1},
    ],
)
def test_what_is_only_useful_may_be_unreadable(changes: dict[str, Any]) -> None:
    """An operation without id, times or percentage is still an operation."""
    assert wire.read_operation(reply(COMPLETED | changes)) == Operation(None, Completed("exp_9"))


@pytest.mark.parametrize("body", [{}, {"state": None}, {"state": 1}, [COMPLETED], b"{", b"null", b"\xff"])
def test_an_operation_without_state_is_a_reply_error(body: Any) -> None:
    """A 200 that says nothing of the operation is not the reply agreed upon."""
    with pytest.raises(ReplyError):
        wire.read_operation(reply(body))


def test_a_page_of_operations_keeps_what_can_be_read() -> None:
    """Odd items are left out, items without id stay, and the token leads on."""
    items = [COMPLETED, 5, None, {}, {"state": "PENDING"}, {"id": "x", "state": "PENDING", "new": 1}]
    page = wire.read_operations(reply({"operations": items, "nextPaginationToken": "t2", "other": 1}))
    assert [(one.id, one.progress) for one in page.operations] == [
        ("op7", Completed("exp_9")),
        (None, Running("PENDING")),
        ("x", Running("PENDING")),
    ]
    assert page.next_token == "t2"


@pytest.mark.parametrize("body", [{}, {"operations": None}, {"operations": [], "nextPaginationToken": None}])
def test_an_empty_list_of_operations_may_be_absent(body: Any) -> None:
    """Servers that leave empty lists out are understood."""
    assert wire.read_operations(reply(body)) == wire.OperationsPage(())


def test_operations_that_are_no_list_are_a_reply_error() -> None:
    """A list that is something else is not the reply agreed upon."""
    with pytest.raises(ReplyError):
        wire.read_operations(reply({"operations": {"a": 1}}))


def test_a_location_is_kept_byte_for_byte() -> None:
    """JSON's escapes are undone, and nothing else is touched."""
    body = b'{"location":"https://s.example/b/%2F%7e?sig=a%2Bb\\u0026x=%20","expires":"2026-01-01T00:05:00.920413657Z"}'
    found = wire.read_location(reply(body))
    assert found.url == "https://s.example/b/%2F%7e?sig=a%2Bb&x=%20"
    assert found.expires_at == pytest.approx(NOW + 300.920413657)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/a?b", "http://localhost/a", "http://[::1]:9/a", "https://s.example."]
)
def test_a_location_may_be_on_this_machine(url: str) -> None:
    """The sandbox needs no TLS."""
    assert wire.read_location(reply({"location": url})) == DownloadLink(url, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        5,
        "http://storage.example/a",
        "http://127.0.0.1.evil.example/a",
        "ftp://storage.example/a",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "//s.example/a",
        "https://user:pw@s.example/a",
        "https://s.example\\@evil.example/a",
        "https://s.example/a b",
        "https://s.example/a\r\nX: y",
        "https://s.example/ä",
        "https://s.example:99999/a",
        "https://s.example:x/a",
        "https://[::1/a",
        "https://a..b/a",
        "https://" + "a" * 64 + ".example/a",
        "https://s.example/" + "a" * 20_000,
    ],
)
def test_a_location_elsewhere_is_not_followed(url: Any) -> None:
    """A location that is not https, or that two parsers may read differently, is refused and not shown."""
    with pytest.raises(ReplyError) as caught:
        wire.read_location(reply({"location": url}))
    assert "evil" not in str(caught.value)


def test_a_location_hides_its_query() -> None:
    """The repr of a link is not the link."""
    found = wire.read_location(reply({"location": LINK, "expires": 5}))
    assert "canary" not in repr(found)
    assert found.host == "storage.googleapis.com"
    assert "bucket/file" in repr(found)


def test_broken_json_with_a_link_in_it_is_not_quoted() -> None:
    """A reply that cannot be read may hold a signed link, so none of it is repeated."""
    with pytest.raises(ReplyError) as caught:
        wire.read_location(reply(b'{"location":"https:\\/\\/s.example\\/a?X=canary'))
    assert "s.example" not in str(caught.value)
    assert "canary" not in repr(reply(LINK.encode()))


def test_segments_are_read() -> None:
    """Items without an id are left out; built-ins have no creation date."""
    items = [{"id": "everyone", "name": "Everyone"}, {"name": "no id"}, 3]
    page = wire.read_segments(reply({"segments": items, "nextPaginationToken": ""}))
    assert page == wire.SegmentsPage((wire.Segment("everyone", "Everyone"),), "")
    item = {"id": "s", "name": "S\x1b[31m", "creator": "o@example.com", "created": "2026-01-01T00:00:00Z"}
    assert wire.read_segment(reply(item)) == wire.Segment("s", "S[31m", "o@example.com", NOW)
    with pytest.raises(ReplyError):
        wire.read_segment(reply({}))


def test_me_is_read() -> None:
    """What is missing is empty."""
    assert wire.read_me(reply({"email": "o@example.com", "orgId": "ORG"})) == wire.Me("o@example.com", "ORG", "")


def test_a_compressed_reply_is_inflated() -> None:
    """A proxy that compresses unasked does no harm."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(b'{"operationId":"o"}') + squeeze.flush()
    assert wire.read_created(wire.decoded(reply(body, Content_Encoding="gzip"))) == "o"
    for broken in (body[:-3], b"nonsense"):
        with pytest.raises(ReplyError):
            wire.decoded(reply(broken, Content_Encoding="gzip"))


def test_a_compressed_reply_cannot_fill_the_memory() -> None:
    """A small body that inflates to a huge one is refused."""
    squeeze = zlib.compressobj(wbits=31)
    body = squeeze.compress(bytes(wire.MAX_REPLY_BYTES + 1)) + squeeze.flush()
    with pytest.raises(ReplyError):
        wire.decoded(reply(body, Content_Encoding="gzip"))


READERS: list[Callable[[Reply], object]] = [
    wire.read_created,
    wire.read_operation,
    wire.read_operations,
    wire.read_location,
    wire.read_segments,
    wire.read_segment,
    wire.read_me,
    wire.decoded,
]
REQUESTS = [wire.create(Definition(), HALF_HOUR), wire.operation("o"), wire.operations(), wire.results("e"), wire.me()]
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
def test_no_reply_raises_anything_but_ours(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever a server sends, it is read, or it is an ExportError of one printable line without a signature."""
    messages: list[str] = []
    for act in [*READERS, *(lambda r, q=q: wire.judge(q, r, now=NOW) for q in REQUESTS)]:
        try:
            act(Reply(status, headers, body))
        except ExportError as error:
            messages.append(str(error))
    assert all(message.isprintable() and len(message) < 400 for message in messages)
    assert "canary" not in "".join(messages)
    seconds = wire.retry_after(headers, now=NOW)
    assert seconds is None or 0 < seconds <= 86_400


@given(text=st.text(max_size=3000))
def test_one_line_is_one_printable_line(text: str) -> None:
    """Foreign text cannot break a line, colour a terminal, or fill a screen."""
    line = wire.one_line(text)
    assert len(line) <= wire.MAX_WORDS
    assert line.isprintable()


@given(url=st.text(max_size=60).map("https://".__add__) | st.text(max_size=30))
def test_any_text_may_be_asked_whether_it_is_safe(url: str) -> None:
    """A hostile location cannot crash the check, nor the way it is shown."""
    if wire.is_safe(url):
        assert url.isascii()
    assert "?" not in wire.without_query(url)
