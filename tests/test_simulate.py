"""Complete simulated runs: nothing is lost wherever they are cancelled, and the schedule keeps its promises."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from clairvoyant import added_token_seconds, bound_seconds, clairvoyant_seconds, token_bound_seconds
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
    """A year of waiting takes no real time, and timers fire in order."""
    fired: list[tuple[float, Any]] = []

    async def fire(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((seconds, asyncio.get_running_loop().time()))

    async def year() -> None:
        await asyncio.gather(fire(365 * DAY), fire(3.0), fire(2.5))

    clock.run(year())
    assert fired == [(2.5, pytest.approx(2.5)), (3.0, pytest.approx(3.0)), (365 * DAY, pytest.approx(365 * DAY))]


def test_a_stalled_simulation_raises():
    """A simulation in which every task waits without a timer raises an error instead of hanging."""

    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(clock.Stalled):
        clock.run(forever())


# Cancelled anywhere


class Memory(MemoryLedger):
    """A ledger that remembers every operation and yields to the event loop before each row."""

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
        """The number of stored bundles."""
        return sum(isinstance(record.state, Stored) for record in self.latest.values())


class Stepping(Coroutine[Any, Any, Any]):
    """A coroutine that calls `step` each time it is suspended."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._step = step

    def send(self, value: Any) -> Any:
        """Resume the coroutine until it is suspended again."""
        awaited = self._coroutine.send(value)
        self._step()
        return awaited

    def throw(self, *error: Any) -> Any:
        """Resume the coroutine with an error."""
        awaited = self._coroutine.throw(*error)
        self._step()
        return awaited

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


SMALL = Scenario(bundles=4, median_seconds=120.0, burst=3, operations=3, downloads=1)


async def run_until_step(wiring: Wiring, last: int, stop: Callable[["asyncio.Task[None]"], None]) -> bool:
    """Run, and stop when its tasks have been suspended `last` times in all; return whether that happened."""
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
    """Stop a run at each of its steps in turn, check the ledger, and resume to the end; return the number of steps."""

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
def test_a_cancel_at_any_await_orphans_no_operation(counts_all, lists):
    """A run cancelled at any await has recorded every operation, and the next run creates none of them again."""

    def cancel(_: Wiring, run: "asyncio.Task[None]") -> None:
        run.cancel()

    assert cancelled_everywhere(replace(SMALL, counts_all=counts_all, lists=lists), cancel) > 100


@pytest.mark.slow
def test_a_stop_at_any_await_orphans_no_operation():
    """A run asked to stop at any await has recorded every operation, and the next run creates none of them again."""
    steps = cancelled_everywhere(SMALL, lambda wiring, _: wiring.stop.ask(Exit.INTERRUPTED))
    assert steps > 100


@pytest.mark.slow
def test_an_immediate_stop_at_any_await_loses_only_the_answer():
    """An immediate stop may lose the answer of a create, but its bundle is `Creating`, and the next run finishes."""

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


@pytest.mark.slow
@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancel", "stop"])
def test_a_run_that_follows_the_present_can_be_ended_at_any_await(is_cancelled):
    """Every operation is recorded and no task is left, also while bundles settle and pass the backlog."""
    scenario = replace(SMALL, bundles=45, settles=True)

    async def once(last: int) -> tuple[bool, int]:
        ledger = Memory()
        wiring = Wiring(scenario, ledger=ledger)
        stop = (lambda run: run.cancel()) if is_cancelled else (lambda _: wiring.stop.ask(Exit.INTERRUPTED))
        came_so_far = await run_until_step(wiring, last, stop)
        assert {str(number) for number in range(wiring.service.made)} == ledger.operations, f"step {last}"
        assert not any(isinstance(record.state, Creating) for record in ledger.latest.values()), f"step {last}"
        return came_so_far, len(wiring.work.settled_at)

    settled = []
    for last in count(step=23):
        came_so_far, late = clock.run(once(last))
        settled.append(late)
        if not came_so_far:
            break
    assert len(settled) > 50
    assert {0, 1, 2} <= set(settled)


# What the schedule promises


def checked(scenario: Scenario) -> Result:
    """Run the scenario and assert what must hold for any run."""
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
def test_a_run_stores_all_bundles_without_a_429(counts_all, lists, prefer):
    """Each bundle costs one create and one results call, no request gets a 429, and the operation limit holds."""
    checked(Scenario(100, 600.0, 1.0, counts_all, lists, prefer, operations=60, seed=3))


@pytest.mark.slow
def test_a_day_of_bundles_is_near_the_clairvoyant():
    """Without known durations, a run of 48 bundles takes at most a tenth longer than the clairvoyant, in the median."""
    scenarios = [Scenario(48, 600.0, seed=seed) for seed in range(1, 8)]
    ratios = sorted(checked(one).makespan / clairvoyant_seconds(one) for one in scenarios)
    assert 1.0 <= ratios[3] <= 1.10


@pytest.mark.slow
@pytest.mark.parametrize(("lists", "requests", "first_minutes"), [(True, 2.25, 15), (False, 3.10, 30)])
def test_a_week_of_bundles_keeps_requests_and_the_first_wait_low(lists, requests, first_minutes):
    """With latency preferred, 336 bundles cost few requests each, and the first archive is stored soon."""
    result = checked(Scenario(336, 600.0, lists=lists, prefer=Prefer.LATENCY))
    assert result.all_requests / 336 <= requests
    assert result.first_archive <= first_minutes * 60


@pytest.mark.slow
def test_free_lists_are_fewer_than_bundles():
    """If only creates count, a week of bundles needs fewer lists than bundles, and no file waits for two minutes."""
    result = checked(Scenario(336, 600.0, counts_all=False))
    assert result.requests["list"] <= 0.85 * 336
    assert result.longest_wait <= 120


@pytest.mark.slow
def test_finished_exports_do_not_wait_until_they_expire():
    """No finished export waits for half a day or longer, however slow the operations are."""
    for median in (120.0, 7200.0):
        assert checked(Scenario(200, median, 1.0)).longest_wait < DAY / 2


@pytest.mark.slow
@pytest.mark.parametrize("operations", [100, 5000])
def test_a_service_with_few_slots_is_not_flooded(operations):
    """If the service runs eight operations at a time and queues the rest, the number in flight stays limited."""
    result = checked(Scenario(400, 600.0, counts_all=False, operations=operations, slots=8))
    assert result.most_running <= 200
    assert result.makespan == pytest.approx(400 / 8 * 680, rel=0.1)


def test_durations_of_earlier_runs_help():
    """The first archive is stored earlier if durations are known from earlier runs."""
    cold = checked(Scenario(48, 60.0, expected_seconds=3600.0))
    warm = checked(Scenario(48, 60.0, expected_seconds=3600.0, known=(60.0,) * 50))
    assert warm.first_archive < cold.first_archive


def test_an_outage_during_a_run_costs_only_time():
    """An hour without the service costs little more than an hour, and no operation is created twice."""
    calm = checked(Scenario(150))
    hit = checked(Scenario(150, outage=(1800.0, 5400.0)))
    assert calm.makespan < hit.makespan < calm.makespan + 3600 + 600


def test_second_checks_cost_a_results_call_each():
    """Each file that needs a second check costs one more results call, and delays the run."""
    known, looking = simulate(Scenario(40)), simulate(Scenario(40, second_looks=0.25, second_look_seconds=600.0))
    assert (known.requests["results"], looking.requests["results"]) == (40, 50)
    assert looking.operations == looking.stored == 40
    assert looking.makespan > known.makespan


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
def test_learning_what_the_limit_counts_costs_some_minutes(lists):
    """If the run must find out that all calls count, that costs a few refusals and at most ten minutes."""
    known = checked(Scenario(200, lists=lists))
    learned = simulate(Scenario(200, lists=lists, scope_is_known=False))
    assert learned.stored == learned.operations == 200
    assert 1 <= learned.refused <= 15
    assert learned.makespan < known.makespan + 600


@pytest.mark.slow
def test_auto_has_nothing_to_learn_where_only_creates_count():
    """If the limit counts only creates, `auto` gives the same run as if that was known."""
    assert simulate(Scenario(200, counts_all=False, scope_is_known=False)) == checked(Scenario(200, counts_all=False))


def test_the_tokens_used_by_an_earlier_run_are_taken_into_account():
    """A run that starts with a partly used bucket takes longer and gets no 429."""
    assert checked(Scenario(60, 120.0, tokens_used=30)).makespan > checked(Scenario(60, 120.0)).makespan + 600


def share(values: Sequence[float], part: float) -> float:
    """Return the value that this part of the values does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
@pytest.mark.parametrize("counts_all", [True, False], ids=["all", "create"])
def test_bundles_that_settle_during_a_long_backfill_are_stored_within_an_hour(counts_all, lists, summary_line):
    """Of 60 days, 95 % of new bundles are stored an hour after they settled; a plain run is at most 3 % faster.

    The operation's own duration is not counted. The plain run has the same bundles, all of them old. The run without
    the new bundles ends at most 3 % earlier, too, apart from the time that the fewest requests for these take.
    """
    following = Scenario(2880, counts_all=counts_all, lists=lists, settles=True)
    found = simulate(following)
    assert found.refused == 0
    assert len(found.settled_waits) == found.stored - 2880 >= 48
    assert share(found.settled_waits, 0.95) <= 3600
    same = found.makespan / simulate(replace(following, bundles=found.stored, settles=False)).makespan
    alone = simulate(replace(following, settles=False)).makespan
    later, unavoidable = found.planned_makespan / alone, added_token_seconds(following, found.stored) / alone
    summary_line(
        f"a backfill of 60 days that follows the present ({'all requests count' if counts_all else 'creates count'}, "
        f"{'a list' if lists else 'no list'}): {later - 1:.1%} later; the fewest requests for new bundles take "
        f"{unavoidable:.1%}, the order costs {same - 1:.1%}"
    )
    assert same <= 1.03
    assert later - unavoidable <= 1.03


@pytest.mark.parametrize(("operations", "median"), [(100, 600.0), (60, 3600.0), (5, 600.0)])
def test_bundles_that_settle_do_not_exceed_the_operations_allowed(operations, median):
    """What settles meanwhile is started before the backlog, within `[concurrency] operations`."""
    found = simulate(Scenario(200, median, operations=operations, settles=True))
    assert found.most_running <= operations
    assert found.refused == 0
    assert 0 < len(found.settled_waits) == found.stored - 200
    assert share(found.settled_waits, 0.5) < 3600


def test_audits_come_after_everything_else():
    """They cost as much as new bundles, and none of their operations is created before all others are stored."""
    scenario = Scenario(40, audits=20)
    alone, found = simulate(replace(scenario, audits=0)), simulate(scenario)
    assert (found.stored, found.operations) == (60, 60)
    assert found.makespan >= alone.makespan + 600
    only_audits = simulate(replace(scenario, bundles=0))
    assert (only_audits.stored, only_audits.refused) == (20, 0)


def test_the_same_seed_gives_the_same_run():
    """The same seed gives the same result, and another seed a different one."""
    assert simulate(Scenario(30, seed=5)) == simulate(Scenario(30, seed=5))
    assert simulate(Scenario(30, seed=5)) != simulate(Scenario(30, seed=6))


# What the schedule is measured against


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False], ids=["list", "single"])
@pytest.mark.parametrize("counts_all", [True, False], ids=["all", "create"])
def test_no_schedule_beats_the_bound(counts_all, lists):
    """The lower bound is below the clairvoyant, and the clairvoyant is below our schedule and the peers."""
    scenario = Scenario(120, 300.0, 0.5, counts_all, lists)
    clairvoyant = clairvoyant_seconds(scenario)
    assert bound_seconds(scenario) <= clairvoyant <= simulate(scenario).makespan
    for peer in PEERS.values():
        assert peer(scenario).makespan >= clairvoyant * 0.999


def test_the_clairvoyant_is_near_the_bound_if_tokens_are_scarce():
    """With quick operations, where only tokens are scarce, the clairvoyant is almost as fast as the bound."""
    for lists in (True, False):
        scenario = Scenario(500, 120.0, lists=lists)
        assert clairvoyant_seconds(scenario) <= 1.002 * token_bound_seconds(scenario)


def test_the_token_bound_is_the_arithmetic_of_the_limit():
    """The token bound follows from the number of requests, a full bucket of 50 and two tokens a minute."""
    minutes = {
        (False, True): (1440 - 50) / 2,
        (True, True): (2 * 1440 + 15 - 50) / 2,
        (True, False): (3 * 1440 - 50) / 2,
    }
    for (counts_all, lists), bound in minutes.items():
        assert token_bound_seconds(Scenario(1440, counts_all=counts_all, lists=lists)) == bound * 60


def test_peers_do_what_they_are_named_for():
    """The sequential peer is slow, the create-all peer gets its first file late, the poll-first one wastes calls."""
    scenario = Scenario(60, 600.0, lists=False)
    ours = simulate(scenario)
    one, everything, starving = (peer(scenario) for peer in PEERS.values())
    assert one.makespan > 5 * ours.makespan
    assert everything.first_archive > ours.first_archive
    assert starving.all_requests > 1.5 * ours.all_requests
