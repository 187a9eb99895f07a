"""How many operations to have running at the service.

1. As many as finish while the next are created. More would only make finished exports wait, and at worst expire; fewer
   would leave tokens unused. Never fewer than the burst, which would be wasted at the start, and never more than
   `[concurrency] operations`.
2. Where polls cost and throughput is preferred, `CATCH` are added: what is done and not yet found (`core.polling`).
3. A service that runs few at once and queues the rest makes every operation look long, the longer the more there are.
   Whoever makes room for what looks long makes it look longer still, without end. So beyond `PLENTY` the room is
   widened step by step, and a step that made operations slower is taken back: more at once brought nothing.
"""

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations

CATCH = 50
"""So many operations that may be done and not yet found: with twice as many a poll would find more, a hundredth of a
request for each, but half an hour more would pass until the first file comes."""

PLENTY = 100
"""What a service is trusted with at once: a lead of an hour or two, where it runs a handful and queues the rest."""

STEP = 2
"""A step widens the room by this factor at the most."""

ENOUGH_SEEN = 20
"""So many must have finished before the first step."""

SLOWER = 1.4
"""A step that doubles the room doubles what operations take where they queue, and leaves it where they do not."""


class OperationLimit:
    """How many operations may be running.

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
        self._limit = self._narrow = max(burst, PLENTY)
        self._median: float | None = None
        self._learned = 0

    def allowed(self, durations: Durations, *, polls_cost: bool) -> int:
        """How many, by what is known of durations now."""
        wanted = max(self._burst, self._wanted(durations, polls_cost=polls_cost))
        if self._limit < min(wanted, self._cap):
            self._step(wanted, durations)
        return max(1, min(self._cap, wanted, self._limit))

    def _wanted(self, durations: Durations, *, polls_cost: bool) -> int:
        """Rules 1 and 2; every bundle takes a create, and where all calls count, a results call as well."""
        creates_per_minute = self._requests_per_minute / (2 if polls_cost else 1)
        wanted = durations.quantile_seconds(0.99) / 60 * creates_per_minute + 1
        if polls_cost and self._prefer is Prefer.THROUGHPUT:
            wanted += CATCH
        return int(min(wanted, 1e9))

    def _step(self, wanted: int, durations: Durations) -> None:
        """Rule 3: a step is judged once as many have finished as the room holds."""
        seen = durations.learned - self._learned
        if seen < (ENOUGH_SEEN if self._median is None else self._limit):
            return
        median = durations.recent_median(seen)
        if self._median is not None and median > SLOWER * self._median:
            self._limit, self._median = self._narrow, None
        else:
            self._narrow, self._limit, self._median = self._limit, min(wanted, STEP * self._limit), median
        self._learned = durations.learned
