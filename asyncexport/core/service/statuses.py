"""What the status of a reply means: the error it stands for, its hint, and how long a 429 asks to wait.

1. A reply is judged by its status before anything in it is read, by one table (`STATUSES`).
2. 200 is the success that is documented (section 3.0 of the API reference). Another 2xx is read like it: what the reply
   holds decides, for a create that is answered 201 or 202 has made an operation.
3. A redirect is never followed, since the key would go along: it is a refusal.
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
"""A Retry-After beyond a day is taken for a day."""

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


def judge(request: Request, reply: Reply, *, now: float) -> None:
    """Turn a status into the error it stands for (3.0); return for a success. `now` is in seconds since 1970.

    Raises:
        UnauthorizedError: 401.
        GoneError: 404 or 410, asked for an operation or an export.
        RateLimitedError: 429.
        UnavailableError: 408, 499, or 500 and above.
        RefusedError: another 4xx, or a redirect: whoever sends one is not the service, and asking again is no use.
        ReplyError: a status of 1xx.
    """
    if not reply.is_success:
        raise _error_for(request, reply, now=now)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """How long a 429 or a 5xx asks to wait, in seconds; None where it says nothing usable (section 6).

    Seconds or an HTTP date, which is taken against the reply's own `Date`, else against `now`. Zero, negative, past and
    unreadable values are None, so that nobody spins on them; more than a day is a day.
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
        (ReplyError, "the service answered with a status that ends nothing"),
    )
    message = _message(request, reply, said)
    hint = HINTS.get(reply.status, "")
    if error is RateLimitedError:
        return RateLimitedError(message, retry_after=retry_after(reply.headers, now=now))
    if error is UnavailableError:
        # A gateway answers in the service's place: what was asked for may have been done.
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
