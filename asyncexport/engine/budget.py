"""The one shared budget of API requests: who may send the next one, and when.

1. One bucket for the whole process: `burst` tokens, refilled at `requests_per_minute`. It is never ahead of the
   service's, which sees a request at any time between our sending it and its answer: what is in flight begins to come
   back only when it is answered, and one token is kept in hand.
2. One dispatcher waits for a token and *then* picks the best waiter, so that a token is never spent on yesterday's
   order. First in, first out among equals. Whoever is cancelled before its request is put on record costs nothing.
   Where there is plenty for whoever may come, there is nothing to pick, and nobody waits.
3. Every request has its row in the journal before it is sent; the bucket of the next process is derived from them.
4. A 429 pauses everybody until Retry-After has passed and sets the bucket empty. What was sent before that pause and is
   refused as well says nothing new; refusals one after another make the pauses longer.
5. What the service counts is not known (reference section 6). `scope = "auto"` counts creates only, until a 429
   answers a poll, a list or a results call while the create bucket still held tokens, or for the second time: in a
   long run the creates keep that bucket empty, and of the creates alone the service's never is, by the token kept in
   hand. From then on it counts all calls, remembers that, and tries again after a week.
6. An outage holds everybody back. One request at a time goes out to try the line; when that fails and the line has been
   down for longer than anybody is willing to wait, all who wait are told. A service that answers nothing but 429 for
   as long is as good as down.
"""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from aiolimiter import AsyncLimiter

from asyncexport.core.admission import (
    LONGEST_PAUSE_SECONDS,
    Backoff,
    BudgetScope,
    Connectivity,
    Down,
    Prefer,
    Priority,
    SentRequest,
    Up,
    is_outage,
    pause_seconds,
    rank,
    tokens_used,
)
from asyncexport.core.service.requests import Kind
from asyncexport.core.text import show_duration
from asyncexport.engine.permit import Answer, Grant, Permit
from asyncexport.errors import UnavailableError

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

TOO_LITTLE = 1e-9
"""Of a token: below what anybody can count."""

A_MOMENT = 1e-3
"""Of a token: so exactly is it known when the next one will be there; nothing is lost by looking a little later."""


class Journal(Protocol):
    """Where requests are on record."""

    def send(self, kind: str, *, at: float) -> Awaitable[int]:
        """Begin to put a request on record before it is sent; its id, once that is durable."""
        ...

    def answered(self, request_id: int, *, status: int) -> None:
        """Add the status that came back (0: none)."""
        ...

    def remember(self, key: str, value: str) -> None:
        """Keep what was learned for later runs."""
        ...


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


@dataclass(frozen=True, slots=True)
class RequestHistory:
    """What earlier runs left on record: their requests, and when all calls were learned to count (None: never)."""

    sent: tuple[SentRequest, ...] = ()
    complete: bool = True
    all_counted_since: float | None = None


@dataclass(order=True, slots=True)
class _Waiter:
    rank: int
    order: int
    kind: Kind = field(compare=False)
    priority: Priority = field(compare=False)
    granted: "asyncio.Future[Grant]" = field(compare=False)


class _Bucket:
    """An `AsyncLimiter`, told exactly how full it is, with tokens put back and with some in flight.

    What is in flight may reach the service at any moment until it is answered. So it may have taken its token only a
    moment ago, and none of what would have come back in its place counts: the bucket holds that many fewer until then.
    """

    def __init__(self, allowance: Quota) -> None:
        self._size = allowance.usable_burst
        self._refill_seconds = allowance.refill_seconds
        self._limiter = self._fresh()
        self._in_flight = 0
        self._none_until = 0.0

    @property
    def tokens(self) -> int:
        """How many tokens could be taken now."""
        low, high = 0, self._size - self._in_flight
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._limiter.has_capacity(middle) else (low, middle - 1)
        return low

    def wait_seconds(self, now: float) -> float:
        """How long until one can be taken (0: now); infinite while all are in flight."""
        if self._in_flight >= self._size:
            return math.inf
        if now < self._none_until:
            return self._none_until - now
        if self._limiter.has_capacity():
            return 0.0
        self._none_until = now + (1.0 - self._left(most=1.0, within=A_MOMENT)) * self._refill_seconds
        return self._none_until - now

    @property
    def is_plenty(self) -> bool:
        """Whether half of it is left: more than can be asked for in one moment."""
        half = max(1.0, self._size / 2)
        return self._size - self._in_flight >= half and self._limiter.has_capacity(half)

    def take(self) -> None:
        """Take one, for a request that is about to be sent."""
        self._drop_what_runs_over()
        _drain(self._limiter, 1)
        self._in_flight += 1

    def arrived(self) -> None:
        """A request was answered, or given up: its token comes back from now on."""
        self._drop_what_runs_over()
        self._in_flight -= 1

    def put_back(self) -> None:
        """A token was taken for a request that was never sent."""
        self._drop_what_runs_over()
        self._in_flight -= 1
        used = self._size - self._left()
        self._limiter = self._fresh()
        self.drop(max(0.0, used - 1))

    def drop(self, tokens: float) -> None:
        """So many are gone: earlier processes used them."""
        _drain(self._limiter, min(tokens, self._left()))

    def empty(self) -> None:
        """None is left."""
        self._limiter = self._fresh()
        _drain(self._limiter, self._size)

    def _fresh(self) -> AsyncLimiter:
        self._none_until = 0.0
        return AsyncLimiter(self._size, self._size * self._refill_seconds)

    def _drop_what_runs_over(self) -> None:
        if self._in_flight and self._limiter.has_capacity(self._size - self._in_flight):
            self._limiter = self._fresh()
            _drain(self._limiter, self._in_flight)

    def _left(self, *, most: float | None = None, within: float = TOO_LITTLE) -> float:
        """What the limiter has left: it says only whether it has so much, so ask it closer and closer."""
        low, high = 0.0, float(self._size) if most is None else most
        if self._limiter.has_capacity(high):
            return high
        while high - low > within:
            middle = (low + high) / 2
            low, high = (middle, high) if self._limiter.has_capacity(middle) else (low, middle)
        return low


def _drain(limiter: AsyncLimiter, tokens: float) -> None:
    """Take tokens that are known to be there, at once: `acquire` waits only where they are not."""
    taking = limiter.acquire(tokens)
    try:
        taking.send(None)
    except StopIteration:
        return
    taking.close()
    raise AssertionError("the limiter has less than it said")


class Budget:
    """The gate that every API request passes.

    Args:
        allowance: What the service grants.
        prefer: Whether a create or a due poll goes first.
        patience: How long between tries of a line that is down, and when to give up.
        journal: Where requests are put on record.
        wall_clock: Seconds since 1970; `loop.time()` is what waiting goes by.
        jitter: A number in [0, 1), anew at each call.

    Attributes:
        sent: How many requests of each kind were put on record.
        refused: How many were answered with 429.
    """

    def __init__(
        self,
        allowance: Quota,
        *,
        prefer: Prefer,
        backoff: Backoff,
        journal: Journal,
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._allowance = allowance
        self._prefer = prefer
        self._backoff = backoff
        self._journal = journal
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._bucket = _Bucket(allowance)
        self._scope = BudgetScope.CREATE if allowance.scope is BudgetScope.AUTO else allowance.scope
        self._learned_at = 0.0
        self._orders = count()
        self._metered: list[_Waiter] = []
        self._free: list[_Waiter] = []
        self._waiting = dict.fromkeys(Priority, 0)
        self._news = asyncio.Event()
        self._line: Connectivity = Up()
        self._probing = False
        self._pause = _RateLimitPause()
        self._uncounted_refusals = 0
        self._over = ""
        self._problem = ""
        self._uncontended = asyncio.Event()
        self._uncontended.set()
        self._dispatcher: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None
        self.sent = dict.fromkeys(Kind, 0)
        self.refused = 0

    async def open(self, history: RequestHistory) -> None:
        """Take over the level that earlier runs left, and begin to serve."""
        now = self._wall_clock()
        learned = history.all_counted_since
        if self._allowance.scope is BudgetScope.AUTO and learned is not None and 0 <= now - learned < RELEARN_SECONDS:
            self._scope, self._learned_at = BudgetScope.ALL, learned
        self._bucket.drop(
            tokens_used(
                (sent for sent in history.sent if self._counts(Kind(sent.kind))),
                now=now,
                burst=self._allowance.burst,
                requests_per_minute=self._allowance.requests_per_minute,
                oldest_known=history.complete,
            )
        )
        self._dispatcher = asyncio.create_task(self._serve(), name="budget")
        self._dispatcher.add_done_callback(self._tell_if_broken)

    async def close(self) -> None:
        """Stop serving."""
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.wait({self._dispatcher})

    @asynccontextmanager
    async def permit(self, kind: Kind, priority: Priority) -> AsyncIterator[Permit]:
        """Wait for leave to send one request; its row in the journal is queued by then, and not yet durable.

        A block that is left before the request may have been sent gives its token back.

        Raises:
            UnavailableError: the line has been down for `[retry] outage`.
        """
        grant = await self._granted(kind, priority)
        self.sent[kind] += 1
        permit: Permit | None = None
        try:
            permit = Permit(grant, self._journal.send(kind.value, at=self._wall_clock()), self._answered)
            yield permit
        finally:
            if permit is None or not permit.may_be_sent:
                self._take_back(grant)
            elif not permit.is_answered:
                self._settle(grant)
            if permit is not None:
                permit.leave()

    async def _granted(self, kind: Kind, priority: Priority) -> Grant:
        if self._bug:
            raise self._bug
        if self._over:
            raise self._unreachable()
        self._forget_in_time()
        counted = self._counts(kind)
        if self._is_plenty(counted=counted):
            return self._grant(kind, counted=counted)
        waiter = _Waiter(rank(priority, self._prefer), next(self._orders), kind, priority, self._loop.create_future())
        heapq.heappush(self._metered if counted else self._free, waiter)
        self._note_waiting(priority, +1)
        self._news.set()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            granted = waiter.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                # Cancelled in the moment it was served.
                self._take_back(granted.result())
            raise
        finally:
            self._note_waiting(priority, -1)

    @property
    def tokens(self) -> int:
        """How many counted requests could go out at once now."""
        return self._bucket.tokens

    @property
    def next_token_seconds(self) -> float:
        """How long until the next counted request may go out."""
        wait = self._bucket.wait_seconds(self._loop.time())
        return max(self._allowance.refill_seconds if math.isinf(wait) else wait, self.paused_seconds)

    @property
    def scope(self) -> BudgetScope:
        """Which requests are counted at present: `create` or `all`."""
        return self._scope

    @property
    def polls_cost(self) -> bool:
        """Whether a poll takes a token."""
        return self._scope is BudgetScope.ALL

    @property
    def line(self) -> Connectivity:
        """Whether the service can be reached."""
        return self._line

    @property
    def paused_seconds(self) -> float:
        """For how long a 429 still holds everybody back."""
        return max(0.0, self._pause.until - self._loop.time())

    def waiting(self, priority: Priority) -> int:
        """How many wait for leave to send."""
        return self._waiting[priority]

    async def wait_until_uncontended(self) -> None:
        """Wait until neither a result nor a create waits for a token."""
        await self._uncontended.wait()

    @property
    def is_uncontended(self) -> bool:
        """Whether neither a result nor a create waits for a token."""
        return self._uncontended.is_set()

    def _counts(self, kind: Kind) -> bool:
        return self._scope is BudgetScope.ALL or kind is Kind.CREATE

    def _note_waiting(self, priority: Priority, change: int) -> None:
        self._waiting[priority] += change
        if self._waiting[Priority.RESULTS] or self._waiting[Priority.CREATE]:
            self._uncontended.clear()
        else:
            self._uncontended.set()

    def _is_plenty(self, *, counted: bool) -> bool:
        """Whether nobody has to wait, whoever comes next (rule 2)."""
        if self._metered or self._free or isinstance(self._line, Down) or self._loop.time() < self._pause.until:
            return False
        return self._bucket.is_plenty if counted else True

    async def _serve(self) -> None:
        """Rule 2."""
        while True:
            waits = [math.inf]
            for heap, counted in ((self._free, False), (self._metered, True)):
                if self._peek(heap) is None:
                    continue
                wait = self._closed_seconds(counted=counted)
                if wait <= 0:
                    waiter = heapq.heappop(heap)
                    waiter.granted.set_result(self._grant(waiter.kind, counted=counted))
                    # The one served decides what it asks for next before the next token is spent.
                    await asyncio.sleep(0)
                    break
                waits.append(wait)
            else:
                await self._wait_for_news(min(waits))

    def _closed_seconds(self, *, counted: bool) -> float:
        """For how long nobody may be served as things stand; infinite: until something happens."""
        now = self._loop.time()
        if now < self._pause.until:
            return self._pause.until - now
        if isinstance(self._line, Down):
            if self._probing:
                return math.inf
            if now < self._line.probe_at:
                return self._line.probe_at - now
        return self._bucket.wait_seconds(now) if counted else 0.0

    def _grant(self, kind: Kind, *, counted: bool) -> Grant:
        if counted:
            self._bucket.take()
        probes = isinstance(self._line, Down)
        self._probing |= probes
        return Grant(kind, counted=counted, probes=probes, granted_at=self._loop.time())

    async def _wait_for_news(self, seconds: float) -> None:
        self._news.clear()
        timer = None if math.isinf(seconds) else self._loop.call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            if timer:
                timer.cancel()

    def _peek(self, heap: list[_Waiter]) -> _Waiter | None:
        while heap and heap[0].granted.done():
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _take_back(self, grant: Grant) -> None:
        """Nothing was sent."""
        if grant.counted and grant.granted_at > self._pause.began:
            self._bucket.put_back()
            self._settle(replace(grant, counted=False))
        else:
            # A 429 that came meanwhile emptied the bucket, whatever was sent.
            self._settle(grant)

    def _settle(self, grant: Grant) -> None:
        """Nothing more comes of what was granted."""
        if grant.counted:
            self._bucket.arrived()
        if grant.probes:
            self._probing = False
        if self._metered or self._free:
            self._news.set()

    def _answered(self, grant: Grant, request_id: int, answer: Answer) -> None:
        self._journal.answered(request_id, status=answer.status or 0)
        self._settle(grant)
        if is_outage(answer.status):
            self._problem = answer.problem
            self._note_outage(grant)
        else:
            self._line, self._problem = Up(), ""
            if answer.status == 429:
                self._note_refusal(grant, answer.retry_after)
            else:
                self._pause.over()

    def _note_outage(self, grant: Grant) -> None:
        """Rule 6. What was under way when the line went down says nothing new by failing, too."""
        now = self._loop.time()
        if isinstance(self._line, Up) or grant.probes:
            self._line = self._backoff.after_failure(self._line, now=now, jitter=self._jitter())
        if self._backoff.is_over(self._line, now=now):
            self._give_up("could not be reached")

    def _note_refusal(self, grant: Grant, retry_after: float | None) -> None:
        """Rules 4 and 5."""
        self.refused += 1
        now = self._loop.time()
        is_news = self._pause.refused(grant.granted_at, now)
        if self._allowance.scope is BudgetScope.AUTO and grant.kind in TELLING and not grant.counted:
            self._uncounted_refusals += is_news
            if self.tokens or self._uncounted_refusals >= CONVINCING_REFUSALS:
                self._learn_that_all_count()
        self._pause.hold(now, retry_after, refill_seconds=self._allowance.refill_seconds)
        self._bucket.empty()
        if self._pause.refusals >= HOPELESS_REFUSALS and now - self._pause.since >= self._backoff.outage_seconds:
            self._give_up("has answered nothing but 429 (asked too often)")

    def _learn_that_all_count(self) -> None:
        self._scope, self._learned_at = BudgetScope.ALL, self._wall_clock()
        self._uncounted_refusals = 0
        self._journal.remember("all_counted_since", repr(self._learned_at))
        while self._free:
            heapq.heappush(self._metered, heapq.heappop(self._free))

    def _forget_in_time(self) -> None:
        """What was learned a week ago is tried again, in the middle of a run as well."""
        if (
            self._scope is BudgetScope.ALL
            and self._allowance.scope is BudgetScope.AUTO
            and self._wall_clock() - self._learned_at >= RELEARN_SECONDS
        ):
            self._scope = BudgetScope.CREATE

    def _give_up(self, what: str) -> None:
        self._over = what
        self._send_away(self._unreachable)

    def _tell_if_broken(self, dispatcher: "asyncio.Task[None]") -> None:
        """A bug of ours in the dispatcher must end the run, not leave everybody waiting."""
        bug = None if dispatcher.cancelled() else dispatcher.exception()
        if bug is not None:
            self._bug = bug
            self._send_away(lambda: bug)

    def _send_away(self, why: Callable[[], BaseException]) -> None:
        for waiter in self._metered + self._free:
            if not waiter.granted.done():
                waiter.granted.set_exception(why())
        self._metered.clear()
        self._free.clear()

    def _unreachable(self) -> UnavailableError:
        reason = f" ({self._problem})" if self._problem else ""
        return UnavailableError(
            f"the service {self._over} for {show_duration(self._backoff.outage_seconds)}{reason}",
            lasting=True,
            hint="what was done is kept; run the same command again when the service is back",
        )


@dataclass(slots=True)
class _RateLimitPause:
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
        """An answer that is none of them."""
        self.refusals = 0


def read_history(sent: Iterable[SentRequest], *, complete: bool, all_counted_since: str | None) -> RequestHistory:
    """What the ledger holds of earlier runs, as `Budget.open` takes it."""
    return RequestHistory(tuple(sent), complete, float(all_counted_since) if all_counted_since else None)
