"""Reads the body of a create, in the spellings that existing clients use.

1. camelCase is the documented spelling; snake_case is accepted too. Unknown keys are ignored.
2. Times are RFC 3339 with 0 to 9 fraction digits. An empty or missing time leaves the range open at that end: since the
   beginning, or until now.
3. An invalid body is refused with 400. The status is inferred; the texts are invented.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import orjson

from asyncexport.core.bundles import read_timestamp
from asyncexport.core.exports import Format, Type

SCOPES = frozenset(
    f"{prefix}_{name}"
    for prefix in ("SCOPE", "TYPE")
    for name in ("EVENT", "EVENTS", "PAGE", "PAGES", "SESSION", "SESSIONS", "INDIVIDUAL", "INDIVIDUALS")
)
"""The vendor's pages disagree on the spelling."""


class SandboxRefusal(Exception):  # noqa: N818 - an answer of the sandbox, not a fault of it
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        code: The error code for programs.
        message: The error message.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class SandboxTimeSpan:
    """A range of time as the client sent it, in seconds since 1970; None means open at that end."""

    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True)
class SandboxExportRequest:
    """The request of a create. `segment_span` is None if it has no segmentTimeRange."""

    segment: str
    type: Type
    format: Format
    span: SandboxTimeSpan
    segment_span: SandboxTimeSpan | None
    fields: tuple[str, ...] = ()
    scope: str = ""
    timezone: str = ""


def read_export_request(body: bytes) -> SandboxExportRequest:
    """Read the body of a create.

    Raises:
        SandboxRefusal: The body is invalid.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise SandboxRefusal(400, "bad_request", "the body is not JSON") from None
    if not isinstance(data, dict):
        raise SandboxRefusal(400, "bad_request", "the body is not a JSON object")
    span = _time_span(data, "timeRange")
    if span is None:
        raise SandboxRefusal(400, "required_field", "timeRange is required")
    return SandboxExportRequest(
        segment=_required_string(data, "segmentId"),
        type=Type(_chosen(data, "type", {f"TYPE_{one.name}": one.value for one in Type})),
        format=Format(_chosen(data, "format", {f"FORMAT_{one.name}": one.value for one in Format})),
        span=span,
        segment_span=_time_span(data, "segmentTimeRange"),
        fields=_fields(data),
        scope=_scope(data),
        timezone=_string(data, "timezone"),
    )


def _get(data: dict[str, Any], name: str) -> Any:
    """Return the value under its camelCase name or else its snake_case name."""
    return data[name] if name in data else data.get(_snake(name))


@cache
def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _string(data: dict[str, Any], name: str) -> str:
    value = _get(data, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SandboxRefusal(400, "bad_request", f"{name} is not a string")
    return value


def _required_string(data: dict[str, Any], name: str) -> str:
    value = _string(data, name)
    if not value:
        raise SandboxRefusal(400, "required_field", f"{name} is required")
    return value


def _chosen(data: dict[str, Any], name: str, known: dict[str, str]) -> str:
    value = _required_string(data, name)
    if value not in known:
        raise SandboxRefusal(400, "bad_request", f"{name} is not one of {', '.join(known)}")
    return known[value]


def _time_span(data: dict[str, Any], name: str) -> SandboxTimeSpan | None:
    value = _get(data, name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise SandboxRefusal(400, "bad_request", f"{name} is not an object")
    span = SandboxTimeSpan(_time_of(value, "start", name), _time_of(value, "end", name))
    if span.start is not None and span.end is not None and span.end <= span.start:
        raise SandboxRefusal(400, "bad_request", f"{name} must end after its start")
    return span


def _time_of(data: dict[str, Any], name: str, of: str) -> float | None:
    value = data.get(name)
    if value is None or value == "":
        return None
    try:
        return _cached_timestamp(value)
    except (ValueError, AttributeError, TypeError):
        raise SandboxRefusal(400, "bad_request", f"{of}.{name} is not a time stamp") from None


@lru_cache(maxsize=1024)
def _cached_timestamp(text: str) -> float:
    """Read a time stamp. Cached, since each occurs twice in a body and once more in the body of the next bundle."""
    return read_timestamp(text)


def _fields(data: dict[str, Any]) -> tuple[str, ...]:
    value = _get(data, "fields")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SandboxRefusal(400, "bad_request", "fields is not a list of strings")
    seen: set[str] = set()
    for name in value:
        if name in seen:
            raise SandboxRefusal(400, "bad_request", f"fields has {name} twice")
        seen.add(name)
    return tuple(value)


def _scope(data: dict[str, Any]) -> str:
    details = _get(data, "eventDetails")
    if details is None:
        return ""
    if not isinstance(details, dict):
        raise SandboxRefusal(400, "bad_request", "eventDetails is not an object")
    scope = _string(details, "scope")
    if scope and scope not in SCOPES:
        raise SandboxRefusal(400, "bad_request", "eventDetails.scope is not a known scope")
    return scope
