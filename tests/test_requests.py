"""Requests to the API, as literals."""

import orjson
import pytest

from asyncexport.core.exports import Definition, Format, Type
from asyncexport.core.service import requests
from asyncexport.core.service.requests import Kind
from asyncexport.errors import ConfigError
from tests.api_replies import HALF_HOUR


def test_create_always_sends_both_ranges_with_equal_values() -> None:
    """A create sends the same time range for the data and for the segment, so that no old rows are missing."""
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


def test_create_sends_the_definition_and_no_field_twice() -> None:
    """A create sends fields, scope and time zone as configured, and a duplicate field only once."""
    definition = Definition(
        "s", Type.EVENT, Format.CSV, ("EventStart", "evt_*", "EventStart"), "SCOPE_PAGES", "Europe/Rome"
    )
    body = orjson.loads(requests.create(definition, HALF_HOUR).body or b"")
    assert body["format"] == "FORMAT_CSV"
    assert body["fields"] == ["EventStart", "evt_*"]
    assert body["eventDetails"] == {"scope": "SCOPE_PAGES"}
    assert body["timezone"] == "Europe/Rome"


def test_scope_is_sent_for_events_only() -> None:
    """A create for individuals has no event scope."""
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
def test_requests_encode_ids_completely(request_: requests.Request, kind: Kind, path: str, query: str) -> None:
    """Ids are opaque: any id is encoded so that it stays a single path segment."""
    assert (request_.kind, request_.method, request_.path, request_.query) == (kind, "GET", path, query)


def test_the_key_is_sent_unchanged() -> None:
    """The Authorization header is `Basic` followed by the key itself, without base64."""
    assert requests.authorization("na1.aB+/=") == "Basic na1.aB+/="


@pytest.mark.parametrize("key", ["", "na1.abc\n", "na1 abc", "na1.äbc", "na1.abc\r\nX: y"])
def test_a_key_that_is_invalid_in_a_header_is_refused_without_being_shown(key: str) -> None:
    """A key with a line end, space or non-ASCII character is a configuration error that does not show the key."""
    with pytest.raises(ConfigError) as caught:
        requests.authorization(key)
    assert "abc" not in str(caught.value)
