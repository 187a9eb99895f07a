"""What a change of the configuration buys: the same backfill, simulated as configured and with one key changed.

1. Each variant changes one key; several keys are each varied on their own.
2. All variants meet the same fate: the durations of a seed are drawn once, and the n-th operation takes as long in one
   variant as in another, but for what its width adds.
3. How long operations take is not varied along with what a run expects of them: it belongs to the service.
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
"""So many durations that were learned say more than a curve."""

PRESENT = "as configured"


@dataclass(frozen=True, slots=True)
class Variant:
    """The settings, or the settings with one key changed; `name` says which."""

    name: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Assumed:
    """What is taken for granted of the service; durations in seconds.

    Attributes:
        learned: What operations took that a run has seen.
        median_seconds, sigma: What they take where too few are learned; lognormal.
        given: Whether these were asked for, and hold whatever is learned.
        growth: A bundle of k times the present width takes k to this power as long.
        seeds: How often each variant is simulated.
        second_looks: The share of files that take a second look.
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
        """Whether durations are drawn from what was learned, as it is."""
        return not self.given and len(self.learned) >= ENOUGH


@dataclass(frozen=True, slots=True)
class ExportShare:
    """The bundles of one export.

    Attributes:
        bundles: How many are to do.
        widening: By what their width is that of the present configuration.
        fetch_seconds: What the download of one takes in the present configuration; rows add up, so that it grows with
            the width.
    """

    bundles: int
    widening: float = 1.0
    fetch_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Case:
    """A variant under one reading of the limit.

    Attributes:
        variant: Which.
        counts: What the limit counts.
        parts: What is to do.
        tokens_used: Of the bucket, at the start.
        claimed: How many of the bundles have an operation already; they are simulated as if they had none.
    """

    variant: Variant
    counts: BudgetScope
    parts: tuple[ExportShare, ...]
    tokens_used: int = 0
    in_progress: int = 0

    @property
    def bundles(self) -> int:
        """How many are to do."""
        return sum(part.bundles for part in self.parts)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a case: medians over the seeds, and between what the end lay; seconds from the start."""

    variant: str
    counts: BudgetScope
    bundles: int
    makespan: float
    makespan_min: float
    makespan_max: float
    first_archive: float
    requests: dict[str, int]


def variants(settings: Settings, vary: Sequence[tuple[str, Sequence[str]]]) -> list[Variant]:
    """The settings as they are, then with each value of each key.

    Raises:
        ConfigError: with all that is wrong with the keys and values.
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
    """What the limit may count, as far as the settings know."""
    scope = settings.budget.scope
    return (BudgetScope.CREATE, BudgetScope.ALL) if scope is BudgetScope.AUTO else (scope,)


def forecast(
    cases: Sequence[Case], assumed: Assumed, *, run: Callable[[Sequence[Scenario]], list[Result]] = simulate_all
) -> list[Row]:
    """What comes of each case, in their order; each has something to do."""
    scenarios = [_scenario(case, assumed, seed) for case in cases for seed in range(1, assumed.seeds + 1)]
    results = run(scenarios)
    return [_row(case, results[at * assumed.seeds : (at + 1) * assumed.seeds]) for at, case in enumerate(cases)]


def _scenario(case: Case, assumed: Assumed, seed: int) -> Scenario:
    settings = case.variant.settings
    return Scenario(
        bundles=case.bundles,
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
    """What each operation takes (rule 2); those of several exports are mixed."""
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
