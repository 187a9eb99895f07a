"""Fullstory's HTTP in one place: requests out, replies and errors in.

What stands here and nowhere else: paths, names of JSON keys, what a status means. The shell that makes the calls
decides nothing. Section numbers are those of the API reference.

1. A request is a value. Ids are opaque and percent-encoded whole (3.0); both time ranges are always sent, and equal,
   since without the second one older data comes back short, silently (3.1).
2. A reply is judged by its status first, in one table (`judge`), and then read. Only 200 is success (3.0). A redirect
   is never followed: the key would go along.
3. Everything read is checked for its type. What is needed and missing is a `ReplyError`; what is only useful (times,
   percentages, words) is left out when it cannot be read. No reply, however odd, raises anything but an `ExportError`.
4. Of the service's own words one printable line goes into a message, without the query of any URL in it.
"""

import html
import ipaddress
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_tz
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import orjson

from asyncexport.core.bundles import Range, read_timestamp, show
from asyncexport.core.exports import Definition, Type
from asyncexport.errors import (
    ConfigError,
    ExportError,
    GoneError,
    Problem,
    RateLimitedError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
)

MAX_REPLY_BYTES = 8 << 20
"""A page of 100 operations is some 40 KB; what is larger than this is no reply of the API."""

MAX_ERROR_BYTES = 64 << 10
"""As much of an error's body as is read: only a line of it is shown."""

MAX_ID_CHARS = 1024
"""Ids are some 43 characters long; this still fits any server's limit on a path."""

MAX_WORDS = 200
"""How much of the service's own words goes into a message."""

PAGE_LIMIT = 100
"""Operations, or segments, a page: the maximum (3.3, 3.6)."""

LONGEST_RETRY_AFTER_SECONDS = 86_400.0
"""A Retry-After beyond a day is taken for a day."""


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


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Its repr keeps quiet about headers and body: either may hold a signed link."""

    status: int
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True)
class Running:
    """Not finished: PENDING, or a state nobody has heard of (section 4)."""

    state: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished; the export can be fetched under its id."""

    export_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Finished without an export: FAILED, ERROR, or COMPLETED with none named. `reason` is one line."""

    reason: str


Progress = Running | Completed | Ended


@dataclass(frozen=True, slots=True)
class Operation:
    """A job at the service (3.2). Times are in seconds since 1970; `percent` is an estimate and never means done."""

    id: str | None
    progress: Progress
    created_at: float | None = None
    finished_at: float | None = None
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """One page of the list (3.3); no `next_token`: the last one."""

    operations: tuple[Operation, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class DownloadLink:
    """Where an archive can be had for some minutes (3.4). The URL is a secret: its query signs whoever has it in."""

    url: str
    expires_at: float | None = None

    def __repr__(self) -> str:
        """Without the query."""
        return f"Location(url={without_query(self.url)!r}, expires_at={self.expires_at!r})"

    @property
    def host(self) -> str:
        """The storage host, which messages may name."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment (3.6); built-in ones have no `created_at`."""

    id: str
    name: str
    creator: str = ""
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentsPage:
    """One page of segments; no `next_token`: the last one."""

    segments: tuple[Segment, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class Me:
    """Who made the key (3.7); `role` is that person's, not the key's level."""

    email: str
    org_id: str
    role: str


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


def judge(request: Request, reply: Reply, *, now: float) -> None:
    """Turn a status into the error it stands for (3.0); return for 200. `now` is in seconds since 1970.

    Raises:
        UnauthorizedError: 401.
        GoneError: 404 or 410, asked for an operation or an export.
        RateLimitedError: 429.
        UnavailableError: 408, 499, or 500 and above.
        RefusedError: another 4xx, or a redirect: whoever sends one is not the service, and asking again is no use.
        ReplyError: a success other than 200.
    """
    if reply.status != 200:
        raise _error(request, reply, now=now)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """How long a 429 asks to wait, in seconds; None where it says nothing usable (section 6).

    Seconds or an HTTP date, which is taken against the reply's own `Date`, else against `now`. Zero, negative, past and
    unreadable values are None, so that nobody spins on them; more than a day is a day.
    """
    text = header(headers, "retry-after").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,300}(\.[0-9]{1,300})?", text):
        seconds = float(text)
    else:
        moment = _http_date(text)
        if moment is None:
            return None
        date = read_date(headers)
        seconds = moment - (now if date is None else date)
    if not math.isfinite(seconds) or seconds > LONGEST_RETRY_AFTER_SECONDS:
        return LONGEST_RETRY_AFTER_SECONDS
    return seconds if seconds > 0 else None


def read_date(headers: Mapping[str, str]) -> float | None:
    """The service's clock as its `Date` header tells it, in seconds since 1970."""
    return _http_date(header(headers, "date"))


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, whatever the case of its name (`name` in lower case); "" where there is none."""
    for key, value in headers.items():
        if key.lower() == name:
            return value
    return ""


def decoded(reply: Reply) -> Reply:
    """The reply with a Content-Encoding of gzip undone, which some proxies add unasked.

    Raises:
        ReplyError: it does not inflate, or to more than `MAX_REPLY_BYTES`.
    """
    encoding = header(reply.headers, "content-encoding").strip().lower()
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return reply
    inflate = zlib.decompressobj(wbits=47)
    try:
        body = inflate.decompress(reply.body, MAX_REPLY_BYTES + 1)
    except zlib.error:
        raise ReplyError("the service's reply could not be decompressed") from None
    if len(body) > MAX_REPLY_BYTES or not inflate.eof:
        raise ReplyError("the service's compressed reply was cut short or is far too large")
    return Reply(reply.status, {k: v for k, v in reply.headers.items() if k.lower() != "content-encoding"}, body)


def read_created(reply: Reply) -> str:
    """The operation's id (3.1).

    Raises:
        ReplyError: there is none.
    """
    data = _object(reply, "creating an export")
    found = _id(data.get("operationId"))
    if found is None:
        words = _words(reply)
        raise ReplyError("creating an export: the service answered 200 without an operation id" + _after(words))
    return found


def read_operation(reply: Reply) -> Operation:
    """One operation (3.2).

    Raises:
        ReplyError: it is not a JSON object with a state.
    """
    found = _operation(_object(reply, "asking for an operation"))
    if found is None:
        raise ReplyError("asking for an operation: the service answered 200 without a state")
    return found


def read_operations(reply: Reply) -> OperationsPage:
    """One page of operations (3.3); items that cannot be read are left out, ids that cannot be are None.

    Raises:
        ReplyError: it is not a JSON object, or its `operations` are no list.
    """
    data = _object(reply, "listing operations")
    items = _list(data, "operations", "listing operations")
    found = (_operation(item) for item in items if isinstance(item, dict))
    return OperationsPage(tuple(one for one in found if one is not None), _text(data, "nextPaginationToken"))


def read_location(reply: Reply) -> DownloadLink:
    """Where the archive is (3.4).

    Raises:
        ReplyError: there is none, or it is not a plain https URL (on loopback, for the sandbox, http will do).
    """
    data = _object(reply, "asking for an archive's location")
    url = data.get("location")
    if not isinstance(url, str) or not url:
        raise ReplyError("asking for an archive's location: the service answered 200 without one")
    if not is_safe(url):
        raise ReplyError(
            "asking for an archive's location: the service named one that is not https, or no URL; it is not followed"
        )
    return DownloadLink(url, _time(data, "expires"))


def read_segment(reply: Reply) -> Segment:
    """One segment (3.6).

    Raises:
        ReplyError: it is not a JSON object with an id.
    """
    found = _segment(_object(reply, "asking for a segment"))
    if found is None:
        raise ReplyError("asking for a segment: the service answered 200 without an id")
    return found


def read_segments(reply: Reply) -> SegmentsPage:
    """One page of segments (3.6); items without an id are left out.

    Raises:
        ReplyError: it is not a JSON object, or its `segments` are no list.
    """
    data = _object(reply, "listing segments")
    items = _list(data, "segments", "listing segments")
    found = (_segment(item) for item in items if isinstance(item, dict))
    return SegmentsPage(tuple(one for one in found if one is not None), _text(data, "nextPaginationToken"))


def read_me(reply: Reply) -> Me:
    """Whose key it is (3.7); what is missing is "".

    Raises:
        ReplyError: it is not a JSON object.
    """
    data = _object(reply, "checking the API key")
    return Me(*(one_line(_text(data, key)) for key in ("email", "orgId", "role")))


def is_safe(url: str) -> bool:
    """Whether a secret may travel to this URL: https, or http on loopback, to a plain host, with nothing odd in it."""
    if not re.fullmatch(r"[!-~]{1,16384}", url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    # A backslash or an @ in the authority is read differently by different parsers.
    if "@" in parts.netloc or "\\" in url or not _is_host(host):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_query(url: str) -> str:
    """A URL as it may be shown: no query, no fragment, no user name."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def one_line(text: str, *, limit: int = MAX_WORDS) -> str:
    """Foreign text as it may be shown: one printable line of at most `limit` characters, queries of URLs left out."""
    text = "".join(c for c in text[: 64 * limit] if c.isprintable() or c.isspace())
    text = re.sub(r"\?[^\s\"'<>]+", "?…", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _encoded(identifier: str) -> str:
    return quote(identifier, safe="")


def _query(values: Mapping[str, str]) -> str:
    return urlencode({key: value for key, value in values.items() if value}, quote_via=quote, safe="")


STATUSES: tuple[tuple[range, type[ExportError], str], ...] = (
    (range(401, 402), UnauthorizedError, "the service refused the API key"),
    (range(429, 430), RateLimitedError, "the service was asked too often"),
    (range(408, 409), UnavailableError, "the service gave up waiting"),
    (range(499, 500), UnavailableError, "the service gave up waiting"),
    (range(400, 500), RefusedError, "the service said no"),
    (range(500, 1000), UnavailableError, "the service is in trouble"),
    (range(300, 400), RefusedError, "the service redirects elsewhere, which is never followed with a key"),
)
"""What a status means (3.0); the first row that holds it counts. Any other is a ReplyError."""

HINTS: dict[int, str] = {
    301: "check [api] base_url",
    302: "check [api] base_url",
    307: "check [api] base_url",
    308: "check [api] base_url",
    401: "check that the key is complete and has not been revoked",
    403: "the key must be of level Admin or Architect, and the account must have the Segment Export add-on",
}


def _error(request: Request, reply: Reply, *, now: float) -> ExportError:
    if reply.status in (404, 410) and request.kind in (Kind.POLL, Kind.RESULTS):
        what = "operation" if request.kind is Kind.POLL else "export"
        return GoneError(_message(request, reply, f"the service no longer has this {what}"))
    error, said = next(
        ((error, said) for statuses, error, said in STATUSES if reply.status in statuses),
        (ReplyError, "the service answered with an unknown success"),
    )
    message = _message(request, reply, said)
    hint = HINTS.get(reply.status, "")
    if error is RateLimitedError:
        return RateLimitedError(message, retry_after=retry_after(reply.headers, now=now))
    if error is UnavailableError:
        # A gateway answers in the service's place: what was asked for may have been done.
        return UnavailableError(message, unanswered=reply.status in (502, 504))
    if error is RefusedError:
        return RefusedError(message, status=reply.status, hint=hint or _hint_for_refused(request, reply.status))
    return error(message, hint=hint)


def _message(request: Request, reply: Reply, said: str) -> str:
    return f"{request.doing}: {said} ({reply.status}){_after(_words(reply))}"


def _hint_for_refused(request: Request, status: int) -> str:
    if request.kind is Kind.CREATE and status in (400, 404):
        return "check segment, fields and scope in the config; `asyncexport segments` lists the segments"
    return ""


def _after(words: str) -> str:
    return f": {words}" if words else ""


def _words(reply: Reply) -> str:
    """What the service itself says of an error: JSON `message`, then `error`, then a title, then the text (3.0)."""
    body = reply.body[:MAX_ERROR_BYTES]
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        data = None
    if isinstance(data, dict):
        for value in (data.get("message"), data.get("error")):
            said = value.get("message") if isinstance(value, dict) else value
            if isinstance(said, str) and said.strip():
                return one_line(said)
    if reply.status == 200:
        # A reply that should have been data may hold a link: no excerpt of it.
        return _title(body)
    text = body.decode("utf-8", "replace").strip()
    return _title(body) if text.startswith("<") else one_line(text)


def _title(body: bytes) -> str:
    """The title of an HTML page, or ""."""
    found = re.search(rb"(?is)<title[^>]{0,200}>([^<]{1,1000})", body)
    return one_line(html.unescape(found[1].decode("utf-8", "replace"))) if found else ""


def _http_date(text: str) -> float | None:
    """Seconds since 1970 from any of the three forms of a date (RFC 9110, 5.6.7); None where it is none.

    A date without a zone, or with one that says nothing (`-0000`), is GMT like every other: never this host's time.
    """
    try:
        # The form of RFC 850 is not recognized without a zone, the others are.
        found = parsedate_tz(text[:100]) or parsedate_tz(f"{text[:100]} GMT")
        if found is None:
            return None
        year, month, day, hour, minute, second = found[:6]
        # A minute may have a leap second, which a datetime cannot hold.
        leap = second == 60
        moment = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC).timestamp()
        return moment + leap - (found[9] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _object(reply: Reply, doing: str) -> dict[str, Any]:
    try:
        data = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise ReplyError(
            f"{doing}: the service answered 200 with something that is no JSON object" + _after(_words(reply))
        )
    return data


def _list(data: dict[str, Any], key: str, doing: str) -> list[Any]:
    # Absent and null are how some servers write an empty list.
    items = data.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ReplyError(f"{doing}: the service answered 200, but its {key} are no list")
    return items


def _operation(data: dict[str, Any]) -> Operation | None:
    state = _text(data, "state")
    if not state:
        return None
    percent = data.get("estimatePctComplete")
    return Operation(
        id=_id(data.get("id")),
        progress=_progress(state, data),
        created_at=_time(data, "createdAt"),
        finished_at=_time(data, "finishedAt"),
        percent=percent if type(percent) is int and 0 <= percent <= 100 else None,
    )


def _progress(state: str, data: dict[str, Any]) -> Progress:
    """Section 4: FAILED and ERROR are the end; what nobody has heard of is running."""
    if state in ("FAILED", "ERROR"):
        return Ended(one_line(_text(data, "errorDetails")) or f"{state}, without a reason")
    if state != "COMPLETED":
        return Running(one_line(state, limit=60))
    found = data.get("results")
    export_id = _id(found.get("searchExportId")) if isinstance(found, dict) else None
    return Completed(export_id) if export_id else Ended("COMPLETED, but no export id came with it")


def _segment(data: dict[str, Any]) -> Segment | None:
    found = _id(data.get("id"))
    if found is None:
        return None
    return Segment(found, one_line(_text(data, "name")), one_line(_text(data, "creator")), _time(data, "created"))


def _id(value: Any) -> str | None:
    """An id that can be asked for: printable, of sane length, and no step up the path."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS:
        return None
    return value if value.isprintable() and value.strip(".") else None


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _time(data: dict[str, Any], key: str) -> float | None:
    try:
        return read_timestamp(_text(data, key)[:100])
    except ValueError:
        return None


@lru_cache(maxsize=16)
def _is_host(host: str) -> bool:
    """Labels that resolvers accept, or an address; anything else makes them fail in ways of their own."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and bool(
            re.fullmatch(r"([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", host)
        )
    return True
