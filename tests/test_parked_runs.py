"""Parked bundles in complete runs: nightly runs pause them, other runs retry them, and wide ones are split."""

import time
from dataclasses import replace
from typing import Any

import pytest

from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range, show
from asyncexport.core.exits import Exit
from asyncexport.core.parking import LEEWAY_SECONDS, MOVED_ASIDE
from asyncexport.core.states import BundleRecord, Failed, Overdue, Ready, Refused, State
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.run.spec import Backfill, Nightly, Retry
from asyncexport.run.survey import survey
from asyncexport.sandbox import SandboxBehaviour, SandboxFault, serving
from tests.exporting import Notebook, archives, clock_of, rows_in, run, settings_for, truth

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=60, requests_per_minute=1e6, burst=10_000)

EVENTS = "everyone-events"
START, END = "2026-01-01T20:00:00Z", "2026-01-01T22:00:00Z"
FIRST = 1_767_297_600
"""`START` in seconds since 1970."""

RANGE: dict[str, Any] = {"start": START, "end": END}


def half_hour(number: int, width: int = 1800) -> Bundle:
    return Bundle(EVENTS, Range(FIRST + number * 1800, FIRST + number * 1800 + width))


async def park(sandbox, directory, bundle: Bundle, state: State, *, times: int = 1, ago: float) -> float:
    """Record that earlier runs parked a bundle `times` times, last `ago` seconds before now; return that time."""
    at = sandbox.now - ago
    ledger = await Ledger.open(directory)
    await ledger.register(settings_for(sandbox, directory).exports)
    for number in range(times):
        await ledger.append(BundleRecord(bundle, 0, state), at=at - (times - 1 - number) * 9 * DAY)
    await ledger.close()
    return float(at)


def stored_ranges(directory) -> list[Range]:
    with LedgerReader(directory) as ledger:
        return [one.bundle.range for one in ledger.stored(EVENTS, ALL_TIME)]


@pytest.mark.parametrize(("times", "days"), [(1, 1), (2, 2), (4, 8), (7, 8)])
async def test_a_nightly_run_retries_a_parked_bundle_only_when_it_is_due(tmp_path, times, days):
    """Until it is due, a parked bundle counts as failed, the summary says when it is due, and no request is sent."""
    pause = days * DAY - LEEWAY_SECONDS
    async with serving(FAST) as sandbox:
        at = await park(sandbox, tmp_path, half_hour(1), Failed("it failed"), times=times, ago=pause - 600)
        for _ in range(2):
            summary = await run(sandbox, tmp_path, kind=Nightly, **RANGE)
            said = summary.to_dict()
            assert summary.exit_code is Exit.PARTIAL
            assert (said["bundles"]["failed"], said["bundles"]["unfinished"]) == (1, 0)
            (problem,) = said["problems"]
            assert (problem["reason"], problem["next_try"]) == ("it failed", show(at + pause))
        assert said["bundles"]["already"] == 3
        assert sum(said["requests"].values()) == 0
        assert len(archives(tmp_path)) == 3
        with LedgerReader(tmp_path) as ledger:
            (overview,) = ledger.overviews()
        assert overview.next_try(overview.parked[0]) == at + pause
    async with serving(FAST) as sandbox:
        other = tmp_path / "due"
        await park(sandbox, other, half_hour(1), Failed("it failed"), times=times, ago=pause + 600)
        summary = await run(sandbox, other, kind=Nightly, **RANGE)
        assert (summary.exit_code, len(archives(other))) == (Exit.DONE, 4)


@pytest.mark.parametrize("kind", [Backfill, Retry])
async def test_backfill_and_retry_do_not_wait(tmp_path, kind):
    """`backfill` and `retry` retry a parked bundle immediately, however often and recently it failed."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1), Failed("it failed"), times=5, ago=60)
        summary = await run(sandbox, tmp_path, kind=kind, **RANGE)
        assert summary.exit_code is Exit.DONE
        assert half_hour(1).range in stored_ranges(tmp_path)


async def test_a_gap_left_by_a_rebuild_is_filled_by_the_next_night(tmp_path):
    """A bundle whose archive a rebuild moved aside is exported by the next nightly run without a pause."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1), Failed(MOVED_ASIDE), ago=60)
        with LedgerReader(tmp_path) as ledger:
            (overview,) = ledger.overviews()
        assert [overview.next_try(one) for one in overview.parked] == [None]
        summary = await run(sandbox, tmp_path, kind=Nightly, **RANGE)
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 4)


async def test_a_refused_bundle_is_retried_by_the_next_night(tmp_path):
    """The next nightly run fetches the file of a refused bundle, while an overdue bundle waits until it is due."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path / "other", start="2026-01-01T20:30:00Z", end="2026-01-01T21:00:00Z")
        (made,) = sandbox.operations
        refused = Refused("403", Ready(1, sandbox.now, made.export_id))
        await park(sandbox, tmp_path / "own", half_hour(1), refused, ago=60)
        at = await park(sandbox, tmp_path / "own", half_hour(2), Overdue(1, sandbox.now, "gone"), ago=60)
        sandbox.reset_counts()
        summary = await run(sandbox, tmp_path / "own", kind=Nightly, **RANGE)
        assert (summary.exit_code, sandbox.counts["create"]) == (Exit.PARTIAL, 2)
        (problem,) = summary.to_dict()["problems"]
        assert problem["start"] == show(half_hour(2).range.start)
        assert problem["next_try"] == show(at + DAY - LEEWAY_SECONDS)


@pytest.mark.parametrize("kind", [Backfill, Nightly, Retry])
async def test_a_wide_parked_bundle_is_split(tmp_path, kind):
    """A parked bundle wider than the setting is replaced by narrower ones; that is reported, and `plan` counts them."""
    narrow = {"export": [{"name": EVENTS, "bundle": "15m"}]}
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1, 3600), Failed("it is too large"), ago=2 * DAY)
        settings = settings_for(sandbox, tmp_path, narrow)
        spec = Backfill(settings.exports, FIRST, FIRST + 7200)
        (plan,) = survey(settings, spec, now=time.time()).plans
        assert (plan.count, len(plan.splits)) == (8, 1)
        viewer = Notebook()
        summary = await run(sandbox, tmp_path, kind=kind, changes=narrow, viewer=viewer, **RANGE)
        assert summary.exit_code is Exit.DONE
        assert any("split into narrower ones" in note["message"] for note in viewer.of("note"))
        pieces = 4 if kind is Retry else 8
        assert (summary.tally.stored, summary.tally.planned) == (pieces, pieces)
        assert {one.seconds for one in stored_ranges(tmp_path)} == {900}
        if kind is not Retry:
            assert rows_in(tmp_path) == truth(sandbox, START, END)
        again = await run(sandbox, tmp_path, kind=kind, changes=narrow, **RANGE)
        assert (again.exit_code, sum(again.requests.values())) == (Exit.DONE, 0)


async def test_a_narrower_range_exports_only_its_part_of_a_parked_bundle(tmp_path):
    """A run over part of a parked bundle exports that part, and a later run exports the remaining parts."""
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(0, 7200), Failed("it is too large"), ago=60)
        part: dict[str, Any] = {"start": "2026-01-01T20:30:00Z", "end": "2026-01-01T21:00:00Z"}
        changes: dict[str, Any] = {"export": [{"name": EVENTS, "bundle": "6h"}]}
        summary = await run(sandbox, tmp_path, changes=changes, **part)
        assert summary.exit_code is Exit.DONE
        assert stored_ranges(tmp_path) == [half_hour(1).range]
        summary = await run(sandbox, tmp_path, changes=changes, kind=Retry, **RANGE)
        assert summary.exit_code is Exit.DONE
        assert stored_ranges(tmp_path) == [half_hour(0).range, half_hour(1).range, half_hour(2, 3600).range]
        assert rows_in(tmp_path) == truth(sandbox, START, END)


async def test_an_overdue_bundle_that_is_too_wide_is_polled_again_and_then_split(tmp_path):
    """Its operation is polled once more and given up, and the next run exports narrower bundles instead."""
    narrow: dict[str, Any] = {"export": [{"name": EVENTS, "bundle": "15m"}]}
    async with serving(FAST) as sandbox:
        await park(sandbox, tmp_path, half_hour(1, 3600), Overdue(1, sandbox.now, "gone"), ago=60)
        sandbox.reset_counts()
        summary = await run(sandbox, tmp_path, kind=Retry, changes=narrow, **RANGE)
        assert (summary.exit_code, sandbox.counts["create"]) == (Exit.PARTIAL, 0)
        assert sandbox.counts["poll"] > 0
        (problem,) = summary.to_dict()["problems"]
        assert problem["reason"].endswith("narrower bundles will take its place")
        summary = await run(sandbox, tmp_path, kind=Retry, changes=narrow, **RANGE)
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 4)
        assert {one.seconds for one in stored_ranges(tmp_path)} == {900}


@pytest.mark.parametrize("kind", [Backfill, Retry])
async def test_a_parked_bundle_partly_covered_by_archives_is_split(tmp_path, kind):
    """Only the parts that no archive covers are exported, so that no row is stored twice."""
    async with serving(FAST) as sandbox:
        part: dict[str, Any] = {"start": "2026-01-01T20:30:00Z", "end": "2026-01-01T21:00:00Z"}
        await run(sandbox, tmp_path, **part)
        await park(sandbox, tmp_path, half_hour(0, 7200), Failed("why"), ago=60)
        wide: dict[str, Any] = {"export": [{"name": EVENTS, "bundle": "2h"}]}
        summary = await run(sandbox, tmp_path, changes=wide, kind=kind, **RANGE)
        assert summary.exit_code is Exit.DONE
        assert stored_ranges(tmp_path) == [half_hour(0).range, half_hour(1).range, half_hour(2, 3600).range]
        assert rows_in(tmp_path) == truth(sandbox, START, END)
        again = await run(sandbox, tmp_path, changes=wide, kind=kind, **RANGE)
        assert (again.exit_code, sum(again.requests.values())) == (Exit.DONE, 0)


async def test_individuals_are_never_split(tmp_path):
    """A failed bundle of individuals is retried at its full width, because its rows are totals over a day."""
    people = {"export": [{"name": EVENTS, "type": "individual", "bundle": "24h"}]}
    day = Bundle(EVENTS, Range(FIRST - 20 * 3600, FIRST + 4 * 3600))
    async with serving(FAST) as sandbox:
        at = sandbox.now - 60
        ledger = await Ledger.open(tmp_path)
        await ledger.register(settings_for(sandbox, tmp_path, people).exports)
        await ledger.append(BundleRecord(day, 0, Failed("why")), at=at)
        await ledger.close()
        summary = await run(sandbox, tmp_path, changes=people, **RANGE)
        assert summary.exit_code is Exit.DONE
        assert stored_ranges(tmp_path) == [day.range]


async def test_each_failure_of_a_bundle_is_counted(tmp_path):
    """The ledger counts how often a bundle was parked, and nightly runs pause it accordingly."""
    failing = (SandboxFault("operation", "FAILED"),)
    async with serving(SandboxBehaviour(**{**_switches(), "faults": failing})) as sandbox:
        one_attempt: dict[str, Any] = {"retry": {"attempts": 1}}
        part: dict[str, Any] = {"start": START, "end": "2026-01-01T20:30:00Z"}
        for _ in range(3):
            assert (await run(sandbox, tmp_path, changes=one_attempt, **part)).exit_code is Exit.PARTIAL
        made = len(sandbox.operations)
        summary = await run(sandbox, tmp_path, kind=Nightly, changes=one_attempt, **part)
        assert summary.exit_code is Exit.PARTIAL
        assert len(sandbox.operations) == made == 3
        with LedgerReader(tmp_path) as ledger:
            (parked,) = ledger.recorded_range(EVENTS, ALL_TIME).parked.values()
        assert parked.times == 3
        (problem,) = summary.to_dict()["problems"]
        assert problem["next_try"] == show(parked.last_at + 4 * DAY - LEEWAY_SECONDS)


def _switches() -> dict[str, Any]:
    return {"operation_seconds": 0.02, "rows_per_hour": 60, "requests_per_minute": 1e6, "burst": 10_000}


async def test_a_file_that_stays_no_export_is_asked_for_anew_after_half_a_day(tmp_path):
    """The bundle is parked with its file, whatever the others do; an hour later the file is asked for once more."""
    window = "window=2026-01-01T20:30:00Z/2026-01-01T21:00:00Z"
    fault = SandboxFault.parse(f"download:error-object,{window}")
    async with serving(replace(FAST, faults=(fault,))) as sandbox:
        counts = []
        for hours in (0, 1, 13):
            sandbox.skip(hours * 3600)
            summary = await run(sandbox, tmp_path, host_clock=clock_of(sandbox), **RANGE)
            assert (summary.exit_code, summary.tally.failed + summary.tally.unfinished) == (Exit.PARTIAL, 1)
            counts.append(len(sandbox.operations))
        sandbox.behave(FAST)
        assert (await run(sandbox, tmp_path, host_clock=clock_of(sandbox), **RANGE)).exit_code is Exit.DONE
        assert rows_in(tmp_path) == truth(sandbox, START, END)
    assert counts == [4, 4, 5]
