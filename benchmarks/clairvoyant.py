"""What a schedule is measured against: one that knows every duration, and the bounds that no schedule can beat.

The clairvoyant has the same bucket, the same room for running operations and the same calls. It knows when each
operation is done, but must still spend a request to be told. Results go first, then creates; it polls only when no
operation known to be done waits and no create is possible.

How many it lets gather before it polls is its `Patience`: one number while there is something left to create, another
for the end, and whether it polls for fewer when the bucket would run over. The best of all those tried is taken, with
hindsight and for each case anew, so that nobody wins against a weak one. It pays nothing for finding its operations on
the list: every page shows it a hundred of those that matter.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from asyncexport.core.forecast import ALL_WITH_LIST, ALL_WITHOUT_LIST, CREATES_ONLY, seconds_for
from asyncexport.core.polling import LIST_SIZE
from asyncexport.simulate.run import Scenario
from asyncexport.simulate.service import LATENCY_SECONDS


@dataclass(frozen=True, slots=True)
class Patience:
    """How many operations gather before a poll: while there is more to create, and at the end."""

    before: int
    after: int
    lets_run_over: bool

    @classmethod
    def all(cls) -> "Iterator[Patience]":
        """Those that are tried, where a poll tells of many and costs a token."""
        for before in (1, 12, 25, 50, 75, 100):
            for after in (1, 4, 100):
                yield cls(before, after, lets_run_over=True)
                yield cls(before, after, lets_run_over=False)


IMPATIENT = Patience(1, 1, lets_run_over=True)


def token_bound_seconds(scenario: Scenario) -> float:
    """When the last counted request may go out, from a full bucket, however clever the schedule."""
    reading = CREATES_ONLY
    if scenario.counts_all:
        reading = ALL_WITH_LIST if scenario.lists else ALL_WITHOUT_LIST
    return seconds_for(
        reading.requests(scenario.bundles),
        tokens=scenario.burst - scenario.tokens_used,
        requests_per_minute=scenario.requests_per_minute,
    )


def bound_seconds(scenario: Scenario) -> float:
    """What no schedule can beat: the tokens, and every operation's own time after the soonest it can be asked for."""
    at_once = scenario.burst - scenario.tokens_used
    refill_seconds = scenario.allowance.refill_seconds
    last = max(
        max(0, number + 1 - at_once) * refill_seconds + seconds for number, seconds in enumerate(_durations(scenario))
    )
    return max(token_bound_seconds(scenario), last)


def clairvoyant_seconds(scenario: Scenario) -> float:
    """The makespan of the best clairvoyant schedule."""
    takes = _durations(scenario)
    patiences = Patience.all() if scenario.counts_all and scenario.lists else iter((IMPATIENT,))
    return min(_Schedule(scenario, takes, patience).makespan() for patience in patiences)


def _durations(scenario: Scenario) -> list[float]:
    """As the simulated service draws them: one at each create."""
    take_seconds = scenario.behaviour.take_seconds
    return [take_seconds() for _ in range(scenario.bundles)]


class _Schedule:
    """One clairvoyant schedule, event by event."""

    def __init__(self, scenario: Scenario, takes: list[float], patience: Patience) -> None:
        self._scenario = scenario
        self._takes = takes
        self._patience = patience
        self._now = 0.0
        self._level = float(scenario.burst - scenario.tokens_used)
        self._level_at = 0.0
        self._per_second = scenario.requests_per_minute / 60
        self._created = 0
        self._running: list[float] = []
        self._done = 0
        self._known = 0
        self._located = 0

    def makespan(self) -> float:
        """When the last archive is there."""
        last = 0.0
        while self._located < len(self._takes):
            self._reap()
            if self._known:
                self._pay()
                self._known -= 1
                self._located += 1
                last = self._now
            elif self._may_create():
                self._create()
            elif self._is_poll_due():
                self._poll()
            else:
                self._now = min(self._running[0], self._runs_over_at() if self._done else math.inf)
        return last + 2 * LATENCY_SECONDS + self._scenario.fetch_seconds

    def _reap(self) -> None:
        while self._running and self._running[0] <= self._now:
            heapq.heappop(self._running)
            self._done += 1

    def _may_create(self) -> bool:
        room = self._scenario.operations - len(self._running) - self._done
        if self._created == len(self._takes) or room <= 0:
            return False
        # Polls are free where creates alone count: they are made while the next create waits for its token.
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
        enough = self._patience.before if more else self._patience.after
        return self._done >= enough or not self._running or self._now >= self._runs_over_at()

    def _poll(self) -> None:
        """Spend what it costs to be told: with a list of all that are done, singly of one."""
        if not self._scenario.counts_all:
            self._known, self._done = self._done, 0
            return
        for _ in range(math.ceil((self._done + len(self._running)) / LIST_SIZE) if self._scenario.lists else 1):
            self._pay()
        self._reap()
        told = self._done if self._scenario.lists else 1
        self._known, self._done = told, self._done - told

    def _pay(self) -> None:
        if self._scenario.counts_all:
            self._now = self._token_at()
            self._take()

    def _token_at(self) -> float:
        """When the next token is there."""
        level = self._level_now()
        return self._now if level >= 1 else self._now + (1 - level) / self._per_second

    def _runs_over_at(self) -> float:
        """When the bucket is full; never, where that is no reason to poll."""
        if self._patience.lets_run_over or not self._scenario.counts_all:
            return math.inf
        return self._now + max(0.0, self._scenario.burst - 0.01 - self._level_now()) / self._per_second

    def _level_now(self) -> float:
        return min(float(self._scenario.burst), self._level + (self._now - self._level_at) * self._per_second)

    def _take(self) -> None:
        self._level, self._level_at = self._level_now() - 1, self._now
