"""The one gate that every API request passes: it gives leave to send, in the best order, within the service's limit.

1. A bucket (`core.bucket`) decides how many requests may go out, and `Admission` (`core.admission`) whether any may;
   the dispatcher waits for both, and picks who is served. Here is what comes before and after: permits and answers.
2. Every request has its durable row in the journal before it is sent; the bucket of the next process is derived from
   them.
3. A permit that is left before its request may have been sent gives its token back.
4. When the service is given up, every waiter gets the error, and so does every later caller.
5. After a 401 nothing is sent but the question whose key it is, until that is answered.
6. A request that is not wanted any more when its turn comes is not sent, and costs nothing.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from asyncexport.core.admission import (
    Admission,
    Answer,
    Backoff,
    BudgetScope,
    Connectivity,
    Consequence,
    Grant,
    Prefer,
    Priority,
    Quota,
    counts,
    is_outage,
)
from asyncexport.core.bucket import Bucket, RequestHistory
from asyncexport.core.service.requests import Kind
from asyncexport.engine.contention_log import ContentionLog
from asyncexport.engine.dispatcher import Dispatcher
from asyncexport.engine.key_hold import KeyHold
from asyncexport.engine.permit import Permit
from asyncexport.errors import UnavailableError


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


class NotWanted(Exception):  # noqa: N818 - a way out of a permit, not an error of its own
    """The request is not wanted any more; nothing was granted."""


class Budget:
    """The gate that every API request passes.

    Args:
        quota: What the service grants.
        prefer: Whether a create or a due poll goes first.
        backoff: How long between tries of a line that is down, and when to give up.
        journal: Where requests are put on record.
        wall_clock: Seconds since 1970; `loop.time()` is what waiting goes by.
        jitter: A number in [0, 1), anew at each call.

    Attributes:
        sent: How many requests of each kind were put on record.
        refused: How many were answered with 429.
        key: What holds all back while it is not known whether the key is good.
    """

    def __init__(
        self,
        quota: Quota,
        *,
        prefer: Prefer,
        backoff: Backoff,
        journal: Journal,
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._quota = quota
        self._journal = journal
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(quota.usable_burst, quota.refill_seconds, at=self._loop.time())
        self._admission = Admission(quota, backoff)
        self._dispatcher = Dispatcher(self._bucket, self._admission, prefer)
        self._contention = ContentionLog()
        self.key = KeyHold()
        self.sent = dict.fromkeys(Kind, 0)
        self.refused = 0

    async def open(self, history: RequestHistory) -> None:
        """Take over the level that earlier runs left, and begin to serve."""
        wall_time = self._wall_clock()
        self._admission.has_answered = history.has_answer
        self._admission.learning.recall(history.all_counted_since, wall_time=wall_time)
        used = history.tokens_used(self._quota, self.scope, now=wall_time)
        self._bucket.drop(self._loop.time(), used)
        self._dispatcher.start()

    async def close(self) -> None:
        """Stop serving."""
        await self._dispatcher.stop()

    @asynccontextmanager
    async def permit(
        self, kind: Kind, priority: Priority, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Permit]:
        """Wait for leave to send one request; its row in the journal is queued by then, and not yet durable.

        A block that is left before the request may have been sent gives its token back.

        Raises:
            NotWanted: `is_wanted` said no when its turn came.
            UnavailableError: the line has been down for `[retry] outage`.
        """
        self._admission.learning.forget_in_time(wall_time=self._wall_clock())
        serve, take_back = self._dispatcher.granted, self._dispatcher.take_back
        counted = counts(self.scope, kind)
        grant = await self.key.granted(kind, lambda: serve(kind, priority, counted=counted), take_back=take_back)
        if not is_wanted():
            take_back(grant)
            raise NotWanted
        self.sent[kind] += 1
        permit: Permit | None = None
        try:
            permit = Permit(grant, self._journal.send(kind.value, at=self._wall_clock()), self._answered)
            yield permit
        finally:
            if permit is None or not permit.may_be_sent:
                take_back(grant)
            elif not permit.is_answered:
                self._dispatcher.settle(grant)
            if permit is not None:
                permit.leave()

    @property
    def has_answered(self) -> bool:
        """Whether the service has ever answered in this directory."""
        return self._admission.has_answered

    @property
    def tokens(self) -> int:
        """How many counted requests could go out at once now."""
        return self._bucket.tokens(self._loop.time())

    @property
    def next_token_seconds(self) -> float:
        """How long until the next counted request may go out."""
        wait = self._bucket.wait_seconds(self._loop.time())
        return max(self._quota.refill_seconds if math.isinf(wait) else wait, self.paused_seconds)

    @property
    def scope(self) -> BudgetScope:
        """Which requests are counted at present: `create` or `all`."""
        return self._admission.learning.scope

    @property
    def polls_cost(self) -> bool:
        """Whether a poll takes a token."""
        return self.scope is BudgetScope.ALL

    @property
    def line(self) -> Connectivity:
        """Whether the service can be reached."""
        return self._admission.line

    @property
    def paused_seconds(self) -> float:
        """For how long a 429 still holds everybody back."""
        return max(0.0, self._admission.pause.until - self._loop.time())

    def waiting(self, priority: Priority) -> int:
        """How many wait for leave to send."""
        return self._dispatcher.line.count(priority)

    async def wait_until_uncontended(self) -> None:
        """Wait until neither a result nor a create waits for a token."""
        await self._dispatcher.line.wait_until_uncontended()

    @property
    def is_uncontended(self) -> bool:
        """Whether neither a result nor a create waits for a token."""
        return self._dispatcher.line.is_uncontended

    def _answered(self, grant: Grant, request_id: int, answer: Answer) -> None:
        self.key.answered(grant.kind, answer.status)
        self._journal.answered(request_id, status=answer.status or 0)
        self._dispatcher.settle(grant)
        now, wall_time = self._loop.time(), self._wall_clock()
        self.refused += self._contention.is_refusal(grant, answer, now=now)
        jitter = self._jitter() if is_outage(answer.status) else 0.0
        tokens = self.tokens
        follows = self._admission.answered(grant, answer, now=now, wall_time=wall_time, jitter=jitter, tokens=tokens)
        if follows.all_count:
            self._journal.remember("all_counted_since", repr(wall_time))
            self._dispatcher.line.all_count()
        if follows.empties:
            self._bucket.empty(now)
        if follows.given_up:
            self._dispatcher.refuse_all(lambda: _given_up(follows))


def _given_up(follows: Consequence) -> UnavailableError:
    hint = "what was done is kept; run the same command again when the service is back"
    if follows.never_answered:
        hint = "check the host ([api] base_url), the proxy ([api] proxy) and the network; it has never answered here"
    return UnavailableError(follows.given_up, lasting=True, hint=hint)
