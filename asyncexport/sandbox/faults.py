"""Faults on demand: what goes wrong, where, and for which calls.

A `SandboxFault` has a place (`where`), an effect (`what`) and a condition: it hits all calls, or only the Nth, every
Nth, those about a window of time, a random share, or a limited number. As text: `create:503,nth=3` or
`download:cut-length,chance=0.1,times=5,window=2026-01-01/2026-01-02`.

1. Each fault counts every call that it could hit, also those that another fault hits. If several faults are due for the
   same call, the first one hits it.
2. Only calls about one export have a window: create, poll, results and download. A fault with a window ignores all
   other calls.
3. A fault of `operation` is chosen when the operation is made and lasts as long as the operation.
4. If a fault replaces the answer, the service is not asked, so a create makes no operation. If a fault delays, cuts or
   loses the answer, the service is asked first.
5. Damage to a file needs rows: files that `filler_bytes` makes are never damaged. Use a fault that cuts them instead.

where: create poll list results segments segment me download; `api` means all of them except download, `any` means all;
and `operation`.

options, each after a comma, as in `create:503,nth=3,body=html`:

    option=           what it does (default)
    ----------------  -------------------------------------------------------------------------------------------------
    nth=N             only the Nth call, counted from 1 (every call)
    every=N           only every Nth call (every call)
    since=N           only from the Nth call on (from the first)
    times=N           at most N times (no limit)
    chance=0.1        probability for each call, from 0 to 1 (1)
    seed=N            seed of the random numbers for `chance` (0)
    window=FROM/TO    only calls about an export that overlaps this range (any)
    seconds=N         how late, how far apart, how far off a date is, or how long a 429 asks to wait (1)
    after=N           number of body bytes that are sent first (half of the body)
    body=FORM         body of an error: json, error, text, html or empty (the sandbox's switch error_body)
    retry_after=FORM  Retry-After of a 429 (the sandbox's switch retry_after) or of another status (none); see below
    rows=N            maximum number of rows in an export (0)

faults:

    what              where      what happens
    ----------------  ---------  -------------------------------------------------------------------------------------
    200 ... 599       any        this status with an error body (`body=` json, error, text, html, empty); a 429 has the
                                 Retry-After of `retry_after=` seconds, missing, zero, negative, short, huge, date or
                                 garbage
    reset             any        the connection is reset before the first byte of an answer
    close             any        the connection is closed before the first byte of an answer
    stall             any        no answer, and the connection stays open
    late              any        the answer comes `seconds` late (1)
    garbage           any        bytes that are not HTTP
    cut-head          any        half of the response head, then the connection is closed
    stall-head        any        half of the response head, then nothing more
    reset-body        any        the head and part of the body (half, or `after` bytes), then a reset
    stall-body        any        the head and part of the body, then nothing more
    drip              any        the body comes one byte every `seconds` (1)
    cut-length        any        part of the body, then the connection is closed, although Content-Length promised more
    cut-chunked       any        part of a chunked body, then the connection is closed without the final chunk
    cut-close         any        part of a body whose end is the end of the connection, then the connection is closed
    long-length       any        the complete body, but Content-Length is 1000 bytes too long; then the end
    short-length      any        Content-Length is half of the body's size; the rest follows all the same
    bad-chunk         any        a chunked body in which one chunk begins with garbage
    wrong-date        any        the Date header is `seconds` too late (too early if negative)
    old-date          any        the same, with an Age header: the answer comes from a cache
    no-date           any        no Date header
    html              any        200 with an HTML page
    empty             any        200 with no body
    huge              any        200 with 32 MiB of spaces before the body
    broken-json       any        200 with the first half of the body, properly ended
    not-object        any        200 with `[]`
    newline           any        200 with a line feed and nothing else
    ok                any        200 with `OK`
    error-object      any        200 with `{"error": ...}`, as some gateways send it
    redirect          any        302 to another host
    echo-key          api        503 that repeats the API key, with a JSON escape for each character
    accepted          api        the service's own answer with status 202
    bom               api        the answer behind a byte order mark
    long-header       any        a header of 20 KB, as a gateway may add
    lost              create     the operation is made, and the connection is reset instead of an answer
    lost-502          create     the operation is made, and a gateway answers 502 instead of the service
    lost-stall        create     the operation is made, and no answer comes
    no-id             create     200 without an operationId
    same-id           create     no operation is made; the answer has the id of the previous operation
    repeated-token    list       the page has the token that it was requested with, or always the same first token
                      segments
    empty-page        list       an empty page with a token for the next page
                      segments
    no-location       results    200 without a location
    unsafe-location   results    a location that is neither https nor on this machine
    dead-link         results    a signed URL that has already expired
    expired           download   the signed URL counts as expired
    corrupt           download   one byte in the middle is wrong
    bad-crc           download   right length, but the gzip trailer has a wrong CRC
    bad-size          download   right length, but the gzip trailer has a wrong size
    truncated         download   gzip that stops early; Content-Length and hash match the truncated file
    trailing          download   extra bytes after the end of the gzip
    cut-line          download   valid gzip of half the rows, cut at a line's end; the hash is that of the complete file
    cut-row           download   valid gzip whose last row stops in the middle; the hash matches the bytes sent
    endless-row       download   valid gzip of a few kilobytes whose last row is 96 MiB long and never ends
    open-array        download   valid gzip of all but the last byte, for example the `]` of a JSON array
    wrong-hash        download   the right file with a wrong hash
    changed           download   the same rows in other bytes, with another ETag
    changed-quietly   download   the same rows in other bytes, with the same ETag
    wrong-range       download   a 206 whose range does not begin where the client asked
    FAILED            operation  it ends FAILED, with a reason
    ERROR             operation  it ends ERROR, with a reason
    odd-state         operation  it has an unknown state while it runs, and then completes
    odd-for-ever      operation  it stays in an unknown state
    pending           operation  it stays PENDING
    no-export-id      operation  COMPLETED without a searchExportId
    late-export-id    operation  COMPLETED, at first without a searchExportId and from the second answer on with one
    unknown-first     operation  404 to the first poll
    forgotten         operation  404 from the second poll on
    export-gone       operation  it completes, but its results calls get a 404
    slow              operation  it takes ten times as long
    other-rows        operation  its export has the rows of the preceding range
    other-export      operation  it has the export id of the previous operation
    fewer-rows        operation  it completes, and its export has only the first `rows` rows (0), properly ended
"""

import difflib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from asyncexport.core.bundles import Range, read_moment

API = ("create", "poll", "list", "results", "segments", "segment", "me")
"""The endpoints of the API, under the names by which calls are counted."""

WHERE: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*API, "download", "operation")},
    "api": API,
    "any": (*API, "download"),
}
"""The endpoints that each `where` covers."""

ANYWHERE = (
    *("reset", "close", "stall", "late", "garbage", "cut-head", "stall-head", "reset-body", "stall-body", "drip"),
    *("cut-length", "cut-chunked", "cut-close", "long-length", "short-length", "bad-chunk"),
    *("wrong-date", "old-date", "no-date"),
    *("html", "empty", "huge", "broken-json", "not-object", "redirect", "long-header"),
    *("newline", "ok", "error-object"),
)

PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ANYWHERE, (*API, "download")),
    **dict.fromkeys(("accepted", "bom", "echo-key"), API),
    **dict.fromkeys(("lost", "lost-502", "lost-stall", "no-id", "same-id"), ("create",)),
    **dict.fromkeys(("repeated-token", "empty-page"), ("list", "segments")),
    **dict.fromkeys(("no-location", "unsafe-location", "dead-link"), ("results",)),
    **dict.fromkeys(
        (
            *("expired", "corrupt", "bad-crc", "bad-size", "truncated", "trailing", "cut-line", "cut-row"),
            *("endless-row", "open-array", "wrong-hash", "changed", "changed-quietly", "wrong-range"),
        ),
        ("download",),
    ),
    **dict.fromkeys(
        (
            *("FAILED", "ERROR", "odd-state", "odd-for-ever", "pending", "no-export-id", "late-export-id"),
            *("unknown-first", "forgotten", "export-gone", "slow", "fewer-rows"),
            *("other-rows", "other-export"),
        ),
        ("operation",),
    ),
}
"""The places where each fault is possible. A status is possible everywhere except in `operation`."""

BODIES = ("", "json", "error", "text", "html", "empty")
RETRY_AFTERS = ("", "seconds", "missing", "zero", "negative", "short", "huge", "date", "garbage")


@dataclass(frozen=True, slots=True)
class SandboxFault:
    """A fault; the tables above explain `where` and `what`.

    Args:
        where: An endpoint, or a name for several.
        what: The effect.
        nth: The only call that is hit, counted from 1.
        every: N, if only every Nth call is hit.
        since: The first call that is hit, counted from 1.
        window: A range; only calls about an export that overlaps it are hit.
        chance: The probability that a call is hit.
        times: The maximum number of calls that are hit.
        seconds: How late an answer is, how far apart its bytes are, how far off its date is, or how long a 429 asks to
            wait.
        after: The number of body bytes that are sent first; None means half of the body.
        body: The form of an error's body; "" means that of the switch `error_body`.
        retry_after: The form of a 429's Retry-After; "" means that of the switch `retry_after`.
        seed: The seed of the random numbers for `chance`.
        rows: The maximum number of rows in an export.

    Raises:
        ValueError: The fault does not exist or is not possible at this place.
    """

    where: str
    what: str
    nth: int | None = None
    every: int | None = None
    window: Range | None = None
    chance: float = 1.0
    times: int | None = None
    seconds: float = 1.0
    after: int | None = None
    body: str = ""
    retry_after: str = ""
    seed: int = 0
    rows: int = 0
    since: int | None = None

    def __post_init__(self) -> None:
        places = WHERE.get(_checked_name(self.where, WHERE, "place"), ())
        allowed = WHERE["any"] if self.status is not None else PLACES[_checked_name(self.what, PLACES, "fault")]
        if not set(places) & set(allowed):
            raise ValueError(f"{self.what} is a fault of {', '.join(allowed)}, not of {self.where}")
        if self.body not in BODIES or self.retry_after not in RETRY_AFTERS:
            raise ValueError(f"body is one of {BODIES[1:]}, retry_after one of {RETRY_AFTERS[1:]}")
        counted = (self.nth, self.every, self.since)
        if any(number is not None and number < 1 for number in counted) or not 0 <= self.chance <= 1:
            raise ValueError("nth, every and since are counted from 1, and chance is from 0 to 1")

    @property
    def status(self) -> int | None:
        """The HTTP status, if the fault is one."""
        return int(self.what) if re.fullmatch(r"[2-5][0-9][0-9]", self.what) else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `where:what[,name=value...]`.

        Raises:
            ValueError: The text has another form, or the fault does not exist.
        """
        head, *options = text.split(",")
        where, colon, what = head.strip().partition(":")
        if not colon:
            raise ValueError(f"{text!r} is not WHERE:WHAT[,NAME=VALUE...]")
        given: dict[str, Any] = {}
        for option in options:
            name, _, value = option.strip().partition("=")
            given[name] = _READERS[_checked_name(name, _READERS, "option")](value)
        return cls(where, what, **given)


def table() -> str:
    """Return the tables above as `--show-faults` prints them."""
    lines = (__doc__ or "").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("where: "))
    return "\n".join(line.removeprefix("    ") for line in lines[first:])


def _window(text: str) -> Range:
    start, slash, end = text.partition("/")
    if not slash:
        raise ValueError(f"a window is START/END, not {text!r}")
    return Range(read_moment(start, now=0), read_moment(end, now=0))


_READERS: dict[str, Any] = {
    **dict.fromkeys(("nth", "every", "since", "times", "after", "seed", "rows"), int),
    **dict.fromkeys(("chance", "seconds"), float),
    **dict.fromkeys(("body", "retry_after"), str),
    "window": _window,
}


def _checked_name(name: str, names: Iterable[str], kind: str) -> str:
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    raise ValueError(f"there is no {kind} {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))


@dataclass(slots=True)
class _Count:
    """How many calls a fault could have hit and how many it did hit."""

    chances: random.Random
    seen: int = 0
    done: int = field(default=0)


class SandboxFaultPlan:
    """Chooses the fault, if any, that hits a call."""

    def __init__(self) -> None:
        self._counts: dict[SandboxFault, _Count] = {}

    def set_faults(self, faults: Iterable[SandboxFault]) -> None:
        """Use these faults from now on. Faults that were there before keep their counts."""
        self._counts = {
            one: self._counts.get(one) or _Count(random.Random(f"{one.seed} {one.where} {one.what}")) for one in faults
        }

    def fault_for(self, endpoint: str, span: tuple[float, float] | None = None) -> SandboxFault | None:
        """Count a call, which may be about a range, and return the fault that hits it, or None."""
        found: SandboxFault | None = None
        for fault, count in self._counts.items():
            if not _could_hit(fault, endpoint, span):
                continue
            count.seen += 1
            lucky = count.chances.random() >= fault.chance
            if found is None and not lucky and _is_due(fault, count):
                count.done += 1
                found = fault
        return found


def _could_hit(fault: SandboxFault, endpoint: str, span: tuple[float, float] | None) -> bool:
    if endpoint not in WHERE[fault.where]:
        return False
    if fault.status is None and endpoint not in PLACES[fault.what]:
        return False
    if fault.window is None:
        return True
    return span is not None and fault.window.start < span[1] and span[0] < fault.window.end


def _is_due(fault: SandboxFault, count: _Count) -> bool:
    if fault.times is not None and count.done >= fault.times:
        return False
    if fault.nth is not None and count.seen != fault.nth:
        return False
    if fault.since is not None and count.seen < fault.since:
        return False
    return fault.every is None or count.seen % fault.every == 0
