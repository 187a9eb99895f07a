"""Gives leave to send: waits until there is a token, and then picks the best of those who wait.

1. The bucket decides how many may go out, `Admission` whether any may; neither waits, and nothing is decided here.
2. The token comes first and the waiter after, so that a token is never spent on yesterday's order.
3. While there are plenty of tokens, nothing is picked, and no request waits.
4. A waiter that is cancelled at the very moment it is served gives its grant back.
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
    """An `AsyncLimiter` at the bucket's side: the bucket decides, the limiter paces what was decided.

    The limiter knows of requests that were granted, and not of those that are in flight for long, were never sent, or
    were refused. Where it would hold up what the bucket decided, or is more than a token off, it is made anew at the
    bucket's level.
    """

    def __init__(self, size: int, refill_seconds: float) -> None:
        self._size = size
        self._refill_seconds = refill_seconds
        self._limiter = self._full()

    async def acquire(self, used: float) -> None:
        """Take one, of which the bucket says that it is there; `used` tokens of the bucket are missing before that."""
        if not self.agrees(used):
            self._limiter = self._full()
            await self._limiter.acquire(min(used, self._size - 1))
        await self._limiter.acquire()

    def agrees(self, used: float) -> bool:
        """Whether the limiter has a token, and as many as the bucket, give or take one."""
        left = self._size - used
        return self._limiter.has_capacity(max(1.0, left - 1)) and not self._limiter.has_capacity(left + 1)

    def _full(self) -> AsyncLimiter:
        return AsyncLimiter(self._size, self._size * self._refill_seconds)


class Dispatcher:
    """Serves those who wait, one after another.

    Args:
        bucket: How many may go out.
        admission: Whether any may.
        prefer: Whether a create or a due poll goes first.

    Attributes:
        line: Who waits.
    """

    def __init__(self, bucket: Bucket, admission: Admission, prefer: Prefer) -> None:
        self._bucket = bucket
        self._admission = admission
        self._pace = PacingLimiter(bucket.size, bucket.refill_seconds)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._refusal: Callable[[], BaseException] | None = None
        self._serving: asyncio.Task[None] | None = None
        self.line = RequestQueue(prefer)

    def start(self) -> None:
        """Begin to serve."""
        self._serving = asyncio.create_task(self._serve(), name="budget")
        self._serving.add_done_callback(self._tell_if_broken)

    async def stop(self) -> None:
        """Stop serving."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})

    async def granted(self, kind: Kind, priority: Priority, *, counted: bool) -> Grant:
        """Wait for leave to send; `counted` says whether that takes a token."""
        if self._refusal:
            raise self._refusal()
        if self._is_plenty(counted=counted):
            if counted:
                await self._pace.acquire(self._bucket.used)
            return self._grant(kind, counted=counted)
        self._news.set()
        return await self.line.wait(kind, priority, counted=counted, take_back=self.take_back)

    def take_back(self, grant: Grant) -> None:
        """Nothing was sent under this grant."""
        if grant.counted:
            self._bucket.put_back(self._loop.time(), taken_at=grant.granted_at)
        self._settled(grant)

    def settle(self, grant: Grant) -> None:
        """What was sent under this grant is answered, or nobody waits for its answer any more."""
        if grant.counted:
            self._bucket.arrived(self._loop.time())
        self._settled(grant)

    def refuse_all(self, why: Callable[[], BaseException]) -> None:
        """There is no leave any more, for those who wait and for those who come; `why` makes the error for each."""
        self._refusal = why
        self.line.send_away(why)

    def _settled(self, grant: Grant) -> None:
        self._admission.settled(grant)
        if not self.line.is_empty:
            self._news.set()

    def _is_plenty(self, *, counted: bool) -> bool:
        """Rule 3."""
        now = self._loop.time()
        if not self.line.is_empty or not self._admission.is_open(now):
            return False
        return not counted or self._bucket.is_plenty(now)

    async def _serve(self) -> None:
        while True:
            waits = [math.inf]
            for counted in (False, True):
                if not self.line.has(counted=counted):
                    continue
                wait = self._closed_seconds(counted=counted)
                if wait <= 0:
                    await self._serve_best(counted=counted)
                    break
                waits.append(wait)
            else:
                await self._wait_for_news(min(waits))

    async def _serve_best(self, *, counted: bool) -> None:
        """Rule 2."""
        if counted:
            await self._pace.acquire(self._bucket.used)
            if not self.line.has(counted=True) or self._closed_seconds(counted=True) > 0:
                return
        waiter = self.line.best(counted=counted)
        waiter.granted.set_result(self._grant(waiter.kind, counted=counted))
        # The one served decides what it asks for next before the next token is spent.
        await asyncio.sleep(0)

    def _closed_seconds(self, *, counted: bool) -> float:
        """For how long nobody may be served as things stand; infinite: until something happens."""
        now = self._loop.time()
        closed = self._admission.closed_seconds(now)
        return self._bucket.wait_seconds(now) if counted and closed <= 0 else closed

    def _grant(self, kind: Kind, *, counted: bool) -> Grant:
        now = self._loop.time()
        if counted:
            self._bucket.take(now)
        return self._admission.grant(kind, counted=counted, now=now)

    async def _wait_for_news(self, seconds: float) -> None:
        self._news.clear()
        timer = None if math.isinf(seconds) else self._loop.call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            if timer:
                timer.cancel()

    def _tell_if_broken(self, serving: "asyncio.Task[None]") -> None:
        """A bug of ours must end the run, not leave everybody waiting."""
        bug = None if serving.cancelled() else serving.exception()
        if bug is not None:
            self.refuse_all(lambda: bug)
