"""The effect of configuration changes, simulated on a virtual clock."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope, Prefer
from asyncexport.errors import ConfigError
from asyncexport.simulate.many import simulate_all
from asyncexport.simulate.run import Result, Scenario
from asyncexport.simulate.variants import (
    ENOUGH,
    PRESENT,
    Assumed,
    Case,
    ExportShare,
    Row,
    Variant,
    forecast,
    readings,
    variants,
)

DEFAULT = Settings.from_layers({})

PRESENTLY = Variant(PRESENT, DEFAULT)


def problems(*vary: tuple[str, Sequence[str]], settings: Settings = DEFAULT) -> list[str]:
    """Return the faults reported for these variants."""
    with pytest.raises(ConfigError) as caught:
        variants(settings, vary)
    return [str(problem) for problem in caught.value.problems]


def only(*vary: tuple[str, Sequence[str]], settings: Settings = DEFAULT) -> list[Settings]:
    """Return the settings of the variants, without the unchanged configuration."""
    return [variant.settings for variant in variants(settings, vary)[1:]]


def simulated(case: Case, assumed: Assumed) -> list[Scenario]:
    """Return the scenarios that would be simulated for a case."""
    taken: list[Scenario] = []

    def run(scenarios: Sequence[Scenario]) -> list[Result]:
        taken.extend(scenarios)
        return [Result(1, 1, 2.0, 1.0, 0.0, 1, {"create": 1}, 0) for _ in scenarios]

    forecast([case], assumed, run=run)
    return taken


def here(scenarios: Sequence[Scenario]) -> list[Result]:
    """Simulate in this process."""
    return simulate_all(scenarios, processes=1)


def row(case: Case, assumed: Assumed) -> Row:
    """Return the row of one case."""
    (found,) = forecast([case], assumed, run=here)
    return found


# The variants


def test_each_key_is_varied_separately():
    """Two values of one key and one of another give three variants besides the configuration, not combinations."""
    found = variants(DEFAULT, [("bundle", ("1h", "6h")), ("concurrency.operations", ("20",))])
    assert [one.name for one in found] == [PRESENT, "bundle=1h", "bundle=6h", "concurrency.operations=20"]
    assert found[0].settings is DEFAULT
    assert [(one.settings.exports[0].bundle_seconds, one.settings.concurrency.operations) for one in found] == [
        (1800, 100),
        (3600, 100),
        (21_600, 100),
        (1800, 20),
    ]


@pytest.mark.parametrize(
    ("key", "value", "table", "field", "expected"),
    [
        ("concurrency.operations", "20", "concurrency", "operations", 20),
        ("concurrency.downloads", "8", "concurrency", "downloads", 8),
        ("polling.prefer", "latency", "polling", "prefer", Prefer.LATENCY),
        ("polling.min_interval", "1m", "polling", "min_interval_seconds", 60.0),
        ("polling.expected", "1h30m", "polling", "expected_seconds", 5400.0),
        ("budget.requests_per_minute", "2.5", "budget", "requests_per_minute", 2.5),
        ("budget.burst", "10", "budget", "burst", 10),
        ("budget.scope", "all", "budget", "scope", BudgetScope.ALL),
    ],
)
def test_a_variant_differs_only_in_its_key(key, value, table, field, expected):
    """All other keys, including those of the same table, stay as configured."""
    present = Settings.from_layers(
        {
            "concurrency": {"operations": 7, "downloads": 3},
            "polling": {"min_interval": "1500ms", "expected": "2m", "operation_deadline": "5h"},
            "budget": {"requests_per_minute": 0.7, "burst": 9, "scope": "create"},
        }
    )
    (found,) = only((key, [value]), settings=present)
    assert getattr(getattr(found, table), field) == expected
    changed = getattr(present, table).model_copy(update={field: expected})
    assert found == present.model_copy(update={table: changed})


def test_a_width_applies_to_all_event_exports_but_not_to_individuals():
    """A varied width, under either name of the key, applies to all exports of events; individuals keep a day."""
    present = Settings.from_layers(
        {"export": [{"name": "a"}, {"name": "b", "bundle": "6h"}, {"name": "c", "type": "individual"}]}
    )
    for key in ("bundle", "export.bundle"):
        (found,) = only((key, ["1h"]), settings=present)
        assert [one.bundle_seconds for one in found.exports] == [3600, 3600, 86_400]


def test_an_unknown_key_is_reported_with_suggestions():
    """The fault for an unknown key contains the nearest key and all valid ones."""
    (message,) = problems(("concurrency.operation", ["1"]))
    assert message.startswith("--vary concurrency.operation: 'concurrency.operation' cannot be varied")
    assert "(did you mean concurrency.operations?)" in message
    assert message.endswith("polling.expected, budget.requests_per_minute, budget.burst, budget.scope")


@pytest.mark.parametrize("key", ["api.base_url", "output.directory", "export.budget.burst", "export", ""])
def test_keys_that_do_not_affect_the_pace_cannot_be_varied(key):
    """Settings that decide what is exported, or where to, cannot be varied."""
    (message,) = problems((key, ["1"]))
    assert "cannot be varied" in message


def test_values_are_validated_like_settings():
    """All faults are reported together, each with its place and in the same words as for the configuration."""
    assert problems(
        ("bundle", ["7m", "1h"]),
        ("budget.burst", ["0", "x"]),
        ("polling.prefer", ["latncy"]),
        ("polling.expected", ["30h"]),
    ) == [
        '--vary bundle: must divide a day, as 6m and 8m do, got "7m"',
        '--vary budget.burst: must be at least 1, got "0"',
        '--vary budget.burst: expected a whole number, got "x"',
        '--vary polling.prefer: expected throughput or latency, got "latncy" (did you mean latency?)',
        '--vary polling.expected: [polling] operation_deadline must not be shorter than expected (30h), got "24h"',
    ]


def test_both_readings_if_the_scope_is_auto():
    """With `scope = "auto"` both readings of the limit are simulated, otherwise only the configured one."""
    assert readings(DEFAULT) == (BudgetScope.CREATE, BudgetScope.ALL)
    assert [readings(one) for one in only(("budget.scope", ["all", "create", "auto"]))] == [
        (BudgetScope.ALL,),
        (BudgetScope.CREATE,),
        (BudgetScope.CREATE, BudgetScope.ALL),
    ]


# What is simulated


def test_the_simulation_follows_the_configuration():
    """A scenario takes its values from the settings, and its tokens from the current level of the bucket."""
    (settings,) = only(("polling.prefer", ["latency"]))
    (settings,) = only(("concurrency.operations", ["11"]), settings=settings)
    (settings,) = only(("budget.burst", ["13"]), settings=settings)
    case = Case(Variant("x", settings), BudgetScope.CREATE, (ExportShare(3, fetch_seconds=7.0),), tokens_used=5)
    (scenario,) = simulated(case, Assumed(learned=(60.0,), seeds=1))
    assert replace(scenario, durations=()) == Scenario(
        3,
        counts_all=False,
        prefer=Prefer.LATENCY,
        operations=11,
        burst=13,
        known=(60.0,),
        fetch_seconds=7.0,
        tokens_used=5,
    )
    assert simulated(replace(case, counts=BudgetScope.ALL), Assumed(seeds=1))[0].counts_all


def test_learned_durations_are_used_if_there_are_enough():
    """Durations are drawn from the learned ones if there are enough and none is given, else from a distribution."""
    learned = tuple(range(100, 100 + ENOUGH))
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(200),))
    (scenario,) = simulated(case, Assumed(learned=learned, seeds=1))
    assert set(scenario.durations) == set(learned)
    for assumed in (Assumed(learned=learned[1:]), Assumed(learned=learned, given=True)):
        drawn = sorted(simulated(case, replace(assumed, median_seconds=600.0, seeds=1))[0].durations)
        assert 500 < drawn[100] < 700
        assert drawn[0] < 400
        assert drawn[-1] > 900


def test_durations_depend_on_the_seed_and_not_on_the_variant():
    """Two variants get the same durations for the same seed, and two seeds get different ones."""
    (slower,) = only(("concurrency.operations", ["5"]))
    first = simulated(Case(PRESENTLY, BudgetScope.ALL, (ExportShare(50),)), Assumed(seeds=2))
    second = simulated(Case(Variant("", slower), BudgetScope.CREATE, (ExportShare(50),)), Assumed(seeds=2))
    assert [one.durations for one in first] == [one.durations for one in second]
    assert first[0].durations != first[1].durations


def test_wider_bundles_take_longer_as_assumed():
    """Downloads grow with the width, and operations grow by the assumed exponent."""
    part = ExportShare(50, fetch_seconds=3.0)
    narrow, wide = (Case(PRESENTLY, BudgetScope.ALL, (one,)) for one in (part, replace(part, widening=4.0)))
    for growth, times in ((0.0, 1.0), (0.5, 2.0), (1.0, 4.0)):
        assumed = Assumed(growth=growth, seeds=1)
        (before,), (after,) = simulated(narrow, assumed), simulated(wide, assumed)
        assert after.durations == pytest.approx([times * one for one in before.durations])
        assert (before.fetch_seconds, after.fetch_seconds) == (3.0, 12.0)


def test_exports_of_several_widths_are_mixed():
    """Operations of several exports are mixed, and not sorted by export."""
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(100), ExportShare(100, widening=1000.0)))
    (scenario,) = simulated(case, Assumed(growth=1.0, seeds=1))
    long = [one > 10_000 for one in scenario.durations]
    assert long.count(True) == 100
    assert 30 < long[:100].count(True) < 70


# The results


@pytest.mark.slow
def test_wider_bundles_finish_sooner_with_fewer_requests():
    """Half as many bundles need half as many creates and finish sooner, if a wider one takes no longer."""
    narrow = row(Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(120),)), Assumed(seeds=3))
    wide = row(Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(60, widening=2.0),)), Assumed(seeds=3))
    assert (narrow.bundles, narrow.requests["create"], narrow.requests["results"]) == (120, 120, 120)
    assert (wide.bundles, wide.requests["create"], wide.requests["results"]) == (60, 60, 60)
    # 71 creates after the first 49 take at least 35 minutes.
    assert wide.makespan < 71 * 30 < narrow.makespan


def test_the_end_is_the_median_of_the_seeds():
    """A row has the smallest, median and largest end of its seeds."""
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(40),))
    found = row(case, Assumed(seeds=3))
    ends = sorted(one.makespan for one in here(simulated(case, Assumed(seeds=3))))
    assert [found.makespan_min, found.makespan, found.makespan_max] == ends
    assert ends[0] < ends[1] < ends[2]
    assert 0 < found.first_archive < found.makespan_min


def test_a_used_bucket_costs_time():
    """A run that starts with a used bucket ends later."""
    case = Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(30),))
    full, spent = row(case, Assumed(seeds=1)), row(replace(case, tokens_used=49), Assumed(seeds=1))
    # The thirtieth create waits for thirty tokens.
    assert spent.makespan > 29 * 30 > full.makespan


# Several processes


@pytest.mark.slow
def test_several_processes_give_the_same_results_as_one():
    """Results are in the order of the scenarios, whichever process simulated them."""
    scenarios = [Scenario(bundles, seed=seed) for bundles, seed in ((3, 1), (12, 1), (5, 2), (3, 1), (1, 4))]
    together = simulate_all(scenarios, processes=2)
    assert together == here(scenarios)
    assert [one.stored for one in together] == [3, 12, 5, 3, 1]


class Deadly(tuple[float, ...]):
    """Durations that end the process they arrive in."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


@pytest.mark.slow
def test_a_process_that_dies_is_reported():
    """If a process dies during the simulation, an error is raised instead of waiting."""
    with pytest.raises(RuntimeError, match="a simulation process has died"):
        simulate_all([Scenario(2), Scenario(1, durations=Deadly([1.0]))], processes=2)


def test_no_cases_give_no_results():
    """Without cases nothing is simulated."""
    assert simulate_all([]) == []
    assert forecast([], Assumed()) == []
