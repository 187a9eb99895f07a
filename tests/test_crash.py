"""Killed at every write and at any moment: what lies on the disk is whole, and the next run goes on from there."""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from asyncexport.sandbox import SandboxFault
from tests.crash_rig import BEHAVIOUR, Driver, Findings, Outcome, Scene, Writes, scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are held by handles that Linux alone has"),
]

SEED = 20240101
RANDOM_KILLS = 36
ROWS_OF_KILLS = 6
KILLS_IN_A_ROW = 5


@dataclass(slots=True)
class Toll:
    """All that was killed in this file."""

    kills: int = 0
    at: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    extra_exports: int = 0

    def take(self, one: Scene, *outcomes: Outcome) -> None:
        """Count what happened to a scene."""
        self.kills += one.kills
        self.at.update(outcome.killed_at for outcome in outcomes if outcome.killed_at)
        self.in_flight += one.in_flight
        self.extra_exports += one.extra_exports


@pytest.fixture(scope="module")
def toll(tell) -> Iterator[Toll]:
    whole = Toll()
    yield whole
    tell(
        f"crash suite: {whole.kills} kills, {whole.at.total()} of them at {len(whole.at)} kinds of write; "
        f"{whole.in_flight} creates in flight, {whole.extra_exports} extra exports"
    )


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two, for runs side by side: while one waits for the service, another may write."""
    with Driver() as one, Driver() as other:
        yield [one, other]


@pytest.mark.timeout(900)
async def test_a_run_killed_at_any_write_is_finished_by_the_next(drivers, toll):
    """Whatever a run was about to write, or had just written: nothing is lost, and nothing done twice."""
    async with scene(drivers[0]) as one:
        writes = Writes(await one.run())
    killed_at = set()

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                outcome = await one.run(kill_at=write)
                if outcome.exit_code is not None:
                    writes.no_more(write)
                    continue
                await one.finish()
                assert one.findings == Findings(), write
                killed_at.add(outcome.killed_at)
                toll.take(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))
    assert writes.kinds == killed_at


@pytest.mark.timeout(900)
async def test_an_export_made_anew_is_killed_at_any_write(drivers, toll):
    """A new take of a bundle leaves its archive whole until the new one is, and is ended by the next run."""
    async with scene(drivers[0]) as one:
        await one.run()
        writes = Writes(await one.run(repair=True))

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                await one.run()
                # The same rows in other bytes, so that the files have to be replaced.
                one.sandbox.behave(replace(BEHAVIOUR, delivery="members"))
                outcome = await one.run(repair=True, kill_at=write)
                if outcome.exit_code is not None:
                    writes.no_more(write)
                await one.finish()
                assert one.findings == Findings(), write
                toll.take(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_refresh_that_is_refused_is_killed_at_any_write(drivers, toll):
    """Before the decision and after it the old archives lie there whole, and the next run decides the same."""
    empty = replace(BEHAVIOUR, faults=(SandboxFault("operation", "fewer-rows"),))
    async with scene(drivers[0]) as one:
        await one.run()
        one.sandbox.behave(empty)
        whole = await one.run(repair=True)
        assert whole.summary is not None
        assert (whole.exit_code, whole.summary["refreshed"]["kept"]) == (3, 4)
        writes = Writes(whole)
        assert "rename:before" not in writes.kinds

    async def take_turns(driver: Driver) -> None:
        while write := writes.next():
            async with scene(driver) as one:
                await one.run()
                one.sandbox.behave(empty)
                outcome = await one.run(repair=True, kill_at=write)
                if outcome.exit_code is not None:
                    writes.no_more(write)
                # What the killed run had begun is refused now; after that there is nothing to do.
                await one.run()
                await one.finish()
                assert one.findings == Findings(), write
                toll.take(one, outcome)

    await asyncio.gather(*map(take_turns, drivers))


@pytest.mark.timeout(900)
async def test_a_run_killed_at_any_moment_is_finished_by_the_next(drivers, toll):
    """Between two writes, in the midst of one, on the wire: it makes no difference."""
    async with scene(drivers[0]) as one:
        began = time.monotonic()
        await one.run()
        whole_life_seconds = time.monotonic() - began
    killed = 0

    async def take_turns(driver: Driver, chance: random.Random) -> None:
        nonlocal killed
        while killed < RANDOM_KILLS:
            async with scene(driver) as one:
                life_seconds = chance.uniform(0.0, whole_life_seconds)
                outcome = await one.run(kill_after=life_seconds)
                killed += outcome.exit_code is None
                await one.finish()
                assert one.findings == Findings(), life_seconds
                toll.take(one, outcome)

    await asyncio.gather(*(take_turns(driver, random.Random(SEED + lane)) for lane, driver in enumerate(drivers)))


@pytest.mark.timeout(900)
async def test_run_after_run_is_killed_and_the_last_one_finishes(drivers, toll):
    """A run that goes on from a kill may be killed as well, and so may the one that goes on from that."""

    async def some(driver: Driver, chance: random.Random) -> None:
        for _ in range(ROWS_OF_KILLS // len(drivers)):
            async with scene(driver) as one:
                outcomes = [await one.run(kill_at=("", chance.randrange(1, 60))) for _ in range(KILLS_IN_A_ROW)]
                await one.finish()
                assert one.findings == Findings(), [outcome.killed_at for outcome in outcomes]
                toll.take(one, *outcomes)

    await asyncio.gather(*(some(driver, random.Random(SEED - lane)) for lane, driver in enumerate(drivers)))


async def test_a_finished_range_asks_for_nothing(drivers):
    """Once all is stored, the same command again sends not one request."""
    async with scene(drivers[0]) as one:
        await one.run()
        one.sandbox.reset_counts()
        await one.finish()
        assert not any(one.sandbox.counts.values())
        assert one.findings == Findings()


async def test_what_is_wrong_is_seen(drivers):
    """The check that all of this rests on finds an archive cut short, one that is gone, and rows there twice."""
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
