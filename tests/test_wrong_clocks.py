"""Runs with a wrong clock, on the host or in an answer: after the next correct run nothing is missing."""

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
"""A clock this far ahead is in the year 9999 or later."""

YEAR_1970 = -1_780_000_000.0

SETTLE_SECONDS = Export(EVENTS).settle_seconds

OFF = [-30 * DAY, -DAY, 3600, 3 * DAY, 30 * DAY, YEAR_9999, YEAR_1970]
"""Clock errors in seconds."""


def nights_behind(directory: Path) -> tuple[str | None, list[Range]]:
    """Return the remembered start of nightly runs and the covered ranges."""
    with LedgerReader(directory) as ledger:
        return ledger.recall("nightly_since"), ledger.covered(EVENTS, ALL_TIME)


def week_before(now: float) -> int:
    """Return the time seven days before the last midnight."""
    return int(now) // DAY * DAY - 7 * DAY


def last_settled(now: float) -> int:
    """Return the end of the last settled six-hour bundle."""
    return (int(now) - SETTLE_SECONDS) // 21_600 * 21_600


def unsettled(sandbox: Sandbox) -> list[tuple[float, float]]:
    """Return the ranges that were exported before they were settled, and not after."""
    made = sandbox.operations
    settled = {one.range for one in made if one.created_at >= one.end + SETTLE_SECONDS}
    return [one.range for one in made if one.range not in settled]


async def night(sandbox: Sandbox, directory: Path, *, off: float = 0.0, **more: Any) -> Summary:
    """Run `nightly` on a host whose clock is wrong by `off` seconds."""
    return await run(sandbox, directory, **{**NIGHT, **more}, host_clock=OffClock(off))


async def check_next_correct_run(sandbox: Sandbox, directory: Path) -> None:
    """Check that the next nightly run with a correct clock leaves nothing missing and nothing stored too soon."""
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
async def test_a_nightly_run_on_a_wrong_host_clock_loses_nothing(tmp_path, off):
    """A host clock wrong by up to a day is corrected; beyond that the run stops until the user chooses a clock."""
    async with serving(CALM) as sandbox:
        summary = await night(sandbox, tmp_path, off=off)
        stops = abs(off) > DAY
        assert summary.exit_code is (Exit.USAGE if stops else Exit.DONE)
        assert summary.requests == {"create": 0 if stops else summary.tally.stored, **others(summary)}
        if stops:
            assert summary.tally.stored == 0
            assert "this machine's clock says" in str(summary.error)
            assert show(sandbox.now)[:10] in str(summary.error)
        await check_next_correct_run(sandbox, tmp_path)


def others(summary: Summary) -> dict[str, int]:
    """Return the requests other than creates."""
    return {kind: count for kind, count in summary.requests.items() if kind != "create"}


@pytest.mark.parametrize("off", OFF)
async def test_a_nightly_run_can_use_the_services_clock(tmp_path, off):
    """With `[api] clock = "service"`, nightly runs on any host clock export exactly what is settled."""
    async with serving(CALM) as sandbox:
        for _ in range(2):
            summary = await night(sandbox, tmp_path, off=off, changes={**WIDE, **BY_SERVICE})
            assert summary.exit_code is Exit.DONE
            assert nights_behind(tmp_path) == (
                str(week_before(sandbox.now)),
                [Range(week_before(sandbox.now), last_settled(sandbox.now))],
            )
            sandbox.reset_counts()
        await check_next_correct_run(sandbox, tmp_path)


@pytest.mark.parametrize("where", ["list", "create", "poll", "results"])
@pytest.mark.parametrize("off", OFF)
async def test_one_answer_with_a_wrong_date_changes_nothing(tmp_path, where, off):
    """One wrong date, in the first answer or a later one, neither adds nor removes a bundle."""
    lie = SandboxFault(where, "wrong-date", times=1, seconds=float(off))
    async with serving(replace(CALM, faults=(lie,), list_ids=where != "poll")) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(week_before(sandbox.now), last_settled(sandbox.now))]
        await check_next_correct_run(sandbox, tmp_path)


@pytest.mark.parametrize("fault", ["503", "407", "403"])
@pytest.mark.parametrize("off", [20 * 3600, -20 * 3600, 30 * DAY])
async def test_the_date_of_an_error_is_ignored(tmp_path, fault, off):
    """Dates of error answers are ignored, because a gateway with its own clock may have sent them."""
    faults = tuple(SandboxFault(where, fault, times=3) for where in ("list", "me"))
    async with serving(replace(CALM, faults=faults, clock_ahead_seconds=off)) as sandbox:
        viewer = Notebook()
        sandbox.behave(replace(CALM, faults=(*faults, SandboxFault("api", "no-date"))))
        assert (await night(sandbox, tmp_path, viewer=viewer)).exit_code is Exit.DONE
        await check_next_correct_run(sandbox, tmp_path)


async def test_the_date_of_a_cached_answer_is_ignored(tmp_path):
    """The date of an answer with an Age header is ignored, because it is from a cache."""
    old = SandboxFault("api", "old-date", seconds=-20 * 3600.0)
    async with serving(replace(CALM, faults=(old,))) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert nights_behind(tmp_path) == (None, [Range(week_before(sandbox.now), last_settled(sandbox.now))])
        await check_next_correct_run(sandbox, tmp_path)


@pytest.mark.parametrize("off", [YEAR_9999, YEAR_1970])
async def test_a_clock_in_another_age_drops_no_records(tmp_path, off):
    """A host clock in 1970 or 9999 does not make the ledger drop its records of runs and requests."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        with LedgerReader(tmp_path) as ledger:
            hours = ledger.hours()
        assert (await night(sandbox, tmp_path, off=off)).exit_code is Exit.USAGE
        with LedgerReader(tmp_path) as ledger:
            assert [one.exit_code for one in ledger.runs()] == [Exit.DONE, Exit.USAGE]
            assert set(hours) <= set(ledger.hours())
        await check_next_correct_run(sandbox, tmp_path)


async def test_without_dates_of_the_service_the_host_clock_is_used(tmp_path):
    """If the service sends no dates, the run uses the host's clock, and remembers nothing derived from it."""
    async with serving(replace(CALM, faults=(SandboxFault("api", "no-date"),))) as sandbox:
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        since, covered = nights_behind(tmp_path)
        assert (since, covered) == (None, [Range(week_before(sandbox.now), last_settled(sandbox.now))])


# Nightly runs


@pytest.mark.parametrize("up", [DAY, 0.0])
async def test_a_stopped_clock_hides_no_work(tmp_path, up):
    """On a stopped clock there is never anything new, so the service is asked for the time before that is believed."""
    async with serving(CALM) as sandbox:
        since, still = week_before(sandbox.now), sandbox.now
        assert (await run(sandbox, tmp_path, **NIGHT, host_clock=OffClock(stands_at=still))).exit_code is Exit.DONE
        sandbox.skip(20 * 3600)
        again = await run(sandbox, tmp_path, **NIGHT, host_clock=OffClock(stands_at=still, up=up))
        assert again.exit_code is Exit.DONE
        assert nights_behind(tmp_path) == (str(since), [Range(since, last_settled(sandbox.now))])


@pytest.mark.parametrize("up", [0.0, 20 * 3600.0])
async def test_a_slow_clock_hides_no_work(tmp_path, up):
    """If a slow clock says that nothing is to do, the service is asked for the time before that is believed."""
    async with serving(CALM) as sandbox:
        since = week_before(sandbox.now)
        await night(sandbox, tmp_path)
        sandbox.skip(20 * 3600)
        late = OffClock(10.0 if up else -3 * 3600.0, up=up)
        assert (await run(sandbox, tmp_path, **NIGHT, host_clock=late)).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(since, last_settled(sandbox.now))]


@pytest.mark.parametrize(("went_on", "requests"), [(60, 0), (DAY - 600, 0), (DAY + 600, 1), (-60, 1)])
async def test_the_time_is_asked_for_once_a_day(tmp_path, went_on, requests):
    """A run with nothing to do asks the service for the time only if the last check is a day old or does not hold."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        sandbox.skip(went_on)
        sandbox.reset_counts()
        later = OffClock(went_on, up=max(0, went_on))
        summary = await run(sandbox, tmp_path, kind=Retry, start="1970-01-01", end=None, host_clock=later)
        assert summary.exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == sandbox.counts["list"] == requests


async def test_the_start_of_nightly_runs_may_be_fixed_without_a_request(tmp_path):
    """Right after a backfill, the first nightly run fixes its start from the remembered time, without a request."""
    async with serving(CALM) as sandbox:
        since = week_before(sandbox.now)
        await run(sandbox, tmp_path, start=show(since), end=None, changes=WIDE)
        sandbox.reset_counts()
        assert (await night(sandbox, tmp_path)).exit_code is Exit.DONE
        assert sum(sandbox.counts.values()) == 0
        assert nights_behind(tmp_path)[0] == str(since)


async def test_a_nightly_run_without_an_answer_fixes_no_start(tmp_path):
    """A nightly run that cannot reach the service does not fix the start of nightly runs; the next one does."""
    changes = {**WIDE, "retry": {"outage": "100ms"}}
    async with serving(CALM) as sandbox:
        async with sandbox.unreachable():
            summary = await night(sandbox, tmp_path, off=10 * DAY, changes=changes)
            assert summary.exit_code is Exit.UNREACHABLE
        assert nights_behind(tmp_path) == (None, [])
        with LedgerReader(tmp_path) as ledger:
            assert ledger.recall("clock_check") is None
        await check_next_correct_run(sandbox, tmp_path)


async def test_a_remembered_start_in_the_future_is_replaced(tmp_path):
    """A remembered start of nightly runs that is in the future, from a fast clock, is replaced."""
    async with serving(CALM) as sandbox:
        ledger = await Ledger.open(tmp_path)
        ledger.remember("nightly_since", str(int(sandbox.now) + 20 * DAY))
        await ledger.close()
        await check_next_correct_run(sandbox, tmp_path)


@pytest.mark.parametrize("off", [-20 * 3600, 20 * 3600])
async def test_since_in_days_uses_the_services_clock(tmp_path, off):
    """`[nightly] since = "2d"` means two days before the current day at the service."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path, off=off, changes={**WIDE, "nightly": {"since": "2d"}})
        since = int(sandbox.now) // DAY * DAY - 2 * DAY
        assert nights_behind(tmp_path)[1] == [Range(since, last_settled(sandbox.now))]


# Backfills


@pytest.mark.parametrize("off", [-20 * 3600, 20 * 3600])
async def test_relative_dates_use_the_services_clock(tmp_path, off):
    """`--start 3d --end 2d` are days at the service, and the next run has nothing to do."""
    async with serving(CALM) as sandbox:
        today = int(sandbox.now) // DAY * DAY
        order: dict[str, Any] = {"start": "3d", "end": "2d", "changes": WIDE}
        assert (await run(sandbox, tmp_path, **order, host_clock=OffClock(off))).exit_code is Exit.DONE
        assert nights_behind(tmp_path)[1] == [Range(today - 3 * DAY, today - 2 * DAY)]
        sandbox.reset_counts()
        assert (await run(sandbox, tmp_path, **order, host_clock=OffClock(off))).tally.stored_before == 4
        assert sum(sandbox.counts.values()) == 0


@pytest.mark.parametrize("off", OFF)
async def test_a_stored_range_costs_no_request_on_any_clock(tmp_path, off):
    """A range that is completely stored costs no request on any clock, even offline."""
    order: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-02", "changes": WIDE}
    async with serving(CALM) as sandbox:
        await run(sandbox, tmp_path, **order)
        sandbox.reset_counts()
        async with sandbox.unreachable():
            summary = await run(sandbox, tmp_path, **order, host_clock=OffClock(off))
        assert (summary.exit_code, summary.tally.stored_before, summary.tally.planned) == (Exit.DONE, 4, 4)
        assert sum(sandbox.counts.values()) == 0


async def test_an_offline_run_reports_that_the_result_depends_on_the_time(tmp_path):
    """If only the host's clock says that nothing is to do, an offline run does not exit with 0."""
    changes = {**WIDE, "retry": {"outage": "100ms"}}
    async with serving(CALM) as sandbox:
        since = show(week_before(sandbox.now))
        await run(sandbox, tmp_path, start=since, end=None, changes=changes)
        async with sandbox.unreachable():
            slow = OffClock(-3 * 3600)
            summary = await run(sandbox, tmp_path, start=since, end=None, changes=changes, host_clock=slow)
        assert summary.exit_code is Exit.UNREACHABLE
        assert "whether there is anything to do depends on the service's time" in str(summary.error)


async def test_a_start_in_the_future_is_judged_by_the_services_clock(tmp_path):
    """A start that is in the future only on a slow host clock is accepted; one in the service's future is refused."""
    async with serving(CALM) as sandbox:
        end = last_settled(sandbox.now)
        order: dict[str, Any] = {"start": show(end - DAY), "end": show(end), "changes": {**WIDE, **BY_SERVICE}}
        summary = await run(sandbox, tmp_path, **order, host_clock=OffClock(-10 * DAY))
        assert (summary.exit_code, summary.tally.stored) == (Exit.DONE, 4)
        late = await run(sandbox, tmp_path, start=show(int(sandbox.now) + 3600), end=None)
        assert late.exit_code is Exit.USAGE
        assert "is in the future" in str(late.error)


@pytest.mark.parametrize("ahead", [2 * DAY, -2 * DAY])
async def test_the_settle_time_counts_by_the_services_clock(tmp_path, ahead):
    """With trust in the service's clock, a run exports exactly what is settled at the service."""
    async with serving(replace(CALM, clock_ahead_seconds=ahead)) as sandbox:
        start = int(sandbox.now) // DAY * DAY - 2 * DAY - DAY // 2
        summary = await run(sandbox, tmp_path, start=show(start), end=None, changes=BY_SERVICE)
        assert summary.exit_code is Exit.DONE
        last = max(made.end for made in sandbox.operations)
        assert 0 <= sandbox.now - SETTLE_SECONDS - last < 1800


# Exports made before the data was settled

SILENT = tuple(SandboxFault(where, "404") for where in ("list", "me", "segments"))
"""All answers before the first create are errors, so their dates are ignored."""

UNDATED = tuple(SandboxFault(where, "no-date") for where in ("list", "me", "segments"))
"""No answer before the first create has a date, but the list works, so no bundle is exported just for the time."""


@pytest.mark.parametrize("off", OFF)
async def test_the_first_bundle_reveals_the_time_if_nothing_else_does(tmp_path, off):
    """If no other answer has a date, one bundle is exported first, and the run then corrects its clock or stops."""
    async with serving(replace(CALM, faults=SILENT)) as sandbox:
        summary = await night(sandbox, tmp_path, off=off)
        stops = abs(off) > DAY
        assert summary.exit_code is (Exit.USAGE if stops else Exit.DONE)
        # The service refuses a create for the year 9999, and an error reveals no time.
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


async def test_bundles_exported_too_soon_are_exported_again_once_settled(tmp_path):
    """Bundles that a fast clock exported too soon are recognised, and exported exactly once more when they settle."""
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
    """Return the ranges that the ledger lists as exported too soon and that are not settled yet."""
    with LedgerReader(directory) as ledger:
        (overview,) = ledger.overviews()
    return [one.bundle.range for one in overview.unsettled if one.bundle.range.end + SETTLE_SECONDS > now]


@pytest.mark.parametrize("created_at", ["year-1", "year-9999", "missing"])
async def test_an_invalid_creation_time_causes_no_new_export(tmp_path, created_at):
    """If `createdAt` is missing or invalid, the request time is used, and nothing is exported again."""
    async with serving(replace(CALM, created_at=created_at)) as sandbox:
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


async def test_a_longer_settle_time_causes_no_new_export(tmp_path):
    """Bundles that were settled under the earlier setting are not exported again."""
    async with serving(CALM) as sandbox:
        await night(sandbox, tmp_path)
        creates = sandbox.counts["create"]
        longer: dict[str, Any] = {"export": [{"bundle": "6h", "settle": "72h"}]}
        sandbox.skip(600)
        clock = clock_of(sandbox)
        assert (await run(sandbox, tmp_path, **{**NIGHT, "changes": longer}, host_clock=clock)).exit_code is Exit.DONE
        assert sandbox.counts["create"] == creates
        assert unsettled_yet(tmp_path, sandbox.now) == []


async def test_a_bundle_exported_too_soon_is_exported_again_at_its_own_width(tmp_path):
    """A backfill exports such a bundle again once it is settled; until then it is reported and costs no request."""
    async with serving(CALM) as sandbox:
        start = last_settled(sandbox.now)
        await store(tmp_path, Range(start - 3600, start - 1800), exported_at=start, settle_seconds=float(DAY))
        await store(tmp_path, Range(start - 1800, start), exported_at=start, settle_seconds=30.0 * DAY)
        viewer = Notebook()
        summary = await run(sandbox, tmp_path, start=show(start - 3600), end=show(start), changes=WIDE, viewer=viewer)
        assert summary.exit_code is Exit.DONE
        assert summary.to_dict()["refreshed"]["bundles"] == 1
        assert [one.range for one in sandbox.operations] == [(start - 3600, start - 1800)]
        (message,) = [one["message"] for one in viewer.of("note") if "before the data was settled" in one["message"]]
        assert f"from {show(start + 30 * DAY)} on" in message


async def store(directory: Path, span: Range, *, exported_at: float, settle_seconds: float) -> None:
    """Record an archive that a run stored at some time."""
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


async def test_offline_commands_use_the_time_that_a_run_learned(tmp_path):
    """Commands without requests use the time learned by the last run as long as it holds, else the host's clock."""
    async with serving(replace(CALM, clock_ahead_seconds=3600.0)) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        assert abs(time_at_service(settings) - sandbox.now + 3600) < 60
        await run(sandbox, tmp_path, **NIGHT)
        assert abs(time_at_service(settings) - sandbox.now) < 60
        ledger = await Ledger.open(tmp_path)
        ledger.remember("clock_check", ClockCheck(sandbox.now, sandbox.now - 3600 - 2 * DAY).to_json())
        await ledger.close()
        assert abs(time_at_service(settings) - sandbox.now + 3600) < 60
