"""The one shared budget of API requests: who may send the next one, and when.

1. One bucket for the whole process: `burst` tokens, refilled at `requests_per_minute`. One token is kept in hand, so
   that our bucket is never ahead of the service's, which sees our requests a little later than we send them.
2. One dispatcher takes a token and *then* serves the best waiter, so that a token is never spent on yesterday's order.
   First in, first out among equals.
3. Every request has its row in the journal before it is sent; the bucket of the next process is derived from them.
4. A 429 pauses everybody until Retry-After has passed and sets the bucket empty.
5. What the service counts is not known (reference section 6). `scope = "auto"` counts creates only, until a 429
   answers another call while the create bucket still held tokens; from then on it counts all calls, remembers that,
   and tries again after a week.
6. An outage holds everybody back. One request at a time goes out to try the line; when it has been down for longer
   than anybody is willing to wait, all who wait are told.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from aiolimiter import AsyncLimiter

from asyncexport.core.pacing import (
    Down,
    Line,
    Patience,
    Prefer,
    Priority,
    Scope,
    Sent,
    Up,
    is_outage,
    pause_seconds,
    rank,
    show_duration,
    tokens_used,
)
from asyncexport.core.wire import Kind
from asyncexport.errors import UnavailableError

RELEARN_SECONDS = 7 * 86_400.0
"""How long it is remembered that all calls count: the vendor may have changed its mind."""


class Journal(Protocol):
    """Where requests are on record."""

    async def send(self, kind: str, *, at: float) -> int:
        """Put a request on record, durably, before it is sent; its id."""
        ...

    def answered(self, request_id: int, *, status: int) -> None:
        """Add the status that came back (0: none)."""
        ...

    def remember(self, key: str, value: str) -> None:
        """Keep what was learned for later runs."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """`[budget]`: what the service grants, and which calls it counts."""

    requests_per_minute: float = 2.0
    burst: int = 50
    scope: Scope = Scope.AUTO

    @property
    def refill_seconds(self) -> float:
        """How long one token takes to come back."""
        return 60.0 / self.requests_per_minute

    @property
    def usable_burst(self) -> int:
        """What we let go at once: all but the one kept in hand."""
        return max(1, self.burst - 1)


@dataclass(frozen=True, slots=True)
class History:
    """What earlier runs left on record: their requests, and when all calls were learned to count (None: never)."""

    sent: tuple[Sent, ...] = ()
    complete: bool = True
    all_counted_since: float | None = None


@dataclass(order=True, slots=True)
class _Waiter:
    rank: int
    order: int
    kind: Kind = field(compare=False)
    priority: Priority = field(compare=False)
    granted: "asyncio.Future[None]" = field(compare=False)


class Pass:
    """Leave to send one request; to be left with what came of it."""

    def __init__(self, budget: "Budget", kind: Kind, request_id: int) -> None:
        self._budget = budget
        self._kind = kind
        self._request_id = request_id
        self._left = False

    def leave(self, status: int | None, *, retry_after: float | None = None) -> None:
        """Say what came back: a status, or None where nothing did; `retry_after` in seconds. Only the first counts."""
        if not self._left:
            self._left = True
            self._budget._answered(self._kind, self._request_id, status, retry_after)  # noqa: SLF001 - its own child

    def abandon(self) -> None:
        """Say that we gave up waiting for the answer, which tells nothing of the service."""
        if not self._left:
            self._left = True
            self._budget._abandoned()  # noqa: SLF001 - its own child


class Budget:
    """The gate that every API request passes.

    Args:
        allowance: What the service grants.
        prefer: Whether a create or a due poll goes first.
        patience: How long between tries of a line that is down, and when to give up.
        journal: Where requests are put on record.
        wall_clock: Seconds since 1970; `loop.time()` is what waiting goes by.
        jitter: A number in [0, 1), anew at each call.
    """

    def __init__(
        self,
        allowance: Allowance,
        *,
        prefer: Prefer,
        patience: Patience,
        journal: Journal,
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._allowance = allowance
        self._prefer = prefer
        self._patience = patience
        self._journal = journal
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._limiter = self._new_limiter()
        self._scope = Scope.CREATE if allowance.scope is Scope.AUTO else allowance.scope
        self._orders = count()
        self._metered: list[_Waiter] = []
        self._free: list[_Waiter] = []
        self._waiting = dict.fromkeys(Priority, 0)
        self._news = asyncio.Event()
        self._token_in_hand = False
        self._paused_until = 0.0
        self._line: Line = Up()
        self._probing = False
        self._refusals = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._dispatchers: list[asyncio.Task[None]] = []
        self.sent = dict.fromkeys(Kind, 0)
        self.refused = 0

    async def open(self, history: History) -> None:
        """Take over the level that earlier runs left, and begin to serve."""
        now = self._wall_clock()
        learned = history.all_counted_since
        if self._allowance.scope is Scope.AUTO and learned is not None and 0 <= now - learned < RELEARN_SECONDS:
            self._scope = Scope.ALL
        used = tokens_used(
            (sent for sent in history.sent if self._counts(Kind(sent.kind))),
            now=now,
            burst=self._allowance.burst,
            requests_per_minute=self._allowance.requests_per_minute,
            oldest_known=history.complete,
        )
        if used > 0:
            await self._limiter.acquire(min(used, self._allowance.usable_burst))
        self._dispatchers = [
            asyncio.create_task(self._serve_metered(), name="budget: metered"),
            asyncio.create_task(self._serve_free(), name="budget: free"),
        ]

    async def close(self) -> None:
        """Stop serving."""
        for task in self._dispatchers:
            task.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)

    async def enter(self, kind: Kind, priority: Priority) -> Pass:
        """Wait for leave to send one request.

        Raises:
            UnavailableError: the line has been down for `[retry] outage`.
        """
        waiter = _Waiter(rank(priority, self._prefer), next(self._orders), kind, priority, self._loop.create_future())
        self._refuse_if_over()
        heapq.heappush(self._metered if self._counts(kind) else self._free, waiter)
        self._note_waiting(priority, +1)
        self._news.set()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self._give_back(kind)
            raise
        finally:
            self._note_waiting(priority, -1)
        return await self._put_on_record(kind)

    @property
    def tokens(self) -> int:
        """How many requests could go out at once now."""
        low, high = 0, self._allowance.usable_burst
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._limiter.has_capacity(middle) else (low, middle - 1)
        return low + self._token_in_hand

    @property
    def next_token_seconds(self) -> float:
        """How long until the next counted request may go out."""
        wait = 0.0 if self.tokens else self._allowance.refill_seconds * self._missing()
        return max(wait, self.paused_seconds)

    @property
    def scope(self) -> Scope:
        """Which requests are counted at present: `create` or `all`."""
        return self._scope

    @property
    def polls_cost(self) -> bool:
        """Whether a poll takes a token."""
        return self._scope is Scope.ALL

    @property
    def line(self) -> Line:
        """Whether the service can be reached."""
        return self._line

    @property
    def paused_seconds(self) -> float:
        """For how long a 429 still holds everybody back."""
        return max(0.0, self._paused_until - self._loop.time())

    def waiting(self, priority: Priority) -> int:
        """How many wait for leave to send."""
        return self._waiting[priority]

    async def calm(self) -> None:
        """Wait until neither a result nor a create waits for a token."""
        await self._calm.wait()

    @property
    def is_calm(self) -> bool:
        """Whether neither a result nor a create waits for a token."""
        return self._calm.is_set()

    def _missing(self) -> float:
        """Which share of a token is missing to the next one, to a sixteenth."""
        return next((share / 16 for share in range(16) if self._limiter.has_capacity(1 - share / 16)), 1.0)

    def _new_limiter(self) -> AsyncLimiter:
        burst = self._allowance.usable_burst
        return AsyncLimiter(burst, burst * self._allowance.refill_seconds)

    def _counts(self, kind: Kind) -> bool:
        return self._scope is Scope.ALL or kind is Kind.CREATE

    def _note_waiting(self, priority: Priority, change: int) -> None:
        self._waiting[priority] += change
        if self._waiting[Priority.RESULTS] or self._waiting[Priority.CREATE]:
            self._calm.clear()
        else:
            self._calm.set()

    async def _put_on_record(self, kind: Kind) -> Pass:
        """Rule 3. A cancel here leaves a row of a request that was never sent: a token too many, never too few."""
        self.sent[kind] += 1
        try:
            request_id = await self._journal.send(kind.value, at=self._wall_clock())
        except BaseException:
            self._abandoned()
            raise
        return Pass(self, kind, request_id)

    def _give_back(self, kind: Kind) -> None:
        """A waiter was cancelled in the moment it was served: nothing was sent."""
        if self._counts(kind):
            self._token_in_hand = True
        self._abandoned()

    async def _serve_metered(self) -> None:
        while True:
            await self._until_somebody_waits(self._metered)
            await self._take_token()
            if not await self._until_line_is_open(self._metered):
                continue
            if waiter := self._best(self._metered):
                self._token_in_hand = False
                waiter.granted.set_result(None)
                # The one served decides what it asks for next before the next token is spent.
                await asyncio.sleep(0)

    async def _take_token(self) -> None:
        while not self._token_in_hand:
            limiter = self._limiter
            await limiter.acquire()
            # A 429 meanwhile has put an empty bucket in the place of the one that this token is from.
            self._token_in_hand = limiter is self._limiter

    async def _serve_free(self) -> None:
        while True:
            await self._until_somebody_waits(self._free)
            if not await self._until_line_is_open(self._free):
                continue
            if waiter := self._best(self._free):
                waiter.granted.set_result(None)
                await asyncio.sleep(0)

    async def _until_somebody_waits(self, heap: list[_Waiter]) -> None:
        while self._peek(heap) is None:
            self._news.clear()
            await self._news.wait()

    async def _until_line_is_open(self, heap: list[_Waiter]) -> bool:
        """Wait while paused or down; whether one may be served now (somebody may have left meanwhile)."""
        while True:
            now = self._loop.time()
            if now < self._paused_until:
                await asyncio.sleep(self._paused_until - now)
            elif isinstance(self._line, Down) and (self._probing or now < self._line.probe_at):
                await self._wait_for_news(None if self._probing else self._line.probe_at - now)
            else:
                break
            if self._peek(heap) is None:
                return False
        if isinstance(self._line, Down):
            self._probing = True
        return True

    async def _wait_for_news(self, seconds: float | None) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _peek(self, heap: list[_Waiter]) -> _Waiter | None:
        while heap and heap[0].granted.done():
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _best(self, heap: list[_Waiter]) -> _Waiter | None:
        """Take the best waiter out; where the one to try the line has left meanwhile, somebody else may."""
        if self._peek(heap) is None:
            self._probing = False
            return None
        return heapq.heappop(heap)

    def _abandoned(self) -> None:
        self._probing = False
        self._news.set()

    def _answered(self, kind: Kind, request_id: int, status: int | None, retry_after: float | None) -> None:
        self._journal.answered(request_id, status=status or 0)
        self._probing = False
        now = self._loop.time()
        if is_outage(status):
            self._line = self._patience.after_failure(self._line, now=now, jitter=self._jitter())
            self._give_up_if_over()
        else:
            self._line = Up()
        if status == 429:
            self._pause(kind, retry_after)
        elif status == 200:
            self._refusals = 0
        self._news.set()

    def _pause(self, kind: Kind, retry_after: float | None) -> None:
        self.refused += 1
        self._refusals += 1
        if self._allowance.scope is Scope.AUTO and kind is not Kind.CREATE and not self._counts(kind) and self.tokens:
            self._learn_that_all_count()
        seconds = pause_seconds(retry_after, refill_seconds=self._allowance.refill_seconds)
        # A service that says the same short pause over and over is asked less and less often.
        seconds *= min(2.0 ** (self._refusals - 1), 64.0) if self._refusals > 3 else 1.0
        self._paused_until = max(self._paused_until, self._loop.time() + seconds)
        self._token_in_hand = False
        self._empty()

    def _empty(self) -> None:
        """Set the bucket empty: a fresh limiter, all of whose tokens are taken at once."""
        self._limiter = self._new_limiter()
        taking = self._limiter.acquire(self._allowance.usable_burst)
        try:
            taking.send(None)
        except StopIteration:
            return
        raise AssertionError("a fresh limiter let nobody through")

    def _learn_that_all_count(self) -> None:
        self._scope = Scope.ALL
        self._journal.remember("all_counted_since", repr(self._wall_clock()))
        while self._free:
            heapq.heappush(self._metered, heapq.heappop(self._free))

    def _refuse_if_over(self) -> None:
        if self._patience.is_over(self._line, now=self._loop.time()):
            raise _unreachable(self._patience)

    def _give_up_if_over(self) -> None:
        if not self._patience.is_over(self._line, now=self._loop.time()):
            return
        for waiter in self._metered + self._free:
            if not waiter.granted.done():
                waiter.granted.set_exception(_unreachable(self._patience))
        self._metered.clear()
        self._free.clear()


def _unreachable(patience: Patience) -> UnavailableError:
    return UnavailableError(
        f"the service could not be reached for {show_duration(patience.outage_seconds)}",
        lasting=True,
        hint="what was done is kept; run the same command again when the service is back",
    )


def read_history(sent: Iterable[Sent], *, complete: bool, all_counted_since: str | None) -> History:
    """What the ledger holds of earlier runs, as `Budget.open` takes it."""
    return History(tuple(sent), complete, float(all_counted_since) if all_counted_since else None)
