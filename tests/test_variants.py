"""What a change of the configuration buys, found out on a virtual clock."""

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
    """What is said of these."""
    with pytest.raises(ConfigError) as caught:
        variants(settings, vary)
    return [str(problem) for problem in caught.value.problems]


def only(*vary: tuple[str, Sequence[str]], settings: Settings = DEFAULT) -> list[Settings]:
    """The settings of the variants, those as configured left out."""
    return [variant.settings for variant in variants(settings, vary)[1:]]


def seen(case: Case, assumed: Assumed) -> list[Scenario]:
    """What would be simulated of a case."""
    taken: list[Scenario] = []

    def run(scenarios: Sequence[Scenario]) -> list[Result]:
        taken.extend(scenarios)
        return [Result(1, 1, 2.0, 1.0, 0.0, 1, {"create": 1}, 0) for _ in scenarios]

    forecast([case], assumed, run=run)
    return taken


def here(scenarios: Sequence[Scenario]) -> list[Result]:
    """Simulated in this process."""
    return simulate_all(scenarios, processes=1)


def row(case: Case, assumed: Assumed) -> Row:
    """What comes of one case."""
    (found,) = forecast([case], assumed, run=here)
    return found


# the variants


def test_each_key_is_varied_on_its_own():
    """Two values of one key and one of another are three variants beside the configuration, and no product."""
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
    ("key", "value", "table", "field", "means"),
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
def test_a_variant_differs_in_its_key_alone(key, value, table, field, means):
    """All other keys, those of its table among them, stay as they are configured."""
    present = Settings.from_layers(
        {
            "concurrency": {"operations": 7, "downloads": 3},
            "polling": {"min_interval": "1500ms", "expected": "2m", "operation_deadline": "5h"},
            "budget": {"requests_per_minute": 0.7, "burst": 9, "scope": "create"},
        }
    )
    (found,) = only((key, [value]), settings=present)
    assert getattr(getattr(found, table), field) == means
    changed = getattr(present, table).model_copy(update={field: means})
    assert found == present.model_copy(update={table: changed})


def test_every_event_export_has_the_new_width_and_individuals_keep_their_day():
    """A width holds for all exports, under either name; rows of individuals are totals of a day."""
    present = Settings.from_layers(
        {"export": [{"name": "a"}, {"name": "b", "bundle": "6h"}, {"name": "c", "type": "individual"}]}
    )
    for key in ("bundle", "export.bundle"):
        (found,) = only((key, ["1h"]), settings=present)
        assert [one.bundle_seconds for one in found.exports] == [3600, 3600, 86_400]


def test_an_unknown_key_names_the_nearest_and_those_there_are():
    """Whoever mistypes need not look anything up."""
    (told,) = problems(("concurrency.operation", ["1"]))
    assert told.startswith("--vary concurrency.operation: 'concurrency.operation' cannot be varied")
    assert "(did you mean concurrency.operations?)" in told
    assert told.endswith("polling.expected, budget.requests_per_minute, budget.burst, budget.scope")


@pytest.mark.parametrize("key", ["api.base_url", "output.directory", "export.budget.burst", "export", ""])
def test_what_does_not_set_the_pace_cannot_be_varied(key):
    """Nothing that says what is exported, or where to, is a variant of the same work."""
    (told,) = problems((key, ["1"]))
    assert "cannot be varied" in told


def test_a_value_is_read_by_the_rules_of_the_settings():
    """All that is wrong is told at once, each with its place, in the words of any other setting."""
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


def test_both_readings_where_the_scope_is_left_open():
    """Where the settings say what counts there is one reading of the limit."""
    assert readings(DEFAULT) == (BudgetScope.CREATE, BudgetScope.ALL)
    assert [readings(one) for one in only(("budget.scope", ["all", "create", "auto"]))] == [
        (BudgetScope.ALL,),
        (BudgetScope.CREATE,),
        (BudgetScope.CREATE, BudgetScope.ALL),
    ]


# what is simulated


def test_the_simulation_is_of_the_configuration():
    """Whatever sets the pace is taken from the settings, and the bucket as it stands."""
    (settings,) = only(("polling.prefer", ["latency"]))
    (settings,) = only(("concurrency.operations", ["11"]), settings=settings)
    (settings,) = only(("budget.burst", ["13"]), settings=settings)
    case = Case(Variant("x", settings), BudgetScope.CREATE, (ExportShare(3, fetch_seconds=7.0),), tokens_used=5)
    (scenario,) = seen(case, Assumed(learned=(60.0,), seeds=1))
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
    assert seen(replace(case, counts=BudgetScope.ALL), Assumed(seeds=1))[0].counts_all


def test_enough_learned_durations_are_drawn_from_as_they_are():
    """Nothing is simulated that was never seen, once enough was seen; a duration that is given comes first."""
    learned = tuple(range(100, 100 + ENOUGH))
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(200),))
    (scenario,) = seen(case, Assumed(learned=learned, seeds=1))
    assert set(scenario.durations) == set(learned)
    for assumed in (Assumed(learned=learned[1:]), Assumed(learned=learned, given=True)):
        drawn = sorted(seen(case, replace(assumed, median_seconds=600.0, seeds=1))[0].durations)
        assert 500 < drawn[100] < 700
        assert drawn[0] < 400
        assert drawn[-1] > 900


def test_variants_meet_the_same_fate_and_seeds_do_not():
    """What differs between two rows is the settings; what differs between two seeds is chance."""
    (slower,) = only(("concurrency.operations", ["5"]))
    first = seen(Case(PRESENTLY, BudgetScope.ALL, (ExportShare(50),)), Assumed(seeds=2))
    second = seen(Case(Variant("", slower), BudgetScope.CREATE, (ExportShare(50),)), Assumed(seeds=2))
    assert [one.durations for one in first] == [one.durations for one in second]
    assert first[0].durations != first[1].durations


def test_wider_bundles_take_longer_by_as_much_as_is_assumed():
    """Downloads grow with the width; operations only as far as somebody says."""
    part = ExportShare(50, fetch_seconds=3.0)
    narrow, wide = (Case(PRESENTLY, BudgetScope.ALL, (one,)) for one in (part, replace(part, widening=4.0)))
    for growth, times in ((0.0, 1.0), (0.5, 2.0), (1.0, 4.0)):
        assumed = Assumed(growth=growth, seeds=1)
        (before,), (after,) = seen(narrow, assumed), seen(wide, assumed)
        assert after.durations == pytest.approx([times * one for one in before.durations])
        assert (before.fetch_seconds, after.fetch_seconds) == (3.0, 12.0)


def test_exports_of_several_widths_are_mixed():
    """Operations of two exports are made side by side, and not first those of one."""
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(100), ExportShare(100, widening=1000.0)))
    (scenario,) = seen(case, Assumed(growth=1.0, seeds=1))
    long = [one > 10_000 for one in scenario.durations]
    assert long.count(True) == 100
    assert 30 < long[:100].count(True) < 70


# what comes of it


@pytest.mark.slow
def test_wider_bundles_finish_sooner_for_fewer_requests():
    """Half as many bundles are half as many creates, where a wider one takes no longer."""
    narrow = row(Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(120),)), Assumed(seeds=3))
    wide = row(Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(60, widening=2.0),)), Assumed(seeds=3))
    assert (narrow.bundles, narrow.requests["create"], narrow.requests["results"]) == (120, 120, 120)
    assert (wide.bundles, wide.requests["create"], wide.requests["results"]) == (60, 60, 60)
    # 71 creates after the first 49 take 35 minutes at least.
    assert wide.makespan < 71 * 30 < narrow.makespan


def test_the_end_lies_between_those_of_the_seeds():
    """The median is of the seeds, and the spread is theirs."""
    case = Case(PRESENTLY, BudgetScope.ALL, (ExportShare(40),))
    found = row(case, Assumed(seeds=3))
    ends = sorted(one.makespan for one in here(seen(case, Assumed(seeds=3))))
    assert [found.makespan_min, found.makespan, found.makespan_max] == ends
    assert ends[0] < ends[1] < ends[2]
    assert 0 < found.first_archive < found.makespan_min


def test_a_spent_bucket_costs_its_time():
    """What earlier runs sent is not at hand."""
    case = Case(PRESENTLY, BudgetScope.CREATE, (ExportShare(30),))
    full, spent = row(case, Assumed(seeds=1)), row(replace(case, tokens_used=49), Assumed(seeds=1))
    # The thirtieth create waits for thirty tokens.
    assert spent.makespan > 29 * 30 > full.makespan


# on several processes


@pytest.mark.slow
def test_processes_find_what_one_finds():
    """Results come in the order of what was asked, whoever simulated it; what is asked twice is simulated once."""
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
def test_a_process_that_dies_is_told_of():
    """Nobody waits for a result that will not come."""
    with pytest.raises(RuntimeError, match="a simulation process has died"):
        simulate_all([Scenario(2), Scenario(1, durations=Deadly([1.0]))], processes=2)


def test_nothing_asked_is_nothing_found():
    """No case needs no simulation."""
    assert simulate_all([]) == []
    assert forecast([], Assumed()) == []
