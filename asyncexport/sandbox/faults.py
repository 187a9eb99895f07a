"""What can go wrong, when and where: faults on demand.

A `SandboxFault` names a place (`where`), what happens there (`what`), and which calls it befalls: all of them, or
those about a window of time, the Nth, every Nth, some by chance, at most so many. As text: `create:503,nth=3` or
`download:cut-length,chance=0.1,times=5,window=2026-01-01/2026-01-02`.

1. Every call that a fault could befall is counted by it, whether or not another fault befalls it. The first of several
   that want the same call has it.
2. A call has a window only where it is about one export: create, poll, results and download. A fault with a window
   passes over all others.
3. Faults of `operation` are drawn when an operation is made and hold for as long as it lives.
4. A fault that stands in the place of the answer keeps the service from being asked: a create then makes nothing. One
   that lets the answer through, late, in part or lost on the way, does not.

5. Damage is done to files of rows: those that `filler_bytes` makes stay as they are, so cut them instead.

where: create poll list results segments segment me download; `api` for all of them but download, `any` for all; and
`operation`.

options, each after a comma, as in `create:503,nth=3,body=html`:

    option=           what it does (what holds without it)
    ----------------  -------------------------------------------------------------------------------------------------
    nth=N             only the Nth call, counted from 1 (every call)
    every=N           only every Nth call (every call)
    since=N           only from the Nth call on (from the first)
    times=N           at most so often (no end)
    chance=0.1        how likely it befalls a call, from 0 to 1 (1)
    seed=N            another seed to draw that by (0)
    window=FROM/TO    only calls about an export that shares time with this range (any)
    seconds=N         how late, how far apart, how far off a date is, or what a 429 asks to wait (1)
    after=N           how many bytes of a body come before it (half of the body)
    body=FORM         an error's body: json, error, text, html or empty (what the service does)
    retry_after=FORM  the Retry-After of a 429 (what the service does) or of another status (none), see below
    rows=N            how many rows an export has at most (0)

faults:

    what              where      what happens
    ----------------  ---------  -------------------------------------------------------------------------------------
    200 ... 599       any        that status with an error body (`body=` json, error, text, html, empty); a 429 has the
                                 Retry-After of `retry_after=` seconds, missing, zero, negative, short, huge, date or
                                 garbage
    reset             any        the connection is reset before any byte of an answer
    close             any        the connection is closed before any byte of an answer
    stall             any        no answer, and the connection stays open
    late              any        the answer comes `seconds` late (1)
    garbage           any        bytes that are no HTTP
    cut-head          any        half of the head, then the connection is closed
    stall-head        any        half of the head, then silence
    reset-body        any        the head and a part of the body (half, or `after` bytes), then a reset
    stall-body        any        likewise, then silence
    drip              any        the body comes one byte every `seconds` (1)
    cut-length        any        a part of the body, then the end, though Content-Length promised all of it
    cut-chunked       any        a part of the body in chunks, then the end, without the closing chunk
    cut-close         any        a part of the body that was to end with the connection, then the end
    long-length       any        all of the body, but Content-Length promised 1000 bytes more; then the end
    short-length      any        Content-Length says half of what comes; the rest spills over
    bad-chunk         any        chunks, until one begins with garbage
    wrong-date        any        the answer bears a date that is `seconds` later (or earlier, below 0)
    old-date          any        likewise, and an Age: it comes from a store of answers
    no-date           any        the answer bears no date
    html              any        200 with an HTML page
    empty             any        200 with no body
    huge              any        200 with 32 MiB of blanks in front of the body
    broken-json       any        200 with the first half of the body, properly ended
    not-object        any        200 with `[]`
    newline           any        200 with a line end and nothing else
    ok                any        200 with `OK`
    error-object      any        200 with `{"error": ...}`, as some box says it
    redirect          any        302 to another host
    echo-key          api        503 that says the key back, a JSON escape for each character
    accepted          api        the answer of the service itself, as a 202
    bom               api        the answer behind a byte order mark
    long-header       any        a header of 20 KB, as a gateway may add
    lost              create     the operation is made, and the connection reset in place of the answer
    lost-502          create     the operation is made, and a gateway answers 502 in place of the service
    lost-stall        create     the operation is made, and no answer comes
    no-id             create     200 without an operationId
    same-id           create     no operation is made: the id is that of the one made before it
    repeated-token    list       the page names the token that it was asked with, or a fresh one again and again
                      segments
    empty-page        list       a page with nothing on it, and a token for the next
                      segments
    no-location       results    200 without a location
    unsafe-location   results    a location that is neither https nor on this machine
    dead-link         results    a link that has expired already
    expired           download   the link counts as expired
    corrupt           download   one byte in the middle is wrong
    bad-crc           download   right length, but the gzip trailer has a wrong CRC
    bad-size          download   right length, but the gzip trailer has a wrong size
    truncated         download   gzip that stops early, as long as Content-Length and hash say
    trailing          download   something after the end of the gzip
    cut-line          download   whole gzip of half the rows, cut at a line's end; the hash is that of the true file
    cut-row           download   whole gzip whose last row stops in the middle; the hash is that of what comes
    endless-row       download   whole gzip of a few kilobytes, whose last row is 96 MiB long and has no end
    open-array        download   whole gzip of all but the last byte, such as the `]` of a JSON array
    wrong-hash        download   the right file, with the hash of another
    changed           download   the same rows in other bytes, with another ETag
    changed-quietly   download   the same rows in other bytes, with the ETag of before
    wrong-range       download   a 206 that begins elsewhere than it was asked to
    FAILED            operation  it ends FAILED, with a reason
    ERROR             operation  it ends ERROR, with a reason
    odd-state         operation  it shows a state that nobody has heard of while it runs, and then completes
    odd-for-ever      operation  it stays in such a state
    pending           operation  it stays PENDING
    no-export-id      operation  COMPLETED, without a searchExportId
    late-export-id    operation  COMPLETED without a searchExportId when it is first shown so, and with one from then on
    unknown-first     operation  it answers 404 to the first poll
    forgotten         operation  it answers 404 from the second poll on
    export-gone       operation  it completes, but its export answers 404
    slow              operation  it takes ten times as long
    other-rows        operation  its export has the rows of the range before its own
    other-export      operation  it names the export of the operation made before it
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
"""The endpoints of the API, by the names under which their calls are counted."""

WHERE: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*API, "download", "operation")},
    "api": API,
    "any": (*API, "download"),
}
"""The endpoints that a `where` stands for."""

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
"""Where each fault can be; statuses can be anywhere but in `operation`."""

BODIES = ("", "json", "error", "text", "html", "empty")
RETRY_AFTERS = ("", "seconds", "missing", "zero", "negative", "short", "huge", "date", "garbage")


@dataclass(frozen=True, slots=True)
class SandboxFault:
    """Something that goes wrong; see the table above for `where` and `what`.

    Args:
        where: The endpoint, or several.
        what: What happens.
        nth: Only the Nth call, counted from 1.
        every: Only every Nth call.
        since: Only from the Nth call on.
        window: Only calls about an export that shares time with this range.
        chance: How likely it befalls a call, drawn from `seed`.
        times: At most so often.
        seconds: How late, how far apart, or how far off a date is; what a status of 429 asks to wait.
        after: How much of a body comes before it; None: half of it.
        body: The form of an error's body; "": as the service does otherwise.
        retry_after: The form of a 429's Retry-After; "": likewise.
        seed: For `chance`.
        rows: How many rows an export has at most.

    Raises:
        ValueError: there is no such fault, or it cannot be there.
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
        """The HTTP status, where that is what happens."""
        return int(self.what) if re.fullmatch(r"[2-5][0-9][0-9]", self.what) else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `where:what[,name=value...]`.

        Raises:
            ValueError: it is not that, or there is no such fault.
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
    """The table above, for people."""
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
    """What a fault has seen and done."""

    chances: random.Random
    seen: int = 0
    done: int = field(default=0)


class SandboxFaultPlan:
    """Says which fault, if any, befalls a call."""

    def __init__(self) -> None:
        self._counts: dict[SandboxFault, _Count] = {}

    def become(self, faults: Iterable[SandboxFault]) -> None:
        """Have these from now on; those that were there before go on counting."""
        self._counts = {
            one: self._counts.get(one) or _Count(random.Random(f"{one.seed} {one.where} {one.what}")) for one in faults
        }

    def befall(self, endpoint: str, span: tuple[float, float] | None = None) -> SandboxFault | None:
        """The fault of this call, which may be about a range."""
        found: SandboxFault | None = None
        for fault, count in self._counts.items():
            if not _concerns(fault, endpoint, span):
                continue
            count.seen += 1
            lucky = count.chances.random() >= fault.chance
            if found is None and not lucky and _is_due(fault, count):
                count.done += 1
                found = fault
        return found


def _concerns(fault: SandboxFault, endpoint: str, span: tuple[float, float] | None) -> bool:
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
