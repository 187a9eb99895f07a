"""What a schedule is compared with: a clairvoyant schedule, which knows every duration, and bounds that none can beat.

The clairvoyant has the same bucket, the same limit on running operations and the same calls. It knows when each
operation is done, but must still spend a poll on it. Results calls go first, then creates. It polls only when no
operation found to be done waits for its results call and no create is possible.

It polls when enough operations are done: its `PollThresholds` are one number while creates are left, another for the
end, and whether it polls for fewer when the bucket would overflow. Many thresholds are tried for each case, and the
best result counts, so that the comparison is with a strong schedule. It pays nothing for finding its operations on the
list: every page shows it a hundred of its own.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asyncexport.core.forecast import ALL_WITH_LIST, ALL_WITHOUT_LIST, CREATES_ONLY, seconds_for
from asyncexport.core.polling import LIST_SIZE
from asyncexport.simulate.run import Scenario
from asyncexport.simulate.service import LATENCY_SECONDS


@dataclass(frozen=True, slots=True)
class PollThresholds:
    """Number of finished operations that are worth a poll: while creates are left, and at the end.

    `may_overflow`: whether the bucket may overflow before that number is reached.
    """

    before: int
    after: int
    may_overflow: bool

    @classmethod
    def all(cls) -> "Iterator[PollThresholds]":
        """Return the thresholds to try if a poll finds many operations and costs a token."""
        for before in (1, 12, 25, 50, 75, 100):
            for after in (1, 4, 100):
                yield cls(before, after, may_overflow=True)
                yield cls(before, after, may_overflow=False)


ALWAYS = PollThresholds(1, 1, may_overflow=True)


def token_bound_seconds(scenario: Scenario) -> float:
    """Return when the bucket allows the last counted request, no matter how good the schedule is."""
    reading = CREATES_ONLY
    if scenario.counts_all:
        reading = ALL_WITH_LIST if scenario.lists else ALL_WITHOUT_LIST
    return seconds_for(
        reading.requests(scenario.bundles),
        tokens=scenario.burst - scenario.tokens_used,
        requests_per_minute=scenario.requests_per_minute,
    )


def added_token_seconds(scenario: Scenario, bundles: int) -> float:
    """Return how much later the bucket allows the last counted request if the run has this many bundles instead."""
    return token_bound_seconds(replace(scenario, bundles=bundles)) - token_bound_seconds(scenario)


def bound_seconds(scenario: Scenario) -> float:
    """Return a makespan that no schedule can beat.

    It is set by the tokens, and by each operation's duration after the earliest time at which it can be created.
    """
    at_once = scenario.burst - scenario.tokens_used
    refill_seconds = scenario.allowance.refill_seconds
    last = max(
        max(0, number + 1 - at_once) * refill_seconds + seconds for number, seconds in enumerate(_durations(scenario))
    )
    return max(token_bound_seconds(scenario), last)


def clairvoyant_seconds(scenario: Scenario) -> float:
    """Return the makespan of the best clairvoyant schedule."""
    takes = _durations(scenario)
    tried = PollThresholds.all() if scenario.counts_all and scenario.lists else iter((ALWAYS,))
    return min(_Schedule(scenario, takes, thresholds).makespan() for thresholds in tried)


def _durations(scenario: Scenario) -> list[float]:
    """Draw the durations as the simulated service does: one at each create."""
    take_seconds = scenario.behaviour.take_seconds
    return [take_seconds() for _ in range(scenario.bundles)]


class _Schedule:
    """One clairvoyant schedule, event by event."""

    def __init__(self, scenario: Scenario, takes: list[float], thresholds: PollThresholds) -> None:
        self._scenario = scenario
        self._takes = takes
        self._thresholds = thresholds
        self._now = 0.0
        self._level = float(scenario.burst - scenario.tokens_used)
        self._level_at = 0.0
        self._per_second = scenario.requests_per_minute / 60
        self._created = 0
        self._running: list[float] = []
        self._done = 0
        self._found = 0
        self._located = 0

    def makespan(self) -> float:
        """Return when the last archive is stored."""
        last = 0.0
        while self._located < len(self._takes):
            self._note_done()
            if self._found:
                self._pay()
                self._found -= 1
                self._located += 1
                last = self._now
            elif self._may_create():
                self._create()
            elif self._is_poll_due():
                self._poll()
            else:
                self._now = min(self._running[0], self._overflows_at() if self._done else math.inf)
        return last + 2 * LATENCY_SECONDS + self._scenario.fetch_seconds

    def _note_done(self) -> None:
        while self._running and self._running[0] <= self._now:
            heapq.heappop(self._running)
            self._done += 1

    def _may_create(self) -> bool:
        room = self._scenario.operations - len(self._running) - self._done
        if self._created == len(self._takes) or room <= 0:
            return False
        # If only creates count, polls are free and are sent while the next create waits for its token.
        return self._scenario.counts_all or not self._done

    def _create(self) -> None:
        if not self._scenario.counts_all and self._running and self._running[0] < self._token_at():
            self._now = self._running[0]
            return
        self._now = self._token_at()
        self._take()
        heapq.heappush(self._running, self._now + LATENCY_SECONDS + self._takes[self._created])
        self._created += 1

    def _is_poll_due(self) -> bool:
        if not self._done:
            return False
        more = self._created < len(self._takes)
        enough = self._thresholds.before if more else self._thresholds.after
        return self._done >= enough or not self._running or self._now >= self._overflows_at()

    def _poll(self) -> None:
        """Spend the tokens of a poll: the list finds all operations that are done, a single poll finds one."""
        if not self._scenario.counts_all:
            self._found, self._done = self._done, 0
            return
        for _ in range(math.ceil((self._done + len(self._running)) / LIST_SIZE) if self._scenario.lists else 1):
            self._pay()
        self._note_done()
        found = self._done if self._scenario.lists else 1
        self._found, self._done = found, self._done - found

    def _pay(self) -> None:
        if self._scenario.counts_all:
            self._now = self._token_at()
            self._take()

    def _token_at(self) -> float:
        """Return when the next token is available."""
        level = self._level_now()
        return self._now if level >= 1 else self._now + (1 - level) / self._per_second

    def _overflows_at(self) -> float:
        """Return when the bucket is full; infinite if that is no reason to poll."""
        if self._thresholds.may_overflow or not self._scenario.counts_all:
            return math.inf
        return self._now + max(0.0, self._scenario.burst - 0.01 - self._level_now()) / self._per_second

    def _level_now(self) -> float:
        return min(float(self._scenario.burst), self._level + (self._now - self._level_at) * self._per_second)

    def _take(self) -> None:
        self._level, self._level_at = self._level_now() - 1, self._now
