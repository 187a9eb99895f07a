"""The ledger: rows are durable, grouped, in order, and read as they were written."""

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bucket import SentRequest
from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range
from asyncexport.core.coverage import RecordedRange, was_settled
from asyncexport.core.exports import Definition, Export, Format
from asyncexport.core.parking import ParkedTimes
from asyncexport.core.refreshing import needs_refresh
from asyncexport.core.states import BundleRecord, Created, Creating, Failed, Overdue, Planned, Ready, Split, State
from asyncexport.errors import IllegalMove, LedgerCorruptError, LedgerError, StorageError
from asyncexport.ledger import Ledger, LedgerReader, present
from asyncexport.ledger.bundle_queries import BUNDLES_PER_PAGE
from asyncexport.ledger.files import ledger_path
from asyncexport.ledger.journal import KEPT_DURATIONS, KEPT_REQUESTS, PRUNE_EVERY
from asyncexport.ledger.settles import LONGEST_SETTLES
from tests.failpoints import at_failpoints
from tests.ledger_rig import (
    EXPORTS,
    WAL,
    Boundary,
    archive,
    bundle,
    creating,
    stock_of,
    stored,
    stored_of,
)

ROOT = Path(__file__).parents[1]


async def opened(directory, *, boundary=lambda _name: None, **options):
    with at_failpoints(boundary):
        ledger = await Ledger.open(directory, **options)
    await ledger.register(EXPORTS)
    return ledger


async def covered_of(ledger, export, span):
    return await ledger._read(lambda queries: queries.covered(export, span))


async def count_of(ledger, export, span):
    return await ledger._read(lambda queries: queries.count_stored(export, span))


async def unfinished_of(ledger, export, span):
    return await ledger._read(lambda queries: queries.unfinished(export, span))


async def requests_since(ledger, at):
    return await ledger._read(lambda queries: queries.requests_since(at))


async def first_request_at(ledger):
    return await ledger._read(lambda queries: queries.first_request_at())


def unfinished(directory):
    with LedgerReader(directory) as ledger:
        return ledger.unfinished("events", ALL_TIME)


async def test_a_commit_is_on_disk_when_it_returns(tmp_path):
    """The writing connection fsyncs the log at each commit."""
    ledger = await opened(tmp_path)

    def pragma(queries, name):
        return queries._connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert await ledger._read(lambda queries: pragma(queries, "synchronous")) == 2
    assert await ledger._read(lambda queries: pragma(queries, "journal_mode")) == b"wal"
    await ledger.close()


async def test_a_row_is_committed_when_append_returns(tmp_path):
    """Other processes can then see the row."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    for number in range(5):
        await ledger.append(creating(number), at=1.0)
        assert boundary.names[-1] == "ledger.commit:after"
        assert unfinished(tmp_path) == [creating(n) for n in range(number + 1)]
    await ledger.close()


async def test_a_request_is_recorded_before_it_is_sent(tmp_path):
    """`send` returns once the row is durable; its status is 0 until an answer is recorded."""
    ledger = await opened(tmp_path)
    number = await ledger.send("create", at=5.0)
    with LedgerReader(tmp_path) as reader:
        assert reader.requests_since(0.0) == [SentRequest(5.0, "create", 0)]
    ledger.answered(number, status=429)
    assert await requests_since(ledger, 0.0) == [SentRequest(5.0, "create", 429)]
    assert await requests_since(ledger, 5.5) == []
    await ledger.close()


async def test_rows_that_wait_together_are_committed_together(tmp_path):
    """A hundred rows that wait during a commit share the next one."""
    boundary = Boundary(holds="ledger.commit:before")
    boundary.let_go.set()
    ledger = await opened(tmp_path, boundary=boundary)
    boundary.reached.clear()
    boundary.let_go.clear()
    first = asyncio.create_task(ledger.append(creating(0), at=1.0))
    await asyncio.to_thread(boundary.reached.wait)
    others = [asyncio.create_task(ledger.append(creating(number), at=1.0)) for number in range(1, 101)]
    await asyncio.sleep(0)
    before = boundary.commits
    boundary.let_go.set()
    await asyncio.gather(first, *others)
    assert boundary.commits - before == 2
    await ledger.close()


async def test_rows_keep_their_order(tmp_path):
    """Grouped states and requests are numbered in the order of the calls."""
    ledger = await opened(tmp_path)
    order = [number * 37 % 100 for number in range(100)]
    numbers = await asyncio.gather(*(ledger.send(f"kind{n}", at=float(n)) for n in order))
    assert numbers == list(range(1, 101))
    await asyncio.gather(*(ledger.append(creating(n), at=1.0) for n in order))
    await ledger.close()
    with sqlite3.connect(ledger_path(tmp_path)) as connection:
        starts = [row[0] for row in connection.execute("SELECT start FROM state ORDER BY seq")]
    connection.close()
    assert starts == [n * 1800 for n in order]


async def test_a_query_sees_all_earlier_rows(tmp_path):
    """It is answered after the commit of all earlier writes, awaited or not."""
    ledger = await opened(tmp_path)
    ledger.learn(finished_at=1.0, seconds=7.0)
    writing = asyncio.create_task(ledger.append(creating(0), at=1.0))
    await asyncio.sleep(0)
    assert await ledger.durations() == [7.0]
    assert await unfinished_of(ledger, "events", ALL_TIME) == [creating(0)]
    await writing
    await ledger.close()


async def test_a_cancelled_write_is_still_written(tmp_path):
    """Cancelling the wait does not take the row back."""
    boundary = Boundary(holds="ledger.commit:before")
    boundary.let_go.set()
    ledger = await opened(tmp_path, boundary=boundary)
    boundary.reached.clear()
    boundary.let_go.clear()
    in_progress = asyncio.create_task(ledger.append(creating(0), at=1.0))
    await asyncio.to_thread(boundary.reached.wait)
    queued = asyncio.create_task(ledger.append(creating(1), at=1.0))
    await asyncio.sleep(0)
    for task in (in_progress, queued):
        task.cancel()
    await asyncio.wait([in_progress, queued])
    assert in_progress.cancelled()
    assert queued.cancelled()
    boundary.let_go.set()
    await ledger.close()
    assert unfinished(tmp_path) == [creating(0), creating(1)]


async def test_unawaited_writes_are_committed_after_a_while(tmp_path):
    """Statuses, durations and notes wait for the next commit, but no longer than `lazy_seconds`."""
    boundary = Boundary(holds="ledger.commit:after")
    boundary.let_go.set()
    ledger = await opened(tmp_path, boundary=boundary, lazy_seconds=0.05)
    request = await ledger.send("create", at=1.0)
    boundary.reached.clear()
    ledger.answered(request, status=200)
    ledger.learn(finished_at=2.0, seconds=3.0)
    ledger.remember("key", "value")
    assert await asyncio.to_thread(boundary.reached.wait, 30)
    with LedgerReader(tmp_path) as reader:
        assert (reader.requests_since(0.0), reader.durations(), reader.recall("key")) == (
            [SentRequest(1.0, "create", 200)],
            [3.0],
            "value",
        )
    await ledger.close()


async def test_unawaited_writes_join_the_next_commit(tmp_path):
    """They cost no commit of their own while there are others."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary, lazy_seconds=3600.0)
    before = boundary.commits
    ledger.learn(finished_at=2.0, seconds=3.0)
    await ledger.append(creating(0), at=1.0)
    assert boundary.commits == before + 1
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.durations() == [3.0]


async def test_closing_commits_unawaited_writes(tmp_path):
    """The last note of a run is available to the next run."""
    ledger = await opened(tmp_path, lazy_seconds=3600.0)
    ledger.remember("key", "value")
    await ledger.close()
    ledger = await Ledger.open(tmp_path)
    assert await ledger.recall("key") == "value"
    assert await ledger.recall("other") is None
    await ledger.close()


async def test_closing_twice_is_harmless(tmp_path):
    """It also works concurrently; using a closed ledger raises an error instead of waiting forever."""
    ledger = await opened(tmp_path)
    await asyncio.gather(ledger.close(), ledger.close())
    await ledger.close()
    with pytest.raises(RuntimeError, match="closed"):
        await ledger.append(creating(0), at=1.0)
    with pytest.raises(RuntimeError, match="closed"):
        await covered_of(ledger, "events", ALL_TIME)
    with pytest.raises(RuntimeError, match="closed"):
        ledger.remember("key", "value")


async def test_a_cancelled_close_can_be_awaited_again(tmp_path):
    """The ledger is closed all the same."""
    boundary = Boundary(holds="ledger.commit:before")
    boundary.let_go.set()
    ledger = await opened(tmp_path, boundary=boundary)
    boundary.let_go.clear()
    ledger.remember("key", "value")
    closing = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    boundary.let_go.set()
    await ledger.close()
    assert not (tmp_path / WAL).exists()


def test_a_row_survives_the_end_of_its_event_loop(tmp_path):
    """If the loop ends during a commit, the row is written and no error occurs."""
    boundary = Boundary(holds="ledger.commit:before")
    boundary.let_go.set()

    async def leave_it():
        ledger = await opened(tmp_path, boundary=boundary)
        boundary.reached.clear()
        boundary.let_go.clear()
        writing = asyncio.create_task(ledger.append(creating(0), at=1.0))
        await asyncio.to_thread(boundary.reached.wait)
        writing.cancel()
        return ledger

    ledger = asyncio.run(leave_it())
    boundary.let_go.set()
    ledger._thread._jobs.end()  # closing does the same, but needs a loop
    ledger._thread._thread.join(60)
    assert unfinished(tmp_path) == [creating(0)]


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [
        (OSError(28, "No space left on device"), StorageError),
        (sqlite3.OperationalError("disk I/O error"), StorageError),
        (sqlite3.DatabaseError("malformed"), StorageError),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else type(one).__name__,
)
async def test_after_a_failed_commit_all_calls_fail_and_nothing_is_written(tmp_path, failure, error_type):
    """No caller proceeds without its row, and no later row is written after the missing one."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    await ledger.append(creating(0), at=1.0)
    boundary.fails = {"ledger.commit:before": failure}
    outcomes = await asyncio.gather(
        *(ledger.append(creating(number), at=1.0) for number in (1, 2, 3)), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [error_type] * 3
    boundary.fails = {}
    commits = boundary.commits
    for again in (
        lambda: ledger.append(creating(4), at=1.0),
        lambda: ledger.send("create", at=1.0),
        lambda: ledger.recall("key"),
        lambda: covered_of(ledger, "events", ALL_TIME),
    ):
        with pytest.raises(error_type):
            await again()
    ledger.remember("key", "value")
    await ledger.close()
    assert boundary.commits == commits
    assert unfinished(tmp_path) == [creating(0)]


async def test_a_lost_unawaited_write_is_raised_at_the_end(tmp_path):
    """`close` raises the error, once."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    boundary.fails = {"ledger.commit:before": OSError(28, "No space left on device")}
    ledger.remember("key", "value")
    with pytest.raises(StorageError, match="is full"):
        await ledger.close()
    await ledger.close()


async def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    """Rows that were durable before are kept, and with free space the next run continues."""
    ledger = await opened(tmp_path)
    for number in range(20):
        await ledger.append(creating(number), at=1.0)
    await ledger._read(lambda queries: queries._connection.execute("PRAGMA max_page_count = 1"))
    acknowledged = 20

    async def fill_up():
        nonlocal acknowledged
        while acknowledged < 10_000:
            await ledger.append(creating(acknowledged), at=1.0)
            acknowledged += 1

    with pytest.raises(StorageError, match="full") as caught:
        await fill_up()
    assert "space" in caught.value.hint
    await ledger.close()
    assert len(unfinished(tmp_path)) == acknowledged
    ledger = await opened(tmp_path)
    await ledger.append(creating(acknowledged), at=1.0)
    await ledger.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit for file sizes")
def test_without_space_for_a_new_ledger_there_is_none(tmp_path):
    """An incomplete ledger never gets its final name."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from asyncexport.errors import StorageError\n"
        "from asyncexport.ledger import Ledger\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    asyncio.run(Ledger.open(Path(sys.argv[1])))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    for limit in (0, 4096, 20_000):
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path, str(limit)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert "cannot" in done.stdout
        assert not present(tmp_path)
    asyncio.run(_closed(tmp_path))
    assert present(tmp_path)


async def _closed(directory):
    await (await Ledger.open(directory)).close()


async def test_a_crash_during_the_creation_leaves_no_ledger(tmp_path):
    """What was left is moved aside, and the next run creates a complete ledger."""
    boundary = Boundary(fails={"ledger.create:before": OSError(5, "Input/output error")})
    with pytest.raises(StorageError):
        await opened(tmp_path, boundary=boundary)
    assert not present(tmp_path)
    (tmp_path / WAL).write_bytes(b"an old log")
    await _closed(tmp_path)
    assert (tmp_path / ".asyncexport" / "ledger.sqlite3.damaged-1-wal").read_bytes() == b"an old log"
    with LedgerReader(tmp_path) as reader:
        reader.check()


async def test_a_rejected_row_only_concerns_its_caller(tmp_path):
    """Other rows of the same commit are written, and the ledger stays usable."""
    ledger = await opened(tmp_path)
    stranger = BundleRecord(Bundle("stranger", Range(0, 1800)), 0, Creating(1, 1.0))
    outcomes = await asyncio.gather(
        ledger.append(creating(0), at=1.0),
        ledger.append(stranger, at=1.0),
        ledger.append(creating(1), at=1.0),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [type(None), LedgerError, type(None)]
    assert await unfinished_of(ledger, "events", ALL_TIME) == [creating(0), creating(1)]
    await ledger.close()


async def test_a_state_that_contradicts_the_archive_is_a_bug(tmp_path):
    """A record can neither lose an archive nor claim one that was not stored."""
    ledger = await opened(tmp_path)
    await ledger.append(stored(0), at=1.0)
    with pytest.raises(IllegalMove, match="says otherwise"):
        await ledger.append(creating(0), at=1.0)
    with pytest.raises(IllegalMove, match="says otherwise"):
        await ledger.append(replace(creating(1), stored=archive(1)), at=1.0)
    assert await stock_of(ledger, "events") == RecordedRange((), (bundle(0).range,), 1)
    await ledger.close()


async def test_a_lock_by_another_program_is_awaited_and_then_reported(tmp_path):
    """A transaction of SQLite's shell is no damage."""
    ledger = await opened(tmp_path, busy_seconds=0.05)
    other = sqlite3.connect(ledger_path(tmp_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="another program") as caught:
        await ledger.append(creating(0), at=1.0)
    assert not isinstance(caught.value, LedgerCorruptError)
    other.execute("ROLLBACK")
    other.close()
    await ledger.close()


async def test_an_export_has_one_definition(tmp_path):
    """Once it has data, another definition is refused, and the error lists the differences."""
    ledger = await opened(tmp_path)
    await ledger.append(creating(0), at=1.0)
    await ledger.append(replace(creating(0), state=Created(1, 1.0, "op")), at=1.0)
    other = Export("events", Definition(segment="buyers", format=Format.CSV))
    with pytest.raises(LedgerError, match="segment was 'everyone' and is now 'buyers', format was 'ndjson'") as caught:
        await ledger.register([Export("more"), other])
    assert caught.value.hint
    await ledger.register([replace(EXPORTS[0], bundle_seconds=3600, settle_seconds=0)])
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.exports() == {one.name: one.definition for one in EXPORTS}


async def test_a_definition_without_data_may_be_corrected(tmp_path):
    """An unknown segment can be corrected without a new directory."""
    ledger = await opened(tmp_path)
    await ledger.append(creating(0), at=1.0)
    await ledger.append(replace(creating(0), state=Failed("no such segment")), at=1.0)
    right = Export("events", Definition(segment="buyers"))
    await ledger.register([right])
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.exports()["events"] == right.definition


@pytest.mark.slow
async def test_archives_found_on_disk_are_restored(tmp_path):
    """Only archives are restored, in batches of thousands, and each batch completely or not at all."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    before = boundary.commits
    await ledger.restore([stored(number) for number in range(2500)], at=1.0)
    assert boundary.commits == before + 2
    with pytest.raises(ValueError, match="stored"):
        await ledger.restore([creating(3000)], at=1.0)
    with pytest.raises(LedgerError, match="stranger"):
        await ledger.restore([stored(3000), stored(0, "stranger")], at=1.0)
    assert await count_of(ledger, "events", ALL_TIME) == 2500
    assert await ledger.query(lambda queries: queries.has_archives("events"))
    assert not await ledger.query(lambda queries: queries.has_archives("people"))
    assert await stored_of(ledger, "events", ALL_TIME) == [stored(number) for number in range(2500)]
    await ledger.close()


async def test_queries_are_answered_for_the_requested_span(tmp_path):
    """A bundle belongs to every span that it overlaps by at least a second."""
    ledger = await opened(tmp_path)
    for number in (0, 1, 3):
        await ledger.append(stored(number), at=1.0)
    await ledger.append(creating(2), at=1.0)
    for span, expected in [
        (Range(0, 1800), [0]),
        (Range(1799, 1801), [0, 1]),
        (Range(3600, 5400), []),
        (Range(3599, 5401), [1, 3]),
        (Range(-10, 0), []),
    ]:
        assert [one.bundle for one in await stored_of(ledger, "events", span)] == [bundle(n) for n in expected]
        assert await count_of(ledger, "events", span) == len(expected)
    assert await covered_of(ledger, "events", ALL_TIME) == [Range(0, 3600), Range(5400, 7200)]
    assert await unfinished_of(ledger, "events", Range(5399, 5400)) == [creating(2)]
    assert await unfinished_of(ledger, "events", Range(5400, 7200)) == []
    assert await covered_of(ledger, "unknown", ALL_TIME) == []
    await ledger.close()


async def test_stored_bundles_are_read_page_by_page(tmp_path):
    """Each bundle is returned once and in order, also if several start at the same time."""
    ledger = await opened(tmp_path)
    spans = [Range(at, at + 1 + width) for at in range(BUNDLES_PER_PAGE) for width in range(3)]
    records = [BundleRecord(Bundle("events", span), 0, archive(1), archive(1)) for span in spans]
    await ledger.restore(records[::-1], at=1.0)
    assert await stored_of(ledger, "events", ALL_TIME) == records
    await ledger.close()


async def test_archives_exported_soon_after_their_end_are_found(tmp_path):
    """The limit compares whole seconds of the export time."""
    ledger = await opened(tmp_path)
    for number, delay in enumerate([0.0, 99.0, 99.9, 101.0, 5000.0]):
        done = replace(archive(number), exported_at=bundle(number).range.end + delay)
        await ledger.append(BundleRecord(bundle(number), 0, done, done), at=1.0)
    soon = [one.bundle for one in await stored_of(ledger, "events", ALL_TIME, exported_within=100)]
    assert soon == [bundle(0), bundle(1), bundle(2)]
    await ledger.close()


DELAYS = [0.0, *(whole + part for whole in (-1, 1, 59, 60, 61, 3600, 86_400) for part in (-1e-6, 0.0, 0.25, 0.999_999))]
"""Seconds from the end of a bundle to its export."""


@pytest.fixture(scope="module")
def exported_after_delays(tmp_path_factory):
    """A directory whose ledger has an archive for each delay."""
    directory = tmp_path_factory.mktemp("delays")

    async def filled() -> None:
        ledger = await opened(directory)
        dones = [
            replace(archive(number), exported_at=bundle(number).range.end + delay)
            for number, delay in enumerate(DELAYS)
        ]
        records = [BundleRecord(bundle(number), 0, done, done) for number, done in enumerate(dones)]
        await ledger.restore(records, at=1.0)
        await ledger.close()

    asyncio.run(filled())
    return directory


@given(
    ages=st.lists(st.sampled_from(DELAYS) | st.floats(0, 100_000), min_size=1),
    now=st.floats(0, 200_000) | st.integers(0, 200_000).map(float),
)
def test_no_bundle_that_needs_a_refresh_is_missed(exported_after_delays, ages, now):
    """The ledger may return more candidates than are due, but never fewer: the core decides."""
    with LedgerReader(exported_after_delays) as reader:
        everything = list(reader.stored("events", ALL_TIME))
        candidates = list(reader.stored("events", ALL_TIME, exported_within=max(ages)))
    due = [one for one in everything if needs_refresh(one, ages=ages, now=now)]
    assert len(everything) == len(DELAYS)
    assert [one for one in candidates if needs_refresh(one, ages=ages, now=now)] == due


async def test_archives_exported_before_they_settled_are_found(tmp_path):
    """They are those that the core selects, in order, for any settle time and to the fraction of a second."""
    ledger = await opened(tmp_path)
    delays = [-301.0, -300.5, -300.0, -0.5, 0.0, DAY - 301.0, DAY - 300.5, DAY - 300.0, DAY - 299.5, DAY + 1.0]
    records = []
    for number, (settle, delay) in enumerate(itertools.product((0.0, float(DAY), 3.0 * DAY), delays)):
        done = replace(archive(number), exported_at=bundle(number).range.end + delay, settle_seconds=settle)
        records.append(BundleRecord(bundle(number), 0, done, done))
    await ledger.restore(records, at=1.0)
    early = [one for one in records if not was_settled(one)]
    assert 5 < len(early) < len(records)
    assert await ledger.query(lambda queries: queries.unsettled("events", ALL_TIME)) == early
    # This also holds once the longest settle time is remembered, and for archives exported after that.
    await ledger.register([Export("events")])
    assert await ledger.query(lambda queries: queries.unsettled("events", ALL_TIME)) == early
    done = replace(archive(99), exported_at=bundle(99).range.end + 5.0 * DAY, settle_seconds=6.0 * DAY)
    early.append(BundleRecord(bundle(99), 0, done, done))
    await ledger.restore(early[-1:], at=2.0)
    assert await ledger.query(lambda queries: queries.unsettled("events", ALL_TIME)) == early
    # A value remembered by the ledger that this one was rebuilt from belongs to other rows.
    # An unreadable value is ignored.
    for remembered in (
        '[1.0, 1, {"events": 0.0}]',
        "",
        "7",
        "[1]",
        '[1, "a", {}]',
        "[1, 2, 3]",
        '[1, 2, {"events": []}]',
    ):
        ledger.remember(LONGEST_SETTLES, remembered)
        assert await ledger.query(lambda queries: queries.unsettled("events", ALL_TIME)) == early
    await ledger.register([Export("events")])
    assert await ledger.query(lambda queries: queries.unsettled("events", ALL_TIME)) == early
    some = Range(bundle(3).range.start, bundle(12).range.end)
    within = [one for one in early if some.start <= one.bundle.range.start < some.end]
    assert await ledger.query(lambda queries: queries.unsettled("events", some)) == within
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert list(reader.overviews()[0].unsettled) == early


async def test_a_new_revision_keeps_the_archive(tmp_path):
    """While it is in progress and after it fails, coverage and sizes are those of the existing archive."""
    ledger = await opened(tmp_path)
    await ledger.append(stored(0), at=1.0)
    again = stored(0).next_revision()
    for state in (Creating(1, 9.0), Failed("the operation failed")):
        again = replace(again, state=state)
        await ledger.append(again, at=2.0)
        parked = {bundle(0): ParkedTimes(1, 2.0)} if isinstance(state, Failed) else {}
        assert await stock_of(ledger, "events") == RecordedRange((again,), (bundle(0).range,), 0, parked=parked)
        assert await stored_of(ledger, "events", ALL_TIME) == [again]
    newer = replace(archive(0), rows=77, sha256="f" * 64)
    await ledger.append(replace(again, state=newer, stored=newer), at=3.0)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        (events, _) = reader.overviews()
        assert (events.stored, events.empty, events.rows, events.unfinished, events.last_at) == (1, 0, 77, (), 3.0)


async def test_a_split_is_written_together_with_its_pieces(tmp_path):
    """It is one commit; known pieces keep their state, and only a failed bundle can be split."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    wide = Bundle("events", Range(0, 5400))
    failed = BundleRecord(wide, 0, Failed("why"))
    await ledger.append(failed, at=1.0)
    await ledger.append(stored(1), at=1.0)
    before = boundary.commits
    await ledger.split(failed, [bundle(number).range for number in range(3)], at=2.0)
    assert boundary.commits == before + 1
    recorded = await stock_of(ledger, "events")
    assert recorded.unfinished == tuple(BundleRecord(bundle(number)) for number in (0, 2))
    assert (recorded.split, recorded.parked) == ((replace(failed, state=Split()),), {})
    assert recorded.covered == (bundle(1).range,)
    for one in (stored(1), creating(5), recorded.split[0]):
        with pytest.raises(IllegalMove):
            await ledger.split(one, [bundle(7).range], at=3.0)
    again = recorded.split[0].next_revision()
    await ledger.append(replace(again, state=Creating(1, 4.0)), at=4.0)
    assert (await stock_of(ledger, "events")).split == ()
    await ledger.close()


async def test_parked_attempts_are_counted_since_the_last_archive(tmp_path):
    """Overdue ones count as well; those of other bundles, other exports and earlier revisions do not."""
    ledger = await opened(tmp_path)
    states: tuple[State, ...] = (Failed("a"), Failed("b"), Overdue(1, 0.0, "op"))
    for at, state in enumerate(states):
        await ledger.append(BundleRecord(bundle(0), 0, state), at=float(at))
        await ledger.append(BundleRecord(bundle(0, "people"), 0, state), at=9.0)
        await ledger.append(BundleRecord(bundle(1), 0, Failed("c")), at=float(at))
    await ledger.append(stored(1), at=5.0)
    again = replace(stored(1).next_revision(), state=Failed("d"))
    await ledger.append(again, at=6.0)
    found = (await stock_of(ledger, "events")).parked
    assert found == {bundle(0): ParkedTimes(3, 2.0), bundle(1): ParkedTimes(1, 6.0)}
    await ledger.close()


async def test_a_planned_bundle_of_another_width_is_forgotten_once_it_is_covered(tmp_path):
    """A bundle between attempts is only unfinished while its time is not stored."""
    ledger = await opened(tmp_path)
    wide = BundleRecord(Bundle("events", Range(0, 3600)), 0, Planned(3))
    await ledger.append(wide, at=1.0)
    await ledger.append(stored(0), at=1.0)
    assert await unfinished_of(ledger, "events", ALL_TIME) == [wide]
    await ledger.append(stored(1), at=1.0)
    assert await unfinished_of(ledger, "events", ALL_TIME) == []
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.overviews()[0].unfinished == ()


async def test_an_overview_counts_what_is_recorded(tmp_path):
    """Each export has its own sums, gaps and open problems, all of the same time."""
    ledger = await opened(tmp_path)
    for number in (0, 1, 4, 6):
        await ledger.append(stored(number), at=float(number))
    await ledger.append(creating(2), at=7.0)
    await ledger.append(BundleRecord(bundle(3), 0, Failed("why")), at=8.0)
    await ledger.append(creating(0, "people"), at=9.0)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        events, people = reader.overviews()
    assert (events.stored, events.empty, events.rows, events.bytes) == (4, 2, 2, 80_011)
    assert (events.in_progress, events.failed, events.overdue) == (1, 1, 0)
    assert events.parked == (BundleRecord(bundle(3), 0, Failed("why")),)
    assert events.gaps == (Range(3600, 7200), Range(9000, 10_800))
    assert (events.last_at, people.last_at) == (8.0, 9.0)
    assert (people.stored, people.covered, people.gaps, people.in_progress) == (0, (), (), 1)


@pytest.mark.slow
async def test_the_data_for_the_next_run_is_bounded(tmp_path):
    """The oldest requests and durations are deleted, and the record shows that some are missing."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)
    assert await first_request_at(ledger) is None
    total = KEPT_REQUESTS + PRUNE_EVERY
    for first in range(0, total, 500):
        await asyncio.gather(*(ledger.send("create", at=100.0 + n) for n in range(first, first + 500)))
        if first == 0:
            assert await first_request_at(ledger) == 100.0
    for number in range(KEPT_DURATIONS + PRUNE_EVERY):
        ledger.learn(finished_at=1.0, seconds=float(number))
    kept = await requests_since(ledger, 0.0)
    assert [one.at for one in kept] == [100.0 + n for n in range(total - KEPT_REQUESTS, total)]
    assert await first_request_at(ledger) == 0.0
    assert await ledger.durations() == [float(n) for n in range(PRUNE_EVERY, PRUNE_EVERY + KEPT_DURATIONS)]
    ledger.answered(1, status=200)
    assert await requests_since(ledger, 0.0) == kept
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        reader.check()


@pytest.mark.slow
async def test_the_head_row_stays_small(tmp_path):
    """The row rewritten in each commit grows with the number of exports, not with their rows."""
    ledger = await opened(tmp_path)
    await ledger.restore([stored(number) for number in range(5000)], at=1.0)
    for number in range(100):
        ledger.learn(finished_at=1.0, seconds=float(number))
    await ledger.close()
    connection = sqlite3.connect(ledger_path(tmp_path))
    ((length,),) = connection.execute("SELECT length(text) FROM head")
    connection.close()
    assert length < 1024


@pytest.mark.slow
async def test_ten_thousand_rows_of_a_hundred_tasks(tmp_path):
    """All rows are written in far fewer commits, and no append returns before its commit."""
    boundary = Boundary()
    ledger = await opened(tmp_path, boundary=boundary)

    async def task(first):
        for number in range(first, first + 100):
            await ledger.append(creating(number), at=1.0)

    await asyncio.gather(*(task(first) for first in range(0, 10_000, 100)))
    assert boundary.commits < 1000
    await ledger.close()
    assert unfinished(tmp_path) == [creating(number) for number in range(10_000)]


@pytest.mark.parametrize(
    "ready", [Ready(1, 1.5, "ü\x00\n'\""), Ready(2**62, 1e300, "x" * 100_000)], ids=["odd text", "big values"]
)
async def test_unusual_values_are_read_as_written(tmp_path, ready):
    """Any text and number that a state can contain is supported."""
    ledger = await opened(tmp_path)
    odd = BundleRecord(Bundle("events", Range(-(2**40), 2**40)), 3, ready)
    await ledger.append(odd, at=1e-300)
    await ledger.close()
    assert unfinished(tmp_path) == [odd]
