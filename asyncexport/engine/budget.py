"""The gate that every API request passes: grants permits in the best order and within the service's rate limit.

1. The token bucket (`core.bucket`) decides how many requests may be sent, and `Admission` (`core.admission`) whether
   any may be sent at all. The dispatcher waits for both and picks the next request. This module hands out the permits
   and processes the answers.
2. Every request has a durable row in the journal before it is sent. The next process computes the level of its bucket
   from these rows.
3. A permit that is released before its request may have been sent returns its token.
4. When the service is given up, every waiting request and every later one gets the error.
5. After a 401, only the request that checks the key (`/me`) is sent until its answer is known.
6. A request that is no longer wanted when its turn comes is not sent and costs nothing.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from asyncexport.core.admission import (
    Admission,
    Answer,
    BudgetScope,
    Consequence,
    Grant,
    Prefer,
    Priority,
    Quota,
    counts,
)
from asyncexport.core.bucket import Bucket, RequestHistory
from asyncexport.core.connectivity import Backoff, Connectivity, is_outage
from asyncexport.core.service.requests import Kind
from asyncexport.engine.contention_log import ContentionLog
from asyncexport.engine.dispatcher import Dispatcher
from asyncexport.engine.key_hold import KeyHold
from asyncexport.engine.permit import Permit
from asyncexport.errors import UnavailableError


class Journal(Protocol):
    """The durable record of requests."""

    def send(self, kind: str, *, at: float) -> Awaitable[int]:
        """Start recording a request that is about to be sent; the result is its id, once the row is durable."""
        ...

    def answered(self, request_id: int, *, status: int) -> None:
        """Record the HTTP status of the answer (0 if there was no answer)."""
        ...

    def remember(self, key: str, value: str) -> None:
        """Store a learned value for later runs."""
        ...


class NotWanted(Exception):  # noqa: N818 - leaves the permit's block; not an error
    """The request is no longer wanted, and no permit was granted."""


class Budget:
    """The gate that every API request passes.

    Args:
        quota: The rate limit that the service grants.
        prefer: Whether a create or a due poll goes first.
        backoff: The pauses between attempts while the service cannot be reached, and when to give up.
        journal: The durable record of requests.
        wall_clock: Returns seconds since 1970. Waiting uses `loop.time()` instead.
        jitter: Returns a random number in [0, 1).

    Attributes:
        sent: Number of requests recorded, by kind.
        refused: Number of requests answered with 429.
        key: Pauses all requests while it is not known whether the key is good.
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
        """Set the bucket to the level that earlier runs left, and start granting permits."""
        wall_time = self._wall_clock()
        self._admission.has_answered = history.has_answer
        self._admission.learning.recall(history.all_counted_since, wall_time=wall_time)
        used = history.tokens_used(self._quota, self.scope, now=wall_time)
        self._bucket.drop(self._loop.time(), used)
        self._dispatcher.start()

    async def close(self) -> None:
        """Stop granting permits."""
        await self._dispatcher.stop()

    @asynccontextmanager
    async def permit(
        self, kind: Kind, priority: Priority, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Permit]:
        """Wait for a permit to send one request. On entry its journal row is queued, but not yet durable.

        If the block is left before the request may have been sent, the token is returned.

        Raises:
            NotWanted: `is_wanted` returned false when the request's turn came.
            UnavailableError: the service has been unreachable for `[retry] outage`.
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
        """Number of counted requests that could be sent now, back to back."""
        return self._bucket.tokens(self._loop.time())

    @property
    def next_token_seconds(self) -> float:
        """Seconds until the next counted request may be sent."""
        wait = self._bucket.wait_seconds(self._loop.time())
        return max(self._quota.refill_seconds if math.isinf(wait) else wait, self.paused_seconds)

    @property
    def scope(self) -> BudgetScope:
        """Which requests currently count against the limit: `create` or `all`."""
        return self._admission.learning.scope

    @property
    def polls_cost(self) -> bool:
        """Whether a poll takes a token."""
        return self.scope is BudgetScope.ALL

    @property
    def connectivity(self) -> Connectivity:
        """Whether the service can be reached."""
        return self._admission.line

    @property
    def paused_seconds(self) -> float:
        """Seconds for which a 429 still pauses all requests."""
        return max(0.0, self._admission.pause.until - self._loop.time())

    def waiting(self, priority: Priority) -> int:
        """Number of requests of this priority that wait for a permit."""
        return self._dispatcher.queue.count(priority)

    async def wait_until_uncontended(self) -> None:
        """Wait until neither a results call nor a create waits for a token."""
        await self._dispatcher.queue.wait_until_uncontended()

    @property
    def is_uncontended(self) -> bool:
        """Whether neither a results call nor a create waits for a token."""
        return self._dispatcher.queue.is_uncontended

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
            self._dispatcher.queue.all_count()
        if follows.empties:
            self._bucket.empty(now)
        if follows.given_up:
            self._dispatcher.reject_all(lambda: _given_up(follows))


def _given_up(follows: Consequence) -> UnavailableError:
    hint = "finished work is saved; run the same command again when the service is back"
    if follows.never_answered:
        hint = (
            "check the host ([api] base_url), the proxy ([api] proxy) and the network; "
            "the service has never answered for this directory"
        )
    return UnavailableError(follows.given_up, lasting=True, hint=hint)
