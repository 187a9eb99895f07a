"""The meaning of a reply's status, as literals."""

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
def test_each_status_gives_one_error(request_: requests.Request, status: int, error: type[ExportError]) -> None:
    """Each status gives one type of error, whose message contains the status and what was tried."""
    with pytest.raises(ExportError) as caught:
        statuses.judge(request_, Reply(status), now=NOW)
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert request_.doing in str(caught.value)
    if isinstance(caught.value, RefusedError):
        assert caught.value.status == status


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_is_no_error(status: int) -> None:
    """No 2xx status is an error by itself."""
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
def test_the_reason_given_by_the_service_is_in_the_message(body: bytes, words: str) -> None:
    """The service's reason is part of the message, as one printable line without URL queries."""
    with pytest.raises(RefusedError) as caught:
        statuses.judge(requests.me(), Reply(400, {}, body), now=NOW)
    assert str(caught.value).endswith(f"(400): {words}")


@pytest.mark.parametrize("body", [b"", b"   ", b"<html><body>no title</body></html>", b"{}", b"[]\n"])
def test_an_error_without_a_reason_still_has_a_message(body: bytes) -> None:
    """A body without a reason gives a message that ends with the status."""
    with pytest.raises(UnavailableError, match=r"\(500\)$"):
        statuses.judge(requests.me(), Reply(500, {}, body), now=NOW)


def test_a_long_reason_is_truncated() -> None:
    """A page of text becomes one line of limited length."""
    with pytest.raises(UnavailableError) as caught:
        statuses.judge(requests.me(), Reply(500, {}, b"word " * 10_000), now=NOW)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("…")


def test_a_refused_key_has_a_hint() -> None:
    """The error for a refused key has a hint."""
    with pytest.raises(UnauthorizedError) as caught:
        statuses.judge(requests.me(), Reply(401), now=NOW)
    assert caught.value.hint


@pytest.mark.parametrize(("status", "unanswered"), [(500, False), (503, False), (502, True), (504, True)])
def test_an_error_from_a_gateway_counts_as_unanswered(status: int, unanswered: bool) -> None:  # noqa: FBT001 - a table's column
    """If a gateway answers in place of the service, the create may still have been carried out."""
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
    """Retry-After is read as seconds or a date, is limited to a day, and is None if it is invalid or not positive."""
    assert statuses.retry_after({"Retry-After": value}, now=NOW) == seconds


def test_a_retry_after_date_is_compared_with_the_services_clock() -> None:
    """A wrong host clock does not change the wait, because the reply's own Date is used."""
    headers = {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "DATE": DATE}
    assert statuses.retry_after(headers, now=NOW - 50_000) == 60.0


def test_a_429_carries_its_retry_after() -> None:
    """The error for a 429 has the seconds of its Retry-After header."""
    with pytest.raises(RateLimitedError) as caught:
        statuses.judge(requests.me(), reply({}, 429, Retry_After="31"), now=NOW)
    assert caught.value.retry_after == 31.0


def test_a_missing_retry_after_is_none() -> None:
    """Without a Retry-After header the wait is None."""
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
def test_errors_of_the_service_are_distinguished_from_those_of_a_proxy(body, from_service, status):
    """Only an error in the form of the service's JSON objects counts as the service's own."""
    with pytest.raises((RefusedError, GoneError)) as caught:
        statuses.judge(requests.results("e"), Reply(status, {}, body), now=NOW)
    assert isinstance(caught.value, RefusedError | GoneError)
    assert caught.value.from_service is from_service


def test_a_503_carries_its_retry_after():
    """The error for a 503 has the seconds of its Retry-After header."""
    with pytest.raises(UnavailableError) as caught:
        statuses.judge(requests.me(), reply({}, 503, Retry_After="31"), now=NOW)
    assert caught.value.retry_after == 31.0
