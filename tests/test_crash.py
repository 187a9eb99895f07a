"""Kills at every write and at any time: the files on disk are complete, and the next run resumes from there."""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from asyncexport.sandbox import SandboxFault
from tests.crash_rig import BEHAVIOUR, POISON, Driver, Findings, Outcome, Scene, Writes, scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has process file descriptors"),
]

MISSING = ("2024-01-01T12:40:00Z", "2024-01-01T12:45:00Z")
"""The five minutes that are missing because of it."""

SEED = 20240101
RANDOM_KILLS = 36
ROWS_OF_KILLS = 6
KILLS_IN_A_ROW = 5


@dataclass(slots=True)
class Totals:
    """The totals of all kills in this file."""

    kills: int = 0
    at: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    extra_exports: int = 0

    def add(self, one: Scene, *outcomes: Outcome) -> None:
        """Add the kills of a scene."""
        self.kills += one.kills
        self.at.update(outcome.killed_at for outcome in outcomes if outcome.killed_at)
        self.in_flight += one.in_flight
        self.extra_exports += one.extra_exports


@pytest.fixture(scope="module")
def totals(summary_line) -> Iterator[Totals]:
    found = Totals()
    yield found
    summary_line(
        f"crash suite: {found.kills} kills, {found.at.total()} of them at {len(found.at)} kinds of write; "
        f"{found.in_flight} creates in flight, {found.extra_exports} extra exports"
    )


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two drivers for parallel runs: while one run waits for the service, the other can write."""
    with Driver() as one, Driver() as other:
        yield [one, other]


@pytest.mark.timeout(900)
async def test_a_run_killed_at_any_write_is_finished_by_the_next(drivers, totals):
    """A kill before or after any write loses nothing, and the next run repeats nothing."""
    async with scene(drivers[0]) as one:
        writes = Writes(await one.run())
    killed_at = set()

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                outcome = await one.run(kill_at=write)
                if outcome.exit_code is not None:
                    writes.exhausted(write)
                    continue
                await one.finish()
                assert one.findings == Findings(), write
                killed_at.add(outcome.killed_at)
                totals.add(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))
    assert writes.kinds == killed_at


@pytest.mark.timeout(900)
async def test_a_repair_killed_at_any_write_is_finished_by_the_next_run(drivers, totals):
    """A new revision leaves the old archive intact until the new one is complete, and the next run finishes it."""
    async with scene(drivers[0]) as one:
        await one.run()
        writes = Writes(await one.run(repair=True))

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                await one.run()
                # The same rows in other bytes, so that the files must be replaced.
                one.sandbox.behave(replace(BEHAVIOUR, delivery="members"))
                outcome = await one.run(repair=True, kill_at=write)
                if outcome.exit_code is not None:
                    writes.exhausted(write)
                await one.finish()
                assert one.findings == Findings(), write
                totals.add(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_refresh_with_too_few_rows_may_be_killed_at_any_write(drivers, totals):
    """Before and after the decision the old archives are intact, and the next run decides the same."""
    empty = replace(BEHAVIOUR, faults=(SandboxFault("operation", "fewer-rows"),))
    async with scene(drivers[0]) as one:
        await one.run()
        one.sandbox.behave(empty)
        refreshed = await one.run(repair=True)
        assert refreshed.summary is not None
        assert (refreshed.exit_code, refreshed.summary["refreshed"]["kept"]) == (3, 4)
        writes = Writes(refreshed)
        assert "rename:before" not in writes.kinds

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                await one.run()
                one.sandbox.behave(empty)
                outcome = await one.run(repair=True, kill_at=write)
                if outcome.exit_code is not None:
                    writes.exhausted(write)
                # This run refuses what the killed run had begun; after that there is nothing left to do.
                await one.run()
                await one.finish()
                assert one.findings == Findings(), write
                totals.add(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


FEW = replace(BEHAVIOUR, faults=(SandboxFault.parse("operation:fewer-rows,rows=2"),))

EMPTY = replace(BEHAVIOUR, faults=(SandboxFault("operation", "fewer-rows"),))


async def keep(one: Scene) -> int:
    """Store some rows of each bundle, keep these archives in a night without rows, and return the number of rows."""
    one.sandbox.behave(FEW)
    assert (await one.run()).exit_code == 0
    one.sandbox.behave(EMPTY)
    kept = await one.run(repair=True)
    assert (kept.exit_code, len(kept.missing)) == (3, 2)
    one.sandbox.behave(BEHAVIOUR)
    one.sandbox.skip(86_400)
    return one.rows


@pytest.mark.timeout(900)
@pytest.mark.parametrize("recovers", [True, False], ids=["recovered", "emptied again"])
async def test_a_night_that_exports_kept_archives_is_killed_at_any_write(drivers, totals, recovers):
    """The next night finishes it; if the service has no rows again, no archive is replaced by fewer rows."""
    async with scene(drivers[0]) as one:
        await keep(one)
        whole = await one.run(nightly=True)
        assert whole.summary is not None
        assert (whole.exit_code, whole.summary["refreshed"]["changed"]) == (0, 4)
        writes = Writes(whole)
        assert "rename:before" in writes.kinds

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                rows = await keep(one)
                outcome = await one.run(nightly=True, kill_at=write)
                if outcome.exit_code is not None:
                    writes.exhausted(write)
                    continue
                if not recovers:
                    one.sandbox.behave(EMPTY)
                assert (await one.run(nightly=True)).exit_code == 0, write
                assert one.rows >= rows, write
                one.sandbox.behave(BEHAVIOUR)
                one.sandbox.skip(2 * 86_400)
                assert (await one.run(nightly=True)).exit_code == 0, write
                await one.finish()
                # The archives lack rows until they are replaced; `lost_rows` has what they lack in the end.
                assert replace(one.findings, damaged=[]) == Findings(), write
                totals.add(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_run_that_splits_a_bundle_is_killed_at_any_write(drivers, totals):
    """The next run finishes the split, and once the service recovers, no row is lost and none is stored twice."""
    async with scene(drivers[0], POISON) as one:
        whole = await one.run()
        assert (whole.exit_code, sorted(whole.splits)) == (3, [2, 2, 3, 3]), "both exports are split twice"
        writes = Writes(whole)

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver, POISON) as one:
                outcome = await one.run(kill_at=write)
                if outcome.exit_code is not None:
                    writes.exhausted(write)
                    continue
                again = await one.run()
                assert (again.exit_code, again.missing) == (3, {MISSING}), write
                one.sandbox.behave(BEHAVIOUR)
                await one.finish()
                assert one.findings == Findings(), write
                totals.add(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_run_killed_at_any_time_is_finished_by_the_next(drivers, totals):
    """A kill between two writes, during one or during a request loses nothing either."""
    async with scene(drivers[0]) as one:
        began = time.monotonic()
        await one.run()
        run_seconds = time.monotonic() - began
    killed = 0

    async def take_turns(driver: Driver, chance: random.Random) -> None:
        nonlocal killed
        while killed < RANDOM_KILLS:
            async with scene(driver) as one:
                kill_seconds = chance.uniform(0.0, run_seconds)
                outcome = await one.run(kill_after=kill_seconds)
                killed += outcome.exit_code is None
                await one.finish()
                assert one.findings == Findings(), kill_seconds
                totals.add(one, outcome)

    await asyncio.gather(*(take_turns(driver, random.Random(SEED + lane)) for lane, driver in enumerate(drivers)))


@pytest.mark.timeout(900)
async def test_several_runs_killed_in_a_row_are_finished_by_the_last(drivers, totals):
    """A run that resumes after a kill may be killed too, and so may the next one."""

    async def some(driver: Driver, chance: random.Random) -> None:
        for _ in range(ROWS_OF_KILLS // len(drivers)):
            async with scene(driver) as one:
                outcomes = [await one.run(kill_at=("", chance.randrange(1, 60))) for _ in range(KILLS_IN_A_ROW)]
                await one.finish()
                assert one.findings == Findings(), [outcome.killed_at for outcome in outcomes]
                totals.add(one, *outcomes)

    await asyncio.gather(*(some(driver, random.Random(SEED - lane)) for lane, driver in enumerate(drivers)))


async def test_a_finished_range_sends_no_request(drivers):
    """When everything is stored, the same command sends no request."""
    async with scene(drivers[0]) as one:
        await one.run()
        one.sandbox.reset_counts()
        await one.finish()
        assert not any(one.sandbox.counts.values())
        assert one.findings == Findings()


async def test_the_check_finds_damage(drivers):
    """The check behind all these tests finds a truncated archive, a missing one, and duplicate rows."""
    async with scene(drivers[0]) as one:
        await one.run()
        cut, gone, doubled, _ = sorted(one.directory.glob("*/*/*.gz"))
        cut.write_bytes(cut.read_bytes()[:-1])
        gone.unlink()
        doubled.write_bytes(doubled.read_bytes() * 2)
        await one.finish()
        names = [str(path.relative_to(one.directory)) for path in (cut, gone, doubled)]
        assert sorted(one.findings.damaged) == [names[0], names[2]]
        assert sorted(one.findings.false_claims) == names
        assert one.findings.lost_rows > 0
        assert one.findings.duplicated_rows > 0
