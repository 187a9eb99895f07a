"""The token bucket that requests are paid from: how full it is now, and what earlier runs left of it.

1. A bucket holds `size` tokens, and one comes back every `refill_seconds`. A request takes one.
2. Our count is never ahead of the service's, which sees a request at any moment between its sending and its answer.
   So a token begins to come back only once its request is answered: as many as are in flight are always in use.
3. The next process takes over the level from the requests on record. Where the record does not reach back far enough
   to know, the bucket is taken to be empty: waiting costs minutes, a refused request costs more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from asyncexport.core.admission import BudgetScope, Quota, counts

HISTORY_SECONDS = 2 * 86_400.0
"""How far back requests are read to know the level: long enough for any bucket that rests now and then."""

TOO_LITTLE = 1e-9
"""A share of a token below what anybody can count: what rounding may leave."""


@dataclass(slots=True)
class Bucket:
    """A bucket, with some of its requests in flight.

    Each method is told the time (`now`, in seconds on any clock that does not go back) and brings the level up to it.

    Attributes:
        size: How many tokens it holds when it is full.
        refill_seconds: How long one token takes to come back.
        used: How many are missing from it, at the moment `at`.
        at: When the level was last brought up to date.
        in_flight: How many requests are sent and not answered.
        emptied_at: When it was last found out to be empty.
    """

    size: int
    refill_seconds: float
    used: float = 0.0
    at: float = 0.0
    in_flight: int = 0
    emptied_at: float = -math.inf

    def tokens(self, now: float) -> int:
        """How many tokens could be taken now."""
        self._advance(now)
        return max(0, math.floor(self.size - self.used + TOO_LITTLE))

    def wait_seconds(self, now: float) -> float:
        """How long until one can be taken (0: now); infinite while all are in flight."""
        self._advance(now)
        if self.in_flight >= self.size:
            return math.inf
        missing = self.used + 1 - self.size
        return missing * self.refill_seconds if missing > TOO_LITTLE else 0.0

    def is_plenty(self, now: float) -> bool:
        """Whether half of it is left: more than can be asked for in one moment."""
        self._advance(now)
        return self.size - self.used >= max(1.0, self.size / 2)

    def take(self, now: float) -> None:
        """Take one, for a request that is about to be sent."""
        self._advance(now)
        self.used += 1
        self.in_flight += 1

    def arrived(self, now: float) -> None:
        """A request was answered, or given up: its token comes back from now on."""
        self._advance(now)
        self.in_flight -= 1

    def put_back(self, now: float, *, taken_at: float) -> None:
        """The request that a token was taken for was never sent: it is there again, unless none is since `taken_at`."""
        self._advance(now)
        self.in_flight -= 1
        if taken_at > self.emptied_at:
            self.used -= 1

    def drop(self, now: float, tokens: float) -> None:
        """So many are gone, without a request of ours: earlier processes used them."""
        self._advance(now)
        self.used = min(float(self.size), self.used + tokens)

    def empty(self, now: float) -> None:
        """The service says that none is left."""
        self._advance(now)
        self.used, self.emptied_at = float(self.size), now

    def _advance(self, now: float) -> None:
        """Rules 1 and 2."""
        self.used = max(float(self.in_flight), self.used - (now - self.at) / self.refill_seconds)
        self.at = now


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request on record: when it went out (seconds since 1970), what it was, and the status (0: none came)."""

    at: float
    kind: str
    status: int


@dataclass(frozen=True, slots=True)
class RequestHistory:
    """What earlier runs left on record.

    Attributes:
        sent: Their requests, the oldest first.
        complete: Whether these are all there ever were.
        all_counted_since: When it was learned that every request counts, in seconds since 1970; None: it never was.
    """

    sent: tuple[SentRequest, ...] = ()
    complete: bool = True
    all_counted_since: float | None = None

    @property
    def has_answer(self) -> bool:
        """Whether the service ever answered, as far as is known."""
        return not self.complete or any(one.status for one in self.sent)

    @property
    def has_success(self) -> bool:
        """Whether the service ever did what was asked, as far as is known."""
        return not self.complete or any(200 <= one.status < 300 for one in self.sent)

    @classmethod
    def read(
        cls, sent: Iterable[SentRequest], *, first_at: float | None, all_counted_since: str | None, now: float
    ) -> Self:
        """The history from what the ledger holds.

        Args:
            sent: The requests of the last `HISTORY_SECONDS`.
            first_at: When the first request ever was sent; None: there was none.
            all_counted_since: As it was remembered, in text.
            now: In seconds since 1970.
        """
        complete = first_at is None or first_at >= now - HISTORY_SECONDS
        return cls(tuple(sent), complete, float(all_counted_since) if all_counted_since else None)

    def tokens_used(self, quota: Quota, scope: BudgetScope, *, now: float) -> float:
        """How many tokens of the bucket are in use now, where `scope` says which requests count."""
        return tokens_used(
            (request for request in self.sent if counts(scope, request.kind)),
            now=now,
            burst=quota.burst,
            requests_per_minute=quota.requests_per_minute,
            oldest_known=self.complete,
        )


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
