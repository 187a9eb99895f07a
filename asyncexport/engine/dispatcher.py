"""Waits for a token, then grants it to the best waiting request.

1. The bucket decides how many requests may be sent, `Admission` whether any may. Both are pure; this module does the
   waiting.
2. The dispatcher waits for the token first and picks the request afterwards, so that it always serves the request that
   is best at that time.
3. While there are plenty of tokens, requests are granted immediately, without queueing.
4. A waiter that is cancelled just as it is served returns its grant.
"""

import asyncio
import math
from collections.abc import Callable

from aiolimiter import AsyncLimiter

from asyncexport.core.admission import Admission, Grant, Prefer, Priority
from asyncexport.core.bucket import Bucket
from asyncexport.core.service.requests import Kind
from asyncexport.engine.request_queue import RequestQueue


class PacingLimiter:
    """An `AsyncLimiter` that follows the bucket: the bucket decides, the limiter only paces.

    The limiter knows only which requests were granted, not which of them are still in flight, were never sent or were
    refused. When it would delay a request that the bucket allows, or is more than one token off, it is replaced by a
    new one at the bucket's level.
    """

    def __init__(self, size: int, refill_seconds: float) -> None:
        self._size = size
        self._refill_seconds = refill_seconds
        self._limiter = self._full()

    async def acquire(self, used: float) -> None:
        """Take a token that the bucket has; `used` is the number of tokens missing from the bucket before that."""
        if not self.agrees(used):
            self._limiter = self._full()
            await self._limiter.acquire(min(used, self._size - 1))
        await self._limiter.acquire()

    def agrees(self, used: float) -> bool:
        """Whether the limiter has a token, and its level is within one token of the bucket's."""
        left = self._size - used
        return self._limiter.has_capacity(max(1.0, left - 1)) and not self._limiter.has_capacity(left + 1)

    def _full(self) -> AsyncLimiter:
        return AsyncLimiter(self._size, self._size * self._refill_seconds)


class Dispatcher:
    """Grants permits to the waiting requests, one after another.

    Args:
        bucket: Decides how many requests may be sent.
        admission: Decides whether any request may be sent.
        prefer: Whether a create or a due poll goes first.

    Attributes:
        queue: The waiting requests.
    """

    def __init__(self, bucket: Bucket, admission: Admission, prefer: Prefer) -> None:
        self._bucket = bucket
        self._admission = admission
        self._limiter = PacingLimiter(bucket.size, bucket.refill_seconds)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._rejection: Callable[[], BaseException] | None = None
        self._serving: asyncio.Task[None] | None = None
        self.queue = RequestQueue(prefer)

    def start(self) -> None:
        """Start serving."""
        self._serving = asyncio.create_task(self._serve(), name="budget")
        self._serving.add_done_callback(self._reject_all_on_a_bug)

    async def stop(self) -> None:
        """Stop serving."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})

    async def granted(self, kind: Kind, priority: Priority, *, counted: bool) -> Grant:
        """Wait for a grant; `counted` says whether it takes a token."""
        if self._rejection:
            raise self._rejection()
        if self._is_plenty(counted=counted):
            if counted:
                await self._limiter.acquire(self._bucket.used)
            return self._grant(kind, counted=counted)
        self._changed.set()
        return await self.queue.wait(kind, priority, counted=counted, take_back=self.take_back)

    def take_back(self, grant: Grant) -> None:
        """Take back a grant under which nothing was sent."""
        if grant.counted:
            self._bucket.put_back(self._loop.time(), taken_at=grant.granted_at)
        self._settled(grant)

    def settle(self, grant: Grant) -> None:
        """Note that the request sent under this grant was answered, or that its answer is no longer awaited."""
        if grant.counted:
            self._bucket.arrived(self._loop.time())
        self._settled(grant)

    def reject_all(self, make_error: Callable[[], BaseException]) -> None:
        """Fail all waiting and all later requests, each with an error of its own from `make_error`."""
        self._rejection = make_error
        self.queue.reject_all(make_error)

    def _settled(self, grant: Grant) -> None:
        self._admission.settled(grant)
        if not self.queue.is_empty:
            self._changed.set()

    def _is_plenty(self, *, counted: bool) -> bool:
        """Rule 3."""
        now = self._loop.time()
        if not self.queue.is_empty or not self._admission.is_open(now):
            return False
        return not counted or self._bucket.is_half_full(now)

    async def _serve(self) -> None:
        while True:
            waits = [math.inf]
            for counted in (False, True):
                if not self.queue.has(counted=counted):
                    continue
                wait = self._closed_seconds(counted=counted)
                if wait <= 0:
                    await self._serve_best(counted=counted)
                    break
                waits.append(wait)
            else:
                await self._wait_for_change(min(waits))

    async def _serve_best(self, *, counted: bool) -> None:
        """Rule 2."""
        if counted:
            await self._limiter.acquire(self._bucket.used)
            if not self.queue.has(counted=True) or self._closed_seconds(counted=True) > 0:
                return
        waiter = self.queue.best(counted=counted)
        waiter.granted.set_result(self._grant(waiter.kind, counted=counted))
        # Let the task that was served queue its next request before the next token is granted.
        await asyncio.sleep(0)

    def _closed_seconds(self, *, counted: bool) -> float:
        """Seconds until a request may be served; infinite if that takes a change first."""
        now = self._loop.time()
        closed = self._admission.closed_seconds(now)
        return self._bucket.wait_seconds(now) if counted and closed <= 0 else closed

    def _grant(self, kind: Kind, *, counted: bool) -> Grant:
        now = self._loop.time()
        if counted:
            self._bucket.take(now)
        return self._admission.grant(kind, counted=counted, now=now)

    async def _wait_for_change(self, seconds: float) -> None:
        self._changed.clear()
        timer = None if math.isinf(seconds) else self._loop.call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer:
                timer.cancel()

    def _reject_all_on_a_bug(self, serving: "asyncio.Task[None]") -> None:
        """End the run if the dispatcher itself fails, instead of leaving all requests waiting."""
        bug = None if serving.cancelled() else serving.exception()
        if bug is not None:
            self.reject_all(lambda: bug)
