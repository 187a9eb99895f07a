"""Audits against the sandbox: rows that come late are found, and replaced or kept as by a refresh."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.config import ApiKey
from asyncexport.core.auditing import AuditSample
from asyncexport.core.bundles import ALL_TIME, DAY, HOUR, show
from asyncexport.core.events import Event
from asyncexport.core.states import BundleRecord, Created, FewerRows, Stored
from asyncexport.core.summary import Exit, Summary
from asyncexport.display import closing_line, closing_lines
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import LedgerReader, hold
from asyncexport.run.monitored import ends_as_it_should
from asyncexport.run.run import export
from asyncexport.run.spec import Audit, Nightly
from asyncexport.run.survey import survey
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import Notebook, archives, clock_of, rows_in, run, settings_for, truth
from tests.json_lines import check

pytestmark = pytest.mark.slow

SERVICE = SandboxBehaviour(
    operation_seconds=0.01, rows_per_hour=120, requests_per_minute=1e6, burst=10_000, everyone_seconds=1e9, quiet=0.0
)

LATE = replace(SERVICE, late_share=0.3, late_seconds=48.0 * HOUR)
"""Three rows in ten reach the service 48 hours after they happened."""

NAME = "everyone-events"

SIX_HOURS: dict[str, Any] = {"export": [{"bundle": "6h"}]}
"""Four bundles a day."""


def sample(count: int, *, seed: int = 1, older_than: float = 2.0 * DAY) -> AuditSample:
    """Return a sample."""
    return AuditSample(count, seed, older_than)


@dataclass
class Scene:
    """A directory that is audited, and the sandbox that its archives come from."""

    sandbox: Sandbox
    directory: Path
    start: int

    async def night(self, **more: Any) -> Summary:
        """Run `nightly` over everything that is settled."""
        order = {"kind": Nightly, "start": show(self.start), "end": None, "changes": SIX_HOURS, **more}
        return await run(self.sandbox, self.directory, host_clock=clock_of(self.sandbox), **order)

    async def audit(self, chosen: AuditSample, **more: Any) -> Summary:
        """Run `audit`."""
        settings = settings_for(self.sandbox, self.directory, more.pop("changes", SIX_HOURS))
        viewer: Notebook | None = more.pop("viewer", None)
        return await export(
            settings,
            Audit(settings.exports, chosen),
            key=ApiKey(self.sandbox.key),
            listeners=() if viewer is None else (viewer.on_event,),
            host_clock=clock_of(self.sandbox),
            **{"waits": True, "check_seconds": 0.02, **more},
        )

    def records(self) -> list[BundleRecord]:
        """Return the records of all stored bundles."""
        with LedgerReader(self.directory) as ledger:
            return list(ledger.stored(NAME, ALL_TIME))

    def serve_fewer(self, rows: int) -> None:
        """Let all later exports have this many rows."""
        fault = SandboxFault.parse(f"operation:fewer-rows,rows={rows}")
        self.sandbox.behave(replace(self.sandbox.behaviour, faults=(fault,)))


async def stored(sandbox: Sandbox, directory: Path, *, days: int) -> Scene:
    """Store these days with a backfill that runs 27 hours after the end of the last one."""
    start = int(sandbox.now) // DAY * DAY
    sandbox.skip(start + (days + 1) * DAY + 3 * HOUR - sandbox.now)
    scene = Scene(sandbox, directory, start)
    await run(
        sandbox,
        directory,
        start=show(start),
        end=show(start + days * DAY),
        changes=SIX_HOURS,
        host_clock=clock_of(sandbox),
    )
    assert len(scene.records()) == 4 * days
    return scene


def audited(summary: Summary) -> dict[str, Any]:
    """Return what the summary says of the audit, without the curve."""
    found: dict[str, Any] = check(summary.to_dict())["audited"]
    return {key: value for key, value in found.items() if key != "curve"}


async def test_an_audit_without_differences_changes_nothing(tmp_path):
    """Bundles with the same rows keep their files, and the summary says what that proves."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=3)
        files = [(path, path.read_bytes(), path.stat().st_ino) for path in archives(tmp_path)]
        sandbox.skip(5 * DAY)
        sandbox.behave(replace(sandbox.behaviour, delivery="plain"))
        sandbox.reset_counts()
        viewer = Notebook()
        summary = await scene.audit(sample(5), viewer=viewer)
        assert sandbox.counts["create"] == 5
    assert summary.exit_code is Exit.DONE
    assert [(path, path.read_bytes(), path.stat().st_ino) for path in archives(tmp_path)] == files
    found = audited(summary)
    assert (found["sampled"], found["compared"], found["differ"], found["kept"]) == (5, 5, 0, 0)
    assert (found["share_below"], found["rows_added"], found["rows_removed"]) == (0.450720, 0, 0)
    assert summary.to_dict()["bundles"] == {
        "planned": 5, "already": 0, "stored": 5, "empty": 0, "failed": 0, "unfinished": 0,
    }  # fmt: skip
    assert summary.to_dict()["refreshed"]["bundles"] == 0
    lines = viewer.of("audited")
    assert len(lines) == 5
    assert all(line["rows_before"] == line["rows_found"] and not line["differs"] for line in lines)
    assert sorted(one.revision for one in scene.records()) == [0] * 7 + [1] * 5


async def test_an_audit_finds_late_rows_and_says_how_late_they_came(tmp_path):
    """Each bundle that was exported before its late rows came differs, and afterwards has all rows."""
    async with serving(LATE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=5)
        before = {one.bundle: one.stored for one in scene.records()}
        sandbox.skip(10 * DAY)
        lacking = truth(sandbox, show(scene.start), show(scene.start + 5 * DAY)).total() - rows_in(tmp_path).total()
        assert lacking > 0
        viewer = Notebook()
        summary = await scene.audit(sample(20), viewer=viewer)
        assert rows_in(tmp_path) == truth(sandbox, show(scene.start), show(scene.start + 5 * DAY))
    found = check(summary.to_dict())["audited"]
    assert (summary.exit_code, found["compared"], found["rows_added"]) == (Exit.DONE, 20, lacking)
    late = {one["start"] for one in viewer.of("audited") if one["differs"]}
    young = [one for one, archive in before.items() if archive and archive.exported_at - one.range.end < 48 * HOUR]
    assert late == {show(one.range.start) for one in young}
    for step in found["curve"]:
        assert step["differ"] == (step["bundles"] if step["from_seconds"] < 48 * HOUR else 0)
    assert found["differ"] == len(young) == 4 == sum(step["differ"] for step in found["curve"])
    assert sum(step["rows_added"] for step in found["curve"]) == lacking


async def test_an_audit_keeps_archives_if_far_fewer_rows_come(tmp_path):
    """The archives stay, the bundles are parked with both counts, and the exit code is 3."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=2)
        files = [path.read_bytes() for path in archives(tmp_path)]
        sandbox.skip(5 * DAY)
        scene.serve_fewer(1)
        viewer = Notebook()
        summary = await scene.audit(sample(3), viewer=viewer)
    assert summary.exit_code is Exit.PARTIAL
    found = audited(summary)
    assert (found["compared"], found["differ"], found["kept"], found["share_below"]) == (3, 3, 3, None)
    assert [path.read_bytes() for path in archives(tmp_path)] == files
    assert [line["kept"] for line in viewer.of("audited")] == [True] * 3
    assert sum(isinstance(one.state, FewerRows) for one in scene.records()) == 3
    assert len(summary.to_dict()["problems"]) == 3


async def test_bundles_compared_lately_are_chosen_last(tmp_path):
    """Two audits in a week choose different bundles; a third one takes what is left and then the others."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=2)
        sandbox.skip(5 * DAY)
        for seed in (1, 2):
            assert (await scene.audit(sample(3, seed=seed))).exit_code is Exit.DONE
        assert sorted(one.revision for one in scene.records()) == [0, 0, 1, 1, 1, 1, 1, 1]
        await scene.audit(sample(4))
        assert sorted(one.revision for one in scene.records()) == [1, 1, 1, 1, 1, 1, 2, 2]


async def test_only_bundles_above_the_age_are_chosen(tmp_path):
    """If fewer bundles are old enough, all of those are audited and a note says so."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=4)
        viewer = Notebook()
        summary = await scene.audit(sample(60, older_than=3.0 * DAY), viewer=viewer)
        old = [one for one in scene.records() if one.bundle.range.end <= sandbox.now - 3 * DAY]
    assert audited(summary)["compared"] == len(old) == 8
    (note,) = viewer.of("note")
    assert note["message"] == "60 bundles were to be audited, but only 8 can be: stored, settled and older than 3 d"


async def test_an_audit_leaves_out_what_it_cannot_compare(tmp_path):
    """Parked bundles and archives that are missing on disk are left alone and do not fail the audit."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=2)
        sandbox.skip(5 * DAY)
        scene.serve_fewer(1)
        await scene.audit(sample(2))
        sandbox.behave(SERVICE)
        gone = next(one.stored for one in scene.records() if isinstance(one.state, Stored) and one.stored)
        (tmp_path / gone.path).unlink()
        sandbox.reset_counts()
        summary = await scene.audit(sample(60, seed=2))
        assert sandbox.counts["create"] == 5
    assert (summary.exit_code, audited(summary)["compared"]) == (Exit.DONE, 5)
    assert not (tmp_path / gone.path).exists()


async def test_a_damaged_archive_is_reported_and_not_compared(tmp_path):
    """Whether bytes are missing or other bytes: it says nothing about late rows, and the exit code is 3.

    `verify --repair` is what exports it again, so the audit leaves it as it is. A nightly run does the same.
    """
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=1)
        sandbox.skip(5 * DAY)
        first, second = (tmp_path / one.stored.path for one in scene.records()[:2] if one.stored)
        first.write_bytes(first.read_bytes()[:-1] + b"x")
        second.write_bytes(second.read_bytes()[:-9])
        damaged = {path: path.read_bytes() for path in (first, second)}
        viewer = Notebook()
        summary = await scene.audit(sample(60), viewer=viewer)
        night = await scene.night(end=show(scene.start + DAY), audit=sample(4, seed=2))
    found = audited(summary)
    assert (summary.exit_code, found["sampled"], found["compared"], found["damaged"]) == (Exit.PARTIAL, 4, 2, 2)
    assert (found["differ"], summary.tally.unfinished) == (0, 0)
    notes = [event["message"] for event in viewer.of("note")][1:]
    assert notes == [
        f"{path.relative_to(tmp_path)} is damaged: it is not the file that was stored, so it is not audited"
        for path in (first, second)
    ]
    assert closing_lines(summary)[0].startswith("finished, but archives are damaged: 2 of 2 bundles stored")
    assert f"; damaged: {first.relative_to(tmp_path)}; " in closing_line(summary)
    assert (night.exit_code, audited(night)["damaged"]) == (Exit.PARTIAL, 2)
    assert {path: path.read_bytes() for path in (first, second)} == damaged


async def test_an_audit_that_finds_nothing_to_compare_is_not_done(tmp_path):
    """It proves nothing, and nothing has failed: the exit code is 9."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=1)
        sandbox.skip(DAY)
        summary = await scene.audit(sample(60, older_than=9.0 * DAY))
    assert (summary.exit_code, summary.error) == (Exit.TIME_UP, None)
    assert closing_lines(summary)[0] == "finished, but nothing was compared: nothing to do"
    assert not ends_as_it_should(summary, Audit((), sample(1)))


async def test_a_nightly_run_audits_after_everything_else(tmp_path):
    """The audit is planned and counted, begins when all other bundles are stored, and never twice the same week."""
    chosen: dict[str, Any] = {"audit": sample(3)}
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=2)
        sandbox.skip(2 * DAY)
        settings = settings_for(sandbox, tmp_path, {**SIX_HOURS, "nightly": {"since": show(scene.start)}})
        planned = survey(settings, Nightly(settings.exports, audit=sample(3)), now=sandbox.now)
        assert len(planned.audit) == 3
        viewer = Notebook()
        summary = await scene.night(viewer=viewer, **chosen)
        assert sandbox.counts["create"] == 8 + 8 + 3
        again = await scene.night(audit=sample(3, seed=2))
        assert sandbox.counts["create"] == 8 + 8 + 3 + 3
    for one, bundles in ((summary, (16, 5, 11)), (again, (16, 13, 3))):
        counted = one.to_dict()["bundles"]
        assert (one.exit_code, *(counted[key] for key in ("planned", "already", "stored"))) == (Exit.DONE, *bundles)
        assert audited(one)["compared"] == 3
    kinds = [event["refresh"] for event in viewer.of("stored")]
    assert kinds == [False] * 8 + [True] * 3
    assert sorted(one.revision for one in scene.records()) == [0] * 10 + [1] * 6


async def test_a_nightly_run_without_time_for_its_audit_is_done(tmp_path):
    """If only audits are left when the time is up, the bundles count as stored, and the exit code is 0."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=3)
        sandbox.behave(replace(sandbox.behaviour, operation_seconds=3600.0))
        night = {"start": show(scene.start + DAY), "end": show(scene.start + 3 * DAY)}
        summary = await scene.night(**night, audit=sample(12, older_than=HOUR), max_duration_seconds=0.5)
        counted = summary.to_dict()["bundles"]
        assert (summary.exit_code, counted["planned"], counted["already"]) == (Exit.DONE, 8, 8)
        assert (audited(summary)["sampled"], audited(summary)["compared"]) == (8, 0)
        sandbox.skip(DAY)
        again = await scene.night(**night)
    assert (again.exit_code, again.tally.stored, again.requests["create"]) == (Exit.DONE, 8, 0)


async def test_an_interrupted_audit_is_finished_by_later_runs(tmp_path):
    """A stopped audit leaves operations in progress, and the next audit finishes them before its own sample."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=2)
        sandbox.skip(5 * DAY)
        sandbox.behave(replace(sandbox.behaviour, operation_seconds=3600.0))
        stop = Stop()
        viewer = Notebook()

        def on_event(event: Event) -> None:
            viewer.on_event(event)
            if sandbox.counts["create"] >= 8 + 3:
                stop.ask(Exit.INTERRUPTED)

        settings = settings_for(sandbox, tmp_path, SIX_HOURS)
        summary = await export(
            settings,
            Audit(settings.exports, sample(3)),
            key=ApiKey(sandbox.key),
            stop=stop,
            listeners=(on_event,),
            host_clock=clock_of(sandbox),
        )
        assert (summary.exit_code, summary.tally.unfinished) == (Exit.INTERRUPTED, 3)
        with LedgerReader(tmp_path) as ledger:
            assert sum(isinstance(one.state, Created) for one in ledger.unfinished(NAME, ALL_TIME)) == 3
        sandbox.skip(DAY)
        sandbox.behave(SERVICE)
        sandbox.reset_counts()
        summary = await scene.audit(sample(2, seed=5))
        assert sandbox.counts["create"] == 2
    assert (summary.exit_code, summary.tally.planned, summary.tally.stored) == (Exit.DONE, 5, 5)
    assert audited(summary)["compared"] == 2
    assert summary.to_dict()["refreshed"]["bundles"] == 3


async def test_an_audit_ends_with_4_or_waits_while_another_run_holds_the_directory(tmp_path):
    """With `--wait` it says for whom it waits and runs afterwards; a stop ends the wait."""
    async with serving(SERVICE) as sandbox:
        scene = await stored(sandbox, tmp_path, days=1)
        sandbox.skip(5 * DAY)
        with hold(tmp_path, command="backfill"):
            order: dict[str, Any] = {"kind": Audit, "sample": sample(2), "changes": SIX_HOURS}
            assert (await run(sandbox, tmp_path, host_clock=clock_of(sandbox), **order)).exit_code is Exit.LOCKED
            stop, viewer = Stop(), Notebook()
            waiting = asyncio.create_task(scene.audit(sample(2), viewer=viewer, stop=stop))
            while not viewer.events:  # noqa: ASYNC110 - the viewer has no event
                await asyncio.sleep(0.001)
            stop.ask(Exit.TERMINATED)
            assert (await waiting).exit_code is Exit.TERMINATED
            viewer = Notebook()
            waiting = asyncio.create_task(scene.audit(sample(2), viewer=viewer))
            while not viewer.events:  # noqa: ASYNC110 - the viewer has no event
                await asyncio.sleep(0.001)
        summary = await waiting
    (line,) = viewer.of("joining")
    assert (line["command"], line["planned"]) == ("backfill", None)
    said = check(summary.to_dict())
    assert (said["exit_code"], said["joined"]["command"], said["audited"]["compared"]) == (0, "backfill", 2)


async def test_a_directory_without_a_ledger_is_not_created(tmp_path):
    """An audit of a directory that may be mistyped ends with 7 and creates nothing."""
    async with serving(SERVICE) as sandbox:
        scene = Scene(sandbox, tmp_path / "exprots", 0)
        summary = await scene.audit(sample(2))
    assert summary.exit_code is Exit.LEDGER
    assert not scene.directory.exists()
