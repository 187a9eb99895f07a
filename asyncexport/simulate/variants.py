"""Compares changed settings with the current configuration: simulates the same backfill with each of them.

1. Each variant changes one key; if several keys are given, each is varied on its own.
2. All variants are simulated with the same durations: they are drawn once per seed, and the n-th operation takes as
   long in one variant as in another, apart from the effect of its width.
3. Varying `polling.expected` does not change how long operations take: that is a property of the service.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from asyncexport.config import Settings, varied
from asyncexport.core.admission import BudgetScope
from asyncexport.errors import ConfigError, Problem
from asyncexport.simulate.many import simulate_all
from asyncexport.simulate.run import Result, Scenario

ENOUGH = 20
"""Number of learned durations from which on they are used instead of a lognormal distribution."""

PRESENT = "as configured"
"""Name of the variant without changes."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The settings, or the settings with one key changed; `name` says which."""

    name: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Assumed:
    """The assumptions about the service; durations are in seconds.

    Attributes:
        learned: Durations of operations that earlier runs have seen.
        median_seconds, sigma: The lognormal distribution used if too few durations are known.
        given: Whether the user set this distribution, so that it is used no matter what was learned.
        growth: A bundle of k times the current width takes k to the power of this as long.
        seeds: Number of simulations of each variant.
        second_looks: Share of files that need a second check.
    """

    learned: tuple[float, ...] = ()
    median_seconds: float = 300.0
    sigma: float = 0.5
    given: bool = False
    growth: float = 0.0
    seeds: int = 5
    second_looks: float = 0.0

    @property
    def resamples(self) -> bool:
        """Whether durations are drawn from the learned ones."""
        return not self.given and len(self.learned) >= ENOUGH


@dataclass(frozen=True, slots=True)
class ExportShare:
    """The bundles of one export.

    Attributes:
        bundles: Number of bundles to export.
        widening: Their width as a multiple of the width in the current configuration.
        fetch_seconds: Duration of one download in the current configuration; it grows in proportion to the width.
    """

    bundles: int
    widening: float = 1.0
    fetch_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Case:
    """A variant under one interpretation of the rate limit.

    Attributes:
        variant: The variant.
        counts: Which calls the limit counts.
        parts: The bundles to export, and those to audit.
        audits: Number of these that are audited when all others are stored.
        tokens_used: Tokens missing from the bucket at the start.
        in_progress: Number of the bundles that already have an operation; they are simulated as if they had none.
    """

    variant: Variant
    counts: BudgetScope
    parts: tuple[ExportShare, ...]
    audits: int = 0
    tokens_used: int = 0
    in_progress: int = 0

    @property
    def bundles(self) -> int:
        """Number of bundles to export or to audit."""
        return sum(part.bundles for part in self.parts)


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a case: medians over the seeds, and the range of makespans; times in seconds from the start."""

    variant: str
    counts: BudgetScope
    bundles: int
    makespan: float
    makespan_min: float
    makespan_max: float
    first_archive: float
    requests: dict[str, int]


def variants(settings: Settings, vary: Sequence[tuple[str, Sequence[str]]]) -> list[Variant]:
    """Return the settings as they are, followed by the settings with each value of each key.

    Raises:
        ConfigError: all problems with the keys and values.
    """
    found = [Variant(PRESENT, settings)]
    problems: list[Problem] = []
    for key, values in vary:
        for value in values:
            try:
                found.append(Variant(f"{key}={value}", varied(settings, key, value, place=f"--vary {key}")))
            except ConfigError as error:
                problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return found


def readings(settings: Settings) -> tuple[BudgetScope, ...]:
    """Return which calls the rate limit may count, as far as the settings say."""
    scope = settings.budget.scope
    return (BudgetScope.CREATE, BudgetScope.ALL) if scope is BudgetScope.AUTO else (scope,)


def forecast(
    cases: Sequence[Case], assumed: Assumed, *, run: Callable[[Sequence[Scenario]], list[Result]] = simulate_all
) -> list[Row]:
    """Simulate the cases and return their results in the same order; each case must have bundles to export."""
    scenarios = [_scenario(case, assumed, seed) for case in cases for seed in range(1, assumed.seeds + 1)]
    results = run(scenarios)
    return [_row(case, results[at * assumed.seeds : (at + 1) * assumed.seeds]) for at, case in enumerate(cases)]


def _scenario(case: Case, assumed: Assumed, seed: int) -> Scenario:
    settings = case.variant.settings
    return Scenario(
        bundles=case.bundles - case.audits,
        audits=case.audits,
        counts_all=case.counts is BudgetScope.ALL,
        prefer=settings.polling.prefer,
        operations=settings.concurrency.operations,
        downloads=settings.concurrency.downloads,
        expected_seconds=settings.polling.expected_seconds,
        min_interval_seconds=settings.polling.min_interval_seconds,
        requests_per_minute=settings.budget.requests_per_minute,
        burst=settings.budget.burst,
        known=assumed.learned,
        fetch_seconds=sum(part.bundles * part.fetch_seconds * part.widening for part in case.parts) / case.bundles,
        tokens_used=case.tokens_used,
        seed=seed,
        durations=_durations(case.parts, assumed, seed),
        second_looks=assumed.second_looks,
        second_look_seconds=settings.download.second_look_seconds,
    )


def _durations(parts: Sequence[ExportShare], assumed: Assumed, seed: int) -> tuple[float, ...]:
    """Draw the duration of each operation (rule 2); the operations of several exports are mixed."""
    draw = random.Random(seed)
    drawn = []
    for part in parts:
        longer = part.widening**assumed.growth
        for _ in range(part.bundles):
            if assumed.resamples:
                seconds = draw.choice(assumed.learned)
            else:
                seconds = assumed.median_seconds * draw.lognormvariate(0.0, assumed.sigma)
            drawn.append(seconds * longer)
    if len(parts) > 1:
        draw.shuffle(drawn)
    return tuple(drawn)


def _row(case: Case, results: Sequence[Result]) -> Row:
    makespans = [one.makespan for one in results]
    return Row(
        variant=case.variant.name,
        counts=case.counts,
        bundles=case.bundles,
        makespan=median(makespans),
        makespan_min=min(makespans),
        makespan_max=max(makespans),
        first_archive=median(one.first_archive for one in results),
        requests={kind: median_low(one.requests[kind] for one in results) for kind in results[0].requests},
    )
