"""Power cuts, which lose everything that was not flushed: the rest is intact, and the next run resumes from it."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.crash_rig import BEHAVIOUR, POISON, Driver, Findings, Scene, scene
from tests.power_cut_disk import PAGE, Disk, File, Folder, read_tree
from tests.power_cut_fs import unavailable_reason

pytestmark = pytest.mark.slow

UNAVAILABLE = unavailable_reason()

needs_fuse = pytest.mark.skipif(bool(UNAVAILABLE), reason=f"power cuts cannot be simulated: {UNAVAILABLE}")

SEED = 20240101
CUTS = 64
CUTS_OF_REPAIRS = 24
CUTS_OF_REBUILDS = 24
CUTS_OF_SPLITS = 24
ROWS_OF_CUTS = 6
CUTS_IN_A_ROW = 4


@dataclass(slots=True)
class Totals:
    """The totals of all power cuts in this file."""

    cuts: int = 0
    in_flight: int = 0
    extra_exports: int = 0

    def add(self, one: Scene) -> None:
        """Add the power cuts of a scene."""
        self.cuts += one.kills
        self.in_flight += one.in_flight
        self.extra_exports += one.extra_exports


@pytest.fixture(scope="module")
def totals(summary_line) -> Iterator[Totals]:
    found = Totals()
    yield found
    summary_line(
        f"power cut suite: {found.cuts} cuts; {found.in_flight} creates in flight, {found.extra_exports} extra exports"
    )


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two drivers for parallel runs: while one run waits for the service, the other can write."""
    with Driver() as one, Driver() as other:
        yield [one, other]


async def cut(one: Scene, disk: Disk, before: int | None, chance: random.Random | None, **how) -> Disk:
    """Run until the power cut, which comes after the run if `before` is None; return the disk that is left."""
    await one.run_on(disk, cut_before=before, **how)
    tree = disk.after_power_cut(chance)
    await one.restore(tree)
    return Disk(tree)


def torn(number: int) -> random.Random | None:
    """For odd numbers, let a random part of the unflushed data survive; otherwise nothing of it."""
    return random.Random(SEED + number) if number % 2 else None


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_run_with_a_power_cut_at_any_time_is_finished_by_the_next(drivers, totals):
    """Stored archives survive whatever happens to unflushed data, and the next run exports the rest."""
    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(Disk())
    changes_to_cut = iter(range(1, changes, max(1, changes // CUTS)))

    async def take_turns(driver: Driver) -> None:
        for change in changes_to_cut:
            async with scene(driver) as one:
                await cut(one, Disk(), change, torn(change))
                await one.finish()
                assert one.findings == Findings(), change
                totals.add(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_repair_may_lose_power_at_any_time(drivers, totals):
    """Either the archive of the earlier revision or that of the new one is on disk, and intact."""

    async def after_one_run(one: Scene) -> Disk:
        await one.run()
        one.sandbox.behave(replace(BEHAVIOUR, delivery="members"))
        return Disk(read_tree(one.directory.parent))

    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(await after_one_run(one), repair=True)
    changes_to_cut = iter(range(1, changes, max(1, changes // CUTS_OF_REPAIRS)))

    async def take_turns(driver: Driver) -> None:
        for change in changes_to_cut:
            async with scene(driver) as one:
                await cut(one, await after_one_run(one), change, torn(change), repair=True)
                await one.finish()
                assert one.findings == Findings(), change
                totals.add(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_run_that_splits_a_bundle_may_lose_power_at_any_time(drivers, totals):
    """Either the bundle is there or all of its pieces are, and the next run exports what is missing exactly once."""
    async with scene(drivers[0], POISON) as one:
        _, changes = await one.run_on(Disk())
    changes_to_cut = iter(range(1, changes, max(1, changes // CUTS_OF_SPLITS)))

    async def take_turns(driver: Driver) -> None:
        for change in changes_to_cut:
            async with scene(driver, POISON) as one:
                await cut(one, Disk(), change, torn(change))
                one.sandbox.behave(BEHAVIOUR)
                # An operation that failed before the service recovered may be the last attempt of a piece.
                resumed = await one.run()
                assert resumed.exit_code in (0, 3), change
                await one.finish()
                assert one.findings == Findings(), change
                totals.add(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_rebuild_may_lose_power_at_any_time(drivers, totals):
    """The next run refuses to start or stores every row, as does a run after a second rebuild; no old WAL is used."""

    async def killed_with_a_damaged_ledger(one: Scene) -> Disk:
        # The process is killed when the fourth archive has its name and the ledger's last rows are in the WAL.
        await one.run(kill_at=("rename:after", 4))
        ledger = one.directory / ".asyncexport" / "ledger.sqlite3"
        assert ledger.with_name("ledger.sqlite3-wal").stat().st_size > 0
        ledger.write_bytes(b"rotten")
        cut_short = next(one.directory.glob("*/*/*.gz"))
        cut_short.write_bytes(cut_short.read_bytes()[:-1])
        return Disk(read_tree(one.directory.parent))

    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(await killed_with_a_damaged_ledger(one), rebuild=True)
    changes_to_cut = iter(range(1, changes + 1, max(1, changes // CUTS_OF_REBUILDS)))

    async def take_turns(driver: Driver) -> None:
        for change in changes_to_cut:
            for runs_first in (True, False):
                async with scene(driver) as one:
                    await cut(one, await killed_with_a_damaged_ledger(one), change, torn(change), rebuild=True)
                    totals.add(one)
                    one.findings = Findings()
                    if runs_first:
                        outcome = await one.run()
                        assert outcome.exit_code in (0, 7), change
                        if outcome.exit_code == 0:
                            await one.finish()
                    if not runs_first or outcome.exit_code == 7:
                        await one.run(rebuild=True)
                        await one.finish()
                    found = one.findings
                    assert (found.lost_rows, found.duplicated_rows, found.false_claims) == (0, 0, []), change

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_several_power_cuts_in_a_row_lose_nothing(drivers, totals):
    """A run that resumes after a power cut may lose power too, and so may the next one."""
    rows = iter(range(ROWS_OF_CUTS))

    async def take_turns(driver: Driver) -> None:
        for row in rows:
            chance = random.Random(SEED + row)
            async with scene(driver) as one:
                disk = Disk()
                for _ in range(CUTS_IN_A_ROW):
                    disk = await cut(one, disk, chance.randrange(1, 200), chance)
                await one.finish()
                assert one.findings == Findings(), row
                totals.add(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.parametrize(
    ("what", "shows_as"),
    [("files", "damaged"), ("folders", "unrecorded"), ("archives' folders", "false_claims"), ("ledger", "unrecorded")],
)
async def test_the_check_finds_a_missing_flush(what, shows_as, drivers):
    """If a run leaves out a flush, a power cut after its end loses data, and the check finds it."""
    async with scene(drivers[0]) as one:
        await cut(one, Disk(), None, None, unflushed=[what])
        assert getattr(one.findings, shows_as)


@needs_fuse
async def test_a_power_cut_after_a_finished_run_loses_nothing(drivers):
    """When a run has reported that everything is stored, the power may be cut immediately."""
    async with scene(drivers[0]) as one:
        await cut(one, Disk(), None, None)
        one.sandbox.reset_counts()
        await one.finish()
        assert not any(one.sandbox.counts.values())
        assert one.findings == Findings()


def test_unflushed_data_is_lost():
    """Data survives if its file was flushed, and a name if its folder was; one flush does not replace the other."""
    folder, file = Folder(), File()
    folder.add("name", file)
    file.write(0, b"data")
    assert folder.surviving(None) == {}
    folder.flush()
    assert folder.surviving(None) == {"name": file}
    assert file.surviving(None) == b""
    file.flush()
    file.write(2, b"more")
    assert file.surviving(None) == b"data"


def test_a_write_is_torn_at_page_boundaries():
    """Each page of an unflushed write survives or not, independently of the others."""
    file = File()
    file.write(PAGE // 2, b"x" * 2 * PAGE)
    pieces = [(0, PAGE // 2), (PAGE // 2, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 2 * PAGE + PAGE // 2)]
    left = {
        tuple(b"x" in file.surviving(random.Random(seed))[begin:end] for begin, end in pieces) for seed in range(100)
    }
    assert {one[1:] for one in left} == {(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)}
    assert not any(one[0] for one in left)


def test_a_rename_is_atomic():
    """Either the old name is gone and the new one refers to the file, or nothing has changed."""
    folder, old, new = Folder(), File(), File()
    folder.add("part", new)
    folder.add("final", old)
    folder.flush()
    folder.rename("part", "final")
    left = [folder.surviving(random.Random(seed)) for seed in range(20)]
    assert {"final": new} in left
    assert {"part": new, "final": old} in left
    assert all(one in ({"final": new}, {"part": new, "final": old}) for one in left)
