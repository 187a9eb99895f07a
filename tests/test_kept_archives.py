"""Archives that were kept because far fewer rows came: nightly runs export their bundles until the rows are back."""

from dataclasses import replace

import pytest

from asyncexport.core.bundles import DAY
from asyncexport.core.states import FewerRows, Stored
from asyncexport.core.summary import Exit, Summary
from asyncexport.sandbox import SandboxFault
from tests.exporting import Notebook, archives
from tests.refresh_rig import LATER, Scene, refreshed, stopped_after_creates, stored

pytestmark = pytest.mark.slow


def counts(summary: Summary) -> tuple[int, int, int, int]:
    """Return the numbers of planned, already stored, newly stored and failed bundles."""
    tally = summary.tally
    return tally.planned, tally.stored_before, tally.stored, tally.failed


async def one_night_later(scene: Scene, **more) -> Summary:
    """Run `nightly` one day after the last run; no age of a refresh is reached in between."""
    scene.sandbox.skip(DAY)
    scene.sandbox.reset_counts()
    return await scene.nightly(**more)


async def keep(scene: Scene) -> None:
    """Store 100 rows of each bundle, and keep these archives in a night in which the service sends none."""
    for path in archives(scene.directory):
        path.unlink()
    scene.serve(100, 100)
    await scene.repair()
    assert scene.counts == [100, 100]
    scene.serve(0, 0)
    scene.sandbox.skip(LATER)
    summary = await scene.nightly(refresh_ages=(1.5 * LATER,))
    assert scene.counts == [100, 100]
    assert (summary.exit_code, refreshed(summary)) == (Exit.PARTIAL, (2, 0, 0, 0, 2))


async def test_a_kept_archive_is_replaced_once_the_rows_are_back(tmp_path):
    """The next night exports the bundle again, stores the rows that came since, and the bundle is no longer kept."""
    async with stored(tmp_path) as scene:
        complete = sum(scene.counts)
        await keep(scene)
        scene.serve(None, None)
        summary = await one_night_later(scene)
        assert (summary.exit_code, counts(summary)) == (Exit.DONE, (2, 0, 2, 0))
        assert refreshed(summary) == (2, 2, complete - 200, 0, 0)
        assert sum(scene.counts) == complete
        assert all(isinstance(one.state, Stored) for one in scene.records())
        summary = await one_night_later(scene)
        assert (summary.exit_code, scene.sandbox.counts["create"]) == (Exit.DONE, 0)


async def test_an_archive_that_is_kept_again_is_no_new_problem(tmp_path):
    """The run counts it under `kept` but ends with 0, and no run exports it until the next pause has ended."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        files = scene.files
        viewer = Notebook()
        summary = await one_night_later(scene, viewer=viewer)
        assert (summary.exit_code, counts(summary)) == (Exit.DONE, (2, 2, 0, 0))
        assert (refreshed(summary), summary.to_dict()["problems"]) == ((2, 0, 0, 0, 2), [])
        assert [event["rows_found"] for event in viewer.of("parked")] == [0, 0]
        assert (await scene.nightly()).tally.refreshed.bundles == 0
        assert scene.files == files
        assert all(one.state == FewerRows(100, 0) for one in scene.records())


async def test_a_kept_archive_is_exported_five_times_in_vain(tmp_path):
    """It is exported 1, 3, 7 and 15 days after it was first kept, and then only when it reaches another age."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        nights = [refreshed(await one_night_later(scene))[4] for _ in range(30)]
        assert [number for number, kept in enumerate(nights, 1) if kept] == [1, 3, 7, 15]
        summary = await scene.nightly(refresh_ages=(scene.sandbox.now - scene.records()[1].bundle.range.end,))
        assert (summary.exit_code, refreshed(summary)[4]) == (Exit.DONE, 2)


async def test_other_commands_leave_a_kept_archive(tmp_path):
    """A backfill and a retry do not export it, however long ago it was kept."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        scene.serve(None, None)
        scene.sandbox.skip(9 * DAY)
        for summary in (await scene.run(), await scene.retry()):
            assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 0)
        assert scene.sandbox.counts["create"] == 0


@pytest.mark.parametrize("command", ["run", "nightly", "retry"])
async def test_an_interrupted_export_of_a_kept_archive_is_no_consent(tmp_path, command):
    """Whichever run resumes it, the archive is kept if there are still far fewer rows."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        files = scene.files
        night = await one_night_later(scene, **stopped_after_creates(scene))
        assert night.exit_code is Exit.INTERRUPTED
        scene.sandbox.skip(3600)
        summary = await getattr(scene, command)()
        assert (summary.exit_code, refreshed(summary)) == (Exit.DONE, (2, 0, 0, 0, 2))
        assert scene.files == files


async def test_a_failed_export_of_a_kept_archive_is_no_consent(tmp_path):
    """If the service fails in between, the bundle is parked as failed, and the archive is still protected."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        files = scene.files
        scene.sandbox.behave(replace(scene.sandbox.behaviour, faults=(SandboxFault.parse("operation:FAILED"),)))
        assert (await one_night_later(scene)).exit_code is Exit.PARTIAL
        scene.serve(0, 0)
        summary = await one_night_later(scene)
        assert (summary.exit_code, refreshed(summary)) == (Exit.DONE, (2, 0, 0, 0, 2))
        assert scene.files == files


async def test_fewer_rows_are_accepted_while_a_kept_archive_is_exported_again(tmp_path):
    """`retry --accept-fewer` covers an interrupted export, too, because the row counts were reported before."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        night = await one_night_later(scene, **stopped_after_creates(scene))
        assert night.exit_code is Exit.INTERRUPTED
        scene.sandbox.skip(3600)
        summary = await scene.retry(accept_fewer=True)
        assert (summary.exit_code, scene.counts) == (Exit.DONE, [0, 0])


async def test_a_kept_archive_is_exported_again_without_refreshes(tmp_path):
    """An audit may have kept it, or the export of a bundle whose archive was not settled."""
    async with stored(tmp_path) as scene:
        await keep(scene)
        scene.serve(None, None)
        summary = await one_night_later(scene, refresh_ages=())
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 2)
