"""A refresh or repair that brings fewer rows: when the archive is kept, and how that is reported and resolved."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from asyncexport.core.states import Failed, FewerRows, Stored
from asyncexport.core.summary import Exit
from asyncexport.run.findings import Intact
from asyncexport.run.spec import Nightly
from asyncexport.run.survey import survey
from asyncexport.run.verify import verify
from asyncexport.sandbox import SandboxFault
from tests.exporting import Notebook, archives, moment, rows_in, settings_for
from tests.refresh_rig import END, LATER, NAME, START, interrupt_a_night, refreshed, stopped_after_creates, stored

pytestmark = pytest.mark.slow


async def test_a_refresh_with_the_same_rows_in_other_bytes_leaves_the_files_alone(tmp_path):
    """If a refresh brings the same rows in other bytes, the files stay untouched and nothing counts as changed."""
    async with stored(tmp_path) as scene:
        files, before = scene.files, scene.records()
        dates = [path.stat().st_mtime_ns for path in archives(tmp_path)]
        scene.sandbox.behave(replace(scene.sandbox.behaviour, delivery="plain"))
        assert refreshed(await scene.nightly()) == (2, 0, 0, 0, 0)
        assert (await scene.repair()).exit_code is Exit.DONE
        assert scene.files == files
        assert [path.stat().st_mtime_ns for path in archives(tmp_path)] == dates
        after = scene.records()
        assert [one.revision for one in after] == [2, 2]
        assert [one.stored and one.stored.written_by for one in after] == [0, 0]
        assert [one.stored and one.stored.sha256 for one in after] == [
            one.stored and one.stored.sha256 for one in before
        ]
        assert [type(finding) async for finding in verify(tmp_path)] == [Intact, Intact]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.85], ids=["empty", "half", "fifteen percent fewer"])
async def test_a_refresh_with_far_fewer_rows_replaces_nothing(tmp_path, share):
    """If far fewer rows come, the archive and its ledger row stay, both counts are reported, and the exit code is 3."""
    async with stored(tmp_path) as scene:
        files, records = scene.files, scene.records()
        before, _ = scene.counts
        found = int(before * share)
        scene.serve(found, None)
        viewer = Notebook()
        summary = await scene.nightly(viewer=viewer)
        assert summary.exit_code is Exit.PARTIAL
        assert scene.files == files
        assert [one.stored for one in scene.records()] == [records[0].stored, scene.records()[1].state]
        assert scene.records()[0].state == FewerRows(before, found)
        assert refreshed(summary) == (2, 0, 0, 0, 1)
        (problem,) = summary.to_dict()["problems"]
        reason = f"the archive was kept because the new export has far fewer rows: {found} instead of {before}"
        assert (problem["start"], problem["reason"]) == (START, reason)
        assert (problem["rows_before"], problem["rows_found"]) == (before, found)
        (parked,) = viewer.of("parked")
        assert (parked["reason"], parked["rows_before"], parked["rows_found"]) == (reason, before, found)
        (event,) = viewer.of("stored")
        assert (event["refresh"], event["rows_before"]) == (True, event["rows"])
        assert (summary.tally.planned, summary.tally.stored, summary.tally.failed) == (2, 1, 1)
        assert not list(tmp_path.rglob("*.part"))


async def test_a_rejected_refresh_is_not_repeated(tmp_path):
    """Later runs count a bundle whose archive was kept as done, send no request for it, and exit with 0."""
    async with stored(tmp_path) as scene:
        scene.serve(0, None)
        await scene.nightly()
        files = scene.files
        scene.serve(None, None)
        for again in (await scene.nightly(), await scene.nightly(), await scene.run()):
            assert (again.exit_code, again.tally.stored_before, again.tally.planned) == (Exit.DONE, 2, 2)
            assert refreshed(again) == (0, 0, 0, 0, 0)
        viewer = Notebook()
        assert (await scene.retry(viewer=viewer)).exit_code is Exit.DONE
        (note,) = viewer.of("note")
        assert note["message"].startswith(
            f"{NAME}: 1 bundle keeps its archive because far fewer rows came; `retry --acc"
        )
        assert scene.requests == 0
        assert scene.files == files


async def test_a_small_loss_of_rows_is_accepted_and_counted(tmp_path):
    """A refresh with a few rows fewer replaces the archive and counts the removed rows, as after a deletion request."""
    async with stored(tmp_path) as scene:
        first, second = scene.counts
        scene.serve(first - 5, second - 19)
        summary = await scene.nightly()
        assert summary.exit_code is Exit.DONE
        assert scene.counts == [first - 5, second - 19]
        assert refreshed(summary) == (2, 2, 0, 24, 0)
        assert summary.to_dict()["problems"] == []
        assert rows_in(tmp_path).total() == first + second - 24


async def test_a_loss_of_five_rows_of_twenty_is_accepted(tmp_path):
    """A large share of few rows may go, but an archive is not replaced by an empty one."""
    async with stored(tmp_path) as scene:
        scene.serve(20, 20)
        for path in archives(tmp_path):
            path.unlink()
        await scene.repair()
        assert scene.counts == [20, 20]
        scene.serve(15, 0)
        summary = await scene.repair()
        assert summary.exit_code is Exit.PARTIAL
        assert scene.counts == [15, 20]
        assert refreshed(summary) == (2, 1, 0, 5, 1)


async def test_accept_fewer_replaces_kept_archives(tmp_path):
    """`retry --accept-fewer` exports the kept bundles again, within the range if one is given, and exits with 0."""
    async with stored(tmp_path) as scene:
        first, second = scene.counts
        scene.serve(0, 7)
        assert refreshed(await scene.nightly()) == (2, 0, 0, 0, 2)
        scene.sandbox.reset_counts()
        summary = await scene.retry(accept_fewer=True, start=START, end="2026-01-01T20:30:00Z")
        assert (summary.exit_code, summary.to_dict()["problems"]) == (Exit.DONE, [])
        assert scene.sandbox.counts["create"] == 1
        assert scene.counts == [0, second]
        assert refreshed(summary) == (1, 1, 0, first, 0)
        summary = await scene.retry(accept_fewer=True)
        assert summary.exit_code is Exit.DONE
        assert scene.counts == [0, 7]
        assert refreshed(summary) == (1, 1, 0, second - 7, 0)
        scene.sandbox.reset_counts()
        assert (await scene.retry(accept_fewer=True)).exit_code is Exit.DONE
        assert scene.requests == 0


async def test_rows_that_return_leave_the_archive_unchanged(tmp_path):
    """If `retry --accept-fewer` gets all rows again, the archive stays unchanged and the bundle counts as stored."""
    async with stored(tmp_path) as scene:
        files = scene.files
        scene.serve(0, 0)
        await scene.nightly()
        scene.serve(None, None)
        summary = await scene.retry(accept_fewer=True)
        assert summary.exit_code is Exit.DONE
        assert refreshed(summary) == (2, 0, 0, 0, 0)
        assert scene.files == files
        assert all(isinstance(one.state, Stored) for one in scene.records())


@pytest.mark.parametrize("command", ["the same", "retry", "nightly", "after failures"])
async def test_accepting_fewer_rows_survives_an_interruption(tmp_path, command):
    """Any later run finishes an interrupted `retry --accept-fewer` without asking for the acceptance again."""
    async with stored(tmp_path) as scene:
        scene.serve(0, 0)
        assert refreshed(await scene.nightly()) == (2, 0, 0, 0, 2)
        if command == "after failures":
            scene.sandbox.behave(replace(scene.sandbox.behaviour, faults=(SandboxFault.parse("operation:FAILED"),)))
            assert (await scene.retry(accept_fewer=True)).exit_code is Exit.PARTIAL
            assert all(isinstance(one.state, Failed) for one in scene.records())
            scene.serve(0, 0)
        else:
            accepting = await scene.retry(accept_fewer=True, **stopped_after_creates(scene))
            assert accepting.exit_code is Exit.INTERRUPTED
            scene.sandbox.skip(86_400)
        match command:
            case "nightly":
                summary = await scene.nightly()
            case "retry" | "after failures":
                summary = await scene.retry()
            case _:
                summary = await scene.retry(accept_fewer=True)
        assert summary.exit_code is Exit.DONE
        assert scene.counts == [0, 0]


async def test_accept_fewer_applies_only_to_kept_archives(tmp_path):
    """A refresh interrupted before its row counts were reported keeps the archive even under `--accept-fewer`."""
    async with stored(tmp_path) as scene:
        await interrupt_a_night(scene)
        scene.sandbox.skip(86_400)
        summary = await scene.retry(accept_fewer=True)
        assert summary.exit_code is Exit.PARTIAL
        assert refreshed(summary) == (2, 0, 0, 0, 2)


def damaged(paths: Iterable[Path]) -> None:
    """Delete the first file and truncate the second."""
    first, second = paths
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])


async def test_a_repair_with_far_fewer_rows_is_reported(tmp_path, caplog):
    """A repair stores what it gets, because no intact archive is left, reports both row counts, and exits with 3."""
    async with stored(tmp_path) as scene:
        first, second = scene.counts
        damaged(archives(tmp_path))
        scene.serve(3, second - 2)
        viewer = Notebook()
        summary = await scene.repair(viewer=viewer)
        assert summary.exit_code is Exit.PARTIAL
        assert scene.counts == [3, second - 2]
        assert rows_in(tmp_path).total() == second + 1
        (problem,) = summary.to_dict()["problems"]
        assert problem["reason"].endswith(f"far fewer rows: 3 instead of {first}")
        assert (problem["rows_before"], problem["rows_found"]) == (first, 3)
        assert {(event["rows_before"], event["rows"]) for event in viewer.of("stored")} == {
            (first, 3),
            (second, second - 2),
        }
        assert f"repaired with fewer rows: {second - 2} instead of {second}" in caplog.text
        assert (summary.tally.planned, summary.tally.stored, summary.tally.failed) == (2, 2, 0)
        assert (await scene.run()).exit_code is Exit.DONE


async def test_a_repair_with_all_its_rows_is_done(tmp_path):
    """A repair that brings back all rows exits with 0 and removes no rows."""
    async with stored(tmp_path) as scene:
        damaged(archives(tmp_path))
        scene.serve(None, None)
        summary = await scene.repair()
        assert summary.exit_code is Exit.DONE
        assert refreshed(summary) == (2, 0, 0, 0, 0)


async def test_an_archive_that_was_kept_can_be_repaired(tmp_path):
    """If an archive that was kept for its rows is damaged later, a repair exports it again and stores what it gets."""
    async with stored(tmp_path) as scene:
        scene.serve(0, 0)
        await scene.nightly()
        damaged(archives(tmp_path))
        scene.serve(None, 4)
        summary = await scene.repair()
        assert summary.exit_code is Exit.PARTIAL
        assert [problem["rows_found"] for problem in summary.to_dict()["problems"]] == [4]
        assert all(isinstance(one.state, Stored) for one in scene.records())


@pytest.mark.parametrize("missing", [False, True], ids=["intact", "missing"])
async def test_a_resumed_refresh_still_protects_the_archive(tmp_path, missing):
    """When a run resumes an interrupted refresh, an intact archive is kept and a missing one is replaced."""
    async with stored(tmp_path) as scene:
        files = scene.files
        await interrupt_a_night(scene)
        assert scene.files == files
        if missing:
            for path in archives(tmp_path):
                path.unlink()
        scene.sandbox.skip(86_400)
        summary = await scene.run()
        assert summary.exit_code is Exit.PARTIAL
        assert scene.counts == ([0, 0] if missing else [one.stored.rows for one in scene.records() if one.stored])
        assert missing or scene.files == files
        assert refreshed(summary)[4] == (0 if missing else 2)


async def test_a_survey_of_a_nightly_run_counts_its_refreshes(tmp_path):
    """The survey counts the bundles that the nightly run would refresh."""
    async with stored(tmp_path) as scene:
        settings = settings_for(scene.sandbox, tmp_path, {"nightly": {"since": START}})
        for ages, count in (((LATER,), 2), ((), 0)):
            found = survey(settings, Nightly(settings.exports, moment(END), ages), now=scene.sandbox.now)
            assert sum(plan.count for plan in found.plans) == count
