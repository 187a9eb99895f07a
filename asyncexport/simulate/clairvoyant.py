"""What a schedule is measured against: one that knows every duration, and the bounds that no schedule can beat.

The clairvoyant has the same bucket, the same cap on running operations and the same calls. It knows when each operation
is done, but must still spend a request to be told. Results go first, then creates; it polls only when no operation
known to be done waits and no create is possible, and where polls cost tokens, only once `patience` operations are done
or nothing else is running. The best of several such patiences is taken, so that nobody wins against a weak one.
"""

import heapq
from dataclasses import dataclass

from asyncexport.core.forecast import ALL_WITH_LIST, ALL_WITHOUT_LIST, CREATES_ONLY, seconds_for
from asyncexport.core.watching import LIST_SIZE
from asyncexport.simulate.run import Scenario
from asyncexport.simulate.service import LATENCY_SECONDS, lognormal_seconds

PATIENCES = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 75, 100)


def bound_seconds(scenario: Scenario) -> float:
    """When the last counted request may go out, from a full bucket, however clever the schedule.

    Where creates alone count, the last operation must run after that, which is left out: it is not known which.
    """
    reading = CREATES_ONLY
    if scenario.counts_all:
        reading = ALL_WITH_LIST if scenario.lists else ALL_WITHOUT_LIST
    return seconds_for(
        reading.requests(scenario.bundles),
        tokens=scenario.burst - scenario.tokens_used,
        requests_per_minute=scenario.requests_per_minute,
    )


def clairvoyant_seconds(scenario: Scenario) -> float:
    """The makespan of the best clairvoyant schedule."""
    polls_cost = scenario.counts_all
    patiences = PATIENCES if polls_cost and scenario.lists else (1,)
    return min(_makespan(scenario, patience) for patience in patiences)


@dataclass(slots=True)
class _Bucket:
    level: float
    burst: float
    per_second: float
    at: float = 0.0

    def ready_at(self, now: float) -> float:
        """When the next token is there."""
        level = min(self.burst, self.level + (now - self.at) * self.per_second)
        return now if level >= 1 else now + (1 - level) / self.per_second

    def take(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.at) * self.per_second) - 1
        self.at = now


def _makespan(scenario: Scenario, patience: int) -> float:
    draw = lognormal_seconds(scenario.median_seconds, scenario.sigma, scenario.seed)
    bucket = _Bucket(scenario.burst - scenario.tokens_used, scenario.burst, scenario.requests_per_minute / 60)
    now, to_create, located, last = 0.0, scenario.bundles, 0, 0.0
    running: list[float] = []
    done = known = 0
    while located < scenario.bundles:
        while running and running[0] <= now:
            heapq.heappop(running)
            done += 1
        if known:
            now = bucket.ready_at(now) if scenario.counts_all else now
            if scenario.counts_all:
                bucket.take(now)
            known -= 1
            located += 1
            last = now
        elif to_create and len(running) + done < scenario.operations:
            at = bucket.ready_at(now)
            if not scenario.counts_all and at > now and (done or (running and running[0] < at)):
                # Polls and results are free here: they are made while the next create waits for its token.
                now = max(now, running[0]) if not done else now
                known, done = _reap(running, now, done)
                continue
            now = at
            bucket.take(now)
            to_create -= 1
            heapq.heappush(running, now + LATENCY_SECONDS + draw())
        elif done and (done >= patience or not running or not scenario.counts_all):
            now, known, done = _poll(scenario, bucket, now, done, len(running))
        else:
            now = running[0]
    return last + 2 * LATENCY_SECONDS + scenario.fetch_seconds


def _reap(running: list[float], now: float, done: int) -> tuple[int, int]:
    """All that are done by now become known, at no cost."""
    while running and running[0] <= now:
        heapq.heappop(running)
        done += 1
    return done, 0


def _poll(scenario: Scenario, bucket: _Bucket, now: float, done: int, running: int) -> tuple[float, int, int]:
    """Spend what it costs to be told: with a list of all that are done, singly of one."""
    if not scenario.counts_all:
        return now, done, 0
    pages = -(-(done + running) // LIST_SIZE) if scenario.lists else 1
    for _ in range(pages):
        now = bucket.ready_at(now)
        bucket.take(now)
    return (now, done, 0) if scenario.lists else (now, 1, done - 1)
