"""Reads successful replies of the API: operations, links, segments, the owner of the key.

The names of JSON keys are only here and in `requests`. Numbers in brackets are sections of API.md.

1. Everything read is checked for its type. If something necessary is missing, a `ReplyError` is raised; optional parts
   (times, words) are left out if they cannot be read. No reply, however odd, raises anything but an `ExportError`.
2. A link is accepted only if a secret may be sent to it (`urls.is_safe`), and its query is in no repr and no message.
"""

from dataclasses import dataclass
from typing import Any

from asyncexport.core.bundles import read_timestamp
from asyncexport.core.service.replies import Reply, after_colon, read_json, service_words
from asyncexport.core.service.urls import host_of, is_safe, without_query
from asyncexport.core.text import one_line
from asyncexport.errors import ReplyError

MAX_ID_CHARS = 1024
"""Ids have about 43 characters; this still fits any server's limit for a path."""


@dataclass(frozen=True, slots=True)
class Running:
    """Not finished: PENDING, or an unknown state (section 4)."""

    state: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished; the export can be fetched by its id."""

    export_id: str


@dataclass(frozen=True, slots=True)
class CompletedWithoutId:
    """Finished, but without an export id. The next answer may hold one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Finished without an export: FAILED or ERROR. `reason` is one line."""

    reason: str


OperationProgress = Running | Completed | CompletedWithoutId | Ended


@dataclass(frozen=True, slots=True)
class Operation:
    """A job at the service (3.2). Times are in seconds since 1970."""

    id: str | None
    progress: OperationProgress
    created_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """One page of the list (3.3). `next_token` is "" on the last one."""

    operations: tuple[Operation, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class DownloadLink:
    """A link to an archive, valid for some minutes (3.4). The URL is a secret: its query grants access to anyone."""

    url: str
    expires_at: float | None = None

    def __repr__(self) -> str:
        """Return it without the query."""
        return f"DownloadLink(url={without_query(self.url)!r}, expires_at={self.expires_at!r})"

    @property
    def host(self) -> str:
        """The storage host, which messages may show."""
        return host_of(self.url)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment (3.6). Built-in ones have no `created_at`."""

    id: str
    name: str
    creator: str = ""
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentsPage:
    """One page of segments. `next_token` is "" on the last one."""

    segments: tuple[Segment, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class Me:
    """The person who made the key (3.7). `role` is that person's, not the key's level."""

    email: str
    org_id: str
    role: str


def read_created(reply: Reply) -> str:
    """Return the operation's id (3.1).

    Raises:
        ReplyError: the reply has none.
    """
    doing = "creating an export"
    found = _usable_id(_json_object(reply, doing).get("operationId"))
    if found is None:
        raise _missing(reply, doing, "an operation id")
    return found


def read_operation(reply: Reply) -> Operation:
    """Read one operation (3.2).

    Raises:
        ReplyError: it is not a JSON object with a state.
    """
    doing = "polling an operation"
    found = _operation_of(_json_object(reply, doing))
    if found is None:
        raise _missing(reply, doing, "a state")
    return found


def read_operations(reply: Reply) -> OperationsPage:
    """Read one page of operations (3.3). Unreadable items are left out, unreadable ids are None.

    Raises:
        ReplyError: it is not a JSON object, or its `operations` are not a list.
    """
    data = _json_object(reply, "listing operations")
    items = _items_under(data, "operations", "listing operations")
    found = (_operation_of(item) for item in items if isinstance(item, dict))
    return OperationsPage(tuple(one for one in found if one is not None), _token_under(data))


def read_location(reply: Reply) -> DownloadLink:
    """Read the link to an archive (3.4).

    Raises:
        ReplyError: there is none, or it is not a plain https URL (on loopback, for the sandbox, http is accepted).
    """
    doing = "asking for the link to an archive"
    data = _json_object(reply, doing)
    url = data.get("location")
    if not isinstance(url, str) or not url:
        raise _missing(reply, doing, "one")
    if not is_safe(url):
        raise ReplyError(f"{doing}: the service sent one that is not a plain https URL, so it is not followed")
    return DownloadLink(url, _time_under(data, "expires"))


def read_segment(reply: Reply) -> Segment:
    """Read one segment (3.6).

    Raises:
        ReplyError: it is not a JSON object with an id.
    """
    doing = "asking for a segment"
    found = _segment_of(_json_object(reply, doing))
    if found is None:
        raise _missing(reply, doing, "an id")
    return found


def read_segments(reply: Reply) -> SegmentsPage:
    """Read one page of segments (3.6). Items without an id are left out.

    Raises:
        ReplyError: it is not a JSON object, or its `segments` are not a list.
    """
    data = _json_object(reply, "listing segments")
    items = _items_under(data, "segments", "listing segments")
    found = (_segment_of(item) for item in items if isinstance(item, dict))
    return SegmentsPage(tuple(one for one in found if one is not None), _token_under(data))


def read_me(reply: Reply) -> Me:
    """Read who made the key (3.7). What is missing is "".

    Raises:
        ReplyError: it is not a JSON object.
    """
    data = _json_object(reply, "checking the API key")
    email, role = (one_line(_text_under(data, key)) for key in ("email", "role"))
    return Me(email, one_line(_usable_id(data.get("orgId")) or ""), role)


def _json_object(reply: Reply, doing: str) -> dict[str, Any]:
    """Return the reply's JSON object. `doing` is for the message.

    Raises:
        ReplyError: it is not a JSON object.
    """
    data = read_json(reply.body)
    if not isinstance(data, dict):
        said = f"the service answered {reply.status} with something that is not a JSON object"
        raise ReplyError(f"{doing}: {said}{after_colon(service_words(reply))}")
    return data


def _missing(reply: Reply, doing: str, what: str) -> ReplyError:
    """Return the error for a reply that lacks something necessary, with the service's words."""
    said = f"the service answered {reply.status} without {what}"
    return ReplyError(f"{doing}: {said}{after_colon(service_words(reply))}")


def _items_under(data: dict[str, Any], key: str, doing: str) -> list[Any]:
    """Return the list under a key; empty if there is none.

    Raises:
        ReplyError: it is not a list.
    """
    # Some servers write an empty list as null, or leave it out.
    items = data.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise ReplyError(f"{doing}: the service answered, but its {key} are not a list")
    return items


def _operation_of(data: dict[str, Any]) -> Operation | None:
    """Return an operation from its JSON. None if it has no state. The estimated percentage never means done."""
    state = _text_under(data, "state")
    if not state:
        return None
    return Operation(
        id=_usable_id(data.get("id")),
        progress=_progress_of(state, data),
        created_at=_time_under(data, "createdAt"),
        finished_at=_time_under(data, "finishedAt"),
    )


def _progress_of(state: str, data: dict[str, Any]) -> OperationProgress:
    """Return the progress (section 4): FAILED and ERROR are final; an unknown state counts as running."""
    if state in ("FAILED", "ERROR"):
        return Ended(one_line(_text_under(data, "errorDetails")) or f"{state}, no reason given")
    if state != "COMPLETED":
        return Running(one_line(state, limit=60))
    found = data.get("results")
    export_id = _usable_id(found.get("searchExportId")) if isinstance(found, dict) else None
    return Completed(export_id) if export_id else CompletedWithoutId()


def _segment_of(data: dict[str, Any]) -> Segment | None:
    """Return a segment from its JSON. None if it has no id."""
    found = _usable_id(data.get("id"))
    if found is None:
        return None
    return Segment(
        found, one_line(_text_under(data, "name")), one_line(_text_under(data, "creator")), _time_under(data, "created")
    )


def _usable_id(value: Any) -> str | None:
    """Return an id, also if it is a number, that is safe in a path: printable, not too long, and not only dots."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS:
        return None
    return value if value.isprintable() and value.strip(".") else None


def _token_under(data: dict[str, Any]) -> str:
    """Return the token of the next page; "" if there is none."""
    token = data.get("nextPaginationToken")
    return str(token) if isinstance(token, int) and token else _text_under(data, "nextPaginationToken")


def _text_under(data: dict[str, Any], key: str) -> str:
    """Return the text under a key; "" if there is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _time_under(data: dict[str, Any], key: str) -> float | None:
    """Return the time under a key, in seconds since 1970. None if there is none that can be read."""
    try:
        return read_timestamp(_text_under(data, key)[:100])
    except ValueError:
        return None
