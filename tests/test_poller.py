"""Which operations are done: found by a list of unknown habits, or by individual polls, and never by absence."""
# ruff: noqa: ARG002 - a stand-in takes what the real one needs

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from asyncexport.core.admission import Backoff, Prefer, Priority
from asyncexport.core.durations import Durations
from asyncexport.core.polling import LIST_SIZE, FinishedOperation, PollingMode, PollingRules
from asyncexport.core.service.refusals import CONFIRMATION_SECONDS
from asyncexport.core.service.resources import (
    Completed,
    CompletedWithoutId,
    Ended,
    Me,
    Operation,
    OperationsPage,
    Running,
)
from asyncexport.engine.budget import Budget
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.key_check import KeyCheck
from asyncexport.engine.listing import FORBIDDEN_SECONDS, MOST_IN_A_ROW
from asyncexport.engine.poller import OperationPoller
from asyncexport.errors import (
    GoneError,
    OperationFailedError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from tests.virtual_time import at, on_virtual_time, settled

INTERVAL = 10.0
DEADLINE = 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Job:
    """An operation at the service: from when it is there, when it ends, and as what."""

    id: str
    created_at: float
    ends_at: float
    ends_as: Completed | CompletedWithoutId | Ended | None = None
    state: str = "PENDING"

    def shown(self) -> Operation:
        """As the service tells of it now."""
        if now() < self.ends_at:
            return Operation(self.id, Running(self.state), created_at=self.created_at)
        end = self.ends_as or Completed(f"x-{self.id}")
        return Operation(self.id, end, created_at=self.created_at, finished_at=self.ends_at)


@dataclass
class Service:
    """Tells of operations, ours and others', with the habits it is given; remembers what it was asked, and when.

    Attributes:
        order: "newest", "oldest" or "shuffled": how the list begins.
        ids: Whether its items have one.
        hides: Ids that the list leaves out; that of the pending shows them where `hides_pending` is off.
        troubles: What the next calls come to; None: all is well.
        gone: Ids that an individual poll answers with 404 while they are in here.
        odd: "repeats its token", "has empty pages" or "".
        nameless: When an operation was shown COMPLETED without its export.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    order: str = "newest"
    ids: bool = True
    hides: set[str] = field(default_factory=set)
    hides_pending: bool = True
    key_fails: ServiceError | None = None
    list_fails: ServiceError | None = None
    fails: ServiceError | None = None
    troubles: list[ServiceError | None] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    odd: str = ""
    lists: list[tuple[float, str, str]] = field(default_factory=list)
    polls: list[tuple[float, str]] = field(default_factory=list)
    nameless: list[float] = field(default_factory=list)

    def add(self, number: int, *, takes: float, ours: bool = True, **more: Any) -> str:
        """A job created now; its id."""
        job = Job(f"{'op' if ours else 'theirs'}{number}", now(), now() + takes, **more)
        self.jobs[job.id] = job
        return job.id

    def add_history(self, count: int) -> None:
        """Operations of others, all done long ago."""
        for number in range(count):
            self.jobs[f"old{number}"] = Job(f"old{number}", -1e6 + number, -1e6 + number)

    async def me(self) -> Me:
        """Whose key it is."""
        await self._answer(self.key_fails)
        return Me("owner@example.com", "ORG", "ADMIN")

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        self.polls.append((now(), operation_id))
        gone = operation_id in self.gone
        await self._answer(self.fails)
        if gone:
            raise GoneError("404")
        return self._shown(self.jobs[operation_id])

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list."""
        self.lists.append((now(), state, token))
        await self._answer(self.list_fails)
        hides = self.hides if state == "" or self.hides_pending else ()
        shown = self._in_order([job for job in self.jobs.values() if job.id not in hides])
        if state == "PENDING":
            shown = [job for job in shown if now() < job.ends_at]
        start = int(token or 0)
        if self.odd == "has empty pages":
            return OperationsPage((), str(start + LIST_SIZE))
        page = [self._shown(job) for job in shown[start : start + LIST_SIZE]]
        if not self.ids:
            page = [Operation(None, one.progress, one.created_at, one.finished_at) for one in page]
        following = "100" if self.odd == "repeats its token" else str(start + LIST_SIZE)
        more = self.odd or start + LIST_SIZE < len(shown)
        return OperationsPage(tuple(page), following if more else "")

    def _shown(self, job: Job) -> Operation:
        shown = job.shown()
        if isinstance(shown.progress, CompletedWithoutId):
            self.nameless.append(now())
        return shown

    def _in_order(self, jobs: list[Job]) -> list[Job]:
        if self.order == "shuffled":
            jobs = jobs.copy()
            random.Random(len(self.lists)).shuffle(jobs)
            return jobs
        return sorted(jobs, key=lambda job: job.created_at, reverse=self.order == "newest")

    async def _answer(self, record: ServiceError | None) -> None:
        await asyncio.sleep(0.1)
        error = (self.troubles.pop(0) if self.troubles else None) or record
        if error:
            raise error


class HandSetBudget(Budget):
    """A budget whose level is set by hand; nothing passes it, and it keeps no journal."""

    polls_cost = False
    tokens = 20

    def __init__(self, *, tokens: int = 20, polls_cost: bool = False) -> None:
        self.tokens, self.polls_cost = tokens, polls_cost
        self.nobody_waits = asyncio.Event()
        self.nobody_waits.set()

    @property
    def is_uncontended(self) -> bool:
        """Whether nobody waits."""
        return self.nobody_waits.is_set()

    async def wait_until_uncontended(self) -> None:
        """Wait for that."""
        await self.nobody_waits.wait()


@dataclass
class Scene:
    """A poller at work, and who waits for what."""

    service: Service
    budget: HandSetBudget
    poller: OperationPoller
    durations: Durations
    learned: list[tuple[float, float]]
    run: "asyncio.Task[None]"
    more_to_create: bool = True
    put_right: float = 0.0
    waiting: dict[str, "asyncio.Task[FinishedOperation | None]"] = field(default_factory=dict)

    def watch(self, *operation_ids: str, asked_at: float | None = None, by: str = "") -> None:
        """Wait for these; `by` tells apart who waits for the same one."""
        for operation_id in operation_ids:
            since = now() + self.put_right if asked_at is None else asked_at
            waits = self.poller.wait(operation_id, asked_at=since)
            self.waiting[f"{operation_id}{by}"] = asyncio.create_task(waits)

    def start(self, count: int, *, takes: float = 300.0, **more: Any) -> list[str]:
        """Create so many and wait for them."""
        ids = [self.service.add(number, takes=takes, **more) for number in range(count)]
        self.watch(*ids)
        return ids

    async def polled(self, times: int) -> None:
        """Wait until so many individual polls have been sent, or nobody waits any more."""
        while self.open and len(self.service.polls) < times:  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(1)

    @property
    def open(self) -> int:
        """How many are still waited for."""
        return sum(not task.done() for task in self.waiting.values())

    def finished(self) -> list[FinishedOperation | None]:
        """What those waited for came to."""
        return [task.result() for task in self.waiting.values()]


@asynccontextmanager
async def watching(
    service: Service | None = None,
    *,
    budget: HandSetBudget | None = None,
    prefer: Prefer = Prefer.THROUGHPUT,
    interval: float = INTERVAL,
    deadline: float = DEADLINE,
    expected: float = 300.0,
) -> AsyncIterator[Scene]:
    service, budget = service or Service(), budget or HandSetBudget()
    durations = Durations(expected_seconds=expected)
    learned: list[tuple[float, float]] = []
    poller = OperationPoller(
        service,
        budget=budget,
        durations=durations,
        polling=PollingRules(interval, deadline, prefer, burst=49, refill_seconds=30.0),
        clock=now,
        service_time=lambda: now() + scene.put_right,
        more_to_create=lambda: scene.more_to_create,
        learned=lambda at, seconds: learned.append((at, seconds)),
        call_turns=CallTurns(
            Backoff(1.0, 300.0, 6 * 3600.0), jitter=lambda: 0.5, key=KeyCheck(service.me), tell=lambda _: None
        ),
    )
    scene = Scene(service, budget, poller, durations, learned, asyncio.create_task(poller.run()))
    try:
        yield scene
    finally:
        tasks = [scene.run, *scene.waiting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# By the list


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
def test_all_are_found_by_the_list_whatever_its_order(order):
    """Ours among others', on one page: none is polled individually; waiters learn the export and when it was made."""

    @on_virtual_time
    async def find():
        async with watching(Service(order=order)) as scene:
            for number in range(30):
                scene.service.add(number, takes=5.0, ours=False)
            ids = scene.start(40)
            await at(1000)
            assert scene.finished() == [FinishedOperation(f"x-{one}", pytest.approx(0, abs=0.1)) for one in ids]  # type: ignore[arg-type]
            assert not scene.service.polls
            assert scene.poller.mode is PollingMode.LIST

    find()


@pytest.mark.parametrize("days", [-30, -1, 1, 30])
@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_a_time_that_is_put_right_neither_ends_nor_stalls_an_operation(ids, days):
    """Those before it and after it are found when they are done, and the deadline passes when it should."""

    @on_virtual_time
    async def find():
        async with watching(Service(ids=ids), deadline=4000.0) as scene:
            scene.start(3, takes=300.0)
            await at(100)
            scene.put_right = days * 86_400.0
            scene.watch(scene.service.add(8, takes=300.0), scene.service.add(9, takes=1e9))
            await at(1000)
            assert scene.open == 1
            await at(3500)
            assert scene.open == 1
            await at(5000)
            assert scene.waiting["op9"].result() is None

    find()


@on_virtual_time
async def test_what_was_asked_for_by_a_fast_clock_is_polled_all_the_same():
    """A run before this one noted a moment that lies ahead: it counts as asked for just now."""
    async with watching() as scene:
        scene.watch(scene.service.add(0, takes=300.0), asked_at=now() + 30 * 86_400.0)
        await at(1000)
        assert scene.open == 0


@pytest.mark.parametrize(("end", "words"), [(Ended("too big"), "too big"), (Ended("ERROR"), "ERROR")])
@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_failed_and_error_are_failures(end, words, ids):
    """Whoever waits is told the service's own reason; the others wait on."""

    @on_virtual_time
    async def fail():
        async with watching(Service(ids=ids)) as scene:
            scene.start(3, takes=5000.0)
            scene.watch(scene.service.add(9, takes=100.0, ends_as=end))
            await at(2000)
            with pytest.raises(OperationFailedError, match=words):
                scene.waiting["op9"].result()
            assert scene.open == 3

    fail()


@on_virtual_time
async def test_durations_are_learned_from_what_the_service_says():
    """From `createdAt` and `finishedAt`, however late the poll; they are handed on to be kept."""
    async with watching(expected=3000.0) as scene:
        scene.start(20, takes=120.0)
        await at(4000)
        assert scene.open == 0
        assert scene.learned == [(pytest.approx(120, abs=1), pytest.approx(120, abs=1))] * 20  # type: ignore[comparison-overlap]
        assert scene.durations.known == 20
        assert scene.durations.median_seconds == pytest.approx(120, rel=0.2)


@on_virtual_time
async def test_lists_keep_their_distance():
    """However much there is to find, never sooner than `min_interval` after the last one."""
    async with watching() as scene:
        for number in range(50):
            scene.watch(scene.service.add(number, takes=60.0 + 7 * number))
        await at(1000)
        assert scene.open == 0
        gaps = [later - sooner for (sooner, *_), (later, *_) in pairwise(scene.service.lists)]
        assert min(gaps) >= INTERVAL
        assert len(scene.service.lists) <= 1000 / INTERVAL


@on_virtual_time
async def test_nothing_is_asked_while_nothing_runs():
    """And the first to be watched wakes it."""
    async with watching() as scene:
        await at(10_000)
        assert not scene.service.lists
        scene.start(1, takes=50.0)
        await at(11_000)
        assert scene.open == 0


@on_virtual_time
async def test_one_taken_over_from_an_earlier_run_is_looked_at_soon():
    """It may have been done for hours: its age counts from when it was asked for."""
    async with watching() as scene:
        await at(50_000)
        scene.service.jobs["op0"] = Job("op0", 100.0, 400.0)
        scene.watch("op0", asked_at=100.0)
        await at(50_030)
        assert scene.finished() == [FinishedOperation("x-op0", 100.0)]


@on_virtual_time
async def test_whoever_stops_waiting_is_no_longer_watched():
    """Nothing is asked for it any more."""
    async with watching() as scene:
        scene.start(1, takes=1e9)
        await at(500)
        scene.waiting["op0"].cancel()
        await at(510)
        asked = len(scene.service.lists)
        await at(5000)
        assert len(scene.service.lists) == asked
        assert scene.poller.ages == []


@on_virtual_time
async def test_an_unknown_state_is_running_and_said_once(caplog):
    """It is under the same deadline as any other."""
    async with watching() as scene:
        scene.start(5, takes=2000.0, state="STATE_QUEUED")
        await at(5000)
        assert scene.open == 0
    assert len([record for record in caplog.records if "STATE_QUEUED" in record.getMessage()]) == 1


# What the list may be like


@on_virtual_time
async def test_a_long_history_behind_the_newest_is_not_read():
    """Where the newest come first, one page a poll does."""
    service = Service(order="newest")
    service.add_history(2000)
    async with watching(service) as scene:
        scene.start(40)
        await at(1000)
        assert scene.open == 0
        assert {token for _, _, token in service.lists} == {""}


@pytest.mark.parametrize("odd", ["repeats its token", "has empty pages"])
@pytest.mark.parametrize("hides", [True, False])
def test_a_list_without_an_end_is_left(odd, hides):
    """A repeated token and empty pages cost no more pages than any list does, and the operations are found."""

    @on_virtual_time
    async def leave():
        async with watching(Service(odd=odd)) as scene:
            ids = scene.start(40)
            if hides:
                scene.service.hides.update(ids)
            await at(2000)
            assert scene.open == 0
            assert pages_a_poll(scene.service) <= 2

    leave()


def pages_a_poll(service: Service) -> int:
    """The most pages that were read in one go: each begins at the first page."""
    most = pages = 0
    for _, _, token in service.lists:
        pages = 1 if token == "" else pages + 1
        most = max(most, pages)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(("running", "most"), [(1, 2), (100, 2), (101, 3), (250, 4)])
def test_no_more_pages_are_read_than_there_are_operations_for(running, most):
    """⌈in flight / 100⌉ + 1 a poll, where ours are scattered over a history of thousands."""

    @on_virtual_time
    async def read():
        service = Service(order="shuffled")
        service.add_history(3000)
        async with watching(service) as scene:
            scene.start(running, takes=20_000.0)
            await at(3000)
            assert 1 <= pages_a_poll(service) <= most

    read()


@pytest.mark.slow
@on_virtual_time
async def test_where_ours_are_not_on_the_first_pages_the_pending_are_listed():
    """What has vanished from that list is finished, and is asked for individually, once."""
    service = Service(order="oldest")
    service.add_history(5000)
    async with watching(service) as scene:
        scene.start(40, takes=400.0)
        await at(2000)
        assert scene.poller.mode is PollingMode.PENDING
        assert scene.open == 0
        assert sorted(one for _, one in service.polls) == sorted(scene.waiting)
        assert {state for _, state, _ in service.lists[4:]} == {"PENDING"}


@on_virtual_time
async def test_a_pending_list_that_leaves_out_running_ones_is_of_no_use():
    """Absence is never a failure: they are polled individually, to their end."""
    service = Service(order="oldest")
    service.add_history(5000)
    async with watching(service) as scene:
        ids = scene.start(10, takes=3000.0)
        service.hides.update(ids)
        await at(6000)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_a_pending_list_that_is_too_long_is_of_no_use():
    """Others may run thousands."""
    service = Service(order="oldest")
    for number in range(500):
        service.jobs[f"theirs{number}"] = Job(f"theirs{number}", number - 1000.0, 1e6)
    async with watching(service) as scene:
        scene.start(10, takes=1000.0)
        await at(4000)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert scene.open == 0


@on_virtual_time
async def test_a_list_without_ids_is_of_no_use():
    """One look is enough to know."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5)
        await at(1500)
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert len(scene.service.lists) == 1
        assert scene.open == 0


@pytest.mark.parametrize("error", [RefusedError("400", status=400), RefusedError("403", status=403), GoneError("404")])
def test_a_list_that_is_refused_is_of_no_use(error):
    """It is not asked for again, for half an hour at the least."""

    @on_virtual_time
    async def refuse():
        async with watching(Service(list_fails=error)) as scene:
            scene.start(5)
            await at(1500)
            assert scene.poller.mode is PollingMode.INDIVIDUAL
            assert len(scene.service.lists) == 1
            assert scene.open == 0

    refuse()


@on_virtual_time
async def test_a_list_that_was_forbidden_is_tried_again_after_half_an_hour():
    """It may have been a wall that is gone; one that is refused otherwise is not tried again."""
    for status, mode in ((403, PollingMode.LIST), (400, PollingMode.INDIVIDUAL)):
        began = now()
        async with watching(Service(list_fails=RefusedError("no", status=status))) as scene:
            scene.start(5, takes=1e5)
            await asyncio.sleep(2 * FORBIDDEN_SECONDS - 100)
            asked = [when - began for when, _, _ in scene.service.lists]
            assert len(asked) <= (2 if status == 403 else 1)
            scene.service.list_fails = None
            await asyncio.sleep(2 * FORBIDDEN_SECONDS)
            assert scene.poller.mode is mode


@on_virtual_time
async def test_refused_polls_are_probed_and_go_on():
    """A wall before single polls holds them back; nobody is told of it when it is gone."""
    async with watching(Service(ids=False)) as scene:
        scene.start(3, takes=100.0)
        await at(1)
        scene.service.fails = RefusedError("403", status=403)
        await at(400)
        assert len(scene.service.polls) <= 5
        scene.service.fails = None
        await at(2000)
        assert scene.open == 0
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_refused_polls_are_believed_in_the_end():
    """After a quarter of an hour all that wait are told."""
    async with watching(Service(ids=False)) as scene:
        scene.start(3, takes=1e6)
        scene.service.fails = RefusedError("403", status=403)
        await at(3000)
        assert scene.open == 0
        assert len(scene.service.polls) <= 7
        with pytest.raises(RefusedError):
            scene.finished()


@on_virtual_time
async def test_a_list_that_cannot_be_read_is_tried_again_before_it_is_left():
    """One broken reply is an accident; so many in a row are not."""
    async with watching() as scene:
        scene.service.troubles = [ReplyError("html"), None]
        scene.start(5)
        await at(1500)
        assert scene.poller.mode is PollingMode.LIST
        assert scene.open == 0
    async with watching(Service(list_fails=ReplyError("html"))) as scene:
        scene.start(5)
        await asyncio.sleep(2000)
        assert len(scene.service.lists) == MOST_IN_A_ROW
        assert scene.open == 0


@pytest.mark.parametrize(
    "error", [UnavailableError("503"), UnavailableError("gone", unanswered=True), RateLimitedError("429")]
)
def test_an_outage_says_nothing_of_the_list(error):
    """It is asked again as before."""

    @on_virtual_time
    async def endure():
        async with watching() as scene:
            scene.start(5)
            scene.service.troubles = [error] * 10
            await at(3000)
            assert scene.poller.mode is PollingMode.LIST
            assert scene.open == 0

    endure()


@on_virtual_time
async def test_what_is_missing_where_it_should_be_makes_the_list_useless():
    """Not at once, since the list may lag; but some of ours left out time and again are reason enough."""
    async with watching() as scene:
        scene.start(20, takes=3000.0)
        scene.service.hides, scene.service.hides_pending = {"op3"}, False
        await at(8000)
        assert scene.poller.mode is PollingMode.PENDING
        assert scene.open == 0


@pytest.mark.slow
@on_virtual_time
async def test_one_beside_a_page_boundary_is_not_missing():
    """Its create was answered a little after it was made: that it is not on the page proves nothing."""
    async with watching(budget=HandSetBudget(tokens=49, polls_cost=True)) as scene:
        ids = []
        for number in range(150):
            ids.append(scene.service.add(number, takes=1e5))
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        scene.watch(*ids)
        await at(20_000)
        assert scene.poller.mode is PollingMode.LIST


@pytest.mark.slow
@on_virtual_time
async def test_a_straggler_far_down_the_list_is_polled_individually():
    """The others are found by the list as before."""
    budget = HandSetBudget(tokens=49, polls_cost=True)
    async with watching(budget=budget) as scene:
        scene.watch(scene.service.add(10_000, takes=30_000.0))
        for round_ in range(40):
            scene.watch(*(scene.service.add(20 * round_ + n, takes=300.0) for n in range(20)))
            await asyncio.sleep(600)
        await at(60_000)
        assert scene.open == 0
        assert scene.poller.mode is PollingMode.LIST
        assert {one for _, one in scene.service.polls} == {"op10000"}


@on_virtual_time
async def test_a_burst_of_creates_during_a_look_pushes_nobody_off_the_list():
    """Whoever lies behind them then is found by the next look, which reads as many pages as there are."""
    async with watching() as scene:
        first = [scene.service.add(number, takes=300.0) for number in range(50)]
        scene.watch(*first)
        while not scene.service.lists:  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(0.01)
        scene.watch(*(scene.service.add(1000 + number, takes=300.0) for number in range(300)))
        await at(3000)
        assert scene.open == 0
        assert scene.service.polls == []


# One by one


@on_virtual_time
async def test_individual_polls_keep_their_distance():
    """At most one a second overall, and of the same operation not sooner than `min_interval`."""
    async with watching(Service(ids=False)) as scene:
        scene.start(60, takes=700.0)
        await at(3000)
        assert scene.open == 0
        gaps = [later - sooner for (sooner, _), (later, _) in pairwise(scene.service.polls)]
        assert min(gaps) >= 1.0
        for operation_id in scene.waiting:
            times = [when for when, one in scene.service.polls if one == operation_id]
            assert all(later - sooner >= INTERVAL for sooner, later in pairwise(times))
            assert len(times) < 15


@on_virtual_time
async def test_what_takes_for_hours_is_not_asked_for_every_few_seconds():
    """Between polls of one operation a share of its age passes."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=40_000.0)
        await at(50_000)
        assert scene.open == 0
        assert len(scene.service.polls) < 250


@on_virtual_time
async def test_one_404_is_not_believed():
    """The service may not know yet what it has just made."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=1000.0)
        scene.service.gone = {"op0"}
        await scene.polled(1)
        await asyncio.sleep(CONFIRMATION_SECONDS / 2)
        assert scene.open == 1
        scene.service.gone = set()
        await at(5000)
        assert scene.finished() == [FinishedOperation("x-op0", pytest.approx(0, abs=0.1))]  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [GoneError("404"), GoneError("410")])
def test_what_is_said_not_to_exist_twice_a_minute_apart_is_gone(error):
    """Then it is believed, and whoever waits is told."""

    @on_virtual_time
    async def lose():
        async with watching(Service(ids=False)) as scene:
            scene.start(1, takes=1e6)
            await at(1)
            scene.service.fails = error
            await at(5000)
            times = [when for when, _ in scene.service.polls]
            assert len(times) == 2
            assert CONFIRMATION_SECONDS <= times[1] - times[0] <= CONFIRMATION_SECONDS + 2 * INTERVAL
            with pytest.raises(type(error)):
                scene.waiting["op0"].result()

    lose()


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("later", [INTERVAL / 2, 2 * INTERVAL])
def test_an_export_that_is_named_late_is_waited_for(ids, later):
    """COMPLETED comes a poll or two before the export id: the operation is asked for again, singly and soon."""

    @on_virtual_time
    async def find():
        async with watching(Service(ids=ids)) as scene:
            scene.start(2, takes=300.0, ends_as=CompletedWithoutId())
            while not scene.service.nameless:  # noqa: ASYNC110 - the time is virtual
                await asyncio.sleep(0.5)
            await asyncio.sleep(later)
            for job in scene.service.jobs.values():
                job.ends_as = None
            await asyncio.sleep(3 * INTERVAL)
            assert {one.export_id for one in scene.finished() if one} == {"x-op0", "x-op1"}

    find()


@on_virtual_time
async def test_an_export_that_is_never_named_is_believed_after_a_minute():
    """Then the operation has come to nothing, after a few polls."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=300.0, ends_as=CompletedWithoutId())
        await at(5000)
        with pytest.raises(OperationFailedError, match="no export id"):
            scene.waiting["op0"].result()
        told = scene.service.nameless
        assert CONFIRMATION_SECONDS <= told[-1] - told[0] <= CONFIRMATION_SECONDS + 2 * INTERVAL
        assert len(told) <= 2 + CONFIRMATION_SECONDS / INTERVAL


@on_virtual_time
async def test_polls_that_could_never_be_read_end_the_wait_at_the_second_a_minute_apart():
    """Whoever waits is told; nothing is bought on the strength of answers that nobody understands."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5, takes=1e6)
        scene.service.fails = ReplyError("a page")
        await at(3000)
        assert scene.open == 0
        assert all(isinstance(task.exception(), ReplyError) for task in scene.waiting.values())
        first, second = (when for when, _ in scene.service.polls)
        assert second - first >= 60


@on_virtual_time
async def test_polls_that_cannot_be_read_any_more_are_waited_out():
    """What was read before will be read again."""
    async with watching(Service(ids=False)) as scene:
        scene.start(2, takes=3000.0)
        await scene.polled(1)
        scene.service.fails = ReplyError("a page")
        await at(2500)
        assert scene.open == 2
        scene.service.fails = None
        await at(9000)
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_an_overdue_operation_that_names_no_export_is_asked_twice():
    """A minute apart; then it is given up."""
    async with watching() as scene:
        scene.service.add(0, takes=0.0, ends_as=CompletedWithoutId())
        with pytest.raises(OperationFailedError, match="no export id"):
            await scene.poller.ask("op0")
        first, second = scene.service.nameless
        assert second - first >= CONFIRMATION_SECONDS


@pytest.mark.slow
@on_virtual_time
async def test_a_404_between_two_answers_counts_for_nothing():
    """It must be said twice in a row."""
    async with watching(Service(ids=False)) as scene:
        scene.start(1, takes=20_000.0)
        while scene.open:
            scene.service.gone ^= {"op0"}
            await scene.polled(len(scene.service.polls) + 1)
        assert isinstance(scene.finished()[0], FinishedOperation)
        assert len(scene.service.polls) > 5


@on_virtual_time
async def test_nobody_is_failed_by_an_outage():
    """Polls that are not answered are sent again."""
    async with watching(Service(ids=False)) as scene:
        scene.start(5, takes=600.0)
        scene.service.fails = UnavailableError("503")
        await at(5000)
        assert scene.open == 5
        scene.service.fails = None
        await at(10_000)
        assert scene.open == 0


# Past the deadline


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_past_its_deadline_it_is_asked_once_more(ids):
    """If it still runs, whoever waits is told so, and it is no longer watched."""

    @on_virtual_time
    async def expire():
        async with watching(Service(ids=ids), deadline=3600.0) as scene:
            scene.start(1, takes=1e6)
            await at(3599)
            assert scene.open == 1
            before = len([one for _, one in scene.service.polls])
            await at(3690)
            assert scene.finished() == [None]
            assert len(scene.service.polls) == before + 1
            await at(10_000)
            assert len(scene.service.polls) == before + 1

    expire()


@on_virtual_time
async def test_one_that_is_done_at_its_deadline_is_done():
    """The last look counts, though no poll came before."""
    async with watching(Service(order="oldest", hides={"op0"}), deadline=3600.0, expected=3600.0) as scene:
        scene.start(1, takes=3599.0)
        await at(3650)
        assert isinstance(scene.finished()[0], FinishedOperation)


@on_virtual_time
async def test_a_404_at_the_deadline_is_believed():
    """There is no time left to ask again."""
    async with watching(deadline=3600.0) as scene:
        scene.start(1, takes=1e6)
        scene.service.gone = {"op0"}
        await at(3665)
        with pytest.raises(GoneError):
            scene.waiting["op0"].result()


@on_virtual_time
async def test_a_deadline_within_an_outage_waits_for_its_end():
    """The last look is taken when it can be; where none can be for long, it is given up as running."""
    for outage, outcome in ((300.0, FinishedOperation), (1e6, type(None))):
        async with watching(deadline=3600.0) as scene:
            began = now()
            scene.start(1, takes=3590.0)
            await asyncio.sleep(3580)
            scene.service.fails = scene.service.list_fails = UnavailableError("no route")
            await asyncio.sleep(20 + min(outage, 600.0))
            if outage < 600:
                scene.service.fails = scene.service.list_fails = None
            await asyncio.sleep(100)
            assert isinstance(scene.finished()[0], outcome)
            assert now() - began < 4400


# Several that wait for the same operation


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
def test_all_who_wait_for_an_operation_are_told_that_it_is_done(ids):
    """It is polled as if one waited, and its duration is learned once."""

    @on_virtual_time
    async def share():
        polls = []
        for others in (0, 3):
            async with watching(Service(ids=ids)) as scene:
                began = now()
                scene.start(1, takes=300.0)
                for number in range(others):
                    scene.watch("op0", by=f" {number}")
                await asyncio.sleep(2000)
                assert scene.finished() == [FinishedOperation("x-op0", pytest.approx(began, abs=0.1))] * (1 + others)  # type: ignore[arg-type]
                assert len(scene.learned) == scene.durations.known == 1
                polls.append(len(scene.service.lists) + len(scene.service.polls))
        assert polls[0] == polls[1]

    share()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("end", [Ended("too big"), "gone"])
def test_all_who_wait_for_an_operation_are_told_that_it_failed(end, ids):
    """With the service's own reason, or because the service does not know it any more."""

    @on_virtual_time
    async def fail():
        async with watching(Service(ids=ids)) as scene:
            is_gone = end == "gone"
            scene.service.add(0, takes=300.0, ends_as=None if is_gone else end)
            scene.watch("op0")
            scene.watch("op0", by=" again")
            if is_gone:
                scene.service.gone, scene.service.hides = {"op0"}, {"op0"}
            await at(5000)
            for task in scene.waiting.values():
                with pytest.raises(GoneError if is_gone else OperationFailedError):
                    task.result()

    fail()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("order", [(0.0, 1000.0), (1000.0, 0.0)], ids=["older first", "younger first"])
def test_each_who_waits_has_a_deadline_of_its_own(order, ids):
    """Both are reached, whichever began to wait first; after the last nothing is asked any more."""

    @on_virtual_time
    async def expire():
        async with watching(Service(ids=ids), deadline=3600.0) as scene:
            scene.service.add(0, takes=1e6)
            await at(1000)
            for asked_at in order:
                scene.watch("op0", asked_at=asked_at, by=f" {asked_at:.0f}")
            await at(3599)
            assert scene.open == 2
            await at(3650)
            assert scene.waiting["op0 0"].result() is None
            assert not scene.waiting["op0 1000"].done()
            await at(4599)
            assert scene.open == 1
            await at(4700)
            assert scene.waiting["op0 1000"].result() is None
            asked = len(scene.service.lists) + len(scene.service.polls)
            await at(20_000)
            assert len(scene.service.lists) + len(scene.service.polls) == asked

    expire()


@on_virtual_time
async def test_between_two_deadlines_an_operation_is_found_done_as_before():
    """Who is past its deadline takes nothing from who is not: the list tells of it, and no individual poll is added."""
    async with watching(deadline=3600.0) as scene:
        scene.service.add(0, takes=5000.0)
        scene.watch("op0")
        await at(3000)
        scene.watch("op0", by=" again")
        await at(6000)
        first, second = scene.finished()
        assert first is None
        assert second == FinishedOperation("x-op0", pytest.approx(0, abs=0.1))  # type: ignore[arg-type]
        assert len(scene.service.polls) == 1
        assert [seconds for _, seconds in scene.learned] == [pytest.approx(5000, abs=1)]


@on_virtual_time
async def test_a_404_at_the_deadline_of_one_is_not_yet_believed_for_the_other():
    """There is time left to ask again: it must be said twice, a minute apart."""
    async with watching(Service(ids=False), deadline=3600.0) as scene:
        scene.service.add(0, takes=1e6)
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" again")
        await at(3599.5)
        scene.service.gone = {"op0"}
        with pytest.raises(GoneError):
            await scene.waiting["op0"]
        assert 3600 <= now() < 3700
        assert not scene.waiting["op0 again"].done()
        await asyncio.sleep(150)
        with pytest.raises(GoneError):
            scene.waiting["op0 again"].result()


@on_virtual_time
async def test_a_404_before_another_create_was_answered_counts_for_nothing():
    """The service knew the operation then: it must be said twice since."""
    async with watching(Service(ids=False)) as scene:
        scene.service.add(0, takes=2000.0)
        scene.watch("op0")
        scene.service.gone = {"op0"}
        await scene.polled(1)
        await asyncio.sleep(CONFIRMATION_SECONDS / 2)
        scene.watch("op0", by=" again")
        await scene.polled(2)
        scene.service.gone = set()
        await at(5000)
        assert all(isinstance(one, FinishedOperation) for one in scene.finished())


@on_virtual_time
async def test_an_outage_at_two_deadlines_lets_go_of_each():
    """Where nobody can be asked for long, each who waits is told so, the older one sooner."""
    async with watching(deadline=3600.0) as scene:
        scene.service.add(0, takes=1e6)
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" again")
        await at(3000)
        scene.service.fails = scene.service.list_fails = UnavailableError("no route")
        await at(4200)
        assert scene.waiting["op0"].result() is None
        assert scene.open == 1
        await at(5200)
        assert scene.finished() == [None, None]


@pytest.mark.parametrize("leaves", ["op0", "op0 again"])
def test_one_who_leaves_takes_nobody_along(leaves):
    """The other is told as before; when nobody is left, the operation is no longer watched."""

    @on_virtual_time
    async def leave():
        async with watching() as scene:
            scene.start(1, takes=300.0)
            scene.watch("op0", by=" again")
            await at(50)
            scene.waiting.pop(leaves).cancel()
            await settled()
            assert (len(scene.poller.ages), scene.poller.waiters) == (1, 1)
            await at(1000)
            assert isinstance(scene.finished()[0], FinishedOperation)
        async with watching() as scene:
            scene.start(1, takes=1e6)
            scene.watch("op0", by=" again")
            await settled()
            for task in scene.waiting.values():
                task.cancel()
            await settled()
            assert (scene.poller.ages, scene.poller.waiters) == ([], 0)

    leave()


@on_virtual_time
async def test_an_operation_with_many_who_wait_is_one_place_in_the_list():
    """Ages, and the pages of the list that are read, go by operations."""
    service = Service(order="shuffled")
    service.add_history(3000)
    async with watching(service) as scene:
        ids = scene.start(100, takes=20_000.0)
        for by in (" b", " c"):
            scene.watch(*ids, by=by)
        await settled()
        assert (len(scene.poller.ages), scene.poller.waiters) == (100, 300)
        await at(3000)
        assert 1 <= pages_a_poll(service) <= 2


@on_virtual_time
async def test_an_operation_is_as_old_as_the_first_create_that_it_answered():
    """A run that goes on where another ended may come to the younger of the two bundles first."""
    async with watching() as scene:
        scene.service.add(0, takes=1e6)
        await at(500)
        scene.watch("op0", asked_at=400.0)
        await at(600)
        scene.watch("op0", asked_at=100.0, by=" again")
        await settled()
        assert scene.poller.ages == [pytest.approx(500, abs=1)]


@on_virtual_time
async def test_one_who_comes_when_it_was_just_told_is_told_too():
    """Even in the very turn in which the others are told; the duration stays learned once."""
    async with watching() as scene:
        scene.service.jobs["op0"] = job = Job("op0", 1.0, 100.0)
        show = job.shown

        def shown() -> Operation:
            if now() > 100 and "op0 again" not in scene.waiting:
                scene.watch("op0", by=" again")
            return show()

        job.shown = shown  # type: ignore[method-assign]
        scene.watch("op0")
        await at(1000)
        scene.watch("op0", by=" later")
        await at(2000)
        assert scene.finished() == [FinishedOperation("x-op0", 1.0)] * 3
        assert len(scene.learned) == 1


@pytest.mark.parametrize("seed", range(6))
def test_nobody_waits_past_its_deadline(seed):
    """However many come and leave, for however few operations, and whatever becomes of those."""

    @on_virtual_time
    async def crowd():
        dice = random.Random(seed)
        async with watching(Service(ids=seed % 2 == 0), deadline=3600.0) as scene:
            for number in range(6):
                end = dice.choice([None, Ended("no")])
                scene.service.add(number, takes=dice.choice([200.0, 2000.0, 1e6]), ends_as=end)
            for by in range(60):
                scene.watch(f"op{dice.randrange(6)}", asked_at=now() - dice.uniform(0, 900), by=f" {by}")
                if dice.random() < 0.3:
                    dice.choice(list(scene.waiting.values())).cancel()
                await asyncio.sleep(dice.uniform(0, 120))
            await asyncio.sleep(3600 * 1.05)
            assert scene.open == 0
            assert scene.poller.ages == []
            assert len(scene.learned) <= 6
            for task in scene.waiting.values():
                if not task.cancelled() and (error := task.exception()):
                    assert isinstance(error, OperationFailedError)

    crowd()


# What polls cost


@on_virtual_time
async def test_for_throughput_no_poll_goes_out_while_others_wait_for_tokens():
    """Results and creates come first; as soon as nobody waits, what is due is looked at."""
    budget = HandSetBudget(polls_cost=True)
    async with watching(budget=budget) as scene:
        budget.nobody_waits.clear()
        scene.start(40)
        await at(5000)
        assert not scene.service.lists
        budget.nobody_waits.set()
        await at(5060)
        assert scene.open == 0
        assert len(scene.service.lists) == 1


@on_virtual_time
async def test_for_latency_a_due_poll_does_not_wait():
    """It goes out while creates do, once it pays."""
    budget = HandSetBudget(polls_cost=True)
    async with watching(budget=budget, prefer=Prefer.LATENCY) as scene:
        budget.nobody_waits.clear()
        scene.start(40)
        await at(1000)
        assert scene.open == 0
        assert len(scene.service.lists) < 5


@on_virtual_time
async def test_a_poll_waits_for_the_bucket_to_fill_and_no_longer():
    """While tokens gather nothing is lost by waiting; when they would run over, it looks."""
    budget = HandSetBudget(tokens=10, polls_cost=True)
    async with watching(budget=budget) as scene:
        for number in range(60):
            scene.watch(scene.service.add(number, takes=200.0 if number % 2 else 1e5))
        await at(600)
        assert not scene.service.lists
        budget.tokens = 48
        await at(640)
        assert scene.open == 30


@on_virtual_time
async def test_where_individual_polls_cost_the_likeliest_is_asked_first():
    """One at a time, since each may change what is best next."""
    budget = HandSetBudget(tokens=20, polls_cost=True)
    async with watching(Service(ids=False), budget=budget, prefer=Prefer.LATENCY) as scene:
        for number in range(5):
            scene.watch(scene.service.add(number, takes=1e5))
            await asyncio.sleep(200)
        await at(50_000)
        first_asked = list(dict.fromkeys(one for _, one in scene.service.polls))
        assert first_asked[:3] == ["op0", "op1", "op2"]


# The first look, and asking for one


@on_virtual_time
async def test_the_first_look_learns_the_shape_of_the_list():
    """One page, before anything is created."""
    async with watching(Service(ids=False)) as scene:
        scene.service.add_history(3)
        await scene.poller.prime()
        assert scene.poller.mode is PollingMode.INDIVIDUAL
        assert len(scene.service.lists) == 1


@on_virtual_time
async def test_the_first_look_waits_for_the_service():
    """Until it answers, whatever with; a list that is refused is an answer, too."""
    for answer, mode in ((None, PollingMode.LIST), (RefusedError("no", status=400), PollingMode.INDIVIDUAL)):
        async with watching() as scene:
            scene.service.troubles = [UnavailableError("503"), RateLimitedError("429"), ReplyError("html"), answer]
            await scene.poller.prime()
            assert scene.poller.mode is mode
            assert len(scene.service.lists) == 4


@pytest.mark.parametrize("error", [UnauthorizedError("401"), UnavailableError("six hours", lasting=True)])
def test_what_ends_a_run_ends_the_first_look(error):
    """A refused key, and a service that is gone for good."""

    @on_virtual_time
    async def end():
        async with watching(Service(list_fails=error)) as scene:
            with pytest.raises(type(error)):
                await scene.poller.prime()

    end()


@pytest.mark.parametrize("ids", [True, False], ids=["list", "individual"])
@pytest.mark.parametrize("error", [UnauthorizedError("401"), UnavailableError("six hours", lasting=True)])
def test_what_ends_a_run_ends_the_watching(error, ids):
    """It is raised for whoever runs it."""

    @on_virtual_time
    async def end():
        async with watching(Service(ids=ids)) as scene:
            scene.start(3)
            await at(20)
            scene.service.fails = scene.service.list_fails = error
            with pytest.raises(type(error)):
                await scene.run
            assert now() < 3000

    end()


@on_virtual_time
async def test_asking_for_one_tells_how_it_stands():
    """Done, running, failed or gone; and nothing is learned of durations where the service does not say."""
    async with watching() as scene:
        service = scene.service
        service.add(0, takes=10.0)
        service.add(1, takes=1e6)
        service.add(2, takes=10.0, ends_as=Ended("no"))
        await at(20)
        assert await scene.poller.ask("op0") == FinishedOperation("x-op0", pytest.approx(0, abs=0.1))  # type: ignore[arg-type]
        assert await scene.poller.ask("op1") is None
        with pytest.raises(OperationFailedError):
            await scene.poller.ask("op2")
        service.gone = {"op1"}
        with pytest.raises(GoneError):
            await scene.poller.ask("op1")
        assert len(scene.learned) == 1


@on_virtual_time
async def test_a_finish_without_its_times_is_counted_from_when_it_was_asked_for():
    """The service may leave them out; then the poll itself is the latest it can have been."""
    async with watching() as scene:
        job = Job("op0", 0.0, 100.0)
        job.shown = lambda: Operation("op0", Completed("x") if now() > 100 else Running("PENDING"))  # type: ignore[method-assign]
        scene.service.jobs["op0"] = job
        scene.watch("op0", asked_at=-5.0)
        await at(1000)
        assert scene.finished() == [FinishedOperation("x", -5.0)]
        assert 95 <= scene.learned[0][1] <= 400
        await settled()
