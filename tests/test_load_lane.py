"""Loads beside a run: days are loaded as they become complete, and nothing of it harms the run."""

import asyncio
import threading
from contextlib import suppress

import pytest

import asyncexport
from asyncexport.core.bundles import Bundle
from asyncexport.core.events import BundleStored
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary, Tally
from asyncexport.core.warehouse.load_events import DayCounts, DayFailed, LoadEvent
from asyncexport.core.warehouse.load_tally import LoadTally, exit_with_load
from asyncexport.display import load_lines
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import DayError, LedgerLockedError
from asyncexport.ledger import hold_load, own_load_path
from asyncexport.run.load_lane import LoadLane
from asyncexport.sandbox import serving
from asyncexport.warehouse.failpoints import LOAD_FAILPOINT
from tests.day_making import ndjson
from tests.exporting import QUICK, rows_in
from tests.load_rig import Arrival, Place, date, events
from tests.test_secrets import CALM


class Run:
    """A run that stores archives when the test says so, with a load beside it."""

    def __init__(self, place: Place) -> None:
        self.place, self.stop = place, Stop()
        self.loaded: asyncio.Queue[LoadEvent] = asyncio.Queue()
        self.totals: list[int] = []
        self.lane = LoadLane(
            place.settings, ("everyone-events",), on_event=self.loaded.put_nowait, on_total=self.totals.append
        )

    async def store(self, arrival: Arrival, *, again: bool = False) -> None:
        """Store an archive, and report it as a run does."""
        bundle = Bundle(arrival.export, arrival.range)
        before = self.place.archives.get(bundle)
        await self.place.stored(arrival)
        self.lane.on_event(BundleStored(bundle, self.place.archives[bundle], before if again else None))

    def ended(self, code: Exit = Exit.DONE) -> Summary:
        """Return the summary of the run."""
        return Summary("backfill", code, 1.0, Tally(), {}, 0, str(self.place.output))


@pytest.fixture
def run(tmp_path):
    """A run of an empty directory."""
    return Run(Place(tmp_path))


async def test_a_day_is_loaded_as_soon_as_all_of_it_is_stored(run: Run):
    """The first day is in the tables while the run goes on; the second one, which has a gap, when it has ended."""

    async def work() -> Summary:
        await run.store(Arrival((0, 12), events(0, 3)))
        await run.store(Arrival((24, 25), events(50, 3)))
        await run.store(Arrival((12, 24), events(10, 3)))
        event = await run.loaded.get()
        assert (event.counts.date, event.counts.rows) == (date(0), 6)
        assert not run.place.file(1).exists()
        return run.ended()

    summary = await run.lane.beside(work(), run.stop)
    assert run.place.in_parquet() == run.place.in_duckdb() == run.place.expected()
    counts = summary.to_dict()["load"]
    assert (counts["days"], counts["loaded"], counts["already"], counts["rows"]) == (2, 2, 0, 9)
    assert run.totals == [1]
    assert summary.exit_code is Exit.DONE
    record = run.place.last()
    assert record
    assert record.last
    assert (record.last.command, record.last.is_complete, record.last.count("loaded")) == ("backfill", True, 2)
    assert not own_load_path(run.place.warehouse).exists()


async def test_the_day_that_is_being_loaded_at_the_end_of_a_run_counts(run: Run):
    """It is finished, and a line of it that is no row leads to exit code 3, though it is there before the rest."""
    publishing, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
    renamed: list[str] = []

    def listen(name: str) -> None:
        renamed.extend([name] if name == "parquet.rename:before" else [])
        if len(renamed) == 2 and not go_on.is_set():  # the last of its two tables
            loop.call_soon_threadsafe(publishing.set)
            go_on.wait()

    async def work() -> Summary:
        await run.store(Arrival((0, 24), content=ndjson(*events(0, 3)) + b"{,\n"))
        await publishing.wait()
        await run.store(Arrival((24, 48), events(10, 2)))
        loop.call_soon(go_on.set)  # the run has ended by then
        return run.ended()

    token = LOAD_FAILPOINT.set(listen)
    try:
        summary = await run.lane.beside(work(), run.stop)
    finally:
        LOAD_FAILPOINT.reset(token)
    counts = summary.to_dict()["load"]
    assert (counts["loaded"], counts["already"], counts["rows"], counts["quarantined"]) == (2, 0, 5, 1)
    assert summary.exit_code is Exit.PARTIAL


async def test_a_refreshed_day_is_loaded_once_at_the_end(run: Run):
    """Each of its bundles may be refreshed, so it would be loaded again and again."""
    await run.place.stored(Arrival((0, 12), events(0, 3)), Arrival((12, 24), events(10, 3)))
    await run.place.loaded()

    async def work() -> Summary:
        await run.store(Arrival((0, 12), events(20, 4), revision=1), again=True)
        await run.store(Arrival((12, 24), events(30, 4), revision=1), again=True)
        return run.ended()

    summary = await run.lane.beside(work(), run.stop)
    assert run.loaded.qsize() == 1
    assert summary.to_dict()["load"]["rows"] == 8
    assert run.place.in_parquet() == run.place.expected()


async def test_a_load_that_cannot_begin_does_not_harm_the_run(run: Run):
    """Another load holds the directory: the run is done, and the exit code says that something is not."""

    async def work() -> Summary:
        await run.store(Arrival((0, 24), events(0, 3)))
        return run.ended()

    with hold_load(run.place.warehouse):
        summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.PARTIAL
    assert summary.error is None
    assert summary.load
    assert isinstance(summary.load.error, LedgerLockedError)
    again = await run.lane.beside(work(), run.stop)
    assert again.load is summary.load, "a load that has failed is not tried again"
    assert run.place.last() is None, "the load that holds the directory has a record of its own"


async def test_a_load_directory_that_cannot_be_used_is_recorded_beside_the_ledger(run: Run):
    """The record of a run's load does not depend on the directory that fails; a run that is stopped loads nothing."""

    async def work() -> Summary:
        await run.store(Arrival((0, 24), events(0, 3)))
        return run.ended()

    run.place.warehouse.write_text("in the place of the directory")
    assert (await run.lane.beside(work(), run.stop)).exit_code is Exit.DISK
    record = run.place.last()
    assert record
    assert record.last
    assert (record.last.exit_code, record.last.is_complete, record.begun) == (Exit.DISK, False, None)
    assert str(run.place.warehouse) in record.last.error


async def test_a_bug_in_a_load_does_not_harm_the_run(run: Run):
    """What the load raises does not come out of the run."""

    async def work() -> Summary:
        await run.store(Arrival((0, 24), events(0, 3)))
        return run.ended()

    def fail(_event: LoadEvent) -> None:
        raise RuntimeError("a bug")

    run.lane._on_event = fail
    summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.UNEXPECTED
    assert summary.load
    assert str(summary.load.error) == "unexpected ExceptionGroup in the load"
    assert run.place.leftovers() == []


async def test_a_run_that_is_stopped_stops_its_load(run: Run):
    """Nothing more is loaded after that; the exit code is that of the run."""

    async def work() -> Summary:
        await run.store(Arrival((0, 24), events(0, 3)))
        await run.loaded.get()
        await run.store(Arrival((24, 25), events(10, 3)))
        run.stop.ask(Exit.INTERRUPTED)
        return run.ended(Exit.INTERRUPTED)

    summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.INTERRUPTED
    assert summary.to_dict()["load"]["loaded"] == 1
    assert not run.place.file(1).exists()
    assert run.place.last() is None, "the load of what was left has not begun"


async def test_a_run_that_is_out_of_time_loads_nothing_and_says_so(run: Run):
    """It does not say that there is nothing to load."""

    async def work() -> Summary:
        await run.store(Arrival((0, 1), events(0, 3)))
        run.stop.ask(Exit.TIME_UP)
        return run.ended(Exit.TIME_UP)

    summary = await run.lane.beside(work(), run.stop)
    assert load_lines(summary, directory="warehouse") == ["stopped before a day was loaded"]
    assert summary.exit_code is Exit.TIME_UP


async def test_a_cancelled_run_leaves_no_unfinished_file(run: Run):
    """A second signal cancels the run, and the load with it."""

    async def work() -> Summary:
        await run.store(Arrival((0, 24), events(0, 3)))
        await asyncio.Event().wait()
        return run.ended()

    working = asyncio.create_task(run.lane.beside(work(), run.stop))
    await run.loaded.get()
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    assert run.place.in_parquet() == run.place.expected()
    assert run.place.leftovers() == []


def tally(*errors: Exception, unfinished: int = 0) -> LoadTally:
    """Return the tally of a load with these failures."""
    found = LoadTally(days=unfinished + len(errors))
    for error in errors:
        found.record(DayFailed(DayCounts(export="e", date="2026-01-01"), error))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("run_code", "load", "code"),
    [
        (Exit.DONE, tally(), Exit.DONE),
        (Exit.DONE, tally(DayError("x")), Exit.PARTIAL),
        (Exit.TIME_UP, tally(DayError("x")), Exit.PARTIAL),
        (Exit.TIME_UP, tally(unfinished=3), Exit.TIME_UP),
        (Exit.TIME_UP, tally(), Exit.TIME_UP),
        (Exit.DONE, tally(unfinished=3), Exit.PARTIAL),
        (Exit.LEDGER, tally(DayError("x")), Exit.LEDGER),
        (Exit.INTERRUPTED, tally(DayError("x")), Exit.INTERRUPTED),
        (Exit.PARTIAL, tally(), Exit.PARTIAL),
    ],
)
def test_the_exit_code_of_the_run_comes_first(run_code, load, code):
    """The load decides only if nothing failed in the run."""
    assert exit_with_load(run_code, load) is code


@pytest.mark.parametrize(
    ("run_code", "load", "code"),
    [
        (Exit.DONE, tally(), Exit.TERMINATED),
        (Exit.DONE, tally(unfinished=3), Exit.TERMINATED),
        (Exit.DONE, tally(DayError("x")), Exit.PARTIAL),
        (Exit.PARTIAL, tally(unfinished=3), Exit.PARTIAL),
    ],
)
def test_a_load_that_a_signal_stopped_is_not_done(run_code, load, code):
    """The run was done, and what it was asked to load was not."""
    assert exit_with_load(run_code, load, stopped_by=Exit.TERMINATED) is code


async def test_a_signal_stops_the_load_after_the_run(run: Run):
    """The exit code says so, although the run was done."""

    async def work() -> Summary:
        await run.place.stored(Arrival((0, 24), events(0, 3)))
        run.stop.ask(Exit.TERMINATED)
        return run.ended()

    summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.TERMINATED
    assert not run.place.file(0).exists()


async def test_a_backfill_loads_what_it_exports(tmp_path):
    """The library function, with a sandbox of the service: archives and tables have the same rows."""
    place = Place(tmp_path)
    async with serving(CALM) as sandbox:
        place.changes = {**QUICK, "api": {"base_url": sandbox.url}}
        place.changes["output"] = {"directory": str(place.output)}
        summary = await asyncexport.backfill(
            place.settings, start="2026-01-01", end="2026-01-02", key=sandbox.key, load=True
        )
    assert summary.exit_code is Exit.DONE, summary
    counts = summary.to_dict()["load"]
    assert (counts["loaded"], counts["rows"]) == (1, rows_in(place.output).total())
    again = await asyncexport.load(place.settings, start="2026-01-01")
    assert again.to_dict()["load"]["already"] == 1
    assert "warehouse.duckdb" in place.states()
