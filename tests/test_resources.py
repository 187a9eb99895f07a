"""What successful replies of the API hold, as literals."""

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
    """The id comes back as it is, padding included."""
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
def test_an_odd_way_to_write_a_reply_does_no_harm(body: bytes, found: str) -> None:
    """A number for an id keeps all its digits, and a mark in front, half a letter or bare line ends are read over."""
    assert resources.read_created(reply(body)) == found


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
def test_a_create_with_an_id_is_taken_whatever_the_success(status: int) -> None:
    """An operation was made: thrown away, it would be bought again."""
    answer = Reply(status, body=b'{"operationId":"a"}')
    statuses.judge(requests.create(Definition(), HALF_HOUR), answer, now=NOW)
    assert resources.read_created(answer) == "a"


@pytest.mark.parametrize("status", [201, 202, 204])
def test_a_success_without_what_is_needed_names_its_status(status: int) -> None:
    """Whoever reads the message knows what the service answered."""
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
    """A create that names no operation has failed, whatever its status."""
    with pytest.raises(ReplyError):
        resources.read_created(reply(body))


def test_the_error_text_of_a_200_without_id_is_told() -> None:
    """What the service says of a create without operation is in the message."""
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
    """All that counts of a documented reply is there."""
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
        ({"state": "ERROR", "errorDetails": ""}, Ended("ERROR, without a reason")),
        ({"state": "FAILED", "errorDetails": 5}, Ended("FAILED, without a reason")),
        ({"results": None}, CompletedWithoutId()),
        ({"results": {"searchExportId": ""}}, CompletedWithoutId()),
        ({"results": {"searchExportId": 7}}, Completed("7")),
        ({"results": "exp_9"}, CompletedWithoutId()),
    ],
)
def test_a_state_is_running_completed_or_ended(changes: dict[str, Any], progress: OperationProgress) -> None:
    """Unknown states run on, FAILED and ERROR end, and COMPLETED needs an export; the percentage decides nothing."""
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
def test_what_is_only_useful_may_be_unreadable(changes: dict[str, Any]) -> None:
    """An operation without id, times or percentage is still an operation."""
    assert resources.read_operation(reply(COMPLETED | changes)) == Operation(None, Completed("exp_9"))


@pytest.mark.parametrize("body", [{}, {"state": None}, {"state": 1}, [COMPLETED], b"{", b"null", b"\xff"])
def test_an_operation_without_state_is_a_reply_error(body: Any) -> None:
    """A 200 that says nothing of the operation is not the reply agreed upon."""
    with pytest.raises(ReplyError):
        resources.read_operation(reply(body))


def test_a_page_of_operations_keeps_what_can_be_read() -> None:
    """Odd items are left out, items without id stay, and the token leads on."""
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
    """Servers that leave empty lists out are understood."""
    assert resources.read_operations(reply(body)) == OperationsPage(())


def test_operations_that_are_no_list_are_a_reply_error() -> None:
    """A list that is something else is not the reply agreed upon."""
    with pytest.raises(ReplyError):
        resources.read_operations(reply({"operations": {"a": 1}}))


def test_a_location_is_kept_byte_for_byte() -> None:
    """JSON's escapes are undone, and nothing else is touched."""
    body = b'{"location":"https://s.example/b/%2F%7e?sig=a%2Bb\\u0026x=%20","expires":"2026-01-01T00:05:00.920413657Z"}'
    found = resources.read_location(reply(body))
    assert found.url == "https://s.example/b/%2F%7e?sig=a%2Bb&x=%20"
    assert found.expires_at == pytest.approx(NOW + 300.920413657)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/a?b", "http://localhost/a", "http://[::1]:9/a", "https://s.example."]
)
def test_a_location_may_be_on_this_machine(url: str) -> None:
    """The sandbox needs no TLS."""
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
def test_a_location_elsewhere_is_not_followed(url: Any) -> None:
    """A location that is not https, or that two parsers may read differently, is refused and not shown."""
    with pytest.raises(ReplyError) as caught:
        resources.read_location(reply({"location": url}))
    assert "evil" not in str(caught.value)


def test_a_location_hides_its_query() -> None:
    """The repr of a link is not the link."""
    found = resources.read_location(reply({"location": LINK, "expires": 5}))
    assert "canary" not in repr(found)
    assert found.host == "storage.googleapis.com"
    assert "bucket/file" in repr(found)


def test_segments_are_read() -> None:
    """Items without an id are left out; built-ins have no creation date."""
    items = [{"id": "everyone", "name": "Everyone"}, {"name": "no id"}, 3]
    page = resources.read_segments(reply({"segments": items, "nextPaginationToken": ""}))
    assert page == SegmentsPage((Segment("everyone", "Everyone"),), "")
    item = {"id": "s", "name": "S\x1b[31m", "creator": "o@example.com", "created": "2026-01-01T00:00:00Z"}
    assert resources.read_segment(reply(item)) == Segment("s", "S[31m", "o@example.com", NOW)
    with pytest.raises(ReplyError):
        resources.read_segment(reply({}))


def test_me_is_read() -> None:
    """What is missing is empty."""
    assert resources.read_me(reply({"email": "o@example.com", "orgId": "ORG"})) == Me("o@example.com", "ORG", "")
    assert resources.read_me(reply(b'{"orgId":12345678901234567890123}')).org_id == "12345678901234567890123"


@pytest.mark.parametrize(("token", "read"), [("t", "t"), (7, "7"), (0, ""), (None, ""), ("", ""), ([], ""), (1.5, "")])
def test_a_token_may_be_a_number(token: Any, read: str) -> None:
    """As an id may be: a list that seems to end early lacks what is on its other pages."""
    assert resources.read_operations(reply({"operations": [], "nextPaginationToken": token})).next_token == read
    assert resources.read_segments(reply({"segments": [], "nextPaginationToken": token})).next_token == read
