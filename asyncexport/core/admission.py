"""How fast, and who first: priorities, back-off, the arithmetic of the token bucket, and when a line counts as down.

1. Everything is a function of numbers: the clock, the jitter and the history come in as arguments.
2. The service's allowance is a bucket of `burst` tokens, refilled at `requests_per_minute` (reference section 6).
3. The next process takes over the level from the requests on record. Where the record does not reach back far enough
   to know, the bucket is taken to be empty: waiting costs minutes, a refused request costs more.
4. An outage is nobody's fault: while the line is down one request at a time tries it, under back-off with full jitter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

LONGEST_PAUSE_SECONDS = 3600.0
"""A Retry-After beyond this is taken for a mistake: asking once an hour costs nothing."""

SHORTEST_PAUSE_SECONDS = 1.0
"""A Retry-After of zero, or none at all, must not make a caller spin."""

HISTORY_SECONDS = 2 * 86_400.0
"""How far back requests are read to know the level: long enough for any bucket that rests now and then."""


class Prefer(StrEnum):
    """`[polling] prefer`: what a token is spent on first when both a create and a due poll wait."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


class BudgetScope(StrEnum):
    """`[budget] scope`: which requests the service's limit counts; the vendor does not say."""

    AUTO = "auto"
    ALL = "all"
    CREATE = "create"


class Priority(IntEnum):
    """What a request is for; `rank` orders them."""

    RESULTS = 0
    CREATE = 1
    POLL = 2
    REST = 3


def rank(priority: Priority, prefer: Prefer) -> int:
    """Lower goes first. Results always do: an export at hand is worth more than one to come."""
    if prefer is Prefer.LATENCY and priority in (Priority.CREATE, Priority.POLL):
        return Priority.CREATE + Priority.POLL - priority
    return int(priority)


def backoff_seconds(tries: int, *, initial_seconds: float, max_seconds: float, jitter: float) -> float:
    """How long to wait after `tries` failures in a row: exponential, with full jitter (`jitter` in [0, 1))."""
    ceiling = min(max_seconds, initial_seconds * 2.0 ** min(tries - 1, 60))
    return ceiling * jitter


def pause_seconds(retry_after: float | None, *, refill_seconds: float) -> float:
    """How long a 429 holds everybody back; without a usable Retry-After, until one token has been refilled."""
    asked = refill_seconds if retry_after is None or retry_after <= 0 else retry_after
    return min(max(asked, min(SHORTEST_PAUSE_SECONDS, refill_seconds)), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request on record: when it went out (seconds since 1970), what it was, and the status (0: none came)."""

    at: float
    kind: str
    status: int


def tokens_used(
    sent: Iterable[SentRequest], *, now: float, burst: float, requests_per_minute: float, oldest_known: bool
) -> float:
    """How many tokens of the bucket are in use now, from the requests on record, oldest first.

    `oldest_known` says that `sent` holds all there ever were, so that the bucket was full before the first of them.
    Otherwise it is taken to have been empty. A record from the future (the host's clock was set back) counts as now.
    """
    per_second = requests_per_minute / 60
    used = 0.0 if oldest_known else burst
    last: float | None = None if oldest_known else now - HISTORY_SECONDS
    for request in sent:
        at = min(request.at, now)
        if last is not None:
            used = max(0.0, used - max(0.0, at - last) * per_second)
        last = at if last is None else max(last, at)
        used = burst if request.status == 429 else min(burst, used + 1)
    if last is None:
        return used
    return max(0.0, used - (now - last) * per_second)


@dataclass(frozen=True, slots=True)
class Up:
    """The line works."""


@dataclass(frozen=True, slots=True)
class Down:
    """The line has been down since `since`; the next try is due at `probe_at` (both on the monotonic clock)."""

    since: float
    tries: int
    probe_at: float


Connectivity = Up | Down


@dataclass(frozen=True, slots=True)
class Backoff:
    """`[retry]`: how long between tries of a line that is down, and when to give up."""

    initial_seconds: float
    max_seconds: float
    outage_seconds: float

    def after_failure(self, line: Connectivity, *, now: float, jitter: float) -> Down:
        """The line once another request got no answer, or one that says the service is in trouble."""
        since, tries = (now, 1) if isinstance(line, Up) else (line.since, line.tries + 1)
        wait = self.wait_seconds(tries, jitter=jitter)
        return Down(since, tries, now + wait)

    def wait_seconds(self, tries: int, *, jitter: float) -> float:
        """How long to wait after `tries` failures in a row."""
        return backoff_seconds(tries, initial_seconds=self.initial_seconds, max_seconds=self.max_seconds, jitter=jitter)

    def is_over(self, line: Connectivity, *, now: float) -> bool:
        """Whether the line has been down for as long as anybody is willing to wait."""
        return isinstance(line, Down) and now - line.since >= self.outage_seconds


def is_outage(status: int | None) -> bool:
    """Whether an answer (None: no answer came) is the service's trouble and not the request's (reference 3.0)."""
    return status is None or status in (408, 499) or status >= 500
