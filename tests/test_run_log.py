"""The ledger's record of runs, and of how many requests were sent in each hour."""

import socket
from dataclasses import replace

import pytest

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Export
from asyncexport.core.summary import Exit
from asyncexport.errors import LedgerError
from asyncexport.ledger import AcceptedGap, HourCount, Ledger, LedgerReader, RunRecord
from asyncexport.ledger.run_log import KEPT_SECONDS, run_of_note
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import moment, run

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4, requests_per_minute=1e6, burst=10_000)

DAY = 86_400.0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "7",
        '{"command": "backfill"}',
        '{"other": 1}',
        '{"command": 7, "began": 1.0}',
        '{"command": "a", "began": "b"}',
    ],
)
def test_an_unreadable_note_of_an_earlier_version_is_ignored(text):
    """A note about the last run, as version 1 kept it, is ignored if it cannot be read."""
    assert run_of_note(text) is None


async def test_an_unexpected_error_is_recorded_by_its_type_only(tmp_path):
    """The record of an unexpected exception has only its type, because its text could contain a secret."""

    def fail(name: str) -> None:
        if not name.startswith(("ledger.", "lock")):
            raise ValueError("a secret")

    async with serving(FAST) as sandbox:
        with pytest.raises(ValueError, match="a secret"):
            await run(sandbox, tmp_path, end="2026-01-01T00:30:00Z", boundary=fail)
    with LedgerReader(tmp_path) as ledger:
        last = ledger.last_run()
    assert last is not None
    assert (last.command, last.exit_code, last.error) == ("backfill", Exit.UNEXPECTED, "ValueError")
    assert last.ended is not None
    assert moment("2026-01-01") < last.began <= last.ended


async def test_each_run_is_recorded_with_its_counts(tmp_path):
    """Each run is recorded with its counts, including one that finds nothing to do."""
    async with serving(FAST) as sandbox:
        first = await run(sandbox, tmp_path, end="2026-01-01T01:00:00Z")
        await run(sandbox, tmp_path, end="2026-01-01T01:00:00Z")
    with LedgerReader(tmp_path) as ledger:
        one, two = ledger.runs()
        hours = ledger.hours()
    assert (one.command, one.host, one.exit_code, one.error) == ("backfill", socket.gethostname(), Exit.DONE, "")
    assert one.counts["bundles"] == {
        "planned": 2,
        "already": 0,
        "stored": 2,
        "empty": first.tally.empty,
        "failed": 0,
        "unfinished": 0,
    }
    assert (one.counts["rows"], one.counts["bytes"]) == (first.tally.rows, first.tally.bytes)
    assert one.counts["requests"]["create"] == 2
    assert (two.exit_code, two.counts["bundles"]["already"], sum(two.counts["requests"].values())) == (0, 2, 0)
    sent = {kind: count for kind, count in one.counts["requests"].items() if count}
    counted: dict[str, int] = {}
    for hour in hours:
        assert (hour.began % 3600, hour.status // 100) == (0, 2)
        counted[hour.kind] = counted.get(hour.kind, 0) + hour.requests
    assert counted == sent


async def test_a_killed_run_has_a_start_but_no_end(tmp_path):
    """A killed run stays recorded without an end, and the next run gets its own row."""
    begun = RunRecord("nightly", 5.0, "here")
    ledger = await Ledger.open(tmp_path)
    ledger.begin_run(begun)
    await ledger.close()
    ledger = await Ledger.open(tmp_path)
    other = RunRecord("backfill", 7.0)
    ledger.begin_run(other)
    ended = replace(other, ended=8.5, exit_code=3, error="gone: ü", counts={"rows": 7})
    ledger.end_run(ended, drops_old=False)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.runs() == [begun, ended]


async def test_a_request_counts_in_the_hour_it_was_sent_in(tmp_path):
    """Each request is counted in the hour it was sent in, with status 0 until an answer arrives."""
    ledger = await Ledger.open(tmp_path)
    first = await ledger.send("create", at=3599.5)
    second = await ledger.send("create", at=3599.5)
    await ledger.send("list", at=3600.0)
    ledger.answered(first, status=201)
    ledger.answered(second, status=0)
    await ledger.close()
    ledger = await Ledger.open(tmp_path)
    ledger.answered(await ledger.send("create", at=1.0), status=201)
    ledger.answered(await ledger.send("create", at=1.0), status=429)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert reader.hours() == [
            HourCount(0, "create", 0, 1),
            HourCount(0, "create", 201, 2),
            HourCount(0, "create", 429, 1),
            HourCount(3600, "list", 0, 1),
        ]


async def test_an_assumed_request_counts_in_no_hour(tmp_path):
    """A rebuilt ledger starts as if after a 429, but no request is added to the hourly counts."""
    ledger = await Ledger.open(tmp_path)
    ledger.assume_spent(at=7200.0)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert [(one.at, one.status) for one in reader.requests_since(0.0)] == [(7200.0, 429)]
        assert reader.hours() == []


@pytest.mark.parametrize("drops_old", [True, False])
async def test_runs_and_hours_are_kept_for_400_days(tmp_path, drops_old):
    """Runs and hours older than 400 days are dropped, but only by a run that knows the time from the service."""
    ledger = await Ledger.open(tmp_path)
    days = (0, 1, 399, 400, 500)
    for day in days:
        ledger.begin_run(RunRecord("nightly", day * DAY))
        ledger.answered(await ledger.send("create", at=day * DAY), status=201)
    now = 500.5 * DAY
    last = RunRecord("nightly", now)
    ledger.begin_run(last)
    ledger.end_run(replace(last, ended=now), drops_old=drops_old)
    # Later requests are still counted correctly.
    ledger.answered(await ledger.send("create", at=500 * DAY), status=201)
    await ledger.close()
    kept = [day for day in days if not drops_old or day * DAY >= now - KEPT_SECONDS]
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert [one.began / DAY for one in reader.runs()] == [*kept, 500.5]
        assert [(one.began / DAY, one.requests) for one in reader.hours()] == [
            (day, 2 if day == 500 else 1) for day in kept
        ]


async def test_the_newest_run_is_kept_under_a_fast_clock(tmp_path):
    """Even if the clock makes every run look old, the newest one stays recorded."""
    ledger = await Ledger.open(tmp_path)
    for at in (1.0, 2.0):
        ledger.begin_run(RunRecord("nightly", at))
    ledger.end_run(RunRecord("nightly", 2.0, ended=9e11), drops_old=True)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert [one.began for one in reader.runs()] == [2.0]


async def test_accepted_gaps_are_recorded(tmp_path):
    """Gaps accepted by the user are recorded in order with their reasons, but only for a known export."""
    gaps = [AcceptedGap(Bundle("events", Range(start, start + 1800)), f"reason ü {start}", 1.5) for start in (1800, 0)]
    ledger = await Ledger.open(tmp_path)
    await ledger.register([Export("events")])
    for gap in gaps:
        await ledger.accept(gap)
    with pytest.raises(LedgerError, match="does not know"):
        await ledger.accept(AcceptedGap(Bundle("other", Range(0, 1800)), "", 1.0))
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()
        assert reader.accepted() == gaps
