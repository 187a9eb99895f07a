"""Complete export runs against a sandbox in the same process."""

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.config import ApiKey
from asyncexport.core.bundles import show
from asyncexport.core.events import BundleMoved, Event
from asyncexport.core.exports import Export
from asyncexport.core.states import Created
from asyncexport.core.summary import Exit, Snapshot
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import LedgerReader, hold
from asyncexport.run.run import export
from asyncexport.run.spec import Backfill, Nightly
from asyncexport.sandbox import SandboxBehaviour, SandboxFault, SandboxFileRows, serving
from tests.exporting import (
    AMPLE,
    Notebook,
    archives,
    canonical,
    clock_of,
    moment,
    rows_in,
    run,
    settings_for,
    truth,
    truth_as_csv,
)

pytestmark = pytest.mark.slow

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=40, requests_per_minute=1e6, burst=10_000)
"""A service whose operations take almost no time."""

TWO_DAYS: dict[str, Any] = {"start": "2026-01-01", "end": "2026-01-03"}


def three_formats(**more: Any) -> list[dict[str, Any]]:
    """Return three exports of the same rows, one for each format."""
    return [{"name": f"as-{kind}", "format": kind, **more} for kind in ("ndjson", "csv", "json")]


async def test_two_days_arrive_row_for_row(tmp_path):
    """96 archives contain exactly the rows that exist, and no request is refused or repeated."""
    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path, **TWO_DAYS)
        assert summary.exit_code is Exit.DONE
        assert len(archives(tmp_path)) == 96
        first = tmp_path / "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
        assert archives(tmp_path)[0] == first
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-03")
        assert sandbox.counts["create"] == sandbox.counts["results"] == sandbox.counts["download"] == 96
        assert sandbox.refused == summary.refused == 0
        assert sandbox.leaked_credentials == 0


async def test_the_summary_adds_up(tmp_path):
    """The summary's bundles, rows, bytes and requests agree with the files on disk and the requests the service saw."""
    async with serving(FAST) as sandbox:
        said = (await run(sandbox, tmp_path)).to_dict()
        files = archives(tmp_path)
        empty = sum(gzip.decompress(path.read_bytes()) == b"" for path in files)
        expected = {"planned": 48, "already": 0, "stored": 48, "empty": empty, "failed": 0, "unfinished": 0}
        assert said["bundles"] == expected
        assert said["rows"] == rows_in(tmp_path).total()
        assert said["bytes"] == sum(path.stat().st_size for path in files)
        kinds = ("create", "poll", "list", "results")
        assert said["requests"] == {**{kind: sandbox.counts[kind] for kind in kinds}, "other": sandbox.counts["me"]}
        assert said["problems"] == []


class SnapshotViewer(Notebook):
    """A viewer that keeps taking snapshots."""

    async def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take snapshots until the end of the run."""
        while True:
            self.snapshots.append(snapshot())
            await asyncio.sleep(0.002)


async def test_a_slow_download_is_shown_and_no_end_time_is_invented(tmp_path):
    """Bytes are shown as they arrive, and no end time is estimated until the first file is complete."""
    drip = SandboxFault.parse("download:drip,seconds=0.0001")
    viewer = SnapshotViewer()
    async with serving(replace(FAST, faults=(drip,))) as sandbox:
        await run(sandbox, tmp_path, end="2026-01-01T00:30:00Z", viewer=viewer)
    first = [one for one in viewer.snapshots if one.received]
    assert len({one.received for one in first}) > 2
    assert {one.expected_seconds for one in first} == {None}
    assert {(one.running, one.queued, one.fetching, one.downloading, one.waiting) for one in first} == {(0, 0, 1, 1, 0)}
    assert viewer.snapshots[0].expected_seconds is not None, "before the first file the estimate counts requests only"


async def test_a_finished_range_costs_no_request(tmp_path):
    """Running the same command again sends no request and exits with 0."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path)
        sandbox.reset_counts()
        summary = await run(sandbox, tmp_path)
        assert sum(sandbox.counts.values()) == 0
        assert summary.exit_code is Exit.DONE
        assert summary.to_dict()["bundles"]["already"] == 48


async def test_several_exports_in_every_format_share_one_budget(tmp_path):
    """Three exports in different formats run side by side on one budget, and each has every row."""
    async with serving(replace(FAST, burst=60, requests_per_minute=1e5, scope="all")) as sandbox:
        budget = {"burst": 60, "requests_per_minute": 1e5, "scope": "all"}
        changes = {"export": three_formats(bundle="1h"), "budget": budget}
        summary = await run(sandbox, tmp_path, changes=changes)
        assert summary.exit_code is Exit.DONE
        assert sandbox.refused == 0
        rows = truth(sandbox, "2026-01-01", "2026-01-02")
        assert rows_in(tmp_path, "as-ndjson") == rows_in(tmp_path, "as-json") == rows
        assert rows_in(tmp_path, "as-csv") == truth_as_csv(sandbox, "2026-01-01", "2026-01-02")


async def test_individuals_are_exported_day_by_day(tmp_path):
    """An export of individuals has one archive per day with the same rows as the service."""
    async with serving(FAST) as sandbox:
        changes = {"export": [{"name": "people", "type": "individual"}]}
        summary = await run(sandbox, tmp_path, **TWO_DAYS, changes=changes)
        assert summary.exit_code is Exit.DONE
        days = [("2026-01-01", "2026-01-02"), ("2026-01-02", "2026-01-03")]
        for path, (start, end) in zip(archives(tmp_path, "people"), days, strict=True):
            found = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            expected = sandbox.individuals(moment(start), moment(end))
            assert sorted(map(canonical, found)) == sorted(map(canonical, expected))


async def test_rows_are_stored_byte_for_byte(tmp_path):
    """Integers beyond 64 bits, spellings of floats and text with line ends are stored exactly as they were sent."""
    row = (
        '{"IndvId":%d,"EventStart":"2026-01-01T00:%02d:26.900Z","EventType":"seen","PageIp":"","Big":123456789012345678901,'
        '"evt_price_real":4.0,"evt_small_real":1e-7,"EventTargetText":"Mango\\ncados \\u00e4 \\ud83e\\udd6d \\\\ \\""}'
    )
    lines = [row % (2**53 + 1 + number, number) for number in range(60)]
    file = tmp_path / "rows.json"
    file.write_text("[" + ",\n".join(lines) + "]")
    async with serving(replace(FAST, rows=SandboxFileRows(file))) as sandbox:
        await run(sandbox, tmp_path / "exports", end="2026-01-01T01:00:00Z")
    found = [
        line
        for path in archives(tmp_path / "exports")
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]
    assert sorted(found) == sorted(lines)


@pytest.mark.parametrize(("listing", "most"), [(True, 2.3), (False, 3.6)])
async def test_requests_per_bundle_stay_low_where_all_calls_count(tmp_path, listing, most):
    """In a run of 96 bundles, each costs at most 2.3 requests if the list has ids, and at most 3.6 if not."""
    speed = 600
    behaviour = replace(
        FAST,
        speed=speed,
        operation_seconds=300,
        list_ids=listing,
        scope="all",
        burst=50,
        requests_per_minute=2.0,
        # Few rows, because the run is too short to generate many.
        rows_per_hour=4,
    )
    changes = {
        "budget": {"requests_per_minute": 2 * speed, "burst": 50, "scope": "all"},
        "polling": {"min_interval": "17ms", "expected": "500ms"},
    }
    async with serving(behaviour) as sandbox:
        summary = await run(sandbox, tmp_path, **TWO_DAYS, changes=changes)
        assert summary.exit_code is Exit.DONE
        counts = sandbox.counts
        assert sum(counts[kind] for kind in ("create", "poll", "list", "results")) <= most * 96
        assert sandbox.refused == 0


TOKENS_A_MINUTE = 600
"""One token every 100 ms, which is long compared with the delays of a busy machine."""


async def test_auto_learns_that_all_calls_count(tmp_path):
    """If the limit unexpectedly counts all calls, only requests in flight at that time are refused, and later none."""
    allowance: dict[str, Any] = {"requests_per_minute": TOKENS_A_MINUTE, "burst": 20}
    changes = {"budget": allowance, "polling": {"expected": "100ms"}}
    async with serving(replace(FAST, operation_seconds=0.1, scope="all", **allowance)) as sandbox:
        first = await run(sandbox, tmp_path, end="2026-01-01T12:00:00Z", changes=changes)
        assert first.exit_code is Exit.DONE
        assert 1 <= sandbox.refused <= 12  # twice: four results calls, a list, and a create sent meanwhile
        sandbox.reset_counts()
        second = await run(sandbox, tmp_path, end="2026-01-01T16:00:00Z", changes=changes)
        assert second.exit_code is Exit.DONE
        assert sandbox.refused == 0


async def test_auto_learns_in_a_long_run_with_an_empty_bucket(tmp_path):
    """Even if creates keep the bucket empty, the refusals end: none is among the last quarter of the requests."""
    allowance: dict[str, Any] = {"requests_per_minute": TOKENS_A_MINUTE, "burst": 5}
    changes = {"budget": allowance, "polling": {"expected": "100ms"}}
    async with serving(replace(FAST, operation_seconds=0.1, scope="all", rows_per_hour=1, **allowance)) as sandbox:
        summary = await run(sandbox, tmp_path, end="2026-01-02T00:00:00Z", changes=changes)
        assert summary.exit_code is Exit.DONE
        refused = [number for number, call in enumerate(sandbox.calls) if call.status == 429]
        assert refused
        # The learning may take several pauses, depending on which request meets the empty bucket first.
        assert refused[-1] < 0.75 * len(sandbox.calls)


@pytest.mark.parametrize("first_width", ["1h", "30m", "24h"])
@pytest.mark.parametrize("finished", [True, False])
async def test_a_changed_width_fetches_nothing_again(tmp_path, first_width, finished):
    """After the bundle width has changed, stored archives stay, and only the remaining time is cut into new bundles."""
    async with serving(FAST) as sandbox:
        await run(
            sandbox,
            tmp_path,
            start="2026-01-01T00:10:00Z",
            end="2026-01-02T00:00:00Z" if finished else "2026-01-01T11:20:00Z",
            changes={"export": [{"bundle": first_width}]},
        )
        before = {path: path.stat().st_mtime_ns for path in archives(tmp_path)}
        downloads = sandbox.counts["download"]
        summary = await run(sandbox, tmp_path, changes={"export": [{"bundle": "2h"}]})
        assert summary.exit_code is Exit.DONE
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert sandbox.counts["download"] - downloads == len(archives(tmp_path)) - len(before)
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-02")


class StopsAtCreates(Notebook):
    """Asks the run to stop after a number of creates."""

    def __init__(self, stop: Stop, creates: int) -> None:
        super().__init__()
        self._stop, self._left = stop, creates

    def on_event(self, event: Event) -> None:
        """Count the creates."""
        if isinstance(event, BundleMoved) and isinstance(event.after.state, Created):
            self._left -= 1
            if self._left == 0:
                self._stop.ask(Exit.TERMINATED)


async def test_a_run_resumes_the_operations_of_an_interrupted_run(tmp_path):
    """Operations created before a stop are fetched by the next run at their own width, without another create."""
    async with serving(replace(FAST, operation_seconds=0.4, operation_sigma=0.01)) as sandbox:
        stop = Stop()
        viewer = StopsAtCreates(stop, 5)
        first = await run(sandbox, tmp_path, changes={"export": [{"bundle": "1h"}]}, stop=stop, viewer=viewer)
        assert first.exit_code is Exit.TERMINATED
        assert sandbox.counts["create"] >= 5
        second = await run(sandbox, tmp_path)
        assert second.exit_code is Exit.DONE
        ranges = [made.range for made in sandbox.operations]
        assert len(ranges) == len(set(ranges))
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-02")


async def test_an_end_that_is_not_settled_is_moved_back(tmp_path):
    """Data younger than the settle time is left out, which is reported and not a failure."""
    async with serving(FAST) as sandbox:
        viewer = Notebook()
        settle_seconds = Export("everyone-events").settle_seconds
        start = int(sandbox.now - settle_seconds - 7200) // 86_400 * 86_400
        summary = await run(sandbox, tmp_path, start=show(start), end=show(int(sandbox.now) + 7200), viewer=viewer)
        assert summary.exit_code is Exit.DONE
        assert summary.tally.stored == summary.tally.planned > 0
        assert all(made.end <= sandbox.now - settle_seconds for made in sandbox.operations)
        assert "so the range ends there" in viewer.of("note")[0]["message"]


async def test_the_first_nightly_run_covers_a_week_and_the_next_continues(tmp_path):
    """The first `nightly` run covers seven days, and the next one continues from there without repeating a request."""
    async with serving(replace(FAST, rows_per_hour=4)) as sandbox:
        changes = {"export": [{"bundle": "6h"}]}
        first = await run(sandbox, tmp_path, kind=Nightly, start="", end=None, changes=changes)
        assert first.exit_code is Exit.DONE
        midnight = int(sandbox.now) // 86_400 * 86_400
        assert min(made.start for made in sandbox.operations) == midnight - 7 * 86_400
        made = len(sandbox.operations)
        sandbox.skip(86_400)
        second = await run(sandbox, tmp_path, kind=Nightly, start="", end=None, changes=changes)
        assert second.exit_code is Exit.DONE
        ranges = [one.range for one in sandbox.operations]
        assert len(ranges) == len(set(ranges)) >= made


async def test_a_nightly_run_refreshes_what_was_exported_too_soon(tmp_path):
    """A refresh exports bundles again that were exported too soon, and late rows are in the new archive."""
    behaviour = replace(FAST, late_share=0.5, late_seconds=86_400 * 3, rows_per_hour=200)
    async with serving(replace(behaviour, clock_ahead_seconds=-86_400 * 4)) as sandbox:
        start = int(sandbox.now) // 86_400 * 86_400 - 2 * 86_400
        order: dict[str, Any] = {"kind": Nightly, "start": show(start), "end": show(start + 6 * 3600)}
        await run(sandbox, tmp_path, **order, host_clock=clock_of(sandbox))
        early = rows_in(tmp_path)
        sandbox.behave(behaviour)
        again = await run(sandbox, tmp_path, **order, refresh_ages=(72 * 3600.0,))
        assert again.exit_code is Exit.DONE
        assert early < rows_in(tmp_path) == truth(sandbox, show(start), show(start + 6 * 3600))
        sandbox.reset_counts()
        await run(sandbox, tmp_path, **order, refresh_ages=(72 * 3600.0,))
        assert sum(sandbox.counts.values()) == 0


async def test_a_parked_bundle_does_not_stop_the_others(tmp_path):
    """A bundle that always fails is parked and reported, and the next run of the same command retries it."""
    window = "2026-01-01T05:00:00Z/2026-01-01T05:30:00Z"
    bad = replace(FAST, faults=(SandboxFault.parse(f"operation:FAILED,window={window}"),))
    async with serving(bad) as sandbox:
        first = await run(sandbox, tmp_path, changes={"retry": {"attempts": 2, "before_split": 3}})
        assert first.exit_code is Exit.PARTIAL
        assert first.tally.stored == 47
        assert [problem["start"] for problem in first.to_dict()["problems"]] == ["2026-01-01T05:00:00Z"]
        sandbox.behave(FAST)
        sandbox.reset_counts()
        second = await run(sandbox, tmp_path)
        assert second.exit_code is Exit.DONE
        assert sandbox.counts["create"] == 1
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-02")


async def test_an_unreachable_service_costs_time_but_no_bundle(tmp_path):
    """While the service is unreachable the run waits, and then it resumes."""
    async with serving(replace(FAST, operation_seconds=0.2)) as sandbox:

        async def away() -> None:
            await asyncio.sleep(0.1)
            async with sandbox.unreachable():
                await asyncio.sleep(0.3)

        leaving = asyncio.create_task(away())
        summary = await run(sandbox, tmp_path, changes={"retry": {"outage": "20s", "attempts": 1}})
        await leaving
        assert summary.exit_code is Exit.DONE
        assert summary.tally.stored == 48
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-02")


async def test_a_service_that_was_never_reachable_ends_the_run(tmp_path):
    """A run that never reached the service ends after `[retry] outage` with the exit code for that."""
    async with serving(FAST) as sandbox, sandbox.unreachable():
        summary = await run(sandbox, tmp_path, changes={"retry": {"outage": "100ms"}})
    assert summary.exit_code is Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "code", "creates"),
    [(400, Exit.USAGE, 4), (404, Exit.USAGE, 4), (403, Exit.KEY_REFUSED, 6), (401, Exit.KEY_REFUSED, 6)],
)
async def test_an_export_refused_from_the_start_costs_a_few_creates(tmp_path, status, code, creates):
    """An unknown segment or a key without permission ends the run after a few creates and leaves no archive."""
    async with serving(replace(FAST, faults=(SandboxFault.parse(f"create:{status}"),))) as sandbox:
        summary = await run(sandbox, tmp_path)
        assert summary.exit_code is code
        assert sandbox.counts["create"] == creates
        assert str(status) in str(summary.error)
    assert archives(tmp_path) == []


async def test_a_corrected_segment_can_be_exported(tmp_path):
    """After a misspelt segment id is corrected, the export works in the same directory."""
    async with serving(FAST) as sandbox:
        misspelt = {"export": [{"segment": "everyon"}]}
        assert (await run(sandbox, tmp_path, changes=misspelt)).exit_code is Exit.USAGE
        assert (await run(sandbox, tmp_path)).exit_code is Exit.DONE
        assert len(archives(tmp_path)) == 48


async def test_a_refused_export_does_not_stop_the_others(tmp_path):
    """If one of two exports has an unknown segment, the other one still completes."""
    async with serving(FAST) as sandbox:
        exports = [{"name": "bad", "segment": "nobody-knows"}, {"name": "good"}]
        summary = await run(sandbox, tmp_path, changes={"export": exports})
        assert summary.exit_code is Exit.USAGE
        assert len(archives(tmp_path, "good")) == 48
        assert summary.error is not None


async def test_a_wrong_key_ends_the_run_at_its_first_request(tmp_path):
    """A refused key is confirmed by one request to `/me`, and no other request is sent."""
    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path, key="na1.wrong")
        assert summary.exit_code is Exit.KEY_REFUSED
        assert (sandbox.counts["list"], sandbox.counts["me"]) == (1, 1)
        assert sum(sandbox.counts.values()) == 2


async def test_another_definition_is_refused(tmp_path):
    """A run with another export definition is refused before any request, so the directory stays as it is."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, end="2026-01-01T02:00:00Z")
        sandbox.reset_counts()
        summary = await run(sandbox, tmp_path, changes={"export": [{"fields": ["EventStart"]}]})
        assert summary.exit_code is Exit.LEDGER
        assert "fields" in str(summary.error)
        assert sum(sandbox.counts.values()) == 0


async def test_archives_without_a_ledger_are_not_overwritten(tmp_path):
    """If the ledger is missing although archives exist, the run refuses to start."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, end="2026-01-01T02:00:00Z")
        for path in (tmp_path / ".asyncexport").iterdir():
            path.unlink()
        sandbox.reset_counts()
        summary = await run(sandbox, tmp_path)
        assert summary.exit_code is Exit.LEDGER
        assert summary.error is not None
        assert "--rebuild" in summary.error.hint
        assert sum(sandbox.counts.values()) == 0


async def test_a_second_run_reports_who_holds_the_directory(tmp_path):
    """A second run in the same directory is refused, and the error contains the id of the first process."""
    async with serving(FAST) as sandbox:
        with hold(tmp_path, command="nightly"):
            summary = await run(sandbox, tmp_path)
        assert summary.exit_code is Exit.LOCKED
        assert f"process {os.getpid()}" in str(summary.error)


async def test_a_directory_that_cannot_be_created_is_reported(tmp_path):
    """If a file is in the way of the output directory, the run ends with the exit code for disk errors."""
    (tmp_path / "taken").write_text("")
    async with serving(FAST) as sandbox:
        summary = await run(sandbox, tmp_path / "taken" / "exports")
        assert summary.exit_code is Exit.DISK
        assert sum(sandbox.counts.values()) == 0


async def test_max_duration_leaves_work_and_fails_nothing(tmp_path):
    """A run whose time is up stops with the exit code for that, and the next one finishes without more creates."""
    async with serving(replace(FAST, operation_seconds=30)) as sandbox:
        first = await run(sandbox, tmp_path, max_duration_seconds=0.3)
        assert first.exit_code is Exit.TIME_UP
        assert first.tally.unfinished == 48
        sandbox.skip(3600)
        second = await run(sandbox, tmp_path)
        assert second.exit_code is Exit.DONE
        assert sandbox.counts["create"] == 48


async def test_a_second_stop_stops_immediately(tmp_path):
    """A run that is asked to stop twice ends while operations are in flight, and its ledger has all of them."""
    async with serving(replace(FAST, operation_seconds=30)) as sandbox:
        stop = Stop()
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, stop.ask, Exit.INTERRUPTED)
        loop.call_later(0.2, stop.ask, Exit.INTERRUPTED)
        summary = await run(sandbox, tmp_path, stop=stop)
        assert summary.exit_code is Exit.INTERRUPTED
        with LedgerReader(tmp_path) as ledger:
            (overview,) = ledger.overviews()
        known = {(one.bundle.range.start, one.bundle.range.end) for one in overview.unfinished}
        assert {made.range for made in sandbox.operations} <= known


async def test_the_number_of_concurrent_downloads_is_limited(tmp_path):
    """There are never more downloads in flight than `[concurrency] downloads`."""
    slow = replace(FAST, faults=(SandboxFault.parse("download:late,seconds=0.02"),))
    async with serving(slow) as sandbox:
        await run(sandbox, tmp_path, changes={"concurrency": {"downloads": 2, "operations": 40}})
        assert sandbox.peaks["download"] == 2
        assert sandbox.peaks["running"] <= 40


@pytest.mark.parametrize("empty", ["usual", "plain", "nothing", "gzip-of-nothing"])
@pytest.mark.parametrize("container", ["ndjson", "csv", "json"])
async def test_an_empty_bundle_is_an_archive_without_rows(tmp_path, empty, container):
    """A bundle without data is stored with 0 rows, in whatever form the service sends an empty file."""
    async with serving(replace(FAST, rows_per_hour=1e-6, empty=empty)) as sandbox:
        changes = {"export": [{"format": container}]}
        summary = await run(sandbox, tmp_path, end="2026-01-01T02:00:00Z", changes=changes)
        assert summary.exit_code is Exit.DONE
        assert summary.to_dict()["bundles"]["empty"] == 4
        assert len(archives(tmp_path)) == 4
        assert rows_in(tmp_path).total() == 0


async def test_durations_and_requests_are_kept_for_the_next_run(tmp_path):
    """The ledger records the durations of operations and all requests for the next run."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, changes={"budget": {**AMPLE, "burst": 100}})
        with LedgerReader(tmp_path) as ledger:
            assert len(ledger.durations()) == 48
            sent = ledger.requests_since(0)
        assert len(sent) == sum(sandbox.counts[kind] for kind in ("create", "list", "poll", "results", "me"))
        assert {one.status for one in sent} == {200}


async def test_a_viewer_that_fails_does_not_stop_a_run(tmp_path, caplog):
    """A listener or viewer that raises costs no row, and each error is logged once."""

    def listener(_event: object) -> None:
        raise RuntimeError("no events")

    async def watch(_snapshot: object) -> None:
        raise RuntimeError("no view")

    async with serving(FAST) as sandbox:
        settings = settings_for(sandbox, tmp_path)
        spec = Backfill(settings.exports, moment("2026-01-01"), moment("2026-01-02"))
        key = ApiKey(sandbox.key)
        summary = await export(settings, spec, key=key, stop=Stop(), listeners=(listener,), watch=watch)
        assert summary.exit_code is Exit.DONE
        assert rows_in(tmp_path) == truth(sandbox, "2026-01-01", "2026-01-02")
    logged = [record.getMessage() for record in caplog.records if "RuntimeError" in record.getMessage()]
    assert len(logged) == 2


def test_tests_do_not_leave_anything_in_the_working_directory():
    """The tests create no files in the working directory."""
    assert not (Path(__file__).parents[1] / "exports").exists()
