"""Learns how long the service's operations take, so that a poll is sent when it is expected to pay.

1. Durations are assumed to be lognormal: their logarithms have a mean and a spread. The service documents nothing about
   them (API reference, section 4), and only the timing of polls depends on this assumption.
2. The duration of a finished operation is known exactly from its `createdAt` and `finishedAt`, however late it was
   polled.
3. An operation that is still running gives a lower bound. It enters with the duration expected on average, given that
   bound. Without that, the first operations to finish would make all look quick.
4. Before anything is known, `[polling] expected` is used, with the weight of a few operations and a wide spread.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import NormalDist, median

MEMORY = 400
"""Finished operations that are remembered: enough for the spread, few enough to follow changes of the service."""

PRIOR_WEIGHT = 0.5
"""The initial guess weighs as much as this many operations: little, since it may be off by a factor of ten."""

PRIOR_SPREAD = 0.8
"""Spread of the logarithms in the initial guess: two thirds lie between 0.45 and 2.2 times the guess."""

SPREAD_WEIGHT = 4.0
"""The initial guess of the spread weighs as much as this many operations."""

LEAST_SPREAD = 0.1
"""The spread is never smaller: what took the same time twice may take longer the third time."""

CERTAIN = 1.0 - 1e-9
"""A probability above this is outside all that was ever seen."""

ROUNDS = 4
"""How often the running operations are weighed in again; the estimate converges after a few rounds."""

_STANDARD = NormalDist()


class Durations:
    """The mean and the spread of log-durations, in log-seconds.

    Attributes:
        mean, spread: The current estimates.
        learned: How many durations were learned since this object was made.
        estimates: How often the estimates were made.
    """

    def __init__(self, *, expected_seconds: float, known: Iterable[float] = ()) -> None:
        """`known`: the durations of operations of earlier runs, in seconds, oldest first."""
        self._guess = math.log(expected_seconds)
        self._logs: deque[float] = deque((math.log(max(s, 0.001)) for s in known), maxlen=MEMORY)
        self.mean = self._guess
        self.spread = PRIOR_SPREAD
        self.learned = 0
        self.estimates = 0
        self.refit(())

    @property
    def known(self) -> int:
        """The number of finished operations that the estimate is based on."""
        return len(self._logs)

    @property
    def median_seconds(self) -> float:
        """The median duration."""
        return math.exp(self.mean)

    def learn(self, seconds: float) -> None:
        """Add the duration of one operation; `refit` makes it count."""
        self._logs.append(math.log(max(seconds, 0.001)))
        self.learned += 1

    def recent_median(self, count: int) -> float:
        """Return the median of the last `count` durations learned, in seconds."""
        return math.exp(median(list(self._logs)[-count:]))

    def refit(self, running_ages: Sequence[float]) -> None:
        """Estimate again, from finished operations and from the ages at which others were seen running, in seconds."""
        exact, squares = math.fsum(self._logs), math.fsum(x * x for x in self._logs)
        floors = [math.log(max(age, 0.001)) for age in running_ages]
        count = len(self._logs) + len(floors)
        for _ in range(ROUNDS if floors else 1):
            total, total_squares = exact, squares
            for floor in floors:
                mean, square = _beyond(floor, self.mean, self.spread)
                total += mean
                total_squares += square
            self._estimate(count, total, total_squares)
        self.estimates += 1

    def done_by(self, age_seconds: float) -> float:
        """Return the share of operations that take no longer than this."""
        if age_seconds <= 0:
            return 0.0
        return _normal((math.log(age_seconds) - self.mean) / self.spread)

    def done_since(self, seen_running_seconds: float, age_seconds: float) -> float:
        """Return the probability that an operation seen running at one age is done at a later one."""
        before = self.done_by(seen_running_seconds)
        if before >= CERTAIN:
            # Outside all that was ever seen: even odds that it is done when its age has doubled.
            return 1.0 - seen_running_seconds / max(age_seconds, seen_running_seconds, 1e-9)
        return max(0.0, (self.done_by(age_seconds) - before) / (1.0 - before))

    def expected_done(self, running: Iterable[tuple[float, float]]) -> float:
        """Return the expected number of operations that are done: the sum of their probabilities.

        `running`: for each operation its age now, and the age at which it was last seen running. The formulas are
        inlined, since this is computed for a hundred operations many times a minute.
        """
        log, erf, mean = math.log, math.erf, self.mean
        scale = self.spread * math.sqrt(2)
        done = 0.0
        for age, seen in running:
            if age <= 0:
                continue
            by_now = 0.5 + 0.5 * erf((log(age) - mean) / scale)
            before = 0.5 + 0.5 * erf((log(seen) - mean) / scale) if seen > 0 else 0.0
            done += max(0.0, by_now - before) / (1.0 - before) if before < CERTAIN else self.done_since(seen, age)
        return done

    def due_age_seconds(self, seen_running_seconds: float, chance: float) -> float:
        """Return the age at which an operation seen running is done with this probability."""
        before = self.done_by(seen_running_seconds)
        share = before + chance * (1.0 - before)
        if share >= CERTAIN:
            return seen_running_seconds / (1.0 - chance)
        return max(self.quantile_seconds(share), seen_running_seconds)

    def remaining_seconds(self, ages: Sequence[float], *, chance: float = 0.5) -> float:
        """Return how long until all operations of these ages are done, with this probability."""
        of_each = chance ** (1 / max(len(ages), 1))
        return max((self.due_age_seconds(age, of_each) - age for age in ages), default=0.0)

    def quantile_seconds(self, share: float) -> float:
        """Return the duration that this share of operations does not exceed."""
        return math.exp(self.mean + self.spread * _STANDARD.inv_cdf(share))

    def _estimate(self, count: int, total: float, total_squares: float) -> None:
        """Update a normal distribution's mean and variance, both unknown, from a weak guess of each."""
        average = total / count if count else self._guess
        scatter = max(0.0, total_squares - count * average * average)
        pull = PRIOR_WEIGHT * count / (PRIOR_WEIGHT + count) * (average - self._guess) ** 2
        variance = (SPREAD_WEIGHT * PRIOR_SPREAD**2 + scatter + pull) / (SPREAD_WEIGHT + count)
        self.mean = (total + PRIOR_WEIGHT * self._guess) / (count + PRIOR_WEIGHT)
        self.spread = max(LEAST_SPREAD, math.sqrt(variance))


def _normal(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2)))


def _beyond(floor: float, mean: float, spread: float) -> tuple[float, float]:
    """Return the mean and the mean square of a normal value, given that it exceeds `floor`."""
    z = (floor - mean) / spread
    tail = 1.0 - _normal(z)
    if tail < 1e-9:
        # So far out that the tail is nearly a point, just above the floor.
        value = floor + spread / max(z, 1.0)
        return value, value * value
    hazard = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / tail
    first = mean + spread * hazard
    variance = spread * spread * max(0.0, 1 + z * hazard - hazard * hazard)
    return first, variance + first * first
