"""The power goes, and with it all that was not flushed: what is left is whole, and enough to go on from."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.crash_rig import BEHAVIOUR, Driver, Findings, Scene, scene
from tests.power_cut_disk import PAGE, Disk, File, Folder, tree_of
from tests.power_cut_fs import why_not

pytestmark = pytest.mark.slow

WHY_NOT = why_not()

needs_fuse = pytest.mark.skipif(bool(WHY_NOT), reason=f"the power cannot be cut: {WHY_NOT}")

SEED = 20240101
CUTS = 64
CUTS_OF_NEW_TAKES = 24
CUTS_OF_REBUILDS = 24
ROWS_OF_CUTS = 6
CUTS_IN_A_ROW = 4


@dataclass(slots=True)
class Toll:
    """All the cuts in this file."""

    cuts: int = 0
    in_flight: int = 0
    extra_exports: int = 0

    def take(self, one: Scene) -> None:
        """Count what happened to a scene."""
        self.cuts += one.kills
        self.in_flight += one.in_flight
        self.extra_exports += one.extra_exports


@pytest.fixture(scope="module")
def toll(tell) -> Iterator[Toll]:
    whole = Toll()
    yield whole
    tell(
        f"power cut suite: {whole.cuts} cuts; {whole.in_flight} creates in flight, {whole.extra_exports} extra exports"
    )


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Driver]]:
    """Two, for runs side by side: while one waits for the service, another may write."""
    with Driver() as one, Driver() as other:
        yield [one, other]


async def cut(one: Scene, disk: Disk, before: int | None, chance: random.Random | None, **how) -> Disk:
    """Run until the power goes, or to the end, and then it goes; the disk that is left."""
    await one.run_on(disk, cut_before=before, **how)
    tree = disk.after_a_cut(chance)
    await one.survive(tree)
    return Disk(tree)


def torn(number: int) -> random.Random | None:
    """Every other time nothing survives that was not flushed; else a part of it."""
    return random.Random(SEED + number) if number % 2 else None


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_run_cut_at_any_moment_is_finished_by_the_next(drivers, toll):
    """Whenever the power goes, whatever of the unflushed survives: what is stored is there, and the rest is fetched."""
    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(Disk())
    moments = iter(range(1, changes, max(1, changes // CUTS)))

    async def take_turns(driver: Driver) -> None:
        for moment in moments:
            async with scene(driver) as one:
                await cut(one, Disk(), moment, torn(moment))
                await one.finish()
                assert one.findings == Findings(), moment
                toll.take(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_an_export_made_anew_is_cut_at_any_moment(drivers, toll):
    """The archive of an earlier take, or that of the new one: one of the two is there, and whole."""

    async def ran_once(one: Scene) -> Disk:
        await one.run()
        one.sandbox.behave(replace(BEHAVIOUR, delivery="members"))
        return Disk(tree_of(one.directory.parent))

    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(await ran_once(one), repair=True)
    moments = iter(range(1, changes, max(1, changes // CUTS_OF_NEW_TAKES)))

    async def take_turns(driver: Driver) -> None:
        for moment in moments:
            async with scene(driver) as one:
                await cut(one, await ran_once(one), moment, torn(moment), repair=True)
                await one.finish()
                assert one.findings == Findings(), moment
                toll.take(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_a_rebuild_is_cut_at_any_moment(drivers, toll):
    """A run after it refuses to begin, or has every row; so has one after a second rebuild. No old log is adopted."""

    async def killed_and_rotten(one: Scene) -> Disk:
        # The fourth archive has its name, and its row is in the log: in that moment the process is gone.
        await one.run(kill_at=("rename:after", 4))
        ledger = one.directory / ".asyncexport" / "ledger.sqlite3"
        assert ledger.with_name("ledger.sqlite3-wal").stat().st_size > 0
        ledger.write_bytes(b"rotten")
        cut_short = next(one.directory.glob("*/*/*.gz"))
        cut_short.write_bytes(cut_short.read_bytes()[:-1])
        return Disk(tree_of(one.directory.parent))

    async with scene(drivers[0]) as one:
        _, changes = await one.run_on(await killed_and_rotten(one), rebuild=True)
    moments = iter(range(1, changes + 1, max(1, changes // CUTS_OF_REBUILDS)))

    async def take_turns(driver: Driver) -> None:
        for moment in moments:
            for runs_first in (True, False):
                async with scene(driver) as one:
                    await cut(one, await killed_and_rotten(one), moment, torn(moment), rebuild=True)
                    toll.take(one)
                    one.findings = Findings()
                    if runs_first:
                        outcome = await one.run()
                        assert outcome.exit_code in (0, 7), moment
                        if outcome.exit_code == 0:
                            await one.finish()
                    if not runs_first or outcome.exit_code == 7:
                        await one.run(rebuild=True)
                        await one.finish()
                    found = one.findings
                    assert (found.lost_rows, found.duplicated_rows, found.false_claims) == (0, 0, []), moment

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.timeout(900)
async def test_the_power_goes_again_and_again(drivers, toll):
    """A run that goes on from a cut may be cut as well, and so may the one that goes on from that."""
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
                toll.take(one)

    await asyncio.gather(*map(take_turns, drivers))


@needs_fuse
@pytest.mark.parametrize(
    ("what", "shows_as"),
    [("files", "damaged"), ("folders", "unrecorded"), ("archives' folders", "false_claims"), ("ledger", "unrecorded")],
)
async def test_a_run_that_does_not_flush_is_found_out(what, shows_as, drivers):
    """Control: where a flush is left out, the same check sees what is lost by it, even after the end of the run."""
    async with scene(drivers[0]) as one:
        await cut(one, Disk(), None, None, careless=[what])
        assert getattr(one.findings, shows_as)


@needs_fuse
async def test_a_finished_run_is_not_undone(drivers):
    """When a run has ended and said that all is stored, the power may go at once."""
    async with scene(drivers[0]) as one:
        await cut(one, Disk(), None, None)
        one.sandbox.reset_counts()
        await one.finish()
        assert not any(one.sandbox.counts.values())
        assert one.findings == Findings()


def test_what_is_not_flushed_is_lost():
    """Data needs the flush of its file, a name that of its folder; neither does the other's work."""
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


def test_a_write_is_torn_at_page_borders():
    """Each page of what was not flushed survives or not, whatever becomes of the others."""
    file = File()
    file.write(PAGE // 2, b"x" * 2 * PAGE)
    pieces = [(0, PAGE // 2), (PAGE // 2, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 2 * PAGE + PAGE // 2)]
    left = {
        tuple(b"x" in file.surviving(random.Random(seed))[begin:end] for begin, end in pieces) for seed in range(100)
    }
    assert {one[1:] for one in left} == {(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)}
    assert not any(one[0] for one in left)


def test_a_rename_is_one_piece():
    """Either the old name is gone and the new one leads to the file, or nothing has happened."""
    folder, old, new = Folder(), File(), File()
    folder.add("part", new)
    folder.add("final", old)
    folder.flush()
    folder.rename("part", "final")
    left = [folder.surviving(random.Random(seed)) for seed in range(20)]
    assert {"final": new} in left
    assert {"part": new, "final": old} in left
    assert all(one in ({"final": new}, {"part": new, "final": old}) for one in left)
