"""The scheduler: how many bundles run at the same time, what a failure means for the others, and how a run stops."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.polling import FinishedOperation
from asyncexport.core.states import BundleRecord, Created, Creating, Failed, Planned, Ready, Stored
from asyncexport.core.summary import Exit
from asyncexport.engine.poller import OperationPoller
from asyncexport.engine.scheduler import Scheduler, Stop
from asyncexport.errors import (
    CorruptError,
    IllegalMove,
    LedgerError,
    OperationFailedError,
    RefusedError,
    StorageError,
    UnauthorizedError,
    UnavailableError,
)
from tests.stand_ins import EXPORT, Scene, now, planned
from tests.virtual_time import at, on_virtual_time, settled


class Poller(OperationPoller):
    """A poller that sends no polls and fails when the test sets `failure`."""

    def __init__(self) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    async def run(self) -> None:
        """Wait for the failure."""
        try:
            await self.failure
        finally:
            self.ended = True


class Rig:
    """A scheduler over a scene of fakes."""

    def __init__(
        self, scene: Scene, *, allowed: int = 10, most: int = 100, most_waiting: int = 10, grace: float = 30.0
    ) -> None:
        self.scene = scene
        self.allowed = allowed
        self.poller = Poller()
        self.stop = Stop()
        self.drawn = 0
        self.scheduler = Scheduler(
            scene.runner,
            self.poller,
            allowed=lambda: self.allowed,
            most=most,
            most_waiting=most_waiting,
            stop=self.stop,
            grace_seconds=grace,
        )

    async def run(self, *work: BundleRecord) -> None:
        """Run these bundles."""
        await self.scheduler.run(self._drawn(iter(work)))

    def start(self, count: int) -> "asyncio.Task[None]":
        """Start running `count` planned bundles."""
        return asyncio.create_task(self.scheduler.run(self._drawn(planned(n) for n in range(count))))

    def _drawn(self, work: Iterator[BundleRecord]) -> Iterator[BundleRecord]:
        for record in work:
            self.drawn += 1
            yield record

    @property
    def stored(self) -> int:
        """The number of stored bundles."""
        return sum(isinstance(state, Stored) for state in self.scene.ledger.states)


# How many bundles run


@on_virtual_time
async def test_all_bundles_are_run_to_their_end():
    """All bundles are stored, their creates are sent in order, and then the run is over."""
    rig = Rig(Scene())
    await rig.run(*(planned(n) for n in range(25)))
    assert rig.stored == 25
    assert not rig.scheduler.more_to_create
    assert (rig.scheduler.in_flight.running, rig.scheduler.in_flight.waiting) == (0, 0)
    assert rig.poller.ended
    posted = [row.bundle for row in rig.scene.ledger.rows if isinstance(row.state, Creating)]
    assert posted == sorted(posted)


@on_virtual_time
async def test_a_run_without_work_ends_immediately():
    """A run without bundles ends within a second."""
    rig = Rig(Scene())
    await rig.run()
    assert now() < 1


@on_virtual_time
async def test_a_bundle_starts_only_when_the_limit_allows():
    """Of any number of bundles, no more are started than the limit allows, and no more tasks exist than needed."""
    rig = Rig(Scene(), allowed=5)
    run = rig.start(100_000)
    for moment in range(10, 1000, 10):
        await at(moment)
        assert rig.scheduler.in_flight.running <= 5
        assert rig.drawn - rig.stored <= 5 + 10 + 1
        assert len(asyncio.all_tasks()) < 40
    assert rig.stored > 50
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_the_limit_is_followed_as_it_changes():
    """A higher limit is used immediately, and a lower one holds as soon as enough bundles have finished."""
    rig = Rig(Scene(), allowed=2, most_waiting=1000)
    run = rig.start(1000)
    await at(30)
    assert len(rig.scene.service.made) == 2
    rig.allowed = 8
    await at(61)
    await at(100)
    assert rig.scheduler.in_flight.running == 8
    rig.allowed = 1
    await at(300)
    assert rig.scheduler.in_flight.running == 1
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_a_bundle_that_waits_for_a_permit_is_not_in_flight():
    """Only operations and creates that were sent count as in flight; bundles that wait for a permit count as queued."""
    scene = Scene()
    scene.gate.is_open.clear()
    rig = Rig(scene, allowed=10)
    run = asyncio.create_task(rig.run(planned(0, state=Created(1, 0.0, "op")), *(planned(n) for n in range(1, 30))))
    await at(30)
    assert (rig.scheduler.in_flight.at_service, rig.scheduler.in_flight.queued) == (1, 9)
    scene.gate.is_open.set()
    for moment in (30.5, 40):
        await at(moment)
        assert (rig.scheduler.in_flight.at_service, rig.scheduler.in_flight.queued) == (10, 0)
    run.cancel()
    await asyncio.wait({run})
    assert rig.scheduler.in_flight.at_service == rig.scheduler.in_flight.queued == 0


@on_virtual_time
async def test_no_bundle_starts_while_too_many_wait_for_download():
    """Slow downloads pause creates, so that no export waits until it expires."""
    scene = Scene(slots=1)
    scene.downloads.takes = 10_000.0
    rig = Rig(scene, allowed=10, most_waiting=3)
    run = rig.start(1000)
    await at(5000)
    assert len(scene.service.made) == 10
    assert rig.scheduler.in_flight.waiting == 10
    await at(80_000)
    assert rig.stored == 7
    assert rig.scheduler.in_flight.waiting == 3
    assert len(scene.service.made) == 10
    await at(90_000)
    assert len(scene.service.made) > 10
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_each_bundle_resumes_from_its_state():
    """Bundles of an earlier run resume from the state they are in."""
    rig = Rig(Scene())
    await rig.run(
        planned(0, state=Ready(1, 5.0, "x0")),
        planned(1, state=Created(2, 0.0, "op9")),
        planned(2, state=Creating(1, 0.0)),
        planned(3, state=Failed("why")),
        planned(4),
    )
    assert rig.stored == 5
    assert rig.scene.service.posts == 3
    assert rig.scene.listener.duplicates == 1


# What becomes due while a run goes on


class Due:
    """Bundles that become due at given times."""

    def __init__(self, *later: tuple[float, BundleRecord]) -> None:
        self.later = list(later)
        self.asked_at: list[float] = []

    async def newly_due(self) -> list[BundleRecord]:
        """Return the bundles that have become due since the last call."""
        self.asked_at.append(now())
        due = [one for at, one in self.later if at <= now()]
        self.later = [(at, one) for at, one in self.later if at > now()]
        return due


def created_in_order(rig: Rig) -> list[int]:
    """Return the numbers of the bundles in the order of their creates."""
    return [row.bundle.range.start // 1800 for row in rig.scene.ledger.rows if isinstance(row.state, Creating)]


@on_virtual_time
async def test_what_becomes_due_is_started_before_the_others():
    """A bundle that settles during a run is started within five minutes, even if no other one may start."""
    rig = Rig(Scene(), allowed=2)
    due = Due((100.0, planned(500)), (100.0, planned(501)))
    await rig.scheduler.run((planned(n) for n in range(30)), newly_due=due.newly_due)
    order = created_in_order(rig)
    assert order.index(500) < 14
    assert order.index(501) == order.index(500) + 1
    assert rig.stored == 32
    assert due.asked_at == pytest.approx([300.0 * n for n in range(1, len(due.asked_at) + 1)])
    assert len(due.asked_at) >= 2


@on_virtual_time
async def test_a_refresh_that_becomes_due_waits_for_room():
    """A stored bundle whose refresh becomes due is started next, but only when there is room."""
    scene = Scene()
    rig = Rig(scene, allowed=2)
    before = Stored("p", 1, 1, "s", exported_at=0.0)
    again = BundleRecord(planned(500).bundle, 1, Planned(), before)
    await scene.ledger.append(BundleRecord(again.bundle, 0, before, before), at=0.0)
    run = asyncio.create_task(
        rig.scheduler.run((planned(n) for n in range(30)), newly_due=Due((100.0, again)).newly_due)
    )
    for moment in range(10, 600, 10):
        await at(moment)
        assert rig.scheduler.in_flight.running <= 2
    await run
    assert created_in_order(rig).index(500) < 16


@on_virtual_time
async def test_a_run_ends_although_more_becomes_due():
    """Once what was planned is finished, the run finishes what became due until then, and asks no more."""
    scene = Scene()
    rig = Rig(scene, allowed=5)
    due = Due(*((60.0 * n, planned(500 + n)) for n in range(1000)))
    await rig.scheduler.run((planned(n) for n in range(40)), newly_due=due.newly_due)
    assert 40 < rig.stored < 100
    assert now() < 1500
    assert not rig.scheduler.more_to_create


@on_virtual_time
async def test_a_run_does_not_wait_for_something_to_become_due():
    """A run whose bundles are finished before five minutes are over ends at that time."""
    rig = Rig(Scene())
    due = Due((400.0, planned(500)))
    await rig.scheduler.run((planned(n) for n in range(3)), newly_due=due.newly_due)
    assert now() < 299
    assert due.asked_at == []


@on_virtual_time
async def test_a_run_that_is_stopped_starts_nothing_that_becomes_due():
    """After a stop nothing new is started, and an error while asking ends the run."""
    rig = Rig(Scene(), allowed=2)
    due = Due((100.0, planned(500)))
    run = asyncio.create_task(rig.scheduler.run((planned(n) for n in range(100)), newly_due=due.newly_due))
    await at(290)
    rig.stop.ask(Exit.TIME_UP)
    await run
    assert 500 not in created_in_order(rig)

    async def broken() -> list[BundleRecord]:
        raise LedgerError("broken")

    with pytest.raises(LedgerError):
        await Rig(Scene(), allowed=2).scheduler.run((planned(n) for n in range(100)), newly_due=broken)


# What a failure means for the others


@on_virtual_time
async def test_the_failure_of_a_bundle_does_not_stop_others():
    """A parked bundle and one that the service refuses do not stop the others."""
    scene = Scene(attempts=2)
    scene.watch.outcomes = {"op1": OperationFailedError("bad"), "op11": OperationFailedError("bad")}
    scene.service.refuses = lambda span: RefusedError("no", status=400) if span == planned(5).bundle.range else None
    scene.downloads.fails = lambda bundle: CorruptError("crc") if bundle == planned(7).bundle else None
    rig = Rig(scene)
    await rig.run(*(planned(n) for n in range(20)))
    failed = {row.bundle: row.state for row in scene.ledger.rows if isinstance(row.state, Failed)}
    assert set(failed) >= {planned(5).bundle, planned(7).bundle}
    assert rig.stored == 20 - len(failed)


@on_virtual_time
async def test_pieces_of_a_split_bundle_start_before_bundles_that_wait():
    """They run in the same run, within the limit, and before bundles that have not been started."""
    scene = Scene(before_split=1)
    scene.watch.outcomes["op2"] = OperationFailedError("broken")
    rig = Rig(scene, allowed=1)
    halves = [BundleRecord(Bundle(EXPORT.name, Range(start, start + 900))) for start in (1800, 2700)]
    await rig.run(*(planned(n) for n in range(4)))
    created = [row.bundle.range for row in scene.ledger.rows if isinstance(row.state, Created)]
    expected = (planned(0), planned(1), *halves, planned(2), planned(3))
    assert created == [one.bundle.range for one in expected]
    assert (rig.stored, rig.scheduler.in_flight.running) == (5, 0)


@on_virtual_time
async def test_a_refused_export_ends_without_an_error():
    """If every create is refused, the run sends only a few of them and ends without raising."""
    scene = Scene(accepted=False)
    scene.service.refuses = lambda _: RefusedError("no such segment", status=400)
    rig = Rig(scene)
    await rig.run(*(planned(n) for n in range(50)))
    assert scene.service.posts == 4
    assert rig.stored == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [UnauthorizedError("401"), StorageError("full"), LedgerError("broken"), IllegalMove("bug"), KeyError("bug")],
)
def test_an_error_that_concerns_all_bundles_ends_the_run(error):
    """A refused key, a full disk, a broken ledger or a bug stops all bundles and is raised unchanged."""

    @on_virtual_time
    async def fail():
        scene = Scene()
        scene.downloads.fails = lambda bundle: error if bundle == planned(3).bundle else None
        rig = Rig(scene)
        with pytest.raises(type(error)) as failure:
            await rig.run(*(planned(n) for n in range(1000)))
        assert failure.value is error
        assert rig.stored < 10
        assert rig.poller.ended
        made = {row.state.operation_id for row in scene.ledger.rows if isinstance(row.state, Created)}
        assert made == set(scene.service.made)

    fail()


@on_virtual_time
async def test_a_bug_is_raised_before_other_errors():
    """If several bundles fail at the same time, an unexpected exception is raised before our own errors."""
    scene = Scene()
    bug = RuntimeError("ours")
    scene.downloads.fails = lambda bundle: bug if bundle == planned(1).bundle else StorageError("full")
    with pytest.raises(RuntimeError) as failure:
        await Rig(scene).run(*(planned(n) for n in range(3)))
    assert failure.value is bug


@on_virtual_time
async def test_a_failing_poller_ends_the_run():
    """If the poller fails, the run ends with its error, because finished operations would no longer be found."""
    rig = Rig(Scene())
    run = rig.start(1000)
    await at(30)
    rig.poller.failure.set_exception(UnauthorizedError("401"))
    with pytest.raises(UnauthorizedError):
        await run


@on_virtual_time
async def test_a_failed_run_starts_no_other_bundle():
    """Even if the newest bundle is due after three refused creates, it is not started once the run has failed."""
    scene, work = Scene(), [planned(n) for n in range(5)]

    def refuses(span: Range) -> RefusedError | None:
        is_slow = span == work[3].bundle.range
        scene.service.takes = 60.0 if is_slow else 1.0
        return None if is_slow else RefusedError("400", status=400)

    scene.service.refuses = refuses
    rig, newest = Rig(scene), work.pop()
    run = asyncio.create_task(rig.scheduler.run(iter(work), newest=lambda _: newest))
    await at(30)
    rig.poller.failure.set_exception(StorageError("full"))
    with pytest.raises(StorageError):
        await run
    assert scene.ledger.latest(newest.bundle) is None


@on_virtual_time
async def test_an_unreadable_list_of_work_ends_the_run():
    """If the list of bundles cannot be read further, the run ends, and operations already created are recorded."""
    scene = Scene()
    rig = Rig(scene, allowed=3)

    def work() -> Iterator[BundleRecord]:
        yield from (planned(n) for n in range(5))
        raise LedgerError("broken")

    with pytest.raises(LedgerError):
        await rig.scheduler.run(work())
    made = {row.state.operation_id for row in scene.ledger.rows if isinstance(row.state, Created)}
    assert made == set(scene.service.made)


# Stopping


@on_virtual_time
async def test_a_stop_starts_nothing_new():
    """After a stop, creates in flight are waited for and downloads in flight are finished; the rest is left."""
    scene = Scene(slots=2)
    scene.downloads.takes = 20.0
    rig = Rig(scene, allowed=4, most_waiting=100)
    run = rig.start(1000)
    await at(66)
    assert scene.runner.fetching.downloading == {planned(0).bundle, planned(1).bundle}
    posts = scene.service.posts
    rig.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(83, abs=1)
    assert rig.stored == 2
    assert scene.service.posts == posts
    assert rig.stop.reason is Exit.INTERRUPTED
    last = {row.bundle: type(row.state) for row in scene.ledger.rows}
    assert list(last.values()).count(Ready) == 2
    assert set(last.values()) == {Stored, Ready, Created}


@on_virtual_time
async def test_the_answers_of_creates_are_waited_for():
    """A stop waits for the answers of creates in flight, so that no operation is missing in the ledger."""
    scene = Scene()
    scene.service.takes = 50.0
    rig = Rig(scene)
    run = rig.start(1000)
    await at(10)
    rig.stop.ask(Exit.TERMINATED)
    await run
    assert now() == pytest.approx(50, abs=1)
    assert [type(row.state) for row in scene.ledger.rows] == [Creating] * 10 + [Created] * 10


@on_virtual_time
async def test_downloads_end_with_the_grace_period():
    """Downloads that are not finished within the grace period are left for the next run."""
    scene = Scene()
    scene.downloads.takes = 10_000.0
    rig = Rig(scene, grace=30.0)
    run = rig.start(1000)
    await at(100)
    rig.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(130, abs=1)
    assert rig.stored == 0


@on_virtual_time
async def test_a_download_that_fails_in_the_grace_period_is_left_for_the_next_run():
    """A bundle whose download fails in the grace period is planned again, but no create is sent."""
    scene = Scene(attempts=3)
    scene.downloads.takes = 20.0
    scene.downloads.fails = lambda _: CorruptError("crc")
    rig = Rig(scene, allowed=1, grace=1000.0)
    run = rig.start(10)
    await at(70)
    posts = scene.service.posts
    rig.stop.ask(Exit.INTERRUPTED)
    await run
    assert scene.service.posts == posts
    assert scene.ledger.latest(planned().bundle) == Planned(2)


@on_virtual_time
async def test_a_second_stop_ends_the_run_immediately():
    """A second stop waits neither for downloads nor for answers."""
    scene = Scene()
    scene.service.takes = 50.0
    rig = Rig(scene)
    run = rig.start(1000)
    await at(10)
    rig.stop.ask(Exit.INTERRUPTED)
    await at(12)
    assert not run.done()
    rig.stop.ask(Exit.TERMINATED)
    await run
    assert now() == pytest.approx(12, abs=0.1)
    assert rig.stop.reason is Exit.INTERRUPTED
    assert {type(row.state) for row in scene.ledger.rows} == {Creating}


@on_virtual_time
async def test_a_second_stop_ends_the_grace_period():
    """A second stop drops the downloads that are finishing in the grace period."""
    scene = Scene()
    scene.downloads.takes = 1000.0
    rig = Rig(scene, grace=10_000.0)
    run = rig.start(1000)
    await at(100)
    rig.stop.ask(Exit.INTERRUPTED)
    await at(110)
    assert not run.done()
    rig.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(110, abs=0.1)


@on_virtual_time
async def test_a_stop_before_the_start_sends_nothing():
    """A run that is stopped before it starts sends no request."""
    rig = Rig(Scene())
    rig.stop.ask(Exit.TIME_UP)
    await rig.run(*(planned(n) for n in range(10)))
    assert rig.scene.service.posts == 0


@on_virtual_time
async def test_a_full_disk_in_the_grace_period_is_raised():
    """A full disk in the grace period still raises its error."""
    scene = Scene()
    scene.downloads.takes = 20.0
    scene.downloads.fails = lambda _: StorageError("full")
    rig = Rig(scene)
    run = rig.start(10)
    await at(70)
    rig.stop.ask(Exit.INTERRUPTED)
    with pytest.raises(StorageError):
        await run


@on_virtual_time
async def test_a_cancelled_run_still_waits_for_answers():
    """A cancelled run waits for the answers of creates in flight, and for nothing once it is cancelled again."""
    for times in (1, 2):
        scene = Scene()
        scene.service.takes = 50.0
        rig = Rig(scene)
        began = now()
        run = rig.start(1000)
        await asyncio.sleep(10)
        run.cancel()
        await settled()
        assert not run.done()
        if times == 2:
            run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
        assert now() - began == pytest.approx(50 if times == 1 else 10, abs=1)
        assert sum(isinstance(row.state, Created) for row in scene.ledger.rows) == (10 if times == 1 else 0)


@on_virtual_time
async def test_a_lasting_outage_ends_the_run():
    """A lasting outage ends the run with the error of the request gate."""
    scene = Scene()
    scene.gate.fails = UnavailableError("six hours", lasting=True)
    with pytest.raises(UnavailableError, match="six hours"):
        await Rig(scene).run(*(planned(n) for n in range(10)))


@on_virtual_time
async def test_bundles_are_drawn_one_by_one():
    """Bundles are drawn from the iterator only as they start, so an endless one costs no memory."""
    endless = (planned(n) for n in count())
    rig = Rig(Scene(), allowed=3)
    run = asyncio.create_task(rig.scheduler.run(rig._drawn(endless)))
    await at(30)
    assert rig.drawn == 4
    run.cancel()
    await asyncio.wait({run})


@pytest.mark.parametrize("is_operation", [True, False])
@on_virtual_time
async def test_a_service_that_returns_the_same_id_for_all_bundles_costs_few_creates(is_operation):
    """If the service returns one id for all bundles, only one bundle at a time probes, and few attempts count."""
    scene = Scene()
    if is_operation:
        scene.service.names = ["op1"] * 1000
    else:
        scene.watch.outcomes = {f"op{n}": FinishedOperation("x-op1", 50.0) for n in range(1, 1000)}
    rig = Rig(scene)
    await rig.run(*(planned(n) for n in range(60)))
    assert rig.stored == 1
    assert scene.service.posts <= 120
    # Failures before the one operation completed count against their bundles.
    assert max(state.attempt for state in scene.ledger.states if isinstance(state, Created)) <= 2
    assert any("belongs to everyone 1970-01-01T00:00:00Z" in reason for reason in scene.listener.retries)
