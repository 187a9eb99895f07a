"""The contents of successful replies of the API, as literals."""

from typing import Any

import pytest

from asyncexport.core.exports import Definition
from asyncexport.core.service import requests, resources, statuses
from asyncexport.core.service.replies import Reply
from asyncexport.core.service.resources import (
    Completed,
    CompletedWithoutId,
    DownloadLink,
    Ended,
    Me,
    Operation,
    OperationProgress,
    OperationsPage,
    Running,
    Segment,
    SegmentsPage,
)
from asyncexport.errors import ReplyError
from tests.api_replies import HALF_HOUR, LINK, NOW, reply


def test_a_created_operation_has_its_id() -> None:
    """The operation id is read unchanged, including its padding."""
    assert resources.read_created(reply({"operationId": "b3A9=="})) == "b3A9=="


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"operationId":5}', "5"),
        (b'{"operationId":340282366920938463463374607431768211456}', "340282366920938463463374607431768211456"),
        (b'\xef\xbb\xbf{"operationId":"a"}', "a"),
        ('{"operationId":"a"}'.encode("utf-16"), "a"),
        (b'{"operationId":"a","note":"\\ud83c"}', "a"),
        (b'{"operationId":"a","note":"\xff"}', "a"),
        (b'{"operationId":"a","note":"two\nlines"}', "a"),
        (b'{"operationId":"a"}\n \n', "a"),
    ],
)
def test_unusual_json_is_accepted(body: bytes, found: str) -> None:
    """A numeric id keeps all its digits, and a byte order mark, broken characters or raw line ends are tolerated."""
    assert resources.read_created(reply(body)) == found


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
def test_a_create_with_an_id_is_accepted_with_any_2xx_status(status: int) -> None:
    """Any 2xx reply with an operation id is accepted, because dropping it would cost a second create."""
    answer = Reply(status, body=b'{"operationId":"a"}')
    statuses.judge(requests.create(Definition(), HALF_HOUR), answer, now=NOW)
    assert resources.read_created(answer) == "a"


@pytest.mark.parametrize("status", [201, 202, 204])
def test_the_error_for_an_empty_success_reports_its_status(status: int) -> None:
    """The error for a 2xx reply without an operation id contains the status."""
    with pytest.raises(ReplyError, match=str(status)):
        resources.read_created(Reply(status))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"operationId": ""},
        {"operationId": 5.0},
        {"operationId": True},
        {"operationId": None, "error": "nope"},
        {"operationId": ".."},
        [],
        b"",
        b"<",
    ],
)
def test_a_200_without_operation_id_is_a_reply_error(body: Any) -> None:
    """A create reply without a usable operation id is an error."""
    with pytest.raises(ReplyError):
        resources.read_created(reply(body))


def test_the_error_text_of_a_200_without_id_is_reported() -> None:
    """The service's error text for a create without an operation is part of the message."""
    with pytest.raises(ReplyError, match="quota of the moon"):
        resources.read_created(reply({"error": "quota of the moon"}))


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
    """All relevant fields of a documented reply are read."""
    found = resources.read_operation(reply(COMPLETED))
    assert found == Operation("op7", Completed("exp_9"), NOW + 0.5, found.finished_at)
    assert found.finished_at == pytest.approx(NOW + 3002)


@pytest.mark.parametrize(
    ("changes", "progress"),
    [
        ({"state": "PENDING", "results": None}, Running("PENDING")),
        ({"state": "PENDING", "estimatePctComplete": 100}, Running("PENDING")),
        ({"state": "STATE_DREAMING"}, Running("STATE_DREAMING")),
        ({"state": "FAILED", "errorDetails": "too\nlarge"}, Ended("too large")),
        ({"state": "ERROR", "errorDetails": ""}, Ended("ERROR, no reason given")),
        ({"state": "FAILED", "errorDetails": 5}, Ended("FAILED, no reason given")),
        ({"results": None}, CompletedWithoutId()),
        ({"results": {"searchExportId": ""}}, CompletedWithoutId()),
        ({"results": {"searchExportId": 7}}, Completed("7")),
        ({"results": "exp_9"}, CompletedWithoutId()),
    ],
)
def test_each_state_is_running_completed_or_failed(changes: dict[str, Any], progress: OperationProgress) -> None:
    """Unknown states count as running, FAILED and ERROR as failed, and COMPLETED needs an export id."""
    assert resources.read_operation(reply(COMPLETED | changes)).progress == progress


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None, "createdAt": 5, "finishedAt": "soon", "estimatePctComplete": "100"},
        {"id": 1.5, "createdAt": None, "finishedAt": None, "estimatePctComplete": True},
        {"id": "", "createdAt": "", "finishedAt": "2026-13-01T00:00:00Z", "estimatePctComplete": 101},
        {"id": "a\nb", "createdAt": [], "finishedAt": {}, "estimatePctComplete": -1},
    ],
)
def test_optional_fields_may_be_unreadable(changes: dict[str, Any]) -> None:
    """An operation is still read if its id, times or percentage are invalid."""
    assert resources.read_operation(reply(COMPLETED | changes)) == Operation(None, Completed("exp_9"))


@pytest.mark.parametrize("body", [{}, {"state": None}, {"state": 1}, [COMPLETED], b"{", b"null", b"\xff"])
def test_an_operation_without_state_is_a_reply_error(body: Any) -> None:
    """A 200 reply without the operation's state is an error."""
    with pytest.raises(ReplyError):
        resources.read_operation(reply(body))


def test_readable_items_of_a_page_are_kept() -> None:
    """Invalid items of a list page are left out, items without an id stay, and the next token is read."""
    items = [COMPLETED, 5, None, {}, {"state": "PENDING"}, {"id": "x", "state": "PENDING", "new": 1}]
    page = resources.read_operations(reply({"operations": items, "nextPaginationToken": "t2", "other": 1}))
    assert [(one.id, one.progress) for one in page.operations] == [
        ("op7", Completed("exp_9")),
        (None, Running("PENDING")),
        ("x", Running("PENDING")),
    ]
    assert page.next_token == "t2"


@pytest.mark.parametrize("body", [{}, {"operations": None}, {"operations": [], "nextPaginationToken": None}])
def test_an_empty_list_of_operations_may_be_absent(body: Any) -> None:
    """A reply that leaves out the empty list of operations is accepted."""
    assert resources.read_operations(reply(body)) == OperationsPage(())


def test_operations_that_are_not_a_list_are_a_reply_error() -> None:
    """A reply whose `operations` is not a list is an error."""
    with pytest.raises(ReplyError):
        resources.read_operations(reply({"operations": {"a": 1}}))


def test_a_signed_url_is_kept_byte_for_byte() -> None:
    """Only JSON escapes of a signed URL are decoded, and nothing else is changed."""
    body = b'{"location":"https://s.example/b/%2F%7e?sig=a%2Bb\\u0026x=%20","expires":"2026-01-01T00:05:00.920413657Z"}'
    found = resources.read_location(reply(body))
    assert found.url == "https://s.example/b/%2F%7e?sig=a%2Bb&x=%20"
    assert found.expires_at == pytest.approx(NOW + 300.920413657)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/a?b", "http://localhost/a", "http://[::1]:9/a", "https://s.example."]
)
def test_a_signed_url_on_loopback_may_be_plain_http(url: str) -> None:
    """A signed URL on loopback, as from the sandbox, may use http."""
    assert resources.read_location(reply({"location": url})) == DownloadLink(url, None)


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
def test_an_unsafe_signed_url_is_refused(url: Any) -> None:
    """A URL that is not https, or that two parsers could read differently, is refused and not shown."""
    with pytest.raises(ReplyError) as caught:
        resources.read_location(reply({"location": url}))
    assert "evil" not in str(caught.value)


def test_a_signed_url_hides_its_query() -> None:
    """The repr of a signed URL shows its host and path, but not its query."""
    found = resources.read_location(reply({"location": LINK, "expires": 5}))
    assert "canary" not in repr(found)
    assert found.host == "storage.googleapis.com"
    assert "bucket/file" in repr(found)


def test_segments_are_read() -> None:
    """Segments are read, including built-in ones without a creation date, and items without an id are left out."""
    items = [{"id": "everyone", "name": "Everyone"}, {"name": "no id"}, 3]
    page = resources.read_segments(reply({"segments": items, "nextPaginationToken": ""}))
    assert page == SegmentsPage((Segment("everyone", "Everyone"),), "")
    item = {"id": "s", "name": "S\x1b[31m", "creator": "o@example.com", "created": "2026-01-01T00:00:00Z"}
    assert resources.read_segment(reply(item)) == Segment("s", "S[31m", "o@example.com", NOW)
    with pytest.raises(ReplyError):
        resources.read_segment(reply({}))


def test_the_owner_of_a_key_is_read() -> None:
    """The owner of the key is read, and missing fields are empty."""
    assert resources.read_me(reply({"email": "o@example.com", "orgId": "ORG"})) == Me("o@example.com", "ORG", "")
    assert resources.read_me(reply(b'{"orgId":12345678901234567890123}')).org_id == "12345678901234567890123"


@pytest.mark.parametrize(("token", "read"), [("t", "t"), (7, "7"), (0, ""), (None, ""), ("", ""), ([], ""), (1.5, "")])
def test_a_token_may_be_a_number(token: Any, read: str) -> None:
    """A numeric pagination token is accepted, so that no list ends early."""
    assert resources.read_operations(reply({"operations": [], "nextPaginationToken": token})).next_token == read
    assert resources.read_segments(reply({"segments": [], "nextPaginationToken": token})).next_token == read
