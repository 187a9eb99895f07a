"""What is asked of the API, as literals."""

import orjson
import pytest

from asyncexport.core.exports import Definition, Format, Type
from asyncexport.core.service import requests
from asyncexport.core.service.requests import Kind
from asyncexport.errors import ConfigError
from tests.api_replies import HALF_HOUR


def test_create_always_sends_both_ranges_and_they_are_equal() -> None:
    """A create for old data cannot come back short for want of the segment's own range."""
    request = requests.create(Definition(), HALF_HOUR)
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
    body = orjson.loads(requests.create(definition, HALF_HOUR).body or b"")
    assert body["format"] == "FORMAT_CSV"
    assert body["fields"] == ["EventStart", "evt_*"]
    assert body["eventDetails"] == {"scope": "SCOPE_PAGES"}
    assert body["timezone"] == "Europe/Rome"


def test_scope_is_sent_for_events_only() -> None:
    """Individuals know no event scope."""
    body = orjson.loads(requests.create(Definition(type=Type.INDIVIDUAL, scope="SCOPE_PAGES"), HALF_HOUR).body or b"")
    assert body["type"] == "TYPE_INDIVIDUAL"
    assert "eventDetails" not in body


@pytest.mark.parametrize(
    ("request_", "kind", "path", "query"),
    [
        (requests.operation("b3A=/+x"), Kind.POLL, "/operations/v1/b3A%3D%2F%2Bx", ""),
        (requests.operations(), Kind.LIST, "/operations/v1", "type=SEARCH_EXPORT&limit=100"),
        (
            requests.operations(state="PENDING", token="a b/c=", limit=5),
            Kind.LIST,
            "/operations/v1",
            "type=SEARCH_EXPORT&state=PENDING&limit=5&paginationToken=a%20b%2Fc%3D",
        ),
        (requests.results("a/b?c#d"), Kind.RESULTS, "/search/v1/exports/a%2Fb%3Fc%23d/results", ""),
        (requests.segments(token="t"), Kind.OTHER, "/segments/v1", "limit=100&paginationToken=t"),
        (
            requests.segment("user@example.com:4100200300400500"),
            Kind.OTHER,
            "/segments/v1/user%40example.com%3A4100200300400500",
            "",
        ),
        (requests.me(), Kind.OTHER, "/me", ""),
    ],
)
def test_requests_encode_every_id_whole(request_: requests.Request, kind: Kind, path: str, query: str) -> None:
    """Ids are opaque: whatever is in one, it stays one step of the path."""
    assert (request_.kind, request_.method, request_.path, request_.query) == (kind, "GET", path, query)


def test_the_key_goes_in_as_it_is() -> None:
    """`Basic` is followed by the key itself, not by base64 of anything."""
    assert requests.authorization("na1.aB+/=") == "Basic na1.aB+/="


@pytest.mark.parametrize("key", ["", "na1.abc\n", "na1 abc", "na1.äbc", "na1.abc\r\nX: y"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown(key: str) -> None:
    """A key with a line end or blank in it is a configuration fault, and is not repeated."""
    with pytest.raises(ConfigError) as caught:
        requests.authorization(key)
    assert "abc" not in str(caught.value)
