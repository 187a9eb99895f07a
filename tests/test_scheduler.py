"""The fan-out: how many at once, what one failure means to the others, and how a run is stopped."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from asyncexport.core.bundles import Range
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
from tests.stand_ins import Scene, now, planned
from tests.virtual_time import at, on_virtual_time, settled


class Poller(OperationPoller):
    """Polls for nobody; fails when told to."""

    def __init__(self) -> None:
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    async def run(self) -> None:
        """Wait."""
        try:
            await self.failure
        finally:
            self.ended = True


class Fan:
    """A scheduler over a scene."""

    def __init__(self, scene: Scene, *, allowed: int = 10, most_waiting: int = 10, grace: float = 30.0) -> None:
        self.scene = scene
        self.allowed = allowed
        self.poller = Poller()
        self.stop = Stop()
        self.drawn = 0
        self.scheduler = Scheduler(
            scene.runner,
            self.poller,
            allowed=lambda: self.allowed,
            most_waiting=most_waiting,
            stop=self.stop,
            grace_seconds=grace,
        )

    async def run(self, *work: BundleRecord) -> None:
        """Carry these."""
        await self.scheduler.run(self._drawn(iter(work)))

    def start(self, count: int) -> "asyncio.Task[None]":
        """Carry so many planned ones."""
        return asyncio.create_task(self.scheduler.run(self._drawn(planned(n) for n in range(count))))

    def _drawn(self, work: Iterator[BundleRecord]) -> Iterator[BundleRecord]:
        for record in work:
            self.drawn += 1
            yield record

    @property
    def stored(self) -> int:
        """How many are done."""
        return sum(isinstance(state, Stored) for state in self.scene.ledger.states)


# How many


@on_virtual_time
async def test_all_are_carried_to_where_they_rest():
    """In the order they come, and then the run is over."""
    fan = Fan(Scene())
    await fan.run(*(planned(n) for n in range(25)))
    assert fan.stored == 25
    assert not fan.scheduler.more_to_create
    assert (fan.scheduler.in_flight.running, fan.scheduler.in_flight.waiting) == (0, 0)
    assert fan.poller.ended
    posted = [row.bundle for row in fan.scene.ledger.rows if isinstance(row.state, Creating)]
    assert posted == sorted(posted)


@on_virtual_time
async def test_nothing_to_do_is_done_at_once():
    """An empty run ends."""
    fan = Fan(Scene())
    await fan.run()
    assert now() < 1


@on_virtual_time
async def test_bundles_are_taken_up_only_when_there_is_room():
    """However many there are: no more of them than may be running, and no more tasks than these."""
    fan = Fan(Scene(), allowed=5)
    run = fan.start(100_000)
    for moment in range(10, 1000, 10):
        await at(moment)
        assert fan.scheduler.in_flight.running <= 5
        assert fan.drawn - fan.stored <= 5 + 10 + 1
        assert len(asyncio.all_tasks()) < 40
    assert fan.stored > 50
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_the_number_allowed_is_followed_as_it_changes():
    """More room is used at once; less is kept to as soon as some have left."""
    fan = Fan(Scene(), allowed=2, most_waiting=1000)
    run = fan.start(1000)
    await at(30)
    assert len(fan.scene.service.made) == 2
    fan.allowed = 8
    await at(61)
    await at(100)
    assert fan.scheduler.in_flight.running == 8
    fan.allowed = 1
    await at(300)
    assert fan.scheduler.in_flight.running == 1
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_who_waits_for_a_request_is_not_at_the_service():
    """Only an operation, or a create on its way, is told as running; a lane without either is a place in the queue."""
    scene = Scene()
    scene.gate.is_open.clear()
    fan = Fan(scene, allowed=10)
    run = asyncio.create_task(fan.run(planned(0, state=Created(1, 0.0, "op")), *(planned(n) for n in range(1, 30))))
    await at(30)
    assert (fan.scheduler.in_flight.at_service, fan.scheduler.in_flight.queued) == (1, 9)
    scene.gate.is_open.set()
    for moment in (30.5, 40):
        await at(moment)
        assert (fan.scheduler.in_flight.at_service, fan.scheduler.in_flight.queued) == (10, 0)
    run.cancel()
    await asyncio.wait({run})
    assert fan.scheduler.in_flight.at_service == fan.scheduler.in_flight.queued == 0


@on_virtual_time
async def test_none_are_begun_while_finished_ones_pile_up():
    """Slow downloads hold back creates, so that no export waits until it expires."""
    scene = Scene(slots=1)
    scene.downloads.takes = 10_000.0
    fan = Fan(scene, allowed=10, most_waiting=3)
    run = fan.start(1000)
    await at(5000)
    assert len(scene.service.made) == 10
    assert fan.scheduler.in_flight.waiting == 10
    await at(80_000)
    assert fan.stored == 7
    assert fan.scheduler.in_flight.waiting == 3
    assert len(scene.service.made) == 10
    await at(90_000)
    assert len(scene.service.made) > 10
    run.cancel()
    await asyncio.wait({run})


@on_virtual_time
async def test_resuming_is_the_same_loop():
    """Each bundle goes on from the state it comes with."""
    fan = Fan(Scene())
    await fan.run(
        planned(0, state=Ready(1, 5.0, "x0")),
        planned(1, state=Created(2, 0.0, "op9")),
        planned(2, state=Creating(1, 0.0)),
        planned(3, state=Failed("why")),
        planned(4),
    )
    assert fan.stored == 5
    assert fan.scene.service.posts == 3
    assert fan.scene.listener.duplicates == 1


# What a failure means


@on_virtual_time
async def test_a_bundles_failure_is_its_own():
    """One that is parked, and one that the service refuses, do not stop the others."""
    scene = Scene(attempts=2)
    scene.watch.outcomes = {"op1": OperationFailedError("bad"), "op11": OperationFailedError("bad")}
    scene.service.refuses = lambda span: RefusedError("no", status=400) if span == planned(5).bundle.range else None
    scene.downloads.fails = lambda bundle: CorruptError("crc") if bundle == planned(7).bundle else None
    fan = Fan(scene)
    await fan.run(*(planned(n) for n in range(20)))
    failed = {row.bundle: row.state for row in scene.ledger.rows if isinstance(row.state, Failed)}
    assert set(failed) >= {planned(5).bundle, planned(7).bundle}
    assert fan.stored == 20 - len(failed)


@on_virtual_time
async def test_a_refused_export_comes_to_its_end_by_itself():
    """Nothing of it is created, and the run is over without an error of its own."""
    scene = Scene(accepted=False)
    scene.service.refuses = lambda _: RefusedError("no such segment", status=400)
    fan = Fan(scene)
    await fan.run(*(planned(n) for n in range(50)))
    assert scene.service.posts == 4
    assert fan.stored == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [UnauthorizedError("401"), StorageError("full"), LedgerError("broken"), IllegalMove("bug"), KeyError("bug")],
)
def test_what_concerns_all_ends_the_run(error):
    """A refused key, a full disk, a broken ledger, a bug: it is raised as it is, and the others are stopped."""

    @on_virtual_time
    async def fail():
        scene = Scene()
        scene.downloads.fails = lambda bundle: error if bundle == planned(3).bundle else None
        fan = Fan(scene)
        with pytest.raises(type(error)) as failure:
            await fan.run(*(planned(n) for n in range(1000)))
        assert failure.value is error
        assert fan.stored < 10
        assert fan.poller.ended
        made = {row.state.operation_id for row in scene.ledger.rows if isinstance(row.state, Created)}
        assert made == set(scene.service.made)

    fail()


@on_virtual_time
async def test_a_bug_is_told_before_all_else():
    """Where several things went wrong at once, the one that nobody can do anything about comes first."""
    scene = Scene()
    bug = RuntimeError("ours")
    scene.downloads.fails = lambda bundle: bug if bundle == planned(1).bundle else StorageError("full")
    with pytest.raises(RuntimeError) as failure:
        await Fan(scene).run(*(planned(n) for n in range(3)))
    assert failure.value is bug


@on_virtual_time
async def test_a_watcher_that_fails_ends_the_run():
    """Without it nobody would ever learn that an operation is done."""
    fan = Fan(Scene())
    run = fan.start(1000)
    await at(30)
    fan.poller.failure.set_exception(UnauthorizedError("401"))
    with pytest.raises(UnauthorizedError):
        await run


@on_virtual_time
async def test_a_run_that_fails_takes_up_no_other_bundle():
    """Three creates were refused, so the newest bundle is due when the last create on its way ends with the run."""
    scene, work = Scene(), [planned(n) for n in range(5)]

    def refuses(span: Range) -> RefusedError | None:
        is_slow = span == work[3].bundle.range
        scene.service.takes = 60.0 if is_slow else 1.0
        return None if is_slow else RefusedError("400", status=400)

    scene.service.refuses = refuses
    fan, newest = Fan(scene), work.pop()
    run = asyncio.create_task(fan.scheduler.run(iter(work), newest=lambda _: newest))
    await at(30)
    fan.poller.failure.set_exception(StorageError("full"))
    with pytest.raises(StorageError):
        await run
    assert scene.ledger.latest(newest.bundle) is None


@on_virtual_time
async def test_a_list_of_work_that_cannot_be_read_ends_the_run():
    """What was begun is put on record all the same."""
    scene = Scene()
    fan = Fan(scene, allowed=3)

    def work() -> Iterator[BundleRecord]:
        yield from (planned(n) for n in range(5))
        raise LedgerError("broken")

    with pytest.raises(LedgerError):
        await fan.scheduler.run(work())
    made = {row.state.operation_id for row in scene.ledger.rows if isinstance(row.state, Created)}
    assert made == set(scene.service.made)


# Being stopped


@on_virtual_time
async def test_asked_to_stop_it_begins_nothing_new():
    """Creates that were sent are answered, downloads under way are finished, the rest is left as it is."""
    scene = Scene(slots=2)
    scene.downloads.takes = 20.0
    fan = Fan(scene, allowed=4, most_waiting=100)
    run = fan.start(1000)
    await at(66)
    assert scene.runner.fetching.downloading == {planned(0).bundle, planned(1).bundle}
    posts = scene.service.posts
    fan.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(83, abs=1)
    assert fan.stored == 2
    assert scene.service.posts == posts
    assert fan.stop.reason is Exit.INTERRUPTED
    last = {row.bundle: type(row.state) for row in scene.ledger.rows}
    assert list(last.values()).count(Ready) == 2
    assert set(last.values()) == {Stored, Ready, Created}


@on_virtual_time
async def test_the_answers_of_creates_are_waited_for():
    """A stop between a create and its answer leaves no operation that nobody knows of."""
    scene = Scene()
    scene.service.takes = 50.0
    fan = Fan(scene)
    run = fan.start(1000)
    await at(10)
    fan.stop.ask(Exit.TERMINATED)
    await run
    assert now() == pytest.approx(50, abs=1)
    assert [type(row.state) for row in scene.ledger.rows] == [Creating] * 10 + [Created] * 10


@on_virtual_time
async def test_downloads_have_the_grace_and_no_more():
    """Those that are not done by then are left for the next run."""
    scene = Scene()
    scene.downloads.takes = 10_000.0
    fan = Fan(scene, grace=30.0)
    run = fan.start(1000)
    await at(100)
    fan.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(130, abs=1)
    assert fan.stored == 0


@on_virtual_time
async def test_a_download_that_fails_within_the_grace_asks_for_no_new_export():
    """The next attempt is for the next run."""
    scene = Scene(attempts=3)
    scene.downloads.takes = 20.0
    scene.downloads.fails = lambda _: CorruptError("crc")
    fan = Fan(scene, allowed=1, grace=1000.0)
    run = fan.start(10)
    await at(70)
    posts = scene.service.posts
    fan.stop.ask(Exit.INTERRUPTED)
    await run
    assert scene.service.posts == posts
    assert scene.ledger.latest(planned().bundle) == Planned(2)


@on_virtual_time
async def test_asked_twice_it_stops_now():
    """It waits neither for downloads nor for answers."""
    scene = Scene()
    scene.service.takes = 50.0
    fan = Fan(scene)
    run = fan.start(1000)
    await at(10)
    fan.stop.ask(Exit.INTERRUPTED)
    await at(12)
    assert not run.done()
    fan.stop.ask(Exit.TERMINATED)
    await run
    assert now() == pytest.approx(12, abs=0.1)
    assert fan.stop.reason is Exit.INTERRUPTED
    assert {type(row.state) for row in scene.ledger.rows} == {Creating}


@on_virtual_time
async def test_asked_twice_in_the_grace_it_drops_downloads():
    """The second word ends the grace."""
    scene = Scene()
    scene.downloads.takes = 1000.0
    fan = Fan(scene, grace=10_000.0)
    run = fan.start(1000)
    await at(100)
    fan.stop.ask(Exit.INTERRUPTED)
    await at(110)
    assert not run.done()
    fan.stop.ask(Exit.INTERRUPTED)
    await run
    assert now() == pytest.approx(110, abs=0.1)


@on_virtual_time
async def test_asked_to_stop_before_it_began_it_does_nothing():
    """No request is sent."""
    fan = Fan(Scene())
    fan.stop.ask(Exit.TIME_UP)
    await fan.run(*(planned(n) for n in range(10)))
    assert fan.scene.service.posts == 0


@on_virtual_time
async def test_a_full_disk_within_the_grace_is_told():
    """Being stopped is no reason to keep quiet about it."""
    scene = Scene()
    scene.downloads.takes = 20.0
    scene.downloads.fails = lambda _: StorageError("full")
    fan = Fan(scene)
    run = fan.start(10)
    await at(70)
    fan.stop.ask(Exit.INTERRUPTED)
    with pytest.raises(StorageError):
        await run


@on_virtual_time
async def test_cancelled_from_outside_it_still_waits_for_answers():
    """As the loop's own shutdown does it; cancelled once more, it waits for nothing."""
    for times in (1, 2):
        scene = Scene()
        scene.service.takes = 50.0
        fan = Fan(scene)
        began = now()
        run = fan.start(1000)
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
async def test_the_service_gone_for_good_ends_the_run():
    """With the gate's own words."""
    scene = Scene()
    scene.gate.fails = UnavailableError("six hours", lasting=True)
    with pytest.raises(UnavailableError, match="six hours"):
        await Fan(scene).run(*(planned(n) for n in range(10)))


@on_virtual_time
async def test_work_is_never_drawn_ahead():
    """A year of bundles costs what the running ones cost."""
    endless = (planned(n) for n in count())
    fan = Fan(Scene(), allowed=3)
    run = asyncio.create_task(fan.scheduler.run(fan._drawn(endless)))
    await at(30)
    assert fan.drawn == 4
    run.cancel()
    await asyncio.wait({run})


@pytest.mark.parametrize("is_operation", [True, False])
@on_virtual_time
async def test_a_service_that_gives_the_same_id_to_all_is_not_asked_for_each_bundle_five_times(is_operation):
    """It is the service's trouble, as where all operations fail: one bundle probes, and hardly an attempt counts."""
    scene = Scene()
    if is_operation:
        scene.service.names = ["op1"] * 1000
    else:
        scene.watch.outcomes = {f"op{n}": FinishedOperation("x-op1", 50.0) for n in range(1, 1000)}
    fan = Fan(scene)
    await fan.run(*(planned(n) for n in range(60)))
    assert fan.stored == 1
    assert scene.service.posts <= 120
    # Those that failed before the one operation completed count as the bundles' own.
    assert max(state.attempt for state in scene.ledger.states if isinstance(state, Created)) <= 2
    assert any(" of everyone 1970-01-01T00:00:00Z" in reason for reason in scene.listener.retries)
