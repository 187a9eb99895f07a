"""What the status of a reply means, as literals."""

import pytest

from asyncexport.core.exports import Definition
from asyncexport.core.service import requests, statuses
from asyncexport.core.service.replies import Reply
from asyncexport.errors import (
    ExportError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
)
from tests.api_replies import DATE, HALF_HOUR, NOW, reply


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (requests.me(), 401, UnauthorizedError),
        (requests.me(), 400, RefusedError),
        (requests.create(Definition(), HALF_HOUR), 403, RefusedError),
        (requests.create(Definition(), HALF_HOUR), 404, RefusedError),
        (requests.create(Definition(), HALF_HOUR), 410, RefusedError),
        (requests.segment("s"), 404, RefusedError),
        (requests.operations(), 404, RefusedError),
        (requests.operation("o"), 404, GoneError),
        (requests.operation("o"), 410, GoneError),
        (requests.results("e"), 404, GoneError),
        (requests.results("e"), 410, GoneError),
        (requests.results("e"), 403, RefusedError),
        (requests.me(), 418, RefusedError),
        (requests.me(), 429, RateLimitedError),
        (requests.me(), 408, UnavailableError),
        (requests.me(), 499, UnavailableError),
        (requests.me(), 500, UnavailableError),
        (requests.me(), 502, UnavailableError),
        (requests.me(), 503, UnavailableError),
        (requests.me(), 504, UnavailableError),
        (requests.me(), 599, UnavailableError),
        (requests.me(), 777, UnavailableError),
        (requests.me(), 302, RefusedError),
        (requests.me(), 307, RefusedError),
        (requests.me(), 101, ReplyError),
    ],
)
def test_a_status_is_one_error(request_: requests.Request, status: int, error: type[ExportError]) -> None:
    """What a status means stands in one table; the message names the status and what was tried."""
    with pytest.raises(ExportError) as caught:
        statuses.judge(request_, Reply(status), now=NOW)
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert request_.doing in str(caught.value)
    if isinstance(caught.value, RefusedError):
        assert caught.value.status == status


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_is_no_error(status: int) -> None:
    """What it holds decides, whichever success it is."""
    statuses.judge(requests.me(), Reply(status), now=NOW)


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
        statuses.judge(requests.me(), Reply(400, {}, body), now=NOW)
    assert str(caught.value).endswith(f"(400): {words}")


@pytest.mark.parametrize("body", [b"", b"   ", b"<html><body>no title</body></html>", b"{}", b"[]\n"])
def test_an_error_without_words_has_none(body: bytes) -> None:
    """An empty or mute body leaves a message that still says what happened."""
    with pytest.raises(UnavailableError, match=r"\(500\)$"):
        statuses.judge(requests.me(), Reply(500, {}, body), now=NOW)


def test_long_words_are_cut() -> None:
    """A page of text becomes one line of bounded length."""
    with pytest.raises(UnavailableError) as caught:
        statuses.judge(requests.me(), Reply(500, {}, b"word " * 10_000), now=NOW)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("…")


def test_a_refused_key_has_a_hint() -> None:
    """Who has a wrong key is told what to do next."""
    with pytest.raises(UnauthorizedError) as caught:
        statuses.judge(requests.me(), Reply(401), now=NOW)
    assert caught.value.hint


@pytest.mark.parametrize(("status", "unanswered"), [(500, False), (503, False), (502, True), (504, True)])
def test_a_gateways_answer_leaves_open_what_was_done(status: int, unanswered: bool) -> None:  # noqa: FBT001 - a table's column
    """Where a gateway answers in the service's place, a create may have been done all the same."""
    with pytest.raises(UnavailableError) as caught:
        statuses.judge(requests.create(Definition(), HALF_HOUR), Reply(status), now=NOW)
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
    assert statuses.retry_after({"Retry-After": value}, now=NOW) == seconds


def test_retry_after_as_a_date_goes_by_the_services_clock() -> None:
    """A host clock that is off does not lengthen the wait."""
    headers = {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "DATE": DATE}
    assert statuses.retry_after(headers, now=NOW - 50_000) == 60.0


def test_a_429_carries_its_retry_after() -> None:
    """Whoever handles a 429 knows how long to wait."""
    with pytest.raises(RateLimitedError) as caught:
        statuses.judge(requests.me(), reply({}, 429, Retry_After="31"), now=NOW)
    assert caught.value.retry_after == 31.0


def test_no_retry_after_is_none() -> None:
    """A 429 that says nothing says None."""
    assert statuses.retry_after({}, now=NOW) is None


@pytest.mark.parametrize(
    ("body", "from_service"),
    [
        (b'{"code":"forbidden","message":"no"}', True),
        (b'{"error":{"message":"no"}}', True),
        (b'{"error":"no"}', True),
        (b"<html><title>Blocked by policy</title></html>", False),
        (b"Access denied", False),
        (b"", False),
        (b"{}", False),
        (b"[]", False),
        (b'"no"', False),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_the_service_itself_says_is_told_from_a_page_of_a_box(body, from_service, status):
    """Its errors are JSON objects; a firewall, a proxy or a portal has another form."""
    with pytest.raises((RefusedError, GoneError)) as caught:
        statuses.judge(requests.results("e"), Reply(status, {}, body), now=NOW)
    assert isinstance(caught.value, RefusedError | GoneError)
    assert caught.value.from_service is from_service


def test_a_503_carries_its_retry_after():
    """As a 429 does."""
    with pytest.raises(UnavailableError) as caught:
        statuses.judge(requests.me(), reply({}, 503, Retry_After="31"), now=NOW)
    assert caught.value.retry_after == 31.0
