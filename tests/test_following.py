"""What becomes due while a run goes on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, show
from asyncexport.core.events import Event
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export
from asyncexport.core.old_order import OldOrder
from asyncexport.core.states import BundleRecord, Created, Failed, Planned, Ready, Split, State, Stored
from asyncexport.core.summary import Tally
from asyncexport.core.work_queue import WorkQueue
from asyncexport.engine.scheduler import Stop
from asyncexport.ledger import Ledger
from asyncexport.run.following import PresentFollower
from asyncexport.run.planner import Planner
from asyncexport.run.spec import Backfill, Nightly, RunSpec
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import Notebook, clock_of, moment, rows_in, run, truth

DAWN = 20_000 * DAY
"""The start of the range."""

A = Export("a")
B = Export("b", bundle_seconds=6 * HOUR, settle_seconds=HOUR)


class SetClock(ServiceClock):
    """A clock that stands at `moment`."""

    moment = 0.0

    def now(self) -> float:
        """Return the moment."""
        return self.moment


class Run:
    """A planned run on a real ledger; bundles are stored when a test says so."""

    def __init__(self, ledger: Ledger, spec: RunSpec, now: float) -> None:
        self.ledger = ledger
        self.clock = SetClock()
        self.clock.moment = now
        self.tally = Tally()
        settings = Settings.from_layers({"nightly": {"since": show(DAWN)}})
        self.planner = Planner(settings, spec, ledger=ledger, clock=self.clock, tally=self.tally)

    async def begin(self) -> list[BundleRecord]:
        """Plan the run; return the bundles that it starts."""
        plan = await self.planner.plan()
        work = WorkQueue(plan.exports)
        self.follower = PresentFollower(self.planner, plan, is_given=work.has_given)
        return list(work)

    async def due_at(self, now: float) -> list[tuple[str, Range]]:
        """Return what has become due at this time."""
        self.clock.moment = now
        return [(one.bundle.export, one.bundle.range) for one in await self.follower.newly_due()]

    async def store(self, records: Sequence[BundleRecord]) -> None:
        """Store bundles at the current time."""
        for one in records:
            await store(self.ledger, one, at=self.clock.moment)
            self.tally.stored += 1


async def store(ledger: Ledger, record: BundleRecord, *, at: float, settle: float = A.settle_seconds) -> None:
    archive = Stored("f.gz", 9, 1, "0" * 64, at, at, settle)
    await ledger.append(replace(record, state=archive, stored=archive), at=at)


async def put(ledger: Ledger, start: float, end: float, state: State) -> None:
    """Record a bundle of the first export; times are in hours from the start of the range."""
    bundle = Bundle("a", span(start, end))
    if isinstance(state, Stored):
        await store(ledger, BundleRecord(bundle), at=DAWN + 40 * HOUR)
    else:
        await ledger.append(BundleRecord(bundle, 0, state), at=float(DAWN))


def span(start: float, end: float) -> Range:
    """Return a range given in hours from the start."""
    return Range(DAWN + int(start * HOUR), DAWN + int(end * HOUR))


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(directory)
    try:
        await ledger.register([A, B])
        yield ledger
    finally:
        await ledger.close()


@pytest.mark.parametrize("spec", [Backfill((A, B), DAWN), Nightly((A, B)), Backfill((A, B), DAWN, DAWN + 9 * DAY)])
async def test_what_settles_becomes_due_once(tmp_path, spec):
    """Each settled bundle becomes due once, in its export's width, and the tally and the ranges grow with it."""
    async with opened(tmp_path) as ledger:
        run = Run(ledger, spec, DAWN + 30 * HOUR)
        first = await run.begin()
        assert len(first) == run.tally.planned == 8 + 4
        assert await run.due_at(DAWN + 30.4 * HOUR) == []
        assert await run.due_at(DAWN + 31.1 * HOUR) == [("a", span(4, 4.5)), ("a", span(4.5, 5)), ("b", span(24, 30))]
        assert await run.due_at(DAWN + 31.1 * HOUR) == []
        assert await run.due_at(DAWN + 20 * HOUR) == [], "the clock was set back"
        assert await run.due_at(DAWN + 31.5 * HOUR) == [("a", span(5, 5.5))]
        assert (run.tally.planned, run.tally.stored_before) == (16, 0)
        covered = run.tally.ranges
        assert (covered["a"].end, covered["b"].end) == (DAWN + int(5.5 * HOUR), DAWN + 30 * HOUR)
        assert covered["a"].settled_until == covered["a"].end


async def test_nothing_becomes_due_after_the_requested_end(tmp_path):
    """A run whose end was cut back follows the present up to that end, also if it is not at a bundle's edge."""
    async with opened(tmp_path) as ledger:
        run = Run(ledger, Backfill((A,), DAWN, DAWN + 5 * HOUR + 60), DAWN + 30 * HOUR)
        await run.begin()
        assert run.planner.has_open_end
        ranges = [one for _, one in await run.due_at(DAWN + 90 * HOUR)]
        assert ranges == [span(4, 4.5), span(4.5, 5), Range(DAWN + 5 * HOUR, DAWN + 5 * HOUR + 60)]
        assert not run.tally.is_cut_back


async def test_an_export_with_nothing_settled_yet_becomes_due(tmp_path):
    """An export that had nothing to do when the run was planned is followed as well."""
    async with opened(tmp_path) as ledger:
        run = Run(ledger, Backfill((A, B), DAWN), DAWN + 8 * HOUR)
        assert {one.bundle.export for one in await run.begin()} == {"b"}
        assert await run.due_at(DAWN + 26.6 * HOUR) == [
            ("a", span(0, 0.5)),
            *(("b", span(start, start + 6)) for start in (6, 12, 18)),
        ]


@pytest.mark.parametrize(
    ("state", "end"),
    [(Created(1, 0.0, "op"), 5), (Planned(2), 5), (Failed("why"), 5), (Split(), 5), (Ready(1, 0.0, "x"), 4.25)],
)
async def test_the_time_of_a_bundle_across_the_end_is_not_due_again(tmp_path, state, end):
    """A bundle of another width that begins in the planned range keeps its time, whatever becomes of it in the run."""
    async with opened(tmp_path) as ledger:
        if isinstance(state, Split):
            await put(ledger, 3.75, end, Failed("why"))
            await ledger.split(BundleRecord(Bundle("a", span(3.75, end)), 0, Failed("why")), [span(3.75, end)], at=0.0)
        else:
            await put(ledger, 3.75, end, state)
        run = Run(ledger, Backfill((A,), DAWN), DAWN + 30 * HOUR)
        await run.begin()
        await put(ledger, 3.75, end, Planned(3)) if isinstance(state, Ready | Created) else None
        first = [span(end, 5)] if end % 0.5 else []
        due = [one for _, one in await run.due_at(DAWN + 31.7 * HOUR)]
        assert due == ([span(4.25, 4.5), span(4.5, 5)] if first else []) + [span(5, 5.5)]


async def test_what_is_recorded_after_the_end_is_counted_as_it_is(tmp_path):
    """Bundles after the end that are stored or in progress are not exported again when their time has come."""
    async with opened(tmp_path) as ledger:
        await put(ledger, 4, 4.5, Stored("f", 1, 1, "0", 0.0))
        await put(ledger, 4.5, 5, Created(1, 0.0, "op"))
        run = Run(ledger, Backfill((A,), DAWN), DAWN + 30 * HOUR)
        planned = len(await run.begin())
        assert await run.due_at(DAWN + 31.5 * HOUR) == [("a", span(4.5, 5)), ("a", span(5, 5.5))]
        assert (run.tally.planned, run.tally.stored_before) == (planned + 3, 1)


async def test_a_bundle_that_is_audited_does_not_become_due(tmp_path):
    """A bundle whose refresh becomes due before its audit has begun is exported only once."""
    async with opened(tmp_path) as ledger:
        early = Run(ledger, Nightly((A,), DAWN + HOUR), DAWN + 30 * HOUR)
        await early.store(await early.begin())
        run = Run(ledger, Nightly((A,), DAWN + HOUR, (72.0 * HOUR,)), DAWN + 60 * HOUR)
        assert await run.begin() == []
        run.tally.audit.sample[Bundle("a", span(0, 0.5))] = Stored("f.gz", 9, 1, "0" * 64, 0.0)
        assert await run.due_at(DAWN + 80 * HOUR) == [("a", span(0.5, 1))]


async def test_a_refresh_becomes_due_once(tmp_path):
    """A stored bundle that reaches its age in the run is refreshed, unless this run has exported it."""
    async with opened(tmp_path) as ledger:
        early = Run(ledger, Nightly((A,), DAWN + HOUR), DAWN + 30 * HOUR)
        await early.store(await early.begin())
        run = Run(ledger, Nightly((A,), refresh_ages=(48.0 * HOUR,)), DAWN + 48.2 * HOUR)
        first = await run.begin()
        assert [one.bundle.range for one in first if one.stored] == []
        before = run.tally.planned
        due = await run.due_at(DAWN + 48.6 * HOUR)
        assert due == [("a", span(22, 22.5)), ("a", span(0, 0.5))]
        assert await run.due_at(DAWN + 48.7 * HOUR) == []
        assert (run.tally.planned, run.tally.stored_before) == (before + 1, 1)
        await run.store([one for one in first if one.bundle.range == span(1, 1.5)])
        due = await run.due_at(DAWN + 49.6 * HOUR)
        assert due == [("a", span(22.5, 23)), ("a", span(23, 23.5)), ("a", span(0.5, 1))]


ONE_AT_A_TIME = {"concurrency": {"operations": 1}, "budget": {"burst": 2}, "export": [{"bundle": "6h"}]}


@pytest.mark.slow
@pytest.mark.parametrize("order", OldOrder)
async def test_runs_in_any_order_leave_the_same_rows(tmp_path, order):
    """Fresh bundles are created first and old ones in the order asked for; afterwards the rows equal the service's."""
    behaviour = SandboxBehaviour(operation_seconds=0.01, rows_per_hour=20, requests_per_minute=1e6, burst=10_000)
    async with serving(behaviour) as sandbox:
        start = show(int(sandbox.now) // DAY * DAY - 6 * DAY)
        summary = await run(
            sandbox,
            tmp_path,
            kind=Nightly,
            start=start,
            end=None,
            changes=ONE_AT_A_TIME,
            host_clock=clock_of(sandbox),
            old_order=order,
        )
        end = summary.to_dict()["ranges"]["everyone-events"]["end"]
        made = [int(one.start) for one in sandbox.operations]
        fresh = [one for one in made if one + 6 * HOUR + A.settle_seconds > sandbox.now - 48 * HOUR]
        old = [one for one in sorted(made, reverse=order is OldOrder.NEWEST) if one not in fresh]
        assert len(made) == (moment(end) - moment(start)) // (6 * HOUR)
        assert 0 < len(fresh) < len(made)
        assert made == sorted(fresh) + old
        assert rows_in(tmp_path) == truth(sandbox, start, end)


class StoppingViewer(Notebook):
    """Asks the run to stop when this many bundles are stored."""

    def __init__(self, stop: Stop, after: int) -> None:
        super().__init__()
        self._stop, self._after = stop, after

    def on_event(self, event: Event) -> None:
        """Count stored bundles."""
        super().on_event(event)
        if len(self.of("stored")) == self._after and not self._stop.asked.is_set():
            self._stop.ask(Exit.TIME_UP)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 7, 12])
async def test_runs_that_differ_in_order_export_each_bundle_once(tmp_path, after):
    """A night that is stopped and a backfill in another order leave the service's rows, with one create per bundle."""
    behaviour = SandboxBehaviour(operation_seconds=0.01, rows_per_hour=20, requests_per_minute=1e6, burst=10_000)
    async with serving(behaviour) as sandbox:
        start = show(int(sandbox.now) // DAY * DAY - 6 * DAY)
        order: dict[str, Any] = {"start": start, "end": None, "host_clock": clock_of(sandbox)}
        changes = {**ONE_AT_A_TIME, "concurrency": {"operations": 3}}
        stop = Stop()
        first = await run(
            sandbox, tmp_path, kind=Nightly, **order, changes=changes, stop=stop, viewer=StoppingViewer(stop, after)
        )
        assert first.exit_code is Exit.TIME_UP
        assert after <= first.tally.stored < first.tally.planned
        sandbox.skip(60)
        second = await run(sandbox, tmp_path, **order, changes=changes)
        assert second.exit_code is Exit.DONE
        assert second.tally.planned == second.tally.stored_before + second.tally.stored
        assert sandbox.counts["create"] == second.tally.planned == len(sandbox.operations)
        assert rows_in(tmp_path) == truth(sandbox, start, second.to_dict()["ranges"]["everyone-events"]["end"])
