"""What the status of a reply means: its error, its hint, and how long a 429 asks to wait.

1. A reply is judged by its status before its content is read, by one table (`STATUSES`).
2. The documented success is 200 (API reference, section 3.0). Any other 2xx is read like it, and the content
   decides: a create that is answered with 201 or 202 has started an operation.
3. A redirect is never followed, since the key would be sent along: it counts as a refusal.
"""

import math
import re
from collections.abc import Mapping

from asyncexport.core.service.replies import (
    Reply,
    after_colon,
    header,
    http_date,
    is_in_own_form,
    read_date,
    service_words,
)
from asyncexport.core.service.requests import Kind, Request
from asyncexport.errors import (
    ExportError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
)

LONGEST_RETRY_AFTER_SECONDS = 86_400.0
"""A longer Retry-After is taken as this."""

STATUSES: tuple[tuple[range, type[ExportError], str], ...] = (
    (range(401, 402), UnauthorizedError, "the service refused the API key"),
    (range(429, 430), RateLimitedError, "too many requests"),
    (range(408, 409), UnavailableError, "the service timed out"),
    (range(499, 500), UnavailableError, "the service timed out"),
    (range(400, 500), RefusedError, "the service refused the request"),
    (range(500, 1000), UnavailableError, "the service failed"),
    (range(300, 400), RefusedError, "the service redirects to another URL, which is not followed with a key"),
)
"""The meaning of each status (3.0). The first row that contains it decides. Any other is a ReplyError."""

HINTS: dict[int, str] = {
    301: "check [api] base_url",
    302: "check [api] base_url",
    307: "check [api] base_url",
    308: "check [api] base_url",
    401: "check that the key is complete and has not been revoked",
    403: "the key must be of level Admin or Architect, and the account must have the Segment Export add-on",
}


def judge(request: Request, reply: Reply, *, now: float) -> None:
    """Raise the error that a status means (3.0); return if it is a success. `now` is in seconds since 1970.

    Raises:
        UnauthorizedError: 401.
        GoneError: 404 or 410 for an operation or an export.
        RateLimitedError: 429.
        UnavailableError: 408, 499, or 500 and above.
        RefusedError: another 4xx, or a redirect, which the service never sends: asking again does not help.
        ReplyError: a status of 1xx.
    """
    if not reply.is_success:
        raise _error_for(request, reply, now=now)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a 429 or a 5xx asks to wait. None if it does not say, or nothing usable (section 6).

    The header holds seconds or an HTTP date, which is compared with the reply's own `Date`, else with `now`. Zero,
    negative, past and unreadable values are None, so that no caller spins on them; more than a day is a day.
    """
    text = header(headers, "retry-after").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,300}(\.[0-9]{1,300})?", text):
        seconds = float(text)
    else:
        moment = http_date(text)
        if moment is None:
            return None
        date = read_date(headers)
        seconds = moment - (now if date is None else date)
    if not math.isfinite(seconds) or seconds > LONGEST_RETRY_AFTER_SECONDS:
        return LONGEST_RETRY_AFTER_SECONDS
    return seconds if seconds > 0 else None


def _error_for(request: Request, reply: Reply, *, now: float) -> ExportError:
    if reply.status in (404, 410) and request.kind in (Kind.POLL, Kind.RESULTS):
        what = "operation" if request.kind is Kind.POLL else "export"
        said = f"the service no longer has this {what}"
        return GoneError(_message(request, reply, said), from_service=is_in_own_form(reply))
    error, said = next(
        ((error, said) for statuses, error, said in STATUSES if reply.status in statuses),
        (ReplyError, "the service answered with an interim status"),
    )
    message = _message(request, reply, said)
    hint = HINTS.get(reply.status, "")
    if error is RateLimitedError:
        return RateLimitedError(message, retry_after=retry_after(reply.headers, now=now))
    if error is UnavailableError:
        # A gateway answers for the service, which may have carried out the request.
        later = retry_after(reply.headers, now=now)
        return UnavailableError(message, unanswered=reply.status in (502, 504), retry_after=later)
    if error is RefusedError:
        hint = hint or _hint_for_refused(request, reply.status)
        return RefusedError(message, status=reply.status, from_service=is_in_own_form(reply), hint=hint)
    return error(message, hint=hint)


def _message(request: Request, reply: Reply, said: str) -> str:
    return f"{request.doing}: {said} ({reply.status}){after_colon(service_words(reply))}"


def _hint_for_refused(request: Request, status: int) -> str:
    if request.kind is Kind.CREATE and status in (400, 404):
        return "check segment, fields and scope in the config; `asyncexport segments` lists the segments"
    return ""
