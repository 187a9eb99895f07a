"""Requests to Fullstory's API: paths, queries and bodies. Section numbers are those of the API reference.

1. A request is a value; sending it is the client's part.
2. Ids are opaque and percent-encoded whole (3.0).
3. A create always sends both time ranges, and they are equal: without the second one older data comes back short,
   silently (3.1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from asyncexport.core.bundles import Range, show
from asyncexport.core.exports import Definition, Type
from asyncexport.errors import ConfigError, Problem

PAGE_LIMIT = 100
"""Operations, or segments, a page: the maximum (3.3, 3.6)."""


FRAMING = "how a message is framed is decided for each one"

REFUSED_HEADERS = {
    **dict.fromkeys(("authorization", "proxy-authorization", "cookie"), "the API key alone says who asks"),
    "host": "[api] base_url names the host",
    **dict.fromkeys(
        (
            *("connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive"),
            *("te", "trailer", "transfer-encoding", "upgrade"),
        ),
        FRAMING,
    ),
}
"""Headers that a user must not set, in lower case, and why."""


class Kind(StrEnum):
    """What a request is, as it is counted."""

    CREATE = "create"
    POLL = "poll"
    LIST = "list"
    RESULTS = "results"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the API; path and query are percent-encoded already. `doing` is for messages."""

    kind: Kind
    method: str
    path: str
    doing: str
    query: str = ""
    body: bytes | None = None


def create(definition: Definition, span: Range) -> Request:
    """Start the export of one range (3.1). Not idempotent: each call that arrives makes an operation."""
    times = {"start": show(span.start), "end": show(span.end)}
    body: dict[str, Any] = {
        "segmentId": definition.segment,
        "type": f"TYPE_{definition.type.value.upper()}",
        "format": f"FORMAT_{definition.format.value.upper()}",
        "timeRange": times,
        "segmentTimeRange": times,
    }
    if definition.timezone:
        body["timezone"] = definition.timezone
    if definition.fields:
        # A name that stands twice is refused.
        body["fields"] = list(dict.fromkeys(definition.fields))
    if definition.scope and definition.type is Type.EVENT:
        body["eventDetails"] = {"scope": definition.scope}
    return Request(Kind.CREATE, "POST", "/segments/v1/exports", "creating an export", body=orjson.dumps(body))


def operation(operation_id: str) -> Request:
    """Ask how one operation stands (3.2)."""
    return Request(Kind.POLL, "GET", f"/operations/v1/{_encoded(operation_id)}", "asking for an operation")


def operations(*, state: str = "", token: str = "", limit: int = PAGE_LIMIT) -> Request:
    """Ask how up to `limit` operations stand (3.3); `state` is PENDING, COMPLETED, FAILED, or "" for all."""
    query = _query({"type": "SEARCH_EXPORT", "state": state, "limit": str(limit), "paginationToken": token})
    return Request(Kind.LIST, "GET", "/operations/v1", "listing operations", query=query)


def results(export_id: str) -> Request:
    """Ask for a fresh link to the archive of a completed export (3.4)."""
    path = f"/search/v1/exports/{_encoded(export_id)}/results"
    return Request(Kind.RESULTS, "GET", path, "asking for an archive's location")


def segments(*, token: str = "") -> Request:
    """List segments (3.6)."""
    query = _query({"limit": str(PAGE_LIMIT), "paginationToken": token})
    return Request(Kind.OTHER, "GET", "/segments/v1", "listing segments", query=query)


def segment(segment_id: str) -> Request:
    """Look one segment up (3.6)."""
    return Request(Kind.OTHER, "GET", f"/segments/v1/{_encoded(segment_id)}", "asking for a segment")


def me() -> Request:
    """Ask whose key this is (3.7): the cheapest check of a key."""
    return Request(Kind.OTHER, "GET", "/me", "checking the API key")


def authorization(key: str) -> str:
    """The header's value: the key as it is, never base64 of anything (section 2).

    Raises:
        ConfigError: the key is empty or cannot stand in a header.
    """
    if not re.fullmatch(r"[!-~]+", key):
        fault = "holds blanks, line ends or other characters that no key has" if key else "is empty"
        raise ConfigError([Problem("api key", f"the API key {fault}")], hint="copy the key again, whole and alone")
    return f"Basic {key}"


def _encoded(identifier: str) -> str:
    return quote(identifier, safe="")


def _query(values: Mapping[str, str]) -> str:
    return urlencode({key: value for key, value in values.items() if value}, quote_via=quote, safe="")
