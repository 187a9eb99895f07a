"""Who may send the next request, and when: priorities, back-off, pauses, outages, and which calls count.

1. Everything is a function of values: the clocks, the jitter and the bucket's level come in as arguments.
2. The service's allowance is a bucket of `burst` tokens, refilled at `requests_per_minute` (reference section 6). Its
   level is counted elsewhere (`core.bucket`); here is all else that holds a request back.
3. A 429 pauses everybody until Retry-After has passed and says that the bucket is empty. What was sent before that
   pause and is refused as well says nothing new; refusals one after another make the pauses longer. A service that
   answers nothing but 429 for as long as anybody is willing to wait is as good as down.
4. An outage is nobody's fault: while the line is down one request at a time tries it, under back-off with full jitter,
   and not before the service asked for it (Retry-After). When that fails and the line has been down for as long as
   anybody is willing to wait, the service is given up. A service that has never answered in this directory is given up
   sooner: it is likelier that its address, a proxy or the network is wrong.
5. What the service counts is not known. `scope = "auto"` counts creates only, until a 429 answers a poll, a list or a
   results call while the create bucket still held tokens, or for the second time: in a long run the creates keep that
   bucket empty, and of the creates alone the service's never is, by the token kept in hand. From then on it counts all
   calls, remembers that, and tries again after a week.
"""

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from asyncexport.core.service.requests import Kind
from asyncexport.core.text import show_duration

LONGEST_PAUSE_SECONDS = 3600.0
"""A Retry-After beyond this is taken for a mistake: asking once an hour costs nothing."""

SHORTEST_PAUSE_SECONDS = 1.0
"""A Retry-After of zero, or none at all, must not make a caller spin."""

RELEARN_SECONDS = 7 * 86_400.0
"""How long it is remembered that all calls count: the vendor may have changed its mind."""

TELLING = frozenset({Kind.POLL, Kind.LIST, Kind.RESULTS})
"""Calls whose refusal says that all calls are counted; others (segments, me) may well have a limit of their own."""

CONVINCING_REFUSALS = 2
"""So many refusals, a pause apart, of calls that should not be counted are no accident."""

PATIENT_REFUSALS = 3
"""So many refusals in a row are waited out as they ask; from then on each pause is twice as long as the one before."""

LONGEST_FACTOR = 64.0
"""How much longer pauses get at the most."""

HOPELESS_REFUSALS = 6
"""Fewer refusals in a row are never taken for an outage, however long each of them asked to wait."""


class Prefer(StrEnum):
    """`[polling] prefer`: what a token is spent on first when both a create and a due poll wait."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


class BudgetScope(StrEnum):
    """`[budget] scope`: which requests the service's limit counts; the vendor does not say."""

    AUTO = "auto"
    ALL = "all"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Quota:
    """`[budget]`: what the service grants, and which calls it counts."""

    requests_per_minute: float = 2.0
    burst: int = 50
    scope: BudgetScope = BudgetScope.AUTO

    @property
    def refill_seconds(self) -> float:
        """How long one token takes to come back."""
        return 60.0 / self.requests_per_minute

    @property
    def usable_burst(self) -> int:
        """What we let go at once: all but the one kept in hand."""
        return max(1, self.burst - 1)


def counts(scope: BudgetScope, kind: str) -> bool:
    """Whether a request of this kind takes a token; what is not known yet (`auto`) is taken for `create`."""
    return scope is BudgetScope.ALL or kind == Kind.CREATE


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
    """`[retry]`: how long between tries of a line that is down, and when to give up.

    Attributes:
        initial_seconds, max_seconds: The first pause at the most, and the longest.
        outage_seconds: When to give up.
        first_contact_seconds: When to give up a service that has never answered in this directory; None: no sooner.
    """

    initial_seconds: float
    max_seconds: float
    outage_seconds: float
    first_contact_seconds: float | None = None

    def patience_seconds(self, *, has_answered: bool) -> float:
        """How long anybody is willing to wait for a service that has, or has never, answered here."""
        first = self.first_contact_seconds
        return self.outage_seconds if has_answered or first is None else min(first, self.outage_seconds)

    def after_failure(self, line: Connectivity, *, now: float, jitter: float, retry_after: float | None = None) -> Down:
        """The line once another request got no answer, or one that says the service is in trouble.

        `retry_after`: in how many seconds the service wants to be asked again, if it said so.
        """
        since, tries = (now, 1) if isinstance(line, Up) else (line.since, line.tries + 1)
        asked = min(max(retry_after or 0.0, 0.0), LONGEST_PAUSE_SECONDS)
        return Down(since, tries, now + max(self.wait_seconds(tries, jitter=jitter), asked))

    def wait_seconds(self, tries: int, *, jitter: float) -> float:
        """How long to wait after `tries` failures in a row."""
        return backoff_seconds(tries, initial_seconds=self.initial_seconds, max_seconds=self.max_seconds, jitter=jitter)

    def is_over(self, line: Connectivity, *, now: float, has_answered: bool = True) -> bool:
        """Whether the line has been down for as long as anybody is willing to wait."""
        return isinstance(line, Down) and now - line.since >= self.patience_seconds(has_answered=has_answered)


def is_outage(status: int | None) -> bool:
    """Whether an answer (None: no answer came) is the service's trouble and not the request's (reference 3.0)."""
    return status is None or status in (408, 499) or status >= 500


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to send one request.

    Attributes:
        kind: What may be sent.
        counted: Whether it took a token.
        probes: Whether it tries a line that is down.
        granted_at: When, on the monotonic clock.
    """

    kind: Kind
    counted: bool
    probes: bool
    granted_at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: The HTTP status; None where no answer came.
        retry_after: In how many seconds the service wants to be asked again; None where it did not say.
        problem: What went wrong, in words.
    """

    status: int | None
    retry_after: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from an answer, besides what `Admission` notes for itself.

    Attributes:
        empties: The bucket is empty, whatever we counted.
        all_count: From now on every call counts; that is to be remembered.
        given_up: Why the service is given up, in words; "" where it is not.
        never_answered: It is given up because it has never answered.
    """

    empties: bool = False
    all_count: bool = False
    given_up: str = ""
    never_answered: bool = False


@dataclass(slots=True)
class RateLimitPause:
    """What 429s ask for: until when everybody waits, and how many there were one after another, since when."""

    until: float = 0.0
    began: float = -math.inf
    refusals: int = 0
    since: float = 0.0

    def refused(self, granted_at: float, now: float) -> bool:
        """Count a refusal, unless it was sent before the last one came back; whether it counts."""
        if granted_at < self.began:
            return False
        if not self.refusals:
            self.since = now
        self.refusals += 1
        self.began = now
        return True

    def hold(self, now: float, retry_after: float | None, *, refill_seconds: float) -> None:
        """Wait as asked; whoever says the same short pause over and over is asked less and less often."""
        factor = min(2.0 ** max(0, self.refusals - PATIENT_REFUSALS), LONGEST_FACTOR)
        seconds = pause_seconds(retry_after, refill_seconds=refill_seconds)
        self.until = max(self.until, now + max(seconds, min(seconds * factor, LONGEST_PAUSE_SECONDS)))

    def over(self) -> None:
        """An answer came that is no refusal."""
        self.refusals = 0


def is_still_learned(learned_at: float | None, *, now: float) -> bool:
    """Whether it still holds that every call counts, learned at this moment (both in seconds since 1970)."""
    return learned_at is not None and 0 <= now - learned_at < RELEARN_SECONDS


@dataclass(slots=True)
class ScopeLearning:
    """Which calls count, as far as that is known (rule 5).

    Attributes:
        configured: `[budget] scope`.
        learned_at: When it was learned that every call counts, in seconds since 1970; None: it was not.
        refusals: How many calls that should not count were refused, a pause apart.
    """

    configured: BudgetScope
    learned_at: float | None = None
    refusals: int = 0

    @property
    def scope(self) -> BudgetScope:
        """Which calls count at present: `create` or `all`."""
        if self.configured is not BudgetScope.AUTO:
            return self.configured
        return BudgetScope.CREATE if self.learned_at is None else BudgetScope.ALL

    def recall(self, learned_at: float | None, *, wall_time: float) -> None:
        """Take over what an earlier run learned, if it still holds."""
        self.learned_at = learned_at if is_still_learned(learned_at, now=wall_time) else None

    def forget_in_time(self, *, wall_time: float) -> None:
        """What was learned a week ago is tried again, in the middle of a run as well."""
        if self.learned_at is not None and wall_time - self.learned_at >= RELEARN_SECONDS:
            self.learned_at = None

    def learns(self, refused: Grant, *, is_news: bool, tokens: int, wall_time: float) -> bool:
        """Whether this refusal shows that every call counts; `tokens` were left in the bucket of the creates."""
        if self.configured is not BudgetScope.AUTO or refused.kind not in TELLING or refused.counted:
            return False
        self.refusals += is_news
        if not tokens and self.refusals < CONVINCING_REFUSALS:
            return False
        self.learned_at, self.refusals = wall_time, 0
        return True


class Admission:
    """What the service's answers mean to whoever wants to send the next request.

    Args:
        quota: What the service grants.
        backoff: How long between tries of a line that is down, and when to give up.

    Attributes:
        learning: Which calls count.
        has_answered: Whether the service has ever answered in this directory.
        line: Whether the service can be reached.
        pause: What refusals ask for.
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
        """For how long nobody may send, whatever tokens there are; infinite: until the next answer is here."""
        if now < self.pause.until:
            return self.pause.until - now
        if isinstance(self.line, Down):
            return math.inf if self._is_probing else max(0.0, self.line.probe_at - now)
        return 0.0

    def is_open(self, now: float) -> bool:
        """Whether anybody may send, and as many as there are tokens for: the line is up, and nothing holds it back."""
        return isinstance(self.line, Up) and now >= self.pause.until

    def grant(self, kind: Kind, *, counted: bool, now: float) -> Grant:
        """Leave for one request; where the line is down, it is the one that tries it."""
        probes = isinstance(self.line, Down)
        self._is_probing |= probes
        return Grant(kind, counted=counted, probes=probes, granted_at=now)

    def settled(self, grant: Grant) -> None:
        """Nothing is in flight any more for this grant, whatever came of it."""
        if grant.probes:
            self._is_probing = False

    def answered(
        self, grant: Grant, answer: Answer, *, now: float, wall_time: float, jitter: float, tokens: int
    ) -> Consequence:
        """Take an answer into account.

        Args:
            grant: What it answers.
            answer: What came back.
            now: On the monotonic clock.
            wall_time: In seconds since 1970.
            jitter: A number in [0, 1), drawn anew.
            tokens: How many are left in the bucket.
        """
        self.settled(grant)
        self.has_answered = self.has_answered or answer.status is not None
        if is_outage(answer.status):
            self._problem = answer.problem
            return self._outage(grant, answer.retry_after, now=now, jitter=jitter)
        self.line, self._problem = Up(), ""
        if answer.status == 429:
            return self._refusal(grant, answer.retry_after, now=now, wall_time=wall_time, tokens=tokens)
        self.pause.over()
        return Consequence()

    def _outage(self, grant: Grant, retry_after: float | None, *, now: float, jitter: float) -> Consequence:
        """Rule 4. What was under way when the line went down says nothing new by failing, too."""
        if isinstance(self.line, Up) or grant.probes:
            self.line = self._backoff.after_failure(self.line, now=now, jitter=jitter, retry_after=retry_after)
        if not self._backoff.is_over(self.line, now=now, has_answered=self.has_answered):
            return Consequence()
        why = self._why_given_up("could not be reached")
        return Consequence(given_up=why, never_answered=not self.has_answered)

    def _refusal(
        self, grant: Grant, retry_after: float | None, *, now: float, wall_time: float, tokens: int
    ) -> Consequence:
        """Rules 3 and 5."""
        is_news = self.pause.refused(grant.granted_at, now)
        all_count = self.learning.learns(grant, is_news=is_news, tokens=tokens, wall_time=wall_time)
        self.pause.hold(now, retry_after, refill_seconds=self._quota.refill_seconds)
        lasts = now - self.pause.since >= self._backoff.outage_seconds
        is_over = lasts and self.pause.refusals >= HOPELESS_REFUSALS
        why = self._why_given_up("has answered nothing but 429 (asked too often)") if is_over else ""
        return Consequence(empties=True, all_count=all_count, given_up=why)

    def _why_given_up(self, what: str) -> str:
        reason = f" ({self._problem})" if self._problem else ""
        seconds = self._backoff.patience_seconds(has_answered=self.has_answered)
        return f"the service {what} for {show_duration(seconds)}{reason}"
