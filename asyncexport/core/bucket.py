"""The token bucket that requests are paid from: its level now, and what earlier runs left in it.

1. A bucket holds `size` tokens, and one comes back every `refill_seconds`. A request takes one.
2. Our count must never be higher than the service's, which may count a request at any time between its sending and its
   answer. So a token starts to come back only once its request is answered: there is always one in use for each request
   in flight.
3. The next process derives the level from the recorded requests. If the record does not reach back far enough, the
   bucket is taken as empty: waiting costs minutes, a 429 costs more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from asyncexport.core.admission import BudgetScope, Quota, counts

HISTORY_SECONDS = 2 * 86_400.0
"""How far back requests are read to compute the level: long enough for any bucket that has idle periods."""

TOO_LITTLE = 1e-9
"""Precision, in tokens, of the computed level: what rounding may leave."""


@dataclass(slots=True)
class Bucket:
    """A token bucket, with some of its requests in flight.

    Each method takes the time (`now`, in seconds on any clock that does not go back) and brings the level up to date.

    Attributes:
        size: Tokens in a full bucket.
        refill_seconds: Seconds until one token has come back.
        used: Tokens missing from it, at the time `at`.
        at: When the level was last brought up to date.
        in_flight: Requests sent but not answered.
        emptied_at: When a 429 last showed that it was empty.
    """

    size: int
    refill_seconds: float
    used: float = 0.0
    at: float = 0.0
    in_flight: int = 0
    emptied_at: float = -math.inf

    def tokens(self, now: float) -> int:
        """Return the number of tokens that could be taken now."""
        self._advance(now)
        return max(0, math.floor(self.size - self.used + TOO_LITTLE))

    def wait_seconds(self, now: float) -> float:
        """Return the seconds until a token can be taken; infinite while all are in flight."""
        self._advance(now)
        if self.in_flight >= self.size:
            return math.inf
        missing = self.used + 1 - self.size
        return missing * self.refill_seconds if missing > TOO_LITTLE else 0.0

    def is_half_full(self, now: float) -> bool:
        """Whether half of the tokens are left: more than is needed at one time."""
        self._advance(now)
        return self.size - self.used >= max(1.0, self.size / 2)

    def take(self, now: float) -> None:
        """Take a token, for a request that is about to be sent."""
        self._advance(now)
        self.used += 1
        self.in_flight += 1

    def arrived(self, now: float) -> None:
        """Note that a request was answered, or given up: its token comes back from now on."""
        self._advance(now)
        self.in_flight -= 1

    def put_back(self, now: float, *, taken_at: float) -> None:
        """Put back the token of a request that was never sent, unless the bucket was emptied after `taken_at`."""
        self._advance(now)
        self.in_flight -= 1
        if taken_at > self.emptied_at:
            self.used -= 1

    def drop(self, now: float, tokens: float) -> None:
        """Remove tokens that earlier processes used."""
        self._advance(now)
        self.used = min(float(self.size), self.used + tokens)

    def empty(self, now: float) -> None:
        """Note that the service says no token is left."""
        self._advance(now)
        self.used, self.emptied_at = float(self.size), now

    def _advance(self, now: float) -> None:
        """Apply rules 1 and 2."""
        self.used = max(float(self.in_flight), self.used - (now - self.at) / self.refill_seconds)
        self.at = now


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A recorded request: when it was sent (seconds since 1970), its kind, and the status (0 if no answer came)."""

    at: float
    kind: str
    status: int


@dataclass(frozen=True, slots=True)
class RequestHistory:
    """The requests that earlier runs recorded.

    Attributes:
        sent: The requests, oldest first.
        complete: Whether these are all requests ever sent.
        all_counted_since: When it was learned that every request counts, in seconds since 1970. None if it never was.
    """

    sent: tuple[SentRequest, ...] = ()
    complete: bool = True
    all_counted_since: float | None = None

    @property
    def has_answer(self) -> bool:
        """Whether the service has ever answered, as far as is known."""
        return not self.complete or any(one.status for one in self.sent)

    @property
    def has_success(self) -> bool:
        """Whether the service has ever answered with a success, as far as is known."""
        return not self.complete or any(200 <= one.status < 300 for one in self.sent)

    @classmethod
    def read(
        cls, sent: Iterable[SentRequest], *, first_at: float | None, all_counted_since: str | None, now: float
    ) -> Self:
        """Read the history from what the ledger holds.

        Args:
            sent: The requests of the last `HISTORY_SECONDS`.
            first_at: When the first request of all was sent. None if there was none.
            all_counted_since: The remembered time, as text.
            now: The time in seconds since 1970.
        """
        complete = first_at is None or first_at >= now - HISTORY_SECONDS
        return cls(tuple(sent), complete, float(all_counted_since) if all_counted_since else None)

    def tokens_used(self, quota: Quota, scope: BudgetScope, *, now: float) -> float:
        """Return the tokens in use now, if `scope` says which requests count."""
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
    """Return the tokens in use now, from the recorded requests, oldest first.

    `oldest_known` says that `sent` holds all requests ever sent, so that the bucket was full before the first.
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
