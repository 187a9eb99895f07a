"""Whether requests may be sent, and when: priorities, pauses, outages, and which calls count.

1. Everything is a function of values: the clocks, the jitter and the bucket's level are passed in as arguments.
2. The service's allowance is a bucket of `burst` tokens, refilled at `requests_per_minute` (API reference, section 6).
   Its level is tracked in `core.bucket`; everything else that delays a request is here.
3. A 429 pauses all requests until Retry-After has passed, and shows that the bucket is empty. A 429 to a request that
   was sent before that pause adds nothing new. 429s one after another make the pauses longer. After only 429s for
   `[retry] outage` the service is given up, as if it were down.
4. During an outage one request at a time tries the connection, under back-off with full jitter, and not before the time
   the service asked for (Retry-After). After `[retry] outage` the service is given up; after `first_contact` if it has
   never answered in this directory: its address, a proxy or the network is more likely to be wrong.
5. It is not known which calls the service counts. `scope = "auto"` counts creates only, until a 429 answers a poll, a
   list or a results call while the create bucket still held tokens, or for the second time. (In a long run the creates
   keep that bucket empty; but creates alone never empty the service's bucket, because of the reserve token.) From then
   on all calls count. That is remembered, and creates only are tried again after a week.
"""

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from asyncexport.core.connectivity import LONGEST_PAUSE_SECONDS, Backoff, Connectivity, Down, Up, is_outage
from asyncexport.core.service.requests import Kind
from asyncexport.core.text import show_duration

SHORTEST_PAUSE_SECONDS = 1.0
"""The least pause, so that a Retry-After of zero, or none, does not make a caller spin."""

RELEARN_SECONDS = 7 * 86_400.0
"""How long it is remembered that all calls count: the vendor may have changed its rules."""

KINDS_THAT_TELL = frozenset({Kind.POLL, Kind.LIST, Kind.RESULTS})
"""Calls whose 429 shows that all calls are counted. Others (segments, me) may have a limit of their own."""

CONVINCING_HITS = 2
"""This many 429s, a pause apart, to calls that should not be counted are no accident."""

PATIENT_HITS = 3
"""This many 429s in a row are waited out as they ask. After that each pause is twice the one before."""

LONGEST_FACTOR = 64.0
"""The most by which pauses are prolonged."""

HOPELESS_HITS = 6
"""Fewer 429s in a row are never treated as an outage, however long they asked to wait."""


class Prefer(StrEnum):
    """The values of `[polling] prefer`: what a token is spent on first if both a create and a due poll wait."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


class BudgetScope(StrEnum):
    """The values of `[budget] scope`: which requests the service's limit counts; the vendor does not say."""

    AUTO = "auto"
    ALL = "all"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Quota:
    """`[budget]`: what the service allows, and which calls it counts."""

    requests_per_minute: float = 2.0
    burst: int = 50
    scope: BudgetScope = BudgetScope.AUTO

    @property
    def refill_seconds(self) -> float:
        """Seconds until one token has come back."""
        return 60.0 / self.requests_per_minute

    @property
    def usable_burst(self) -> int:
        """Requests that may be sent back to back: all tokens but the reserve token."""
        return max(1, self.burst - 1)


def counts(scope: BudgetScope, kind: str) -> bool:
    """Whether a request of this kind takes a token; `auto` counts as `create`."""
    return scope is BudgetScope.ALL or kind == Kind.CREATE


class Priority(IntEnum):
    """What a request is for. `rank` orders them."""

    URGENT = 0  # any request for a bundle that settled while the run goes on
    RESULTS = 1
    CREATE = 2
    POLL = 3
    REST = 4


def rank(priority: Priority, prefer: Prefer) -> int:
    """Return the rank of a request; lower goes first. Of a backlog, results do: a finished export is worth most."""
    if prefer is Prefer.LATENCY and priority in (Priority.CREATE, Priority.POLL):
        return Priority.CREATE + Priority.POLL - priority
    return int(priority)


def pause_seconds(retry_after: float | None, *, refill_seconds: float) -> float:
    """Return how long a 429 pauses all requests; without a usable Retry-After, until one token is refilled."""
    asked = refill_seconds if retry_after is None or retry_after <= 0 else retry_after
    return min(max(asked, min(SHORTEST_PAUSE_SECONDS, refill_seconds)), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission to send one request.

    Attributes:
        kind: The kind of request.
        counted: Whether it took a token.
        probes: Whether it tries a connection that is down.
        granted_at: When it was granted, on the monotonic clock.
    """

    kind: Kind
    counted: bool
    probes: bool
    granted_at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The service's answer to a request.

    Attributes:
        status: The HTTP status. None if no answer came.
        retry_after: Seconds after which the service wants to be asked again. None if it did not say.
        problem: What went wrong, in words.
    """

    status: int | None
    retry_after: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from an answer, besides what `Admission` notes for itself.

    Attributes:
        empties: Whether the bucket is empty, whatever was counted.
        all_count: Whether every call counts from now on; that is to be remembered.
        given_up: Why the service is given up, in words; "" if it is not.
        never_answered: Whether it is given up because it has never answered.
    """

    empties: bool = False
    all_count: bool = False
    given_up: str = ""
    never_answered: bool = False


@dataclass(slots=True)
class RateLimitPause:
    """The pause that 429s ask for.

    Attributes:
        until: When the pause ends.
        began: When the last 429 came that counted.
        hits, since: How many 429s came one after another, and when the first came.
    """

    until: float = 0.0
    began: float = -math.inf
    hits: int = 0
    since: float = 0.0

    def hit(self, granted_at: float, now: float) -> None:
        """Count a 429, unless its request was sent before the last one came."""
        if granted_at < self.began:
            return
        if not self.hits:
            self.since = now
        self.hits += 1
        self.began = now

    def prolong(self, now: float, retry_after: float | None, *, refill_seconds: float) -> None:
        """Wait as asked; if the service asks for the same short pause again and again, wait longer each time."""
        factor = min(2.0 ** max(0, self.hits - PATIENT_HITS), LONGEST_FACTOR)
        seconds = pause_seconds(retry_after, refill_seconds=refill_seconds)
        self.until = max(self.until, now + max(seconds, min(seconds * factor, LONGEST_PAUSE_SECONDS)))

    def reset(self) -> None:
        """Note that an answer came that is not a 429."""
        self.hits = 0


def is_still_learned(learned_at: float | None, *, now: float) -> bool:
    """Whether it still holds that every call counts, if that was learned at this time (seconds since 1970)."""
    return learned_at is not None and 0 <= now - learned_at < RELEARN_SECONDS


@dataclass(slots=True)
class ScopeLearning:
    """Which calls count, as far as that is known (rule 5).

    Attributes:
        configured: `[budget] scope`.
        learned_at: When it was learned that every call counts, in seconds since 1970. None if it was not.
        hits: How many 429s, a pause apart, answered calls that should not count.
        hit_at: When the last of these came.
    """

    configured: BudgetScope
    learned_at: float | None = None
    hits: int = 0
    hit_at: float = -math.inf

    @property
    def scope(self) -> BudgetScope:
        """Which calls count now: `create` or `all`."""
        if self.configured is not BudgetScope.AUTO:
            return self.configured
        return BudgetScope.CREATE if self.learned_at is None else BudgetScope.ALL

    def recall(self, learned_at: float | None, *, wall_time: float) -> None:
        """Take over what an earlier run learned, if it still holds."""
        self.learned_at = learned_at if is_still_learned(learned_at, now=wall_time) else None

    def forget_in_time(self, *, wall_time: float) -> None:
        """Forget what was learned a week ago, also in the middle of a run, so that it is tried again."""
        if self.learned_at is not None and wall_time - self.learned_at >= RELEARN_SECONDS:
            self.learned_at = None

    def learns(self, limited: Grant, *, now: float, tokens: int, wall_time: float) -> bool:
        """Whether this 429 shows that every call counts. `tokens`: tokens left in the create bucket."""
        if self.configured is not BudgetScope.AUTO or limited.kind not in KINDS_THAT_TELL or limited.counted:
            return False
        if limited.granted_at >= self.hit_at:
            # Whether a create was refused just before it makes no difference.
            self.hits += 1
            self.hit_at = now
        if not tokens and self.hits < CONVINCING_HITS:
            return False
        self.learned_at, self.hits = wall_time, 0
        return True


class Admission:
    """Decides from the service's answers whether requests may be sent.

    Attributes:
        learning: Which calls count.
        has_answered: Whether the service has ever answered in this directory.
        line: Whether the service can be reached.
        pause: The pause that 429s ask for.
    """

    def __init__(self, quota: Quota, backoff: Backoff) -> None:
        self._quota = quota
        self._backoff = backoff
        self._is_probing = False
        self._problem = ""
        self.learning = ScopeLearning(quota.scope)
        self.has_answered = True
        self.line: Connectivity = Up()
        self.pause = RateLimitPause()

    def closed_seconds(self, now: float) -> float:
        """Return the seconds for which no request may be sent; infinite until the next answer."""
        if now < self.pause.until:
            return self.pause.until - now
        if isinstance(self.line, Down):
            return math.inf if self._is_probing else max(0.0, self.line.probe_at - now)
        return 0.0

    def is_open(self, now: float) -> bool:
        """Whether requests may be sent as far as tokens allow: the service can be reached, and no pause applies."""
        return isinstance(self.line, Up) and now >= self.pause.until

    def grant(self, kind: Kind, *, counted: bool, now: float) -> Grant:
        """Grant one request; if the service cannot be reached, it is the one that tries the connection."""
        probes = isinstance(self.line, Down)
        self._is_probing |= probes
        return Grant(kind, counted=counted, probes=probes, granted_at=now)

    def settled(self, grant: Grant) -> None:
        """Note that the granted request is no longer in flight."""
        if grant.probes:
            self._is_probing = False

    def answered(
        self, grant: Grant, answer: Answer, *, now: float, wall_time: float, jitter: float, tokens: int
    ) -> Consequence:
        """Take an answer into account, and return what follows from it.

        Args:
            grant: The request's grant.
            answer: The answer.
            now: The time on the monotonic clock.
            wall_time: The time in seconds since 1970.
            jitter: A new random number in [0, 1).
            tokens: Tokens left in the bucket.
        """
        self.settled(grant)
        self.has_answered = self.has_answered or answer.status is not None
        if is_outage(answer.status):
            self._problem = answer.problem
            return self._outage(grant, answer.retry_after, now=now, jitter=jitter)
        self.line, self._problem = Up(), ""
        if answer.status == 429:
            return self._rate_limited(grant, answer.retry_after, now=now, wall_time=wall_time, tokens=tokens)
        self.pause.reset()
        return Consequence()

    def _outage(self, grant: Grant, retry_after: float | None, *, now: float, jitter: float) -> Consequence:
        """Apply rule 4. A request that was in flight when the outage began adds nothing new by failing, too."""
        if isinstance(self.line, Up) or grant.probes:
            self.line = self._backoff.after_failure(self.line, now=now, jitter=jitter, retry_after=retry_after)
        if not self._backoff.is_over(self.line, now=now, has_answered=self.has_answered):
            return Consequence()
        return Consequence(given_up=self._why_given_up("could not be reached"), never_answered=not self.has_answered)

    def _rate_limited(
        self, grant: Grant, retry_after: float | None, *, now: float, wall_time: float, tokens: int
    ) -> Consequence:
        """Apply rules 3 and 5."""
        self.pause.hit(grant.granted_at, now)
        all_count = self.learning.learns(grant, now=now, tokens=tokens, wall_time=wall_time)
        self.pause.prolong(now, retry_after, refill_seconds=self._quota.refill_seconds)
        is_over = self.pause.hits >= HOPELESS_HITS and now - self.pause.since >= self._backoff.outage_seconds
        why = self._why_given_up("has answered only 429 (too many requests)") if is_over else ""
        return Consequence(empties=True, all_count=all_count, given_up=why)

    def _why_given_up(self, what: str) -> str:
        seconds = self._backoff.give_up_seconds(has_answered=self.has_answered)
        return f"the service {what} for {show_duration(seconds)}" + (f" ({self._problem})" if self._problem else "")
