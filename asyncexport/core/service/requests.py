"""Requests to Fullstory's API: paths, queries and bodies. Numbers in brackets are sections of API.md.

1. A request is a value; the client sends it.
2. Ids are opaque, and percent-encoded completely (3.0).
3. A create always sends both time ranges, and they are equal: without the second one older data silently comes back
   incomplete (3.1).
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
"""Operations, or segments, on a page: the maximum (3.3, 3.6)."""


FRAMING = "it is set for each request"

REFUSED_HEADERS = {
    **dict.fromkeys(("authorization", "proxy-authorization", "cookie"), "requests are authorized by the API key alone"),
    "host": "the host is set by [api] base_url",
    **dict.fromkeys(
        (
            *("connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive"),
            *("te", "trailer", "transfer-encoding", "upgrade"),
        ),
        FRAMING,
    ),
}
"""Headers that a user must not set, in lower case, each with the reason."""


class Kind(StrEnum):
    """The kinds of requests, as they are counted."""

    CREATE = "create"
    POLL = "poll"
    LIST = "list"
    RESULTS = "results"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the API. Path and query are percent-encoded already. `doing` is for messages."""

    kind: Kind
    method: str
    path: str
    doing: str
    query: str = ""
    body: bytes | None = None


def create(definition: Definition, span: Range) -> Request:
    """Start the export of one range (3.1). Not idempotent: each call that arrives starts an operation."""
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
        # The service refuses repeated names.
        body["fields"] = list(dict.fromkeys(definition.fields))
    if definition.scope and definition.type is Type.EVENT:
        body["eventDetails"] = {"scope": definition.scope}
    return Request(Kind.CREATE, "POST", "/segments/v1/exports", "creating an export", body=orjson.dumps(body))


def operation(operation_id: str) -> Request:
    """Ask for the state of one operation (3.2)."""
    return Request(Kind.POLL, "GET", f"/operations/v1/{_encoded(operation_id)}", "polling an operation")


def operations(*, state: str = "", token: str = "", limit: int = PAGE_LIMIT) -> Request:
    """Ask for the state of up to `limit` operations (3.3). `state`: PENDING, COMPLETED, FAILED, or "" for all."""
    query = _query({"type": "SEARCH_EXPORT", "state": state, "limit": str(limit), "paginationToken": token})
    return Request(Kind.LIST, "GET", "/operations/v1", "listing operations", query=query)


def results(export_id: str) -> Request:
    """Ask for a new link to the archive of a completed export (3.4)."""
    path = f"/search/v1/exports/{_encoded(export_id)}/results"
    return Request(Kind.RESULTS, "GET", path, "asking for the link to an archive")


def segments(*, token: str = "") -> Request:
    """List segments (3.6)."""
    query = _query({"limit": str(PAGE_LIMIT), "paginationToken": token})
    return Request(Kind.OTHER, "GET", "/segments/v1", "listing segments", query=query)


def segment(segment_id: str) -> Request:
    """Look up one segment (3.6)."""
    return Request(Kind.OTHER, "GET", f"/segments/v1/{_encoded(segment_id)}", "asking for a segment")


def me() -> Request:
    """Ask which organisation the key belongs to (3.7): the cheapest check of a key."""
    return Request(Kind.OTHER, "GET", "/me", "checking the API key")


def authorization(key: str) -> str:
    """Return the header's value: the key as it is, never base64-encoded (section 2).

    Raises:
        ConfigError: the key is empty or cannot be sent in a header.
    """
    if not re.fullmatch(r"[!-~]+", key):
        fault = "contains spaces, line breaks or other characters that no key has" if key else "is empty"
        raise ConfigError(
            [Problem("api key", f"the API key {fault}")], hint="copy the key again, all of it and nothing else"
        )
    return f"Basic {key}"


def _encoded(identifier: str) -> str:
    return quote(identifier, safe="")


def _query(values: Mapping[str, str]) -> str:
    return urlencode({key: value for key, value in values.items() if value}, quote_via=quote, safe="")
