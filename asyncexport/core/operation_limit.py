"""Decides how many operations to have in flight at the service.

1. As many as finish while the next ones are created. More would only make finished exports wait, and at worst expire;
   fewer would leave tokens unused. Never fewer than the burst, which would be wasted at the start, and never more than
   `[concurrency] operations`.
2. If polls cost tokens and throughput is preferred, `MOST_UNFOUND` are added for operations that are done but not yet
   found (`core.polling`).
3. A service that runs a few operations and queues the rest makes every operation look long, and longer the more there
   are. Raising the limit because operations look long makes them look longer still, without end. So above `FIRST_LIMIT`
   the limit is raised step by step, and a step that made operations slower is taken back: a higher limit gained
   nothing.
"""

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations

MOST_UNFOUND = 50
"""Operations that may be done and not yet found. With twice as many a poll would find more, saving a hundredth of a
request for each, but it would take half an hour longer until the first file arrives."""

FIRST_LIMIT = 100
"""The limit that any service is trusted with: a queue of an hour or two, if it runs only a handful at a time."""

STEP = 2
"""The most by which one step raises the limit."""

ENOUGH_SEEN = 20
"""Operations that must have finished before the first step."""

SLOWER = 1.4
"""Operations that take this much longer after a step are queued: a step that doubles the limit doubles the durations if
they queue, and leaves them as they are if not."""


class OperationLimit:
    """Decides how many operations may be in flight.

    Args:
        cap: `[concurrency] operations`.
        burst: `[budget] burst`.
        requests_per_minute: `[budget] requests_per_minute`.
        prefer: `[polling] prefer`.
    """

    def __init__(self, *, cap: int, burst: int, requests_per_minute: float, prefer: Prefer) -> None:
        self._cap = cap
        self._burst = burst
        self._requests_per_minute = requests_per_minute
        self._prefer = prefer
        self._limit = self._narrow = max(burst, FIRST_LIMIT)
        self._median: float | None = None
        self._learned = 0

    def allowed(self, durations: Durations, *, polls_cost: bool) -> int:
        """Return the limit, given what is known about durations now."""
        wanted = max(self._burst, self._wanted(durations, polls_cost=polls_cost))
        if self._limit < min(wanted, self._cap):
            self._step(wanted, durations)
        return max(1, min(self._cap, wanted, self._limit))

    def _wanted(self, durations: Durations, *, polls_cost: bool) -> int:
        """Apply rules 1 and 2. Every bundle takes a create, and if all calls count, a results call as well."""
        creates_per_minute = self._requests_per_minute / (2 if polls_cost else 1)
        wanted = durations.quantile_seconds(0.99) / 60 * creates_per_minute + 1
        if polls_cost and self._prefer is Prefer.THROUGHPUT:
            wanted += MOST_UNFOUND
        return int(min(wanted, 1e9))

    def _step(self, wanted: int, durations: Durations) -> None:
        """Apply rule 3: a step is judged once as many operations have finished as the limit allows."""
        seen = durations.learned - self._learned
        if seen < (ENOUGH_SEEN if self._median is None else self._limit):
            return
        median = durations.recent_median(seen)
        if self._median is not None and median > SLOWER * self._median:
            self._limit, self._median = self._narrow, None
        else:
            self._narrow, self._limit, self._median = self._limit, min(wanted, STEP * self._limit), median
        self._learned = durations.learned
