"""Runs by a wrong clock, of the host or in an answer: nothing is missing after the next right one."""

import gzip
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range, compact, gaps, show
from asyncexport.core.exports import Export
from asyncexport.core.service_time import ClockCheck
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.summary import Exit, Summary
from asyncexport.ledger import Ledger, LedgerReader
from asyncexport.run.spec import Nightly, Retry
from asyncexport.run.survey import time_at_service
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.exporting import BY_SERVICE, Notebook, OffClock, clock_of, run, settings_for

pytestmark = pytest.mark.slow

CALM = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4, requests_per_minute=1e6, burst=10_000)

WIDE: dict[str, Any] = {"export": [{"bundle": "6h"}]}

NIGHT: dict[str, Any] = {"kind": Nightly, "start": "", "end": None, "changes": WIDE}

EVENTS = "everyone-events"

YEAR_9999 = 252_000_000_000.0
"""From now it is somewhere in that year, or beyond it."""

YEAR_1970 = -1_780_000_000.0

SETTLE_SECONDS = Export(EVENTS).settle_seconds

OFF = [-30 * DAY, -DAY, 3600, 3 * DAY, 30 * DAY, YEAR_9999, YEAR_1970]
"""How far a clock is off."""


def nights_behind(directory: Path) -> tuple[str | None, list[Range]]:
    """Where nights begin, and the time that is covered."""
    with LedgerReader(directory) as ledger:
        return ledger.recall("nightly_since"), ledger.covered(EVENTS, ALL_TIME)


def week_before(now: float) -> int:
    """Seven days before the last midnight."""
    return int(now) // DAY * DAY - 7 * DAY


def last_settled(now: float) -> int:
    """The end of the last bundle of six hours that is settled."""
    return (int(now) - SETTLE_SECONDS) // 21_600 * 21_600


def unsettled(sandbox: Sandbox) -> list[tuple[float, float]]:
    """The ranges for which an export was made before they were settled, and none after that."""
    made = sandbox.operations
    settled = {one.range for one in made if one.created_at >= one.end + SETTLE_SECONDS}
    return [one.range for one in made if one.range not in settled]


async def night(sandbox: Sandbox, directory: Path, *, off: float = 0.0, **more: Any) -> Summary:
    """A night on a host whose clock is off by so much."""
    return await run(sandbox, directory, **{**NIGHT, **more}, host_clock=OffClock(off))


async def right_after(sandbox: Sandbox, directory: Path) -> None:
    """The next night, on which all is right: nothing is missing, nothing stored was not settled."""
    viewer = Notebook()
    sandbox.behave(CALM)
    assert (await night(sandbox, directory, viewer=viewer)).exit_code is Exit.DONE
    since, covered = nights_behind(directory)
    assert since == str(week_before(sandbox.now))
    assert [Range(max(one.start, int(since)), one.end) for one in covered] == [
        Range(int(since), last_settled(sandbox.now))
    ]
    assert unsettled(sandbox) == []


@pytest.mark.parametrize("off", OFF)
async def test_a_night_on_a_wrong_host_clock_loses_nothing(tmp_path, off):
    """Up to a day it is put right; beyond that nothing is done before somebody says whose clock counts."""
    async with serving(CALM) as sandbox:
        summary = await night(sandbox, tmp_path, off=off)
        stops = abs(off) > DAY
        assert summary.exit_code is (Exit.USAGE if stops else Exit.DONE)
        assert summary.requests == {"create": 0 if stops else summary.tally.stored, **others(summary)}
        if stops:
            assert summary.tally.stored == 0
            assert "this machine's clock says" in str(summary.error)
            assert show(sandbox.now)[:10] in str(summary.error)
        await right_after(sandbox, tmp_path)


def others(summary: Summary) -> dict[str, int]:
    """The requests that are no creates."""
    return {kind: count for kind, count in summary.requests.items() if kind != "create"}


@pytest.mark.parametrize("off", OFF)
async def test_a_night_goes_by_the_service_where_that_is_what_is_wanted(tmp_path, off):
    """`[api] clock = "service"`: that night, and the ones after it with the same clock, export what is settled."""
    async with serving(CALM) as sandbox:
        for _ in range(2):
            summary = await night(sandbox, tmp_path, off=off, changes={**WIDE, **BY_SERVICE})
            assert summary.exit_code is Exit.DONE
            assert nights_behind(tmp_path) == (
                str(week_before(sandbox.now)),
                [Range(week_before(sandbox.now), last_settled(sandbox.now))],
            )
            sandbox.reset_counts()
        await right_after(sandbox, tmp_path)


@pytest.mark.parametrize("where", ["list", "create", "poll", "results"])
@pytest.mark.parametrize("off", OFF)
async def test_one_answer_with_a_wrong_date_changes_nothing(tmp_path, where, off):
    """Be it the first one or a later one: no bundle more, none less."""
    lie = SandboxFault(where, "wrong-date", times=1, seconds=float(off))
    async with serving(replace(CALM, faults=(lie,), list_ids=where != "poll")) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(week_before(sandbox.now), last_settled(sandbox.now))]
        await right_after(sandbox, tmp_path)


@pytest.mark.parametrize("fault", ["503", "407", "403"])
@pytest.mark.parametrize("off", [20 * 3600, -20 * 3600, 30 * DAY])
async def test_an_error_tells_no_time(tmp_path, fault, off):
    """A gateway has a clock of its own; here the service has it all the time, and only errors are heard at first."""
    faults = tuple(SandboxFault(where, fault, times=3) for where in ("list", "me"))
    async with serving(replace(CALM, faults=faults, clock_ahead_seconds=off)) as sandbox:
        viewer = Notebook()
        sandbox.behave(replace(CALM, faults=(*faults, SandboxFault("api", "no-date"))))
        assert (await night(sandbox, tmp_path, viewer=viewer)).exit_code is Exit.DONE
        await right_after(sandbox, tmp_path)


async def test_an_answer_from_a_store_tells_no_time(tmp_path):
    """It has an Age, and was right when it was made."""
    old = SandboxFault("api", "old-date", seconds=-20 * 3600.0)
    async with serving(replace(CALM, faults=(old,))) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert nights_behind(tmp_path) == (None, [Range(week_before(sandbox.now), last_settled(sandbox.now))])
        await right_after(sandbox, tmp_path)


@pytest.mark.parametrize("off", [YEAR_9999, YEAR_1970])
async def test_a_clock_in_another_time_drops_nothing_of_the_log(tmp_path, off):
    """By the year 9999 all that was ever written is old."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        with LedgerReader(tmp_path) as ledger:
            hours = ledger.hours()
        assert (await night(sandbox, tmp_path, off=off)).exit_code is Exit.USAGE
        with LedgerReader(tmp_path) as ledger:
            assert [one.exit_code for one in ledger.runs()] == [Exit.DONE, Exit.USAGE]
            assert set(hours) <= set(ledger.hours())
        await right_after(sandbox, tmp_path)


async def test_a_service_without_dates_is_taken_at_the_hosts_word(tmp_path):
    """What hangs on the clock is exported by it, and nothing of that is remembered."""
    async with serving(replace(CALM, faults=(SandboxFault("api", "no-date"),))) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        since, covered = nights_behind(tmp_path)
        assert (since, covered) == (None, [Range(week_before(sandbox.now), last_settled(sandbox.now))])


# Nights


@pytest.mark.parametrize("up", [DAY, 0.0])
async def test_a_clock_that_stands_still_hides_no_night(tmp_path, up):
    """By that clock nothing is new; the service is asked before that is believed."""
    async with serving(CALM) as sandbox:
        since, still = week_before(sandbox.now), sandbox.now
        assert (await run(sandbox, tmp_path, **NIGHT, host_clock=OffClock(stands_at=still))).exit_code is Exit.DONE
        sandbox.skip(20 * 3600)
        again = await run(sandbox, tmp_path, **NIGHT, host_clock=OffClock(stands_at=still, up=up))
        assert again.exit_code is Exit.DONE
        assert nights_behind(tmp_path) == (str(since), [Range(since, last_settled(sandbox.now))])


@pytest.mark.parametrize("up", [0.0, 20 * 3600.0])
async def test_a_clock_that_fell_behind_hides_no_work(tmp_path, up):
    """By such a clock there is nothing to do; the service is asked for its time before that is believed."""
    async with serving(CALM) as sandbox:
        since = week_before(sandbox.now)
        await night(sandbox, tmp_path)
        sandbox.skip(20 * 3600)
        late = OffClock(10.0 if up else -3 * 3600.0, up=up)
        assert (await run(sandbox, tmp_path, **NIGHT, host_clock=late)).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(since, last_settled(sandbox.now))]


@pytest.mark.parametrize(("went_on", "requests"), [(60, 0), (DAY - 600, 0), (DAY + 600, 1), (-60, 1)])
async def test_the_time_is_asked_for_once_a_day(tmp_path, went_on, requests):
    """Where there is nothing to do as far as that clock can tell."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        sandbox.skip(went_on)
        sandbox.reset_counts()
        later = OffClock(went_on, up=max(0, went_on))
        summary = await run(sandbox, tmp_path, kind=Retry, start="1970-01-01", end=None, host_clock=later)
        assert summary.exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == sandbox.counts["list"] == requests


async def test_a_first_night_fixes_where_nights_begin_without_a_request(tmp_path):
    """A backfill has just heard the time, and has left nothing to do."""
    async with serving(CALM) as sandbox:
        since = week_before(sandbox.now)
        await run(sandbox, tmp_path, start=show(since), end=None, changes=WIDE)
        sandbox.reset_counts()
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == 0
        assert nights_behind(tmp_path)[0] == str(since)


async def test_a_night_that_heard_nothing_of_the_service_remembers_no_beginning(tmp_path):
    """The next one, which hears of it, fixes where nights begin."""
    changes = {**WIDE, "retry": {"outage": "100ms"}}
    async with serving(CALM) as sandbox:
        async with sandbox.unreachable():
            summary = await night(sandbox, tmp_path, off=10 * DAY, changes=changes)
            assert summary.exit_code is Exit.UNREACHABLE
        assert nights_behind(tmp_path) == (None, [])
        with LedgerReader(tmp_path) as ledger:
            assert ledger.recall("clock_check") is None
        await right_after(sandbox, tmp_path)


async def test_a_beginning_that_lies_ahead_is_counted_anew(tmp_path):
    """A clock that was fast once has left it behind: it would mean nothing to do until then."""
    async with serving(CALM) as sandbox:
        ledger = await Ledger.open(tmp_path)
        ledger.remember("nightly_since", str(int(sandbox.now) + 20 * DAY))
        await ledger.close()
        await right_after(sandbox, tmp_path)


@pytest.mark.parametrize("off", [-20 * 3600, 20 * 3600])
async def test_since_in_days_goes_by_the_services_clock(tmp_path, off):
    """`[nightly] since = "2d"` is two days before the service's day."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path, off=off, changes={**WIDE, "nightly": {"since": "2d"}})
        since = int(sandbox.now) // DAY * DAY - 2 * DAY
        assert nights_behind(tmp_path)[1] == [Range(since, last_settled(sandbox.now))]


# Backfills


@pytest.mark.parametrize("off", [-20 * 3600, 20 * 3600])
async def test_words_wait_until_the_time_is_known(tmp_path, off):
    """`--start 3d --end yesterday` are days of the service, and the next run has nothing to do."""
    async with serving(CALM) as sandbox:
        today = int(sandbox.now) // DAY * DAY
        order: dict[str, Any] = {"start": "3d", "end": "2d", "changes": WIDE}
        assert (await run(sandbox, tmp_path, **order, host_clock=OffClock(off))).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(today - 3 * DAY, today - 2 * DAY)]
        sandbox.reset_counts()
        assert (await run(sandbox, tmp_path, **order, host_clock=OffClock(off))).tally.stored_before == 4
        assert sum(sandbox.counts.values()) == 0


@pytest.mark.parametrize("off", OFF)
async def test_a_range_that_is_stored_to_its_end_costs_nothing_whatever_the_clock(tmp_path, off):
    """Online and offline alike."""
    order: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-02", "changes": WIDE}
    async with serving(CALM) as sandbox:
        await run(sandbox, tmp_path, **order)
        sandbox.reset_counts()
        async with sandbox.unreachable():
            summary = await run(sandbox, tmp_path, **order, host_clock=OffClock(off))
        assert (summary.exit_code, summary.tally.stored_before, summary.tally.planned) == (Exit.DONE, 4, 4)
        assert sum(sandbox.counts.values()) == 0


async def test_offline_a_run_says_that_the_answer_hangs_on_the_time(tmp_path):
    """It does not end with 0 where only a clock says that there is nothing to do."""
    changes = {**WIDE, "retry": {"outage": "100ms"}}
    async with serving(CALM) as sandbox:
        since = show(week_before(sandbox.now))
        await run(sandbox, tmp_path, start=since, end=None, changes=changes)
        async with sandbox.unreachable():
            slow = OffClock(-3 * 3600)
            summary = await run(sandbox, tmp_path, start=since, end=None, changes=changes, host_clock=slow)
        assert summary.exit_code is Exit.UNREACHABLE
        assert "whether there is anything to do hangs on the time" in str(summary.error)


async def test_a_start_that_has_not_come_by_this_host_may_have_come(tmp_path):
    """A slow clock refuses no date; the service's time does."""
    async with serving(CALM) as sandbox:
        end = last_settled(sandbox.now)
        order: dict[str, Any] = {"start": show(end - DAY), "end": show(end), "changes": {**WIDE, **BY_SERVICE}}
        summary = await run(sandbox, tmp_path, **order, host_clock=OffClock(-10 * DAY))
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 4)
        late = await run(sandbox, tmp_path, start=show(int(sandbox.now) + 3600), end=None)
        assert late.exit_code is Exit.USAGE
        assert "lies in the future" in str(late.error)


@pytest.mark.parametrize("ahead", [2 * DAY, -2 * DAY])
async def test_what_is_settled_goes_by_the_services_clock(tmp_path, ahead):
    """A host whose clock is days off asks for exactly what is settled at the service, if that is whom it trusts."""
    async with serving(replace(CALM, clock_ahead_seconds=ahead)) as sandbox:
        start = int(sandbox.now) // DAY * DAY - 2 * DAY - DAY // 2
        summary = await run(sandbox, tmp_path, start=show(start), end=None, changes=BY_SERVICE)
        assert summary.exit_code is Exit.DONE
        last = max(made.end for made in sandbox.operations)
        assert 0 <= sandbox.now - SETTLE_SECONDS - last < 1800


# What was exported before it was settled

SILENT = tuple(SandboxFault(where, "404") for where in ("list", "me", "segments"))
"""Nothing tells the time before the first create."""

UNDATED = tuple(SandboxFault(where, "no-date") for where in ("list", "me", "segments"))
"""Likewise; and as the list is of use, nothing is exported only to be told the time."""


@pytest.mark.parametrize("off", OFF)
async def test_where_nothing_else_tells_the_time_the_first_bundle_does(tmp_path, off):
    """One export is made for that, and the rest goes by the time that its answers tell; or the run ends there."""
    async with serving(replace(CALM, faults=SILENT)) as sandbox:
        summary = await night(sandbox, tmp_path, off=off)
        stops = abs(off) > DAY
        assert summary.exit_code is (Exit.USAGE if stops else Exit.DONE)
        # A service that refuses the year 9999 tells no time by that.
        stored = 0 if off == YEAR_9999 else 1 if stops else summary.tally.planned
        assert (summary.tally.stored, summary.tally.unfinished) == (stored, summary.tally.planned - stored)
        assert summary.requests["create"] == max(1, stored)
        assert len(unsettled(sandbox)) <= 1
        sandbox.behave(CALM)
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        since, covered = nights_behind(tmp_path)
        assert since
        assert not list(gaps(Range(int(since), last_settled(sandbox.now)), covered))
        assert set(unsettled(sandbox)) == {(one.start, one.end) for one in unsettled_yet(tmp_path, sandbox.now)}


async def test_what_was_exported_too_soon_is_exported_anew_once_it_is_settled(tmp_path):
    """A fast clock, which nothing contradicts until work is under way: the archives are known for what they are."""
    async with serving(replace(CALM, faults=UNDATED)) as sandbox:
        assert (await night(sandbox, tmp_path, off=3 * DAY)).exit_code is Exit.DONE
        early = unsettled(sandbox)
        assert early
        assert all(one.created_at <= sandbox.now for one in sandbox.operations)
        sandbox.behave(CALM)
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert len(unsettled_yet(tmp_path, sandbox.now)) == len(early)
        for days in (1, 2, 3, 4, 5):
            sandbox.skip(DAY)
            assert (await run(sandbox, tmp_path, **NIGHT, host_clock=clock_of(sandbox))).exit_code is Exit.DONE, days
        assert unsettled(sandbox) == []
        assert unsettled_yet(tmp_path, sandbox.now) == []
        made = Counter(one.range for one in sandbox.operations)
        assert {made[one] for one in early} == {2}
        assert {count for one, count in made.items() if one not in early} == {1}
        with LedgerReader(tmp_path) as ledger:
            assert {one.bundle.range for one in ledger.stored(EVENTS, ALL_TIME)} >= {Range(*map(int, o)) for o in early}


def unsettled_yet(directory: Path, now: float) -> list[Range]:
    """What the ledger knows to have been exported before it was settled, and is not settled yet."""
    with LedgerReader(directory) as ledger:
        (overview,) = ledger.overviews()
    return [one.bundle.range for one in overview.unsettled if one.bundle.range.end + SETTLE_SECONDS > now]


@pytest.mark.parametrize("told", ["year-1", "year-9999", "missing"])
async def test_a_nonsense_moment_of_creation_makes_no_work(tmp_path, told):
    """The moment of asking stands in its place."""
    async with serving(replace(CALM, created_at=told)) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        creates = sandbox.counts["create"]
        sandbox.skip(600)
        assert (await run(sandbox, tmp_path, **NIGHT, host_clock=clock_of(sandbox))).exit_code is Exit.DONE
        assert sandbox.counts["create"] == creates
        with LedgerReader(tmp_path) as ledger:
            assert all(
                one.stored and 0 <= sandbox.now - one.stored.exported_at < 3600
                for one in ledger.stored(EVENTS, ALL_TIME)
            )


async def test_a_longer_settle_time_makes_no_work(tmp_path):
    """What was settled by the setting of its time stays so."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        creates = sandbox.counts["create"]
        longer: dict[str, Any] = {"export": [{"bundle": "6h", "settle": "72h"}]}
        sandbox.skip(600)
        clock = clock_of(sandbox)
        assert (await run(sandbox, tmp_path, **{**NIGHT, "changes": longer}, host_clock=clock)).exit_code is Exit.DONE
        assert sandbox.counts["create"] == creates
        assert unsettled_yet(tmp_path, sandbox.now) == []


async def test_it_is_exported_anew_in_its_own_width(tmp_path):
    """By a backfill, too; what is not settled yet costs no request and is told."""
    async with serving(CALM) as sandbox:
        start = last_settled(sandbox.now)
        await store(tmp_path, Range(start - 3600, start - 1800), exported_at=start, settle_seconds=float(DAY))
        await store(tmp_path, Range(start - 1800, start), exported_at=start, settle_seconds=30.0 * DAY)
        viewer = Notebook()
        summary = await run(sandbox, tmp_path, start=show(start - 3600), end=show(start), changes=WIDE, viewer=viewer)
        assert summary.exit_code is Exit.DONE
        assert summary.to_dict()["refreshed"]["bundles"] == 1
        assert [one.range for one in sandbox.operations] == [(start - 3600, start - 1800)]
        (told,) = [one["message"] for one in viewer.of("note") if "before the data was settled" in one["message"]]
        assert f"from {show(start + 30 * DAY)} on" in told


async def store(directory: Path, span: Range, *, exported_at: float, settle_seconds: float) -> None:
    """An archive that a run stored at some time."""
    name = f"{EVENTS}/date={show(span.start)[:10]}/{compact(span.start)}_{compact(span.end)}.ndjson.gz"
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"", mtime=0))
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    archive = Stored(name, size, 0, digest, exported_at, exported_at, settle_seconds)
    ledger = await Ledger.open(directory)
    await ledger.register((Export(EVENTS),))
    await ledger.restore([BundleRecord(Bundle(EVENTS, span), 0, archive, archive)], at=exported_at)
    await ledger.close()


async def test_commands_that_ask_nothing_go_by_the_time_that_a_run_was_told(tmp_path):
    """As long as this host's clock has gone on since; else it is all there is."""
    async with serving(replace(CALM, clock_ahead_seconds=3600.0)) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        assert abs(time_at_service(settings) - sandbox.now + 3600) < 60
        await run(sandbox, tmp_path, **NIGHT)
        assert abs(time_at_service(settings) - sandbox.now) < 60
        ledger = await Ledger.open(tmp_path)
        ledger.remember("clock_check", ClockCheck(sandbox.now, sandbox.now - 3600 - 2 * DAY).to_json())
        await ledger.close()
        assert abs(time_at_service(settings) - sandbox.now + 3600) < 60
