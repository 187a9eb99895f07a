"""Whole runs in memory: nothing is lost wherever they are cancelled, and the schedule keeps what it promises."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from clairvoyant import bound_seconds, clairvoyant_seconds, token_bound_seconds
from peers import PEERS

from asyncexport.core.admission import Prefer
from asyncexport.core.exits import Exit
from asyncexport.core.states import BundleRecord, Created, Creating, Stored
from asyncexport.simulate import clock
from asyncexport.simulate.run import Result, Scenario, Wiring, simulate
from asyncexport.simulate.service import MemoryLedger

DAY = 86_400.0


# The clock


def test_the_clock_jumps_to_the_next_thing_due():
    """A year passes in no time, and timers come in their order."""
    told: list[tuple[float, Any]] = []

    async def tell(seconds: float) -> None:
        await asyncio.sleep(seconds)
        told.append((seconds, asyncio.get_running_loop().time()))

    async def year() -> None:
        await asyncio.gather(tell(365 * DAY), tell(3.0), tell(2.5))

    clock.run(year())
    assert told == [(2.5, pytest.approx(2.5)), (3.0, pytest.approx(3.0)), (365 * DAY, pytest.approx(365 * DAY))]


def test_a_simulation_in_which_everybody_waits_is_found_out():
    """It would never end: that is a bug, and is said."""

    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(clock.Stalled):
        clock.run(forever())


# Cancelled anywhere


class Memory(MemoryLedger):
    """A ledger that keeps every operation it was told of, and lets go of the loop before each row."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    async def append(self, record: BundleRecord, *, at: float) -> None:
        """Add a row."""
        await asyncio.sleep(0)
        await super().append(record, at=at)
        if isinstance(record.state, Created):
            self.operations.add(record.state.operation_id)

    @property
    def stored(self) -> int:
        """How many bundles are done."""
        return sum(isinstance(record.state, Stored) for record in self.latest.values())


class Stepping(Coroutine[Any, Any, Any]):
    """A coroutine that tells `step` each time it is suspended."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._step = step

    def send(self, value: Any) -> Any:
        """Go on to where it is suspended next."""
        awaited = self._coroutine.send(value)
        self._step()
        return awaited

    def throw(self, *error: Any) -> Any:
        """The same, with an error to deal with."""
        awaited = self._coroutine.throw(*error)
        self._step()
        return awaited

    def close(self) -> None:
        """End it."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


SMALL = Scenario(bundles=4, median_seconds=120.0, burst=3, operations=3, downloads=1)


async def run_until_step(wiring: Wiring, last: int, stop: Callable[["asyncio.Task[None]"], None]) -> bool:
    """Run, and stop it when any of its tasks is suspended for the n-th time; whether it came so far."""
    loop = asyncio.get_running_loop()
    steps = count()
    run: asyncio.Task[None]

    def step() -> None:
        if next(steps) == last:
            loop.call_soon(stop, run)

    loop.set_task_factory(lambda loop, coroutine, **more: asyncio.Task(Stepping(coroutine, step), loop=loop, **more))
    try:
        run = asyncio.create_task(wiring.run())
        await asyncio.wait({run})
    finally:
        loop.set_task_factory(None)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
    if not run.cancelled():
        run.result()
    return next(steps) > last


def cancelled_everywhere(scenario: Scenario, stop: Callable[[Wiring, "asyncio.Task[None]"], None]) -> int:
    """Stop a run at its n-th step for every n, check what is on record, resume it to its end; how many n there were."""

    async def once(last: int) -> bool:
        ledger = Memory()
        wiring = Wiring(scenario, ledger=ledger)
        came_so_far = await run_until_step(wiring, last, lambda run: stop(wiring, run))
        service = wiring.service
        assert {str(number) for number in range(service.made)} == ledger.operations, f"step {last}"
        assert not any(isinstance(record.state, Creating) for record in ledger.latest.values()), f"step {last}"
        await Wiring(scenario, service=service, ledger=ledger).run()
        assert ledger.stored == service.made == scenario.bundles, f"step {last}"
        return came_so_far

    return next(last for last in count() if not clock.run(once(last)))


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
@pytest.mark.parametrize("counts_all", [True, False], ids=["all", "create"])
def test_no_await_at_which_a_cancel_orphans_an_operation(counts_all, lists):
    """Cancelled at any await of any task: what was made is on record, and the next run makes no other in its place."""

    def cancel(_: Wiring, run: "asyncio.Task[None]") -> None:
        run.cancel()

    assert cancelled_everywhere(replace(SMALL, counts_all=counts_all, lists=lists), cancel) > 100


@pytest.mark.slow
def test_no_await_at_which_a_polite_stop_orphans_an_operation():
    """The same where the run is asked to stop."""
    steps = cancelled_everywhere(SMALL, lambda wiring, _: wiring.stop.ask(Exit.INTERRUPTED))
    assert steps > 100


@pytest.mark.slow
def test_no_await_at_which_stopping_now_loses_more_than_the_answer():
    """Told to stop now, an operation may be unknown; then its bundle is `Creating`, and the next run finishes all."""

    async def once(last: int) -> bool:
        ledger = Memory()
        wiring = Wiring(SMALL, ledger=ledger)

        def stop_now(_: object) -> None:
            wiring.stop.ask(Exit.INTERRUPTED)
            wiring.stop.ask(Exit.INTERRUPTED)

        came_so_far = await run_until_step(wiring, last, stop_now)
        unknown = wiring.service.made - len(ledger.operations)
        creating = sum(isinstance(record.state, Creating) for record in ledger.latest.values())
        assert unknown <= creating
        await Wiring(SMALL, service=wiring.service, ledger=ledger).run()
        assert ledger.stored == SMALL.bundles
        assert wiring.service.made <= SMALL.bundles + creating
        return came_so_far

    assert next(last for last in count() if not clock.run(once(last))) > 100


# What the schedule keeps


def checked(scenario: Scenario) -> Result:
    """Run it; what must hold of any run is asserted."""
    result = simulate(scenario)
    assert result.stored == result.operations == scenario.bundles
    if scenario.outage is None:
        assert result.requests["create"] == result.requests["results"] == scenario.bundles
    assert result.refused == 0
    assert result.most_running <= scenario.operations
    assert result.makespan >= bound_seconds(scenario) - 60
    return result


@pytest.mark.slow
@pytest.mark.parametrize("prefer", list(Prefer))
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
@pytest.mark.parametrize("counts_all", [True, False], ids=["all", "create"])
def test_a_run_does_all_and_is_never_refused(counts_all, lists, prefer):
    """One create and one results call a bundle, no 429, no more at once than allowed."""
    checked(Scenario(100, 600.0, 1.0, counts_all, lists, prefer, operations=60, seed=3))


@pytest.mark.slow
def test_a_day_of_bundles_is_near_the_clairvoyant():
    """48 bundles, nothing known beforehand: within a tenth, in the middle of several."""
    scenarios = [Scenario(48, 600.0, seed=seed) for seed in range(1, 8)]
    ratios = sorted(checked(one).makespan / clairvoyant_seconds(one) for one in scenarios)
    assert 1.0 <= ratios[3] <= 1.10


@pytest.mark.slow
@pytest.mark.parametrize(("lists", "requests", "first_minutes"), [(True, 2.25, 15), (False, 3.10, 30)])
def test_a_week_of_bundles_keeps_requests_and_the_first_wait_low(lists, requests, first_minutes):
    """336 bundles, latency preferred: what a bundle costs, and when the first archive is there."""
    result = checked(Scenario(336, 600.0, lists=lists, prefer=Prefer.LATENCY))
    assert result.all_requests / 336 <= requests
    assert result.first_archive <= first_minutes * 60


@pytest.mark.slow
def test_finished_exports_do_not_wait_until_they_expire():
    """They are kept for about a week; none waits for more than some hours, however slow the operations."""
    for median in (120.0, 7200.0):
        assert checked(Scenario(200, median, 1.0)).longest_wait < DAY / 2


@pytest.mark.slow
@pytest.mark.parametrize("operations", [100, 5000])
def test_a_service_with_few_slots_is_not_flooded(operations):
    """Where eight run at once and the others queue, more and more in flight would only make them look longer."""
    result = checked(Scenario(400, 600.0, counts_all=False, operations=operations, slots=8))
    assert result.most_running <= 200
    assert result.makespan == pytest.approx(400 / 8 * 680, rel=0.1)


def test_what_earlier_runs_learned_is_of_use():
    """Operations that are known to be quick are found sooner."""
    cold = checked(Scenario(48, 60.0, expected_seconds=3600.0))
    warm = checked(Scenario(48, 60.0, expected_seconds=3600.0, known=(60.0,) * 50))
    assert warm.first_archive < cold.first_archive


def test_an_outage_in_mid_run_costs_time_and_nothing_else():
    """An hour without the service: no bundle, no attempt, no operation twice."""
    calm = checked(Scenario(150))
    hit = checked(Scenario(150, outage=(1800.0, 5400.0)))
    assert calm.makespan < hit.makespan < calm.makespan + 3600 + 600


def test_second_looks_cost_a_results_call_each():
    """Of the share of files that take one, and later by `[download] second_look`."""
    known, looking = simulate(Scenario(40)), simulate(Scenario(40, second_looks=0.25, second_look_seconds=600.0))
    assert (known.requests["results"], looking.requests["results"]) == (40, 50)
    assert looking.operations == looking.stored == 40
    assert looking.makespan > known.makespan


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
def test_what_the_limit_counts_is_learned_at_the_price_of_some_minutes(lists):
    """Nobody says that all calls count: from then on the run goes as if somebody had."""
    told = checked(Scenario(200, lists=lists))
    learned = simulate(Scenario(200, lists=lists, scope_is_known=False))
    assert learned.stored == learned.operations == 200
    assert 1 <= learned.refused <= 15
    assert learned.makespan < told.makespan + 600


@pytest.mark.slow
def test_where_creates_alone_count_auto_has_nothing_to_learn():
    """No refusal, and the same run."""
    assert simulate(Scenario(200, counts_all=False, scope_is_known=False)) == checked(Scenario(200, counts_all=False))


def test_the_level_that_was_left_is_kept_to():
    """A bucket that is half empty lets half as many through at once, and the service agrees."""
    assert checked(Scenario(60, 120.0, tokens_used=30)).makespan > checked(Scenario(60, 120.0)).makespan + 600


def test_the_same_seed_gives_the_same_run():
    """A simulation can be repeated."""
    assert simulate(Scenario(30, seed=5)) == simulate(Scenario(30, seed=5))
    assert simulate(Scenario(30, seed=5)) != simulate(Scenario(30, seed=6))


# What it is measured against


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
@pytest.mark.parametrize("counts_all", [True, False], ids=["all", "create"])
def test_nobody_beats_the_bound(counts_all, lists):
    """Neither the clairvoyant nor a peer; and the clairvoyant beats the peers."""
    scenario = Scenario(120, 300.0, 0.5, counts_all, lists)
    clairvoyant = clairvoyant_seconds(scenario)
    assert bound_seconds(scenario) <= clairvoyant <= simulate(scenario).makespan
    for peer in PEERS.values():
        assert peer(scenario).makespan >= clairvoyant * 0.999


def test_the_clairvoyant_is_near_the_bound_where_tokens_are_what_lacks():
    """Quick operations: it is as good as the tokens allow."""
    for lists in (True, False):
        scenario = Scenario(500, 120.0, lists=lists)
        assert clairvoyant_seconds(scenario) <= 1.002 * token_bound_seconds(scenario)


def test_the_token_bound_is_the_arithmetic_of_the_limit():
    """Creates alone, with a list, and without; from a full bucket of 50, at two a minute."""
    minutes = {
        (False, True): (1440 - 50) / 2,
        (True, True): (2 * 1440 + 15 - 50) / 2,
        (True, False): (3 * 1440 - 50) / 2,
    }
    for (counts_all, lists), bound in minutes.items():
        assert token_bound_seconds(Scenario(1440, counts_all=counts_all, lists=lists)) == bound * 60


def test_peers_do_what_they_are_named_for():
    """One at a time is slow, everything at once has its first file late, polls before creates starve them."""
    scenario = Scenario(60, 600.0, lists=False)
    ours = simulate(scenario)
    one, everything, starving = (peer(scenario) for peer in PEERS.values())
    assert one.makespan > 5 * ours.makespan
    assert everything.first_archive > ours.first_archive
    assert starving.all_requests > 1.5 * ours.all_requests
